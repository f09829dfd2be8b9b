//! Which memberships a node has admitted, and by which token, until they are known to have ended.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use protocol::{Address, RoomName, Ulid};
use tokio::time::Instant;

/// How long a membership without a socket is remembered.
const REMEMBER: Duration = Duration::from_secs(24 * 60 * 60);

/// Memberships that a node has admitted and of which no end is known. The token of one admits its address to its
/// room again, also after the token has expired: a client whose socket breaks has no other.
#[derive(Debug)]
pub(crate) struct Admitted {
    memberships: HashMap<(RoomName, Address), Membership>,
    /// Memberships whose socket has ended, and when, in the order of that time.
    away: VecDeque<(Instant, RoomName, Address)>,
    max_away: usize,
}

#[derive(Debug)]
struct Membership {
    /// When the last token that was used was minted.
    minted: Ulid,
    /// When its last socket ended; `None` while it has one.
    away_since: Option<Instant>,
}

impl Admitted {
    /// Remembers at most `max_away` memberships without a socket; above it, the one that has been away for
    /// longest is forgotten.
    pub(crate) fn new(max_away: usize) -> Self {
        Self { memberships: HashMap::new(), away: VecDeque::new(), max_away }
    }

    /// Whether this token was the last that admitted this address to this room.
    pub(crate) fn knows(&self, room: &RoomName, address: Address, minted: Ulid, now: Instant) -> bool {
        self.memberships.get(&(room.clone(), address)).is_some_and(|known| {
            known.minted == minted && known.away_since.is_none_or(|since| now < since + REMEMBER)
        })
    }

    /// An address entered a room, with a token or with a signature. A token that it used before admits it only
    /// until that token expires.
    pub(crate) fn entered(&mut self, room: &RoomName, address: Address, minted: Option<Ulid>) {
        let key = (room.clone(), address);
        match minted {
            Some(minted) => drop(self.memberships.insert(key, Membership { minted, away_since: None })),
            None => drop(self.memberships.remove(&key)),
        }
    }

    /// The socket of a member ended.
    pub(crate) fn left(&mut self, room: &RoomName, address: Address, now: Instant) {
        let Some(known) = self.memberships.get_mut(&(room.clone(), address)) else { return };
        known.away_since = Some(now);
        self.away.push_back((now, room.clone(), address));
        while let Some((since, ..)) = self.away.front()
            && (self.away.len() > self.max_away || *since + REMEMBER <= now)
        {
            let Some((since, room, address)) = self.away.pop_front() else { break };
            // One that has entered again since then is away since later, or not at all.
            if let Entry::Occupied(known) = self.memberships.entry((room, address))
                && known.get().away_since == Some(since)
            {
                known.remove();
            }
        }
    }

    /// The membership ended, unless it began with a later token.
    pub(crate) fn ended(&mut self, room: &RoomName, address: Address, minted_before: Ulid) {
        if let Entry::Occupied(known) = self.memberships.entry((room.clone(), address))
            && known.get().minted <= minted_before
        {
            known.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Address = Address::new([1; 20]);
    const OTHER: Address = Address::new([2; 20]);

    fn room() -> RoomName {
        "I1".parse().unwrap()
    }

    #[test]
    fn only_the_last_token_of_an_address_is_known() {
        let (mut admitted, now) = (Admitted::new(9), Instant::now());
        assert!(!admitted.knows(&room(), PEER, Ulid(1), now));
        admitted.entered(&room(), PEER, Some(Ulid(1)));
        assert!(admitted.knows(&room(), PEER, Ulid(1), now));
        assert!(!admitted.knows(&room(), OTHER, Ulid(1), now));
        assert!(!admitted.knows(&"I2".parse().unwrap(), PEER, Ulid(1), now));
        admitted.entered(&room(), PEER, Some(Ulid(2)));
        assert!(!admitted.knows(&room(), PEER, Ulid(1), now));
        admitted.left(&room(), PEER, now);
        assert!(admitted.knows(&room(), PEER, Ulid(2), now));
        admitted.entered(&room(), PEER, None);
        assert!(!admitted.knows(&room(), PEER, Ulid(2), now), "it entered with a signature");
    }

    #[test]
    fn membership_that_ended_is_not_known() {
        let (mut admitted, now) = (Admitted::new(9), Instant::now());
        admitted.entered(&room(), PEER, Some(Ulid(5)));
        admitted.ended(&room(), PEER, Ulid(4));
        assert!(admitted.knows(&room(), PEER, Ulid(5), now), "the token is later than that");
        admitted.left(&room(), PEER, now);
        admitted.ended(&room(), PEER, Ulid(5));
        assert!(!admitted.knows(&room(), PEER, Ulid(5), now));
    }

    #[test]
    fn membership_without_a_socket_is_forgotten_after_a_day() {
        let (mut admitted, start) = (Admitted::new(9), Instant::now());
        for peer in [PEER, OTHER] {
            admitted.entered(&room(), peer, Some(Ulid(1)));
        }
        admitted.left(&room(), PEER, start);
        let late = start + REMEMBER;
        assert!(admitted.knows(&room(), PEER, Ulid(1), late - Duration::from_secs(1)));
        assert!(!admitted.knows(&room(), PEER, Ulid(1), late));
        assert!(admitted.knows(&room(), OTHER, Ulid(1), late), "it has a socket");
        admitted.left(&room(), OTHER, late);
        assert_eq!((admitted.memberships.len(), admitted.away.len()), (1, 1));
    }

    #[test]
    fn longest_away_is_forgotten_at_the_bound() {
        let (mut admitted, now) = (Admitted::new(2), Instant::now());
        let peers: Vec<Address> = (0..4).map(|number| Address::new([number; 20])).collect();
        for (second, &peer) in peers.iter().enumerate() {
            admitted.entered(&room(), peer, Some(Ulid(1)));
            admitted.left(&room(), peer, now + Duration::from_secs(second as u64));
        }
        let known = peers.iter().map(|&peer| admitted.knows(&room(), peer, Ulid(1), now));
        assert_eq!(known.collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!((admitted.memberships.len(), admitted.away.len()), (2, 2));
        // One that is back is not forgotten for having been away.
        admitted.entered(&room(), peers[2], Some(Ulid(1)));
        for _ in 0..3 {
            admitted.entered(&room(), peers[0], Some(Ulid(1)));
            admitted.left(&room(), peers[0], now + Duration::from_secs(10));
        }
        assert!(admitted.knows(&room(), peers[2], Ulid(1), now));
    }
}
