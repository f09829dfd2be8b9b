//! A session after its sign-in: what its packets and its silence mean. Sans-IO.

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    Close, IslandId, Message as _, Position, PositionError,
    v3::{ClientPacket, Heartbeat, IslandChangedMessage, client_packet},
};
use tokio::time::Instant;

use crate::Settings;

/// What a session knows of its client.
#[derive(Debug)]
pub(crate) struct LiveState {
    began: Instant,
    /// The client's last heartbeat and when it came.
    last: Option<(Heartbeat, Instant)>,
    /// When the bus last heard of it.
    published: Instant,
    /// Pings sent since the last sign of life.
    unanswered: u32,
}

/// What to do next about a live client.
#[derive(Debug, PartialEq)]
pub(crate) enum Live {
    /// Nothing.
    Ignore,
    /// Put this on the bus.
    Publish(Heartbeat),
    /// Ping it.
    Ping,
    /// End it.
    End(Close),
}

impl LiveState {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, last: None, published: now, unanswered: 0 }
    }

    /// Anything came from the client.
    pub(crate) fn heard(&mut self) {
        self.unanswered = 0;
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
        match checked(heartbeat, settings.position_bound_m) {
            Ok(heartbeat) => {
                self.last = Some((heartbeat.clone(), now));
                self.published = now;
                Live::Publish(heartbeat)
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
                let Some((heartbeat, at)) = &mut self.last else { return Live::Ignore };
                *at = now;
                self.published = now;
                Live::Publish(heartbeat.clone())
            }
        }
    }

    /// The time for a ping has come.
    pub(crate) fn ping(&mut self, settings: &Settings, now: Instant) -> Live {
        if self.unanswered == 2 {
            return Live::End(Close::Silent);
        }
        let (quiet_since, limit) = match &self.last {
            // Not before it is no longer vouched for.
            Some((_, at)) => (*at, settings.idle_timeout.max(settings.vouch_for)),
            None => (self.began, settings.idle_timeout),
        };
        if now - quiet_since >= limit {
            return Live::End(Close::Idle);
        }
        self.unanswered += 1;
        Live::Ping
    }

    /// The time to vouch has come: a client that is quiet, and whose socket lives, stays where it
    /// is for a while.
    pub(crate) fn vouch(&mut self, settings: &Settings, now: Instant) -> Live {
        // Timers are a little late, never early.
        let slack = Duration::from_millis(100);
        match &self.last {
            Some((heartbeat, at))
                if now - *at <= settings.vouch_for
                    && now - self.published + slack >= settings.vouch_interval
                    && self.unanswered < 2 =>
            {
                self.published = now;
                Live::Publish(heartbeat.clone())
            }
            _ => Live::Ignore,
        }
    }
}

/// Puts the island that a client is told of into its session's span, if it is logged.
pub(crate) fn record_island(change: &Bytes) {
    let span = tracing::Span::current();
    if !span.is_disabled()
        && let Ok(change) = IslandChangedMessage::decode(&change[..])
    {
        span.record("island", change.island_id);
    }
}

/// The heartbeat, if its position is taken. A preference that names no island is left out: the one
/// before it holds.
fn checked(mut heartbeat: Heartbeat, bound_m: f32) -> Result<Heartbeat, PositionError> {
    Position::checked(heartbeat.position.as_ref(), bound_m)?;
    heartbeat.desired_room =
        heartbeat.desired_room.filter(|room| room.is_empty() || room.parse::<IslandId>().is_ok());
    Ok(heartbeat)
}

#[cfg(test)]
mod tests {
    use protocol::v3::ChallengeRequestMessage;

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

    #[test]
    fn good_heartbeats_are_published_and_bad_ones_change_nothing() {
        let (settings, now) = (settings(), Instant::now());
        let mut live = LiveState::new(now);
        let good = heartbeat(1.0, Some("I1"));
        assert_eq!(live.receive(packet(good.clone()), &settings, now), Live::Publish(good.clone()));
        for bad in [f32::NAN, f32::INFINITY, 100_001.0] {
            let refused = live.receive(packet(heartbeat(bad, None)), &settings, now);
            assert_eq!(refused, Live::Publish(good.clone()), "it is where it was");
        }
        let refused = live.receive(packet(Heartbeat::default()), &settings, now);
        assert_eq!(refused, Live::Publish(good));
        let nowhere = LiveState::new(now).receive(packet(heartbeat(f32::NAN, None)), &settings, now);
        assert_eq!(nowhere, Live::Ignore, "it was nowhere");
        let odd = packet(heartbeat(2.0, Some("no.island >")));
        assert_eq!(live.receive(odd, &settings, now), Live::Publish(heartbeat(2.0, None)));
        let cleared = heartbeat(2.0, Some(""));
        assert_eq!(live.receive(packet(cleared.clone()), &settings, now), Live::Publish(cleared));
        assert_eq!(live.receive(ClientPacket::default(), &settings, now), Live::Ignore);
        let request = client_packet::Message::ChallengeRequest(ChallengeRequestMessage::default());
        let again = ClientPacket { message: Some(request) };
        assert_eq!(live.receive(again, &settings, now), Live::End(Close::OutOfOrder));
    }

    #[test]
    fn a_quiet_client_is_vouched_for_while_its_socket_lives_and_not_forever() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = LiveState::new(start);
        assert_eq!(live.vouch(&settings, start + 5 * SECOND), Live::Ignore, "it never said where it is");
        let last = heartbeat(1.0, None);
        live.receive(packet(last.clone()), &settings, start);
        assert_eq!(live.vouch(&settings, start + 4 * SECOND), Live::Ignore);
        assert_eq!(live.vouch(&settings, start + 5 * SECOND), Live::Publish(last.clone()));
        assert_eq!(live.vouch(&settings, start + 6 * SECOND), Live::Ignore);
        assert_eq!(live.vouch(&settings, start + 120 * SECOND), Live::Publish(last));
        assert_eq!(live.vouch(&settings, start + 126 * SECOND), Live::Ignore);
    }

    #[test]
    fn two_pings_without_a_sign_of_life_end_it() {
        let (settings, now) = (settings(), Instant::now());
        let mut live = LiveState::new(now);
        assert_eq!(live.ping(&settings, now), Live::Ping);
        live.heard();
        assert_eq!(live.ping(&settings, now), Live::Ping);
        assert_eq!(live.ping(&settings, now), Live::Ping);
        assert_eq!(live.ping(&settings, now), Live::End(Close::Silent));
    }

    #[test]
    fn a_socket_without_heartbeats_ends() {
        let (settings, start) = (settings(), Instant::now());
        let mut live = LiveState::new(start);
        assert_eq!(live.ping(&settings, start + 89 * SECOND), Live::Ping);
        live.heard();
        assert_eq!(live.ping(&settings, start + 90 * SECOND), Live::End(Close::Idle));
        let mut live = LiveState::new(start);
        live.receive(packet(heartbeat(1.0, None)), &settings, start);
        assert_eq!(live.ping(&settings, start + 119 * SECOND), Live::Ping, "it is vouched for");
        live.heard();
        assert_eq!(live.ping(&settings, start + 120 * SECOND), Live::End(Close::Idle));
    }
}
