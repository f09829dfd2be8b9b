//! `[p2p]`: the mesh among the peers.

use std::{net::IpAddr, str::FromStr};

use director::{ConfiguredNode, TransportOffer};
use gateway::CandidatePolicy;
use protocol::NodeName;
use transports::p2p::{Minter, TurnServers};

use super::{
    problems::{Problems, quoted},
    section::section,
    values::{CommaList, Seconds, Secret, Switch},
};

section! {
    /// `[p2p]`: the mesh among the peers
    pub(crate) struct P2p {
        /// Whether islands may be meshes, in which peers connect to each other and learn each other's network
        /// addresses. A rule must name `p2p` as well, and each member's client must have announced it. `auto`: if
        /// `server.listen` is a loopback address.
        enabled: Switch = Switch::Auto,
        /// Whether peers connect through the servers of `turn` only, so that they do not learn each other's
        /// addresses: the connection string has `iceTransportPolicy=relay`, and gateways remove all other
        /// candidates from the signalling.
        relay_only: bool = false,
        /// Whether gateways let candidates with loopback, unspecified and multicast addresses, and those of the
        /// realm itself, pass. `auto`: if `server.listen` is a loopback address.
        allow_private: Switch = Switch::Auto,
        /// Name of the node.
        node: String = "p2p".to_owned(),
        /// Maximum number of members of a mesh.
        #[at_least(1)]
        max_island_size: u32 = 12,
        /// STUN servers, separated by commas: `stun:host[:port]`, `stuns:host[:port]`.
        stun: CommaList<StunServer> = CommaList::empty(),
        /// TURN servers, separated by commas: `turn:host[:port]`, `turns:host[:port]`. They share the secret
        /// below.
        turn: CommaList<TurnServer> = CommaList::empty(),
        /// Secret from which users and passwords for the TURN servers are derived. Required with `turn`.
        turn_secret: Secret = Secret::default(),
        /// Time for which such a user may start to use the servers.
        #[at_least(1)]
        turn_ttl_s: Seconds = Seconds(3_600),
    }
}

impl P2p {
    pub(super) fn validate(&self, problems: &mut Problems) {
        if let Err(error) = self.node.parse::<NodeName>() {
            problems.check(false, "p2p.node", &self.node, error);
        }
        let complete = self.turn.is_empty() || !self.turn_secret.is_empty();
        let rule = "must be set, to generate users for the servers of p2p.turn";
        problems.check(complete, "p2p.turn_secret", quoted(""), rule);
        let relayed = !self.relay_only || !self.turn.is_empty();
        problems.check(relayed, "p2p.relay_only", true, "needs p2p.turn, through which all peers connect");
    }

    /// The candidates that gateways let pass, in a process that listens on `listen`, at URLs with these hosts.
    pub(crate) fn candidates<'a>(
        &self,
        listen: IpAddr,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> CandidatePolicy {
        let own_addresses = hosts.into_iter().filter_map(|host| host.parse().ok()).chain([listen]);
        CandidatePolicy {
            relay_only: self.relay_only,
            allow_private: self.allow_private.is_on(listen.is_loopback()),
            own_addresses: own_addresses.collect(),
        }
    }

    /// The node, if islands may be meshes in a process that listens on `listen`.
    pub(super) fn node(&self, listen: IpAddr) -> Option<ConfiguredNode> {
        let is_enabled = self.enabled.is_on(listen.is_loopback());
        is_enabled.then(|| self.node.parse().ok().map(|node| self.settings(node)))?
    }

    /// The node of this name.
    fn settings(&self, node: NodeName) -> ConfiguredNode {
        let turn = (!self.turn.is_empty()).then(|| TurnServers {
            urls: self.turn.iter().map(|server| server.0.clone()).collect(),
            secret: self.turn_secret.to_string(),
            ttl: self.turn_ttl_s.duration(),
        });
        let stun = self.stun.iter().map(|server| server.0.clone()).collect();
        ConfiguredNode {
            node,
            offer: TransportOffer::P2p(Minter { stun, turn, relay_only: self.relay_only }),
            max_island_size: self.max_island_size,
            max_users: None,
            draining: false,
        }
    }
}

/// The URL of a STUN server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StunServer(String);

impl FromStr for StunServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let valid = is_ice_url(text, ["stun:", "stuns:"]);
        valid.then(|| Self(text.to_owned())).ok_or("must be stun: and a host")
    }
}

/// The URL of a TURN server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TurnServer(String);

impl FromStr for TurnServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let valid = is_ice_url(text, ["turn:", "turns:"]);
        valid.then(|| Self(text.to_owned())).ok_or("must be turn: and a host")
    }
}

fn is_ice_url(text: &str, schemes: [&str; 2]) -> bool {
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace))
}
