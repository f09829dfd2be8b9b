//! Load tests of a realm, from outside: everything that `atoll bots` runs.
//!
//! - `bots`: headless clients that walk, publish, and check that they receive each other.
//! - `login_load`: sign-ins at a fixed rate.
//! - `topics`: messages under one topic, to many subscribers.
//! - `heartbeats`: heartbeats of simulated peers, which one director processes.
//!
//! A load test knows a realm as clients and operators do: by its sockets, its `/metrics` and its bus. So this
//! crate depends on no role.

mod bots;
mod flags;
mod gateways;
mod heartbeats;
mod login_load;
mod percentiles;
mod realm_metrics;
mod topics;

use std::process::ExitCode;

use anyhow::Result;

pub use flags::Flags;

/// Runs the load test that the flags choose, and prints its summary. The exit code is that of a failed run if
/// one of its checks failed.
pub async fn run(flags: Flags) -> Result<ExitCode> {
    if let (Some(rate), Some(seconds)) = (flags.login_storm, flags.seconds) {
        return login_load::run(&flags, rate, seconds).await;
    }
    if let (Some(rate), Some(seconds)) = (flags.topics, flags.seconds) {
        return topics::run(&flags, rate, seconds).await;
    }
    if let (Some(rate), Some(seconds), Some(bus)) = (flags.heartbeats, flags.seconds, &flags.bus) {
        return heartbeats::run(&flags, bus, rate, seconds).await;
    }
    bots::run(flags).await
}
