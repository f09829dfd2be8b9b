use bytes::Buf;
use protocol::{
    Message as _,
    rfc5::{WsPacket, ws_packet::Message},
};

use super::*;

const BOUNDS: Bounds = Bounds { unreliable: 100_000, all: 200_000 };

fn registry(max_room_size: usize, max_users: usize) -> Registry {
    let limits = Limits { max_room_size, max_users, bounds: BOUNDS, remember: Duration::from_secs(300) };
    Registry::new(limits, Arc::new(AtomicU32::new(1)))
}

fn entrant(address: u8, minted: u128) -> Entrant {
    Entrant { address: Address::new([address; 20]), minted: Some(Ulid(minted)) }
}

fn name(text: &str) -> IslandId {
    text.parse().unwrap()
}

/// What a member has been sent since it was last asked, in words.
async fn heard(member: &Membership) -> Vec<String> {
    member.room.flush();
    member.outbox.push_own(Vec::from([0x82, 0]).into());
    let mut bytes = member.outbox.take(member.alias).await.slices;
    let mut words = Vec::new();
    while bytes.has_remaining() {
        let (kind, length) = (bytes.get_u8(), bytes.get_u8());
        let payload = bytes.copy_to_bytes(usize::from(length));
        words.push(match (kind, WsPacket::decode(payload.clone()).unwrap_or_default().message) {
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
    words
}

#[tokio::test]
async fn members_are_welcomed_and_hear_of_each_other() {
    let registry = registry(10, 10);
    let first = registry.join(&name("I1"), &entrant(0xaa, 1)).unwrap();
    first.room.say(first.alias, "alone".into(), false);
    let second = registry.join(&name("I1"), &entrant(0xbb, 1)).unwrap();
    first.room.say(first.alias, "hello".into(), false);
    second.room.say(second.alias, "yes".into(), true);
    assert_eq!(heard(&first).await, ["welcome 1 to []", "join 2 0xbb", "2: yes"]);
    assert_eq!(heard(&second).await, ["welcome 2 to [1]", "1: hello"]);
    second.room.say(second.alias, "bye".into(), false);
    registry.leave(&second);
    assert_eq!(heard(&first).await, ["2: bye", "leave 2"]);
}

#[tokio::test]
async fn the_same_address_again_takes_its_seat_over() {
    let registry = registry(2, 2);
    let older = registry.join(&name("I1"), &entrant(0xaa, 1)).unwrap();
    let other = registry.join(&name("I1"), &entrant(0xbb, 1)).unwrap();
    heard(&older).await;
    heard(&other).await;
    let newer = registry.join(&name("I1"), &entrant(0xaa, 2)).unwrap();
    assert_eq!(heard(&older).await, ["kicked", "close 4003"]);
    assert_eq!(heard(&other).await, ["leave 1", "join 3 0xaa"], "leave before join");
    assert_eq!(heard(&newer).await, ["welcome 3 to [2]"]);
    registry.leave(&older);
    assert_eq!(registry.users_count(), 2, "a late goodbye of the older changes nothing");
    let stale = registry.join(&name("I1"), &entrant(0xaa, 1)).unwrap_err();
    assert_eq!(stale.0, Close::TokenRefused, "nor does its token");
}

#[test]
fn rooms_and_the_node_have_their_limits_and_rooms_end_with_their_members() {
    let registry = registry(2, 3);
    let members = [("I1", 1), ("I1", 2), ("I2", 3)]
        .map(|(room, address)| registry.join(&name(room), &entrant(address, 1)).unwrap());
    let full = registry.join(&name("I1"), &entrant(9, 1)).unwrap_err();
    assert_eq!(full, (Close::RoomFull, "the server has no seat left".to_owned()));
    registry.leave(&members[2]);
    let full = registry.join(&name("I1"), &entrant(9, 1)).unwrap_err();
    assert_eq!(full, (Close::RoomFull, "room full".to_owned()));
    members.iter().for_each(|member| registry.leave(member));
    assert_eq!(registry.users_count(), 0);
    assert!(registry.sizes().is_empty());
}

#[tokio::test]
async fn whoever_left_the_island_is_closed_and_enters_only_with_a_newer_token() {
    let registry = registry(10, 10);
    let now = Instant::now();
    let address = Address::new([0xaa; 20]);
    let member = registry.join(&name("I1"), &entrant(0xaa, 5)).unwrap();
    heard(&member).await;
    assert!(!member.room.end(address, Ulid(4)), "the token is newer than that");
    registry.revoke(&name("I1"), address, Ulid(5), now);
    assert!(member.room.end(address, Ulid(5)));
    assert_eq!(heard(&member).await, ["close 4013"]);
    registry.leave(&member);
    assert_eq!(registry.join(&name("I1"), &entrant(0xaa, 5)).unwrap_err().0, Close::TokenRefused);
    assert!(registry.join(&name("I2"), &entrant(0xaa, 5)).is_ok(), "another room is another matter");
    assert!(registry.join(&name("I1"), &entrant(0xaa, 6)).is_ok());
    // Remembered as long as a token lives, not longer.
    registry.revoke(&name("I9"), address, Ulid(1), now + Duration::from_secs(300));
    assert_eq!(registry.lock().revoked.len(), 1);
}

#[tokio::test]
async fn a_node_that_retires_lets_nobody_in_and_one_that_drains_sends_everybody_away() {
    let registry = registry(10, 10);
    let member = registry.join(&name("I1"), &entrant(0xaa, 1)).unwrap();
    registry.retire();
    assert!(registry.is_draining());
    assert_eq!(registry.join(&name("I1"), &entrant(0xbb, 1)).unwrap_err().0, Close::Restarting);
    assert_eq!(heard(&member).await, ["welcome 1 to []"]);
    registry.drain();
    assert_eq!(heard(&member).await, ["close 1012"]);
    assert_eq!(registry.join(&name("I1"), &entrant(0xbb, 1)).unwrap_err().0, Close::Restarting);
}
