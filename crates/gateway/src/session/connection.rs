//! The connection of one client: its socket and the state of its dialect.

use std::sync::Arc;

use protocol::Close;
use ws::Received;

use crate::{
    client_socket::{ClientSocket, SocketEnd, server_close},
    dialect::{Dialect, FrameCost},
};

/// The socket of one client with the state of its dialect.
pub(crate) struct Connection<D> {
    pub(crate) socket: ClientSocket,
    pub(crate) dialect: D,
    /// Counts the open socket: see [`Shared::sockets`](crate::shared::Shared).
    _open_socket: Arc<()>,
}

impl<D: Dialect> Connection<D> {
    /// The connection of a client that has not sent a message yet.
    pub(crate) fn new(socket: ClientSocket, dialect: D, open_socket: Arc<()>) -> Self {
        Self { socket, dialect, _open_socket: open_socket }
    }

    /// Processes a frame.
    pub(crate) async fn receive_frame(&mut self, received: Received) -> Result<(), SocketEnd> {
        let Some(message) = self.socket.handle_frame(received).await? else { return Ok(()) };
        match self.dialect.receive(message).map_err(server_close)? {
            FrameCost::Charged => {}
            FrameCost::Free => self.socket.refund(),
        }
        Ok(())
    }

    /// Rejects the sign-in. Returns the end of the socket, with the same reason.
    pub(crate) async fn reject(&mut self, close: Close, reason: String) -> SocketEnd {
        self.dialect.reject(&reason);
        match self.flush().await {
            Ok(()) => SocketEnd::ByServer(close, reason),
            Err(ended) => ended,
        }
    }

    /// Writes all output of the dialect.
    pub(crate) async fn flush(&mut self) -> Result<(), SocketEnd> {
        while let Some(message) = self.dialect.poll_output() {
            self.socket.send(&message).await?;
        }
        Ok(())
    }
}
