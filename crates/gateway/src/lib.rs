//! The BFF: signs people in on the archipelago socket and over RPC, puts their heartbeats on the
//! bus, and hands them what the director says; `/about`; logins to a fixed room.
//!
//! A session is one task. What the rest of the process may say to it goes through a bounded
//! `sessions::Sessions` entry; what it says goes on the bus, stamped with its session id.

mod about;
mod bff;
mod elsewhere;
mod frames;
mod gateway;
mod handshake;
mod live;
mod load;
mod login;
mod realm_check;
mod replays;
mod report;
mod resume;
mod services;
mod sessions;
mod settings;
mod socket;
mod timers;
mod topics;

pub use gateway::{Gateway, Inbound};
pub use load::{LoadLimits, Sampler, Usage};
pub use login::FixedRoom;
pub use realm_check::{RealmCheck, RealmNames};
pub use report::Report;
pub use settings::{KeepSession, Realm, Settings};
