//! The gateway role (the BFF): signs clients in on the archipelago socket and over RPC, publishes their
//! heartbeats on the bus, and sends them the assignments of the director. It also serves `/about` and
//! logins to a fixed room.
//!
//! A session is one task. Other tasks send to it through the bounded queue of its `SessionRegistry` entry.
//! Each message that a session publishes on the bus carries its session id.

mod about;
mod archipelago_socket;
mod client_socket;
mod gateway;
mod handshake;
mod heartbeat_encoder;
mod load_monitor;
mod login;
mod realm_check;
mod realm_services;
mod remote_sessions;
mod replay_cache;
mod resumption;
mod rpc_socket;
mod session_registry;
mod session_state;
mod session_timers;
mod settings;
mod topics;

pub use gateway::{BusSubscriptions, Gateway};
pub use heartbeat_encoder::HeartbeatEncoder;
pub use load_monitor::{LoadLimits, Sampler, Usage};
pub use login::FixedRoom;
pub use realm_check::{RealmCheck, RealmNames};
pub use settings::{KeepSession, Realm, Settings};
