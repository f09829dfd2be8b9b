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
    node::Node,
    registry::Membership,
    send_queue::SendQueue,
    throttled_reader::ThrottledReader,
};

/// How long a close frame may take to reach its reader.
const LINGER: Duration = Duration::from_secs(5);
/// The same for a client that did not enter. Its handshake does not count any more, so its socket must not stay.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// Serves one socket, from its first frame to its last.
pub(crate) async fn serve(
    shared: &Node,
    room: &RoomName,
    token: Option<String>,
    permit: Permit,
    stream: ws::Stream,
) {
    let (read_half, mut writer) = tokio::io::split(stream);
    let (settings, now) = (&shared.settings, Instant::now());
    let pace = Throttle::new(settings.messages_per_second, settings.bytes_per_second, now);
    let mut reader = ThrottledReader::new(read_half, pace);
    let deadline = now + settings.handshake_timeout;
    let say = |close: Close| Err(Some((close, close.reason().to_owned())));
    let admitted = tokio::select! {
        admitted = timeout_at(deadline, authenticate(shared, room, token.as_deref(), &permit, &mut reader, &mut writer)) => {
            admitted.unwrap_or(say(Close::HandshakeTimeout))
        }
        () = shared.handshakes.closed() => say(Close::Restarting),
        () = permit.evicted() => say(Close::Full),
    };
    let joined = admitted.and_then(|entrant| {
        let membership = shared.registry.join(room, &entrant).map_err(Some)?;
        Ok((entrant, membership))
    });
    match joined {
        Ok((entrant, membership)) => {
            drop(permit);
            shared.mark_dirty(&membership.room);
            let span = tracing::debug_span!("member", peer = %entrant.address, island = %room);
            serve_member(shared, &membership, &mut reader, &mut writer).instrument(span).await;
        }
        Err(Some((close, reason))) => {
            // Another handshake need not wait until this client has read why it was refused.
            drop(permit);
            reject(close, &reason, &mut reader, &mut writer).await;
        }
        Err(None) => {}
    }
}

fn count_closed(close: Close) {
    metrics::counter!("atoll_rooms_closed_total", "code" => close.code().to_string()).increment(1);
}

/// Tells a socket why it is not let in, and closes it.
async fn reject<R, W>(close: Close, reason: &str, reader: &mut ThrottledReader<R>, writer: &mut W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tracing::debug!(code = close.code(), reason, "refused");
    count_closed(close);
    let farewell = async {
        if close == Close::RoomFull {
            // Clients of the field know this packet, and not the code.
            let kicked = protocol::rfc5::WsKicked { reason: reason.to_owned() };
            let frame = crate::batch::packet_frame(&crate::batch::packet(Message::PeerKicked(kicked)));
            writer.write_all(&frame).await?;
        }
        writer.write_all(&close_frame(close.code(), reason)).await?;
        writer.shutdown().await?;
        reader.drain().await;
        std::io::Result::Ok(())
    };
    let _ = timeout(REFUSAL_LINGER, farewell).await;
}

/// Serves a member until its socket ends.
async fn serve_member<R, W>(
    shared: &Node,
    membership: &Membership,
    reader: &mut ThrottledReader<R>,
    writer: &mut W,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tracing::debug!(alias = membership.alias, "entered");
    let outbox = &membership.send_queue;
    let mut writing = std::pin::pin!(write_queue(shared, membership, writer));
    let mut written = false;
    tokio::select! {
        biased;
        () = &mut writing => written = true,
        _ = outbox.closed() => {}
        refusal = read_messages(shared, membership, reader) => {
            if let Some((close, reason)) = refusal {
                outbox.close(close, &reason);
            }
        }
    }
    // Its place is free as soon as it is known to go.
    shared.registry.leave(membership);
    shared.mark_dirty(&membership.room);
    let end = outbox.close_reason();
    if let Some(close) = end {
        count_closed(close);
    }
    if outbox.is_finished() {
        // What waits is written, and the client's own close awaited: to drop a socket with bytes
        // unread is a reset, which can overtake the close frame. A stalled reader is left.
        let farewell = async {
            if !written {
                writing.await;
            }
            reader.drain().await;
        };
        let _ = timeout(LINGER, farewell).await;
    }
    tracing::debug!(code = end.map(Close::code), "left");
}

/// Writes what is queued, until the queue ends or the socket does.
async fn write_queue<W: AsyncWrite + Unpin>(shared: &Node, membership: &Membership, writer: &mut W) {
    let outbox = &membership.send_queue;
    loop {
        let mut taken = outbox.take(membership.alias).await;
        let bytes = taken.slices.remaining();
        while taken.slices.has_remaining() {
            // Any progress counts; a reader that takes nothing at all is left.
            match timeout(shared.settings.write_timeout, writer.write_buf(&mut taken.slices)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return,
                Err(_) => return outbox.abandon(),
            }
        }
        outbox.mark_written(&taken);
        shared.counters.out_messages.increment(taken.relayed_frames);
        shared.counters.out_bytes.increment(bytes as u64);
        if taken.is_last {
            let _ = writer.shutdown().await;
            return;
        }
    }
}

/// Takes in what a member sends; gives what to tell it when it must go.
async fn read_messages<R: AsyncRead + Unpin>(
    shared: &Node,
    membership: &Membership,
    reader: &mut ThrottledReader<R>,
) -> Disconnect {
    let settings = &shared.settings;
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
                if let Err(close) = handle_message(shared, membership, reader, bytes).await {
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

/// Takes in one message. Above the member's rate an unreliable update is dropped, so that those that pass are
/// fresh; any other message waits for its turn, and nothing behind it is read meanwhile.
async fn handle_message<R: AsyncRead + Unpin>(
    shared: &Node,
    membership: &Membership,
    reader: &mut ThrottledReader<R>,
    bytes: Bytes,
) -> Result<(), Close> {
    let (counters, size) = (&shared.counters, bytes.len());
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
            shared.mark_dirty(&membership.room);
        }
        _ => {
            reader.acquire(size).await;
            counters.unknown_messages.increment(1);
        }
    }
    Ok(())
}

fn push_control(outbox: &SendQueue, opcode: OpCode, payload: &[u8]) {
    let mut frame = BytesMut::new();
    put_frame(&mut frame, opcode, payload);
    outbox.push_single(frame.freeze());
}
