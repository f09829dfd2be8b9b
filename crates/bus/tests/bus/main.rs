//! Integration tests of the bus, through its public interface.

// Test helpers fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod cluster;
mod common;
mod contract;
mod fencing;
mod lease;
mod metric;
mod nats;
mod reassembly;
