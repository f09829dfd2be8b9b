use std::fmt;

/// What a client signs to prove its wallet: `dcl-` and 32 hex digits.
///
/// Clients refuse to sign anything that does not begin with `dcl-`, and one of them breaks on a
/// `:` in it. A challenge belongs to one socket, is used once, and dies with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// A challenge of 128 bits, which must come from the operating system's randomness.
    pub fn new(random: [u8; 16]) -> Self {
        Self(format!("dcl-{}", hex::encode(random)))
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
