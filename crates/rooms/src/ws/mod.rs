//! WebSocket (RFC 6455) on a raw stream.
//!
//! The room service writes one slab of encoded frames to many sockets with vectored writes, which
//! libraries that own the socket do not allow. So the framing is ours: the server's side, without
//! extensions.

mod frame;
mod handshake;
mod reader;

pub(crate) use frame::{OpCode, close_frame, put_frame, put_header};
pub(crate) use handshake::{Upgrade, upgrade};
pub(crate) use reader::{FrameReader, ReadError, Received};
