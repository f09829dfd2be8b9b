//! CPU cost and latency of deliveries in rooms, compared with other WebSocket servers.
//!
//! Each server runs in a process of its own on one core, and the loader (the load generator) runs on another.
//! The loader enters each client into its room, sends 64 bytes from each client at a fixed rate, and counts the
//! deliveries. `cargo bench -p rooms` takes about a minute; `--help` lists the options. Examples, each after
//! `cargo bench -p rooms --bench fanout --`:
//!
//! ```text
//! --loads all --servers atoll,axum,axum-flush --rounds 5
//! --loads 1x100 --servers atoll --server-command "before=target/fanout-before --server atoll" --rounds 5
//! ```
//!
//! `yardstick_bun.mjs` in the folder above is a server for `--server-command`, on uWebSockets (C++).
//!
//! With several rounds the servers take turns, and the table at the end has the medians.

mod atoll_server;
mod axum_rooms;
mod client;
mod frame;
mod load;
mod loader;
mod options;
mod pinning;
mod report;
mod run;
mod server_process;

use anyhow::Result;
use clap::Parser;
use mimalloc::MiMalloc;

use crate::{
    options::{Options, ServerName},
    report::Report,
};

/// The allocator of the `atoll` binary.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Result<()> {
    let options = Options::parse();
    // Servers inherit the limit.
    rlimit::increase_nofile_limit(u64::MAX)?;
    match options.server {
        Some(name) => serve(name, options.flush_interval_ms),
        None => measure(&options),
    }
}

/// Serves until the process is killed. The first line of the output is the address.
fn serve(name: ServerName, flush_interval_ms: u64) -> Result<()> {
    // The runtime of `atoll serve`: a thread for each core that the process may use.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match name {
            ServerName::Atoll => atoll_server::serve(flush_interval_ms).await,
            ServerName::Axum => axum_rooms::serve(axum_rooms::Writing::Send).await,
            ServerName::AxumFlush => axum_rooms::serve(axum_rooms::Writing::FeedAndFlush).await,
        }
    })
}

fn measure(options: &Options) -> Result<()> {
    let server_core = pinning::pin_loader(options.server_core, options.loader_core);
    let mut report = Report::new(&options.yardstick);
    for round in 1..=options.rounds {
        if options.rounds > 1 {
            println!("round {round} of {}", options.rounds);
        }
        for (load, order) in options.workloads()? {
            for server in options.servers()? {
                let run = run::run(&server, server_core, load, order, options)?;
                println!("{run}");
                report.add(run);
            }
        }
    }
    print!("{report}");
    Ok(())
}
