//! The engine and the clock that has it flush.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use archipelago::{Engine, Input, Output, explain::Question};
use bus::{Bus, Envelope, Headers, Subscription};
use metrics::{Counter, Gauge, Histogram};
use protocol::{
    Message as _, Subject, unix_ms,
    v3::{ServiceDiscoveryMessage, ServiceStatus},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{self, MissedTickBehavior},
};

use crate::{
    Settings,
    configured::ANNOUNCE_INTERVAL,
    console::{Query, assignments},
    inbound::input,
    messenger::{Errand, IslandSummary},
    news::News,
};

/// Flushes whose news may wait; at the bound flushes are skipped, and counted, until some are taken.
const NEWS_QUEUE: usize = 240;
/// A clock that is this late was stopped: what came meanwhile is heard before anybody is taken for
/// gone.
const STOPPED: Duration = Duration::from_secs(1);

/// How often it is said that islands wait.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// Nobody would be told anything any more.
#[derive(Debug)]
struct MessengerGone;

/// The engine and its clock.
pub(crate) struct Clock {
    settings: Settings,
    engine: Engine,
    bus: Bus,
    started: Instant,
    /// Since when the bus is away, if it is: until it is back, the engine's time stands still.
    /// Nobody is silent whom nobody could hear.
    away: Option<Instant>,
    /// For how long it stood still before.
    stood: Duration,
    errands: mpsc::Sender<Errand>,
    outputs: Vec<Output>,
    /// What the messenger was not handed yet, flush by flush.
    news: VecDeque<News>,
    /// The minute of the day that the engine knows of.
    minute: Option<u16>,
    /// When it was last said that islands wait.
    warned: Option<Instant>,
    meters: Meters,
}

struct Meters {
    flush: Histogram,
    lag: Histogram,
    skipped: Counter,
    peers: Gauge,
    islands: Gauge,
    waiting: Gauge,
}

impl Meters {
    fn new() -> Self {
        Self {
            flush: metrics::histogram!("atoll_director_flush_seconds"),
            lag: metrics::histogram!("atoll_director_flush_lag_seconds"),
            skipped: metrics::counter!("atoll_director_flushes_skipped_total"),
            peers: metrics::gauge!("dcl_archipelago_peers_count"),
            islands: metrics::gauge!("dcl_archipelago_islands_count"),
            waiting: metrics::gauge!("atoll_director_islands_waiting"),
        }
    }
}

impl Clock {
    pub(crate) fn new(
        settings: Settings,
        engine: Engine,
        bus: Bus,
        started: Instant,
        errands: mpsc::Sender<Errand>,
    ) -> Self {
        Self {
            settings,
            engine,
            bus,
            started,
            away: None,
            stood: Duration::ZERO,
            errands,
            outputs: Vec::new(),
            news: VecDeque::new(),
            minute: None,
            warned: None,
            meters: Meters::new(),
        }
    }

