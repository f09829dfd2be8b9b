//! The bots' sessions: how often they ended, for how long a bot had none, and in which island it
//! continued.

use std::{collections::BTreeMap, fmt, time::Duration};

use client::Disconnect;
use protocol::IslandId;
use serde::Serialize;
use tokio::time::Instant;

use crate::percentiles::Percentiles;

/// The sessions of one bot, one after the other.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    begun: u64,
    state: SessionState,
    /// The last assigned island, of any session.
    island: Option<IslandId>,
    /// When the last session with an assignment ended; `None`: an assignment arrived since.
    lost: Option<Instant>,
    /// The times from the end of a session to the next sign-in.
    without_session: Vec<Duration>,
    /// The times from the end of a session with an assignment to the next assignment.
    without_island: Vec<Duration>,
    rejoins: Vec<Rejoin>,
    gateway_ends: BTreeMap<String, u64>,
    room_ends: BTreeMap<String, u64>,
}

/// Whether a bot has a session.
#[derive(Debug, Clone, Default)]
enum SessionState {
    /// It never had a session.
    #[default]
    NeverSignedIn,
    /// Since this time it has a session, without an assignment yet.
    Unassigned(Instant),
    Assigned,
    /// Since this time it has no session. `explained`: the gateway gave a reason, in a close frame or a
    /// response.
    Disconnected {
        since: Instant,
        explained: bool,
    },
}

/// A session after the first one that was assigned an island.
#[derive(Debug, Clone, Copy)]
struct Rejoin {
    /// From the sign-in to the assignment.
    took: Duration,
    /// Whether the island is the one of the session before.
    to_same: bool,
}

/// The state of a bot that is compared with the director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionStatus {
    /// It has a session, and this island as its assignment, or none yet.
    SignedIn(Option<IslandId>),
    /// It has no session, and received the reason.
    ClosedWithReason,
    /// It lost its session without a reason, or never had one.
    Lost,
}

impl SessionLog {
    pub(crate) fn signed_in(&mut self, at: Instant) {
        if let SessionState::Disconnected { since, .. } = self.state {
            self.without_session.push(at - since);
        }
        self.state = SessionState::Unassigned(at);
        self.begun += 1;
    }

    pub(crate) fn assigned(&mut self, at: Instant, island: &IslandId) {
        if let SessionState::Unassigned(since) = self.state
            && self.begun > 1
        {
            let to_same = self.island.as_ref() == Some(island);
            self.rejoins.push(Rejoin { took: at - since, to_same });
        }
        self.without_island.extend(self.lost.take().map(|lost| at - lost));
        self.state = SessionState::Assigned;
        self.island = Some(island.clone());
    }

    /// A session or a sign-in attempt ended.
    pub(crate) fn session_ended(&mut self, at: Instant, ended: &Disconnect) {
        *self.gateway_ends.entry(end_label(ended)).or_default() += 1;
        let explained = !matches!(ended, Disconnect::Broken(_));
        if let SessionState::Assigned = self.state {
            self.lost = Some(at);
        }
        self.state = match self.state {
            SessionState::NeverSignedIn => SessionState::NeverSignedIn,
            SessionState::Disconnected { since, .. } => SessionState::Disconnected { since, explained },
            SessionState::Unassigned(_) | SessionState::Assigned => {
                SessionState::Disconnected { since: at, explained }
            }
        };
    }

    pub(crate) fn room_left(&mut self, ended: &Disconnect) {
        *self.room_ends.entry(end_label(ended)).or_default() += 1;
    }

    pub(crate) fn status(&self) -> SessionStatus {
        match self.state {
            SessionState::Assigned => SessionStatus::SignedIn(self.island.clone()),
            SessionState::Unassigned(_) => SessionStatus::SignedIn(None),
            SessionState::Disconnected { explained: true, .. } => SessionStatus::ClosedWithReason,
            SessionState::Disconnected { explained: false, .. } | SessionState::NeverSignedIn => {
                SessionStatus::Lost
            }
        }
    }
}

/// The label under which an end is counted: a close code, or an HTTP status.
fn end_label(ended: &Disconnect) -> String {
    match ended {
        Disconnect::Left => "left".to_owned(),
        Disconnect::Closed { code, .. } => code.to_string(),
        Disconnect::Refused { status, .. } => format!("HTTP {status}"),
        Disconnect::Removed(_) => "removed".to_owned(),
        Disconnect::Replaced => "replaced".to_owned(),
        Disconnect::Broken(_) => "broken".to_owned(),
    }
}

/// The sessions of a run. The field names are JSON keys.
#[derive(Debug, Serialize)]
pub(crate) struct Sessions {
    /// Bots that lost their session and have none at the end.
    pub(crate) sessions_failed: u64,
    /// Sessions after the first one of a bot.
    reconnects: u64,
    /// From the end of a session to the next sign-in.
    without_session_ms: Percentiles,
    /// From the end of a session with an assignment to the next assignment.
    without_island_ms: Percentiles,
    /// The part of it from the sign-in to the assignment.
    back_in_island_ms: Percentiles,
    /// How many reconnects were assigned the island of the session before.
    back_in_same_island: u64,
    /// The ends of sessions and sign-in attempts, by close code or HTTP status.
    gateway_ends: BTreeMap<String, u64>,
    /// The ends of room memberships, by close code or HTTP status.
    room_ends: BTreeMap<String, u64>,
}

