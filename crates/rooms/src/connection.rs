//! The socket of one member, from its entry to its end.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use mio::{Registry, event::Event};
use protocol::{
    Close, Message as _,
    rfc5::{WsPacket, ws_packet::Message},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};
use ws::{FrameReader, KeepAlive, Liveness, OpCode, Received, put_frame};

use crate::{
    handshake::{Disconnect, disconnect, disconnect_for},
    handshake_socket::HandshakeSocket,
    member_stream::MemberStream,
    metrics,
    node::Node,
    pace::{Pace, charged_bytes},
    registry::Membership,
    send_queue::PendingWrite,
    shard_handle::MemberSocket,
};

/// How long the server waits for a close frame to be written and for the client to close the connection.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes of one member that are read in one turn of its shard, before the frame that exceeds them. The rest waits
/// for its next turn.
const TURN_BYTES: usize = 64 * 1024;
/// The part of it that a frame takes beside its payload: 256 empty frames are read in one turn.
const FRAME_COST: usize = 256;
/// Slices that one vectored write takes: few system calls for a long queue, and a small array on the stack.
const MAX_SLICES: usize = 64;

/// The socket of a member. Its shard serves it whenever it may be read or written, and when it is due.
pub(crate) struct Connection {
    membership: Membership,
    frames: FrameReader<MemberStream>,
    pace: Pace,
    keep_alive: KeepAlive,
    /// A message that was read and waits until the rate allows it.
    held: Option<Held>,
    /// The frames that are being written.
    writing: PendingWrite,
    /// When a reader that reads nothing is abandoned; `None` unless frames wait for it.
    write_deadline: Option<Instant>,
    waker: Waker,
    /// Why the server ends the membership, if it does.
    disconnect: Disconnect,
    node: Arc<Node>,
    /// Counts the open sockets of the node.
    _counter: Arc<()>,
}

/// A message that passes as soon as the rate allows it.
struct Held {
    /// The payload bytes that are charged.
    bytes: usize,
    effect: Effect,
}

enum Effect {
    Broadcast(Bytes),
    Pong(Bytes),
    None,
}

impl Connection {
    pub(crate) fn new(node: &Arc<Node>, membership: Membership, socket: HandshakeSocket) -> Self {
        let HandshakeSocket { frames, pace } = socket;
        let (stream, mut decoder) = frames.into_parts();
        let (stream, read_ahead) = MemberStream::new(stream);
        decoder.put(&read_ahead);
        let Membership { address, room, alias, .. } = &membership;
        tracing::debug!(peer = %address, island = %room.name, alias, "entered");
        Self {
            waker: membership.waker.clone().into(),
            membership,
            frames: FrameReader::from_parts(stream, decoder),
            pace,
            keep_alive: KeepAlive::new(node.settings.ping_interval, Instant::now()),
            held: None,
            writing: PendingWrite::default(),
            write_deadline: None,
            disconnect: None,
            node: node.clone(),
            _counter: node.sockets.clone(),
        }
    }

    fn try_serve(&mut self, now: Instant) -> ControlFlow<Disconnect, Instant> {
        let waker = self.waker.clone();
        let context = &mut Context::from_waker(&waker);
        let read_at = self.read(context, now)?;
        self.check_liveness(now)?;
        self.write(context, now)?;
        if self.membership.send_queue.is_finished() {
            return ControlFlow::Break(None);
        }
        let due = self.keep_alive.due_at();
        ControlFlow::Continue([read_at, self.write_deadline].into_iter().flatten().fold(due, Instant::min))
    }

    /// Reads until nothing more has arrived. Returns when to read on if a limit delays it.
    fn read(&mut self, context: &mut Context<'_>, now: Instant) -> ControlFlow<Disconnect, Option<Instant>> {
        let mut bytes = 0;
        while bytes < TURN_BYTES {
            if let Some(held) = &self.held
                && let Err(at) = self.pace.acquire(held.bytes, now)
            {
                return ControlFlow::Continue(Some(at));
            }
            if let Some(held) = self.held.take() {
                self.pass(held.effect);
            }
            if let Some(at) = self.pace.read_at(now) {
                return ControlFlow::Continue(Some(at));
            }
            let received = match self.frames.poll_next(context) {
                Poll::Pending => return ControlFlow::Continue(None),
                Poll::Ready(Err(error)) => return ControlFlow::Break(disconnect_for(&error)),
                Poll::Ready(Ok(received)) => received,
            };
            bytes += FRAME_COST + charged_bytes(&received);
            self.pace.record(&received, now);
            self.keep_alive.record_activity();
            self.held = self.receive(received, now)?;
        }
        context.waker().wake_by_ref();
        ControlFlow::Continue(None)
    }

