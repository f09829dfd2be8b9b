//! From an assignment to a connection string, and back from the token in it.
//!
//! One module per kind of transport: [`ws_room`] for the room service of this project.

pub mod ws_room;
