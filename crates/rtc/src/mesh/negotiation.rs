//! The state of the link to one neighbour, without its connection.
//!
//! One side initiates: it offers at once. The other waits [`LINK_TIMEOUT`] for that offer, and then offers itself.
//! If both have offered (glare), the lower address drops its own offer and answers that of the other, and the higher
//! ignores the offer of the other, so that exactly one of the two remains.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

/// The time from an offer until both channels are open, and from an interruption until ICE has found another path. A
/// link that takes longer is dropped and begun anew. Without a path, WebRTC itself reports a failure only after 15 s
/// or more.
pub(crate) const LINK_TIMEOUT: Duration = Duration::from_millis(3_500);
/// The delay after the first failed attempt. It doubles with each further one, up to [`MAX_DELAY`], and is shortened
/// at random to half at most.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(15);
/// The failed attempts after which the neighbour is reported as failed. Further attempts follow.
const REPORTED_FAILURES: u32 = 3;
/// The time after which a link that was up counts as stable: its loss does not add to earlier failures.
const STABLE: Duration = Duration::from_secs(10);

/// The link to one neighbour.
#[derive(Debug)]
pub(crate) struct Negotiation {
    /// Whether the own address is below that of the neighbour.
    is_lower: bool,
    initiates: bool,
    phase: Phase,
    /// Failed attempts in a row.
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection. The next own offer is due then.
    Idle { offer_at: Instant },
    /// The own offer is not answered.
    Offering { id: u32, deadline: Instant },
    /// Offer and answer are exchanged; the channels are not open.
    Connecting { id: u32, offered: bool, deadline: Instant },
    /// The channels are open.
    Up { id: u32, offered: bool, since: Instant },
    /// The path is lost. The side that offered the connection restarts its ICE.
    Interrupted { id: u32, offered: bool, awaits_answer: bool, deadline: Instant },
}

/// The next action on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Opens a connection and offers it with this number.
    Offer { id: u32 },
    /// Closes the connection, if there is one, opens another and answers with it.
    AnswerNew,
    /// Answers on the existing connection: the other side restarts ICE.
    AnswerRestart,
    /// Restarts ICE on the existing connection, with an offer of this number.
    OfferRestart { id: u32 },
    /// Applies the answer to the existing connection.
    AcceptAnswer,
    /// Closes the connection: the attempt has failed, or the link is lost.
    Drop,
}

impl Negotiation {
    /// A link that begins now.
    pub(crate) fn new(is_lower: bool, initiates: bool, now: Instant) -> Self {
        let delay = if initiates { Duration::ZERO } else { LINK_TIMEOUT };
        Self { is_lower, initiates, phase: Phase::Idle { offer_at: now + delay }, failures: 0 }
    }

    /// A newer plan lists the link.
    pub(crate) fn set_initiates(&mut self, initiates: bool) {
        self.initiates = initiates;
    }

