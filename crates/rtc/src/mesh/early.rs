//! Signals that arrive before the plan that lists their sender, or before the offer that they belong to.

use std::{collections::HashMap, time::Duration};

use protocol::Address;
use tokio::time::Instant;

/// The most candidates of one negotiation. Each costs connectivity checks to an address that the other side has
/// chosen.
pub(crate) const MAX_CANDIDATES: usize = 20;
/// The time for which they are kept.
const KEPT: Duration = Duration::from_millis(3_500);
/// The members of which signals are kept. When more send some, those of further members are refused.
const MAX_SENDERS: usize = 8;

/// The signals that wait.
#[derive(Debug, Default)]
pub(crate) struct EarlySignals(HashMap<Address, Early>);

#[derive(Debug)]
struct Early {
    /// The newest offer.
    offer: Option<(u32, String)>,
    candidates: Vec<(u32, String)>,
    until: Instant,
}

impl EarlySignals {
    /// Keeps an offer. Returns whether there was capacity.
    pub(crate) fn keep_offer(&mut self, from: Address, id: u32, sdp: String, now: Instant) -> bool {
        let Some(early) = self.entry(from, now) else { return false };
        early.offer = Some((id, sdp));
        true
    }

    /// Keeps a candidate. Returns whether there was capacity.
    pub(crate) fn keep_candidate(&mut self, from: Address, id: u32, json: String, now: Instant) -> bool {
        let Some(early) = self.entry(from, now).filter(|early| early.candidates.len() < MAX_CANDIDATES)
        else {
            return false;
        };
        early.candidates.push((id, json));
        true
    }

    fn entry(&mut self, from: Address, now: Instant) -> Option<&mut Early> {
        self.0.retain(|_, early| early.until > now);
        if !self.0.contains_key(&from) && self.0.len() >= MAX_SENDERS {
            return None;
        }
        let early = || Early { offer: None, candidates: Vec::new(), until: now + KEPT };
        Some(self.0.entry(from).or_insert_with(early))
    }

    /// The offer of a member that is listed now.
    pub(crate) fn take_offer(&mut self, from: Address, now: Instant) -> Option<(u32, String)> {
        self.0.get_mut(&from).filter(|early| early.until > now)?.offer.take()
    }

    /// The candidates for an offer of this number. Those of other numbers are discarded.
    pub(crate) fn take_candidates(&mut self, from: Address, id: u32, now: Instant) -> Vec<String> {
        let early = self.0.remove(&from).filter(|early| early.until > now);
        let candidates = early.map(|early| early.candidates).unwrap_or_default();
        candidates.into_iter().filter(|(of, _)| *of == id).map(|(_, json)| json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> Address {
        Address::new([number; 20])
    }

    #[test]
    fn kept_signals_are_bounded() {
        let (mut early, now) = (EarlySignals::default(), Instant::now());
        let candidate =
            |early: &mut EarlySignals, from| early.keep_candidate(address(from), 7, "c".into(), now);
        assert!((0..MAX_CANDIDATES).all(|_| candidate(&mut early, 0)));
        assert!(!candidate(&mut early, 0));
        assert!((1..MAX_SENDERS as u8).all(|from| candidate(&mut early, from)));
        assert!(!candidate(&mut early, 100));
        assert!(!early.keep_offer(address(100), 7, "o".into(), now));
        assert!(early.keep_offer(address(100), 7, "o".into(), now + KEPT), "the others are too old");
    }

    #[test]
    fn candidates_of_another_offer_are_discarded() {
        let (mut early, now, from) = (EarlySignals::default(), Instant::now(), address(1));
        early.keep_offer(from, 7, "old".into(), now);
        early.keep_candidate(from, 7, "a".into(), now);
        early.keep_offer(from, 8, "new".into(), now);
        early.keep_candidate(from, 8, "b".into(), now);
        assert_eq!(early.take_offer(from, now), Some((8, "new".to_owned())));
        assert_eq!(early.take_offer(from, now), None);
        assert_eq!(early.take_candidates(from, 8, now), ["b"]);
        assert!(early.take_candidates(from, 8, now).is_empty());
    }
}
