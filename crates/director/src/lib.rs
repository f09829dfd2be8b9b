//! The engine's shell: bus in, flush clock, mint, bus out.
//!
//! One task owns the engine: it takes in what gateways and nodes say, flushes on a clock, and waits
//! for nothing else. A second one, the messenger, mints connection strings and publishes what
//! changed; while it is behind, the engine goes on, and what changed waits.

mod configured;
mod inbound;
mod messenger;
mod news;

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use archipelago::{Engine, Input, Output, SettingsError};
use bus::{Bus, Envelope, Headers, Subscription};
use metrics::{Counter, Gauge, Histogram};
use protocol::{
    Message as _, Subject, subject,
    v3::{ServiceDiscoveryMessage, ServiceStatus},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{self, MissedTickBehavior},
};
use transports::ws_room;

pub use configured::{Configured, Offer};

use configured::{ANNOUNCE_INTERVAL, Minters};
use inbound::input;
use messenger::{Errand, IslandSummary, Messenger};
use news::News;

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
    /// Nodes that do not announce themselves, each with a name of its own.
    pub transports: Vec<Configured>,
}

/// A director.
pub struct Director {
    settings: Settings,
    engine: Engine,
    messenger: Messenger,
    bus: Bus,
    subscription: Subscription,
    started: Instant,
}

/// Messages from the bus that may wait between two flushes; at the bound the newest is dropped and
/// counted. A heartbeat that is lost is repeated within seconds.
const BUS_QUEUE: usize = 262_144;
/// Errands that may wait for the messenger; at the bound, news wait with the clock.
const ERRAND_QUEUE: usize = 8;
/// Flushes whose news may wait; at the bound flushes are skipped, and counted, until some are taken.
const NEWS_QUEUE: usize = 240;
/// A clock that is this late was stopped: what came meanwhile is heard before anybody is taken for
/// gone.
const STOPPED: Duration = Duration::from_secs(1);

impl Director {
    /// A director that listens from now on. `minter` mints for the nodes that announce themselves.
    pub fn new(settings: Settings, bus: Bus, minter: ws_room::Minter) -> Result<Self, SettingsError> {
        let engine = Engine::new(settings.engine.clone(), start_time())?;
        let patterns = [
            subject::PEER_CONNECTS,
            subject::PEER_HEARTBEATS,
            subject::PEER_DISCONNECTS,
            subject::TRANSPORT_ANNOUNCEMENTS,
        ];
        let subscription = bus.subscribe("director", &patterns, BUS_QUEUE);
        let messenger = Messenger::new(bus.clone(), Minters::new(minter, &settings.transports));
        Ok(Self { settings, engine, messenger, bus, subscription, started: Instant::now() })
    }

    /// Directs, on the present task, with the messenger and the probes on others of the runtime
    /// `messengers`. Does not return while the bus is there.
    pub async fn run(self, messengers: tokio::runtime::Handle) {
        let (errands, errands_receiver) = mpsc::channel(ERRAND_QUEUE);
        messengers.spawn(self.messenger.run(errands_receiver));
        let probes = configured::watch(&self.settings.transports, &messengers);
        let clock = Clock {
            settings: self.settings,
            engine: self.engine,
            bus: self.bus,
            started: self.started,
            errands,
            outputs: Vec::new(),
            news: VecDeque::new(),
            meters: Meters::new(),
        };
        clock.run(self.subscription, probes).await;
    }
}

/// Nobody would be told anything any more.
#[derive(Debug)]
struct MessengerGone;

/// The engine and its clock.
struct Clock {
    settings: Settings,
    engine: Engine,
    bus: Bus,
    started: Instant,
    errands: mpsc::Sender<Errand>,
    outputs: Vec<Output>,
    /// What the messenger was not handed yet, flush by flush.
    news: VecDeque<News>,
    meters: Meters,
}

struct Meters {
    flush: Histogram,
    lag: Histogram,
    skipped: Counter,
    peers: Gauge,
    islands: Gauge,
}

