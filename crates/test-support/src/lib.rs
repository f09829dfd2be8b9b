//! For tests: real servers, realms of one process or many, clients of the wire protocol, golden files.
//!
//! Everything here panics on failure, with a text that shows the cause, and ends its processes when it is
//! dropped. Ports are free ones, so that tests run side by side.
//!
//! - [`NatsServer`], [`NatsCluster`]: nats-server, alone or three of them.
//! - [`LiveKitServer`]: livekit-server, on the loopback.
//! - [`TurnServer`]: turnserver of coturn.
//! - [`network_namespace`]: tests with a network of their own, which all tests of WebRTC need. [`Namespace`]: the networks
//!   of several machines in one of them. [`Nat`]: a host behind a NAT.
//! - [`golden`]: files with the public names of a build, and tables of docs/ that are generated from the code.
//! - [`workspace`]: the files of the workspace.
//!
//! With the feature `realm`:
//!
//! - `Realm`: one process of `atoll serve`; `Cluster`: one process for each role, over NATS.
//! - `test_realm`: a cluster under bots and observers, for tests of failures.
//! - `wire`, `rpc_caller`: clients of the gateway's two protocols, message by message.
//! - `BrowserPage`: a page in Chromium.
//! - `signed_login`: requests for the signed login.

// It is code of tests: see `allow-unwrap-in-tests` in clippy.toml.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "realm")]
mod bots;
#[cfg(feature = "realm")]
mod browser_page;
#[cfg(feature = "realm")]
mod cluster;
mod free_address;
pub mod golden;
mod livekit_server;
#[cfg(feature = "realm")]
pub mod measurement;
mod namespace;
mod nat;
mod nats_cluster;
mod nats_server;
pub mod network_namespace;
#[cfg(feature = "realm")]
pub mod observer;
#[cfg(feature = "realm")]
mod realm;
#[cfg(feature = "realm")]
pub mod rpc_caller;
#[cfg(feature = "realm")]
pub mod signed_login;
#[cfg(feature = "realm")]
pub mod test_realm;
mod turn_server;
#[cfg(feature = "realm")]
mod waiting;
#[cfg(feature = "realm")]
mod wallets;
#[cfg(feature = "realm")]
pub mod wire;
pub mod workspace;

#[cfg(feature = "realm")]
pub use bots::Bots;
#[cfg(feature = "realm")]
pub use browser_page::BrowserPage;
#[cfg(feature = "realm")]
pub use cluster::Cluster;
pub use free_address::free_address;
pub use livekit_server::{LiveKitOptions, LiveKitServer};
pub use namespace::Namespace;
pub use nat::{Nat, NatKind, connect_to_public};
pub use nats_cluster::NatsCluster;
pub use nats_server::NatsServer;
#[cfg(feature = "realm")]
pub use realm::{Realm, SECRET};
pub use turn_server::TurnServer;
#[cfg(feature = "realm")]
pub use waiting::{TEST_TIMEOUT, eventually, within};
#[cfg(feature = "realm")]
pub use wallets::wallet;
