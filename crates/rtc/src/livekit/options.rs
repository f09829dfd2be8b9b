//! The options of a participant.

use std::{fmt, net::SocketAddr, time::Duration};

/// The server to join, and how.
#[derive(Clone)]
pub struct Options {
    /// The URL of the server: `ws://`, `wss://`, `http://` or `https://`, with a path prefix if the server is behind
    /// one.
    pub url: String,
    /// The token, which determines the room and the identity.
    pub token: String,
    /// The local UDP addresses of the WebRTC connections; port 0 is any free port, a wildcard address means all
    /// addresses of the machine except the loopback. Empty: the wildcard of both families that the machine has, or
    /// the loopback if the server is reached over it.
    pub udp_addresses: Vec<SocketAddr>,
    /// The time from the start of a join until the data channels are open.
    pub join_timeout: Duration,
    /// The time for which the participant tries to restore a lost connection. Zero: it leaves instead.
    pub reconnect_timeout: Duration,
}

impl Options {
    /// The default options for a server and a token.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: token.into(),
            udp_addresses: Vec::new(),
            join_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(20),
        }
    }
}

/// Without the token, which is a secret.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, udp_addresses, join_timeout, reconnect_timeout, .. } = self;
        f.debug_struct("Options")
            .field("url", url)
            .field("udp_addresses", udp_addresses)
            .field("join_timeout", join_timeout)
            .field("reconnect_timeout", reconnect_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_token() {
        let text = format!("{:?}", Options::new("wss://host", "secret-token"));
        assert!(text.contains("wss://host") && !text.contains("secret-token"), "{text}");
    }
}
