//! The state of a session after its sign-in: decides on heartbeats, their repetition, and idle clients.
//! Sans-IO.

use std::time::Duration;

use protocol::{
    Close, IslandId, Position, PositionError,
    v3::{ClientPacket, Heartbeat, client_packet},
};
use tokio::time::Instant;

use crate::{
    metrics,
    session::{heartbeat_encoder::HeartbeatEncoder, message::IslandChange, resumption::Resumption},
    settings::Settings,
};

/// The state of one session.
#[derive(Debug)]
pub(crate) struct SessionState {
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

/// The next action of a session.
#[derive(Debug, PartialEq)]
pub(crate) enum SessionAction {
    /// Do nothing.
    Ignore,
    /// Publish a heartbeat; `None`: at an unknown position.
    Publish(Option<Position>),
    /// Check whether the client was active recently:
    /// [`SessionTimers::resolve_check`](crate::session::timers::SessionTimers::resolve_check).
    CheckLiveness,
    /// Ping the client.
    Ping,
    /// End the session.
    End(Close),
}

impl SessionState {
    /// The state of a new session. `transports`: those that the client can join, separated by commas.
    pub(crate) fn new(transports: Option<&str>, settings: &Settings, now: Instant) -> Self {
        let encoder = HeartbeatEncoder::new(transports);
        // With external clustering a peer needs no position to be placed in an island: the director must
        // learn of it at once.
        let republish_at = settings.external_clustering.then_some(now);
        Self { began_at: now, last_position: None, encoder, published_at: now, republish_at }
    }

    /// Adds the resumption state, for a session that can be resumed.
    pub(crate) fn with_resumption(mut self, resumption: Option<Resumption>) -> Self {
        if let Some(Resumption { hash, resumes, .. }) = resumption {
            self.encoder.set_resumption(hash, resumes);
        }
        self
    }

    /// Processes a packet.
    pub(crate) fn receive(
        &mut self,
        packet: ClientPacket,
        settings: &Settings,
        now: Instant,
    ) -> SessionAction {
        match packet.message {
            None => SessionAction::Ignore,
            Some(client_packet::Message::Heartbeat(heartbeat)) => {
                self.receive_heartbeat(heartbeat, settings, now)
            }
            Some(_) => SessionAction::End(Close::OutOfOrder),
        }
    }

    /// Processes a heartbeat. A heartbeat with an invalid position counts as one at the last position.
    pub(crate) fn receive_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        settings: &Settings,
        now: Instant,
    ) -> SessionAction {
        match Position::checked(heartbeat.position.as_ref(), settings.position_bound_m) {
            Ok(position) => {
                if let Some(room) = heartbeat.desired_room.filter(|room| is_valid_preference(room)) {
                    self.encoder.set_preferred_island(room);
                }
                self.last_position = Some((position, now));
                self.publish(Some(position), now)
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
                let Some((position, _)) = self.last_position else { return SessionAction::Ignore };
                self.last_position = Some((position, now));
                self.publish(Some(position), now)
            }
        }
    }

    /// Ends a session that sent no heartbeat for too long, regardless of other traffic. With external
    /// clustering heartbeats are not required.
    pub(crate) fn check_idle(&self, settings: &Settings, now: Instant) -> SessionAction {
        if settings.external_clustering {
            return SessionAction::Ignore;
        }
        let (last_heartbeat, limit) = match &self.last_position {
            // While the position is still republished, the session does not end.
            Some((_, at)) => (*at, settings.idle_timeout.max(settings.republish_for)),
            None => (self.began_at, settings.idle_timeout),
        };
        if now - last_heartbeat >= limit { SessionAction::End(Close::Idle) } else { SessionAction::Ignore }
    }

    /// Republishes the last position of a quiet client if the last publication is `republish_interval` ago.
    pub(crate) fn republish_if_due(
        &mut self,
        settings: &Settings,
        unresponsive: bool,
        now: Instant,
    ) -> SessionAction {
        // Ticks are late by a varying amount, so two of them can be a little less than the interval apart.
        let slack = Duration::from_millis(100);
        match now - self.published_at + slack >= settings.republish_interval {
            true => self.republish(settings, unresponsive, now),
            false => SessionAction::Ignore,
        }
    }

