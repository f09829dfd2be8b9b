//! dcl-rpc: ports, modules, calls and streams of one connection, for servers and for clients. Sans-IO: the
//! caller owns the socket and the clock.
//!
//! This module is the server's side; the client's side is [`client`]. [`Connection::receive`] takes one
//! binary WebSocket message. [`Connection::poll_event`] returns the calls of the client, and
//! [`Connection::poll_output`] the messages to write. Poll both until they are empty before the next message
//! is received; then no queue grows beyond the limits.
//!
//! A call has a number and is answered once: with [`Connection::respond`], with an error, or with a stream. A
//! stream sends one element at a time, each after the client has requested it. Elements that are produced
//! earlier are kept in a [`Backlog`].
//!
//! ```
//! use rpc::{Connection, Event, Limits, Module, Procedure, client::{self, Caller}};
//!
//! #[derive(Debug, Clone, Copy)]
//! enum Call {
//!     Greet,
//! }
//! static PLAZA: Module<Call> =
//!     Module { name: "Plaza", procedures: &[Procedure { name: "Greet", id: Call::Greet }] };
//!
//! let mut server = Connection::new(Limits { ports: 1, calls: 8 }, [&PLAZA]);
//! let mut caller = Caller::new(8);
//! let number = caller.call("Plaza", "Greet", "hi".into())?;
//! // Binary WebSocket messages carry the bytes; here, each side receives them directly.
//! let event = loop {
//!     while let Some(bytes) = server.poll_output() {
//!         caller.receive(&bytes)?;
//!     }
//!     if let Some(event) = caller.poll_event() {
//!         break event;
//!     }
//!     while let Some(bytes) = caller.poll_output() {
//!         server.receive(&bytes)?;
//!     }
//!     while let Some(Event::Called { number, procedure: Call::Greet, payload }) = server.poll_event() {
//!         assert_eq!(payload, "hi");
//!         server.respond(number, "hello".into());
//!     }
//! };
//! assert_eq!(event, client::Event::Answered { number, payload: "hello".into() });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backlog;
pub mod client;
mod connection;
mod frame;
mod module;

pub use backlog::{Backlog, BacklogFull, Element};
pub use connection::{Connection, Event, Limits, MessageKind};
pub use frame::{ErrorCode, Undecodable};
pub use module::{Module, Procedure};
