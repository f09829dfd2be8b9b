//! `[client]`: assumptions about clients.

use protocol::is_protocol_name;

use super::{problems::Problems, section::section, values::CommaList};

section! {
    /// `[client]`: assumptions about clients
    pub(crate) struct Client {
        /// Transports that a client can join if it announces none, separated by commas: `livekit`, `ws-room`,
        /// or the protocol of an external transport.
        assumed_transports: CommaList<String> = CommaList::new(["livekit", "ws-room"].map(str::to_owned)),
    }
}

impl Client {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let assumed = &self.assumed_transports;
        let named = !assumed.is_empty() && assumed.iter().all(|name| is_protocol_name(name));
        let rule = "must list the transports that clients can join, such as livekit,ws-room";
        problems.check(named, "client.assumed_transports", assumed.text(), rule);
        let rule = "must not contain p2p: members of a mesh learn each other's addresses, so a client must announce it";
        let consents = assumed.iter().all(|name| name != "p2p");
        problems.check(consents, "client.assumed_transports", assumed.text(), rule);
    }
}
