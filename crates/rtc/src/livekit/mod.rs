//! A participant of a LiveKit room that exchanges data only.
//!
//! # Delivery
//! - Reliable messages of one sender arrive in order and at most once. While the participant keeps its membership,
//!   which includes a resumed one ([`Event::Reconnected`] with `resumed`), none is lost, provided that the receiver
//!   reads its events: LiveKit drops messages for a reader that is too slow.
//! - After a full reconnect (`resumed` is false) the server knows the participant as a new one. Messages that
//!   others sent meanwhile are lost. Messages of this participant that the server had not acknowledged
//!   may be lost: their number is in `unconfirmed`. Messages in the send queue are sent then.
//! - Lossy messages may be lost, reordered by the network, and are not repeated. Above
//!   [`LOSSY_RELIABLE_BYTES`] they are sent in fragments, and one lost fragment loses the message.

mod closing;
mod error;
mod event;
mod leave_reason;
mod link;
mod options;
mod participant;
mod phase;
mod room_view;
mod roster;
mod sender;
mod session;
mod signal_url;
mod signalling;
mod task;
mod writer;

pub use error::{JoinError, SendError};
pub use event::{Data, Event, Member};
pub use leave_reason::LeaveReason;
pub use options::Options;
pub use participant::Participant;
pub use sender::{DataSender, LOSSY_RELIABLE_BYTES, MAX_PACKET_BYTES};
