//! The WebSocket of one client, for both dialects: rate-limited reads, writes with a timeout, and the closing
//! handshake.

use std::time::Duration;

use admission::Throttle;
use bytes::Bytes;
use protocol::Close;
use tokio::time::{self, Instant};
use ws::{FrameError, OpCode, ReadError, Received, WriteError, close_answer, close_frame};

use crate::{metrics, settings::Settings};

/// Timeout of the reply to a client's close frame.
const CLOSE_REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Upper bound of the time that a rejected client may take to read the close frame. The socket no longer
/// counts against the handshake limit, so it must not stay open for long.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The way a socket ends.
#[derive(Debug)]
pub(crate) enum SocketEnd {
    /// The connection is lost: no close frame can be sent.
    Disconnected,
    /// The client sent a close frame with this code, or without one.
    ByClient(Option<u16>),
    /// The server sends a close frame with this code and reason.
    ByServer(Close, String),
}

/// An end by the server with the default reason of its code.
pub(crate) fn server_close(close: Close) -> SocketEnd {
    SocketEnd::ByServer(close, close.reason().to_owned())
}

/// The socket of one client.
///
/// Every frame counts against the client's rate limit, from the first one on and with or without data, so
/// that no kind of frame bypasses it. The next frame is read when the limit allows it; until then TCP
/// backpressure stops the client.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    socket: ws::Socket<ws::Stream>,
    throttle: Throttle,
    /// Time at which the rate limit allows the next read, if that is not now.
    read_at: Option<Instant>,
    /// Time at which the last frame was read, or the last delay by the rate limit ended.
    last_active: Instant,
    write_timeout: Duration,
}

impl ClientSocket {
    pub(crate) fn new(stream: ws::Stream, settings: &Settings) -> Self {
        let now = Instant::now();
        Self {
            socket: ws::Socket::new(stream, protocol::MAX_MESSAGE_BYTES),
            throttle: Throttle::new(settings.messages_per_second, u32::MAX, now),
            read_at: None,
            last_active: now,
            write_timeout: settings.write_timeout,
        }
    }

    /// Reads the next frame once the rate limit allows it, and counts it. Cancel-safe, so that a session can
    /// send and run its timers while reads are delayed.
    pub(crate) async fn next(&mut self) -> Result<Received, SocketEnd> {
        if let Some(at) = self.read_at {
            if at > Instant::now() {
                // Boxed, so that the tasks of the many sessions that wait for a frame do not contain a timer.
                Box::pin(time::sleep_until(at)).await;
            }
            self.last_active = at;
            self.read_at = None;
        }
        let received = self.socket.next().await.map_err(read_error_end)?;
        self.last_active = Instant::now();
        self.read_at = self.throttle.charge(0, self.last_active);
        Ok(received)
    }

    /// The latest time at which the client counts as active: the last bytes or frames read, or the end of the
    /// delay while the rate limit delays the next read. Frames that wait unread do not make the client
    /// silent.
    pub(crate) fn active_until(&self) -> Instant {
        self.last_active.max(self.socket.last_read_at()).max(self.read_at.unwrap_or(self.last_active))
    }

    /// Processes a frame: answers a ping, and returns the message if the frame completes one. Not
    /// cancel-safe.
    pub(crate) async fn handle_frame(&mut self, received: Received) -> Result<Option<Bytes>, SocketEnd> {
        match received {
            Received::Binary(message) => Ok(Some(message)),
            Received::Fragment | Received::Pong => Ok(None),
            Received::Ping(payload) => self.write(OpCode::Pong, &payload).await.map(|()| None),
            Received::Text => Err(server_close(Close::TextFrame)),
            Received::Close(code) => Err(SocketEnd::ByClient(code)),
        }
    }

    /// Delays the next read until this time at least.
    pub(crate) fn delay_reads_until(&mut self, until: Option<Instant>) {
        self.read_at = self.read_at.max(until);
    }

    /// Refunds the last frame to the rate limit.
    pub(crate) fn refund(&mut self) {
        self.read_at = self.throttle.refund(0, Instant::now());
    }

    /// Writes a message. Ends with [`Close::TooSlow`] if the write exceeds the timeout.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), SocketEnd> {
        self.write(OpCode::Binary, message).await
    }

    /// Writes a ping, with the same timeout.
    pub(crate) async fn ping(&mut self) -> Result<(), SocketEnd> {
        self.write(OpCode::Ping, &[]).await
    }

    async fn write(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), SocketEnd> {
        match self.socket.send(opcode, payload, self.write_timeout).await {
            Ok(()) => Ok(()),
            Err(WriteError::Disconnected) => Err(SocketEnd::Disconnected),
            Err(WriteError::TooSlow) => Err(server_close(Close::TooSlow)),
        }
    }

    /// Sends the close frame and waits until the client has closed the connection, at most for the write
    /// timeout.
    pub(crate) async fn close(&mut self, ended: SocketEnd) {
        self.close_within(ended, self.write_timeout).await;
    }

    /// Like [`Self::close`] for a client that was not signed in, with a shorter timeout.
    pub(crate) async fn close_rejected(&mut self, ended: SocketEnd) {
        self.close_within(ended, self.write_timeout.min(REJECTION_TIMEOUT)).await;
    }

    async fn close_within(&mut self, ended: SocketEnd, timeout: Duration) {
        match ended {
            SocketEnd::Disconnected => {}
            SocketEnd::ByClient(code) => self.socket.close(&close_answer(code), CLOSE_REPLY_TIMEOUT).await,
            SocketEnd::ByServer(close, reason) => {
                tracing::debug!(code = close.code(), reason, "closed");
                metrics::closed(close).increment(1);
                self.socket.close(&close_frame(close.code(), &reason), timeout).await;
            }
        }
    }
}

/// The end that follows from a failed read.
fn read_error_end(error: ReadError) -> SocketEnd {
    match error {
        ReadError::Frame(FrameError::Protocol) => server_close(Close::ProtocolError),
        ReadError::Frame(error @ FrameError::InvalidUtf8) => {
            SocketEnd::ByServer(Close::Undecodable, error.to_string())
        }
        ReadError::Frame(FrameError::TooBig) => server_close(Close::TooBig),
        ReadError::Disconnected => SocketEnd::Disconnected,
    }
}

#[cfg(test)]
mod tests;
