//! The registry: limits, replacement, revocation, egress, slow readers and re-entry.

use bytes::Buf;
use protocol::{
    Message as _,
    rfc5::{WsPacket, ws_packet::Message},
};

use super::*;
use crate::shard_handle::Flush;

const LIMITS: QueueLimits = QueueLimits { drop_unreliable_above: 100_000, close_above: 200_000 };

fn limits(max_room_size: usize, max_users: usize) -> NodeLimits {
    NodeLimits {
        max_room_size,
        max_users,
        queue_limits: LIMITS,
        revocation_ttl: Duration::from_secs(300),
        entry_rate: Rate::per_minute(30, 10),
        egress: EgressLimits::default(),
    }
}

fn with_limits(limits: NodeLimits) -> Registry {
    Registry::new(limits, Arc::new(AtomicU32::new(1)), vec![Arc::default()])
}

fn registry(max_room_size: usize, max_users: usize) -> Registry {
    with_limits(limits(max_room_size, max_users))
}

fn request(address: u8, minted: u128) -> JoinRequest {
    JoinRequest { address: Address::new([address; 20]), minted: Some(Ulid(minted)), expired: false }
}

fn name(text: &str) -> RoomName {
    text.parse().unwrap()
}

/// Summarizes the frames that a member was sent since the last call, as text.
fn received(member: &Membership) -> Vec<String> {
    member.room.flush();
    member.send_queue.push_single(Vec::from([0x82, 0]).into());
    let mut bytes = member.send_queue.take(member.alias).slices;
    let mut frames = Vec::new();
    while bytes.has_remaining() {
        let (kind, length) = (bytes.get_u8(), bytes.get_u8());
        let payload = bytes.copy_to_bytes(usize::from(length));
        frames.push(match (kind, WsPacket::decode(payload.clone()).unwrap_or_default().message) {
            (0x88, _) => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            (_, Some(Message::WelcomeMessage(welcome))) => {
                let mut aliases: Vec<u32> = welcome.peer_identities.into_keys().collect();
                aliases.sort_unstable();
                format!("welcome {} to {aliases:?}", welcome.alias)
            }
            (_, Some(Message::PeerJoinMessage(join))) => {
                format!("join {} {}", join.alias, &join.address[..4])
            }
            (_, Some(Message::PeerLeaveMessage(leave))) => format!("leave {}", leave.alias),
            (_, Some(Message::PeerKicked(_))) => "kicked".to_owned(),
            (_, Some(Message::PeerUpdateMessage(update))) => {
                format!("{}: {}", update.from_alias, String::from_utf8_lossy(&update.body))
            }
            _ => continue,
        });
    }
    frames
}

#[test]
fn members_are_welcomed_and_announced_to_each_other() {
    let registry = registry(10, 10);
    let first = registry.join(&name("I1"), &request(0xaa, 1)).unwrap();
    first.room.broadcast(first.alias, "alone".into(), false);
    let second = registry.join(&name("I1"), &request(0xbb, 1)).unwrap();
    first.room.broadcast(first.alias, "hello".into(), false);
    second.room.broadcast(second.alias, "yes".into(), true);
    assert_eq!(received(&first), ["welcome 1 to []", "join 2 0xbb", "2: yes"]);
    assert_eq!(received(&second), ["welcome 2 to [1]", "1: hello"]);
    second.room.broadcast(second.alias, "bye".into(), false);
    registry.leave(&second);
    assert_eq!(received(&first), ["2: bye", "leave 2"]);
}

#[test]
fn second_session_of_an_address_replaces_the_first() {
    let registry = registry(2, 2);
    let older = registry.join(&name("I1"), &request(0xaa, 1)).unwrap();
    let other = registry.join(&name("I1"), &request(0xbb, 1)).unwrap();
    received(&older);
    received(&other);
    let newer = registry.join(&name("I1"), &request(0xaa, 2)).unwrap();
    assert_eq!(received(&older), ["kicked", "close 4003"]);
    assert_eq!(received(&other), ["leave 1", "join 3 0xaa"], "leave before join");
    assert_eq!(received(&newer), ["welcome 3 to [2]"]);
    registry.leave(&older);
    assert_eq!(registry.users_count(), 2, "a late leave of the older session changes nothing");
    let outdated = registry.join(&name("I1"), &request(0xaa, 1)).unwrap_err();
    assert_eq!(outdated.0, Close::TokenRefused, "its token is rejected");
}

