//! The state of the connection, as the writer task observes it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use async_nats::{Client, connection::State};
use tokio::sync::watch;

use super::timing::RECONNECT_GRACE;
use crate::metrics;

/// Watches the connection of the client library.
pub(super) struct Link {
    client: Client,
    state: LinkState,
    /// Whether publishing is suspended: the connection is down or in its reconnect grace. Shared with
    /// publishers.
    disconnected: Arc<AtomicBool>,
    /// How often publishing resumed after a reconnect.
    reconnects: watch::Sender<u64>,
    /// How often the client library connected.
    connects: u64,
}

enum LinkState {
    Connected,
    /// Since this time.
    Disconnected(Instant),
    /// Reconnected; nothing is published until this time.
    ReconnectGrace(Instant),
}

/// Publishing resumes with this check: the reconnect grace is over.
pub(super) struct Resumed;

impl Link {
    /// The link of a client that has just connected.
    pub(super) fn new(client: Client, disconnected: Arc<AtomicBool>, reconnects: watch::Sender<u64>) -> Self {
        metrics::connected().set(1.0);
        Self { client, state: LinkState::Connected, disconnected, reconnects, connects: 1 }
    }

    /// Whether messages are published.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Connected)
    }

    /// Checks the connection, and applies a change of its state. `buffered` messages wait for the reconnect.
    pub(super) fn check(&mut self, buffered: usize) -> Option<Resumed> {
        let connected = self.client.connection_state() == State::Connected;
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        // The connection may have been lost and re-established between two checks.
        let is_stable = connected && connects == self.connects;
        match self.state {
            LinkState::Connected if is_stable => {}
            LinkState::ReconnectGrace(until) if is_stable => {
                if until <= Instant::now() {
                    self.state = LinkState::Connected;
                    self.disconnected.store(false, Ordering::Relaxed);
                    return Some(Resumed);
                }
            }
            LinkState::Connected | LinkState::ReconnectGrace(_) => self.on_disconnect(),
            LinkState::Disconnected(since) if connected => {
                metrics::reconnects().increment(connects - self.connects);
                metrics::connected().set(1.0);
                let disconnected_ms = since.elapsed().as_millis();
                tracing::info!(disconnected_ms, buffered, "reconnected to NATS");
                self.connects = connects;
                self.state = LinkState::ReconnectGrace(Instant::now() + RECONNECT_GRACE);
            }
            LinkState::Disconnected(_) => {}
        }
        None
    }

    /// Counts the reconnect: the messages that waited for it were sent.
    pub(super) fn count_reconnect(&self, Resumed: Resumed) {
        self.reconnects.send_modify(|times| *times += 1);
    }

    /// The connection is lost.
    pub(super) fn on_disconnect(&mut self) {
        self.state = LinkState::Disconnected(Instant::now());
        self.disconnected.store(true, Ordering::Relaxed);
        metrics::connected().set(0.0);
        tracing::warn!("the connection to NATS is lost");
    }

    /// The connection is closed for good.
    pub(super) fn on_closed(&self) {
        metrics::connected().set(0.0);
        tracing::error!("the connection to NATS is closed");
    }
}
