//! A raw client for tests: it can send frames that no WebSocket library sends. Behind the feature `testing`.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

/// The first byte of an unfragmented binary frame.
pub const BINARY: u8 = 0x82;
/// The first byte of a binary frame that is followed by more fragments.
pub const FIRST_FRAGMENT: u8 = 0x02;
/// The first byte of a fragment in the middle of a message.
pub const FRAGMENT: u8 = 0x00;
/// The first byte of the last fragment of a message.
pub const LAST_FRAGMENT: u8 = 0x80;
/// The first byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// The first byte of a ping.
pub const PING: u8 = 0x89;
/// The first byte of a pong.
pub const PONG: u8 = 0x8a;

/// Frames of a flood: 50 s at [`PER_SECOND`], minus a burst of one second that the server reads at once.
pub const FLOOD: usize = 1_000;
/// Messages a second that a server under test allows a client.
pub const PER_SECOND: usize = 20;

/// Encodes a masked client frame.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0xa5, 0x0f, 0x33, 0xc1];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client on a byte stream. It panics when the server does anything unexpected.
#[derive(Debug)]
pub struct RawClient<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    /// Opens a WebSocket at `path` with HTTP/1.1 on `stream`.
    pub async fn open(mut stream: S, path: &str) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a response"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    /// Sends one frame.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.0.write_all(&client_frame(first, payload)).await.expect("a connection");
    }

    /// Sends `count` equal frames in one write.
    pub async fn flood(&mut self, first: u8, payload: &[u8], count: usize) {
        let frames = client_frame(first, payload).repeat(count);
        self.0.write_all(&frames).await.expect("a connection");
    }

    /// Receives the next frame: its first byte and its payload; `None` at the end of the stream.
    pub async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let length = match self.0.read_u8().await.ok()? {
            126 => usize::from(self.0.read_u16().await.ok()?),
            127 => self.0.read_u64().await.ok()? as usize,
            short @ ..126 => usize::from(short),
            _ => panic!("the frames of a server are not masked"),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// Receives frames until one begins with `first`, and returns its payload.
    pub async fn receive_until(&mut self, first: u8) -> Vec<u8> {
        loop {
            match self.receive().await {
                Some((got, payload)) if got == first => return payload,
                Some(_) => {}
                None => panic!("the stream ended before a frame that begins with {first:#x}"),
            }
        }
    }

    /// Asserts that the next frame begins with `first` and arrives `seconds` after `began`. Returns its
    /// payload.
    pub async fn receive_after(&mut self, first: u8, began: Instant, seconds: u64) -> Vec<u8> {
        let (got, payload) = self.receive().await.expect("a frame");
        assert_eq!((got, began.elapsed().as_secs()), (first, seconds));
        payload
    }

    /// Sends [`FLOOD`] equal frames and measures how long the server takes to read them.
    pub async fn time_to_read(&mut self, first: u8, payload: &[u8]) -> Duration {
        let began = Instant::now();
        self.flood(first, payload, FLOOD).await;
        self.send(PING, b"last").await;
        while self.receive_until(PONG).await != b"last" {}
        began.elapsed()
    }

    /// Asserts that a server with a ping interval of 10 s pings this client while it is silent, restarts the
    /// count after the client's pong, and closes the connection after two unanswered pings. Returns the
    /// payload of the close frame.
    pub async fn receive_pings_and_close(&mut self) -> Vec<u8> {
        let began = Instant::now();
        self.receive_after(PING, began, 10).await;
        self.receive_after(PING, began, 20).await;
        self.send(PONG, b"").await;
        for seconds in [30, 40] {
            self.receive_after(PING, began, seconds).await;
        }
        self.receive_after(CLOSE, began, 50).await
    }
}

/// Asserts that the server replies to a close frame with the client's code, or with the code of the error in its payload
/// (RFC 6455, 5.5.1 and 7.4).
pub async fn assert_close_replies<S>(connect: impl AsyncFn() -> RawClient<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for (sent, replied) in [
        (&b"\x03\xe9away"[..], 1001u16),
        (b"\x13\x87", 4999),
        (b"", 1000),
        (b"\x03", 1002),
        (b"\x03\xed", 1002),
        (b"\x03\xe8\xff", 1007),
    ] {
        let mut client = connect().await;
        client.send(CLOSE, sent).await;
        let close = client.receive_until(CLOSE).await;
        assert_eq!(close[..2], replied.to_be_bytes(), "{sent:?}");
    }
}

/// Asserts that the server reads frames of every kind that carries no message at [`PER_SECOND`]. Each client
/// that `connect` returns has sent at most `before` frames.
pub async fn assert_throttled<S>(connect: impl AsyncFn() -> RawClient<S>, before: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let assert_at_rate = |frames: &str, took: Duration| {
        let seconds = |count: usize| Duration::from_secs_f64(count as f64 / PER_SECOND as f64);
        let expected = seconds(FLOOD - PER_SECOND)..=seconds(FLOOD + before);
        assert!(expected.contains(&took), "{frames}: {took:?}, not {expected:?}");
    };
    let mut client = connect().await;
    client.send(FIRST_FRAGMENT, b"").await;
    assert_at_rate("empty fragments", client.time_to_read(FRAGMENT, b"").await);
    let mut client = connect().await;
    assert_at_rate("pings", client.time_to_read(PING, b"").await);
    let mut client = connect().await;
    assert_at_rate("pongs", client.time_to_read(PONG, b"unasked").await);
}
