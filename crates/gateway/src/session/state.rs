//! The state of a session after its sign-in: decides on heartbeats, their repetition, and idle clients.
//! Sans-IO.

use std::{sync::Arc, time::Duration};

use protocol::{IslandId, Position, PositionError, subject::SubjectScheme, v3::Heartbeat};
use tokio::time::Instant;

use crate::{
    metrics,
    session::{heartbeat_encoder::HeartbeatEncoder, message::IslandChange, resumption::Resumption},
    settings::Settings,
};

/// The state of one session.
#[derive(Debug)]
pub(crate) struct SessionState {
    settings: Arc<Settings>,
    /// The scheme of the bus, which decides the encoding of heartbeats.
    scheme: SubjectScheme,
    began_at: Instant,
    /// The last position that the client reported, and the time of the report.
    last_position: Option<(Position, Instant)>,
    encoder: HeartbeatEncoder,
    /// Time of the last heartbeat that was published.
    published_at: Instant,
    /// Time at which to republish the last position: after a roster request, or at the start with external
    /// clustering.
    republish_at: Option<Instant>,
}

impl SessionState {
    /// The state of a new session. `transports`: those that the client can join, separated by commas.
    /// `resumption`: its resumption state, if it can be resumed.
    pub(crate) fn new(
        transports: Option<&str>,
        resumption: Option<Resumption>,
        settings: Arc<Settings>,
        scheme: SubjectScheme,
        now: Instant,
    ) -> Self {
        let mut encoder = HeartbeatEncoder::new(transports);
        if let Some(Resumption { hash, resumes, .. }) = resumption {
            encoder.set_resumption(hash, resumes);
        }
        // With external clustering a peer needs no position to be placed in an island: the director must
        // learn of it at once.
        let republish_at = settings.external_clustering.then_some(now);
        Self {
            settings,
            scheme,
            began_at: now,
            last_position: None,
            encoder,
            published_at: now,
            republish_at,
        }
    }

    /// Processes a heartbeat of the client, and returns the encoded heartbeat to publish, if any. A heartbeat
    /// with an invalid position counts as one at the last position. `epoch`: the highest one that the gateway
    /// has seen.
    pub(crate) fn receive_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        epoch: u64,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let position = match Position::checked(heartbeat.position.as_ref(), self.settings.position_bound_m) {
            Ok(position) => {
                if let Some(room) = heartbeat.desired_room.filter(|room| is_valid_preference(room)) {
                    self.encoder.set_preferred_island(room);
                }
                position
            }
            Err(error) => {
                let reason = match error {
                    PositionError::NotFinite => "not_finite",
                    PositionError::OutOfBounds => "out_of_bounds",
                    PositionError::Missing => "missing",
                };
                tracing::debug!(%error, "heartbeat refused, the last position is kept");
                metrics::heartbeats_refused(reason).increment(1);
                // The client is alive, at its last position.
                self.last_position?.0
            }
        };
        self.last_position = Some((position, now));
        self.encode(Some(position), epoch, now)
    }

    /// Whether the client sent no heartbeat for too long, regardless of other traffic: the session ends. With
    /// external clustering heartbeats are not required.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        if self.settings.external_clustering {
            return false;
        }
        let (last_heartbeat, limit) = match &self.last_position {
            // While the position is still republished, the session does not end.
            Some((_, at)) => (*at, self.settings.idle_timeout.max(self.settings.republish_for)),
            None => (self.began_at, self.settings.idle_timeout),
        };
        now - last_heartbeat >= limit
    }

    /// Republishes the last position of a quiet client if the last publication is `republish_interval` ago:
    /// see [`Self::republish`].
    pub(crate) fn republish_if_due(
        &mut self,
        unresponsive: bool,
        epoch: u64,
        now: Instant,
    ) -> Option<Vec<u8>> {
        // Ticks are late by a varying amount, so two of them can be a little less than the interval apart.
        let slack = Duration::from_millis(100);
        match now - self.published_at + slack >= self.settings.republish_interval {
            true => self.republish(unresponsive, epoch, now),
            false => None,
        }
    }

    /// Schedules a republication at the given time, unless one is scheduled already.
    pub(crate) fn schedule_republish(&mut self, at: Instant) {
        self.republish_at.get_or_insert(at);
    }

    /// Time at which [`Self::republish`] is due.
    pub(crate) fn republish_at(&self) -> Option<Instant> {
        self.republish_at
    }

    /// Returns an encoded heartbeat to publish at the last position, unless that is older than
    /// `republish_for`; with external clustering at any age, or without a position. `unresponsive`: all
    /// allowed pings are unanswered, so nothing is published.
    pub(crate) fn republish(&mut self, unresponsive: bool, epoch: u64, now: Instant) -> Option<Vec<u8>> {
        self.republish_at = None;
        if unresponsive {
            return None;
        }
        match self.last_position {
            _ if self.settings.external_clustering => {
                self.encode(self.last_position.map(|(position, _)| position), epoch, now)
            }
            Some((position, at)) if now - at <= self.settings.republish_for => {
                self.encode(Some(position), epoch, now)
            }
            _ => None,
        }
    }

    /// Encodes a heartbeat that is published now; `None`: the position is unknown.
    fn encode(&mut self, position: Option<Position>, epoch: u64, now: Instant) -> Option<Vec<u8>> {
        self.published_at = now;
        // This heartbeat also serves a pending roster request.
        self.republish_at = None;
        match self.scheme {
            SubjectScheme::CommsV3 => Some(self.encoder.encode(position, epoch)),
            // Services of archipelago-workers expect a position.
            SubjectScheme::ArchipelagoWorkers => {
                position.map(|position| self.encoder.encode_client_heartbeat(position))
            }
        }
    }

    /// Records the assignment that the dialect delivers to the client. The dialect may send it later.
    pub(crate) fn record_island(&mut self, change: &IslandChange) {
        tracing::Span::current().record("island", change.island.as_str());
        self.encoder.set_assignment(&change.island, change.node.as_ref());
    }
}