impl Meters {
    fn new() -> Self {
        Self {
            flush: metrics::histogram!("atoll_director_flush_seconds"),
            lag: metrics::histogram!("atoll_director_flush_lag_seconds"),
            skipped: metrics::counter!("atoll_director_flushes_skipped_total"),
            peers: metrics::gauge!("dcl_archipelago_peers_count"),
            islands: metrics::gauge!("dcl_archipelago_islands_count"),
        }
    }
}

impl Clock {
    async fn run(mut self, mut subscription: Subscription, mut probes: mpsc::Receiver<Input>) {
        let interval = |period: Duration| {
            let mut ticks = time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        let mut flushes = interval(self.settings.flush_interval);
        let mut reports = interval(self.settings.report_interval);
        let mut discoveries = interval(self.settings.discovery_interval);
        let mut announcements = interval(ANNOUNCE_INTERVAL);
        loop {
            tokio::select! {
                biased;
                due = flushes.tick() => {
                    let due = due.into_std();
                    if due.elapsed() > STOPPED {
                        while let Some(envelope) = subscription.try_next() {
                            self.hear(&envelope);
                        }
                        while let Ok(input) = probes.try_recv() {
                            self.engine.handle(input, self.started.elapsed());
                        }
                        self.announce();
                    }
                    if self.flush(due).is_err() {
                        return;
                    }
                }
                _ = reports.tick() => self.report(),
                _ = discoveries.tick() => self.say_hello(),
                _ = announcements.tick() => self.announce(),
                // Without a server to probe there is none who could say anything.
                Some(input) = probes.recv() => self.engine.handle(input, self.started.elapsed()),
                envelope = subscription.next() => match envelope {
                    Some(envelope) => self.hear(&envelope),
                    None => return,
                },
            }
        }
    }

    fn hear(&mut self, envelope: &Envelope) {
        if let Some(input) = input(envelope, &self.settings) {
            self.engine.handle(input, self.started.elapsed());
        }
    }

    /// Announces the nodes that are always there.
    fn announce(&mut self) {
        for configured in self.settings.transports.iter().filter(|node| node.is_always_there()) {
            self.engine.handle(Input::Transport(configured.transport(0)), self.started.elapsed());
        }
    }

    fn flush(&mut self, due: Instant) -> Result<(), MessengerGone> {
        let began = Instant::now();
        self.meters.lag.record(began.saturating_duration_since(due));
        if self.news.len() < NEWS_QUEUE {
            self.engine.flush(self.started.elapsed(), &mut self.outputs);
            if !self.outputs.is_empty() {
                self.news.push_back(News::take(&self.engine, &mut self.outputs));
            }
        } else {
            self.meters.skipped.increment(1);
        }
        while !self.news.is_empty() {
            match self.errands.try_reserve() {
                Ok(place) => place.send(Errand::News(self.news.pop_front().unwrap_or_default())),
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => return Err(MessengerGone),
            }
        }
        self.meters.flush.record(began.elapsed());
        self.meters.peers.set(self.engine.peers_count() as f64);
        self.meters.islands.set(self.engine.islands_count() as f64);
        Ok(())
    }

    /// Has everybody's place reported, unless the messenger is behind: the next report says it.
    fn report(&self) {
        let Ok(place) = self.errands.try_reserve() else { return };
        let islands = self.engine.islands().map(|island| IslandSummary {
            id: island.id(),
            peers: island.members().map(|(peer, _)| peer).collect(),
            max_peers: island.max_peers(),
            center: island.center(),
            radius_m: island.radius(),
        });
        place.send(Errand::Report(islands.collect()));
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

/// When an engine starts, in milliseconds since the Unix epoch, as it stands in its islands' ids:
/// never the same twice in a process.
fn start_time() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_ms();
    let next = |last: u64| Some(now.max(last + 1));
    // The closure always gives a value, so that this is what was before.
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
    now.max(last + 1)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