    /// Handles one frame. Above the member's rate an unreliable update is dropped, so that the updates that
    /// pass are recent. Any other frame is returned, to pass when the rate allows it.
    fn receive(&mut self, received: Received, now: Instant) -> ControlFlow<Disconnect, Option<Held>> {
        let held = |bytes, effect| ControlFlow::Continue(Some(Held { bytes, effect }));
        match received {
            Received::Binary(message) => {
                let (counters, bytes) = (&self.node.counters, message.len());
                counters.in_messages.increment(1);
                counters.in_bytes.increment(bytes as u64);
                let Ok(packet) = WsPacket::decode(message) else {
                    return ControlFlow::Break(disconnect(Close::Undecodable));
                };
                match packet.message {
                    Some(Message::PeerUpdateMessage(update)) if !update.unreliable => {
                        return held(bytes, Effect::Broadcast(update.body));
                    }
                    Some(Message::PeerUpdateMessage(update)) => {
                        if self.pace.try_acquire(bytes, now).is_ok() {
                            self.broadcast(update.body, true);
                        } else {
                            counters.ingress_dropped.increment(1);
                        }
                    }
                    _ => {
                        counters.unknown_messages.increment(1);
                        return held(bytes, Effect::None);
                    }
                }
                ControlFlow::Continue(None)
            }
            Received::Ping(payload) => held(0, Effect::Pong(payload)),
            Received::Pong | Received::Fragment => held(0, Effect::None),
            Received::Text => ControlFlow::Break(disconnect(Close::TextFrame)),
            Received::Close(code) => {
                self.membership.send_queue.answer_close(code);
                ControlFlow::Break(None)
            }
        }
    }

    fn pass(&self, effect: Effect) {
        match effect {
            Effect::Broadcast(body) => self.broadcast(body, false),
            Effect::Pong(payload) => self.push_control(OpCode::Pong, &payload),
            Effect::None => {}
        }
    }

    fn broadcast(&self, body: Bytes, unreliable: bool) {
        self.membership.room.broadcast(self.membership.alias, body, unreliable);
    }

    fn push_control(&self, opcode: OpCode, payload: &[u8]) {
        let mut frame = BytesMut::new();
        put_frame(&mut frame, opcode, payload);
        self.membership.send_queue.push_single(frame.freeze());
    }

    fn check_liveness(&mut self, now: Instant) -> ControlFlow<Disconnect> {
        if self.keep_alive.due_at() <= now {
            let active_until = self.pace.active_until(self.frames.last_read_at());
            match self.keep_alive.check(active_until, now) {
                Liveness::Alive => {}
                Liveness::Silent => self.push_control(OpCode::Ping, &[]),
                Liveness::Dead => return ControlFlow::Break(disconnect(Close::Silent)),
            }
        }
        ControlFlow::Continue(())
    }

    /// Writes until the queue is empty or the socket takes no more. A reader that reads nothing at all is
    /// abandoned after the write timeout.
    fn write(&mut self, context: &mut Context<'_>, now: Instant) -> ControlFlow<Disconnect> {
        match self.poll_write(context) {
            Poll::Ready(Ok(())) => self.write_deadline = None,
            Poll::Ready(Err(_)) => return ControlFlow::Break(None),
            Poll::Pending => {
                let deadline = *self.write_deadline.get_or_insert(now + self.node.settings.write_timeout);
                if deadline <= now {
                    self.membership.send_queue.abandon();
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Ready when all queued frames have been written. Any progress resets the deadline.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.writing.slices.has_remaining() {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let filled = self.writing.slices.chunks_vectored(&mut slices);
                let stream = Pin::new(self.frames.stream_mut());
                let written = ready!(stream.poll_write_vectored(context, &slices[..filled]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.writing.slices.advance(written);
                self.write_deadline = None;
            }
            let queue = &self.membership.send_queue;
            queue.mark_written(&self.writing);
            self.node.counters.out_messages.increment(self.writing.relayed_frames);
            self.node.counters.out_bytes.increment(self.writing.bytes as u64);
            self.writing = queue.take(self.membership.alias);
            if !self.writing.slices.has_remaining() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes the queued frames, and then waits for the client's own close: closing a socket with unread bytes
    /// resets it, and the reset may overtake the close frame.
    async fn close(&mut self) {
        if poll_fn(|context| self.poll_write(context)).await.is_ok() {
            let _ = self.frames.stream_mut().shutdown().await;
            self.frames.drain().await;
        }
    }
}

impl MemberSocket for Connection {
    fn alias(&self) -> u32 {
        self.membership.alias
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        // The client is silent from its welcome on, which the shard is about to write.
        self.keep_alive = KeepAlive::new(self.node.settings.ping_interval, Instant::now());
        self.frames.stream_mut().register(registry, self.membership.alias)
    }

    fn set_ready(&mut self, event: &Event) -> bool {
        self.frames.stream_mut().set_ready(event);
        self.membership.waker.list()
    }

    fn serve(&mut self, now: Instant) -> ControlFlow<(), Instant> {
        self.membership.waker.clear();
        match self.try_serve(now) {
            ControlFlow::Continue(due) => ControlFlow::Continue(due),
            ControlFlow::Break(disconnect) => {
                self.disconnect = disconnect;
                ControlFlow::Break(())
            }
        }
    }

    fn end(mut self: Box<Self>, registry: &Registry) {
        let queue = &self.membership.send_queue;
        if let Some((close, reason)) = self.disconnect.take() {
            queue.close(close, &reason);
        }
        self.node.registry.leave(&self.membership);
        let end = queue.close_reason();
        if let Some(close) = end {
            metrics::closed(close.code()).increment(1);
        }
        let Membership { address, room, .. } = &self.membership;
        tracing::debug!(peer = %address, island = %room.name, code = end.map(Close::code), "left");
        // Closed by either side: a close frame is at the end of the queue. Otherwise the connection broke. A
        // socket that cannot be polled any more is closed without its close frame.
        if queue.is_finished() && self.frames.stream_mut().deregister(registry).is_ok() {
            tokio::spawn(async move { timeout(LINGER, self.close()).await });
        }
    }
}