/// Whether `desired_room` of a heartbeat is valid: an island id, or empty to end the preference. An invalid
/// value is ignored, and the earlier preference stays in effect.
fn is_valid_preference(room: &str) -> bool {
    room.is_empty() || room.parse::<IslandId>().is_ok()
}

#[cfg(test)]
mod tests {
    use protocol::{Message as _, atoll_bus::GatewayHeartbeat};

    use super::*;
    use crate::settings::tests::settings;

    const EPOCH: u64 = 0;
    const SECOND: Duration = Duration::from_secs(1);

    fn new_state(settings: &Settings, now: Instant) -> SessionState {
        SessionState::new(None, None, Arc::new(settings.clone()), SubjectScheme::CommsV3, now)
    }

    fn heartbeat(x: f32, desired_room: Option<&str>) -> Heartbeat {
        let position = Some(Position::new(x, 0.0, 0.0).into());
        Heartbeat { position, desired_room: desired_room.map(str::to_owned) }
    }

    /// A published heartbeat: the x of its position, if it has one.
    #[derive(Debug, PartialEq)]
    struct Published(Option<f32>);

    fn published(heartbeat: Option<Vec<u8>>) -> Option<Published> {
        let heartbeat = GatewayHeartbeat::decode(&heartbeat?[..]).unwrap();
        Some(Published(heartbeat.position.map(|position| position.x)))
    }

    fn at(x: f32) -> Option<Published> {
        Some(Published(Some(x)))
    }

    #[test]
    fn valid_heartbeats_publish_and_invalid_ones_keep_position() {
        let (settings, now) = (settings(), Instant::now());
        let mut state = new_state(&settings, now);
        let mut receive = |heartbeat| published(state.receive_heartbeat(heartbeat, EPOCH, now));
        assert_eq!(receive(heartbeat(1.0, None)), at(1.0));
        for bad in [f32::NAN, f32::INFINITY, 100_001.0] {
            assert_eq!(receive(heartbeat(bad, None)), at(1.0), "the last position is kept");
        }
        assert_eq!(receive(Heartbeat::default()), at(1.0));
        let without_position =
            new_state(&settings, now).receive_heartbeat(heartbeat(f32::NAN, None), EPOCH, now);
        assert_eq!(without_position, None, "it has no position yet");
    }

    #[test]
    fn archipelago_workers_receive_plain_heartbeats() {
        let (settings, now) = (Settings { external_clustering: true, ..settings() }, Instant::now());
        let mut state =
            SessionState::new(Some("p2p"), None, Arc::new(settings), SubjectScheme::ArchipelagoWorkers, now);
        assert_eq!(state.republish(false, EPOCH, now), None, "they expect a position");
        let plain = heartbeat(1.0, None);
        assert_eq!(state.receive_heartbeat(plain.clone(), EPOCH, now), Some(plain.encode_to_vec()));
    }

