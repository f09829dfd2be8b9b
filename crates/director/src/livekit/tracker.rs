//! The occupancy of a server, from its webhooks and from lists of participants.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use protocol::{IslandId, NodeName, RoomName, unix_ms};
use transports::livekit::{
    occupancy::{Changes, Participant},
    webhook::{Event, RecentIds},
};

use super::monitor::ServerState;
use crate::metrics;

/// Keeps the occupancy of a server, and notices whether the server sends webhooks.
pub(super) struct Tracker {
    node: NodeName,
    state: Arc<Mutex<ServerState>>,
    recent: RecentIds,
    /// Participants that joined before this need not have been reported, in milliseconds since the Unix epoch.
    reported_since_ms: u64,
}

/// How often participants are listed if the server sends webhooks.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(30);
/// How often they are listed otherwise.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A webhook that is later than this is missing. They arrive within half a second of the event.
const LATEST_WEBHOOK_MS: u64 = 5_000;

impl Tracker {
    pub(super) fn new(node: NodeName, state: Arc<Mutex<ServerState>>) -> Self {
        metrics::livekit_sends_webhooks(&node).set(0.0);
        Self { node, state, recent: RecentIds::default(), reported_since_ms: unix_ms(SystemTime::now()) }
    }

    /// Applies an event. A repeated one changes nothing.
    pub(super) fn apply(&mut self, event: &Event) -> Changes {
        if !self.recent.insert(&event.id) {
            return Changes::default();
        }
        self.set_sends_webhooks(true);
        let changes = self.state.lock().occupancy.apply(event, Instant::now());
        self.set_gauge();
        changes
    }

    /// Applies a list of the participants of a room that was requested at this time.
    pub(super) fn reconcile(&mut self, room: &str, list: Vec<Participant>, requested_at: Instant) {
        let changes = self.state.lock().occupancy.reconcile(room, list, requested_at);
        let now_ms = unix_ms(SystemTime::now());
        let is_missed = |participant: &&Participant| {
            participant.joined_ms > self.reported_since_ms
                && participant.joined_ms + LATEST_WEBHOOK_MS < now_ms
        };
        if changes.joined.iter().any(|participant| is_missed(&participant)) {
            self.reported_since_ms = now_ms;
            self.set_sends_webhooks(false);
        }
        self.set_gauge();
    }

    /// The sid of the participant with this identity in the room of an island.
    pub(super) fn sid(&self, island: &IslandId, identity: &str) -> Option<String> {
        let state = self.state.lock();
        state.occupancy.participant(island.as_str(), identity).map(|participant| participant.sid.clone())
    }

    /// The rooms that have participants.
    pub(super) fn rooms(&self) -> Vec<RoomName> {
        self.state.lock().occupancy.rooms().filter_map(|room| room.parse().ok()).collect()
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.state.lock().healthy = healthy;
    }

    /// Participants of all rooms, without agents and hidden ones.
    pub(super) fn users(&self) -> u32 {
        u32::try_from(self.state.lock().occupancy.total()).unwrap_or(u32::MAX)
    }

    /// How often participants are listed.
    pub(super) fn list_interval(&self) -> Duration {
        if self.state.lock().webhooks { RECONCILE_INTERVAL } else { POLL_INTERVAL }
    }

    fn set_sends_webhooks(&self, sends: bool) {
        if std::mem::replace(&mut self.state.lock().webhooks, sends) == sends {
            return;
        }
        metrics::livekit_sends_webhooks(&self.node).set(f64::from(u8::from(sends)));
        let node = &self.node;
        match sends {
            true => tracing::info!(%node, "the LiveKit server sends webhooks"),
            false => tracing::warn!(
                %node,
                "a webhook is missing: participants are listed every two seconds; \
                 configure POST /livekit/webhook/{node} at this process in the LiveKit server"
            ),
        }
    }

    fn set_gauge(&self) {
        metrics::livekit_participants(&self.node).set(f64::from(self.users()));
    }
}
