//! The network of a client address, to which limits apply.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The network to which limits apply: an IPv4 address, or the prefix of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The network of `ip`. An IPv4-mapped address counts as IPv4. An IPv6 address keeps its first
    /// `ipv6_prefix` bits (128 or more: all of it), because a provider assigns a whole prefix to one
    /// customer.
    pub fn from_ip(ip: IpAddr, ipv6_prefix: u8) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => {
                let host_bits = 128_u32.saturating_sub(u32::from(ipv6_prefix));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ip: &str, ipv6_prefix: u8) -> String {
        Network::from_ip(ip.parse().unwrap(), ipv6_prefix).to_string()
    }

    #[test]
    fn ipv4_address_is_its_own_network() {
        assert_eq!(network("10.0.0.1", 64), "10.0.0.1");
        assert_eq!(network("::ffff:10.0.0.1", 64), "10.0.0.1");
        assert_eq!(network("10.0.0.1", 0), "10.0.0.1");
    }

    #[test]
    fn ipv6_address_is_masked_to_the_prefix() {
        let ip = "2001:db8:1:2:3:4:5:6";
        assert_eq!(network(ip, 64), "2001:db8:1:2::");
        assert_eq!(network(ip, 56), "2001:db8:1::");
        assert_eq!(network(ip, 128), ip);
        assert_eq!(network(ip, 255), ip);
        assert_eq!(network(ip, 0), "::");
    }
}
