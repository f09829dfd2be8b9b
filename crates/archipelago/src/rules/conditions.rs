//! The conditions of rules on numbers and on the time of day.

use std::fmt;

/// A range of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountRange {
    /// Least number.
    pub min: u32,
    /// Greatest number.
    pub max: u32,
}

/// A part of the day, in UTC. It may extend past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// First minute of the day inside, 0 to 1,439.
    pub from: u16,
    /// First minute outside, 0 to 1,440; less than `from` if the range extends past midnight.
    pub to: u16,
}

/// Minutes in a day.
pub(crate) const DAY_MINUTES: u16 = 24 * 60;

impl CountRange {
    /// Contains every number.
    pub const ANY: Self = Self { min: 0, max: u32::MAX };

    /// Whether `count` is in the range.
    pub fn contains(self, count: u32) -> bool {
        (self.min..=self.max).contains(&count)
    }
}

impl Hours {
    /// Whether a minute of the day, 0 to 1,439, is inside.
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl fmt::Display for CountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { min: 0, max: u32::MAX } => f.write_str("any number"),
            Self { min, max: u32::MAX } => write!(f, "at least {min}"),
            Self { min: 0, max } => write!(f, "at most {max}"),
            Self { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02} UTC", from / 60, from % 60, to / 60, to % 60)
    }
}