    /// The time of the next [`Self::due`].
    pub(crate) fn due_time(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle { offer_at } => Some(offer_at),
            Phase::Offering { deadline, .. }
            | Phase::Connecting { deadline, .. }
            | Phase::Interrupted { deadline, .. } => Some(deadline),
            Phase::Up { .. } => None,
        }
    }

    /// The action that is due now, if any. `id`: a number for the next own offer, not 0.
    pub(crate) fn due(&mut self, id: u32, now: Instant) -> Option<Action> {
        if self.due_time().is_none_or(|due| due > now) {
            return None;
        }
        if matches!(self.phase, Phase::Idle { .. }) {
            self.phase = Phase::Offering { id, deadline: now + LINK_TIMEOUT };
            return Some(Action::Offer { id });
        }
        self.lost(now);
        Some(Action::Drop)
    }

    /// The neighbour has sent an offer. `None`: it is ignored.
    pub(crate) fn offer_received(&mut self, id: u32, now: Instant) -> Option<Action> {
        match self.phase {
            // Glare: the neighbour answers the own offer.
            Phase::Offering { .. } if !self.is_lower => return None,
            Phase::Connecting { id: known, .. } if known == id && id != 0 => return None,
            // Only the side that offered a connection restarts its ICE.
            Phase::Up { id: known, offered, .. } | Phase::Interrupted { id: known, offered, .. }
                if known == id && id != 0 =>
            {
                return (!offered).then_some(Action::AnswerRestart);
            }
            _ => {}
        }
        // Any other offer begins a new connection: the neighbour has dropped the old one, or has started again.
        self.phase = Phase::Connecting { id, offered: false, deadline: now + LINK_TIMEOUT };
        Some(Action::AnswerNew)
    }

    /// The neighbour has sent an answer. `None`: it is stale. `id` 0: an answer to the newest offer.
    pub(crate) fn answer_received(&mut self, id: u32) -> Option<Action> {
        match self.phase {
            Phase::Offering { id: own, deadline } if id == own || id == 0 => {
                self.phase = Phase::Connecting { id: own, offered: true, deadline };
                Some(Action::AcceptAnswer)
            }
            Phase::Interrupted { id: own, awaits_answer: true, offered, deadline }
                if id == own || id == 0 =>
            {
                self.phase = Phase::Interrupted { id: own, offered, awaits_answer: false, deadline };
                Some(Action::AcceptAnswer)
            }
            _ => None,
        }
    }

    /// Whether a candidate of this number belongs to the existing connection.
    pub(crate) fn is_current(&self, id: u32) -> bool {
        self.id().is_some_and(|current| id == current || id == 0)
    }

    /// The number of the existing connection.
    pub(crate) fn id(&self) -> Option<u32> {
        match self.phase {
            Phase::Idle { .. } => None,
            Phase::Offering { id, .. }
            | Phase::Connecting { id, .. }
            | Phase::Up { id, .. }
            | Phase::Interrupted { id, .. } => Some(id),
        }
    }

    /// The channels are open, or the path is back.
    pub(crate) fn connected(&mut self, now: Instant) {
        if let Phase::Connecting { id, offered, .. } | Phase::Interrupted { id, offered, .. } = self.phase {
            self.phase = Phase::Up { id, offered, since: now };
        }
    }

    /// The path is lost.
    pub(crate) fn interrupted(&mut self, now: Instant) -> Option<Action> {
        let Phase::Up { id, offered, since } = self.phase else { return None };
        self.forgive(since, now);
        // The other side waits for the restart, which it may notice to be necessary later.
        let timeout = if offered { LINK_TIMEOUT } else { LINK_TIMEOUT * 2 };
        self.phase = Phase::Interrupted { id, offered, awaits_answer: offered, deadline: now + timeout };
        offered.then_some(Action::OfferRestart { id })
    }

    /// The attempt has failed, or the connection has ended.
    pub(crate) fn lost(&mut self, now: Instant) {
        if let Phase::Up { since, .. } = self.phase {
            self.forgive(since, now);
        }
        self.failures += 1;
        let doublings = (self.failures - 1).min(8);
        let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY);
        let delay = delay.mul_f64(rand::rng().random_range(0.5..1.0));
        let turn = if self.initiates { Duration::ZERO } else { LINK_TIMEOUT };
        self.phase = Phase::Idle { offer_at: now + delay + turn };
    }

    fn forgive(&mut self, since: Instant, now: Instant) {
        if now - since >= STABLE {
            self.failures = 0;
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Whether several attempts in a row have failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures >= REPORTED_FAILURES && !self.is_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The lower and the higher side of a link; the lower one initiates.
    fn sides(now: Instant) -> [Negotiation; 2] {
        [Negotiation::new(true, true, now), Negotiation::new(false, false, now)]
    }

    /// A link that the first side has offered, up on both sides.
    fn up(now: Instant) -> [Negotiation; 2] {
        let [mut one, mut two] = sides(now);
        assert_eq!(one.due(7, now), Some(Action::Offer { id: 7 }));
        assert_eq!(two.offer_received(7, now), Some(Action::AnswerNew));
        assert_eq!(one.answer_received(7), Some(Action::AcceptAnswer));
        one.connected(now);
        two.connected(now);
        assert!(one.is_up() && two.is_up());
        [one, two]
    }

    #[test]
    fn other_side_offers_when_no_offer_arrives() {
        let now = Instant::now();
        let [_, mut two] = sides(now);
        assert_eq!(two.due(9, now + LINK_TIMEOUT - MS), None);
        assert_eq!(two.due(9, now + LINK_TIMEOUT), Some(Action::Offer { id: 9 }));
    }

    #[test]
    fn glare_leaves_the_offer_of_the_higher_address() {
        let now = Instant::now();
        let [mut lower, mut higher] = sides(now);
        higher.due(9, now + LINK_TIMEOUT);
        lower.due(7, now);
        assert_eq!(higher.offer_received(7, now), None);
        assert_eq!(lower.offer_received(9, now), Some(Action::AnswerNew));
        assert_eq!(lower.answer_received(7), None, "an answer to the dropped offer");
        assert_eq!(higher.answer_received(9), Some(Action::AcceptAnswer));
        assert_eq!((lower.id(), higher.id()), (Some(9), Some(9)));
    }

    #[test]
    fn stale_answers_and_candidates_are_recognised() {
        let now = Instant::now();
        let [mut one, _] = sides(now);
        assert!(!one.is_current(0), "no connection");
        one.due(7, now);
        assert_eq!(one.due(8, now + LINK_TIMEOUT), Some(Action::Drop));
        let retry = one.due_time().unwrap();
        assert_eq!(one.due(8, retry), Some(Action::Offer { id: 8 }));
        assert_eq!(one.answer_received(7), None);
        assert!(!one.is_current(7) && one.is_current(8) && one.is_current(0));
        assert_eq!(one.answer_received(0), Some(Action::AcceptAnswer), "of a client without numbers");
        assert_eq!(one.answer_received(8), None, "a second answer");
    }

    #[test]
    fn newer_offer_replaces_the_connection() {
        let now = Instant::now();
        let [mut one, mut two] = up(now);
        assert_eq!(two.offer_received(8, now), Some(Action::AnswerNew));
        assert!(!two.is_up() && two.is_current(8));
        assert_eq!(two.offer_received(8, now), None, "repeated");
        assert_eq!(one.offer_received(7, now), None, "its own number");
        assert_eq!(one.offer_received(0, now), Some(Action::AnswerNew), "without a number");
    }

    #[test]
    fn offering_side_restarts_an_interrupted_link() {
        let now = Instant::now();
        let [mut one, mut two] = up(now);
        assert_eq!(two.interrupted(now), None);
        assert_eq!(one.interrupted(now), Some(Action::OfferRestart { id: 7 }));
        assert_eq!(one.interrupted(now), None, "once");
        assert_eq!(two.offer_received(7, now), Some(Action::AnswerRestart));
        assert_eq!(one.answer_received(7), Some(Action::AcceptAnswer));
        assert_eq!(one.answer_received(7), None);
        one.connected(now);
        two.connected(now);
        assert!(one.is_up() && two.is_up());
    }

    #[test]
    fn link_that_stays_interrupted_is_dropped() {
        let now = Instant::now();
        let [mut one, mut two] = up(now);
        one.interrupted(now);
        two.interrupted(now);
        assert_eq!(one.due(8, now + LINK_TIMEOUT), Some(Action::Drop));
        assert_eq!(two.due(9, now + LINK_TIMEOUT), None);
        assert_eq!(two.offer_received(8, now + LINK_TIMEOUT), Some(Action::AnswerNew));
    }

    #[test]
    fn attempts_back_off_and_are_reported_as_failed() {
        let mut now = Instant::now();
        let [mut one, _] = sides(now);
        let mut delays = Vec::new();
        for attempt in 1..=10 {
            assert_eq!(one.due(attempt, now), Some(Action::Offer { id: attempt }));
            now += LINK_TIMEOUT;
            assert_eq!(one.due(0, now), Some(Action::Drop));
            assert_eq!(one.has_failed(), attempt >= REPORTED_FAILURES);
            let next = one.due_time().unwrap();
            delays.push(next - now);
            now = next;
        }
        assert!(delays[0] >= FIRST_DELAY / 2 && delays[0] <= FIRST_DELAY, "{delays:?}");
        assert!(delays[9] >= MAX_DELAY / 2 && delays.iter().all(|delay| *delay <= MAX_DELAY), "{delays:?}");
        one.due(20, now);
        one.answer_received(20);
        one.connected(now);
        assert!(!one.has_failed());
        one.lost(now + STABLE);
        assert!(!one.has_failed() && one.due_time().unwrap() <= now + STABLE + FIRST_DELAY);
    }
}
