//! A session after its sign-in: what its packets and its silence mean. Sans-IO.

use std::time::Duration;

use protocol::{
    Close, IslandId, Position, PositionError,
    v3::{ClientPacket, Heartbeat, client_packet},
};
use tokio::time::Instant;

use crate::{Settings, report::Report, resume::Resumption, sessions::IslandChange};

/// What a session knows of its client.
#[derive(Debug)]
pub(crate) struct LiveState {
    began: Instant,
    /// Where the client said that it is, and when.
    last: Option<(Position, Instant)>,
    report: Report,
    /// When the bus last heard of it.
    published: Instant,
    /// When it is said again where it is, as somebody asked.
    repeat_at: Option<Instant>,
}

/// What to do next about a live client.
#[derive(Debug, PartialEq)]
pub(crate) enum Live {
    /// Nothing.
    Ignore,
    /// Report on the bus that it is here; `None`: at an unknown position.
    Publish(Option<Position>),
    /// Check whether anything arrived lately: [`Timers::checked`](crate::timers::Timers::checked).
    Check,
    /// Ping it.
    Ping,
    /// End it.
    End(Close),
}

impl LiveState {
    /// The state of a client that can join these transports.
    pub(crate) fn new(transports: Option<&str>, settings: &Settings, now: Instant) -> Self {
        let report = Report::new(transports);
        // A cluster alone is enough for an island: the director has to know of the peer at once.
        let repeat_at = settings.clusters_given.then_some(now);
        Self { began: now, last: None, report, published: now, repeat_at }
    }

    /// The same, of a session that can be resumed.
    pub(crate) fn with_resumption(mut self, resumption: Option<Resumption>) -> Self {
        if let Some(Resumption { hash, resumes, .. }) = resumption {
            self.report.resumption(hash, resumes);
        }
        self
    }

    /// Takes in a packet.
    pub(crate) fn receive(&mut self, packet: ClientPacket, settings: &Settings, now: Instant) -> Live {
        match packet.message {
            None => Live::Ignore,
            Some(client_packet::Message::Heartbeat(heartbeat)) => self.heartbeat(heartbeat, settings, now),
            Some(_) => Live::End(Close::OutOfOrder),
        }
    }

    /// Takes in a heartbeat.
    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat, settings: &Settings, now: Instant) -> Live {
        match Position::checked(heartbeat.position.as_ref(), settings.position_bound_m) {
            Ok(position) => {
                if let Some(room) = heartbeat.desired_room.filter(|room| is_wish(room)) {
                    self.report.wishes(room);
                }
                self.last = Some((position, now));
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
                let Some((position, _)) = self.last else { return Live::Ignore };
                self.last = Some((position, now));
                self.publish(Some(position), now)
            }
        }
    }

    /// Ends a client that sent no heartbeat for too long, whatever else it sends, unless it need not.
    pub(crate) fn check_idle(&self, settings: &Settings, now: Instant) -> Live {
        if settings.clusters_given {
            return Live::Ignore;
        }
        let (quiet_since, limit) = match &self.last {
            // Not before it is no longer vouched for.
            Some((_, at)) => (*at, settings.idle_timeout.max(settings.vouch_for)),
            None => (self.began, settings.idle_timeout),
        };
        if now - quiet_since >= limit { Live::End(Close::Idle) } else { Live::Ignore }
    }

    /// Repeats the position of a quiet client, for a while, if it was published an interval ago.
    pub(crate) fn vouch(&mut self, settings: &Settings, in_doubt: bool, now: Instant) -> Live {
        // Timers are a little late, never early.
        let slack = Duration::from_millis(100);
        match now - self.published + slack >= settings.vouch_interval {
            true => self.repeat(settings, in_doubt, now),
            false => Live::Ignore,
        }
    }

    /// Somebody asks who is there: that is answered at this time, or before.
    pub(crate) fn wanted(&mut self, at: Instant) {
        self.repeat_at.get_or_insert(at);
    }

    /// When [`Self::repeat`] is due.
    pub(crate) fn repeat_at(&self) -> Option<Instant> {
        self.repeat_at
    }

    /// Publishes the last position of a client again, unless that is too old. `in_doubt`: as many pings
    /// are unanswered as may be, so that nothing is published.
    pub(crate) fn repeat(&mut self, settings: &Settings, in_doubt: bool, now: Instant) -> Live {
        self.repeat_at = None;
        if in_doubt {
            return Live::Ignore;
        }
        match self.last {
            _ if settings.clusters_given => self.publish(self.last.map(|(position, _)| position), now),
            Some((position, at)) if now - at <= settings.vouch_for => self.publish(Some(position), now),
            _ => Live::Ignore,
        }
    }

    fn publish(&mut self, position: Option<Position>, now: Instant) -> Live {
        self.published = now;
        // Whoever asked has heard it now.
        self.repeat_at = None;
        Live::Publish(position)
    }

    /// The client was told of an island.
    pub(crate) fn told(&mut self, change: &IslandChange) {
        tracing::Span::current().record("island", change.island.as_str());
        self.report.told(&change.island, change.node.as_ref());
    }

    /// What the bus hears of a client that is at `position`, on a gateway that has seen this epoch.
    pub(crate) fn report(&mut self, position: Option<Position>, epoch: u64) -> Vec<u8> {
        self.report.encode(position, epoch)
    }

    /// The same, for those on the bus who know heartbeats of clients alone.
    pub(crate) fn report_plainly(&self, position: Position) -> Vec<u8> {
        self.report.encode_plain(position)
    }
}

