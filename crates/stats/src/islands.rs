//! The islands with their members and transports, and the changes of these as events.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
};

use protocol::{Address, IslandId, Position, PositionPrecision, v3::IslandData};

use crate::event::Transport;

/// The islands, from the messages and the periodic reports of the director. A report overrides the messages
/// before it.
#[derive(Debug, Default)]
pub(crate) struct Islands {
    islands: BTreeMap<IslandId, Island>,
    /// The island of each peer that is in one.
    by_peer: BTreeMap<Address, IslandId>,
    /// The transports of islands that have no member yet. Those that have none at the next report are
    /// dropped.
    transports: BTreeMap<IslandId, Transport>,
    /// Islands without a known transport, with their changes so far. Their `island_opened` and these changes
    /// are emitted when the transport is known, or at the next report.
    unannounced: BTreeMap<IslandId, Vec<Change>>,
    changes: Vec<Change>,
}

/// An island, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Island {
    pub(crate) members: BTreeSet<Address>,
    /// `None` until the first report of the island.
    pub(crate) max_peers: Option<u32>,
    pub(crate) transport: Option<Transport>,
    /// The centre and the radius in metres, as reported.
    pub(crate) reported: Option<(Position, f64)>,
    /// The participants in its room, as reported, if its node is a LiveKit server.
    pub(crate) participants: Option<u32>,
}

/// A change of the islands, to be emitted as an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Opened { island: IslandId, transport: Option<Transport> },
    Closed { island: IslandId },
    Moved { island: IslandId, from: Option<Transport>, to: Transport },
    Peer { address: Address, from: Option<IslandId>, to: Option<IslandId> },
}

