//! Owner rules: which transports, media, island sizes and distances apply in which area.
//!
//! Rules are an ordered list; the first that matches an island decides. A rule matches by area, by the
//! number of members of the island, by the number of peers in the area and by the time of day, and names
//! transports in order of preference. The conditions on the place (area, time of day, number of peers in
//! the area) decide which peers may share an island; the number of members of an island does not, and
//! therefore distances cannot depend on it.
//!
//! [`Rules::parse`] reads them from TOML.

mod area;
mod area_grid;
mod conditions;
mod file;
mod parse;
mod rule;

pub(crate) use self::area_grid::AreaGrid;
pub use self::{
    area::{Area, Shape},
    conditions::{CountRange, Hours},
    parse::RulesError,
    rule::{DEFAULT_TRANSPORTS, Distances, MeshLimits, Rule, Rules, TransportChoice},
};
pub use crate::ids::AreaIndex;

#[cfg(test)]
mod tests;
