//! Copies bytes between a client and a server.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};

/// Bytes that are read before they are written, in each direction. No more is read until then, so that a slow
/// reader slows its sender (TCP backpressure).
const BUFFER_BYTES: usize = 16 * 1024;
/// A direction without any byte for this long ends the connection. Clients of LiveKit send a ping every few
/// seconds; a hidden browser tab may delay it to a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A peer that accepts no byte for this long ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other direction may continue after one has ended.
const LINGER: Duration = Duration::from_secs(10);

/// Relays in both directions until both have ended. A direction ends after its last byte was written: a Leave
/// message that the server sends before it closes reaches the client.
pub(super) async fn relay(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (client_reader, client_writer) = tokio::io::split(client);
    let (server_reader, server_writer) = tokio::io::split(server);
    let mut to_server = Box::pin(copy(client_reader, server_writer));
    let mut to_client = Box::pin(copy(server_reader, client_writer));
    // The reason why a direction ended makes no difference: the other one gets time to end as well.
    tokio::select! {
        _ = &mut to_server => drop(time::timeout(LINGER, to_client).await),
        _ = &mut to_client => drop(time::timeout(LINGER, to_server).await),
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = time::timeout(IDLE_TIMEOUT, from.read(&mut buffer)).await;
        match length {
            Ok(Ok(length @ 1..)) => {
                let write = async {
                    to.write_all(&buffer[..length]).await?;
                    to.flush().await
                };
                time::timeout(WRITE_TIMEOUT, write).await??;
            }
            _ => return time::timeout(WRITE_TIMEOUT, to.shutdown()).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_before_a_close_are_delivered() {
        let (mut client, client_end) = duplex(64);
        let (mut server, server_end) = duplex(64);
        let relay = tokio::spawn(relay(client_end, server_end));
        client.write_all(b"join").await.unwrap();
        let mut received = [0; 4];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"join");
        server.write_all(b"leave").await.unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"leave");
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
            while time::timeout(Duration::from_secs(1), server.write_all(&[7; 64])).await.is_ok() {
                sent += 64;
            }
            sent
        };
        let sent = flood.await;
        assert!(sent <= BUFFER_BYTES + 3 * 64, "{sent} bytes were buffered");
        let mut byte = [0];
        client.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [7]);
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
