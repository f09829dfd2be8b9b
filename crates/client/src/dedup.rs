//! Deduplication of messages that arrive through more than one room.
//!
//! While its island moves, a client is in two rooms, and the peers that move with it send every message in
//! both. The k-th equal body of a sender in one room is the duplicate of the k-th in the other.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use protocol::Address;
use tokio::time::Instant;

use crate::RoomId;

/// The recent messages of all rooms of a client. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dedup(Arc<Mutex<DedupState>>);

/// The registration of a room, until it is dropped.
#[derive(Debug)]
pub(crate) struct DedupRoom {
    room: RoomId,
    dedup: Dedup,
}

#[derive(Debug, Default)]
struct DedupState {
    rooms: HashSet<RoomId>,
    hasher: RandomState,
    /// The delivered messages: for each copy, oldest first, the rooms through which it has arrived.
    delivered: HashMap<Key, Vec<Vec<RoomId>>>,
    /// The same messages, oldest first, and the time of their delivery.
    order: VecDeque<(Instant, Key)>,
}

/// The sender and the hash of the body.
type Key = (Address, u64);

/// A duplicate that arrives later than this is delivered. Without this bound, a message that was sent only in
/// the old room, before its sender was in the new one, would hide a later equal message.
const MAX_LAG: Duration = Duration::from_secs(2);
/// The limit of recorded messages. At the limit the oldest is removed, and its duplicate is delivered. A
/// hundred peers send fewer messages within [`MAX_LAG`].
const MAX_MESSAGES: usize = 8_192;

impl Dedup {
    /// Registers a room. This happens before the client enters it, because a message that arrives through an
    /// older room meanwhile may arrive through this one too.
    pub(crate) fn register(&self, room: RoomId) -> DedupRoom {
        self.0.lock().rooms.insert(room);
        DedupRoom { room, dedup: self.clone() }
    }
}

impl DedupRoom {
    /// Records a message that arrived through this room. Returns whether it was delivered before, through
    /// another room.
    pub(crate) fn is_duplicate(&self, sender: Address, body: &[u8], now: Instant) -> bool {
        let mut state = self.dedup.0.lock();
        state.expire(now);
        // Messages of a room that the client has just left are still recorded; their duplicates may arrive
        // here.
        if state.rooms.len() < 2 && state.order.is_empty() {
            return false;
        }
        let key = (sender, state.hasher.hash_one(body));
        state.record(key, self.room, now)
    }
}

impl Drop for DedupRoom {
    fn drop(&mut self) {
        self.dedup.0.lock().rooms.remove(&self.room);
    }
}

