//! Which memberships a node has admitted, and by which token, until they are known to have ended.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use protocol::{Address, RoomName, Ulid};
use tokio::time::Instant;

/// How long a membership without a socket is remembered.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Memberships that a node has admitted and of which no end is known. The token of one admits its address to its
/// room again, also after the token has expired: a client whose socket breaks has no other.
#[derive(Debug)]
pub(crate) struct ReentryTokens {
    tokens: HashMap<(RoomName, Address), AdmittedToken>,
    /// Memberships whose socket has ended, and when, in the order of that time.
    disconnected: VecDeque<(Instant, RoomName, Address)>,
    max_disconnected: usize,
}

#[derive(Debug)]
struct AdmittedToken {
    /// When the last token that was used was minted.
    minted: Ulid,
    /// When its last socket ended; `None` while it has one.
    disconnected_at: Option<Instant>,
}

impl ReentryTokens {
    /// Remembers at most `max_disconnected` memberships without a socket; above it, the one that has been away for
    /// longest is forgotten.
    pub(crate) fn new(max_away: usize) -> Self {
        Self { tokens: HashMap::new(), disconnected: VecDeque::new(), max_disconnected: max_away }
    }

    /// Whether this token was the last that admitted this address to this room.
    pub(crate) fn is_last_token(
        &self,
        room: &RoomName,
        address: Address,
        minted: Ulid,
        now: Instant,
    ) -> bool {
        self.tokens.get(&(room.clone(), address)).is_some_and(|known| {
            known.minted == minted && known.disconnected_at.is_none_or(|since| now < since + RETENTION)
        })
    }

    /// An address entered a room, with a token or with a signature. A token that it used before admits it only
    /// until that token expires.
    pub(crate) fn record_entry(&mut self, room: &RoomName, address: Address, minted: Option<Ulid>) {
        let key = (room.clone(), address);
        match minted {
            Some(minted) => drop(self.tokens.insert(key, AdmittedToken { minted, disconnected_at: None })),
            None => drop(self.tokens.remove(&key)),
        }
    }

    /// The socket of a member ended.
    pub(crate) fn record_disconnect(&mut self, room: &RoomName, address: Address, now: Instant) {
        let Some(known) = self.tokens.get_mut(&(room.clone(), address)) else { return };
        known.disconnected_at = Some(now);
        self.disconnected.push_back((now, room.clone(), address));
        while let Some((since, ..)) = self.disconnected.front()
            && (self.disconnected.len() > self.max_disconnected || *since + RETENTION <= now)
        {
            let Some((since, room, address)) = self.disconnected.pop_front() else { break };
            // One that has entered again since then is away since later, or not at all.
            if let Entry::Occupied(known) = self.tokens.entry((room, address))
                && known.get().disconnected_at == Some(since)
            {
                known.remove();
            }
        }
    }

    /// The membership ended, unless it began with a later token.
    pub(crate) fn remove(&mut self, room: &RoomName, address: Address, minted_before: Ulid) {
        if let Entry::Occupied(known) = self.tokens.entry((room.clone(), address))
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
    fn only_the_last_token_of_an_address_is_accepted() {
        let (mut admitted, now) = (ReentryTokens::new(9), Instant::now());
        assert!(!admitted.is_last_token(&room(), PEER, Ulid(1), now));
        admitted.record_entry(&room(), PEER, Some(Ulid(1)));
        assert!(admitted.is_last_token(&room(), PEER, Ulid(1), now));
        assert!(!admitted.is_last_token(&room(), OTHER, Ulid(1), now));
        assert!(!admitted.is_last_token(&"I2".parse().unwrap(), PEER, Ulid(1), now));
        admitted.record_entry(&room(), PEER, Some(Ulid(2)));
        assert!(!admitted.is_last_token(&room(), PEER, Ulid(1), now));
        admitted.record_disconnect(&room(), PEER, now);
        assert!(admitted.is_last_token(&room(), PEER, Ulid(2), now));
        admitted.record_entry(&room(), PEER, None);
        assert!(!admitted.is_last_token(&room(), PEER, Ulid(2), now), "it entered with a signature");
    }

    #[test]
    fn token_of_an_ended_membership_is_rejected() {
        let (mut admitted, now) = (ReentryTokens::new(9), Instant::now());
        admitted.record_entry(&room(), PEER, Some(Ulid(5)));
        admitted.remove(&room(), PEER, Ulid(4));
        assert!(admitted.is_last_token(&room(), PEER, Ulid(5), now), "the token is later than that");
        admitted.record_disconnect(&room(), PEER, now);
        admitted.remove(&room(), PEER, Ulid(5));
        assert!(!admitted.is_last_token(&room(), PEER, Ulid(5), now));
    }

    #[test]
    fn token_without_a_socket_is_forgotten_after_a_day() {
        let (mut admitted, start) = (ReentryTokens::new(9), Instant::now());
        for peer in [PEER, OTHER] {
            admitted.record_entry(&room(), peer, Some(Ulid(1)));
        }
        admitted.record_disconnect(&room(), PEER, start);
        let late = start + RETENTION;
        assert!(admitted.is_last_token(&room(), PEER, Ulid(1), late - Duration::from_secs(1)));
        assert!(!admitted.is_last_token(&room(), PEER, Ulid(1), late));
        assert!(admitted.is_last_token(&room(), OTHER, Ulid(1), late), "it has a socket");
        admitted.record_disconnect(&room(), OTHER, late);
        assert_eq!((admitted.tokens.len(), admitted.disconnected.len()), (1, 1));
    }

    #[test]
    fn longest_disconnected_token_is_forgotten_at_the_bound() {
        let (mut admitted, now) = (ReentryTokens::new(2), Instant::now());
        let peers: Vec<Address> = (0..4).map(|number| Address::new([number; 20])).collect();
        for (second, &peer) in peers.iter().enumerate() {
            admitted.record_entry(&room(), peer, Some(Ulid(1)));
            admitted.record_disconnect(&room(), peer, now + Duration::from_secs(second as u64));
        }
        let known = peers.iter().map(|&peer| admitted.is_last_token(&room(), peer, Ulid(1), now));
        assert_eq!(known.collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!((admitted.tokens.len(), admitted.disconnected.len()), (2, 2));
        // One that is back is not forgotten for having been away.
        admitted.record_entry(&room(), peers[2], Some(Ulid(1)));
        for _ in 0..3 {
            admitted.record_entry(&room(), peers[0], Some(Ulid(1)));
            admitted.record_disconnect(&room(), peers[0], now + Duration::from_secs(10));
        }
        assert!(admitted.is_last_token(&room(), peers[2], Ulid(1), now));
    }
}
