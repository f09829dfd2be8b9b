//! A room against a model of its members, with random steps, and single cases of joins, leaves and
//! replacement.

use std::{collections::BTreeMap, task::Waker};

use bytes::Buf;
use proptest::prelude::*;
use protocol::{Message as _, rfc5::WsPacket};

use super::*;
use crate::{egress::EgressLimits, send_queue::QueueLimits};

const WALLETS: u8 = 4;

/// An operation on a room.
#[derive(Debug, Clone)]
enum Step {
    /// Replaces an older session of the wallet, if there is one.
    Join(u8),
    Leave(u8),
    Send {
        wallet: u8,
        unreliable: bool,
    },
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let wallet = 0..WALLETS;
    prop_oneof![
        3 => wallet.clone().prop_map(Step::Join),
        2 => wallet.clone().prop_map(Step::Leave),
        3 => (wallet, any::<bool>()).prop_map(|(wallet, unreliable)| Step::Send { wallet, unreliable }),
        1 => Just(Step::Flush),
    ]
}

/// The view of one client of the room.
struct Client {
    alias: u32,
    send_queue: Arc<SendQueue>,
    /// The other members, by alias.
    peers: BTreeMap<u32, String>,
    /// Messages that were sent while the client was a member and that it has not received: sender, number,
    /// and whether the message may be lost.
    expected: Vec<(u32, u32, bool)>,
}

struct RoomModel {
    room: Arc<Room>,
    next_alias: u32,
    next_message: u32,
    clients: BTreeMap<u8, Client>,
}

fn address(wallet: u8) -> Address {
    Address::new([wallet; 20])
}

/// The packets in the queue of a member.
fn packets(send_queue: &SendQueue, alias: u32) -> Vec<Message> {
    let mut taken = send_queue.take(alias);
    send_queue.mark_written(&taken);
    let (bytes, mut packets) = (&mut taken.slices, Vec::new());
    while bytes.has_remaining() {
        assert_eq!(bytes.get_u8(), 0x82);
        let length = match bytes.get_u8() {
            126 => usize::from(bytes.get_u16()),
            length => usize::from(length),
        };
        packets.extend(WsPacket::decode(bytes.copy_to_bytes(length)).unwrap().message);
    }
    packets
}

impl RoomModel {
    fn new() -> Self {
        let node = NodeResources {
            slabs: SlabBytes::default(),
            egress: Arc::new(NodeEgress::new(EgressLimits::default())),
        };
        let room = Arc::new(Room::new("I1".parse().unwrap(), node, Arc::default()));
        Self { room, next_alias: 1, next_message: 0, clients: BTreeMap::new() }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Join(wallet) => {
                let limits = QueueLimits { drop_unreliable_above: 1_000_000, close_above: 1_000_000 };
                let send_queue = Arc::new(SendQueue::new(limits, Waker::noop().clone()));
                let alias = self.next_alias;
                self.next_alias += 1;
                let request = JoinRequest { address: address(wallet), minted: None, expired: false };
                let replaced = self.room.join(&request, alias, &send_queue, WALLETS.into(), || true);
                assert_eq!(replaced, Ok(self.clients.contains_key(&wallet)));
                let client = Client { alias, send_queue, peers: BTreeMap::new(), expected: Vec::new() };
                self.clients.insert(wallet, client);
            }
            Step::Leave(wallet) => {
                if let Some(client) = self.clients.remove(&wallet) {
                    assert!(self.room.leave(client.alias));
                }
            }
            Step::Send { wallet, unreliable } => {
                let Some(from) = self.clients.get(&wallet).map(|client| client.alias) else { return };
                self.next_message += 1;
                let number = self.next_message;
                self.room.broadcast(from, number.to_string().into(), unreliable);
                for client in self.clients.values_mut().filter(|client| client.alias != from) {
                    client.expected.push((from, number, unreliable));
                }
            }
            Step::Flush => self.flush(),
        }
    }

    /// Flushes the room if its flush is scheduled, as its shard does.
    fn flush_room(&mut self) {
        let scheduled = self.room.shard.take().rooms;
        assert!(scheduled.len() <= 1, "the flush is scheduled at most once");
        scheduled.iter().for_each(|(_, room)| room.flush());
    }

    fn flush(&mut self) {
        self.flush_room();
        let members: BTreeMap<u32, String> = self
            .clients
            .iter()
            .map(|(&wallet, client)| (client.alias, address(wallet).to_string()))
            .collect();
        for client in self.clients.values_mut() {
            for packet in packets(&client.send_queue, client.alias) {
                client.receive(packet);
            }
            // Only unreliable messages of members that left before they were announced may be lost.
            let lost = client
                .expected
                .drain(..)
                .find(|(from, _, unreliable)| !unreliable || members.contains_key(from));
            assert_eq!(lost, None);
            let mut others = members.clone();
            others.remove(&client.alias);
            assert_eq!(client.peers, others);
        }
    }
}

