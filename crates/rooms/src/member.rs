//! One room socket, from the handshake to the close frame.

use std::time::Duration;

use admission::{Permit, Throttle};
use bytes::{Buf, Bytes, BytesMut};
use protocol::{
    Close, Message as _, RoomName,
    rfc5::{WsPacket, ws_packet::Message},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument;
use ws::{KeepAlive, Liveness, OpCode, Received, close_frame, put_frame};

use crate::{
    handshake::{Disconnect, authenticate, disconnect_for},
    metrics,
    node::Node,
    registry::Membership,
    room::kicked_frame,
    send_queue::SendQueue,
    throttled_reader::ThrottledReader,
};

/// How long the server waits for a close frame to be written and for the client to close the connection.
const LINGER: Duration = Duration::from_secs(5);
/// The same for a rejected client. Its handshake permit is released at once, so its socket must not stay for
/// long.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// Serves one socket, from its first frame to its last.
pub(crate) async fn serve(
    node: &Node,
    room: &RoomName,
    token: Option<String>,
    permit: Permit,
    stream: ws::Stream,
) {
    let (read_half, mut writer) = tokio::io::split(stream);
    let (settings, now) = (&node.settings, Instant::now());
    let throttle = Throttle::new(settings.messages_per_second, settings.bytes_per_second, now);
    let mut reader = ThrottledReader::new(read_half, throttle);
    let deadline = now + settings.handshake_timeout;
    let close_with = |close: Close| Err(Some((close, close.reason().to_owned())));
    let authenticated = tokio::select! {
        authenticated = timeout_at(deadline, authenticate(node, room, token.as_deref(), &permit, &mut reader, &mut writer)) => {
            authenticated.unwrap_or(close_with(Close::HandshakeTimeout))
        }
        () = node.handshakes.closed() => close_with(Close::Restarting),
        () = permit.evicted() => close_with(Close::Full),
    };
    let joined = authenticated.and_then(|request| {
        let membership = node.registry.join(room, &request).map_err(Some)?;
        Ok((request, membership))
    });
    match joined {
        Ok((request, membership)) => {
            drop(permit);
            let span = tracing::debug_span!("member", peer = %request.address, island = %room);
            serve_member(node, &membership, &mut reader, &mut writer).instrument(span).await;
        }
        Err(Some((close, reason))) => {
            // The permit is released first: another handshake need not wait until this client has read the
            // reason.
            drop(permit);
            reject(close, &reason, &mut reader, &mut writer).await;
        }
        Err(None) => {}
    }
}

fn count_closed(close: Close) {
    metrics::closed(close.code()).increment(1);
}

/// Sends a close frame with the reason for the rejection, and waits for the client to close the connection.
async fn reject<R, W>(close: Close, reason: &str, reader: &mut ThrottledReader<R>, writer: &mut W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tracing::debug!(code = close.code(), reason, "rejected");
    count_closed(close);
    let closing = async {
        if close == Close::RoomFull {
            // Clients of RFC-5 know this packet, but not the close code.
            writer.write_all(&kicked_frame(reason)).await?;
        }
        writer.write_all(&close_frame(close.code(), reason)).await?;
        writer.shutdown().await?;
        reader.drain().await;
        std::io::Result::Ok(())
    };
    let _ = timeout(REFUSAL_LINGER, closing).await;
}

/// Serves a member until its socket ends.
async fn serve_member<R, W>(
    node: &Node,
    membership: &Membership,
    reader: &mut ThrottledReader<R>,
    writer: &mut W,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tracing::debug!(alias = membership.alias, "entered");
    let queue = &membership.send_queue;
    let mut writing = std::pin::pin!(write_queue(node, membership, writer));
    let mut writer_ended = false;
    tokio::select! {
        // Each branch ends the select, so the order starves none.
        biased;
        () = &mut writing => writer_ended = true,
        _ = queue.closed() => {}
        disconnect = read_messages(node, membership, reader) => {
            if let Some((close, reason)) = disconnect {
                queue.close(close, &reason);
            }
        }
    }
    // The seat is freed as soon as the membership is known to end, although the socket may stay open for a
    // while.
    node.registry.leave(membership);
    let end = queue.close_reason();
    if let Some(close) = end {
        count_closed(close);
    }
    // Closed by either side: a close frame is at the end of the queue. Otherwise the connection broke.
    if queue.is_finished() {
        // The queued frames are written, and then the server waits for the client's own close: closing a
        // socket with unread bytes resets it, and the reset may overtake the close frame. A client that
        // stalls is abandoned after the timeout.
        let closing = async {
            if !writer_ended {
                writing.await;
            }
            reader.drain().await;
        };
        let _ = timeout(LINGER, closing).await;
    }
    tracing::debug!(code = end.map(Close::code), "left");
}

/// Writes queued frames until the queue is closed or the socket fails.
async fn write_queue<W: AsyncWrite + Unpin>(node: &Node, membership: &Membership, writer: &mut W) {
    let queue = &membership.send_queue;
    loop {
        let mut taken = queue.take(membership.alias).await;
        let bytes = taken.slices.remaining();
        while taken.slices.has_remaining() {
            // Any progress restarts the timeout; a reader that reads nothing at all is abandoned.
            match timeout(node.settings.write_timeout, writer.write_buf(&mut taken.slices)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return,
                Err(_) => return queue.abandon(),
            }
        }
        queue.mark_written(&taken);
        node.counters.out_messages.increment(taken.relayed_frames);
        node.counters.out_bytes.increment(bytes as u64);
        if taken.is_last {
            let _ = writer.shutdown().await;
            return;
        }
    }
}

/// Reads the messages of a member. Returns the close code and reason if the server must close the connection.
async fn read_messages<R: AsyncRead + Unpin>(
    node: &Node,
    membership: &Membership,
    reader: &mut ThrottledReader<R>,
) -> Disconnect {
    let settings = &node.settings;
    let mut keep_alive = KeepAlive::new(settings.ping_interval, Instant::now());
    loop {
        let received = tokio::select! {
            biased;
            received = reader.next() => received,
            () = keep_alive.due() => {
                match keep_alive.check(reader.active_until(), Instant::now()) {
                    Liveness::Alive => {}
                    Liveness::Silent => push_control(&membership.send_queue, OpCode::Ping, &[]),
                    Liveness::Dead => return Some((Close::Silent, Close::Silent.reason().to_owned())),
                }
                continue;
            }
        };
        keep_alive.record_activity();
        match received {
            Ok(Received::Binary(bytes)) => {
                if let Err(close) = handle_message(node, membership, reader, bytes).await {
                    return Some((close, close.reason().to_owned()));
                }
            }
            Ok(Received::Ping(payload)) => {
                reader.acquire(0).await;
                push_control(&membership.send_queue, OpCode::Pong, &payload);
            }
            Ok(Received::Pong | Received::Fragment) => reader.acquire(0).await,
            Ok(Received::Text) => return Some((Close::TextFrame, Close::TextFrame.reason().to_owned())),
            Ok(Received::Close(code)) => {
                membership.send_queue.answer_close(code);
                return None;
            }
            Err(error) => return disconnect_for(&error),
        }
    }
}

/// Handles one message. Above the member's rate an unreliable update is dropped, so that the updates that
/// pass are recent. Any other message waits until the rate allows it, and the messages behind it are not read
/// meanwhile.
async fn handle_message<R: AsyncRead + Unpin>(
    node: &Node,
    membership: &Membership,
    reader: &mut ThrottledReader<R>,
    bytes: Bytes,
) -> Result<(), Close> {
    let (counters, size) = (&node.counters, bytes.len());
    counters.in_messages.increment(1);
    counters.in_bytes.increment(size as u64);
    let packet = WsPacket::decode(bytes).map_err(|_| Close::Undecodable)?;
    match packet.message {
        Some(Message::PeerUpdateMessage(update)) => {
            if !update.unreliable {
                reader.acquire(size).await;
            } else if !reader.try_acquire(size) {
                counters.ingress_dropped.increment(1);
                return Ok(());
            }
            membership.room.broadcast(membership.alias, update.body, update.unreliable);
        }
        _ => {
            reader.acquire(size).await;
            counters.unknown_messages.increment(1);
        }
    }
    Ok(())
}

fn push_control(queue: &SendQueue, opcode: OpCode, payload: &[u8]) {
    let mut frame = BytesMut::new();
    put_frame(&mut frame, opcode, payload);
    queue.push_single(frame.freeze());
}
