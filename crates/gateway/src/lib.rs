//! The gateway role (the BFF): signs clients in on the archipelago socket and over RPC, publishes their
//! heartbeats on the bus, and sends them the assignments of the director. It also serves `/about` and
//! logins to a fixed room.
//!
//! A session is one task. Other tasks send to it through the bounded queue of its `SessionRegistry` entry.
//! Each message that a session publishes on the bus carries its session id.

mod about;
mod bus_messages;
mod client_socket;
mod dialect;
mod director_status;
mod gateway;
mod livekit_proxy;
mod load_monitor;
mod login;
mod mesh;
mod metrics;
mod realm_services;
mod session;
mod settings;
mod shared;
mod topics;

pub use bus_messages::BusSubscriptions;
pub use gateway::Gateway;
pub use livekit_proxy::ProxiedServer;
pub use load_monitor::{LoadLimits, Sampler, Usage};
pub use login::{
    realm_check::{RealmCheck, RealmNames},
    state::FixedRoom,
};
pub use mesh::candidates::CandidatePolicy;
pub use metrics::describe_metrics;
pub use settings::{KeepSession, Realm, Settings};
