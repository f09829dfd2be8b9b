//! A session after its sign-in: what its packets and its silence mean. Sans-IO.

use std::time::Duration;

use protocol::{
    Close, IslandId, Position, PositionError,
    v3::{ClientPacket, Heartbeat, client_packet},
};
use tokio::time::Instant;

use crate::{
    Settings, heartbeat_encoder::HeartbeatEncoder, resumption::Resumption, session_registry::IslandChange,
};

/// What a session knows of its client.
#[derive(Debug)]
pub(crate) struct SessionState {
    began_at: Instant,
    /// Where the client said that it is, and when.
    last_position: Option<(Position, Instant)>,
    encoder: HeartbeatEncoder,
    /// When the bus last heard of it.
    published_at: Instant,
    /// When it is said again where it is, as somebody asked.
    republish_at: Option<Instant>,
}

/// What to do next about a live client.
#[derive(Debug, PartialEq)]
pub(crate) enum SessionAction {
    /// Nothing.
    Ignore,
    /// Report on the bus that it is here; `None`: at an unknown position.
    Publish(Option<Position>),
    /// Check whether anything arrived lately: [`SessionTimers::resolve_check`](crate::timers::Timers::checked).
    CheckLiveness,
    /// Ping it.
    Ping,
    /// End it.
    End(Close),
}

impl SessionState {
    /// The state of a client that can join these transports.
    pub(crate) fn new(transports: Option<&str>, settings: &Settings, now: Instant) -> Self {
        let report = HeartbeatEncoder::new(transports);
        // A cluster alone is enough for an island: the director has to know of the peer at once.
        let repeat_at = settings.external_clustering.then_some(now);
        Self {
            began_at: now,
            last_position: None,
            encoder: report,
            published_at: now,
            republish_at: repeat_at,
        }
    }

    /// The same, of a session that can be resumed.
    pub(crate) fn with_resumption(mut self, resumption: Option<Resumption>) -> Self {
        if let Some(Resumption { hash, resumes, .. }) = resumption {
            self.encoder.set_resumption(hash, resumes);
        }
        self
    }

    /// Takes in a packet.
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

    /// Takes in a heartbeat.
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
                tracing::debug!(%error, "heartbeat refused, the last position holds");
                metrics::counter!("atoll_gateway_heartbeats_refused_total", "reason" => reason).increment(1);
                // It is there, and where it was.
                let Some((position, _)) = self.last_position else { return SessionAction::Ignore };
                self.last_position = Some((position, now));
                self.publish(Some(position), now)
            }
        }
    }

    /// Ends a client that sent no heartbeat for too long, whatever else it sends, unless it need not.
    pub(crate) fn check_idle(&self, settings: &Settings, now: Instant) -> SessionAction {
        if settings.external_clustering {
            return SessionAction::Ignore;
        }
        let (quiet_since, limit) = match &self.last_position {
            // Not before it is no longer vouched for.
            Some((_, at)) => (*at, settings.idle_timeout.max(settings.republish_for)),
            None => (self.began_at, settings.idle_timeout),
        };
        if now - quiet_since >= limit { SessionAction::End(Close::Idle) } else { SessionAction::Ignore }
    }

    /// Repeats the position of a quiet client, for a while, if it was published an interval ago.
    pub(crate) fn republish_if_due(
        &mut self,
        settings: &Settings,
        in_doubt: bool,
        now: Instant,
    ) -> SessionAction {
        // Timers are a little late, never early.
        let slack = Duration::from_millis(100);
        match now - self.published_at + slack >= settings.republish_interval {
            true => self.republish(settings, in_doubt, now),
            false => SessionAction::Ignore,
        }
    }

    /// Somebody asks who is there: that is answered at this time, or before.
    pub(crate) fn request_republish(&mut self, at: Instant) {
        self.republish_at.get_or_insert(at);
    }

    /// When [`Self::republish`] is due.
    pub(crate) fn republish_at(&self) -> Option<Instant> {
        self.republish_at
    }

    /// Publishes the last position of a client again, unless that is too old. `in_doubt`: as many pings
    /// are unanswered as may be, so that nothing is published.
    pub(crate) fn republish(&mut self, settings: &Settings, in_doubt: bool, now: Instant) -> SessionAction {
        self.republish_at = None;
        if in_doubt {
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
        // Whoever asked has heard it now.
        self.republish_at = None;
        SessionAction::Publish(position)
    }

    /// The client was told of an island.
    pub(crate) fn record_island(&mut self, change: &IslandChange) {
        tracing::Span::current().record("island", change.island.as_str());
        self.encoder.set_assignment(&change.island, change.node.as_ref());
    }

    /// What the bus hears of a client that is at `position`, on a gateway that has seen this epoch.
    pub(crate) fn encode_heartbeat(&mut self, position: Option<Position>, epoch: u64) -> Vec<u8> {
        self.encoder.encode(position, epoch)
    }

    /// The same, for those on the bus who know heartbeats of clients alone.
    pub(crate) fn encode_client_heartbeat(&self, position: Position) -> Vec<u8> {
        self.encoder.encode_client_heartbeat(position)
    }
}