impl Sessions {
    pub(crate) fn of<'a>(logs: impl Iterator<Item = &'a SessionLog> + Clone) -> Self {
        let logs = || logs.clone();
        let rejoins = || logs().flat_map(|log| &log.rejoins);
        let count = |condition: fn(&SessionLog) -> bool| logs().filter(|log| condition(log)).count() as u64;
        Self {
            sessions_failed: count(|log| matches!(log.state, SessionState::Disconnected { .. })),
            reconnects: logs().map(|log| log.begun.saturating_sub(1)).sum(),
            without_session_ms: Percentiles::of_durations(
                logs().flat_map(|log| log.without_session.iter().copied()),
            ),
            without_island_ms: Percentiles::of_durations(
                logs().flat_map(|log| log.without_island.iter().copied()),
            ),
            back_in_island_ms: Percentiles::of_durations(rejoins().map(|rejoin| rejoin.took)),
            back_in_same_island: rejoins().filter(|rejoin| rejoin.to_same).count() as u64,
            gateway_ends: sum(logs().map(|log| &log.gateway_ends)),
            room_ends: sum(logs().map(|log| &log.room_ends)),
        }
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (kind, count) in counts.flatten() {
        *all.entry(kind.clone()).or_default() += count;
    }
    all
}

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions_failed, reconnects, gateway_ends, room_ends, .. } = self;
        let ends = |ends: &BTreeMap<String, u64>| {
            let ends: Vec<String> = ends.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            if ends.is_empty() { "none".to_owned() } else { ends.join(", ") }
        };
        writeln!(f, "  sessions        {sessions_failed} failed, {reconnects} reconnects")?;
        if *reconnects > 0 {
            writeln!(f, "  without session {} ms", self.without_session_ms.with_max())?;
            writeln!(
                f,
                "  back in island  {} ms, {} of {} in the same island",
                self.back_in_island_ms.with_max(),
                self.back_in_same_island,
                self.back_in_island_ms.samples
            )?;
        }
        write!(f, "  closed          sessions: {}; rooms: {}", ends(gateway_ends), ends(room_ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_session_is_timed_until_sign_in_and_assignment() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let island = |id: &str| id.parse::<IslandId>().unwrap();
        let closed = |code| Disconnect::Closed { code, reason: String::new() };
        let broken = Disconnect::Broken("gone".to_owned());
        let mut sessions = SessionLog::default();
        assert_eq!(sessions.status(), SessionStatus::Lost);
        sessions.session_ended(at(0), &broken);
        sessions.signed_in(at(1));
        assert_eq!(sessions.status(), SessionStatus::SignedIn(None));
        sessions.assigned(at(2), &island("I1"));
        assert_eq!(sessions.status(), SessionStatus::SignedIn(Some(island("I1"))));
        sessions.session_ended(at(10), &closed(1012));
        assert_eq!(sessions.status(), SessionStatus::ClosedWithReason);
        sessions.session_ended(at(11), &broken);
        assert_eq!(sessions.status(), SessionStatus::Lost);
        sessions.signed_in(at(13));
        sessions.assigned(at(14), &island("I1"));
        sessions.assigned(at(15), &island("I2"));
        sessions.session_ended(at(20), &closed(1012));
        sessions.signed_in(at(21));
        sessions.session_ended(at(22), &closed(1012));
        sessions.signed_in(at(23));
        sessions.assigned(at(26), &island("I1"));
        sessions.room_left(&Disconnect::Left);
        let mut gone = SessionLog::default();
        gone.signed_in(at(1));
        gone.session_ended(at(2), &closed(4003));
        let never = SessionLog::default();
        let all = serde_json::to_value(Sessions::of([&sessions, &gone, &never].into_iter())).unwrap();
        assert_eq!((&all["sessions_failed"], &all["reconnects"]), (&1.into(), &3.into()), "{all}");
        assert_eq!(
            (&all["back_in_same_island"], &all["back_in_island_ms"]["samples"]),
            (&1.into(), &2.into())
        );
        let longest = |what: &str| all[what]["max"].as_f64().unwrap().round() as u64 / 100;
        assert_eq!((longest("without_session_ms"), longest("back_in_island_ms")), (30, 30), "{all}");
        // One of the sessions ended before it was assigned an island.
        assert_eq!((longest("without_island_ms"), &all["without_island_ms"]["samples"]), (60, &2.into()));
        assert_eq!(all["gateway_ends"], serde_json::json!({"1012": 3, "4003": 1, "broken": 2}));
        assert_eq!(all["room_ends"], serde_json::json!({"left": 1}));
    }
}
