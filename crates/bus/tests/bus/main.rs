//! The buses, as their users see them.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod cluster;
mod contract;
mod fencing;
mod lease;
mod metric;
mod nats;
mod reassembly;
mod server;