    /// Schedules a republication at the given time, unless one is scheduled already.
    pub(crate) fn request_republish(&mut self, at: Instant) {
        self.republish_at.get_or_insert(at);
    }

    /// Time at which [`Self::republish`] is due.
    pub(crate) fn republish_at(&self) -> Option<Instant> {
        self.republish_at
    }

    /// Publishes the last position of a client again, unless it is older than `republish_for`; with external
    /// clustering at any age, or without a position. `unresponsive`: all allowed pings are unanswered, so
    /// nothing is published.
    pub(crate) fn republish(
        &mut self,
        settings: &Settings,
        unresponsive: bool,
        now: Instant,
    ) -> SessionAction {
        self.republish_at = None;
        if unresponsive {
            return SessionAction::Ignore;
        }
        match self.last_position {
            _ if settings.external_clustering => {
                self.publish(self.last_position.map(|(position, _)| position), now)
            }
            Some((position, at)) if now - at <= settings.republish_for => self.publish(Some(position), now),
            _ => SessionAction::Ignore,
        }
    }

    fn publish(&mut self, position: Option<Position>, now: Instant) -> SessionAction {
        self.published_at = now;
        // This heartbeat also serves a pending roster request.
        self.republish_at = None;
        SessionAction::Publish(position)
    }

    /// Records the assignment that was sent to the client.
    pub(crate) fn record_island(&mut self, change: &IslandChange) {
        tracing::Span::current().record("island", change.island.as_str());
        self.encoder.set_assignment(&change.island, change.node.as_ref());
    }

    /// Encodes the `GatewayHeartbeat` of a client at `position`. `epoch`: the highest one that the gateway
    /// has seen.
    pub(crate) fn encode_heartbeat(&mut self, position: Option<Position>, epoch: u64) -> Vec<u8> {
        self.encoder.encode(position, epoch)
    }

    /// Encodes the `Heartbeat` of a client, for services that decode only that message.
    pub(crate) fn encode_client_heartbeat(&self, position: Position) -> Vec<u8> {
        self.encoder.encode_client_heartbeat(position)
    }
}

/// Whether `desired_room` of a heartbeat is valid: an island id, or empty to end the preference. An invalid
/// value is ignored, and the earlier preference stays in effect.
fn is_valid_preference(room: &str) -> bool {
    room.is_empty() || room.parse::<IslandId>().is_ok()
}

#[cfg(test)]
mod tests {
    use protocol::{Message as _, atoll_bus::GatewayHeartbeat, v3::ChallengeRequestMessage};

    use super::*;
    use crate::settings::tests::settings;

    fn heartbeat(x: f32, desired_room: Option<&str>) -> Heartbeat {
        let position = Some(Position::new(x, 0.0, 0.0).into());
        Heartbeat { position, desired_room: desired_room.map(str::to_owned) }
    }

