//! dcl-rpc: ports, modules, calls and streams of one connection, from both sides. Sans-IO.
//!
//! This is the server's side; the client's is [`client`]. A [`Connection`] takes in one binary
//! WebSocket message at a time ([`Connection::receive`]). What was asked comes out of
//! [`Connection::poll_event`], what has to be written out of [`Connection::poll_output`]; take all of
//! both before the next message goes in, and nothing grows. A call is answered once, by its number:
//! with [`Connection::respond`], with an error, or with a stream, whose elements go out one at a time,
//! each when the client wants it. What has to wait for that waits in a [`Backlog`].

mod backlog;
pub mod client;
mod connection;
mod frame;
mod module;

pub use backlog::{Backlog, BacklogFull, Element};
pub use connection::{Connection, Event, Limits, MessageKind};
pub use frame::{ErrorCode, Undecodable};
pub use module::{Module, Procedure};