    #[test]
    fn external_clustering_needs_no_heartbeat() {
        let (settings, start) = (Settings { external_clustering: true, ..settings() }, Instant::now());
        let mut state = new_state(&settings, start);
        assert_eq!(state.republish_at(), Some(start));
        assert_eq!(published(state.republish(false, EPOCH, start)), Some(Published(None)));
        assert_eq!(
            published(state.republish_if_due(false, EPOCH, start + 5 * SECOND)),
            Some(Published(None))
        );
        assert!(!state.is_idle(start + 86_400 * SECOND));
        state.receive_heartbeat(heartbeat(1.0, None), EPOCH, start + 10 * SECOND);
        assert_eq!(
            published(state.republish_if_due(false, EPOCH, start + 500 * SECOND)),
            at(1.0),
            "regardless of the age of the position"
        );
        assert_eq!(published(state.republish_if_due(true, EPOCH, start + 505 * SECOND)), None);
    }

    #[test]
    fn preference_lasts_until_ended_or_replaced() {
        let (settings, now) = (settings(), Instant::now());
        let mut state = new_state(&settings, now);
        let mut reported = |desired_room| {
            let published = state.receive_heartbeat(heartbeat(1.0, desired_room), EPOCH, now).unwrap();
            GatewayHeartbeat::decode(&published[..]).unwrap().desired_room
        };
        assert_eq!(reported(None), None);
        for (sent, expected) in [
            (Some("I1"), "I1"),
            (None, "I1"),
            (Some("no.island >"), "I1"),
            (Some(""), ""),
            (None, ""),
            (Some("I2"), "I2"),
        ] {
            assert_eq!(reported(sent).as_deref(), Some(expected), "after {sent:?}");
        }
    }

    #[test]
    fn quiet_client_is_republished_for_a_limited_time() {
        let (settings, start) = (settings(), Instant::now());
        let mut state = new_state(&settings, start);
        assert_eq!(
            published(state.republish_if_due(false, EPOCH, start + 5 * SECOND)),
            None,
            "it never reported a position"
        );
        state.receive_heartbeat(heartbeat(1.0, None), EPOCH, start);
        assert_eq!(published(state.republish_if_due(false, EPOCH, start + 4 * SECOND)), None);
        assert_eq!(published(state.republish_if_due(false, EPOCH, start + 5 * SECOND)), at(1.0));
        assert_eq!(published(state.republish_if_due(false, EPOCH, start + 6 * SECOND)), None);
        assert_eq!(published(state.republish_if_due(false, EPOCH, start + 120 * SECOND)), at(1.0));
        assert_eq!(published(state.republish_if_due(false, EPOCH, start + 126 * SECOND)), None);
    }

    #[test]
    fn roster_request_is_served_once_per_session() {
        let (settings, start) = (settings(), Instant::now());
        let mut state = new_state(&settings, start);
        state.schedule_republish(start);
        assert_eq!(published(state.republish(false, EPOCH, start)), None, "it never reported a position");
        state.receive_heartbeat(heartbeat(1.0, None), EPOCH, start);
        state.schedule_republish(start + SECOND);
        state.schedule_republish(start + 2 * SECOND);
        assert_eq!(state.republish_at(), Some(start + SECOND), "one republication serves all requests");
        assert_eq!(published(state.republish(false, EPOCH, start + SECOND)), at(1.0));
        assert_eq!(state.republish_at(), None);
        assert_eq!(
            published(state.republish_if_due(false, EPOCH, start + 5 * SECOND)),
            None,
            "it was published just now"
        );
        state.schedule_republish(start + 6 * SECOND);
        state.receive_heartbeat(heartbeat(2.0, None), EPOCH, start + 5 * SECOND);
        assert_eq!(state.republish_at(), None, "its own heartbeat served the request");
        state.schedule_republish(start + 7 * SECOND);
        assert_eq!(
            published(state.republish(true, EPOCH, start + 7 * SECOND)),
            None,
            "it does not answer pings"
        );
    }

    #[test]
    fn socket_without_heartbeats_is_idle() {
        let (settings, start) = (settings(), Instant::now());
        let mut state = new_state(&settings, start);
        assert!(!state.is_idle(start + 89 * SECOND));
        assert!(state.is_idle(start + 90 * SECOND));
        state.receive_heartbeat(heartbeat(1.0, None), EPOCH, start);
        assert!(!state.is_idle(start + 119 * SECOND), "its position is still republished");
        assert!(state.is_idle(start + 120 * SECOND));
    }
}
