//! Re-entry with an expired token: the tokens that were last used for each membership, until it is known to
//! have ended.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use protocol::{Address, RoomName, Ulid};
use tokio::time::Instant;

/// How long the token of a disconnected member is kept.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The last token of each membership that is not known to have ended. It admits its address to its room
/// again, even after it has expired: a client that lost its connection has no other token.
#[derive(Debug)]
pub(crate) struct ReentryTokens {
    tokens: HashMap<(RoomName, Address), AdmittedToken>,
    /// Memberships without a socket, with the time of the disconnect, in the order of that time. An entry is
    /// outdated if the membership has a different `disconnected_at`.
    disconnected: VecDeque<(Instant, RoomName, Address)>,
    max_disconnected: usize,
}

#[derive(Debug)]
struct AdmittedToken {
    /// The ULID of the last token that was used.
    minted: Ulid,
    /// When its last socket was closed; `None` while it has one.
    disconnected_at: Option<Instant>,
}

impl ReentryTokens {
    /// Keeps at most `max_disconnected` tokens of disconnected members. Above that, the one that disconnected
    /// first is removed.
    pub(crate) fn new(max_disconnected: usize) -> Self {
        Self { tokens: HashMap::new(), disconnected: VecDeque::new(), max_disconnected }
    }

    /// Whether this token was the last one that admitted this address to this room.
    pub(crate) fn is_last_token(
        &self,
        room: &RoomName,
        address: Address,
        minted: Ulid,
        now: Instant,
    ) -> bool {
        self.tokens.get(&(room.clone(), address)).is_some_and(|token| {
            token.minted == minted && token.disconnected_at.is_none_or(|since| now < since + RETENTION)
        })
    }

    /// Records that an address entered a room with a token, or with a signature (`None`). A token that it
    /// used before admits it only until that token expires.
    pub(crate) fn record_entry(&mut self, room: &RoomName, address: Address, minted: Option<Ulid>) {
        let key = (room.clone(), address);
        match minted {
            Some(minted) => drop(self.tokens.insert(key, AdmittedToken { minted, disconnected_at: None })),
            None => drop(self.tokens.remove(&key)),
        }
    }

    /// Records that the socket of a member was closed.
    pub(crate) fn record_disconnect(&mut self, room: &RoomName, address: Address, now: Instant) {
        let Some(token) = self.tokens.get_mut(&(room.clone(), address)) else { return };
        token.disconnected_at = Some(now);
        self.disconnected.push_back((now, room.clone(), address));
        while let Some((since, ..)) = self.disconnected.front()
            && (self.disconnected.len() > self.max_disconnected || *since + RETENTION <= now)
        {
            let Some((since, room, address)) = self.disconnected.pop_front() else { break };
            // A member that has reconnected since then has a later time, or none.
            if let Entry::Occupied(token) = self.tokens.entry((room, address))
                && token.get().disconnected_at == Some(since)
            {
                token.remove();
            }
        }
    }

    /// Removes the token because the membership ended, unless the token is newer than `minted_before`.
    pub(crate) fn remove(&mut self, room: &RoomName, address: Address, minted_before: Ulid) {
        if let Entry::Occupied(token) = self.tokens.entry((room.clone(), address))
            && token.get().minted <= minted_before
        {
            token.remove();
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
        let (mut tokens, now) = (ReentryTokens::new(9), Instant::now());
        assert!(!tokens.is_last_token(&room(), PEER, Ulid(1), now));
        tokens.record_entry(&room(), PEER, Some(Ulid(1)));
        assert!(tokens.is_last_token(&room(), PEER, Ulid(1), now));
        assert!(!tokens.is_last_token(&room(), OTHER, Ulid(1), now));
        assert!(!tokens.is_last_token(&"I2".parse().unwrap(), PEER, Ulid(1), now));
        tokens.record_entry(&room(), PEER, Some(Ulid(2)));
        assert!(!tokens.is_last_token(&room(), PEER, Ulid(1), now));
        tokens.record_disconnect(&room(), PEER, now);
        assert!(tokens.is_last_token(&room(), PEER, Ulid(2), now));
        tokens.record_entry(&room(), PEER, None);
        assert!(!tokens.is_last_token(&room(), PEER, Ulid(2), now), "the peer entered with a signature");
    }

    #[test]
    fn token_of_an_ended_membership_is_rejected() {
        let (mut tokens, now) = (ReentryTokens::new(9), Instant::now());
        tokens.record_entry(&room(), PEER, Some(Ulid(5)));
        tokens.remove(&room(), PEER, Ulid(4));
        assert!(tokens.is_last_token(&room(), PEER, Ulid(5), now), "the token is newer");
        tokens.record_disconnect(&room(), PEER, now);
        tokens.remove(&room(), PEER, Ulid(5));
        assert!(!tokens.is_last_token(&room(), PEER, Ulid(5), now));
    }

    #[test]
    fn token_without_a_socket_is_forgotten_after_a_day() {
        let (mut tokens, start) = (ReentryTokens::new(9), Instant::now());
        for peer in [PEER, OTHER] {
            tokens.record_entry(&room(), peer, Some(Ulid(1)));
        }
        tokens.record_disconnect(&room(), PEER, start);
        let late = start + RETENTION;
        assert!(tokens.is_last_token(&room(), PEER, Ulid(1), late - Duration::from_secs(1)));
        assert!(!tokens.is_last_token(&room(), PEER, Ulid(1), late));
        assert!(tokens.is_last_token(&room(), OTHER, Ulid(1), late), "the member has a socket");
        tokens.record_disconnect(&room(), OTHER, late);
        assert_eq!((tokens.tokens.len(), tokens.disconnected.len()), (1, 1));
    }

    #[test]
    fn longest_disconnected_token_is_forgotten_at_the_bound() {
        let (mut tokens, now) = (ReentryTokens::new(2), Instant::now());
        let peers: Vec<Address> = (0..4).map(|number| Address::new([number; 20])).collect();
        for (second, &peer) in peers.iter().enumerate() {
            tokens.record_entry(&room(), peer, Some(Ulid(1)));
            tokens.record_disconnect(&room(), peer, now + Duration::from_secs(second as u64));
        }
        let token = peers.iter().map(|&peer| tokens.is_last_token(&room(), peer, Ulid(1), now));
        assert_eq!(token.collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!((tokens.tokens.len(), tokens.disconnected.len()), (2, 2));
        // A member that has reconnected is not removed for its earlier disconnect.
        tokens.record_entry(&room(), peers[2], Some(Ulid(1)));
        for _ in 0..3 {
            tokens.record_entry(&room(), peers[0], Some(Ulid(1)));
            tokens.record_disconnect(&room(), peers[0], now + Duration::from_secs(10));
        }
        assert!(tokens.is_last_token(&room(), peers[2], Ulid(1), now));
    }
}
