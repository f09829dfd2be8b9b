//! The settings of each listener of the process.

use std::{net::IpAddr, time::Duration};

use ::listener::ClientAddresses;
use admission::ConnectionLimits;
use ipnet::IpNet;

use super::{
    Settings,
    roles::{limit, list},
    settings::Server,
};

/// File descriptors reserved for everything but client connections: the bus, other services, the
/// operator's listeners.
const RESERVED_FILES: u64 = 64;
/// The connection limit of an operator's listener.
const OPERATOR_CONNECTIONS: usize = 16;
/// The public listener serves at least so many connections, however low the limit of open files is.
const MIN_CONNECTIONS: usize = 16;

/// How the addresses of clients are determined. Adds problems to `problems`.
pub(super) fn client_addresses(server: &Server, problems: &mut Vec<String>) -> ClientAddresses {
    let mut trusted_proxies = Vec::new();
    for text in list(&server.trusted_proxies) {
        match text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?))) {
            Some(proxies) => trusted_proxies.push(proxies),
            None => problems.push(format!(
                "server.trusted_proxies = {text}: must be an IP address or a network such as 10.0.0.0/8"
            )),
        }
    }
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        let rule = "needs server.trusted_proxies: a header is accepted from those only";
        problems.push(format!("server.proxy_protocol = true: {rule}"));
    }
    if server.ipv6_prefix > 128 {
        problems.push(format!("server.ipv6_prefix = {}: must be 1 to 128", server.ipv6_prefix));
    }
    ClientAddresses {
        trusted_proxies,
        proxy_protocol: server.proxy_protocol,
        ipv6_prefix: server.ipv6_prefix,
    }
}

impl Settings {
    /// The settings of the public listener, in a process that may open so many files.
    pub(crate) fn public_listener(&self, addresses: ClientAddresses, files: u64) -> ::listener::Settings {
        let server = &self.server;
        let connections = ConnectionLimits {
            total: limit(server.max_connections).unwrap_or_else(|| max_connections(files)),
            per_network: limit(server.max_connections_per_network),
            rate: None,
        };
        self.listener("public", addresses, connections)
    }

    /// The settings of an operator's listener. Its connections do not compete with those of clients.
    pub(crate) fn operator_listener(&self, name: &'static str) -> ::listener::Settings {
        let connections = ConnectionLimits { total: OPERATOR_CONNECTIONS, per_network: None, rate: None };
        let ipv6_prefix = self.server.ipv6_prefix;
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
            head_timeout: Duration::from_secs(self.server.header_timeout_s),
            idle_timeout: Duration::from_secs(self.server.idle_timeout_s),
            write_timeout: Duration::from_secs(self.server.write_timeout_s),
            connections,
            addresses,
        }
    }
}

fn max_connections(files: u64) -> usize {
    usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX).max(MIN_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(trusted_proxies: &str, proxy_protocol: bool) -> Result<usize, Vec<String>> {
        let trusted_proxies = trusted_proxies.to_owned();
        let server = Server { trusted_proxies, proxy_protocol, ..Server::default() };
        let mut problems = Vec::new();
        let addresses = client_addresses(&server, &mut problems);
        if problems.is_empty() { Ok(addresses.trusted_proxies.len()) } else { Err(problems) }
    }

    #[test]
    fn trusted_proxies_are_addresses_or_networks() {
        assert_eq!(addresses("", false), Ok(0));
        assert_eq!(addresses("10.0.0.1, fd00::/8,192.168.0.0/16", true), Ok(3));
        let problems = addresses("10.0.0.0/33, proxy.example", false).unwrap_err();
        assert!(problems[0].starts_with("server.trusted_proxies = 10.0.0.0/33: "), "{problems:?}");
        assert_eq!(problems.len(), 2);
        let problems = addresses("", true).unwrap_err();
        assert!(problems[0].starts_with("server.proxy_protocol = true: needs "), "{problems:?}");
    }

    #[test]
    fn connection_limit_reserves_files() {
        assert_eq!([10, 100, 1_048_576].map(max_connections), [16, 36, 1_048_512]);
        let settings = Settings::default().public_listener(ClientAddresses::default(), 100);
        assert_eq!(settings.connections, ConnectionLimits { total: 36, per_network: None, rate: None });
    }
}
