//! Connection strings: minted from an assignment, and verified by the token in them.
//!
//! One module per kind of transport: [`ws_room`] for the room service of this project, [`livekit`] for
//! LiveKit servers, [`p2p`] for a mesh among the peers, [`external`] for other transports, described by a
//! template. [`Minter`] is any of them.

pub mod external;
pub mod livekit;
mod minter;
pub mod p2p;
pub mod ws_room;

pub use minter::{ConnectionRequest, MintError, Minter};
