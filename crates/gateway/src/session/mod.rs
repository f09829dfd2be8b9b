//! Sessions: from the sign-in of a client until its socket closes.

pub(crate) mod connection;
pub(crate) mod driver;
pub(crate) mod handshake;
pub(crate) mod heartbeat_encoder;
pub(crate) mod live;
pub(crate) mod local;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod remote;
pub(crate) mod resumption;
pub(crate) mod resync;
pub(crate) mod state;
pub(crate) mod timers;
