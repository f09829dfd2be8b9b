//! `[server]`: the roles of the process, and its listeners.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use ::listener::ClientAddresses;
use admission::ConnectionLimits;
use ipnet::IpNet;

use super::{
    problems::{Problems, quoted},
    section::section,
    urls::{PUBLIC_BASE_RULE, is_public_base},
    values::{CommaList, Optional, Seconds, Text, limit},
};
use crate::role::Role;

section! {
    /// `[server]`: roles and listeners of the process
    pub(crate) struct Server {
        /// Roles of this process. A process with only some of them needs `bus.url`, over which it reaches the
        /// others.
        roles: CommaList<Role> = CommaList::new(Role::ALL),
        /// Address and port to listen on; port 0 selects a free one.
        listen: Text<ListenAddress> = Text::new(ListenAddress(localhost(5000))),
        /// URL at which clients reach the process: `http://host:port` or `https://host`, with or without a
        /// path. Empty: derived from the listen address. Required when that is a wildcard address, except in
        /// a process with only the director, because no client connects to a director.
        public_url: String = String::new(),
        /// Address and port of the operator's listener (`atoll explain`, `atoll rules diff`). It must be a
        /// loopback address; port 0 selects a free one. Only a process with the director role opens it. If
        /// the default address is in use, the process logs a warning and runs without this listener; any
        /// other address in use is an error. Empty: no listener.
        admin: Optional<AdminAddress> = Optional::new(AdminAddress(localhost(5001))),
        /// Address and port for `/metrics` and `/rooms/status`, which then answer 404 at `listen`; port 0
        /// selects a free one. Any client that can reach the address can read both, so it belongs on an
        /// internal network. `/health/*` and `/status` answer at both addresses. Empty: all are served at
        /// `listen`.
        metrics_listen: Optional<MetricsAddress> = Optional::none(),
        /// Time limit for the arrival of a request head, counted from its first byte; for the first request
        /// of a connection, from the time the connection was accepted.
        #[at_least(1)]
        header_timeout_s: Seconds = Seconds(10),
        /// Time for which an HTTP connection may be idle between two requests. Keep it above the idle timeout
        /// of the load balancer, which is often 60 s: otherwise the load balancer sends a request on a
        /// connection that was just closed.
        #[at_least(1)]
        idle_timeout_s: Seconds = Seconds(75),
        /// A connection is closed when its client reads less than 1 KiB a second of a response for this time.
        #[at_least(1)]
        write_timeout_s: Seconds = Seconds(60),
        /// Maximum number of connections. When all are in use, the listener closes a connection that waits
        /// for its client (no request head yet, idle, or response not read): the oldest one of the network
        /// that holds most of these. It never closes a WebSocket or a connection with a request in progress
        /// for this reason. 0: the process's limit of open files, less 64, and at least 16.
        max_connections: usize = 0,
        /// Maximum number of connections of one network. Further ones are closed. Connections of trusted
        /// proxies count only towards `max_connections`. 0: no limit.
        max_connections_per_network: usize = 0,
        /// Addresses and networks (CIDR) of reverse proxies, separated by commas. For a request from one of
        /// them, the client is the rightmost address in `X-Forwarded-For` or `Forwarded` that is not a
        /// trusted proxy. If both headers are present and disagree, neither is used. The headers of all other
        /// connections are ignored.
        trusted_proxies: CommaList<Proxies> = CommaList::empty(),
        /// Whether connections of trusted proxies begin with a PROXY protocol header, version 1 or 2. A
        /// trusted connection without one is closed. On any other connection such a header is refused. It
        /// needs `trusted_proxies`.
        proxy_protocol: bool = false,
        /// Number of bits of an IPv6 address that identify one network, for all limits per network; at most 128.
        /// An IPv4 address is a network of its own.
        #[at_least(1)]
        ipv6_prefix: u8 = 64,
        /// Time for which a shutdown waits for sockets to close.
        drain_timeout_s: Seconds = Seconds(10),
    }
}

impl Server {
    pub(super) fn validate(&self, problems: &mut Problems) {
        problems.check(!self.roles.is_empty(), "server.roles", "\"\"", "must name at least one role");
        let url = &self.public_url;
        if url.is_empty() {
            // No client is sent to a director.
            let wildcard = self.listen.0.ip().is_unspecified() && self.roles() != [Role::Director];
            let rule = "must be set when server.listen is a wildcard, because clients are sent this URL";
            problems.check(!wildcard, "server.public_url", "\"\"", rule);
        } else {
            problems.check(is_public_base(url), "server.public_url", quoted(url), PUBLIC_BASE_RULE);
        }
        let trusted = !self.proxy_protocol || !self.trusted_proxies.is_empty();
        let rule = "needs server.trusted_proxies: a header is accepted from those only";
        problems.check(trusted, "server.proxy_protocol", true, rule);
        problems.check(self.ipv6_prefix <= 128, "server.ipv6_prefix", self.ipv6_prefix, "must be 1 to 128");
    }

