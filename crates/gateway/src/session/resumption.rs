//! Resumption: a client proves that its new session continues its last one, so that its room connection stays
//! valid.

use std::collections::{HashMap, VecDeque};

use identity::ResumeSecret;
use protocol::{Address, ResumeHash, SessionId, timing::RESUMABLE_FOR};
use tokio::time::Instant;

/// The resumption state of a session. It exists if the client announced extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumption {
    /// Sent only to the client.
    secret: ResumeSecret,
    /// The hash of the secret, which the bus carries.
    pub(crate) hash: ResumeHash,
    /// The older session that this one resumes.
    pub(crate) resumes: Option<SessionId>,
}

impl Resumption {
    /// The state of a session that resumes the older session `resumes`, if any. The random bytes become its
    /// secret.
    pub(crate) fn new(random: [u8; 16], resumes: Option<SessionId>) -> Self {
        let secret = ResumeSecret::new(random);
        Self { secret, hash: secret.hash(), resumes }
    }

    /// The bus headers of the session's announcement.
    pub(crate) fn headers(self) -> bus::Resumption {
        bus::Resumption { hash: Some(self.hash), resumes: self.resumes }
    }

    /// The extension fields of a welcome: the secret, and whether this session resumed an older one. Without
    /// resumption state both are empty, and so absent from the packet.
    pub(crate) fn welcome(resumption: Option<Self>) -> (Vec<u8>, bool) {
        let fields = |own: Self| (own.secret.as_bytes().to_vec(), own.resumes.is_some());
        resumption.map(fields).unwrap_or_default()
    }
}

/// The data of a session that resumption needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumable {
    pub(crate) session: SessionId,
    /// `None`: its client announced no extensions, or its gateway reported no hash.
    pub(crate) hash: Option<ResumeHash>,
}

/// Upper bound of the ended sessions that are remembered. At the bound the oldest is removed; its client
/// cannot resume, and enters its room anew.
const MAX_ENDED_SESSIONS: usize = 65_536;

/// Recently ended sessions of all gateways: the newest of each wallet.
#[derive(Debug, Default)]
pub(crate) struct RecentlyEnded {
    sessions: HashMap<Address, Resumable>,
    /// The sessions by the time of their end, oldest first. Entries of sessions that were replaced since
    /// remain.
    order: VecDeque<(Instant, Address, SessionId)>,
}

impl RecentlyEnded {
    /// Adds a session that ended, unless a newer one is known.
    pub(crate) fn add(&mut self, address: Address, ended: Resumable, now: Instant) {
        self.forget_expired(now);
        if self.sessions.get(&address).is_some_and(|known| known.session >= ended.session) {
            return;
        }
        self.sessions.insert(address, ended);
        self.order.push_back((now, address, ended.session));
        if self.order.len() > MAX_ENDED_SESSIONS {
            self.forget_oldest();
        }
    }

    /// The newest recently ended session of a wallet.
    pub(crate) fn get(&mut self, address: Address, now: Instant) -> Option<Resumable> {
        self.forget_expired(now);
        self.sessions.get(&address).copied()
    }

    fn forget_expired(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, ..)| *at + RESUMABLE_FOR <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, address, session)) = self.order.pop_front() else { return };
        if self.sessions.get(&address).is_some_and(|known| known.session == session) {
            self.sessions.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Address = Address::new([1; 20]);

    fn ended(number: u64) -> Resumable {
        Resumable { session: SessionId::new(number, 0), hash: Some(ResumeHash::new([number as u8; 16])) }
    }

    #[test]
    fn ended_session_is_remembered_for_a_minute() {
        let (mut recent, start) = (RecentlyEnded::default(), Instant::now());
        recent.add(PEER, ended(2), start);
        recent.add(PEER, ended(1), start);
        assert_eq!(recent.get(PEER, start), Some(ended(2)), "the newest");
        recent.add(PEER, ended(3), start + RESUMABLE_FOR / 2);
        assert_eq!(recent.get(PEER, start + RESUMABLE_FOR), Some(ended(3)), "it ended later");
        assert_eq!(recent.get(PEER, start + 2 * RESUMABLE_FOR), None);
        assert!(recent.sessions.is_empty() && recent.order.is_empty());
    }

    #[test]
    fn recently_ended_at_the_bound_forgets_the_oldest() {
        let (mut recent, now) = (RecentlyEnded::default(), Instant::now());
        let peer = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Address::new(bytes)
        };
        (0..=MAX_ENDED_SESSIONS).for_each(|number| recent.add(peer(number), ended(1), now));
        assert_eq!(recent.sessions.len(), MAX_ENDED_SESSIONS);
        assert_eq!(
            (recent.get(peer(0), now), recent.get(peer(MAX_ENDED_SESSIONS), now)),
            (None, Some(ended(1)))
        );
    }
}
