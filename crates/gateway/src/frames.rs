//! What every kind of socket here does with its frames.

use std::{error::Error as _, time::Duration};

use axum::{
    Error,
    extract::ws::{CloseFrame, Message, WebSocket},
};
use bytes::Bytes;
use protocol::Close;
use tokio::time::{self, Instant, timeout};

use crate::gateway::Shared;

/// How long the answer to a client's goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the close frame says. `None`: there is nobody left to tell.
pub(crate) type End = Option<(Close, String)>;

/// The end with the reason that its code stands for.
pub(crate) fn end(close: Close) -> End {
    Some((close, close.reason().to_owned()))
}

/// Closes the socket, and reads on until the client has closed it too: a close with bytes unread
/// is a reset, and a reset can overtake the close frame. Whoever does not read it is not told.
pub(crate) async fn farewell(shared: &Shared, socket: &mut WebSocket, ended: End) {
    let Some((close, reason)) = ended else { return };
    tracing::debug!(code = close.code(), reason, "closed");
    metrics::counter!("atoll_gateway_closed_total", "code" => close.code().to_string()).increment(1);
    let goodbye = async {
        let frame = CloseFrame { code: close.code(), reason: reason.into() };
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = timeout(shared.settings.write_timeout, goodbye).await;
}

/// What came from a client.
pub(crate) enum Received {
    Message(Bytes),
    /// A pong, a ping (answered by the library): it lives.
    SignOfLife,
}

/// The next message, not before `from`.
pub(crate) async fn paced(socket: &mut WebSocket, from: Instant) -> Result<Received, End> {
    if from > Instant::now() {
        time::sleep_until(from).await;
    }
    next(socket).await
}

/// The next message. Cancel-safe.
pub(crate) async fn next(socket: &mut WebSocket) -> Result<Received, End> {
    match socket.recv().await {
        Some(Ok(Message::Binary(bytes))) => Ok(Received::Message(bytes)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Received::SignOfLife),
        Some(Ok(Message::Text(_))) => Err(end(Close::TextFrame)),
        Some(Ok(Message::Close(_))) => {
            // The library's answer goes out with the next read, which finds the end.
            let _ = timeout(GOODBYE, socket.recv()).await;
            Err(None)
        }
        None => Err(None),
        Some(Err(error)) => Err(read_end(&error)),
    }
}

/// What the close frame says after a failed read.
fn read_end(error: &Error) -> End {
    use tungstenite::Error::{Capacity, Protocol, Utf8};
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(Capacity(_)) => end(Close::TooBig),
        Some(Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => None,
        Some(Protocol(_) | Utf8(_)) => end(Close::ProtocolError),
        _ => None,
    }
}

/// Writes a message, unless the client does not read for too long.
pub(crate) async fn write(shared: &Shared, socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(shared.settings.write_timeout, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(end(Close::TooSlow)),
    }
}
