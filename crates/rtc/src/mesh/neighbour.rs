//! The neighbours of a member.

use std::{collections::HashMap, time::Duration};

use protocol::Address;
use tokio::time::Instant;

use super::{
    bucket::Bucket,
    link::Link,
    negotiation::Negotiation,
    options::{BURST, Limits},
};

/// The time for which a link that no plan lists any more is kept: packets are still forwarded by older plans.
pub(crate) const UNLISTED_KEPT: Duration = Duration::from_secs(5);
/// Malformed packets, a second, with a burst of twenty. A neighbour above it is cut off.
const MALFORMED_PER_SECOND: u32 = 1;
const MALFORMED_BURST: Duration = Duration::from_secs(20);
/// Offers, a second, with a burst of ten. Each costs sockets and a certificate; those above it are refused.
const OFFERS_PER_SECOND: u32 = 1;
const OFFER_BURST: Duration = Duration::from_secs(10);

/// A member that a plan links, or has linked a moment ago.
pub(crate) struct Neighbour {
    pub(crate) negotiation: Negotiation,
    pub(crate) link: Option<Link>,
    /// The time from which no plan lists it; `None`: the newest plan does.
    pub(crate) unlisted_since: Option<Instant>,
    packets: Bucket,
    bytes: Bucket,
    malformed: Bucket,
    offers: Bucket,
    /// It is refused until then.
    cut_off_until: Option<Instant>,
}

/// All neighbours, by address.
#[derive(Default)]
pub(crate) struct Neighbours(pub(crate) HashMap<Address, Neighbour>);

impl Neighbour {
    pub(crate) fn new(negotiation: Negotiation, limits: &Limits, now: Instant) -> Self {
        Self {
            negotiation,
            link: None,
            unlisted_since: None,
            packets: Bucket::new(limits.packets_per_second, BURST, now),
            bytes: Bucket::new(limits.bytes_per_second, BURST, now),
            malformed: Bucket::new(MALFORMED_PER_SECOND, MALFORMED_BURST, now),
            offers: Bucket::new(OFFERS_PER_SECOND, OFFER_BURST, now),
            cut_off_until: None,
        }
    }

    /// Whether the neighbour may send one more packet of this size.
    pub(crate) fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        self.packets.take(1, now) && self.bytes.take(bytes, now)
    }

    /// Whether the neighbour may send one more malformed packet.
    pub(crate) fn admits_malformed(&mut self, now: Instant) -> bool {
        self.malformed.take(1, now)
    }

    /// Whether the neighbour may send one more offer.
    pub(crate) fn admits_offer(&mut self, now: Instant) -> bool {
        self.offers.take(1, now)
    }

    /// Refuses the neighbour for a while.
    pub(crate) fn cut_off(&mut self, until: Instant) {
        self.cut_off_until = Some(until);
    }

    pub(crate) fn is_cut_off(&self, now: Instant) -> bool {
        self.cut_off_until.is_some_and(|until| until > now)
    }

    /// Whether signals of the neighbour are accepted.
    pub(crate) fn is_welcome(&self, now: Instant) -> bool {
        self.unlisted_since.is_none() && !self.is_cut_off(now)
    }

    /// Whether the link has to be closed, and the neighbour forgotten.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        match self.unlisted_since {
            _ if self.is_cut_off(now) => false,
            Some(since) => self.link.is_none() || now - since >= UNLISTED_KEPT,
            None => false,
        }
    }

    /// The time of its next timer.
    pub(crate) fn due_time(&self, now: Instant) -> Option<Instant> {
        if self.is_cut_off(now) {
            return self.cut_off_until;
        }
        match self.unlisted_since {
            Some(since) => Some(since + UNLISTED_KEPT),
            None => self.negotiation.due_time(),
        }
    }
}

impl Neighbours {
    /// The neighbour of a link; `None` if the link is not in use any more.
    pub(crate) fn of_link(&mut self, number: u64) -> Option<(Address, &mut Neighbour)> {
        let is_link =
            |neighbour: &Neighbour| neighbour.link.as_ref().is_some_and(|link| link.number == number);
        let mut all = self.0.iter_mut().map(|(address, neighbour)| (*address, neighbour));
        all.find(|(_, neighbour)| is_link(neighbour))
    }

    /// Applies the links of a new plan.
    pub(crate) fn list(&mut self, own: Address, links: &[(Address, bool)], limits: &Limits, now: Instant) {
        for (address, neighbour) in &mut self.0 {
            if !links.iter().any(|(listed, _)| listed == address) {
                neighbour.unlisted_since.get_or_insert(now);
            }
        }
        for &(address, initiates) in links {
            let begun = || Neighbour::new(Negotiation::new(own < address, initiates, now), limits, now);
            let neighbour = self.0.entry(address).or_insert_with(begun);
            neighbour.negotiation.set_initiates(initiates);
            neighbour.unlisted_since = None;
        }
        // The links that are unlisted for the longest time are over first.
        let mut kept: Vec<_> =
            self.0.values_mut().filter(|neighbour| neighbour.unlisted_since.is_some()).collect();
        kept.sort_by_key(|neighbour| std::cmp::Reverse(neighbour.unlisted_since));
        for neighbour in kept.into_iter().skip(limits.max_links) {
            neighbour.unlisted_since = now.checked_sub(UNLISTED_KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> Address {
        Address::new([number; 20])
    }

    #[test]
    fn neighbour_is_refused_until_its_cut_off_ends() {
        let now = Instant::now();
        let mut neighbour = Neighbour::new(Negotiation::new(true, true, now), &Limits::default(), now);
        assert!((0..20).all(|_| neighbour.admits_malformed(now)) && !neighbour.admits_malformed(now));
        let until = now + Duration::from_secs(60);
        neighbour.cut_off(until);
        assert!(!neighbour.is_welcome(now) && neighbour.is_welcome(until));
        neighbour.unlisted_since = Some(now);
        assert!(!neighbour.is_over(now) && neighbour.is_over(until), "kept while it is refused");
    }

    #[test]
    fn bytes_are_limited_as_well_as_packets() {
        let now = Instant::now();
        let limits = Limits { packets_per_second: 100, bytes_per_second: 1_000, ..Limits::default() };
        let mut neighbour = Neighbour::new(Negotiation::new(true, true, now), &limits, now);
        assert!(neighbour.admits(2_000, now) && !neighbour.admits(1, now));
        let later = now + Duration::from_secs(60);
        assert!((0..200).all(|_| neighbour.admits(0, later)) && !neighbour.admits(0, later));
    }

    #[test]
    fn unlisted_neighbours_are_kept_up_to_the_limit() {
        let (mut neighbours, own, start) = (Neighbours::default(), address(9), Instant::now());
        let limits = Limits { max_links: 2, ..Limits::default() };
        for number in 1..=4 {
            let now = start + Duration::from_millis(u64::from(number));
            neighbours.list(own, &[(address(number), true)], &limits, now);
        }
        let listed = |number| neighbours.0[&address(number)].unlisted_since.is_none();
        assert_eq!([1, 2, 3, 4].map(listed), [false, false, false, true]);
        let since = |number| neighbours.0[&address(number)].unlisted_since.unwrap();
        assert!(since(3) >= start && since(2) >= start && since(1) < start, "the oldest is over");
    }
}
