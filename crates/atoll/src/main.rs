//! The binary: configuration, roles, telemetry, command line. Only this crate reads flags and the environment,
//! and opens listeners.

mod admin;
mod config;
mod explain;
mod metrics;
mod output;
mod process;
mod role;
mod rules;
mod serve;
mod sim;
mod telemetry;
mod version;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

use crate::config::{Configuration, Sources};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The command line.
#[derive(Parser)]
#[command(version, about = "The communications backbone of virtual worlds")]
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
    /// Run headless clients in a realm, and check that they receive each other.
    Bots(loadtest::Flags),
    /// Explain why peers are in one island or not, and why on this transport.
    Explain(explain::Flags),
    /// Check owner rules, or show their effect on a running realm.
    #[command(subcommand)]
    Rules(rules::command::Command),
    /// Simulate a crowd, a scenario file or random layouts on the island engine alone.
    Sim(sim::Flags),
}

#[derive(clap::Args)]
struct ConfigFlags {
    /// The configuration file; without it, atoll.toml if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address and port to listen on [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The NATS server that connects the roles; without it, they run in this process.
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// The roles of this process [default: gateway,rooms,director,stats].
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
    /// The file of owner rules.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The format of the log: pretty or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// The level of the log: error, warn, info, debug, trace, or directives as in RUST_LOG.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ConfigFlags {
    fn load(self) -> Result<Configuration> {
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
    // Installed once, before the first use of TLS. Only a second call in one process can fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match command {
        Command::Serve(flags) => {
            let configuration = flags.load()?;
            let runtime = runtime()?;
            let served = runtime.block_on(serve::serve(configuration));
            // Dropping the runtime would wait for blocking calls, such as a name lookup without an
            // answer.
            runtime.shutdown_background();
            served.map(|()| ExitCode::SUCCESS)
        }
        Command::Config(flags) => {
            let settings = flags.load()?.settings.to_toml();
            // A reader that closes the pipe early, such as `head`, has read enough.
            let _ = io::stdout().write_all(settings.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Command::Bots(flags) => runtime()?.block_on(loadtest::run(flags)),
        Command::Explain(flags) => runtime()?.block_on(explain::explain(flags)),
        Command::Rules(command) => runtime()?.block_on(rules::command::run(command)),
        Command::Sim(flags) => sim::run(&flags),
    }
}
