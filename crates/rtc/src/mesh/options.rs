//! The options of a mesh peer.

use std::{net::SocketAddr, time::Duration};

use protocol::Address;

use super::ice_servers::IceServers;

/// The member, its island, and how it finds paths to others.
#[derive(Debug, Clone)]
pub struct Options {
    /// The member's own address.
    pub address: Address,
    /// The island: plans and signals of another one are refused.
    pub island_id: String,
    /// The STUN and TURN servers. Empty: only direct paths.
    pub ice_servers: IceServers,
    /// Only paths over a TURN server (RFC 8656): no address of the machine is sent to other members. Without a TURN
    /// server no link forms then.
    pub relay_only: bool,
    /// The local UDP addresses of the links; port 0 is any free port, a wildcard address means all addresses of the
    /// machine except the loopback. Empty: the IPv4 wildcard. Each link has its own sockets, so that a fixed port
    /// permits one link.
    pub udp_addresses: Vec<SocketAddr>,
    /// The limits of the links.
    pub limits: Limits,
}

/// The limits of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most links that a plan may list; further ones are ignored. Links that are being replaced come on top, at
    /// most as many again. Default: 6.
    pub max_links: usize,
    /// The packets that a neighbour may send, a second, with bursts of two seconds. A neighbour above it is cut off.
    /// Default: 2,000, twice the rate of a relay for 50 members at 20 Hz.
    pub packets_per_second: u32,
    /// The bytes that a neighbour may send, a second, with bursts of two seconds. Default: 2 MiB, four times the
    /// rate of the same relay in packets of 500 bytes.
    pub bytes_per_second: u32,
    /// The own messages that are sent through the gateway, a second and for all members together, with bursts of two
    /// seconds. Messages above it are dropped and counted. Default: 50.
    pub fallbacks_per_second: u32,
    /// The time for which a neighbour that was cut off is refused. Default: 60 s.
    pub cut_off: Duration,
}

/// The burst of the rate limits: the time in which they refill.
pub(crate) const BURST: Duration = Duration::from_secs(2);

impl Options {
    /// The default options of a member.
    pub fn new(address: Address, island_id: impl Into<String>) -> Self {
        Self {
            address,
            island_id: island_id.into(),
            ice_servers: IceServers::default(),
            relay_only: false,
            udp_addresses: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_links: 6,
            packets_per_second: 2_000,
            bytes_per_second: 2 * 1024 * 1024,
            fallbacks_per_second: 50,
            cut_off: Duration::from_secs(60),
        }
    }
}