/// Whether what a client says of its preference is an island, or the end of one. What is neither is
/// left out: the preference before it holds.
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
        let mut live = SessionState::new(None, &settings, now);
        assert_eq!(live.receive(packet(heartbeat(1.0, None)), &settings, now), at(1.0));
        for bad in [f32::NAN, f32::INFINITY, 100_001.0] {
            let refused = live.receive(packet(heartbeat(bad, None)), &settings, now);
            assert_eq!(refused, at(1.0), "it is where it was");
        }
        assert_eq!(live.receive(packet(Heartbeat::default()), &settings, now), at(1.0));
        let nowhere = SessionState::new(None, &settings, now).receive(
            packet(heartbeat(f32::NAN, None)),
            &settings,
            now,
        );
        assert_eq!(nowhere, SessionAction::Ignore, "it was nowhere");
        assert_eq!(live.receive(ClientPacket::default(), &settings, now), SessionAction::Ignore);
        let request = client_packet::Message::ChallengeRequest(ChallengeRequestMessage::default());
        let again = ClientPacket { message: Some(request) };
        assert_eq!(live.receive(again, &settings, now), SessionAction::End(Close::OutOfOrder));
    }

    #[test]
    fn external_clustering_needs_no_heartbeat() {
        let (settings, start) = (Settings { external_clustering: true, ..settings() }, Instant::now());
        let mut live = SessionState::new(None, &settings, start);
        assert_eq!(live.republish_at(), Some(start));
        assert_eq!(live.republish(&settings, false, start), SessionAction::Publish(None));
        assert_eq!(live.republish_if_due(&settings, false, start + 5 * SECOND), SessionAction::Publish(None));
        assert_eq!(live.check_idle(&settings, start + 86_400 * SECOND), SessionAction::Ignore);
        live.receive(packet(heartbeat(1.0, None)), &settings, start + 10 * SECOND);
        assert_eq!(
            live.republish_if_due(&settings, false, start + 500 * SECOND),
            at(1.0),
            "however long that is ago"
        );
        assert_eq!(live.republish_if_due(&settings, true, start + 505 * SECOND), SessionAction::Ignore);
    }

    #[test]
    fn preference_lasts_until_ended_or_replaced() {
        let (settings, now) = (settings(), Instant::now());
        let mut live = SessionState::new(None, &settings, now);
        let mut reported = |desired_room| {
            let SessionAction::Publish(position) =
                live.receive_heartbeat(heartbeat(1.0, desired_room), &settings, now)
            else {
                panic!("nothing is published")
            };
            GatewayHeartbeat::decode(&live.encode_heartbeat(position, 0)[..]).unwrap().desired_room
        };
        assert_eq!(reported(None), None);
        for (said, holds) in [
            (Some("I1"), "I1"),
            (None, "I1"),
            (Some("no.island >"), "I1"),
            (Some(""), ""),
            (None, ""),
            (Some("I2"), "I2"),
        ] {
            assert_eq!(reported(said).as_deref(), Some(holds), "after {said:?}");
        }
    }

    #[test]
    fn quiet_client_is_republished_for_a_limited_time() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = SessionState::new(None, &settings, start);
        assert_eq!(
            live.republish_if_due(&settings, false, start + 5 * SECOND),
            SessionAction::Ignore,
            "it never said where it is"
        );
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(live.republish_if_due(&settings, false, start + 4 * SECOND), SessionAction::Ignore);
        assert_eq!(live.republish_if_due(&settings, false, start + 5 * SECOND), at(1.0));
        assert_eq!(live.republish_if_due(&settings, false, start + 6 * SECOND), SessionAction::Ignore);
        assert_eq!(live.republish_if_due(&settings, false, start + 120 * SECOND), at(1.0));
        assert_eq!(live.republish_if_due(&settings, false, start + 126 * SECOND), SessionAction::Ignore);
    }

    #[test]
    fn presence_request_is_answered_once_per_client() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = SessionState::new(None, &settings, start);
        live.request_republish(start);
        assert_eq!(
            live.republish(&settings, false, start),
            SessionAction::Ignore,
            "it never said where it is"
        );
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        live.request_republish(start + SECOND);
        live.request_republish(start + 2 * SECOND);
        assert_eq!(live.republish_at(), Some(start + SECOND), "once for all who ask");
        assert_eq!(live.republish(&settings, false, start + SECOND), at(1.0));
        assert_eq!(live.republish_at(), None);
        assert_eq!(
            live.republish_if_due(&settings, false, start + 5 * SECOND),
            SessionAction::Ignore,
            "it was said just now"
        );
        live.request_republish(start + 6 * SECOND);
        live.receive(packet(heartbeat(2.0, None)), &settings, start + 5 * SECOND);
        assert_eq!(live.republish_at(), None, "its own heartbeat was the answer");
        live.request_republish(start + 7 * SECOND);
        assert_eq!(
            live.republish(&settings, true, start + 7 * SECOND),
            SessionAction::Ignore,
            "nobody knows whether it is there"
        );
    }

    #[test]
    fn socket_without_heartbeats_is_idle() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = SessionState::new(None, &settings, start);
        assert_eq!(live.check_idle(&settings, start + 89 * SECOND), SessionAction::Ignore);
        assert_eq!(live.check_idle(&settings, start + 90 * SECOND), SessionAction::End(Close::Idle));
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(
            live.check_idle(&settings, start + 119 * SECOND),
            SessionAction::Ignore,
            "its position is repeated"
        );
        assert_eq!(live.check_idle(&settings, start + 120 * SECOND), SessionAction::End(Close::Idle));
    }
}
