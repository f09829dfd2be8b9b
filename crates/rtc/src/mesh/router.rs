//! Routes packets along the trees of the plans: pure, without connections.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use protocol::{
    Address,
    mesh::{Packet, Plan},
};
use tokio::time::Instant;

use super::{
    packet::MAX_RECEIVED_BYTES,
    plans::{NoRoute, PlanError, Plans, Table, Targets},
    window::Window,
};

/// The plans, the received numbers, and the packets that wait for a plan.
#[derive(Debug)]
pub(crate) struct Router {
    plans: Plans,
    /// By source and whether the channel is the reliable one.
    windows: HashMap<(u32, bool), Window>,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The next numbers of own messages: lossy, reliable.
    next: [u64; 2],
}

/// A packet of a plan that is not known yet.
#[derive(Debug)]
struct Waiting {
    from: Address,
    reliable: bool,
    packet: Packet,
    data: Bytes,
    until: Instant,
}

/// A packet for the application and for further neighbours.
#[derive(Debug, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) source: Address,
    pub(crate) alias: u32,
    pub(crate) reliable: bool,
    pub(crate) payload: Bytes,
    /// The packet as it arrived, which is forwarded.
    pub(crate) data: Bytes,
    pub(crate) to: Vec<Address>,
}

/// The result of a received packet.
#[derive(Debug, PartialEq)]
pub(crate) enum Received {
    Delivery(Delivery),
    Waits,
    Duplicate,
    Refused,
    Malformed,
}

/// An own message.
#[derive(Debug)]
pub(crate) struct OwnPacket {
    pub(crate) data: Bytes,
    pub(crate) targets: Targets,
    /// The encoded packet for the members that no path reaches. Empty without such members.
    pub(crate) fallback: Bytes,
}

/// Packets that wait for a plan, at most. When more come, the oldest is routed by the newest plan.
const MAX_WAITING: usize = 256;
/// The bytes of all waiting packets, at most, in the same way.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// The time that a packet waits for its plan. It is routed by the newest plan then.
const MAX_WAIT: Duration = Duration::from_secs(1);

impl Router {
    /// `first_sequence`: the first number of own messages.
    pub(crate) fn new(own: Address, island_id: String, first_sequence: u64) -> Self {
        Self {
            plans: Plans::new(own, island_id),
            windows: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            next: [first_sequence; 2],
        }
    }

    pub(crate) fn newest(&self) -> Option<&Table> {
        self.plans.newest()
    }

    pub(crate) fn island_id(&self) -> &str {
        self.plans.island_id()
    }

    pub(crate) fn accept(&mut self, plan: Plan, now: Instant) -> Result<(), PlanError> {
        self.plans.accept(plan, now)?;
        let plans = &self.plans;
        self.windows.retain(|(source, _), _| plans.is_member(*source));
        Ok(())
    }

    /// Routes a packet that arrived from a neighbour.
    pub(crate) fn receive(&mut self, from: Address, reliable: bool, data: Bytes, now: Instant) -> Received {
        let Some(packet) = decode(&data) else { return Received::Malformed };
        match self.plans.route(from, packet.source, packet.version, now) {
            Ok((source, to)) => self.deliver(source, to, reliable, packet, data),
            Err(NoRoute::Refused) => Received::Refused,
            Err(NoRoute::NotYetKnown) => {
                self.waiting_bytes += data.len();
                self.waiting.push_back(Waiting { from, reliable, packet, data, until: now + MAX_WAIT });
                Received::Waits
            }
        }
    }

    /// The next packet that has waited long enough: its plan is known, its time is over, or too many wait.
    pub(crate) fn next_released(&mut self, now: Instant) -> Option<Received> {
        let newest = self.plans.newest().map_or(0, |newest| newest.version);
        let is_full = self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES;
        let is_released = |waiting: &Waiting| waiting.until <= now || waiting.packet.version <= newest;
        let index = match is_full {
            true => Some(0),
            false => self.waiting.iter().position(is_released),
        };
        let Waiting { from, reliable, packet, data, .. } = self.waiting.remove(index?)?;
        self.waiting_bytes -= data.len();
        let route = match self.plans.route(from, packet.source, packet.version, now) {
            Err(NoRoute::NotYetKnown) => {
                self.plans.newest().and_then(|newest| newest.route(from, packet.source))
            }
            route => route.ok(),
        };
        Some(match route {
            Some((source, to)) => self.deliver(source, to, reliable, packet, data),
            None => Received::Refused,
        })
    }

