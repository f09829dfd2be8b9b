//! The types of settings.
//!
//! A value that a type refuses is an error of the form `value: rule`, with one line for each bad part of a
//! list; the loader adds the key.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
    ops::Deref,
    str::FromStr,
    time::Duration,
};

use admission::Rate;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The type of a setting.
pub(super) trait SettingType {
    /// Whether values are hidden in messages.
    const IS_SECRET: bool = false;

    /// The number that a lower bound applies to.
    fn number(&self) -> u64 {
        0
    }
}

macro_rules! number_types {
    ($($type:ty),+) => {
        $(impl SettingType for $type {
            fn number(&self) -> u64 {
                *self as u64
            }
        })+
    };
}

number_types!(u8, u32, u64, usize);
impl SettingType for bool {}
impl SettingType for f32 {}
impl SettingType for String {}

/// A time in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Seconds(pub(super) u64);

impl Seconds {
    /// The whole seconds of a time.
    pub(super) const fn of(time: Duration) -> Self {
        Self(time.as_secs())
    }

    pub(crate) fn duration(self) -> Duration {
        // A century is practically unlimited, and does not overflow a clock.
        Duration::from_secs(self.0.min(100 * 366 * 24 * 60 * 60))
    }

    pub(super) fn millis(self) -> Millis {
        Millis(self.0.saturating_mul(1_000))
    }
}

impl SettingType for Seconds {
    fn number(&self) -> u64 {
        self.0
    }
}

/// A time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Millis(pub(super) u64);

impl Millis {
    /// The whole milliseconds of a time that fits.
    pub(super) const fn of(time: Duration) -> Self {
        Self(time.as_millis() as u64)
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl SettingType for Millis {
    fn number(&self) -> u64 {
        self.0
    }
}

/// A text that is printed as `(hidden)`, unless it is empty.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Secret(String);

/// The text that is printed instead of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

impl SettingType for Secret {
    const IS_SECRET: bool = true;
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "" } else { HIDDEN })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { HIDDEN })
    }
}

/// The parts of a comma-separated list.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// A rate; 0 means no limit.
pub(super) fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    (per_second > 0).then_some(Rate::per_second(per_second, burst))
}

/// A limit; 0 means no limit.
pub(super) fn limit<T: PartialOrd + Default>(limit: T) -> Option<T> {
    (limit > T::default()).then_some(limit)
}

/// A value and its text, which is printed as it was written.
#[derive(Debug, Clone, PartialEq)]
struct Written<T> {
    text: String,
    value: T,
}

impl<T> Written<T> {
    fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = parse(&text).map_err(D::Error::custom)?;
        Ok(Self { text, value })
    }
}

/// Parses a text, or returns it with the rule that it breaks.
fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|rule| format!("{text}: {rule}"))
}

/// Declares a type of values with a text.
macro_rules! written {
    ($(#[$comment:meta])+ $name:ident, $value:ty, $parse:expr) => {
        $(#[$comment])+
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name<T>(Written<$value>);

        impl<T> $name<T> {
            /// The value as it was written.
            pub(crate) fn text(&self) -> &str {
                &self.0.text
            }
        }

        impl<T> Deref for $name<T> {
            type Target = $value;

            fn deref(&self) -> &$value {
                &self.0.value
            }
        }

        impl<T> SettingType for $name<T> {}

        impl<T> Serialize for $name<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.text())
            }
        }

        impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Written::deserialize(deserializer, $parse).map(Self)
            }
        }
    };
}

written!(
    /// A value that is written as text.
    Text, T, |text| parse(text)
);
written!(
    /// A value that is written as text. Empty: none.
    Optional, Option<T>, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
);
written!(
    /// A list that is written as one text, with its parts separated by commas.
    CommaList, Vec<T>, |text| {
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for part in parts(text).map(parse) {
            match part {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(errors.join("\n")) }
    }
);

impl<T: Display> Text<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Written { text: value.to_string(), value })
    }
}

impl<T> Optional<T> {
    pub(super) fn none() -> Self {
        Self(Written { text: String::new(), value: None })
    }
}

impl<T: Display> Optional<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Written { text: value.to_string(), value: Some(value) })
    }
}

impl<T> CommaList<T> {
    pub(super) fn empty() -> Self {
        Self(Written { text: String::new(), value: Vec::new() })
    }
}

impl<T: Display> CommaList<T> {
    pub(super) fn new(values: impl IntoIterator<Item = T>) -> Self {
        let value: Vec<T> = values.into_iter().collect();
        let text = value.iter().map(T::to_string).collect::<Vec<_>>().join(",");
        Self(Written { text, value })
    }
}

/// A setting that is on or off, or `auto`: on if the process listens on a loopback address only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    Auto,
    Set(bool),
}

impl Switch {
    /// Whether it is on in a process that listens on a loopback address or not.
    pub(super) fn is_on(self, on_loopback: bool) -> bool {
        match self {
            Self::Auto => on_loopback,
            Self::Set(value) => value,
        }
    }
}

impl SettingType for Switch {}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Set(value) => serializer.serialize_bool(*value),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A flag in a file, or the text of an environment variable.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Flag(bool),
            Text(String),
        }
        let text = match Value::deserialize(deserializer)? {
            Value::Flag(value) => return Ok(Self::Set(value)),
            Value::Text(text) => text,
        };
        match &*text {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Set(true)),
            "false" => Ok(Self::Set(false)),
            _ => Err(D::Error::custom(format!("{text}: must be true, false or auto"))),
        }
    }
}

/// A type with a name for each value.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// The names and their values. An empty name represents an absent value.
    const CHOICES: &'static [(&'static str, Self)];
}

/// One of several values, which is written as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OneOf<T>(pub(crate) T);

impl<T> SettingType for OneOf<T> {}

impl<T: Choice> Serialize for OneOf<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let choice = T::CHOICES.iter().find(|(_, value)| *value == self.0);
        serializer.serialize_str(choice.map_or("", |(name, _)| name))
    }
}

impl<'de, T: Choice> Deserialize<'de> for OneOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let choice = T::CHOICES.iter().find(|(name, _)| *name == text);
        let refused = || D::Error::custom(format_args!("{text}: must be {}", Names::<T>(PhantomData)));
        choice.map(|(_, value)| Self(*value)).ok_or_else(refused)
    }
}

/// Prints the names of the choices: `one, two or three`.
struct Names<T>(PhantomData<T>);

impl<T: Choice> Display for Names<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = T::CHOICES.len() - 1;
        for (index, (name, _)) in T::CHOICES.iter().enumerate() {
            let separator = if index == 0 {
                ""
            } else if index == last {
                " or "
            } else {
                ", "
            };
            write!(f, "{separator}{}", if name.is_empty() { "empty" } else { name })?;
        }
        Ok(())
    }
}
