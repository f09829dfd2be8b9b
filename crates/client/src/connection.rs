//! A WebSocket that carries packets, for all sockets of an explorer.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderMap, HeaderValue, Uri, header},
        protocol::WebSocketConfig,
    },
};

use crate::Ended;

#[derive(Debug)]
pub(crate) struct Connection {
    socket: Box<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    silence: Duration,
    /// When anything last came.
    heard: Instant,
    /// How often a sign of life was asked for since then.
    asked: u32,
}

/// How a connection is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// How long it may take.
    pub(crate) deadline: Duration,
    /// The address of this machine that it comes from; `None`: any.
    pub(crate) local_address: Option<IpAddr>,
    /// For how long nothing may come, not even the answer to a ping.
    pub(crate) silence: Duration,
}

const READ_BUFFER_BYTES: usize = 4096;
const FAREWELL: Duration = Duration::from_secs(1);
/// Pings while nothing comes, one after each third of the time.
const PINGS: u32 = 2;

impl Connection {
    pub(crate) async fn open(url: &str, subprotocols: &'static str, opening: Opening) -> Result<Self, Ended> {
        let mut request = url.into_client_request().map_err(Ended::broken)?;
        let offer = HeaderValue::from_static(subprotocols);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offer);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let connecting = async {
            let stream = connect(request.uri(), opening.local_address).await?;
            // Packets are small, and none waits for another.
            stream.set_nodelay(true)?;
            client_async_tls_with_config(request, stream, Some(config), None).await
        };
        if url.starts_with("wss:") {
            crate::tls::install();
        }
        match timeout(opening.deadline, connecting).await {
            Ok(Ok((stream, _))) => Ok(Self {
                socket: Box::new(stream),
                silence: opening.silence,
                heard: Instant::now(),
                asked: 0,
            }),
            Ok(Err(Error::Http(answer))) => Err(Ended::Refused {
                status: answer.status().as_u16(),
                retry_after: retry_after(answer.headers()),
            }),
            Ok(Err(error)) => Err(Ended::broken(error)),
            Err(_) => Err(Ended::broken("no connection in time")),
        }
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn next_message(&mut self) -> Result<Bytes, Ended> {
        loop {
            let third = self.silence / (PINGS + 1);
            let received = timeout_at(self.heard + third * (self.asked + 1), self.socket.next()).await;
            let Ok(received) = received else {
                if self.asked == PINGS {
                    return Err(Ended::broken(format_args!("nothing came for {:?}", self.silence)));
                }
                self.asked += 1;
                // What cannot be sent is not answered either.
                let _ = timeout(third, self.socket.send(Message::Ping(Bytes::new()))).await;
                continue;
            };
            (self.heard, self.asked) = (Instant::now(), 0);
            match received {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let (code, reason) = (frame.code.into(), frame.reason.as_str().to_owned());
                    // The answer to the close goes out with the next read.
                    let _ = timeout(FAREWELL, self.socket.next()).await;
                    return Err(Ended::Closed { code, reason });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Ended::broken(error)),
                None => return Err(Ended::broken("the server is gone")),
            }
        }
    }

    /// The next packet. Cancel-safe.
    pub(crate) async fn next<P: protocol::Message + Default>(&mut self) -> Result<P, Ended> {
        P::decode(self.next_message().await?).map_err(Ended::broken)
    }

    pub(crate) async fn send(&mut self, packet: &impl protocol::Message) -> Result<(), Ended> {
        let bytes = Bytes::from(packet.encode_to_vec());
        self.socket.send(Message::Binary(bytes)).await.map_err(Ended::broken)
    }

    /// Sends messages until there are no more. Cancel-safe: what was taken is sent with the next.
    pub(crate) async fn send_all(&mut self, mut next: impl FnMut() -> Option<Bytes>) -> Result<(), Ended> {
        loop {
            poll_fn(|cx| self.socket.poll_ready_unpin(cx)).await.map_err(Ended::broken)?;
            let Some(bytes) = next() else { break };
            self.socket.start_send_unpin(Message::Binary(bytes)).map_err(Ended::broken)?;
        }
        self.socket.flush().await.map_err(Ended::broken)
    }

    /// Says goodbye, and waits a moment for the answer.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            if self.socket.as_mut().close(None).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(FAREWELL, goodbye).await;
    }
}

async fn connect(uri: &Uri, local_address: Option<IpAddr>) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let Some(local_address) = local_address else { return TcpStream::connect((host, port)).await };
    let mut failed = io::Error::other("the server has no address of the kind of the local one");
    for remote in lookup_host((host, port)).await? {
        if remote.is_ipv4() != local_address.is_ipv4() {
            continue;
        }
        let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(local_address, 0))?;
        match socket.connect(remote).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// `Retry-After` in seconds. Servers may give a date instead, which is taken for nothing: whoever
/// comes back does so after a pause anyway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
