//! The address of a client behind the proxies that an operator trusts.

use std::net::{IpAddr, SocketAddr};

use admission::Network;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

/// How the address of a client is determined.
#[derive(Debug, Clone, Default)]
pub struct ClientAddresses {
    /// Proxies that may state the address of their client. If empty, the client is the other end of the
    /// connection, and headers are ignored.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether trusted proxies send a PROXY protocol header (version 1 or 2) on each connection. A trusted
    /// connection without one is closed. Other connections must not send one.
    pub proxy_protocol: bool,
    /// The number of leading bits of an IPv6 address that identify one network, for all limits per network.
    pub ipv6_prefix: u8,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl ClientAddresses {
    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|proxies| proxies.contains(&address))
    }

    pub(crate) fn network(&self, address: IpAddr) -> Network {
        Network::from_ip(address, self.ipv6_prefix)
    }

    /// The address of the client that sent a request, `peer` being the other end of the connection: the
    /// rightmost address in `X-Forwarded-For` (or `Forwarded`, RFC 7239) that is no trusted proxy. Entries to
    /// the left of it were written by the client and are not trusted. An entry without an address (`unknown`,
    /// `_hidden`) ends the search: the proxy that wrote it counts as the client.
    ///
    /// A proxy that writes one of the two headers forwards the other one as its client wrote it. So when both
    /// are present and disagree, neither is trusted.
    pub(crate) fn client_of_request(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.is_trusted(peer) {
            return peer.to_canonical();
        }
        let x_forwarded_for = headers.contains_key(X_FORWARDED_FOR).then(|| {
            let entries = elements(headers.get_all(X_FORWARDED_FOR).iter()).map(node_address).collect();
            self.rightmost_untrusted(peer, entries)
        });
        let forwarded = headers.contains_key(header::FORWARDED).then(|| {
            let entries = elements(headers.get_all(header::FORWARDED).iter()).map(forwarded_for).collect();
            self.rightmost_untrusted(peer, entries)
        });
        match (x_forwarded_for, forwarded) {
            (Some(one), Some(other)) if one != other => peer.to_canonical(),
            (Some(address), _) | (None, Some(address)) => address,
            (None, None) => peer.to_canonical(),
        }
    }

    fn rightmost_untrusted(&self, peer: IpAddr, entries: Vec<Option<IpAddr>>) -> IpAddr {
        let mut client = peer.to_canonical();
        for entry in entries.into_iter().rev() {
            let Some(address) = entry else { break };
            client = address;
            if !self.is_trusted(address) {
                break;
            }
        }
        client
    }
}

/// The elements of a list header, over all its lines. A line that is not text yields one empty element.
fn elements<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    lines.flat_map(|line| line.to_str().unwrap_or_default().split(','))
}

/// The `for` parameter of a `Forwarded` element.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| node_address(value.trim().trim_matches('"')))?
    })
}

/// Parses an address with or without a port; an IPv6 one with or without brackets.
fn node_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn addresses() -> ClientAddresses {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec();
        ClientAddresses { trusted_proxies, proxy_protocol: false, ipv6_prefix: 64 }
    }

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        addresses().client_of_request(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn headers_of_untrusted_peer_are_ignored() {
        let lines = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        assert_eq!(client("9.9.9.9", &lines), "9.9.9.9");
        assert_eq!(client("::ffff:9.9.9.9", &[]), "9.9.9.9");
    }

    #[test]
    fn rightmost_untrusted_address_is_the_client() {
        let forwarded = |value| client(PROXY, &[("x-forwarded-for", value)]);
        assert_eq!(forwarded("6.6.6.6, 1.2.3.4"), "1.2.3.4", "the left entry was written by the client");
        assert_eq!(forwarded("6.6.6.6, 1.2.3.4, 10.9.9.9"), "1.2.3.4");
        assert_eq!(forwarded("10.0.0.2,10.0.0.3"), "10.0.0.2", "all of them are proxies");
        assert_eq!(forwarded("1.2.3.4:5678"), "1.2.3.4");
        assert_eq!(forwarded("[2001:db8::1]:5678"), "2001:db8::1");
        assert_eq!(forwarded("2001:db8::1"), "2001:db8::1");
        let two_lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4, fd00::1")];
        assert_eq!(client("::ffff:10.0.0.1", &two_lines), "1.2.3.4");
    }

    #[test]
    fn entry_without_an_address_ends_the_search() {
        let forwarded = |value| client(PROXY, &[("x-forwarded-for", value)]);
        assert_eq!(forwarded("1.2.3.4, unknown"), PROXY);
        assert_eq!(forwarded("1.2.3.4, unknown, 10.0.0.2"), "10.0.0.2");
        assert_eq!(forwarded(""), PROXY);
    }

    #[test]
    fn forwarded_header_is_read_as_rfc_7239_writes_it() {
        let forwarded = |value| client(PROXY, &[("forwarded", value)]);
        assert_eq!(
            forwarded("for=6.6.6.6, For=\"[2001:db8:cafe::17]:4711\";proto=https"),
            "2001:db8:cafe::17"
        );
        assert_eq!(forwarded("proto=http;for=192.0.2.60;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(forwarded("for=1.2.3.4, for=_hidden"), PROXY);
        assert_eq!(forwarded("by=1.2.3.4"), PROXY);
    }

    #[test]
    fn headers_that_disagree_are_both_ignored() {
        let both = |one, other| client(PROXY, &[("x-forwarded-for", one), ("forwarded", other)]);
        assert_eq!(both("1.2.3.4", "for=6.6.6.6"), PROXY);
        assert_eq!(both("1.2.3.4", "for=1.2.3.4"), "1.2.3.4");
    }

    proptest! {
        #[test]
        fn any_header_leaves_an_address(value in "[ -~]{0,60}", name in prop::sample::select(vec!["forwarded", "x-forwarded-for"])) {
            let client = client(PROXY, &[(name, &value)]);
            prop_assert!(client.parse::<IpAddr>().is_ok());
        }
    }
}