    /// Runs for as long as the bus and the messenger are there.
    pub(crate) async fn run(
        mut self,
        mut subscription: Subscription,
        mut probes: mpsc::Receiver<Input>,
        mut queries: mpsc::Receiver<Query>,
    ) {
        self.handle(Input::Rules(self.settings.rules.clone()));
        // Before the first flush, whatever comes first below: what waits on the bus already may be
        // people, who are not to be sent elsewhere first.
        self.announce();
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
                            self.handle(input);
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
                Some(input) = probes.recv() => self.handle(input),
                // Nor one who asks, without a console.
                Some(query) = queries.recv() => self.answer(query),
                envelope = subscription.next() => match envelope {
                    Some(envelope) => self.hear(&envelope),
                    None => return,
                },
            }
        }
    }

    fn hear(&mut self, envelope: &Envelope) {
        if let Some(input) = input(envelope, &self.settings) {
            self.handle(input);
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(input, now);
    }

    /// The engine's time.
    fn now(&self) -> Duration {
        let until = self.away.unwrap_or_else(Instant::now);
        until.saturating_duration_since(self.started).saturating_sub(self.stood)
    }

    /// Has the engine's time stand still while the bus is away.
    fn look_at_the_bus(&mut self) {
        if !self.bus.is_away() {
            self.stood += self.away.take().map(|since| since.elapsed()).unwrap_or_default();
        } else if self.away.is_none() {
            self.away = Some(Instant::now());
        }
    }

    /// What somebody who has gone asked is not answered.
    fn answer(&mut self, query: Query) {
        let now = self.now();
        match query {
            Query::Explain(question, answer) => drop(answer.send(self.engine.explain(&question, now))),
            Query::Assignments(answer) => drop(answer.send(assignments(&self.engine))),
            Query::SetRules(rules) => self.handle(Input::Rules(rules)),
            Query::Copy(answer) => drop(answer.send((self.engine.clone(), now))),
        }
    }

    /// Tells the engine what time of day it is, when that is another minute.
    fn look_at_the_time(&mut self) {
        let minute = (unix_ms(SystemTime::now()) / MINUTE_MS % DAY_MINUTES) as u16;
        if self.minute.replace(minute) != Some(minute) {
            self.handle(Input::TimeOfDay { minute });
        }
    }

    /// Says once in a while that islands wait for a transport, and why the first does.
    fn see_who_waits(&mut self) {
        let (count, first) = self.engine.waiting();
        self.meters.waiting.set(count as f64);
        let Some(first) = first else { return };
        if self.warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        let question = Question::Island(first.id());
        let why = self.engine.explain(&question, self.now()).summary;
        tracing::warn!(count, why, "islands wait for a transport");
        self.warned = Some(Instant::now());
    }

    /// Announces the nodes that are always there.
    fn announce(&mut self) {
        let now = self.now();
        for configured in self.settings.transports.iter().filter(|node| node.is_always_there()) {
            self.engine.handle(Input::Transport(configured.transport(0)), now);
        }
    }

    fn flush(&mut self, due: Instant) -> Result<(), MessengerGone> {
        let began = Instant::now();
        self.meters.lag.record(began.saturating_duration_since(due));
        self.look_at_the_bus();
        if self.news.len() < NEWS_QUEUE {
            self.look_at_the_time();
            self.engine.flush(self.now(), &mut self.outputs);
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
        self.see_who_waits();
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
            current_time: unix_ms(SystemTime::now()),
            commit_hash: self.settings.commit_hash.clone(),
            user_count: u32::try_from(self.engine.peers_count()).unwrap_or(u32::MAX),
        };
        let discovery =
            ServiceDiscoveryMessage { server_name: "archipelago".to_owned(), status: Some(status) };
        self.bus.publish(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec());
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Address, Position};

    use super::*;
    use crate::tests::settings;

    fn peer(number: u8) -> Address {
        Address::new([number; 20])
    }

    #[tokio::test]
    async fn a_messenger_that_is_behind_delays_no_flush_and_loses_nothing() {
        // A messenger that does not run at all, until it does.
        let (errands, mut waiting) = mpsc::channel(1);
        let bus = Bus::in_process();
        let mut engine = Engine::new(archipelago::Settings::default(), 0).unwrap();
        let transport = archipelago::Transport {
            node: "node-1".parse().unwrap(),
            kind: archipelago::TransportKind::WsRoom,
            capability: "ws-room".into(),
            max_island_size: 100,
            seats: None,
            users: 0,
            draining: false,
            public_url: "ws://127.0.0.1:5000".into(),
        };
        engine.handle(archipelago::Input::Transport(transport), Duration::ZERO);
        let mut clock = Clock::new(settings(), engine, bus, Instant::now(), errands);
        for number in 1..=5 {
            let position = Position::new(f32::from(number) * 1_000.0, 0.0, 0.0);
            let (peer, session, desired_room) = (peer(number), None, None);
            let input = archipelago::Input::Heartbeat { peer, session, position, desired_room };
            clock.engine.handle(input, Duration::ZERO);
            clock.flush(Instant::now()).unwrap();
            assert_eq!(clock.engine.islands_count(), usize::from(number), "it was flushed");
        }
        let mut told = Vec::new();
        while told.len() < 5 {
            let Some(Errand::News(news)) = waiting.recv().await else { panic!("news") };
            told.extend(news.assigned.iter().map(|assigned| assigned.peer));
            clock.flush(Instant::now()).unwrap();
        }
        assert_eq!(told, (1..=5).map(peer).collect::<Vec<_>>(), "all of it, in order");
    }
}
