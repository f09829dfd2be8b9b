//! The rate limit of jumps: how often a peer's position may change its island.

use std::{collections::HashMap, time::Duration};

use archipelago::{Settings, rules::Rules};
use protocol::{Address, Position, SessionId};

/// Jumps that a peer may make at once.
const BURST: u32 = 5;
/// One more jump is allowed after each interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// Limits how often each peer jumps: a token bucket for each peer. Times are the engine's.
///
/// Each change of island costs packets to all members of two islands, so the positions that can cause one are
/// limited, and the engine evaluates only the positions that pass. Positions pass without limit while all
/// that passed since the last jump lie within `span_m` of each other. The next one outside is a *jump*, which
/// costs a token: five at once, then one a second. Without a token the position is withheld. The engine keeps
/// the previous one, and the newest withheld position passes as soon as there is a token, whether or not the
/// peer sends another.
///
/// `span_m` is the leave distance minus the join distance, the smallest that a rule or the settings have. To
/// leave a member of an island and to join it again (or the reverse) needs a move longer than that. So
/// between two jumps a peer comes within range of each other peer, or out of range, at most once, however
/// many heartbeats it sends and however small their steps are. (Borders between areas have a settling time
/// for the same purpose.) Straight movement of up to `span_m` a second (16 m/s by default) is never withheld;
/// faster movement reaches the engine once a second.
#[derive(Debug)]
pub(crate) struct JumpLimiter {
    span_m: f32,
    /// A peer is removed when it is gone and its tokens are refilled.
    peers: HashMap<Address, PassedPositions>,
    /// The newest position of each peer that has one withheld; each of these peers is in `peers`, too.
    withheld: HashMap<Address, Withheld>,
}

/// The positions of a peer that passed since its last jump.
#[derive(Debug)]
struct PassedPositions {
    /// The newest session with a position that passed.
    session: Option<SessionId>,
    /// The bounds of the positions in x and z.
    min: (f32, f32),
    max: (f32, f32),
    /// When all tokens are refilled.
    refilled_at: Duration,
}

/// A position that the engine does not know yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Withheld {
    pub(crate) session: Option<SessionId>,
    pub(crate) position: Position,
}

impl JumpLimiter {
    pub(crate) fn new(settings: &Settings, rules: &Rules) -> Self {
        let mut limiter = Self { span_m: 0.0, peers: HashMap::new(), withheld: HashMap::new() };
        limiter.set_distances(settings, rules);
        limiter
    }

    /// Uses these distances from now on.
    pub(crate) fn set_distances(&mut self, settings: &Settings, rules: &Rules) {
        let distances = rules.rules.iter().filter_map(|rule| rule.distances);
        let spans = distances.map(|distances| distances.leave_m - distances.join_m);
        self.span_m = spans.fold(settings.leave_distance_m - settings.join_distance_m, f32::min);
    }

    /// Takes the position of a heartbeat of this session; `current` returns the engine's position, if it knows
    /// the peer. Returns the position for the engine: `position`, or `current` while `position` is withheld.
    ///
    /// The first position of a session passes without a token, because the client waits for its first
    /// assignment.
    pub(crate) fn filter(
        &mut self,
        peer: Address,
        session: Option<SessionId>,
        position: Position,
        current: impl FnOnce() -> Option<Position>,
        now: Duration,
    ) -> Position {
        let Some(passed) = self.peers.get_mut(&peer) else {
            self.peers.insert(peer, PassedPositions::new(session, position));
            return position;
        };
        if session.is_some() && session < passed.session {
            // The engine ignores messages of a replaced session.
            return position;
        }
        let is_first = session > passed.session;
        passed.session = session.max(passed.session);
        if passed.extend_within(self.span_m, position) || passed.try_jump(position, now) {
            self.forget_withheld(peer);
            return position;
        }
        let Some(current) = (if is_first { None } else { current() }) else {
            (passed.min, passed.max) = bounds(position);
            self.forget_withheld(peer);
            return position;
        };
        self.withheld.insert(peer, Withheld { session, position });
        current
    }

    /// Removes and returns the withheld positions for which there is a token now.
    pub(crate) fn release_due(&mut self, now: Duration) -> Vec<(Address, Withheld)> {
        let peers = &mut self.peers;
        let is_due = |peer: &Address, withheld: &mut Withheld| {
            peers.get_mut(peer).is_none_or(|passed| passed.try_jump(withheld.position, now))
        };
        self.withheld.extract_if(is_due).collect()
    }

    /// The withheld position of a peer, and for how much longer it is withheld.
    pub(crate) fn withheld(&self, peer: Address, now: Duration) -> Option<(Position, Duration)> {
        let withheld = self.withheld.get(&peer)?;
        Some((withheld.position, self.peers.get(&peer)?.time_until_token(now)))
    }

