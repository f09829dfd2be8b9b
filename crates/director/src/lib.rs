//! The engine's shell: bus in, flush clock, mint, bus out.
//!
//! One task owns the engine. It takes in what gateways and nodes say, flushes on a clock, and puts
//! what changed on the bus; nothing in it waits for anything but the clock and the bus.

mod inbound;
mod outbound;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use archipelago::{Engine, Output, SettingsError};
use bus::{Bus, Headers, Subscription};
use metrics::{Gauge, Histogram};
use protocol::{
    Message as _, Subject, subject,
    v3::{ServiceDiscoveryMessage, ServiceStatus},
};
use tokio::time::{self, MissedTickBehavior};
use transports::ws_room;

use inbound::input;
use outbound::Outbound;

/// What a director is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Distances, sizes and times of islands.
    pub engine: archipelago::Settings,
    /// The engine's clock: how often what changed is told.
    pub flush_interval: Duration,
    /// How often all islands are reported.
    pub report_interval: Duration,
    /// How often the director says that it is there.
    pub discovery_interval: Duration,
    /// How far from the origin the world reaches on each axis, in metres.
    pub position_bound_m: f32,
    /// Which build this is, for `engine.discovery`.
    pub commit_hash: Option<String>,
}

/// A director.
pub struct Director {
    settings: Settings,
    engine: Engine,
    outbound: Outbound,
    bus: Bus,
    subscription: Subscription,
    started: Instant,
    outputs: Vec<Output>,
    meters: Meters,
}

struct Meters {
    flush: Histogram,
    lag: Histogram,
    peers: Gauge,
    islands: Gauge,
}

/// Messages from the bus that may wait between two flushes; at the bound the newest is dropped and
/// counted. A heartbeat that is lost is repeated within seconds.
const BUS_QUEUE: usize = 262_144;

impl Director {
    /// A director that listens from now on.
    pub fn new(settings: Settings, bus: Bus, minter: ws_room::Minter) -> Result<Self, SettingsError> {
        let engine = Engine::new(settings.engine.clone(), unix_ms())?;
        let patterns = [
            subject::PEER_CONNECTS,
            subject::PEER_HEARTBEATS,
            subject::PEER_DISCONNECTS,
            subject::TRANSPORT_ANNOUNCEMENTS,
        ];
        let subscription = bus.subscribe("director", &patterns, BUS_QUEUE);
        let meters = Meters {
            flush: metrics::histogram!("atoll_director_flush_seconds"),
            lag: metrics::histogram!("atoll_director_flush_lag_seconds"),
            peers: metrics::gauge!("dcl_archipelago_peers_count"),
            islands: metrics::gauge!("dcl_archipelago_islands_count"),
        };
        Ok(Self {
            settings,
            engine,
            outbound: Outbound::new(bus.clone(), minter),
            bus,
            subscription,
            started: Instant::now(),
            outputs: Vec::new(),
            meters,
        })
    }

    /// Directs. Does not return while the bus is there.
    pub async fn run(mut self) {
        let interval = |period: Duration| {
            let mut ticks = time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        let mut flushes = interval(self.settings.flush_interval);
        let mut reports = interval(self.settings.report_interval);
        let mut discoveries = interval(self.settings.discovery_interval);
        loop {
            tokio::select! {
                biased;
                due = flushes.tick() => self.flush(due.into_std()),
                _ = reports.tick() => self.outbound.report(&self.engine),
                _ = discoveries.tick() => self.say_hello(),
                envelope = self.subscription.next() => match envelope {
                    Some(envelope) => {
                        if let Some(input) = input(&envelope, self.settings.position_bound_m) {
                            self.engine.handle(input, self.started.elapsed());
                        }
                    }
                    None => return,
                },
            }
        }
    }

    fn flush(&mut self, due: Instant) {
        let began = Instant::now();
        self.meters.lag.record(began.saturating_duration_since(due));
        self.engine.flush(self.started.elapsed(), &mut self.outputs);
        self.outbound.tell(&self.engine, &mut self.outputs);
        self.meters.flush.record(began.elapsed());
        self.meters.peers.set(self.engine.peers_count() as f64);
        self.meters.islands.set(self.engine.islands_count() as f64);
    }

    fn say_hello(&self) {
        let status = ServiceStatus {
            current_time: unix_ms(),
            commit_hash: self.settings.commit_hash.clone(),
            user_count: u32::try_from(self.engine.peers_count()).unwrap_or(u32::MAX),
        };
        let discovery =
            ServiceDiscoveryMessage { server_name: "archipelago".to_owned(), status: Some(status) };
        self.bus.publish(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec());
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
