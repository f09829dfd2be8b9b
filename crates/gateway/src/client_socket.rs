//! A client's socket, whatever is spoken over it: paced reads, bounded writes, the closing handshake.

use std::time::Duration;

use admission::Throttle;
use bytes::Bytes;
use protocol::Close;
use tokio::time::{self, Instant};
use ws::{FrameError, OpCode, ReadError, Received, WriteError, close_answer, close_frame};

use crate::Settings;

/// How long the answer to a client's close frame may take.
const CLOSE_REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client that was not signed in may take to read why. Its handshake does not count any more,
/// so its socket must not stay.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How a socket ends.
#[derive(Debug)]
pub(crate) enum SocketEnd {
    /// The connection is gone: there is no close frame to send.
    Disconnected,
    /// The client sent a close frame with this code, or without one.
    ByClient(Option<u16>),
    /// The server sends a close frame with this code and reason.
    ByServer(Close, String),
}

impl From<(Close, String)> for SocketEnd {
    fn from((close, reason): (Close, String)) -> Self {
        Self::ByServer(close, reason)
    }
}

/// The end with the default reason of its code.
pub(crate) fn server_close(close: Close) -> SocketEnd {
    SocketEnd::ByServer(close, close.reason().to_owned())
}

/// The socket of one client.
///
/// Every frame that arrives counts against the client's pace, from the first one on and with or
/// without data, so that no kind of frame is a way around the pace. The next frame is read when the
/// pace allows it; until then the client's own connection fills up.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    socket: ws::Socket<ws::Stream>,
    throttle: Throttle,
    /// When the pace allows the next read, if that is not now.
    read_at: Option<Instant>,
    /// When the last frame was taken, or the last wait for the pace ended.
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

    /// Reads the next frame, not before the pace allows it, and counts it. Cancel-safe, so that
    /// a session sends and runs its timers while its client is paced.
    pub(crate) async fn next(&mut self) -> Result<Received, SocketEnd> {
        if let Some(at) = self.read_at {
            time::sleep_until(at).await;
            self.last_active = at;
            self.read_at = None;
        }
        let received = self.socket.next().await.map_err(read_error_end)?;
        self.last_active = Instant::now();
        self.read_at = self.throttle.charge(0, self.last_active);
        Ok(received)
    }

    /// Until when the client is known to be active: when bytes or frames were taken last, or, while the pace
    /// delays the next read, the end of that delay. What waits unread is not held against the client.
    pub(crate) fn active_until(&self) -> Instant {
        self.last_active.max(self.socket.last_read_at()).max(self.read_at.unwrap_or(self.last_active))
    }

    /// Answers a ping, and returns the message if the frame completes one. Not cancel-safe.
    pub(crate) async fn handle_frame(&mut self, received: Received) -> Result<Option<Bytes>, SocketEnd> {
        match received {
            Received::Binary(message) => Ok(Some(message)),
            Received::Fragment | Received::Pong => Ok(None),
            Received::Ping(payload) => self.write(OpCode::Pong, &payload).await.map(|()| None),
            Received::Text => Err(server_close(Close::TextFrame)),
            Received::Close(code) => Err(SocketEnd::ByClient(code)),
        }
    }

    /// Reads the next frame not before this time, either.
    pub(crate) fn delay_reads_until(&mut self, until: Option<Instant>) {
        self.read_at = self.read_at.max(until);
    }

    /// Takes the last frame back off the pace.
    pub(crate) fn refund(&mut self) {
        self.read_at = self.throttle.refund(0, Instant::now());
    }

    /// Writes a message, unless the client reads too slowly.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), SocketEnd> {
        self.write(OpCode::Binary, message).await
    }

    /// Writes a ping, unless the client reads too slowly.
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

    /// Sends the close frame, and waits until the client has closed the connection.
    pub(crate) async fn close(&mut self, ended: SocketEnd) {
        self.close_within(ended, self.write_timeout).await;
    }

    /// The same for a client that was not signed in.
    pub(crate) async fn close_rejected(&mut self, ended: SocketEnd) {
        self.close_within(ended, self.write_timeout.min(REJECTION_TIMEOUT)).await;
    }

    async fn close_within(&mut self, ended: SocketEnd, timeout: Duration) {
        match ended {
            SocketEnd::Disconnected => {}
            SocketEnd::ByClient(code) => self.socket.close(&close_answer(code), CLOSE_REPLY_TIMEOUT).await,
            SocketEnd::ByServer(close, reason) => {
                tracing::debug!(code = close.code(), reason, "closed");
                let counter =
                    metrics::counter!("atoll_gateway_closed_total", "code" => close.code().to_string());
                counter.increment(1);
                self.socket.close(&close_frame(close.code(), &reason), timeout).await;
            }
        }
    }
}

/// The end after a failed read.
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
