//! The task that owns what a director knows, and the clock that has it decide.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use archipelago::{Engine, Input, rules::Rules};
use bus::{Bus, Envelope, Headers, Standing, Subscription, Term};
use metrics::{Counter, Gauge, Histogram};
use protocol::{
    Message as _, Subject, subject, unix_ms,
    v3::{ServiceDiscoveryMessage, ServiceStatus},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, MissedTickBehavior},
};

use crate::{
    Settings,
    configured::ANNOUNCE_INTERVAL,
    console::{Answer, NoAnswer, Query, assignments},
    inbound::{Heard, SERVER_NAME, hear},
    leader::{Leader, MessengerGone},
    leadership::Leadership,
    messenger::Errand,
    office::Office,
    replica::Replica,
    start_time,
    time::EngineTime,
};

/// A clock that is this late was stopped: what came meanwhile is heard before anybody is taken for
/// gone.
const STOPPED: Duration = Duration::from_secs(1);
/// How often it says hello, at most, to those who ask.
const GREETING_INTERVAL: Duration = Duration::from_millis(250);
/// Where more than this waits to be heard, what is heard is old.
const LATE: usize = 16_384;
/// What the director that leads says that may wait for one that stands by; at the bound the newest is
/// dropped and counted. What clients were told is in their heartbeats, too.
const STANDBY_QUEUE: usize = 65_536;
const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// What a director knows, and its clock.
pub(crate) struct Clock {
    settings: Settings,
    bus: Bus,
    time: EngineTime,
    errands: mpsc::Sender<Errand>,
    part: Part,
    /// The latest epoch in which a director said something that was heard here.
    latest_epoch: u64,
    /// When it last said hello to somebody who asked.
    greeted: Option<Instant>,
    leadership: Leadership,
    meters: Meters,
}

/// What it does at present.
enum Part {
    /// It hears what the one that leads hears, and tells.
    StandsBy { replica: Replica, told: Subscription },
    /// It decides, unless nobody can say for the moment whether it may: then it hears.
    Leads { leader: Box<Leader>, suspended: bool },
}

struct Meters {
    heartbeats: Counter,
    flush: Histogram,
    lag: Histogram,
    peers: Gauge,
    islands: Gauge,
    leads: Gauge,
    epoch: Gauge,
    takeovers: Counter,
}

impl Meters {
    fn new() -> Self {
        Self {
            heartbeats: metrics::counter!("atoll_director_heartbeats_total"),
            flush: metrics::histogram!("atoll_director_flush_seconds"),
            lag: metrics::histogram!("atoll_director_flush_lag_seconds"),
            peers: metrics::gauge!("dcl_archipelago_peers_count"),
            islands: metrics::gauge!("dcl_archipelago_islands_count"),
            leads: metrics::gauge!("atoll_director_leads"),
            epoch: metrics::gauge!("atoll_director_epoch"),
            takeovers: metrics::counter!("atoll_director_takeovers_total"),
        }
    }

    /// What holds for this one, which leads.
    fn observe(&self, leader: Option<&Leader>) {
        let engine = leader.map(Leader::engine);
        let epoch = leader.and_then(|leader| leader.term().epoch);
        self.peers.set(engine.map_or(0, Engine::peers_count) as f64);
        self.islands.set(engine.map_or(0, Engine::islands_count) as f64);
        self.leads.set(f64::from(u8::from(leader.is_some())));
        self.epoch.set(epoch.unwrap_or_default() as f64);
    }
}

impl Part {
    fn stand_by(bus: &Bus) -> Self {
        let patterns = [subject::PEER_ISLAND_CHANGES, subject::MEMBERSHIP_ENDS];
        let told = bus.subscribe("director-standby", &patterns, STANDBY_QUEUE);
        Self::StandsBy { replica: Replica::default(), told }
    }

    /// Who decides, if anybody does here.
    fn leader(&self) -> Option<&Leader> {
        match self {
            Self::Leads { leader, suspended: false } => Some(leader),
            _ => None,
        }
    }

    fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Self::Leads { leader, suspended: false } => Some(leader),
            _ => None,
        }
    }

    /// What the director that leads tells; nothing while that is this one. Cancel-safe.
    async fn told(&mut self) -> Option<Envelope> {
        match self {
            Self::StandsBy { told, .. } => told.next().await,
            Self::Leads { .. } => std::future::pending().await,
        }
    }
}

impl Clock {
    /// A clock that stands by.
    pub(crate) fn new(
        settings: Settings,
        bus: Bus,
        errands: mpsc::Sender<Errand>,
        leadership: Leadership,
    ) -> Self {
        let (part, time, meters) = (Part::stand_by(&bus), EngineTime::new(), Meters::new());
        Self { settings, bus, time, errands, part, latest_epoch: 0, greeted: None, leadership, meters }
    }

    /// Runs for as long as the bus and the messenger are there.
    pub(crate) async fn run(
        mut self,
        mut office: Office,
        mut subscription: Subscription,
        mut probes: mpsc::Receiver<Input>,
        mut queries: mpsc::Receiver<Query>,
    ) {
        let interval = |period: Duration| {
            let mut ticks = time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        let mut flushes = interval(self.settings.flush_interval);
        let mut reports = interval(self.settings.report_interval);
        let mut discoveries = interval(self.settings.discovery_interval);
        let mut announcements = interval(ANNOUNCE_INTERVAL);
        let mut returns = self.bus.returns();
        loop {
            tokio::select! {
                biased;
                due = flushes.tick() => {
                    let due = due.into_std();
                    let late = due.elapsed();
                    if late > STOPPED {
                        self.time.skip(late);
                        self.hear_nodes_again();
                    }
                    if late > STOPPED || self.is_called_by(office.standing()) {
                        self.catch_up(&mut subscription, &mut probes);
                    }
                    if subscription.waiting() > LATE
                        && let Some(leader) = self.part.leader_mut()
                    {
                        leader.hears_late();
                    }
                    // Only now: that may have taken its time.
                    let standing = office.standing();
                    let known = office.is_campaigning() && standing != Standing::Unknown;
                    self.leadership.set_known(known && !self.bus.is_away());
                    if self.follow(standing) {
                        office.listen();
                    }
                    if self.flush(due).is_err() {
                        return;
                    }
                }
                _ = reports.tick() => self.report(),
                _ = discoveries.tick() => self.say_hello(),
                _ = announcements.tick() => {
                    self.announce();
                    self.tidy();
                }
                // Never within a process.
                Ok(()) = returns.changed() => office.ask_who_is_there(),
                // Without a server to probe there is none who could say anything.
                Some(input) = probes.recv() => self.take(Heard::Input(input)),
                // Nor one who asks, without a console.
                Some(query) = queries.recv() => match query {
                    Query::Resign(answer) => {
                        let leads = matches!(office.standing(), Standing::Leads(_));
                        drop((subscription, probes, queries));
                        return self.resign(office, leads, answer).await;
                    }
                    query => self.answer(query),
                },
                Some(envelope) = self.part.told() => self.hear(&envelope),
                envelope = subscription.next() => match envelope {
                    Some(envelope) => self.hear(&envelope),
                    None => return,
                },
            }
        }
    }

    /// Whether it stands by, and is to lead.
    fn is_called_by(&self, standing: Standing) -> bool {
        matches!((&self.part, standing), (Part::StandsBy { .. }, Standing::Leads(_)))
    }

    /// Hears all that has come so far.
    fn catch_up(&mut self, subscription: &mut Subscription, probes: &mut mpsc::Receiver<Input>) {
        // And not what comes meanwhile, which may be without end.
        for envelope in (0..subscription.waiting()).map_while(|_| subscription.try_next()) {
            self.hear(&envelope);
        }
        let told = match &mut self.part {
            Part::StandsBy { told, .. } => (0..told.waiting()).map_while(|_| told.try_next()).collect(),
            Part::Leads { .. } => Vec::new(),
        };
        told.iter().for_each(|envelope| self.hear(envelope));
        while let Ok(input) = probes.try_recv() {
            self.take(Heard::Input(input));
        }
        self.announce();
    }

    fn hear(&mut self, envelope: &Envelope) {
        let Some(heard) = hear(envelope, &self.settings) else { return };
        match &heard {
            Heard::Heartbeat(heartbeat) => {
                self.meters.heartbeats.increment(1);
                if let Some(told) = &heartbeat.told {
                    self.bus.observe_epoch(told.epoch);
                }
            }
            Heard::Assigned { .. } | Heard::Ended { .. } | Heard::Leads { .. } => {
                self.latest_epoch = self.latest_epoch.max(envelope.headers.epoch.unwrap_or_default());
            }
            Heard::Wanted => self.greet(),
            Heard::Input(_) => {}
        }
        self.take(heard);
    }

    fn take(&mut self, heard: Heard) {
        let now = self.time.now();
        match &mut self.part {
            Part::StandsBy { replica, .. } => replica.hear(heard, now, unix_ms(SystemTime::now())),
            Part::Leads { leader, .. } => leader.hear(heard, now),
        }
    }

    /// Leads, stands by or does nothing for the moment, as this standing has it. Whether that ended
    /// its lead, so that it knows nothing any more.
    fn follow(&mut self, standing: Standing) -> bool {
        // Whoever took over while the bus is away would tell nobody that it did.
        let standing = if self.bus.is_away() { Standing::Unknown } else { standing };
        if self.time.stand(standing == Standing::Unknown) {
            self.hear_nodes_again();
        }
        match (&mut self.part, standing) {
            (Part::StandsBy { .. }, Standing::Leads(term)) => self.lead(term),
            (Part::StandsBy { .. }, Standing::Follows | Standing::Unknown) => {}
            (Part::Leads { leader, suspended }, Standing::Leads(term))
                // Unless another led in between.
                if term == leader.term() || self.latest_epoch <= leader.term().epoch.unwrap_or_default() =>
            {
                if std::mem::replace(suspended, false) {
                    tracing::info!(epoch = term.epoch, "leads on");
                }
                leader.lead_on(term);
            }
            (Part::Leads { leader, .. }, Standing::Leads(_) | Standing::Follows) => {
                tracing::info!(epoch = leader.term().epoch, "leads no more, and stands by");
                self.part = Part::stand_by(&self.bus);
                return true;
            }
            (Part::Leads { leader, suspended }, Standing::Unknown) => {
                if !std::mem::replace(suspended, true) {
                    tracing::warn!(epoch = leader.term().epoch, "decides nothing: it may not be the one that leads");
                }
            }
        }
        false
    }

    /// Nobody could be heard: nodes that were there before are taken to be there still, and have time to
    /// say so.
    fn hear_nodes_again(&mut self) {
        let now = self.time.now();
        match &mut self.part {
            Part::StandsBy { replica, .. } => replica.hear_nodes_again(now),
            Part::Leads { leader, .. } => leader.hear_nodes_again(now),
        }
    }

    /// Somebody has just begun to listen: whether there is a director is part of what it wants to know.
    fn greet(&mut self) {
        if self.greeted.is_none_or(|at| at.elapsed() >= GREETING_INTERVAL) {
            self.greeted = Some(Instant::now());
            self.say_hello();
        }
    }

    /// Goes on where the one that led ended.
    fn lead(&mut self, term: Term) {
        let now = self.time.now();
        self.tidy();
        let Part::StandsBy { replica, .. } = &mut self.part else { return };
        let unix_ms = unix_ms(SystemTime::now());
        let succession = std::mem::take(replica).hand_over(self.settings.rules.clone(), minute(), unix_ms);
        let leader = Leader::take_over(self.settings.engine.clone(), start_time(), succession, term, now);
        let leader = Box::new(leader.expect("settings that were checked when the director was made"));
        let (peers, islands) = (leader.engine().peers_count(), leader.engine().islands_count());
        tracing::info!(epoch = term.epoch, peers, islands, "leads");
        self.part = Part::Leads { leader, suspended: false };
        self.meters.takeovers.increment(1);
        // Whatever the one before may still say is not believed from now on.
        self.say_hello();
    }

    /// Has the replica forget, if there is one.
    fn tidy(&mut self) {
        let now = self.time.now();
        if let Part::StandsBy { replica, .. } = &mut self.part {
            replica.tidy(&self.settings.engine, now);
        }
    }

    fn flush(&mut self, due: Instant) -> Result<(), MessengerGone> {
        let began = Instant::now();
        let now = self.time.now();
        if let Part::Leads { leader, suspended: true } = &mut self.part {
            // What heartbeats do not know is told when it leads on.
            leader.hears_late();
        }
        if let Some(leader) = self.part.leader_mut() {
            self.meters.lag.record(began.saturating_duration_since(due));
            leader.flush(minute(), &self.errands, now)?;
            self.meters.flush.record(began.elapsed());
        }
        self.meters.observe(self.part.leader());
        Ok(())
    }

    /// What somebody who has gone asked is not answered.
    fn answer(&mut self, query: Query) {
        let now = self.time.now();
        let leader = match &self.part {
            Part::Leads { leader, .. } => Ok(leader),
            Part::StandsBy { .. } => Err(NoAnswer::StandsBy),
        };
        let engine = leader.map(|leader| leader.engine());
        match query {
            Query::Explain(question, answer) => {
                drop(answer.send(leader.map(|leader| leader.explain(&question, now))));
            }
            Query::Assignments(answer) => {
                // Where it may be wrong, it is compared with nothing.
                let told = match &self.part {
                    Part::Leads { suspended: true, .. } => Err(NoAnswer::Suspended),
                    _ => engine.map(assignments),
                };
                drop(answer.send(told));
            }
            Query::Copy(answer) => drop(answer.send(engine.map(|engine| (engine.clone(), now)))),
            Query::SetRules(rules) => self.set_rules(rules, now),
            Query::Resign(answer) => drop(answer),
        }
    }

    fn set_rules(&mut self, rules: Arc<Rules>, now: Duration) {
        if let Part::Leads { leader, .. } = &mut self.part {
            leader.set_rules(rules.clone(), now);
        }
        self.settings.rules = rules;
    }

    /// Announces the nodes that are always there.
    fn announce(&mut self) {
        let configured = self.settings.transports.iter().filter(|node| node.is_always_there());
        let inputs: Vec<Input> = configured.map(|node| Input::Transport(node.transport(0))).collect();
        inputs.into_iter().for_each(|input| self.take(Heard::Input(input)));
    }

    fn report(&mut self) {
        let now = self.time.now();
        if let Some(leader) = self.part.leader_mut() {
            leader.report(&self.errands, now);
        }
    }

    /// Says that this director leads, if it does.
    fn say_hello(&self) {
        let Some(leader) = self.part.leader() else { return };
        let status = ServiceStatus {
            current_time: unix_ms(SystemTime::now()),
            commit_hash: self.settings.commit_hash.clone(),
            user_count: u32::try_from(leader.engine().peers_count()).unwrap_or(u32::MAX),
        };
        let discovery = ServiceDiscoveryMessage { server_name: SERVER_NAME.to_owned(), status: Some(status) };
        let headers = Headers { epoch: leader.term().epoch, ..Headers::default() };
        self.bus.publish(&Subject::EngineDiscovery, headers, discovery.encode_to_vec());
    }

    /// Tells what it has decided, if it `leads`, gives up the office, and does nothing any more.
    async fn resign(self, office: Office, leads: bool, answer: Answer<()>) {
        self.meters.observe(None);
        if let Part::Leads { leader, suspended: false } = self.part
            && leads
        {
            for errand in leader.into_errands() {
                // A messenger that is gone tells nothing any more.
                let _ = self.errands.send(errand).await;
            }
            let (finished, finish) = oneshot::channel();
            let _ = self.errands.send(Errand::Finish(finished)).await;
            let _ = finish.await;
        }
        office.resign().await;
        tracing::info!("leads no more, nor stands by");
        let _ = answer.send(Ok(()));
        std::future::pending().await
    }
}

/// The time of day, in minutes since midnight, UTC.
fn minute() -> u16 {
    (unix_ms(SystemTime::now()) / MINUTE_MS % DAY_MINUTES) as u16
}

#[cfg(test)]
mod tests;