    /// Forgets peers that are gone. A peer that jumped recently is kept until its tokens are refilled, so
    /// that a new session does not refill them sooner.
    pub(crate) fn retain(&mut self, is_present: impl Fn(Address) -> bool, now: Duration) {
        self.peers.retain(|&peer, passed| passed.refilled_at > now || is_present(peer));
        self.withheld.retain(|peer, _| self.peers.contains_key(peer));
    }

    fn forget_withheld(&mut self, peer: Address) {
        // It is empty nearly always.
        if !self.withheld.is_empty() {
            self.withheld.remove(&peer);
        }
    }
}

impl PassedPositions {
    fn new(session: Option<SessionId>, position: Position) -> Self {
        let (min, max) = bounds(position);
        Self { session, min, max, refilled_at: Duration::ZERO }
    }

    /// Whether a position and all that passed since the last jump lie within `span_m` of each other; if so,
    /// it passes. The diagonal of their bounds is at least as long as any distance between them.
    fn extend_within(&mut self, span_m: f32, position: Position) -> bool {
        let min = (self.min.0.min(position.x), self.min.1.min(position.z));
        let max = (self.max.0.max(position.x), self.max.1.max(position.z));
        let is_within = f32::hypot(max.0 - min.0, max.1 - min.1) <= span_m;
        if is_within {
            (self.min, self.max) = (min, max);
        }
        is_within
    }

    /// Jumps to a position, if there is a token.
    fn try_jump(&mut self, position: Position, now: Duration) -> bool {
        if self.time_until_token(now) > Duration::ZERO {
            return false;
        }
        self.refilled_at = self.refilled_at.max(now) + INTERVAL;
        (self.min, self.max) = bounds(position);
        true
    }

    /// How long until there is a token.
    fn time_until_token(&self, now: Duration) -> Duration {
        (self.refilled_at + INTERVAL).saturating_sub(now + INTERVAL * BURST)
    }
}

