//! Messages that arrive through more than one room.
//!
//! While its island moves, an explorer is in two rooms, and whoever moves with it says everything in
//! both. The k-th equal body of a sender in one room is the double of the k-th in another.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::Address;
use tokio::time::Instant;

use crate::RoomId;

/// What was heard through all rooms of an explorer. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubles(Arc<Mutex<Heard>>);

/// A room through which messages arrive, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ear {
    room: RoomId,
    doubles: Doubles,
}

#[derive(Debug, Default)]
struct Heard {
    rooms: HashSet<RoomId>,
    hasher: RandomState,
    /// Through which rooms each message came that was given, oldest first.
    given: HashMap<Key, Vec<Vec<RoomId>>>,
    /// The same messages, oldest first, and when they were given.
    order: VecDeque<(Instant, Key)>,
}

/// The sender and the hash of the body.
type Key = (Address, u64);

/// A double that is later than this is given. What was said in the old room alone, before its sender
/// was in the new one, would else be taken for the twin of whatever equal comes later.
const LATEST: Duration = Duration::from_secs(2);
/// Messages that are remembered; at the bound the oldest is forgotten, and its double is given. A
/// hundred people say less in that time.
const MESSAGES: usize = 8_192;

impl Doubles {
    /// From now on, messages arrive through this room as well. It is told before the room is
    /// entered: what comes through an older one meanwhile may come through this one, too.
    pub(crate) fn listen(&self, room: RoomId) -> Ear {
        self.lock().rooms.insert(room);
        Ear { room, doubles: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    /// A message arrived; gives whether it has been given, because it arrived through another room
    /// before.
    pub(crate) fn is_double(&self, sender: Address, body: &[u8], now: Instant) -> bool {
        let mut heard = self.doubles.lock();
        heard.forget(now);
        // Of a room that was left a moment ago, there may be doubles still.
        if heard.rooms.len() < 2 && heard.order.is_empty() {
            return false;
        }
        let key = (sender, heard.hasher.hash_one(body));
        heard.came(key, self.room, now)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.doubles.lock().rooms.remove(&self.room);
    }
}

impl Heard {
    /// Whether it is the double of a message that did not come through this room yet.
    fn came(&mut self, key: Key, room: RoomId, now: Instant) -> bool {
        let mut given = self.given.get_mut(&key).into_iter().flatten();
        if let Some(through) = given.find(|through| !through.contains(&room)) {
            through.push(room);
            return true;
        }
        if self.rooms.len() > 1 {
            if self.order.len() >= MESSAGES {
                self.forget_oldest();
            }
            self.order.push_back((now, key));
            self.given.entry(key).or_default().push(vec![room]);
        }
        false
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > LATEST) {
            self.forget_oldest();
        }
        if self.order.is_empty() && self.order.capacity() > 0 && self.rooms.len() < 2 {
            // What the move took is given back.
            (self.given, self.order) = Default::default();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Entry::Occupied(mut given) = self.given.entry(key) {
            given.get_mut().remove(0);
            if given.get().is_empty() {
                given.remove();
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

    fn remembered(doubles: &Doubles) -> usize {
        let heard = doubles.lock();
        assert_eq!(heard.given.values().map(Vec::len).sum::<usize>(), heard.order.len());
        heard.order.len()
    }

    #[test]
    fn what_comes_through_two_rooms_is_given_once() {
        let (doubles, now) = (Doubles::default(), Instant::now());
        let old = doubles.listen(RoomId(1));
        let is_double = |ear: &Ear, body: &[u8]| ear.is_double(SENDER, body, now);
        assert!(!is_double(&old, b"a") && !is_double(&old, b"a"), "said twice in one room");
        assert_eq!(remembered(&doubles), 0);
        let new = doubles.listen(RoomId(2));
        assert!(!is_double(&old, b"b") && is_double(&new, b"b"));
        assert!(!is_double(&new, b"c") && is_double(&old, b"c"), "whichever is first");
        assert!(!new.is_double(OTHER, b"b", now), "somebody else said it, too");
        assert!(!is_double(&old, b"b") && is_double(&new, b"b"), "and again");
        assert!(!is_double(&new, b"a"), "from before there were two rooms");
    }

    #[test]
    fn what_was_given_is_known_for_a_moment_after_its_room_was_left() {
        let (doubles, began) = (Doubles::default(), Instant::now());
        let (old, new) = (doubles.listen(RoomId(1)), doubles.listen(RoomId(2)));
        for body in [b"a", b"b"] {
            assert!(!old.is_double(SENDER, body, began));
        }
        drop(old);
        assert!(new.is_double(SENDER, b"a", began));
        assert!(!new.is_double(SENDER, b"a", began), "of one room nothing else is a double");
        let later = began + LATEST + Duration::from_millis(1);
        assert!(!new.is_double(SENDER, b"b", later));
        assert_eq!(remembered(&doubles), 0);
    }

    #[test]
    fn equal_bodies_of_the_old_room_alone_do_not_hide_later_ones() {
        let (doubles, began) = (Doubles::default(), Instant::now());
        let (old, new) = (doubles.listen(RoomId(1)), doubles.listen(RoomId(2)));
        assert!(!old.is_double(SENDER, b"a", began), "its sender is not in the new room yet");
        let later = began + LATEST + Duration::from_millis(1);
        assert!(!new.is_double(SENDER, b"a", later) && old.is_double(SENDER, b"a", later));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (doubles, now) = (Doubles::default(), Instant::now());
        let (old, new) = (doubles.listen(RoomId(1)), doubles.listen(RoomId(2)));
        for number in 0..=MESSAGES {
            assert!(!old.is_double(SENDER, &number.to_be_bytes(), now));
        }
        assert_eq!(remembered(&doubles), MESSAGES);
        assert!(new.is_double(SENDER, &MESSAGES.to_be_bytes(), now));
        assert!(!new.is_double(SENDER, &0_usize.to_be_bytes(), now), "the oldest was forgotten");
    }

    proptest! {
        /// However the rooms lag behind each other, and whatever of it each of them drops: of equal
        /// bodies as many are given as the room brought that brought the most.
        #[test]
        fn of_equal_bodies_as_many_are_given_as_one_room_brings(
            arrivals in prop::collection::vec((0_u64..3, 0_u8..2, 0_u8..4), 0..200),
        ) {
            let (doubles, now) = (Doubles::default(), Instant::now());
            let ears = [0, 1, 2].map(|room| doubles.listen(RoomId(room)));
            let (mut given, mut came) = (HashMap::new(), HashMap::new());
            for (room, sender, body) in arrivals {
                let new = !ears[room as usize].is_double(Address::new([sender; 20]), &[body], now);
                *given.entry((sender, body)).or_insert(0) += u32::from(new);
                let through: &mut [u32; 3] = came.entry((sender, body)).or_default();
                through[room as usize] += 1;
                // At every moment, so that nothing is given late.
                let most = through.iter().max().copied().unwrap_or_default();
                prop_assert_eq!(given[&(sender, body)], most);
            }
        }
    }
}
