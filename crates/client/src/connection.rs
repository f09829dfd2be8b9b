//! A WebSocket client connection that carries binary packets, for the sockets of gateways and rooms.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll, ready},
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

use crate::Disconnect;

/// A connection makes progress only in [`Connection::next_message`], which writes while it reads. So neither
/// side can block the other, and the end of the connection is always noticed.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Box<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    liveness_timeout: Duration,
    /// The time at which the next ping is due, or the connection is given up.
    liveness_deadline: Instant,
    /// The pings since the last message of the server.
    pings_sent: u32,
    /// Whether a ping must be sent.
    ping_due: bool,
    /// The time since which the server reads nothing, so that writes are blocked.
    blocked_since: Option<Instant>,
    /// The reason of the end, and the time until which the server may send a more precise one.
    disconnect: Option<(Disconnect, Instant)>,
}

/// The result of polling a connection.
enum IoEvent {
    /// The source of outgoing messages has ended, and all of them are sent.
    OutgoingEnded,
    NotSent(Error),
    Read(Option<Result<Message, Error>>),
}

/// The options of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectOptions {
    /// The timeout of the handshake.
    pub(crate) timeout: Duration,
    /// The local address to connect from; `None`: any.
    pub(crate) local_address: Option<IpAddr>,
    /// The time without any message of the server, pongs included, after which the connection is lost.
    pub(crate) liveness_timeout: Duration,
}

const READ_BUFFER_BYTES: usize = 4096;
/// The timeout of the close handshake.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of pings before the connection is given up: one after each third of the liveness timeout.
const MAX_PINGS: u32 = 2;

