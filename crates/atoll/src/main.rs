//! The binary: configuration, roles, telemetry, bots. Only this crate reads flags and the
//! environment, and owns listeners.

mod admin;
mod api;
mod bots;
mod config;
mod explain;
mod http;
mod output;
mod process;
mod role;
mod rules;
mod serve;
mod sim;
mod telemetry;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

use crate::config::{Settings, Sources};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Which commit this was built from, when the build said so.
pub(crate) const COMMIT_HASH: Option<&str> = option_env!("COMMIT_HASH");

/// The communications backbone of virtual worlds.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a realm: gateway, rooms, director and presence, all of them or some.
    Serve(ConfigFlags),
    /// Print the settings in force, with secrets hidden.
    Config(ConfigFlags),
    /// Send headless explorers into a realm, and check that they hear each other.
    Bots(bots::Flags),
    /// Say why people are together or not, and why on this transport.
    Explain(explain::Flags),
    /// Check owner rules, or see what they would change.
    #[command(subcommand)]
    Rules(rules::Command),
    /// Simulate a crowd, a scenario file or random layouts on the island engine alone.
    Sim(sim::Flags),
}

#[derive(clap::Args)]
struct ConfigFlags {
    /// The configuration file; without it, atoll.toml where there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address and port to listen on [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The NATS server over which the roles talk; without it, within the process.
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// What this process is to the realm [default: gateway,rooms,director,stats].
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
    /// The file of owner rules.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// How the log is written: pretty or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or directives as in RUST_LOG.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ConfigFlags {
    fn load(self) -> Result<(Settings, config::ValidatedSettings)> {
        let rules = self.rules.map(|path| path.display().to_string());
        let flags = [
            ("server.listen", self.listen),
            ("bus.url", self.bus),
            ("server.roles", self.roles),
            ("rules.file", rules),
            ("log.format", self.log_format),
            ("log.level", self.log_level),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let environment = config::environment(std::env::vars_os())?;
        Ok(config::load(Sources { file: self.config, environment, flags })?)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = run(cli.command).unwrap_or_else(|error| {
        output::STDERR.append(format!("atoll: {error:#}\n").as_bytes());
        ExitCode::FAILURE
    });
    output::flush();
    code
}

fn run(command: Command) -> Result<ExitCode> {
    // Once, before anything speaks TLS; only the first of a process can fail to.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match command {
        Command::Serve(flags) => {
            let (settings, parsed) = flags.load()?;
            let runtime = runtime()?;
            let served = runtime.block_on(serve::serve(settings, parsed));
            // Dropping it would wait for blocking calls, such as a name lookup that gets no answer.
            runtime.shutdown_background();
            served.map(|()| ExitCode::SUCCESS)
        }
        Command::Config(flags) => {
            let settings = config::print(&flags.load()?.0);
            // A reader that closes the pipe early, such as `head`, has what it wants.
            let _ = io::stdout().write_all(settings.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Command::Bots(flags) => runtime()?.block_on(bots::run(flags)),
        Command::Explain(flags) => runtime()?.block_on(explain::explain(flags)),
        Command::Rules(command) => runtime()?.block_on(rules::run(command)),
        Command::Sim(flags) => sim::run(&flags),
    }
}
