//! Participants on a real LiveKit server. Each test has a server and a network namespace of its own.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod delivery;
mod proxy;
mod reconnects;
mod refusals;
mod removals;
mod room;