impl DedupState {
    /// Returns whether the message is a duplicate: an equal one was delivered that has not arrived through
    /// this room yet.
    fn record(&mut self, key: Key, room: RoomId, now: Instant) -> bool {
        let mut copies = self.delivered.get_mut(&key).into_iter().flatten();
        if let Some(rooms) = copies.find(|rooms| !rooms.contains(&room)) {
            rooms.push(room);
            return true;
        }
        if self.rooms.len() > 1 {
            if self.order.len() >= MAX_MESSAGES {
                self.remove_oldest();
            }
            self.order.push_back((now, key));
            self.delivered.entry(key).or_default().push(vec![room]);
        }
        false
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > MAX_LAG) {
            self.remove_oldest();
        }
        if self.order.is_empty() && self.order.capacity() > 0 && self.rooms.len() < 2 {
            // Releases the memory that the move between rooms needed.
            (self.delivered, self.order) = Default::default();
        }
    }

    fn remove_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Entry::Occupied(mut copies) = self.delivered.entry(key) {
            copies.get_mut().remove(0);
            if copies.get().is_empty() {
                copies.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENDER: Address = Address::new([1; 20]);
    const OTHER: Address = Address::new([2; 20]);

    fn recorded(dedup: &Dedup) -> usize {
        let state = dedup.0.lock();
        assert_eq!(state.delivered.values().map(Vec::len).sum::<usize>(), state.order.len());
        state.order.len()
    }

    #[test]
    fn message_received_in_two_rooms_is_delivered_once() {
        let (dedup, now) = (Dedup::default(), Instant::now());
        let old = dedup.register(RoomId(1));
        let is_duplicate = |room: &DedupRoom, body: &[u8]| room.is_duplicate(SENDER, body, now);
        assert!(!is_duplicate(&old, b"a") && !is_duplicate(&old, b"a"), "sent twice in one room");
        assert_eq!(recorded(&dedup), 0);
        let new = dedup.register(RoomId(2));
        assert!(!is_duplicate(&old, b"b") && is_duplicate(&new, b"b"));
        assert!(!is_duplicate(&new, b"c") && is_duplicate(&old, b"c"), "in either order");
        assert!(!new.is_duplicate(OTHER, b"b", now), "another sender");
        assert!(!is_duplicate(&old, b"b") && is_duplicate(&new, b"b"), "and again");
        assert!(!is_duplicate(&new, b"a"), "from before there were two rooms");
    }

    #[test]
    fn duplicate_is_recognized_shortly_after_its_room_was_left() {
        let (dedup, began) = (Dedup::default(), Instant::now());
        let (old, new) = (dedup.register(RoomId(1)), dedup.register(RoomId(2)));
        for body in [b"a", b"b"] {
            assert!(!old.is_duplicate(SENDER, body, began));
        }
        drop(old);
        assert!(new.is_duplicate(SENDER, b"a", began));
        assert!(!new.is_duplicate(SENDER, b"a", began), "each copy has one duplicate");
        let later = began + MAX_LAG + Duration::from_millis(1);
        assert!(!new.is_duplicate(SENDER, b"b", later));
        assert_eq!(recorded(&dedup), 0);
    }

    #[test]
    fn old_message_of_one_room_does_not_hide_a_later_equal_one() {
        let (dedup, began) = (Dedup::default(), Instant::now());
        let (old, new) = (dedup.register(RoomId(1)), dedup.register(RoomId(2)));
        assert!(!old.is_duplicate(SENDER, b"a", began), "its sender is not in the new room yet");
        let later = began + MAX_LAG + Duration::from_millis(1);
        assert!(!new.is_duplicate(SENDER, b"a", later) && old.is_duplicate(SENDER, b"a", later));
    }

    #[test]
    fn oldest_message_is_removed_at_the_limit() {
        let (dedup, now) = (Dedup::default(), Instant::now());
        let (old, new) = (dedup.register(RoomId(1)), dedup.register(RoomId(2)));
        for number in 0..=MAX_MESSAGES {
            assert!(!old.is_duplicate(SENDER, &number.to_be_bytes(), now));
        }
        assert_eq!(recorded(&dedup), MAX_MESSAGES);
        assert!(new.is_duplicate(SENDER, &MAX_MESSAGES.to_be_bytes(), now));
        assert!(!new.is_duplicate(SENDER, &0_usize.to_be_bytes(), now), "the oldest was removed");
    }

    proptest! {
        /// For any lag between the rooms and any losses in them: the number of delivered equal bodies is the
        /// highest number that arrived through one room.
        #[test]
        fn deliveries_equal_the_highest_count_of_any_room(
            arrivals in prop::collection::vec((0_u64..3, 0_u8..2, 0_u8..4), 0..200),
        ) {
            let (dedup, now) = (Dedup::default(), Instant::now());
            let rooms = [0, 1, 2].map(|room| dedup.register(RoomId(room)));
            let (mut delivered, mut received) = (HashMap::new(), HashMap::new());
            for (room, sender, body) in arrivals {
                let new = !rooms[room as usize].is_duplicate(Address::new([sender; 20]), &[body], now);
                *delivered.entry((sender, body)).or_insert(0) += u32::from(new);
                let by_room: &mut [u32; 3] = received.entry((sender, body)).or_default();
                by_room[room as usize] += 1;
                // Holds after every message, so that none is delivered late.
                let most = by_room.iter().max().copied().unwrap_or_default();
                prop_assert_eq!(delivered[&(sender, body)], most);
            }
        }
    }
}
