//! Configuration: loads it, validates it as a whole, and converts it to each role's own settings types.
//!
//! One file for each section has its settings with meaning, default and bounds, the rules that they follow,
//! and their conversion. Rules about several sections are in `cross_checks`.

mod bus;
mod client;
mod cross_checks;
mod external;
mod gateway;
mod identity;
mod islands;
mod livekit;
mod load;
mod log;
mod p2p;
mod problems;
mod realm;
#[cfg(test)]
mod reference;
mod room_names;
mod rooms;
mod rules;
mod secrets;
mod section;
mod server;
mod settings;
mod stats;
#[cfg(test)]
mod testing;
mod urls;
mod values;

pub(crate) use load::{Configuration, Sources, environment, load};
pub(crate) use log::LogFormat;
pub(crate) use settings::Settings;
