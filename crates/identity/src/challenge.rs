use std::fmt;

/// The text that a client signs to prove its wallet: `dcl-<host>-<random>`, or `dcl-<random>` where
/// no host is known; `<random>` is 32 hex digits.
///
/// Clients refuse to sign anything that does not begin with `dcl-`, and one of them breaks on a `:`.
/// The host is that of the realm, so that a client can notice that another realm relays the
/// challenge of this one. A challenge belongs to one socket, is used once, and dies with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// A challenge of the realm at `host`, which is a name or an address without a port. `random`
    /// must come from the operating system.
    ///
    /// Characters of the host other than letters, digits, `.` and `-` become `-`: the `:` of an IPv6
    /// address, for instance. An empty host is left out.
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

// Not to be found in a log.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenge(..)")
    }
}
