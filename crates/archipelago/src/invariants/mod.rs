//! Invariants that hold after every flush, checked without the engine's own data structures.
//!
//! A [`Partition`] is the islands that the engine shows; [`Partition::check`] checks one by itself. An
//! [`InvariantChecker`] follows all inputs and outputs and compares the outputs with the partitions. Both
//! are simple rather than fast, so that they can be trusted; they are fast enough for simulations of
//! thousands of peers.

mod bounds;
mod checker;
mod history;
mod media;
mod partition;
mod violation;

pub use self::{
    bounds::{Bounds, PeerBounds, PerPeerBounds},
    checker::InvariantChecker,
    partition::{IslandMembers, Partition},
    violation::Violation,
};
