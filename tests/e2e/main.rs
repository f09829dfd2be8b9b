//! End to end: the built binary, through its front door, on real sockets.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod attacks;
mod bad_input;
mod cluster;
mod command_line;
mod contracts;
mod ethereum;
mod failures;
mod foreign;
mod front;
mod gateways;
mod given;
mod http;
mod islands;
mod leftovers;
mod logs;
mod moves;
mod nats;
mod nats_cluster;
mod networks;
mod nodes;
mod permissions;
mod presence;
mod realm;
mod roles;
mod rolling;
mod room;
mod rpc;
mod rules;
mod sdk;
// The tests of the bus do more with it.
#[allow(dead_code)]
#[path = "../../crates/bus/tests/bus/server.rs"]
mod server;
mod sessions;
mod standby;
mod takeover;
mod wire;