#[test]
fn room_and_node_limits_apply_and_empty_rooms_are_removed() {
    let registry = registry(2, 3);
    let members = [("I1", 1), ("I1", 2), ("I2", 3)]
        .map(|(room, address)| registry.join(&name(room), &request(address, 1)).unwrap());
    let full = registry.join(&name("I1"), &request(9, 1)).unwrap_err();
    assert_eq!(full, (Close::RoomFull, "the server has no seat left".to_owned()));
    registry.leave(&members[2]);
    let full = registry.join(&name("I1"), &request(9, 1)).unwrap_err();
    assert_eq!(full, (Close::RoomFull, "room full".to_owned()));
    members.iter().for_each(|member| registry.leave(member));
    assert_eq!(registry.users_count(), 0);
    assert!(registry.sizes().is_empty());
}

#[test]
fn revoked_member_is_closed_and_needs_a_newer_token() {
    let registry = registry(10, 10);
    let now = Instant::now();
    let address = Address::new([0xaa; 20]);
    let member = registry.join(&name("I1"), &request(0xaa, 5)).unwrap();
    received(&member);
    assert!(!member.room.evict(address, Ulid(4)), "the token is newer");
    registry.revoke(&name("I1"), address, Ulid(5), now);
    assert!(member.room.evict(address, Ulid(5)));
    assert_eq!(received(&member), ["close 4013"]);
    registry.leave(&member);
    assert_eq!(registry.join(&name("I1"), &request(0xaa, 5)).unwrap_err().0, Close::TokenRefused);
    assert!(
        registry.join(&name("I2"), &request(0xaa, 5)).is_ok(),
        "the token of another room is not affected"
    );
    assert!(registry.join(&name("I1"), &request(0xaa, 6)).is_ok());
    // Revocations are kept as long as a token is valid.
    registry.revoke(&name("I9"), address, Ulid(1), now + Duration::from_secs(300));
    assert_eq!(registry.state.lock().revoked.len(), 1);
}

#[test]
fn stopped_node_rejects_joins_and_drained_node_closes_all() {
    let registry = registry(10, 10);
    let member = registry.join(&name("I1"), &request(0xaa, 1)).unwrap();
    registry.stop_accepting();
    assert!(registry.is_draining());
    assert_eq!(registry.join(&name("I1"), &request(0xbb, 1)).unwrap_err().0, Close::Restarting);
    assert_eq!(received(&member), ["welcome 1 to []"]);
    registry.drain();
    assert_eq!(received(&member), ["close 1012"]);
    assert_eq!(registry.join(&name("I1"), &request(0xbb, 1)).unwrap_err().0, Close::Restarting);
}

#[tokio::test(start_paused = true)]
async fn join_above_the_rate_keeps_the_older_session() {
    let registry = registry(10, 10);
    let join = |room, address| registry.join(&name(room), &request(address, 1));
    let members: Vec<Membership> = (0..10).map(|_| join("I1", 0xaa).unwrap()).collect();
    let (close, reason) = join("I1", 0xaa).unwrap_err();
    assert_eq!(close, Close::Full);
    assert!(close.should_reconnect() && reason.contains("too often"), "{reason}");
    assert!(!members[9].send_queue.is_finished(), "the older session keeps its seat");
    assert_eq!(registry.users_count(), 1);
    assert!(join("I1", 0xbb).is_ok(), "another address");
    assert!(join("I2", 0xaa).is_ok(), "another room");
    // The rate is 30 a minute.
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(join("I1", 0xaa).is_ok());
    assert!(members[9].send_queue.is_finished());
    assert_eq!(join("I1", 0xaa).unwrap_err().0, Close::Full);
}

