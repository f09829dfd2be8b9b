//! Meshes of simulated peers: text scenarios, and random steps with checks of the invariants.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod invariants;
mod random;
mod restores;
mod scenario;
mod world;