    fn packet(heartbeat: Heartbeat) -> ClientPacket {
        ClientPacket { message: Some(client_packet::Message::Heartbeat(heartbeat)) }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn at(x: f32) -> SessionAction {
        SessionAction::Publish(Some(Position::new(x, 0.0, 0.0)))
    }

    #[test]
    fn valid_heartbeats_publish_and_invalid_ones_keep_position() {
        let (settings, now) = (settings(), Instant::now());
        let mut state = SessionState::new(None, &settings, now);
        assert_eq!(state.receive(packet(heartbeat(1.0, None)), &settings, now), at(1.0));
        for bad in [f32::NAN, f32::INFINITY, 100_001.0] {
            let refused = state.receive(packet(heartbeat(bad, None)), &settings, now);
            assert_eq!(refused, at(1.0), "the last position is kept");
        }
        assert_eq!(state.receive(packet(Heartbeat::default()), &settings, now), at(1.0));
        let without_position = SessionState::new(None, &settings, now).receive(
            packet(heartbeat(f32::NAN, None)),
            &settings,
            now,
        );
        assert_eq!(without_position, SessionAction::Ignore, "it has no position yet");
        assert_eq!(state.receive(ClientPacket::default(), &settings, now), SessionAction::Ignore);
        let request = client_packet::Message::ChallengeRequest(ChallengeRequestMessage::default());
        let again = ClientPacket { message: Some(request) };
        assert_eq!(state.receive(again, &settings, now), SessionAction::End(Close::OutOfOrder));
    }

    #[test]
    fn external_clustering_needs_no_heartbeat() {
        let (settings, start) = (Settings { external_clustering: true, ..settings() }, Instant::now());
        let mut state = SessionState::new(None, &settings, start);
        assert_eq!(state.republish_at(), Some(start));
        assert_eq!(state.republish(&settings, false, start), SessionAction::Publish(None));
        assert_eq!(
            state.republish_if_due(&settings, false, start + 5 * SECOND),
            SessionAction::Publish(None)
        );
        assert_eq!(state.check_idle(&settings, start + 86_400 * SECOND), SessionAction::Ignore);
        state.receive(packet(heartbeat(1.0, None)), &settings, start + 10 * SECOND);
        assert_eq!(
            state.republish_if_due(&settings, false, start + 500 * SECOND),
            at(1.0),
            "regardless of the age of the position"
        );
        assert_eq!(state.republish_if_due(&settings, true, start + 505 * SECOND), SessionAction::Ignore);
    }

    #[test]
    fn preference_lasts_until_ended_or_replaced() {
        let (settings, now) = (settings(), Instant::now());
        let mut state = SessionState::new(None, &settings, now);
        let mut reported = |desired_room| {
            let SessionAction::Publish(position) =
                state.receive_heartbeat(heartbeat(1.0, desired_room), &settings, now)
            else {
                panic!("no heartbeat is published")
            };
            GatewayHeartbeat::decode(&state.encode_heartbeat(position, 0)[..]).unwrap().desired_room
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
        let mut state = SessionState::new(None, &settings, start);
        assert_eq!(
            state.republish_if_due(&settings, false, start + 5 * SECOND),
            SessionAction::Ignore,
            "it never reported a position"
        );
        state.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(state.republish_if_due(&settings, false, start + 4 * SECOND), SessionAction::Ignore);
        assert_eq!(state.republish_if_due(&settings, false, start + 5 * SECOND), at(1.0));
        assert_eq!(state.republish_if_due(&settings, false, start + 6 * SECOND), SessionAction::Ignore);
        assert_eq!(state.republish_if_due(&settings, false, start + 120 * SECOND), at(1.0));
        assert_eq!(state.republish_if_due(&settings, false, start + 126 * SECOND), SessionAction::Ignore);
    }

    #[test]
    fn roster_request_is_served_once_per_session() {
        let (settings, start) = (settings(), Instant::now());
        let mut state = SessionState::new(None, &settings, start);
        state.request_republish(start);
        assert_eq!(
            state.republish(&settings, false, start),
            SessionAction::Ignore,
            "it never reported a position"
        );
        state.receive(packet(heartbeat(1.0, None)), &settings, start);
        state.request_republish(start + SECOND);
        state.request_republish(start + 2 * SECOND);
        assert_eq!(state.republish_at(), Some(start + SECOND), "one republication serves all requests");
        assert_eq!(state.republish(&settings, false, start + SECOND), at(1.0));
        assert_eq!(state.republish_at(), None);
        assert_eq!(
            state.republish_if_due(&settings, false, start + 5 * SECOND),
            SessionAction::Ignore,
            "it was published just now"
        );
        state.request_republish(start + 6 * SECOND);
        state.receive(packet(heartbeat(2.0, None)), &settings, start + 5 * SECOND);
        assert_eq!(state.republish_at(), None, "its own heartbeat served the request");
        state.request_republish(start + 7 * SECOND);
        assert_eq!(
            state.republish(&settings, true, start + 7 * SECOND),
            SessionAction::Ignore,
            "it does not answer pings"
        );
    }

    #[test]
    fn socket_without_heartbeats_is_idle() {
        let (settings, start) = (settings(), Instant::now());
        let mut state = SessionState::new(None, &settings, start);
        assert_eq!(state.check_idle(&settings, start + 89 * SECOND), SessionAction::Ignore);
        assert_eq!(state.check_idle(&settings, start + 90 * SECOND), SessionAction::End(Close::Idle));
        state.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(
            state.check_idle(&settings, start + 119 * SECOND),
            SessionAction::Ignore,
            "its position is still republished"
        );
        assert_eq!(state.check_idle(&settings, start + 120 * SECOND), SessionAction::End(Close::Idle));
    }
}
