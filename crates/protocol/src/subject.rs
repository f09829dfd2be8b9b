//! The subjects of the bus, and the patterns with which services subscribe to them. No other crate spells a
//! subject.

mod definition;
mod matching;
mod scheme;

pub use definition::*;
pub use matching::matches;
pub use scheme::{SubjectScheme, SubjectSchemeError};
