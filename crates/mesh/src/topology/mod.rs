//! The target graph: which members should hold a link.

mod build;
mod exchange;
mod graph;
mod ground;

pub(crate) use build::repaired;
pub(crate) use exchange::{add_nearer, drop_farther, drop_surplus, nearer_pairs};
pub(crate) use graph::{Graph, Node};
pub(crate) use ground::{Ground, LinkBounds, max_depth};
