//! A real client on a machine of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use client::{Address, Dialect, Event, Explorer, Gateway, Handle, Position, RoomId, Settings};
use test_support::Namespace;
use tokio::{
    runtime::{Builder, Runtime},
    time::interval,
};

/// The bytes of a message: more than any datagram without a message has.
pub(super) const MESSAGE_BYTES: u16 = 1_000;
/// The interval of the messages of one member: a fifth of the rate limit of the fallback.
const SEND_INTERVAL: Duration = Duration::from_millis(100);

/// A client, which ends when this is dropped.
pub(super) struct Member {
    pub(super) address: Address,
    state: Arc<Mutex<State>>,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

/// Its view of the world.
#[derive(Default)]
pub(super) struct State {
    /// The newest room, its transport and its other members.
    room: Option<(RoomId, &'static str, BTreeMap<u32, Address>)>,
    /// The senders and numbers of received messages.
    pub(super) received: BTreeSet<(Address, u32)>,
    /// Whether it sends.
    pub(super) is_sending: bool,
    /// The number of the next message.
    pub(super) next: u32,
}

impl Member {
    /// Starts a client in the namespace.
    pub(super) fn start(machine: &Namespace, gateway: String) -> Self {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).enable_all().on_thread_start(machine.entrance());
        let runtime = builder.build().unwrap();
        let transports = vec!["p2p".to_owned(), "ws-room".to_owned()];
        let gateway = Gateway::new(Dialect::Archipelago, gateway);
        let settings = Settings { transports, ..Settings::new(gateway) };
        let identity = client::guest().unwrap();
        let (address, state) = (identity.address(), Arc::new(Mutex::new(State::default())));
        let shared = state.clone();
        runtime.spawn(async move {
            let explorer = Explorer::start(settings, identity);
            let handle = explorer.handle();
            handle.heartbeat(Position::default(), None).await;
            tokio::spawn(send(handle, shared.clone()));
            record(explorer, shared).await;
        });
        Self { address, state, runtime: Some(runtime) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    /// Whether this peer is a member of the newest room.
    pub(super) fn is_with(&self, address: Address) -> bool {
        self.room.as_ref().is_some_and(|(_, _, members)| members.values().any(|member| *member == address))
    }

    /// The transport of the newest room.
    pub(super) fn transport(&self) -> Option<&'static str> {
        self.room.as_ref().map(|(_, transport, _)| *transport)
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::RoomEntered { room, transport, members, .. } => {
                self.room = Some((room, transport, members));
            }
            Event::PeerJoined { room, alias, address } => {
                if let Some((_, _, members)) = self.room.as_mut().filter(|(newest, ..)| *newest == room) {
                    members.insert(alias, address);
                }
            }
            Event::PeerLeft { room, alias } => {
                if let Some((_, _, members)) = self.room.as_mut().filter(|(newest, ..)| *newest == room) {
                    members.remove(&alias);
                }
            }
            Event::Message { sender: Some(sender), body, .. } => {
                let number = u32::from_be_bytes(body[..4].try_into().unwrap());
                self.received.insert((sender, number));
            }
            _ => {}
        }
    }
}

async fn record(mut explorer: Explorer, state: Arc<Mutex<State>>) {
    while let Some(event) = explorer.next().await {
        state.lock().unwrap().apply(event);
    }
}

/// Sends numbered messages reliably while the member is in a room.
async fn send(handle: Handle, state: Arc<Mutex<State>>) {
    let mut steps = interval(SEND_INTERVAL);
    loop {
        steps.tick().await;
        let number = { state.lock().unwrap() }.next;
        let mut body = number.to_be_bytes().to_vec();
        body.resize(MESSAGE_BYTES.into(), 0);
        if { state.lock().unwrap() }.is_sending && !handle.send(body.into(), false).await.is_empty() {
            state.lock().unwrap().next += 1;
        }
    }
}