/// The bounds of one position.
fn bounds(position: Position) -> ((f32, f32), (f32, f32)) {
    let at = (position.x, position.z);
    (at, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Address = Address::new([1; 20]);

    fn at(x: f32) -> Position {
        Position::new(x, 0.0, 0.0)
    }

    fn limiter() -> JumpLimiter {
        JumpLimiter::new(&Settings::default(), &Rules::default())
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A peer of one session, with the position that the engine has.
    struct Walker {
        limiter: JumpLimiter,
        current: Option<Position>,
        deferred: usize,
    }

    impl Walker {
        fn new() -> Self {
            Self { limiter: limiter(), current: None, deferred: 0 }
        }

        fn heartbeat(&mut self, position: Position, now: Duration) {
            for (_, withheld) in self.limiter.release_due(now) {
                self.current = Some(withheld.position);
            }
            let passed = self.limiter.filter(PEER, None, position, || self.current, now);
            self.deferred += usize::from(passed != position);
            self.current = Some(passed);
        }
    }

    #[test]
    fn burst_of_five_jumps_passes_and_then_one_a_second() {
        let mut walker = Walker::new();
        // 20 heartbeats a second, for ten seconds, back and forth.
        let (mut changes, mut last) = (0, None);
        for beat in 0..200_u16 {
            walker.heartbeat(at(f32::from(beat % 2) * 500.0), seconds(f64::from(beat) / 20.0));
            changes += usize::from(walker.current != last);
            last = walker.current;
        }
        // The first position, the burst, and one in each second.
        assert!((10..=1 + 5 + 10).contains(&changes), "{changes}");
        assert!(walker.deferred > 80, "{}", walker.deferred);
    }

    #[test]
    fn newest_withheld_position_passes_within_a_second() {
        let mut walker = Walker::new();
        for x in 0..20_u16 {
            walker.heartbeat(at(f32::from(x) * 100.0), seconds(1.0));
        }
        assert_eq!(walker.current, Some(at(500.0)), "the first, and five jumps");
        assert_eq!(walker.limiter.withheld(PEER, seconds(1.5)), Some((at(1_900.0), seconds(0.5))));
        assert_eq!(walker.limiter.release_due(seconds(1.9)), []);
        let newest = Withheld { session: None, position: at(1_900.0) };
        assert_eq!(walker.limiter.release_due(seconds(2.0)), [(PEER, newest)]);
        assert_eq!(walker.limiter.release_due(seconds(9.0)), [], "once");
    }

    #[test]
    fn straight_movement_is_never_withheld_below_its_speed() {
        for (beats_a_second, speed) in [(2.0, 10.0), (10.0, 10.0), (20.0, 15.0), (1.0, 50.0), (0.4, 300.0)] {
            let mut walker = Walker::new();
            for beat in 0..1_000_u16 {
                let now = f64::from(beat) / beats_a_second;
                let z = now as f32 * speed;
                walker.heartbeat(Position::new(z / 2.0, 0.0, z * 0.75_f32.sqrt()), seconds(now));
            }
            assert_eq!(walker.deferred, 0, "{beats_a_second} a second at {speed} m/s");
        }
    }

    #[test]
    fn small_steps_cannot_leave_and_rejoin_without_jumps() {
        let mut walker = Walker::new();
        // Steps of 6 m, 20 a second, from 60 m to 84 m from a peer at 0 and back: across both distances.
        let path = [60.0, 66.0, 72.0, 78.0, 84.0, 78.0, 72.0, 66.0];
        let (mut together, mut changes) = (true, 0);
        for beat in 0..400_u16 {
            walker.heartbeat(at(path[usize::from(beat) % path.len()]), seconds(f64::from(beat) / 20.0));
            let x = walker.current.unwrap().x;
            let now_together = if together { x <= 80.0 } else { x <= 64.0 };
            changes += usize::from(now_together != together);
            together = now_together;
        }
        assert!(changes <= 5 + 20 + 1, "{changes} in 20 s, where 100 were possible");
    }

    #[test]
    fn first_position_of_a_session_passes_without_a_token() {
        let (mut limiter, now) = (limiter(), seconds(1.0));
        let session = |number| Some(SessionId::new(number, 0));
        let mut pass =
            |number, x, current| limiter.filter(PEER, session(number), at(x), || Some(at(current)), now);
        assert_eq!(pass(1, 0.0, 0.0), at(0.0));
        for jump in 1..=5_u8 {
            let x = f32::from(jump) * 100.0;
            assert_eq!(pass(1, x, 0.0), at(x));
        }
        assert_eq!(pass(1, 0.0, 500.0), at(500.0));
        assert_eq!(pass(2, 1_000.0, 500.0), at(1_000.0));
        assert_eq!(pass(2, 0.0, 1_000.0), at(1_000.0), "the newer session does not refill the tokens");
        assert_eq!(pass(1, 0.0, 1_000.0), at(0.0), "the engine ignores a replaced session");
        assert_eq!(limiter.withheld(PEER, now), Some((at(0.0), seconds(1.0))));
    }

    #[test]
    fn position_passes_where_the_engine_knows_none() {
        let (mut limiter, now) = (limiter(), seconds(1.0));
        for x in 0..7_u16 {
            limiter.filter(PEER, None, at(f32::from(x) * 100.0), || Some(at(500.0)), now);
        }
        assert!(limiter.withheld(PEER, now).is_some());
        assert_eq!(limiter.filter(PEER, None, at(9.0), || None, now), at(9.0));
        assert_eq!(limiter.withheld(PEER, now), None);
    }

    #[test]
    fn position_within_span_replaces_the_withheld_one() {
        let mut walker = Walker::new();
        for x in 0..7_u16 {
            walker.heartbeat(at(f32::from(x) * 100.0), seconds(1.0));
        }
        walker.heartbeat(at(510.0), seconds(1.0));
        assert_eq!((walker.current, walker.limiter.withheld(PEER, seconds(1.0))), (Some(at(510.0)), None));
    }

    #[test]
    fn departed_peers_are_forgotten_once_tokens_refill() {
        let mut limiter = limiter();
        for x in 0..7_u16 {
            limiter.filter(PEER, None, at(f32::from(x) * 100.0), || Some(at(0.0)), seconds(1.0));
        }
        limiter.retain(|_| false, seconds(5.9));
        assert_eq!(limiter.peers.len(), 1);
        limiter.retain(|_| true, seconds(99.0));
        assert_eq!(limiter.peers.len(), 1);
        limiter.retain(|_| false, seconds(6.0));
        assert_eq!((limiter.peers.len(), limiter.withheld.len()), (0, 0));
    }

    #[test]
    fn smallest_span_of_settings_and_rules_applies() {
        let span = |text: &str| JumpLimiter::new(&Settings::default(), &Rules::parse(text).unwrap()).span_m;
        let rule = |join: u32, leave: u32| {
            format!(
                "[[rule]]\nname = \"{join}\"\narea = {{ parcels = [\"1,2\"] }}\n\
                 join_distance_m = {join}\nleave_distance_m = {leave}\n"
            )
        };
        assert_eq!(span(""), 16.0);
        assert_eq!(span(&rule(100, 200)), 16.0);
        assert_eq!(span(&(rule(100, 200) + &rule(10, 14))), 4.0);
    }
}
