//! The stats role of one process: its endpoints and its tasks.

use std::{
    future,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bus::{Bus, Headers, Subscription};
use protocol::{Subject, subject, unix_ms};
use utoipa_axum::router::OpenApiRouter;

use crate::{router, scene_names, settings::Settings, shared::Shared};

/// The presence of a realm. Cheap to clone.
#[derive(Clone)]
pub struct Stats(Arc<Shared>);

/// The capacity of the queue of bus messages. When it is full, the newest message is dropped and counted.
const BUS_QUEUE: usize = 65_536;
/// The interval in which expired state is removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Stats {
    /// A presence without peers.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared::new(settings)))
    }

    /// The endpoints, with their OpenAPI description.
    pub fn router(&self) -> OpenApiRouter {
        router::router(self.0.clone())
    }

    /// Subscribes to the bus, for [`Stats::run`]. Messages are queued from now on.
    pub fn subscribe(&self, bus: &Bus) -> Subscription {
        let patterns = [
            subject::PEER_CONNECTS,
            subject::PEER_HEARTBEATS,
            subject::PEER_DISCONNECTS,
            subject::PEER_ISLAND_CHANGES,
            subject::ISLAND_PEER_JOINS,
            subject::ISLAND_PEER_LEAVES,
            subject::ENGINE_ISLANDS,
            subject::ENGINE_DISCOVERY,
        ];
        bus.subscribe("stats", &patterns, BUS_QUEUE)
    }

    /// Applies the messages of the bus, requests the present peers from the gateways, and fetches the names
    /// of scenes. Returns only when the bus has ended.
    pub async fn run(&self, bus: Bus, subscription: Subscription) {
        tokio::select! {
            () = self.apply_messages(subscription) => {}
            () = scene_names::run(&self.0) => {}
            () = request_presence(&bus) => {}
        }
    }

    /// Ends the live feed.
    pub fn drain(&self) {
        self.0.feed.close();
    }

    /// The number of readers of the live feed.
    pub fn feed_readers_count(&self) -> usize {
        self.0.feed.readers_count()
    }

    async fn apply_messages(&self, mut subscription: Subscription) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                envelope = subscription.next() => match envelope {
                    Some(envelope) => {
                        // Events are published under the lock. So a reader that has received an event and
                        // then reads the presence finds it there (`Shared::required_version`), and a reader
                        // that reads the presence first receives the event afterwards.
                        let mut presence = self.0.presence.lock();
                        self.0.feed.publish(&presence.apply(&envelope, Instant::now(), unix_ms(SystemTime::now())));
                    }
                    None => return,
                },
                _ = sweep.tick() => self.0.sweep(Instant::now()),
            }
        }
    }
}

/// Requests a heartbeat of every peer from the gateways: at start, and after each reconnect of the bus,
/// because messages published while it was disconnected were lost.
async fn request_presence(bus: &Bus) {
    let mut returns = bus.reconnects();
    loop {
        bus.publish(&Subject::PeersWanted, Headers::default(), Vec::new());
        if returns.changed().await.is_err() {
            // The bus has ended.
            return future::pending().await;
        }
    }
}
