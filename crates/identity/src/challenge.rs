//! The challenge that a server sends and a client signs to prove its wallet.

use std::fmt;

/// The text that a client signs to prove its wallet: `dcl-<host>-<random>`, or `dcl-<random>` if the
/// host is unknown; `<random>` is 32 hex digits.
///
/// Clients refuse to sign text that does not begin with `dcl-`, and one client fails on a `:`. The host
/// is that of the realm, so that a client can detect that another realm relays this realm's challenge.
/// A challenge belongs to one socket, is used once, and is discarded with the socket.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// Creates a challenge of the realm at `host`, a name or an address without a port. `random` must
    /// come from the random number generator of the operating system.
    ///
    /// Characters of the host other than ASCII letters, digits, `.` and `-` become `-`, such as the `:` of
    /// an IPv6 address. An empty host is omitted.
    pub fn new(host: &str, random: [u8; 16]) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let host: String = host.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
        let separator = if host.is_empty() { "" } else { "-" };
        Self(format!("dcl-{host}{separator}{}", hex::encode(random)))
    }

    /// The text to sign, byte for byte.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// A log must not contain the challenge.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenge(..)")
    }
}
