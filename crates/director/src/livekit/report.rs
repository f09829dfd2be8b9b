//! The report of a server's health to the engine.

use std::{sync::Arc, time::Duration};

use archipelago::{Input, Transport};
use transports::livekit::HealthReport;

use crate::configured_nodes::ConfiguredNode;

/// Explanations name a latency from this on.
const SLOW_REPLY: Duration = Duration::from_millis(500);

/// The input of the engine for a report, while this many peers are on the server.
pub(super) fn engine_input(configured: &ConfiguredNode, report: &HealthReport, users: u32) -> Input {
    let transport = configured.transport(users);
    match &report.health {
        Ok(()) => Input::Transport(Transport { note: slowness(report.latency), ..transport }),
        Err(error) => Input::TransportDown { transport, reason: error.to_string().into() },
    }
}

/// The remark about a server that replied late.
fn slowness(latency: Option<Duration>) -> Option<Arc<str>> {
    let latency = latency.filter(|latency| *latency >= SLOW_REPLY)?;
    Some(format!("its API is slow: the last reply took {:.1} s", latency.as_secs_f64()).into())
}
