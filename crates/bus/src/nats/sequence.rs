//! The numbers of messages and of their parts, by which readers restore the order of a publisher.

use std::fmt;

/// The largest number of parts of one message.
pub(super) const MAX_PARTS: u32 = 16_384;

/// The publisher of a message and its sequence number: `<publisher>.<number>`, 16 hex digits and a decimal.
/// The numbers of one publisher increase; foreign publishers need not send any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SequenceId {
    /// Drawn at random by each connection.
    pub(super) publisher: u64,
    pub(super) number: u64,
}

/// The number of a part, `<number>/<total>`, from 1 on. The parts of one message have consecutive sequence
/// numbers of their publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) total: u32,
}

impl SequenceId {
    /// Parses the form of the header; `None` if it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (publisher, number) = text.split_once('.')?;
        if publisher.len() != 16 || !publisher.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self { publisher: u64::from_str_radix(publisher, 16).ok()?, number: parse_decimal(number)? })
    }
}

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.publisher, self.number)
    }
}

impl Part {
    /// Parses the form of the header; `None` if it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, total) = text.split_once('/')?;
        let (number, total) = (parse_decimal(number)?, parse_decimal(total)?);
        let part = Self { number: number.try_into().ok()?, total: total.try_into().ok()? };
        (part.total <= MAX_PARTS && (1..=part.total).contains(&part.number)).then_some(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.total)
    }
}

/// Parses a decimal without a sign, which the standard library would accept.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}