impl Islands {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IslandId, &Island)> {
        self.islands.iter()
    }

    pub(crate) fn get(&self, id: &IslandId) -> Option<&Island> {
        self.islands.get(id)
    }

    /// A peer became a member of an island.
    pub(crate) fn joined(&mut self, island: &IslandId, address: Address) {
        let before = self.by_peer.get(&address).cloned();
        self.move_peer(address, Some(island));
        self.close_if_empty(before, Some(island));
    }

    /// A peer is no longer a member of an island. Has no effect if the peer has joined another one since.
    pub(crate) fn left(&mut self, island: &IslandId, address: Address) {
        if self.by_peer.get(&address) == Some(island) {
            self.move_peer(address, None);
            self.close_if_empty(Some(island.clone()), None);
        }
    }

    /// A member was sent this transport of its island.
    pub(crate) fn set_transport(&mut self, island: IslandId, to: Transport) {
        match self.islands.get_mut(&island) {
            Some(Island { transport, .. }) if transport.as_ref() != Some(&to) => {
                let from = transport.replace(to.clone());
                match self.unannounced.contains_key(&island) {
                    true => self.announce(&island),
                    false => self.changes.push(Change::Moved { island, from, to }),
                }
            }
            Some(_) => {}
            None => drop(self.transports.insert(island, to)),
        }
    }

    /// Applies a report of all islands. Entries without members, or with a malformed id, are ignored.
    pub(crate) fn report(&mut self, report: &[IslandData], positions: PositionPrecision) {
        let mut placed = HashSet::new();
        for data in report {
            let Ok(id) = data.id.parse::<IslandId>() else { continue };
            for peer in data.peers.iter().filter_map(|peer| peer.parse().ok()) {
                self.move_peer(peer, Some(&id));
                placed.insert(peer);
            }
            if let Some(island) = self.islands.get_mut(&id) {
                island.max_peers = Some(data.max_peers);
                island.participants = data.participants;
                let center = Position::checked(data.center.as_ref(), f32::MAX).ok();
                island.reported = center
                    .map(|center| (positions.published(center), positions.published_radius(data.radius)));
            }
        }
        let gone: Vec<Address> =
            self.by_peer.keys().filter(|peer| !placed.contains(*peer)).copied().collect();
        gone.into_iter().for_each(|peer| self.move_peer(peer, None));
        let unannounced: Vec<IslandId> = self.unannounced.keys().cloned().collect();
        unannounced.iter().for_each(|id| self.announce(id));
        let empty = self.islands.iter().filter(|(_, island)| island.members.is_empty());
        let empty: Vec<IslandId> = empty.map(|(id, _)| id.clone()).collect();
        empty.into_iter().for_each(|id| self.close_if_empty(Some(id), None));
        self.transports.clear();
    }

    /// The changes since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        mem::take(&mut self.changes)
    }

    /// Moves a peer into an island, which is created if needed, or into none.
    fn move_peer(&mut self, address: Address, to: Option<&IslandId>) {
        let from = match to {
            Some(to) => self.by_peer.insert(address, to.clone()),
            None => self.by_peer.remove(&address),
        };
        if from.as_ref() == to {
            return;
        }
        if let Some(before) = from.as_ref().and_then(|from| self.islands.get_mut(from)) {
            before.members.remove(&address);
        }
        if let Some(to) = to {
            if !self.islands.contains_key(to) {
                let transport = self.transports.remove(to);
                let known = transport.is_some();
                self.islands.insert(to.clone(), Island { transport, ..Island::default() });
                self.unannounced.insert(to.clone(), Vec::new());
                if known {
                    self.announce(to);
                }
            }
            self.islands.entry(to.clone()).or_default().members.insert(address);
        }
        // The changes of the previous island must be emitted before those of the new one.
        if let Some(from) = from.as_ref().filter(|_| to.is_some()) {
            self.announce(from);
        }
        let unannounced = to.or(from.as_ref()).and_then(|island| self.unannounced.get_mut(island));
        unannounced.unwrap_or(&mut self.changes).push(Change::Peer { address, from, to: to.cloned() });
    }

    /// Emits `island_opened` and the changes of an island that waited for its transport.
    fn announce(&mut self, island: &IslandId) {
        if let Some(changes) = self.unannounced.remove(island) {
            let transport = self.islands.get(island).and_then(|island| island.transport.clone());
            self.changes.push(Change::Opened { island: island.clone(), transport });
            self.changes.extend(changes);
        }
    }

    /// Closes an island without members. If its last member moved `to` another island, the event follows that
    /// change.
    fn close_if_empty(&mut self, island: Option<IslandId>, to: Option<&IslandId>) {
        let Some(island) = island else { return };
        if self.islands.get(&island).is_some_and(|island| island.members.is_empty()) {
            self.announce(&island);
            self.islands.remove(&island);
            let unannounced = to.and_then(|to| self.unannounced.get_mut(to));
            unannounced.unwrap_or(&mut self.changes).push(Change::Closed { island });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Address = Address::new([1; 20]);
    const BOB: Address = Address::new([2; 20]);

    fn id(id: &str) -> IslandId {
        id.parse().unwrap()
    }

    fn data(id: &str, peers: &[Address]) -> IslandData {
        let peers = peers.iter().map(ToString::to_string).collect();
        IslandData { id: id.to_owned(), peers, max_peers: 7, ..IslandData::default() }
    }

    fn room(url: &str) -> Transport {
        Transport::from_connection_string(&format!("ws-room:{url}/rooms/X"), &id("X")).unwrap()
    }

    fn peer(address: Address, from: Option<&str>, to: Option<&str>) -> Change {
        Change::Peer { address, from: from.map(id), to: to.map(id) }
    }

    fn opened(island: &str) -> Change {
        Change::Opened { island: id(island), transport: None }
    }

    #[test]
    fn peer_that_changes_island_is_never_without_one() {
        let mut islands = Islands::default();
        islands.set_transport(id("A"), room("ws://h"));
        islands.joined(&id("A"), ALICE);
        let transport = Some(room("ws://h"));
        let first = [Change::Opened { island: id("A"), transport }, peer(ALICE, None, Some("A"))];
        assert_eq!(islands.take_changes(), first);
        // The order of the director's messages: the join precedes the leave.
        islands.joined(&id("B"), ALICE);
        islands.set_transport(id("B"), room("ws://h"));
        islands.left(&id("A"), ALICE);
        let opened = Change::Opened { island: id("B"), transport: Some(room("ws://h")) };
        let second = [opened, peer(ALICE, Some("A"), Some("B")), Change::Closed { island: id("A") }];
        assert_eq!(islands.take_changes(), second);
        islands.left(&id("B"), ALICE);
        assert_eq!(
            islands.take_changes(),
            [peer(ALICE, Some("B"), None), Change::Closed { island: id("B") }]
        );
        assert_eq!((islands.islands.len(), islands.by_peer.len(), islands.unannounced.len()), (0, 0, 0));
    }

    #[test]
    fn island_moves_when_members_are_sent_another_node() {
        let mut islands = Islands::default();
        islands.joined(&id("A"), ALICE);
        assert_eq!(islands.take_changes(), [], "the transport is not known yet");
        islands.report(&[data("A", &[ALICE])], PositionPrecision::Exact);
        assert_eq!(islands.take_changes(), [opened("A"), peer(ALICE, None, Some("A"))]);
        let moved = |from, to| [Change::Moved { island: id("A"), from, to }];
        islands.set_transport(id("A"), room("ws://one"));
        assert_eq!(islands.take_changes(), moved(None, room("ws://one")));
        islands.set_transport(id("A"), room("ws://one"));
        assert_eq!(islands.take_changes(), []);
        islands.set_transport(id("A"), room("ws://two"));
        assert_eq!(islands.take_changes(), moved(Some(room("ws://one")), room("ws://two")));
    }

    #[test]
    fn report_overrides_messages_and_emits_no_duplicates() {
        let mut islands = Islands::default();
        islands.joined(&id("B"), ALICE);
        islands.joined(&id("A"), BOB);
        let report = [data("C", &[ALICE]), data("empty", &[]), data("no id", &[BOB])];
        islands.report(&report, PositionPrecision::Exact);
        let changes = [
            opened("B"),
            peer(ALICE, None, Some("B")),
            opened("A"),
            peer(BOB, None, Some("A")),
            peer(BOB, Some("A"), None),
            opened("C"),
            peer(ALICE, Some("B"), Some("C")),
            Change::Closed { island: id("A") },
            Change::Closed { island: id("B") },
        ];
        assert_eq!(islands.take_changes(), changes);
        assert_eq!(islands.islands[&id("C")].max_peers, Some(7));
        islands.report(&report, PositionPrecision::Exact);
        assert_eq!(islands.take_changes(), []);
        islands.report(&[], PositionPrecision::Exact);
        assert_eq!(
            islands.take_changes(),
            [peer(ALICE, Some("C"), None), Change::Closed { island: id("C") }]
        );
    }

    #[test]
    fn transport_of_an_unopened_island_is_dropped_at_report() {
        let mut islands = Islands::default();
        islands.set_transport(id("A"), room("ws://h"));
        islands.report(&[], PositionPrecision::Exact);
        assert!(islands.transports.is_empty());
    }
}