impl Connection {
    pub(crate) async fn open(
        url: &str,
        subprotocols: &'static str,
        options: ConnectOptions,
    ) -> Result<Self, Disconnect> {
        let mut request = url.into_client_request().map_err(Disconnect::broken)?;
        let offer = HeaderValue::from_static(subprotocols);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offer);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let connecting = async {
            let stream = connect(request.uri(), options.local_address).await?;
            // Packets are small; Nagle's algorithm would delay them.
            stream.set_nodelay(true)?;
            client_async_tls_with_config(request, stream, Some(config), None).await
        };
        if url.starts_with("wss:") {
            crate::tls::install_default_provider();
        }
        match timeout(options.timeout, connecting).await {
            Ok(Ok((stream, _))) => Ok(Self {
                socket: Box::new(stream),
                liveness_timeout: options.liveness_timeout,
                liveness_deadline: Instant::now() + options.liveness_timeout / (MAX_PINGS + 1),
                pings_sent: 0,
                ping_due: false,
                blocked_since: None,
                disconnect: None,
            }),
            Ok(Err(Error::Http(answer))) => Err(Disconnect::Refused {
                status: answer.status().as_u16(),
                retry_after: retry_after(answer.headers()),
            }),
            Ok(Err(error)) => Err(Disconnect::broken(error)),
            Err(_) => Err(Disconnect::broken("no connection in time")),
        }
    }

    /// The next message. Meanwhile the messages of `outgoing`, which is polled like a stream, are sent. When
    /// `outgoing` ends, the result is [`Disconnect::Left`]. Every other end is recorded, returned once
    /// its grace has passed (messages that arrived before it can still be read), and returned again by each later
    /// call; see `set_disconnect` for which of two ends counts. Cancel-safe.
    pub(crate) async fn next_message(
        &mut self,
        mut outgoing: impl FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>,
    ) -> Result<Bytes, Disconnect> {
        loop {
            if let Some((disconnect, until)) = &self.disconnect
                && Instant::now() >= *until
            {
                return Err(disconnect.clone());
            }
            let deadline = self.next_deadline();
            match timeout_at(deadline, poll_fn(|cx| self.poll(cx, &mut outgoing))).await {
                Ok(IoEvent::OutgoingEnded) => return Err(Disconnect::Left),
                Ok(IoEvent::NotSent(error)) => self.set_disconnect(Disconnect::broken(error), CLOSE_TIMEOUT),
                Ok(IoEvent::Read(Some(Ok(message)))) => {
                    (self.liveness_deadline, self.pings_sent) = (Instant::now() + self.ping_interval(), 0);
                    match message {
                        Message::Binary(bytes) => return Ok(bytes),
                        Message::Close(Some(frame)) => {
                            let (code, reason) = (frame.code.into(), frame.reason.as_str().to_owned());
                            // The next read sends the answer to the close frame.
                            self.set_disconnect(Disconnect::Closed { code, reason }, CLOSE_TIMEOUT);
                        }
                        _ => {}
                    }
                }
                Ok(IoEvent::Read(Some(Err(error)))) => {
                    self.set_disconnect(Disconnect::broken(error), Duration::ZERO)
                }
                Ok(IoEvent::Read(None)) => self
                    .set_disconnect(Disconnect::broken("the server closed the connection"), Duration::ZERO),
                Err(_) => self.on_deadline(),
            }
        }
    }

    /// The next packet, without sending any. Cancel-safe.
    pub(crate) async fn next<P: protocol::Message + Default>(&mut self) -> Result<P, Disconnect> {
        P::decode(self.next_message(|_| Poll::Pending).await?).map_err(Disconnect::broken)
    }

    /// Sends a packet, and returns the next one of the server.
    pub(crate) async fn request<P: protocol::Message + Default>(
        &mut self,
        packet: &impl protocol::Message,
    ) -> Result<P, Disconnect> {
        let mut bytes = Some(Bytes::from(packet.encode_to_vec()));
        let message = self.next_message(|_| available(bytes.take())).await?;
        P::decode(message).map_err(Disconnect::broken)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut impl FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>,
    ) -> Poll<IoEvent> {
        if self.disconnect.is_none()
            && let Poll::Ready(sent) = self.poll_send(cx, outgoing)
        {
            return Poll::Ready(sent.map_or_else(IoEvent::NotSent, |()| IoEvent::OutgoingEnded));
        }
        self.socket.poll_next_unpin(cx).map(IoEvent::Read)
    }

    /// Sends all available messages; ready when `outgoing` has ended.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut impl FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>,
    ) -> Poll<Result<(), Error>> {
        loop {
            let Poll::Ready(flushed) = self.socket.poll_flush_unpin(cx) else {
                self.blocked_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            flushed?;
            self.blocked_since = None;
            let message = match std::mem::take(&mut self.ping_due) {
                true => Message::Ping(Bytes::new()),
                false => match ready!(outgoing(cx)) {
                    Some(bytes) => Message::Binary(bytes),
                    None => return Poll::Ready(Ok(())),
                },
            };
            self.socket.start_send_unpin(message)?;
        }
    }

    /// Records the end of the connection. The first end counts, except that a close reason of the server replaces
    /// an I/O error, which is less precise.
    fn set_disconnect(&mut self, disconnect: Disconnect, grace: Duration) {
        let until = Instant::now() + grace;
        self.disconnect = Some(match self.disconnect.take() {
            Some((Disconnect::Broken(_), _)) if matches!(disconnect, Disconnect::Closed { .. }) => {
                (disconnect, until)
            }
            Some((first, before)) => (first, before.min(until)),
            None => (disconnect, until),
        });
    }

    /// The time at which [`Self::on_deadline`] must run if nothing happens before.
    fn next_deadline(&self) -> Instant {
        match (&self.disconnect, self.blocked_since) {
            (Some((_, until)), _) => *until,
            (None, Some(since)) => self.liveness_deadline.min(since + self.liveness_timeout),
            (None, None) => self.liveness_deadline,
        }
    }

    /// Handles a deadline: sends a ping, or gives the connection up.
    fn on_deadline(&mut self) {
        let now = Instant::now();
        let limit = self.liveness_timeout;
        if self.blocked_since.is_some_and(|since| now >= since + limit) {
            let error = format_args!("the server read nothing for {limit:?}");
            return self.set_disconnect(Disconnect::broken(error), Duration::ZERO);
        }
        if now < self.liveness_deadline {
            return;
        }
        if self.pings_sent == MAX_PINGS {
            let error = format_args!("received nothing for {limit:?}");
            return self.set_disconnect(Disconnect::broken(error), Duration::ZERO);
        }
        // Counted from now, even if this runs late: the server always has a third of the timeout to answer.
        (self.liveness_deadline, self.pings_sent, self.ping_due) =
            (now + self.ping_interval(), self.pings_sent + 1, true);
    }

    fn ping_interval(&self) -> Duration {
        self.liveness_timeout / (MAX_PINGS + 1)
    }

    /// Sends a close frame, and waits for the answer: for [`CLOSE_TIMEOUT`] at most.
    pub(crate) async fn close(mut self) {
        let closing = async {
            if self.socket.as_mut().close(None).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// The next message of a queue, for [`Connection::next_message`]. An empty queue is pending without a waker,
/// because each call of `next_message` polls it again.
pub(crate) fn available(queued: Option<Bytes>) -> Poll<Option<Bytes>> {
    queued.map_or(Poll::Pending, |bytes| Poll::Ready(Some(bytes)))
}

async fn connect(uri: &Uri, local_address: Option<IpAddr>) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let Some(local_address) = local_address else { return TcpStream::connect((host, port)).await };
    let mut last_error = io::Error::other("the server has no address of the kind of the local one");
    for remote in lookup_host((host, port)).await? {
        if remote.is_ipv4() != local_address.is_ipv4() {
            continue;
        }
        let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(local_address, 0))?;
        match socket.connect(remote).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// `Retry-After` in seconds. A date, which HTTP also allows, is ignored: the client waits for its own backoff
/// anyway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::sleep};
    use tokio_tungstenite::{
        accept_hdr_async,
        tungstenite::handshake::server::{Request, Response},
    };

    use super::*;

    #[tokio::test]
    // The error type of the handshake callback is defined by tungstenite.
    #[allow(clippy::result_large_err)]
    async fn server_may_answer_a_ping_that_was_sent_late() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let liveness_timeout = Duration::from_millis(900);
        let options =
            ConnectOptions { timeout: Duration::from_secs(20), local_address: None, liveness_timeout };
        let server = async {
            let agree = |_: &Request, mut response: Response| {
                response
                    .headers_mut()
                    .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("any"));
                Ok(response)
            };
            let mut socket = accept_hdr_async(listener.accept().await.unwrap().0, agree).await.unwrap();
            // The server sends nothing until the client pings, and then answers late.
            let ping = socket.next().await.unwrap().unwrap();
            assert!(ping.is_ping());
            sleep(liveness_timeout / 9).await;
            socket.send(Message::Binary("here".into())).await.unwrap();
            socket
        };
        let client = async {
            let mut connection = Connection::open(&url, "any", options).await.unwrap();
            // The client stalls for longer than its liveness timeout.
            sleep(liveness_timeout * 2).await;
            connection.next_message(|_| Poll::Pending).await
        };
        let (_socket, received) = tokio::join!(server, client);
        assert_eq!(received, Ok("here".into()));
    }
}
