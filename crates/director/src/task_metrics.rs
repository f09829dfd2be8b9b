//! The metrics of the director's task.

use ::metrics::{Counter, Gauge, Histogram};
use archipelago::Engine;

use crate::{leader::Leader, metrics};

/// The handles, cached for the task's loop.
pub(crate) struct TaskMetrics {
    pub(crate) heartbeats: Counter,
    pub(crate) flush: Histogram,
    pub(crate) lag: Histogram,
    peers: Gauge,
    islands: Gauge,
    leader_gauge: Gauge,
    epoch: Gauge,
    pub(crate) takeovers: Counter,
}

impl TaskMetrics {
    pub(crate) fn new() -> Self {
        Self {
            heartbeats: metrics::heartbeats(),
            flush: metrics::flush_seconds(),
            lag: metrics::flush_lag_seconds(),
            peers: metrics::peers(),
            islands: metrics::islands(),
            leader_gauge: metrics::leads(),
            epoch: metrics::epoch(),
            takeovers: metrics::takeovers(),
        }
    }

    /// Sets the gauges of this director; `leader` is `None` unless it leads.
    pub(crate) fn set_gauges(&self, leader: Option<&Leader>) {
        let engine = leader.map(Leader::engine);
        let epoch = leader.and_then(|leader| leader.term().epoch);
        self.peers.set(engine.map_or(0, Engine::peers_count) as f64);
        self.islands.set(engine.map_or(0, Engine::islands_count) as f64);
        self.leader_gauge.set(f64::from(u8::from(leader.is_some())));
        self.epoch.set(epoch.unwrap_or_default() as f64);
    }
}