impl Client {
    fn receive(&mut self, packet: Message) {
        match packet {
            Message::WelcomeMessage(welcome) => {
                assert_eq!((welcome.alias, self.peers.len()), (self.alias, 0));
                self.peers = welcome.peer_identities.into_iter().collect();
            }
            Message::PeerJoinMessage(join) => {
                assert!(!self.peers.values().any(|address| *address == join.address), "leave before join");
                assert_eq!(self.peers.insert(join.alias, join.address), None);
            }
            Message::PeerLeaveMessage(leave) => assert!(self.peers.remove(&leave.alias).is_some()),
            Message::PeerUpdateMessage(update) => {
                assert!(self.peers.contains_key(&update.from_alias), "an unknown sender");
                let number: u32 = std::str::from_utf8(&update.body).unwrap().parse().unwrap();
                let at = self.expected.iter().position(|&(.., due, _)| due == number).unwrap();
                assert_eq!(self.expected[at], (update.from_alias, number, update.unreliable));
                let skipped: Vec<_> = self.expected.drain(..=at).filter(|due| due.1 != number).collect();
                assert!(skipped.iter().all(|&(.., unreliable)| unreliable), "lost: {skipped:?}");
            }
            packet => panic!("unexpected {packet:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_client_view_equals_the_room_after_a_flush(steps in prop::collection::vec(step(), 0..60)) {
        let mut model = RoomModel::new();
        for step in steps {
            model.apply(step);
        }
        model.flush();
    }
}

#[test]
fn joins_between_two_flushes_are_announced_once() {
    let mut model = RoomModel::new();
    for wallet in 0..3 {
        model.apply(Step::Join(wallet));
    }
    model.flush();
    let (observer, last) = (&model.clients[&0], model.clients[&2].alias);
    let (send_queue, alias) = (observer.send_queue.clone(), observer.alias);
    for _ in 0..1_000 {
        model.apply(Step::Join(2));
        model.apply(Step::Send { wallet: 2, unreliable: true });
    }
    assert!(packets(&send_queue, alias).is_empty(), "joins do not flush the room");
    model.flush_room();
    let announced = packets(&send_queue, alias);
    let [
        Message::PeerLeaveMessage(leave),
        Message::PeerJoinMessage(join),
        Message::PeerUpdateMessage(update),
    ] = &announced[..]
    else {
        panic!("unexpected {announced:?}")
    };
    assert_eq!((leave.alias, join.alias), (last, last + 1_000));
    assert_eq!(update.from_alias, join.alias);
}

#[test]
fn reliable_message_of_a_short_membership_is_delivered() {
    let mut model = RoomModel::new();
    model.apply(Step::Join(0));
    model.flush();
    for step in [Step::Join(1), Step::Send { wallet: 1, unreliable: false }, Step::Leave(1)] {
        model.apply(step);
    }
    model.flush_room();
    let received = packets(&model.clients[&0].send_queue, 1);
    assert!(
        matches!(
            &received[..],
            [Message::PeerJoinMessage(_), Message::PeerUpdateMessage(_), Message::PeerLeaveMessage(_)]
        ),
        "{received:?}"
    );
}

#[test]
fn membership_without_reliable_message_is_not_announced() {
    let mut model = RoomModel::new();
    model.apply(Step::Join(0));
    model.flush();
    for step in [Step::Join(1), Step::Send { wallet: 1, unreliable: true }, Step::Leave(1)] {
        model.apply(step);
    }
    model.flush_room();
    assert_eq!(packets(&model.clients[&0].send_queue, 1), []);
}

#[test]
fn replaced_member_receives_all_that_precedes_its_kick() {
    let mut model = RoomModel::new();
    model.apply(Step::Join(0));
    model.apply(Step::Join(1));
    model.flush();
    let older = model.clients[&1].send_queue.clone();
    let alias = model.clients[&1].alias;
    for step in [Step::Send { wallet: 0, unreliable: false }, Step::Join(1)] {
        model.apply(step);
    }
    model.apply(Step::Send { wallet: 0, unreliable: true });
    model.flush_room();
    let received = |message: &Message| match message {
        Message::PeerUpdateMessage(update) => Some(update.body.clone()),
        _ => None,
    };
    // The close frame after the kick is no packet.
    let mut taken = older.take(alias);
    let bytes = taken.slices.copy_to_bytes(taken.slices.remaining());
    let length = usize::from(bytes[1]);
    let first = WsPacket::decode(&bytes[2..2 + length]).unwrap().message.unwrap();
    assert_eq!(received(&first).as_deref(), Some(&b"1"[..]), "sent before the kick");
    let newer = packets(&model.clients[&1].send_queue, model.clients[&1].alias);
    assert_eq!(newer.iter().filter_map(received).collect::<Vec<_>>(), ["2"], "sent after the welcome");
}
