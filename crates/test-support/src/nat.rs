//! NATs between the machines of a test and its public network, by rules of nftables.

use std::{fmt, net::Ipv4Addr};

use crate::Namespace;

/// The behaviour of a NAT towards UDP, by the names of RFC 3489 (in those of RFC 4787: mapping and filtering). TCP
/// connections from the inside always pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// One public port for each port of the host; any address may send to it.
    FullCone,
    /// The same ports, but only for addresses to which the host has sent within 60 s.
    AddressRestricted,
    /// The same ports, but only for addresses and ports to which the host has sent.
    PortRestricted,
    /// A random public port for each destination, which only this destination may use.
    Symmetric,
    /// UDP does not pass.
    UdpBlocked,
}

/// A NAT, and the host behind it.
pub struct Nat {
    /// Keeps the namespace.
    _router: Namespace,
    /// The machine behind it, at `10.0.<number>.2`.
    pub host: Namespace,
    /// Its public address.
    pub address: Ipv4Addr,
}

impl NatKind {
    /// All kinds, the most permissive first.
    pub const ALL: [Self; 5] =
        [Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric, Self::UdpBlocked];

    /// The rules of a router with the interfaces `lan` and `wan`, for one host.
    fn rules(self, wan: &str, host: Ipv4Addr) -> String {
        // Both keep the port of the host as long as it is free, which it always is for a single host.
        let source = match self {
            Self::Symmetric => "masquerade random,fully-random",
            _ => "masquerade",
        };
        let destination = match self {
            Self::FullCone => format!("iifname \"{wan}\" meta l4proto udp dnat to {host}"),
            Self::AddressRestricted => {
                format!("iifname \"{wan}\" ip saddr @contacted meta l4proto udp dnat to {host}")
            }
            _ => String::new(),
        };
        let outbound = match self {
            Self::AddressRestricted => "iifname \"lan\" meta l4proto udp update @contacted { ip daddr }",
            Self::UdpBlocked => "meta l4proto udp drop",
            _ => "",
        };
        // A packet to the router itself must be dropped: otherwise its connection is tracked, which occupies the port
        // that the host would need for its own packet in the opposite direction, and the NAT becomes a symmetric one.
        format!(
            "table ip nat {{
                set contacted {{ type ipv4_addr; size 1024; flags dynamic,timeout; timeout 60s; }}
                chain destination {{ type nat hook prerouting priority dstnat; {destination}; }}
                chain source {{ type nat hook postrouting priority srcnat; oifname \"{wan}\" {source}; }}
                chain forwarded {{ type filter hook forward priority filter; {outbound}; }}
                chain received {{ type filter hook input priority filter; iifname \"{wan}\" drop; }}
            }}"
        )
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "UDP blocked",
        })
    }
}

impl Nat {
    /// A host behind a NAT of this kind, which is connected to the public network as `198.18.<number>.2`.
    pub fn new(kind: NatKind, public: &Namespace, number: u8) -> Self {
        let (router, host) = (Namespace::new(), Namespace::new());
        let address = connect_to_public(public, &router, number);
        let (inner, outer) = (Ipv4Addr::new(10, 0, number, 2), Ipv4Addr::new(10, 0, number, 1));
        router.connect("lan", &format!("{outer}/24"), &host, &format!("{inner}/24"));
        host.run(&["ip", "route", "add", "default", "via", &outer.to_string()]);
        router.forward_packets();
        router.run(&["nft", &kind.rules(&cable(number), inner)]);
        Self { _router: router, host, address }
    }
}

/// Connects a machine to the public network as `198.18.<number>.2`, and returns this address.
pub fn connect_to_public(public: &Namespace, machine: &Namespace, number: u8) -> Ipv4Addr {
    let (address, gateway) = (Ipv4Addr::new(198, 18, number, 2), Ipv4Addr::new(198, 18, number, 1));
    public.connect(&cable(number), &format!("{gateway}/24"), machine, &format!("{address}/24"));
    machine.run(&["ip", "route", "add", "default", "via", &gateway.to_string()]);
    address
}

fn cable(number: u8) -> String {
    format!("wan{number}")
}