    /// The roles of this process, each once, in the order of [`Role::ALL`].
    pub(crate) fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.roles.contains(role)).collect()
    }

    /// How the addresses of clients are determined.
    fn client_addresses(&self) -> ClientAddresses {
        ClientAddresses {
            trusted_proxies: self.trusted_proxies.iter().map(|proxies| proxies.0).collect(),
            proxy_protocol: self.proxy_protocol,
            ipv6_prefix: self.ipv6_prefix,
        }
    }

    /// The settings of the public listener, in a process that may open so many files.
    pub(crate) fn public_listener(&self, files: u64) -> ::listener::Settings {
        let connections = ConnectionLimits {
            total: limit(self.max_connections).unwrap_or_else(|| max_connections(files)),
            per_network: limit(self.max_connections_per_network),
            rate: None,
        };
        self.listener("public", self.client_addresses(), connections)
    }

    /// The settings of an operator's listener. Its connections do not compete with those of clients.
    pub(crate) fn operator_listener(&self, name: &'static str) -> ::listener::Settings {
        let connections = ConnectionLimits { total: OPERATOR_CONNECTIONS, per_network: None, rate: None };
        let ipv6_prefix = self.ipv6_prefix;
        self.listener(name, ClientAddresses { ipv6_prefix, ..ClientAddresses::default() }, connections)
    }

    fn listener(
        &self,
        name: &'static str,
        addresses: ClientAddresses,
        connections: ConnectionLimits,
    ) -> ::listener::Settings {
        ::listener::Settings {
            name,
            head_timeout: self.header_timeout_s.duration(),
            idle_timeout: self.idle_timeout_s.duration(),
            write_timeout: self.write_timeout_s.duration(),
            connections,
            addresses,
        }
    }
}

/// File descriptors reserved for everything but client connections: the bus, other services, the
/// operator's listeners.
const RESERVED_FILES: u64 = 64;
/// The connection limit of an operator's listener.
const OPERATOR_CONNECTIONS: usize = 16;
/// The public listener serves at least so many connections, however low the limit of open files is.
const MIN_CONNECTIONS: usize = 16;

fn max_connections(files: u64) -> usize {
    usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX).max(MIN_CONNECTIONS)
}

/// Declares a socket address with the rule that it follows.
macro_rules! address {
    ($(#[$comment:meta])+ $name:ident, $accepts:expr, $rule:literal) => {
        $(#[$comment])+
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(crate) struct $name(pub(crate) SocketAddr);

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, &'static str> {
                text.parse().ok().filter($accepts).map(Self).ok_or($rule)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address!(
    /// The address of the public listener.
    ListenAddress,
    |_| true,
    "must be an IP address and a port"
);
address!(
    /// The address of the operators' listener.
    AdminAddress,
    |address: &SocketAddr| address.ip().is_loopback(),
    "must be a loopback address and a port, such as 127.0.0.1:5001, or empty"
);
address!(
    /// The address of the metrics listener.
    MetricsAddress,
    |_| true,
    "must be an IP address and a port, or empty"
);

const fn localhost(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The addresses of trusted proxies: one address, or a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proxies(IpNet);

impl FromStr for Proxies {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let network = text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
        network.map(Self).ok_or("must be an IP address or a network such as 10.0.0.0/8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{problems, settings};

    #[test]
    fn trusted_proxies_are_addresses_or_networks() {
        let proxies = |toml: &str| settings(toml).server.client_addresses().trusted_proxies.len();
        assert_eq!(proxies(""), 0);
        let several = "trusted_proxies = \"10.0.0.1, fd00::/8,192.168.0.0/16\"\nproxy_protocol = true";
        assert_eq!(proxies(&format!("[server]\n{several}")), 3);
        let bad = problems("[server]\ntrusted_proxies = \"10.0.0.0/33, proxy.example\"");
        assert!(bad[0].starts_with("server.trusted_proxies = 10.0.0.0/33: "), "{bad:?}");
        assert_eq!(bad.len(), 2, "{bad:?}");
        let alone = problems("[server]\nproxy_protocol = true");
        assert!(alone[0].starts_with("server.proxy_protocol = true: needs "), "{alone:?}");
    }

    #[test]
    fn connection_limit_reserves_files() {
        assert_eq!([10, 100, 1_048_576].map(max_connections), [16, 36, 1_048_512]);
        let settings = Server::default().public_listener(100);
        assert_eq!(settings.connections, ConnectionLimits { total: 36, per_network: None, rate: None });
    }

    #[test]
    fn wildcard_address_needs_a_public_url() {
        let problems = problems("[server]\nlisten = \"0.0.0.0:5000\"");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("server.public_url"), "{problems:?}");
    }

    #[test]
    fn metrics_listen_without_port_is_refused() {
        let problems = problems("[server]\nmetrics_listen = \"127.0.0.1\"");
        assert_eq!(
            problems,
            ["server.metrics_listen = 127.0.0.1: must be an IP address and a port, or empty"]
        );
    }
}