    /// The time at which the next waiting packet is released.
    pub(crate) fn release_time(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.until)
    }

    /// A packet that the gateway delivered for a member. It is not forwarded.
    pub(crate) fn receive_fallback(&mut self, from: Address, data: Bytes) -> Received {
        let Some(packet) = decode(&data) else { return Received::Malformed };
        match self.plans.newest().and_then(|newest| newest.alias_of(from)) {
            Some(alias) if alias == packet.source => {
                self.deliver(from, Vec::new(), !packet.lossy, packet, data)
            }
            _ => Received::Refused,
        }
    }

    fn deliver(
        &mut self,
        source: Address,
        to: Vec<Address>,
        reliable: bool,
        packet: Packet,
        data: Bytes,
    ) -> Received {
        let window = self.windows.entry((packet.source, reliable)).or_default();
        if !window.is_first(packet.sequence) {
            return Received::Duplicate;
        }
        let (alias, payload) = (packet.source, packet.payload);
        Received::Delivery(Delivery { source, alias, reliable, payload, data, to })
    }

    /// The packet of an own message; `None` before the first plan.
    pub(crate) fn own_packet(&mut self, payload: Bytes, reliable: bool) -> Option<OwnPacket> {
        let newest = self.plans.newest()?;
        let targets = newest.own_targets();
        let next = &mut self.next[usize::from(reliable)];
        let sequence = *next;
        *next += 1;
        let packet =
            Packet { source: newest.alias, version: newest.version, sequence, payload, lossy: false };
        let data = packet.encode_to_vec().into();
        let fallback = match targets.fallback.is_empty() {
            true => Bytes::new(),
            false => Packet { lossy: !reliable, ..packet }.encode_to_vec().into(),
        };
        Some(OwnPacket { data, targets, fallback })
    }

    /// The receivers of own messages; `None` before the first plan.
    pub(crate) fn own_targets(&self) -> Option<Targets> {
        Some(self.plans.newest()?.own_targets())
    }
}

/// A packet with a source, a version and a number.
fn decode(data: &Bytes) -> Option<Packet> {
    if data.len() > MAX_RECEIVED_BYTES {
        return None;
    }
    let packet = Packet::decode(data.clone()).ok()?;
    (packet.source != 0 && packet.version != 0 && packet.sequence != 0).then_some(packet)
}

#[cfg(test)]
mod tests {
    use protocol::mesh::{Member, Route};

    use super::*;

    fn address(number: u8) -> Address {
        Address::new([number; 20])
    }

    /// For member 2: packets of 1 come from `from` and are forwarded to `to`.
    fn plan(version: u32, from: u32, to: &[u32]) -> Plan {
        let member = |alias| Member { alias, address: address(alias as u8).to_string() };
        let route = Route { source: 1, from, to: to.into(), fallback: vec![] };
        let own = Route { source: 2, from: 0, to: vec![1], fallback: vec![4] };
        Plan {
            island_id: "I1".to_owned(),
            version,
            alias: 2,
            members: (1..=4).map(member).collect(),
            links: vec![],
            routes: vec![route, own],
        }
    }

    fn router() -> Router {
        Router::new(address(2), "I1".to_owned(), 1_000)
    }

    fn packet(version: u32, sequence: u64) -> Bytes {
        let payload = Bytes::from_static(b"a");
        Packet { source: 1, version, sequence, payload, lossy: false }.encode_to_vec().into()
    }

