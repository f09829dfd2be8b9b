//! The signalling socket: protobuf messages over a WebSocket.

use std::{net::IpAddr, time::Duration};

use futures_util::{SinkExt, StreamExt, stream::SplitStream};
use livekit_protocol::{SignalRequest, SignalResponse, signal_request, signal_response};
use prost::Message as _;
use rustls::crypto::{CryptoProvider, ring};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{Error, Message, http::Response, protocol::WebSocketConfig},
};
use url::Url;

use super::error::JoinError;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open signalling socket. Dropping it closes the socket.
pub(crate) struct Signalling {
    reader: SplitStream<Socket>,
    requests: mpsc::Sender<signal_request::Message>,
    writer: JoinHandle<()>,
    /// The local address from which the server is reached.
    pub(crate) local_address: Option<IpAddr>,
}

/// Requests that wait to be written. When the queue is full, the server reads nothing, and the socket counts as
/// lost.
const REQUEST_QUEUE: usize = 256;
/// The most bytes of a message: a join response has some hundred bytes for each participant.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The longest time to write a request, or to close the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most characters of a refusal that are kept.
const MAX_REFUSAL_CHARS: usize = 200;

impl Signalling {
    /// Opens the socket. The caller limits the time.
    pub(crate) async fn connect(url: Url) -> Result<Self, JoinError> {
        let unreachable = |error: std::io::Error| JoinError::Unreachable(error.to_string());
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
        let local_address = stream.local_addr().ok().map(|address| address.ip());
        // Messages are small; Nagle's algorithm would delay them.
        stream.set_nodelay(true).map_err(unreachable)?;
        if url.scheme() == "wss" && CryptoProvider::get_default().is_none() {
            // Fails only if another thread has installed a provider at the same time.
            let _ = ring::default_provider().install_default();
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let (socket, _) = match client_async_tls_with_config(url.as_str(), stream, Some(config), None).await {
            Ok(connected) => connected,
            Err(Error::Http(response)) => return Err(refusal(&response)),
            Err(Error::Io(error)) => return Err(unreachable(error)),
            Err(error) => return Err(JoinError::Signalling(error.to_string())),
        };
        let (sink, reader) = socket.split();
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        let writer = tokio::spawn(write(sink, queue));
        Ok(Self { reader, requests, writer, local_address })
    }

    /// The next message of the server. An error is the end of the socket. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<signal_response::Message, JoinError> {
        loop {
            let bytes = match self.reader.next().await {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Close(_))) | None => {
                    return Err(JoinError::Signalling("the server closed the socket".to_owned()));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(JoinError::Signalling(error.to_string())),
            };
            let response = SignalResponse::decode(bytes)
                .map_err(|error| JoinError::Signalling(format!("undecodable message: {error}")))?;
            // Messages of later versions have no known content.
            if let Some(message) = response.message {
                return Ok(message);
            }
        }
    }

    /// Queues a request.
    pub(crate) fn send(&self, request: signal_request::Message) -> Result<(), JoinError> {
        let full = |_| JoinError::Signalling("the server reads nothing".to_owned());
        self.requests.try_send(request).map_err(full)
    }

    /// Closes the socket when the queued requests are written, or after five seconds.
    pub(crate) async fn close(self) {
        drop(self.requests);
        let _ = timeout(WRITE_TIMEOUT, self.writer).await;
    }
}

/// Writes requests until the queue ends, and then closes the socket.
async fn write(
    mut sink: impl SinkExt<Message, Error = Error> + Unpin,
    mut queue: mpsc::Receiver<signal_request::Message>,
) {
    while let Some(request) = queue.recv().await {
        let bytes = SignalRequest { message: Some(request) }.encode_to_vec();
        if !matches!(timeout(WRITE_TIMEOUT, sink.send(Message::Binary(bytes.into()))).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(WRITE_TIMEOUT, sink.close()).await;
}

fn refusal(response: &Response<Option<Vec<u8>>>) -> JoinError {
    let body = response.body().as_deref().unwrap_or_default();
    let message = String::from_utf8_lossy(body).trim().chars().take(MAX_REFUSAL_CHARS).collect();
    JoinError::Refused { status: response.status().as_u16(), message }
}
