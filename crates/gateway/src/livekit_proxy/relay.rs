//! Relays a signalling connection between a client and a server.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};

use super::messages::ServerMessages;

/// Bytes that are read before they are written, in each direction. No more is read until then, so that a slow
/// reader slows its sender (TCP backpressure). From the server, one message is buffered in addition.
const BUFFER_BYTES: usize = 16 * 1024;
/// A direction without any byte for this long ends the connection. Clients of LiveKit send a ping every few
/// seconds; a hidden browser tab may delay it to a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A peer that accepts no byte for this long ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other direction may continue after one has ended.
const LINGER: Duration = Duration::from_secs(10);

/// Relays in both directions until both have ended. A direction ends after its last byte was written: a Leave
/// message that the server sends before it closes reaches the client. The client's bytes pass unchanged; of the
/// server's messages, the URLs of other servers are removed.
pub(super) async fn relay(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (client_reader, client_writer) = tokio::io::split(client);
    let (server_reader, server_writer) = tokio::io::split(server);
    let unchanged = |bytes: &[u8], output: &mut Vec<u8>| {
        output.extend_from_slice(bytes);
        true
    };
    let mut messages = ServerMessages::default();
    let stripped = move |bytes: &[u8], output: &mut Vec<u8>| {
        let received = messages.receive(bytes, output);
        if let Err(error) = received {
            tracing::warn!(%error, "a connection through the signalling proxy ends");
        }
        received.is_ok()
    };
    let mut to_server = Box::pin(copy(client_reader, server_writer, unchanged));
    let mut to_client = Box::pin(copy(server_reader, client_writer, stripped));
    // The reason why a direction ended makes no difference: the other one gets time to end as well.
    tokio::select! {
        _ = &mut to_server => drop(time::timeout(LINGER, to_client).await),
        _ = &mut to_client => drop(time::timeout(LINGER, to_server).await),
    }
}

/// Copies until the reader ends, or until `convert` returns `false`. `convert` appends the bytes to write.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut convert: impl FnMut(&[u8], &mut Vec<u8>) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut output = Vec::new();
    loop {
        let length = match time::timeout(IDLE_TIMEOUT, from.read(&mut buffer)).await {
            Ok(Ok(length @ 1..)) => length,
            _ => break,
        };
        output.clear();
        let is_valid = convert(&buffer[..length], &mut output);
        let write = async {
            to.write_all(&output).await?;
            to.flush().await
        };
        time::timeout(WRITE_TIMEOUT, write).await??;
        if !is_valid {
            break;
        }
        // A long message does not keep its memory.
        output.shrink_to(BUFFER_BYTES);
    }
    time::timeout(WRITE_TIMEOUT, to.shutdown()).await?
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// A binary frame with a `SignalResponse` with a Leave message.
    const LEAVE: &[u8] = &[0x82, 4, 0x42, 0x02, 0x10, 0x04];

    #[tokio::test(start_paused = true)]
    async fn bytes_before_a_close_are_delivered() {
        let (mut client, client_end) = duplex(64);
        let (mut server, server_end) = duplex(64);
        let relay = tokio::spawn(relay(client_end, server_end));
        client.write_all(b"join").await.unwrap();
        let mut received = [0; 4];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"join");
        server.write_all(LEAVE).await.unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, LEAVE);
        let begin = time::Instant::now();
        relay.await.unwrap();
        assert!(begin.elapsed() <= LINGER, "the client did not close its side");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_stops_its_sender() {
        let (mut client, client_end) = duplex(64);
        let (mut server, server_end) = duplex(64);
        tokio::spawn(relay(client_end, server_end));
        let flood = async {
            let mut sent = 0;
            while time::timeout(Duration::from_secs(1), server.write_all(LEAVE)).await.is_ok() {
                sent += LEAVE.len();
            }
            sent
        };
        let sent = flood.await;
        assert!(sent <= BUFFER_BYTES + 3 * 64, "{sent} bytes were buffered");
        let mut frame = [0; LEAVE.len()];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame, LEAVE);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_or_stuck_connection_ends() {
        let (_client, client_end) = duplex(64);
        let (_server, server_end) = duplex(64);
        let begin = time::Instant::now();
        relay(client_end, server_end).await;
        assert_eq!(begin.elapsed(), IDLE_TIMEOUT);

        let (mut client, client_end) = duplex(64);
        let (_server, server_end) = duplex(64);
        client.write_all(&[7; 64]).await.unwrap();
        let more = tokio::spawn(async move { client.write_all(&[7; 1024]).await });
        let begin = time::Instant::now();
        relay(client_end, server_end).await;
        assert_eq!(begin.elapsed(), WRITE_TIMEOUT + LINGER);
        assert!(more.await.unwrap().is_err());
    }
}