    fn receivers(received: Received) -> Vec<Address> {
        match received {
            Received::Delivery(delivery) => delivery.to,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn packet_is_delivered_once_for_each_channel() {
        let (mut router, now) = (router(), Instant::now());
        router.accept(plan(1, 1, &[3]), now).unwrap();
        assert_eq!(receivers(router.receive(address(1), true, packet(1, 5), now)), [address(3)]);
        assert_eq!(router.receive(address(1), true, packet(1, 5), now), Received::Duplicate);
        assert_eq!(receivers(router.receive(address(1), false, packet(1, 5), now)), [address(3)]);
        assert_eq!(router.receive(address(3), false, packet(1, 6), now), Received::Refused);
        for malformed in [Bytes::from_static(b"\xff"), Bytes::new(), packet(0, 1), packet(1, 0)] {
            assert_eq!(router.receive(address(1), true, malformed, now), Received::Malformed);
        }
    }

    #[test]
    fn packet_with_an_unknown_version_waits_for_the_plan() {
        let (mut router, now) = (router(), Instant::now());
        router.accept(plan(1, 1, &[]), now).unwrap();
        assert_eq!(router.receive(address(1), true, packet(2, 5), now), Received::Waits);
        assert_eq!(router.next_released(now), None);
        router.accept(plan(2, 1, &[3, 4]), now).unwrap();
        assert_eq!(receivers(router.next_released(now).unwrap()), [address(3), address(4)]);
        assert_eq!(router.next_released(now), None);
        assert_eq!(router.waiting_bytes, 0);
    }

    #[test]
    fn packet_without_its_plan_is_routed_by_the_newest() {
        let (mut router, now) = (router(), Instant::now());
        router.accept(plan(1, 1, &[4]), now).unwrap();
        router.receive(address(1), true, packet(9, 5), now);
        router.receive(address(3), true, packet(9, 6), now);
        let over = now + MAX_WAIT;
        assert_eq!(router.release_time(), Some(over));
        assert_eq!(receivers(router.next_released(over).unwrap()), [address(4)]);
        assert_eq!(router.next_released(over), Some(Received::Refused), "from another neighbour");
        assert_eq!(router.next_released(over), None);
    }

    #[test]
    fn waiting_packets_are_bounded() {
        let (mut router, now) = (router(), Instant::now());
        router.accept(plan(1, 1, &[]), now).unwrap();
        for sequence in 1..=MAX_WAITING as u64 {
            router.receive(address(1), true, packet(9, sequence), now);
            assert_eq!(router.next_released(now), None);
        }
        router.receive(address(1), true, packet(9, 1_000), now);
        assert!(matches!(router.next_released(now), Some(Received::Delivery(_))), "the oldest");
        assert_eq!(router.next_released(now), None);
        assert_eq!(router.waiting.len(), MAX_WAITING);
    }

    #[test]
    fn fallback_is_accepted_only_for_the_sender_itself() {
        let (mut router, now) = (router(), Instant::now());
        assert_eq!(router.receive_fallback(address(1), packet(1, 5)), Received::Refused, "no plan");
        router.accept(plan(1, 3, &[4]), now).unwrap();
        assert_eq!(router.receive_fallback(address(3), packet(1, 5)), Received::Refused);
        assert_eq!(receivers(router.receive_fallback(address(1), packet(7, 5))), []);
        assert_eq!(router.receive_fallback(address(1), packet(7, 5)), Received::Duplicate);
    }

    #[test]
    fn own_packets_are_numbered_for_each_channel() {
        let (mut router, now) = (router(), Instant::now());
        assert!(router.own_packet("a".into(), true).is_none());
        router.accept(plan(3, 1, &[]), now).unwrap();
        let mut own = |reliable| {
            let own = router.own_packet("a".into(), reliable).unwrap();
            assert_eq!(own.targets, Targets { to: vec![address(1)], fallback: vec![address(4)] });
            let (packet, fallback) =
                (Packet::decode(own.data).unwrap(), Packet::decode(own.fallback).unwrap());
            assert_eq!((packet.source, packet.version, packet.lossy), (2, 3, false));
            assert_eq!((fallback.sequence, fallback.lossy), (packet.sequence, !reliable));
            packet.sequence
        };
        assert_eq!([own(true), own(true), own(false)], [1_000, 1_001, 1_000]);
    }
}
