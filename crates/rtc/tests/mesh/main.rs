//! Peers of a mesh in one process, each test in a network namespace of its own. A [`hub::Hub`] forwards their signals
//! as the gateways do.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod forwarding;
mod hub;
mod interruptions;
mod limits;
mod links;
mod member;
mod turn;
