//! The sections of the configuration: [`section!`] declares one, with meaning, type, default and lower bound
//! of each setting in one place.

use super::{problems::Problems, values::SettingType};

/// One setting of a section.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its doc comment, with the line breaks of the source.
    #[cfg(test)]
    pub(super) meaning: &'static [&'static str],
    /// Its lower bound; 0: none.
    #[cfg(test)]
    pub(super) at_least: u64,
    /// Whether its value is hidden in messages.
    pub(super) is_secret: bool,
}

/// A section of the configuration. [`section!`] implements it.
pub(super) trait Section {
    /// Its settings, in the order in which they are printed.
    fn fields(&self) -> &'static [Field];

    /// The heading of the section in the reference documentation.
    #[cfg(test)]
    fn title(&self) -> &'static str;

    /// Reports the values below their lower bounds. `table` is the name of the section in keys.
    fn check_bounds(&self, table: &str, problems: &mut Problems);
}

/// Reports a value below its lower bound.
pub(super) fn check_bound(
    table: &str,
    name: &str,
    value: &impl SettingType,
    at_least: u64,
    problems: &mut Problems,
) {
    let value = value.number();
    let rule = format_args!("must be at least {at_least}");
    problems.check(value >= at_least, format_args!("{table}.{name}"), value, rule);
}

/// Declares a section: a struct with the heading of the section in the reference documentation as its doc
/// comment. The doc comment of a field is the meaning of the setting there, and `#[at_least(N)]` its lower bound. The
/// defaults have the syntax of RFC 3681, which is not stable yet.
macro_rules! section {
    (
        #[doc = $title:literal]
        pub(crate) struct $name:ident {
            $(
                $(#[doc = $meaning:literal])+
                $(#[at_least($at_least:literal)])?
                $field:ident: $type:ty = $default:expr,
            )+
        }
    ) => {
        #[doc = $title]
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub(crate) struct $name {
            $($(#[doc = $meaning])+ pub(crate) $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::section::Section for $name {
            fn fields(&self) -> &'static [$crate::config::section::Field] {
                const FIELDS: &[$crate::config::section::Field] = &[$($crate::config::section::Field {
                    name: stringify!($field),
                    #[cfg(test)]
                    meaning: &[$($meaning),+],
                    #[cfg(test)]
                    at_least: [$($at_least,)? 0][0],
                    is_secret: <$type as $crate::config::values::SettingType>::IS_SECRET,
                },)+];
                FIELDS
            }

            #[cfg(test)]
            fn title(&self) -> &'static str {
                $title
            }

            #[allow(unused_variables, reason = "a section may have no bounds")]
            fn check_bounds(&self, table: &str, problems: &mut $crate::config::problems::Problems) {
                $($($crate::config::section::check_bound(
                    table, stringify!($field), &self.$field, $at_least, problems,
                );)?)+
            }
        }
    };
}

pub(super) use section;
