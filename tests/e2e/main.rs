//! End-to-end tests: the built binary, through its public interfaces, on real sockets.

// Test helpers fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod archipelago_workers;
mod attacks;
mod bad_input;
mod browser;
mod command_line;
mod contracts;
mod director_failover;
mod ethereum;
mod external_clustering;
mod failures;
mod gateways;
mod http;
mod inventory;
mod island_moves;
mod islands;
mod livekit;
mod livekit_rooms;
mod logs;
mod mesh;
mod mixed;
mod nat;
mod nats;
mod nats_cluster;
mod networks;
mod permissions;
mod presence;
mod realm;
mod resource_leaks;
mod roles;
mod rolling_restart;
mod room;
mod room_nodes;
mod rpc;
mod rules;
mod sdk;
mod session_takeover;
mod sessions;
