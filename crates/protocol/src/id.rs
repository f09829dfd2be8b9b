//! Identifiers: wallet addresses, session ULIDs, resumption hashes, and the ids that are segments of a bus
//! subject.

use std::{fmt, str::FromStr, sync::Arc};

use ulid::Ulid;

/// A wallet's Ethereum address, which is also the id of its peer: 20 bytes, printed as `0x` and 40 lower-case
/// hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

/// The error of parsing an [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address is 0x and 40 hex digits")]
pub struct AddressError;

impl Address {
    /// The address with these bytes.
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; 42];
        text[1] = b'x';
        // Encoding fails only if the buffer is not twice as long as the input: it is 40 digits for 20 bytes.
        let _ = hex::encode_to_slice(self.0, &mut text[2..]);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix("0x").ok_or(AddressError)?;
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| AddressError)?;
        Ok(Self(bytes))
    }
}

/// The hash of a resumption secret: 16 bytes, printed as 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResumeHash([u8; 16]);

/// The error of parsing a [`ResumeHash`], or of converting bytes to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hash of a resumption secret is 16 bytes, as text 32 hex digits")]
pub struct ResumeHashError;

impl ResumeHash {
    /// The hash with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TryFrom<&[u8]> for ResumeHash {
    type Error = ResumeHashError;

    fn try_from(bytes: &[u8]) -> Result<Self, ResumeHashError> {
        bytes.try_into().map(Self).map_err(|_| ResumeHashError)
    }
}

impl fmt::Display for ResumeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl FromStr for ResumeHash {
    type Err = ResumeHashError;

    fn from_str(text: &str) -> Result<Self, ResumeHashError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ResumeHashError)?;
        Ok(Self(bytes))
    }
}

/// The error of parsing an id: the text cannot be one token (segment) of a bus subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {max} characters of A-Z, a-z, 0-9, '-' and '_'", max = MAX_TOKEN_CHARS)]
pub struct TokenError;

const MAX_TOKEN_CHARS: usize = 64;

/// Checks that a text is one segment of a subject. It never holds a `.`, `*`, `>`, white space or control
/// character, so an id from the network cannot alter the subject that it is put into.
fn checked_token(text: &str) -> Result<Arc<str>, TokenError> {
    let fits = (1..=MAX_TOKEN_CHARS).contains(&text.len());
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits && plain { Ok(text.into()) } else { Err(TokenError) }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = TokenError;

            fn from_str(text: &str) -> Result<Self, TokenError> {
                checked_token(text).map(Self)
            }
        }
    };
}

token! {
    /// The id of an island, which is also the name of its room. Never reused. Cheap to clone.
    IslandId
}
token! {
    /// The name of a node, which hosts rooms. Cheap to clone.
    NodeName
}

/// The id of a session, made at sign-in. If a wallet has two sessions, the one with the greater id replaces the other in
/// every component. Printed as a ULID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// The id of a session that began `unix_ms` milliseconds after the Unix epoch. `random` (its low 80 bits)
    /// distinguishes sessions of the same millisecond.
    pub const fn new(unix_ms: u64, random: u128) -> Self {
        Self(Ulid::from_parts(unix_ms, random).0)
    }

    /// When the session began, in milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        Ulid(self.0).timestamp_ms()
    }

    /// The smallest id that is greater than this one; the greatest id returns itself.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl From<Ulid> for SessionId {
    fn from(ulid: Ulid) -> Self {
        Self(ulid.0)
    }
}

/// Mints ULIDs. Each is greater than all that this clock minted or observed before, even if the system clock
/// is set back.
#[derive(Debug, Clone, Copy, Default)]
pub struct UlidClock(u128);

impl UlidClock {
    /// Mints the next ULID. It has the time `unix_ms` if the result is greater than all before, and is the
    /// previous maximum plus one otherwise. `random` gives the low 80 bits in the first case.
    pub fn mint(&mut self, unix_ms: u64, random: u128) -> Ulid {
        self.0 = Ulid::from_parts(unix_ms, random).0.max(self.0.saturating_add(1));
        Ulid(self.0)
    }

    /// Makes every later ULID greater than this session.
    pub fn observe(&mut self, session: SessionId) {
        self.0 = self.0.max(session.0);
    }

    /// The greatest ULID minted or observed so far; zero before the first.
    pub fn latest(&self) -> Ulid {
        Ulid(self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ulid(self.0), f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(|ulid| Self(ulid.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_printed_in_lower_case() {
        let address: Address = "0xAbCdEf0123456789aBcDeF0123456789ABCDEF01".parse().unwrap();
        assert_eq!(address.to_string(), "0xabcdef0123456789abcdef0123456789abcdef01");
    }

    #[test]
    fn malformed_address_is_rejected() {
        for text in [
            "",
            "0x",
            "abcdef0123456789abcdef0123456789abcdef01",
            "0xabc",
            "0xzzcdef0123456789abcdef0123456789abcdef01",
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }

    #[test]
    fn resume_hash_text_and_bytes_round_trip() {
        let hash = ResumeHash::new([0xab; 16]);
        assert_eq!(hash.to_string(), "ab".repeat(16));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(ResumeHash::try_from(&hash.as_bytes()[..]), Ok(hash));
        assert_eq!("ab".repeat(15).parse::<ResumeHash>(), Err(ResumeHashError));
        assert_eq!(ResumeHash::try_from(&[0; 15][..]), Err(ResumeHashError));
    }

    #[test]
    fn id_that_would_alter_a_subject_is_rejected() {
        for text in ["", "a.b", "*", ">", "a b", "a\r\nPUB x", "é", &"x".repeat(65)] {
            assert_eq!(text.parse::<IslandId>(), Err(TokenError), "{text:?}");
        }
        assert_eq!("I0mabc12z".parse::<IslandId>().unwrap().as_str(), "I0mabc12z");
    }

    #[test]
    fn ulids_increase_even_if_the_clock_goes_back() {
        let mut clock = UlidClock::default();
        let first = clock.mint(1_000, 9);
        let second = clock.mint(999, 1);
        clock.observe(SessionId::new(2_000, 5));
        let third = clock.mint(1_500, 1);
        assert!(first < second && SessionId::from(second) < SessionId::new(2_000, 5));
        assert!(SessionId::new(2_000, 5) < SessionId::from(third) && third == clock.latest());
    }

    #[test]
    fn sessions_order_by_time_and_print_as_ulids() {
        let early = SessionId::new(1_000, 7);
        let late = SessionId::new(1_001, 3);
        assert!(early < late);
        assert_eq!(late.to_string().parse::<SessionId>().unwrap(), late);
        assert_eq!(late.to_string().len(), 26);
        assert_eq!(late.unix_ms(), 1_001);
    }
}