#[tokio::test(start_paused = true)]
async fn rejected_joins_do_not_count_against_the_rate() {
    let registry = registry(1, 10);
    let member = registry.join(&name("I1"), &request(0xaa, 5)).unwrap();
    for _ in 0..100 {
        assert_eq!(registry.join(&name("I1"), &request(0xbb, 1)).unwrap_err().0, Close::RoomFull);
        assert_eq!(registry.join(&name("I1"), &request(0xaa, 4)).unwrap_err().0, Close::TokenRefused);
    }
    registry.leave(&member);
    assert!(registry.join(&name("I1"), &request(0xbb, 1)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn room_above_its_egress_drops_only_unreliable_messages() {
    let egress = EgressLimits { room: 1_000, node: 0 };
    let registry = with_limits(NodeLimits { egress, ..limits(10, 10) });
    let members = [0xaa, 0xbb].map(|address| registry.join(&name("I1"), &request(address, 1)).unwrap());
    let [sender, receiver] = &members;
    received(receiver);
    for round in 0..100 {
        sender.room.broadcast(sender.alias, "x".repeat(100).into(), true);
        sender.room.broadcast(sender.alias, round.to_string().into(), false);
        sender.room.flush();
    }
    let frames = received(receiver);
    let reliable: Vec<String> = (0..100).map(|round| format!("1: {round}")).collect();
    assert_eq!(frames.iter().filter(|frames| !frames.contains('x')).cloned().collect::<Vec<_>>(), reliable);
    let passed = frames.len() - 100;
    assert!((1..20).contains(&passed), "a second's budget, not {passed} messages");
    tokio::time::advance(Duration::from_secs(2)).await;
    sender.room.broadcast(sender.alias, "x".into(), true);
    assert_eq!(received(receiver), ["1: x"]);
}

/// A room with a sender, a reader that keeps up and readers that read nothing.
struct SlowRoom {
    registry: Registry,
    sender: Membership,
    fast: Membership,
    slow: Vec<Membership>,
}

const SLOW_LIMITS: QueueLimits = QueueLimits { drop_unreliable_above: 500_000, close_above: 1_000_000 };

impl SlowRoom {
    fn new() -> Self {
        let registry = with_limits(NodeLimits { queue_limits: SLOW_LIMITS, ..limits(10, 10) });
        let join = |address| registry.join(&name("I1"), &request(address, 1)).unwrap();
        let (sender, fast, slow) = (join(1), join(2), (3..8).map(join).collect());
        Self { registry, sender, fast, slow }
    }

    /// Flushes `batches` batches of a large unreliable and a small reliable message. Returns the largest
    /// memory that slabs took meanwhile.
    fn flush(&self, batches: usize) -> usize {
        let mut largest = 0;
        for _ in 0..batches {
            self.sender.room.broadcast(self.sender.alias, vec![0; 4_000].into(), true);
            self.sender.room.broadcast(self.sender.alias, vec![0; 20].into(), false);
            self.sender.room.flush();
            for member in [&self.sender, &self.fast] {
                member.send_queue.push_single(Vec::from([0x89, 0]).into());
                member.send_queue.mark_written(&member.send_queue.take(member.alias));
            }
            largest = largest.max(self.registry.slab_bytes());
        }
        assert!(self.slow.iter().all(|member| !member.send_queue.is_finished()), "none is too slow yet");
        largest
    }
}

/// The most memory of one queue: its limit, and the batch that exceeds it.
const MOST_SLAB_BYTES: usize = SLOW_LIMITS.close_above + 5_000;

#[test]
fn slow_readers_pin_no_more_than_their_limit() {
    let room = SlowRoom::new();
    // The slow readers share the slabs that they pin.
    let largest = room.flush(2_500);
    assert!(largest <= MOST_SLAB_BYTES, "{largest} bytes");
    assert!(largest >= SLOW_LIMITS.drop_unreliable_above, "the queue is used: {largest} bytes");
    let SlowRoom { registry, slow, .. } = room;
    slow.iter().for_each(|member| registry.leave(member));
    drop(slow);
    assert_eq!(registry.slab_bytes(), 0);
}

#[test]
fn half_written_batches_pin_no_more_than_the_limit() {
    let mut room = SlowRoom::new();
    let reader = room.slow.remove(0);
    room.slow.iter().for_each(|member| room.registry.leave(member));
    room.slow = vec![reader];
    let largest = room.flush(100);
    assert!(largest <= MOST_SLAB_BYTES, "{largest} bytes");
    let mut taken = room.slow[0].send_queue.take(room.slow[0].alias);
    taken.slices.advance(10_000);
    let largest = room.flush(2_400);
    assert!(largest <= MOST_SLAB_BYTES, "{largest} bytes");
}

#[tokio::test(start_paused = true)]
async fn expired_token_readmits_its_last_member() {
    let registry = registry(10, 10);
    let expired = |address, minted| JoinRequest { expired: true, ..request(address, minted) };
    let refused = |room: &str, request| {
        let (close, reason) = registry.join(&name(room), &request).unwrap_err();
        assert_eq!((close, &*reason), (Close::TokenRefused, "the access token has expired"));
    };
    refused("I1", expired(0xaa, 5));
    let member = registry.join(&name("I1"), &request(0xaa, 5)).unwrap();
    registry.leave(&member);
    refused("I2", expired(0xaa, 5));
    refused("I1", expired(0xbb, 5));
    refused("I1", expired(0xaa, 4));
    let member = registry.join(&name("I1"), &expired(0xaa, 5)).unwrap();
    // The server may not have noticed the broken socket yet.
    let again = registry.join(&name("I1"), &expired(0xaa, 5)).unwrap();
    registry.leave(&member);
    registry.leave(&again);
    let newer = registry.join(&name("I1"), &request(0xaa, 6)).unwrap();
    registry.leave(&newer);
    refused("I1", expired(0xaa, 5));
    registry.revoke(&name("I1"), Address::new([0xaa; 20]), Ulid(6), Instant::now());
    assert_eq!(registry.join(&name("I1"), &expired(0xaa, 6)).unwrap_err().0, Close::TokenRefused);
    // The revocation expires, but the end of the membership stays known.
    tokio::time::advance(Duration::from_secs(301)).await;
    registry.revoke(&name("I9"), Address::new([1; 20]), Ulid(1), Instant::now());
    refused("I1", expired(0xaa, 6));
}
