//! `POST /signed-login`: verifies a signed request and returns the connection string of the realm's fixed
//! room.

pub(crate) mod endpoint;
mod error;
pub(crate) mod realm_check;
mod replay_cache;
pub(crate) mod state;
