//! A present peer.

use protocol::{Position, SessionId};

/// The last known state of a present peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The position, reduced to the precision that is published.
    pub(crate) position: Position,
    /// The time of the last heartbeat, in milliseconds since the Unix epoch.
    pub(crate) last_ping: u64,
    /// The session of the peer, if its gateway sends it.
    pub(crate) session: Option<SessionId>,
}