/// Whether what a client says of its preference is an island, or the end of one. What is neither is
/// left out: the preference before it holds.
fn is_wish(room: &str) -> bool {
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

    fn at(x: f32) -> Live {
        Live::Publish(Some(Position::new(x, 0.0, 0.0)))
    }

    #[test]
    fn good_heartbeats_are_published_and_bad_ones_change_nothing() {
        let (settings, now) = (settings(), Instant::now());
        let mut live = LiveState::new(None, &settings, now);
        assert_eq!(live.receive(packet(heartbeat(1.0, None)), &settings, now), at(1.0));
        for bad in [f32::NAN, f32::INFINITY, 100_001.0] {
            let refused = live.receive(packet(heartbeat(bad, None)), &settings, now);
            assert_eq!(refused, at(1.0), "it is where it was");
        }
        assert_eq!(live.receive(packet(Heartbeat::default()), &settings, now), at(1.0));
        let nowhere =
            LiveState::new(None, &settings, now).receive(packet(heartbeat(f32::NAN, None)), &settings, now);
        assert_eq!(nowhere, Live::Ignore, "it was nowhere");
        assert_eq!(live.receive(ClientPacket::default(), &settings, now), Live::Ignore);
        let request = client_packet::Message::ChallengeRequest(ChallengeRequestMessage::default());
        let again = ClientPacket { message: Some(request) };
        assert_eq!(live.receive(again, &settings, now), Live::End(Close::OutOfOrder));
    }

    #[test]
    fn clusters_given_elsewhere_need_no_heartbeat() {
        let (settings, start) = (Settings { clusters_given: true, ..settings() }, Instant::now());
        let mut live = LiveState::new(None, &settings, start);
        assert_eq!(live.repeat_at(), Some(start));
        assert_eq!(live.repeat(&settings, false, start), Live::Publish(None));
        assert_eq!(live.vouch(&settings, false, start + 5 * SECOND), Live::Publish(None));
        assert_eq!(live.check_idle(&settings, start + 86_400 * SECOND), Live::Ignore);
        live.receive(packet(heartbeat(1.0, None)), &settings, start + 10 * SECOND);
        assert_eq!(live.vouch(&settings, false, start + 500 * SECOND), at(1.0), "however long that is ago");
        assert_eq!(live.vouch(&settings, true, start + 505 * SECOND), Live::Ignore);
    }

    #[test]
    fn a_preference_holds_until_it_is_ended_or_replaced() {
        let (settings, now) = (settings(), Instant::now());
        let mut live = LiveState::new(None, &settings, now);
        let mut reported = |desired_room| {
            let Live::Publish(position) = live.heartbeat(heartbeat(1.0, desired_room), &settings, now) else {
                panic!("nothing is published")
            };
            GatewayHeartbeat::decode(&live.report(position, 0)[..]).unwrap().desired_room
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
    fn a_quiet_client_is_vouched_for_while_its_socket_lives_and_not_forever() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = LiveState::new(None, &settings, start);
        assert_eq!(
            live.vouch(&settings, false, start + 5 * SECOND),
            Live::Ignore,
            "it never said where it is"
        );
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(live.vouch(&settings, false, start + 4 * SECOND), Live::Ignore);
        assert_eq!(live.vouch(&settings, false, start + 5 * SECOND), at(1.0));
        assert_eq!(live.vouch(&settings, false, start + 6 * SECOND), Live::Ignore);
        assert_eq!(live.vouch(&settings, false, start + 120 * SECOND), at(1.0));
        assert_eq!(live.vouch(&settings, false, start + 126 * SECOND), Live::Ignore);
    }

    #[test]
    fn whoever_asks_is_answered_once_of_clients_that_are_vouched_for() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = LiveState::new(None, &settings, start);
        live.wanted(start);
        assert_eq!(live.repeat(&settings, false, start), Live::Ignore, "it never said where it is");
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        live.wanted(start + SECOND);
        live.wanted(start + 2 * SECOND);
        assert_eq!(live.repeat_at(), Some(start + SECOND), "once for all who ask");
        assert_eq!(live.repeat(&settings, false, start + SECOND), at(1.0));
        assert_eq!(live.repeat_at(), None);
        assert_eq!(live.vouch(&settings, false, start + 5 * SECOND), Live::Ignore, "it was said just now");
        live.wanted(start + 6 * SECOND);
        live.receive(packet(heartbeat(2.0, None)), &settings, start + 5 * SECOND);
        assert_eq!(live.repeat_at(), None, "its own heartbeat was the answer");
        live.wanted(start + 7 * SECOND);
        assert_eq!(
            live.repeat(&settings, true, start + 7 * SECOND),
            Live::Ignore,
            "nobody knows whether it is there"
        );
    }

    #[test]
    fn socket_without_heartbeats_is_idle() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = LiveState::new(None, &settings, start);
        assert_eq!(live.check_idle(&settings, start + 89 * SECOND), Live::Ignore);
        assert_eq!(live.check_idle(&settings, start + 90 * SECOND), Live::End(Close::Idle));
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(
            live.check_idle(&settings, start + 119 * SECOND),
            Live::Ignore,
            "its position is repeated"
        );
        assert_eq!(live.check_idle(&settings, start + 120 * SECOND), Live::End(Close::Idle));
    }
}
