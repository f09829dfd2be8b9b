//! WebSocket (RFC 6455) for servers, without extensions: binary messages, control frames, closing.
//!
//! Common libraries hide frames that carry no data: they merge empty continuations and answer pings by
//! themselves, so the caller cannot charge a client for them. Here every frame that arrives is one
//! [`Received`] value, and the caller decides when the next one is read.
//!
//! [`Decoder`] has no I/O. [`FrameReader`] reads frames from a stream, for callers that write encoded frames
//! themselves; [`Socket`] reads and writes.

mod close;
mod decoder;
mod frame;
mod handshake;
mod keep_alive;
mod reader;
mod socket;
#[cfg(feature = "testing")]
pub mod testing;

pub use close::{NORMAL_CLOSURE, close_answer, close_frame};
pub use decoder::{Decoder, Received};
pub use frame::{FrameError, OpCode, put_frame, put_header};
pub use handshake::{PendingUpgrade, Stream, Upgrade, downcast, upgrade};
pub use keep_alive::{KeepAlive, Liveness};
pub use reader::{FrameReader, ReadError};
pub use socket::{Socket, WriteError};
