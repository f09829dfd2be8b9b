//! Clients that were not told what they should have been, as their heartbeats say.

use std::{collections::HashMap, time::Duration};

use protocol::Address;

use crate::replica::ON_ITS_WAY;

/// Whose heartbeats disagree with what the director last told them, and since when. Times are the
/// engine's.
#[derive(Debug, Default)]
pub(crate) struct Dissent(HashMap<Address, Disagreement>);

#[derive(Debug, Clone, Copy)]
struct Disagreement {
    /// Since when, or when it was last told again.
    since: Duration,
    /// How long it may last before it is told again: longer each time, for a client whose socket
    /// takes nothing would otherwise be told ever more.
    patience: Duration,
}

const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

impl Dissent {
    /// A heartbeat says whether it `agrees`. Gives whether it has not for so long that its client is
    /// to be told again.
    pub(crate) fn hear(&mut self, peer: Address, agrees: bool, now: Duration) -> bool {
        if agrees {
            // Hardly anybody is in it, ever.
            if !self.0.is_empty() {
                self.0.remove(&peer);
            }
            return false;
        }
        let new = Disagreement { since: now, patience: ON_ITS_WAY };
        let disagreement = self.0.entry(peer).or_insert(new);
        if now <= disagreement.since + disagreement.patience {
            return false;
        }
        disagreement.since = now;
        disagreement.patience = (disagreement.patience * 2).min(LONGEST_PATIENCE);
        true
    }

    /// This client is told something just now, which takes its time.
    pub(crate) fn told(&mut self, peer: Address, now: Duration) {
        if self.0.is_empty() {
            return;
        }
        if let Some(disagreement) = self.0.get_mut(&peer) {
            disagreement.since = now;
        }
    }

    /// Forgets those who are not there any more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(Address) -> bool) {
        self.0.retain(|&peer, _| is_there(peer));
    }

    /// Everything that is told is late: what heartbeats say means nothing.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn whoever_disagrees_for_more_than_a_second_is_told_and_then_ever_more_patiently() {
        let (mut dissent, peer) = (Dissent::default(), Address::new([1; 20]));
        assert!(!dissent.hear(peer, false, seconds(5.0)));
        assert!(!dissent.hear(peer, false, seconds(6.0)), "not for longer than a second yet");
        assert!(dissent.hear(peer, false, seconds(6.1)));
        assert!(!dissent.hear(peer, false, seconds(8.0)));
        assert!(dissent.hear(peer, false, seconds(8.2)), "again after two seconds");
        assert!(!dissent.hear(peer, true, seconds(9.0)));
        assert!(!dissent.hear(peer, false, seconds(9.5)), "it agreed meanwhile");
        assert!(dissent.hear(peer, false, seconds(10.6)), "and is waited for no longer than at first");
    }

    #[test]
    fn what_was_told_just_now_may_be_on_its_way() {
        let (mut dissent, peer) = (Dissent::default(), Address::new([1; 20]));
        assert!(!dissent.hear(peer, false, seconds(5.0)));
        dissent.told(peer, seconds(6.0));
        assert!(!dissent.hear(peer, false, seconds(6.9)));
        assert!(dissent.hear(peer, false, seconds(7.1)));
    }
}
