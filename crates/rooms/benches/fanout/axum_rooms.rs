//! The yardstick: rooms as they are usually written with axum, without access tokens and rate limits.
//!
//! One task for each member, with a queue of encoded messages. When the queue is full, messages are dropped.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use anyhow::Result;
use axum::{
    Router,
    extract::{
        Path, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    routing::get,
    serve::ListenerExt,
};
use bytes::Bytes;
use futures_util::SinkExt;
use protocol::{
    Message as _,
    rfc5::{WsPacket, WsPeerUpdate, WsWelcome, ws_packet},
};
use tokio::{net::TcpListener, sync::mpsc};

/// The messages that wait for one member at most.
const QUEUE_MESSAGES: usize = 1024;

/// How a member's task writes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writing {
    /// One `send`, and so one system call, for each message.
    Send,
    /// All queued messages are fed, and then flushed once.
    FeedAndFlush,
}

#[derive(Default)]
struct Rooms {
    rooms: Mutex<HashMap<String, Arc<Room>>>,
}

#[derive(Default)]
struct Room {
    next_alias: AtomicU32,
    members: Mutex<HashMap<u32, mpsc::Sender<Bytes>>>,
}

/// Serves rooms on a free port, and prints its address.
pub(crate) async fn serve(writing: Writing) -> Result<()> {
    let rooms = Arc::new(Rooms::default());
    let enter =
        async move |State(rooms): State<Arc<Rooms>>, Path(name): Path<String>, upgrade: WebSocketUpgrade| {
            let room = rooms.room(name);
            upgrade.on_upgrade(async move |socket| room.serve(socket, writing).await)
        };
    let router = Router::new().route("/rooms/{room}", get(enter)).with_state(rooms);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("no delay"));
    Ok(axum::serve(listener, router).await?)
}

impl Rooms {
    fn room(&self, name: String) -> Arc<Room> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }
}

impl Room {
    async fn serve(&self, mut socket: WebSocket, writing: Writing) {
        let alias = self.next_alias.fetch_add(1, Relaxed) + 1;
        let (queue, mut queued) = mpsc::channel(QUEUE_MESSAGES);
        self.members.lock().unwrap_or_else(PoisonError::into_inner).insert(alias, queue);
        loop {
            let written = tokio::select! {
                Some(message) = queued.recv() => match writing {
                    Writing::Send => socket.send(Message::Binary(message)).await,
                    Writing::FeedAndFlush => feed_and_flush(&mut socket, message, &mut queued).await,
                },
                message = socket.recv() => match message {
                    Some(Ok(Message::Binary(bytes))) => self.handle(alias, bytes, &mut socket).await,
                    Some(Ok(_)) => Ok(()),
                    _ => break,
                },
            };
            if written.is_err() {
                break;
            }
        }
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(&alias);
    }

    async fn handle(&self, alias: u32, bytes: Bytes, socket: &mut WebSocket) -> Result<(), axum::Error> {
        match WsPacket::decode(bytes) {
            Ok(WsPacket { message: Some(ws_packet::Message::PeerUpdateMessage(update)) }) => {
                let update = WsPeerUpdate { from_alias: alias, ..update };
                self.broadcast(alias, &encode(ws_packet::Message::PeerUpdateMessage(update)));
            }
            Ok(WsPacket { message: Some(ws_packet::Message::PeerIdentification(_)) }) => {
                let welcome = WsWelcome { alias, ..WsWelcome::default() };
                let welcome = encode(ws_packet::Message::WelcomeMessage(welcome));
                socket.send(Message::Binary(welcome)).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn broadcast(&self, from: u32, message: &Bytes) {
        for (member, queue) in self.members.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if *member != from {
                // A full queue drops the message.
                let _ = queue.try_send(message.clone());
            }
        }
    }
}

async fn feed_and_flush(
    socket: &mut WebSocket,
    first: Bytes,
    queued: &mut mpsc::Receiver<Bytes>,
) -> Result<(), axum::Error> {
    socket.feed(Message::Binary(first)).await?;
    while let Ok(message) = queued.try_recv() {
        socket.feed(Message::Binary(message)).await?;
    }
    socket.flush().await
}

fn encode(message: ws_packet::Message) -> Bytes {
    WsPacket { message: Some(message) }.encode_to_vec().into()
}
