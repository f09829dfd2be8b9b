//! The task that owns what a director knows, and the clock that has it decide.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use archipelago::{Engine, Input, rules::Rules};
use bus::{Bus, ElectionState, Envelope, Headers, Subscription, Term};
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
    admin::{AdminError, AdminRequest, Reply, assignments},
    configured_nodes::ANNOUNCE_INTERVAL,
    decode::{BusEvent, SERVER_NAME, decode},
    election::Election,
    leader::{Leader, PublisherGone},
    leadership::Leadership,
    next_start_ms,
    pausable_clock::PausableClock,
    publisher::PublishJob,
    standby::Replica,
};

/// A clock that is this late was stopped: what came meanwhile is heard before anybody is taken for
/// gone.
const PAUSE_THRESHOLD: Duration = Duration::from_secs(1);
/// How often it says hello, at most, to those who ask.
const DISCOVERY_REPLY_INTERVAL: Duration = Duration::from_millis(250);
/// Where more than this waits to be heard, what is heard is old.
const LATE_BACKLOG: usize = 16_384;
/// What the director that leads says that may wait for one that stands by; at the bound the newest is
/// dropped and counted. What clients were told is in their heartbeats, too.
const STANDBY_QUEUE: usize = 65_536;
const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// What a director knows, and its clock.
pub(crate) struct DirectorTask {
    settings: Settings,
    bus: Bus,
    clock: PausableClock,
    jobs: mpsc::Sender<PublishJob>,
    mode: Mode,
    /// The latest epoch in which a director said something that was heard here.
    latest_epoch: u64,
    /// When it last said hello to somebody who asked.
    last_discovery_reply: Option<Instant>,
    leadership: Leadership,
    metrics: TaskMetrics,
}

/// What it does at present.
enum Mode {
    /// It hears what the one that leads hears, and tells.
    Standby { replica: Replica, leader_messages: Subscription },
    /// It decides, unless nobody can say for the moment whether it may: then it hears.
    Leading { leader: Box<Leader>, suspended: bool },
}

struct TaskMetrics {
    heartbeats: Counter,
    flush: Histogram,
    lag: Histogram,
    peers: Gauge,
    islands: Gauge,
    leads: Gauge,
    epoch: Gauge,
    takeovers: Counter,
}

impl TaskMetrics {
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
    fn set_gauges(&self, leader: Option<&Leader>) {
        let engine = leader.map(Leader::engine);
        let epoch = leader.and_then(|leader| leader.term().epoch);
        self.peers.set(engine.map_or(0, Engine::peers_count) as f64);
        self.islands.set(engine.map_or(0, Engine::islands_count) as f64);
        self.leads.set(f64::from(u8::from(leader.is_some())));
        self.epoch.set(epoch.unwrap_or_default() as f64);
    }
}

impl Mode {
    fn new_standby(bus: &Bus) -> Self {
        let patterns = [subject::PEER_ISLAND_CHANGES, subject::MEMBERSHIP_ENDS];
        let told = bus.subscribe("director-standby", &patterns, STANDBY_QUEUE);
        Self::Standby { replica: Replica::default(), leader_messages: told }
    }

    /// Who decides, if anybody does here.
    fn leader(&self) -> Option<&Leader> {
        match self {
            Self::Leading { leader, suspended: false } => Some(leader),
            _ => None,
        }
    }

    fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Self::Leading { leader, suspended: false } => Some(leader),
            _ => None,
        }
    }

    /// What the director that leads tells; nothing while that is this one. Cancel-safe.
    async fn next_leader_message(&mut self) -> Option<Envelope> {
        match self {
            Self::Standby { leader_messages: told, .. } => told.next().await,
            Self::Leading { .. } => std::future::pending().await,
        }
    }
}

impl DirectorTask {
    /// A clock that stands by.
    pub(crate) fn new(
        settings: Settings,
        bus: Bus,
        errands: mpsc::Sender<PublishJob>,
        leadership: Leadership,
    ) -> Self {
        let (part, time, meters) = (Mode::new_standby(&bus), PausableClock::new(), TaskMetrics::new());
        Self {
            settings,
            bus,
            clock: time,
            jobs: errands,
            mode: part,
            latest_epoch: 0,
            last_discovery_reply: None,
            leadership,
            metrics: meters,
        }
    }

    /// Runs for as long as the bus and the messenger are there.
    pub(crate) async fn run(
        mut self,
        mut office: Election,
        mut subscription: Subscription,
        mut probes: mpsc::Receiver<Input>,
        mut queries: mpsc::Receiver<AdminRequest>,
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
        let mut returns = self.bus.reconnects();
        loop {
            tokio::select! {
                biased;
                due = flushes.tick() => {
                    let due = due.into_std();
                    let late = due.elapsed();
                    if late > PAUSE_THRESHOLD {
                        self.clock.skip(late);
                        self.refresh_nodes();
                    }
                    if late > PAUSE_THRESHOLD || self.should_take_over(office.state()) {
                        self.drain_inputs(&mut subscription, &mut probes);
                    }
                    if subscription.backlog() > LATE_BACKLOG
                        && let Some(leader) = self.mode.leader_mut()
                    {
                        leader.reset_retries();
                    }
                    // Only now: that may have taken its time.
                    let standing = office.state();
                    let known = office.is_campaigning() && standing != ElectionState::Unknown;
                    self.leadership.set_known(known && !self.bus.is_disconnected());
                    if self.apply_election_state(standing) {
                        office.start_listening();
                    }
                    if self.flush(due).is_err() {
                        return;
                    }
                }
                _ = reports.tick() => self.report(),
                _ = discoveries.tick() => self.publish_discovery(),
                _ = announcements.tick() => {
                    self.announce_configured_nodes();
                    self.expire_replica();
                }
                // Never within a process.
                Ok(()) = returns.changed() => office.request_peers(),
                // Without a server to probe there is none who could say anything.
                Some(input) = probes.recv() => self.apply(BusEvent::Input(input)),
                // Nor one who asks, without a console.
                Some(query) = queries.recv() => match query {
                    AdminRequest::Resign(answer) => {
                        let leads = matches!(office.state(), ElectionState::Leader(_));
                        drop((subscription, probes, queries));
                        return self.resign(office, leads, answer).await;
                    }
                    query => self.handle_admin_request(query),
                },
                Some(envelope) = self.mode.next_leader_message() => self.handle_envelope(&envelope),
                envelope = subscription.next() => match envelope {
                    Some(envelope) => self.handle_envelope(&envelope),
                    None => return,
                },
            }
        }
    }

    /// Whether it stands by, and is to lead.
    fn should_take_over(&self, standing: ElectionState) -> bool {
        matches!((&self.mode, standing), (Mode::Standby { .. }, ElectionState::Leader(_)))
    }

    /// Hears all that has come so far.
    fn drain_inputs(&mut self, subscription: &mut Subscription, probes: &mut mpsc::Receiver<Input>) {
        // And not what comes meanwhile, which may be without end.
        for envelope in (0..subscription.backlog()).map_while(|_| subscription.try_next()) {
            self.handle_envelope(&envelope);
        }
        let told = match &mut self.mode {
            Mode::Standby { leader_messages: told, .. } => {
                (0..told.backlog()).map_while(|_| told.try_next()).collect()
            }
            Mode::Leading { .. } => Vec::new(),
        };
        told.iter().for_each(|envelope| self.handle_envelope(envelope));
        while let Ok(input) = probes.try_recv() {
            self.apply(BusEvent::Input(input));
        }
        self.announce_configured_nodes();
    }

    fn handle_envelope(&mut self, envelope: &Envelope) {
        let Some(heard) = decode(envelope, &self.settings) else { return };
        match &heard {
            BusEvent::Heartbeat(heartbeat) => {
                self.metrics.heartbeats.increment(1);
                if let Some(told) = &heartbeat.assignment {
                    self.bus.observe_epoch(told.epoch);
                }
            }
            BusEvent::Assigned { .. }
            | BusEvent::MembershipsEnded { .. }
            | BusEvent::LeaderDiscovery { .. } => {
                self.latest_epoch = self.latest_epoch.max(envelope.headers.epoch.unwrap_or_default());
            }
            BusEvent::PeersWanted => self.reply_with_discovery(),
            BusEvent::Input(_) => {}
        }
        self.apply(heard);
    }

    fn apply(&mut self, heard: BusEvent) {
        let now = self.clock.now();
        match &mut self.mode {
            Mode::Standby { replica, .. } => replica.handle(heard, now, unix_ms(SystemTime::now())),
            Mode::Leading { leader, .. } => leader.handle(heard, now),
        }
    }

    /// Leads, stands by or does nothing for the moment, as this standing has it. Whether that ended
    /// its lead, so that it knows nothing any more.
    fn apply_election_state(&mut self, standing: ElectionState) -> bool {
        // Whoever took over while the bus is away would tell nobody that it did.
        let standing = if self.bus.is_disconnected() { ElectionState::Unknown } else { standing };
        if self.clock.set_paused(standing == ElectionState::Unknown) {
            self.refresh_nodes();
        }
        match (&mut self.mode, standing) {
            (Mode::Standby { .. }, ElectionState::Leader(term)) => self.take_over(term),
            (Mode::Standby { .. }, ElectionState::Standby | ElectionState::Unknown) => {}
            (Mode::Leading { leader, suspended }, ElectionState::Leader(term))
                // Unless another led in between.
                if term == leader.term() || self.latest_epoch <= leader.term().epoch.unwrap_or_default() =>
            {
                if std::mem::replace(suspended, false) {
                    tracing::info!(epoch = term.epoch, "leads on");
                }
                leader.continue_in_term(term);
            }
            (Mode::Leading { leader, .. }, ElectionState::Leader(_) | ElectionState::Standby) => {
                tracing::info!(epoch = leader.term().epoch, "leads no more, and stands by");
                self.mode = Mode::new_standby(&self.bus);
                return true;
            }
            (Mode::Leading { leader, suspended }, ElectionState::Unknown) => {
                if !std::mem::replace(suspended, true) {
                    tracing::warn!(epoch = leader.term().epoch, "decides nothing: it may not be the one that leads");
                }
            }
        }
        false
    }

    /// Nobody could be heard: nodes that were there before are taken to be there still, and have time to
    /// say so.
    fn refresh_nodes(&mut self) {
        let now = self.clock.now();
        match &mut self.mode {
            Mode::Standby { replica, .. } => replica.refresh_nodes(now),
            Mode::Leading { leader, .. } => leader.refresh_nodes(now),
        }
    }

    /// Somebody has just begun to listen: whether there is a director is part of what it wants to know.
    fn reply_with_discovery(&mut self) {
        if self.last_discovery_reply.is_none_or(|at| at.elapsed() >= DISCOVERY_REPLY_INTERVAL) {
            self.last_discovery_reply = Some(Instant::now());
            self.publish_discovery();
        }
    }

    /// Goes on where the one that led ended.
    fn take_over(&mut self, term: Term) {
        let now = self.clock.now();
        self.expire_replica();
        let Mode::Standby { replica, .. } = &mut self.mode else { return };
        let unix_ms = unix_ms(SystemTime::now());
        let succession =
            std::mem::take(replica).hand_over(self.settings.rules.clone(), minute_of_day(), unix_ms);
        let leader = Leader::take_over(self.settings.engine.clone(), next_start_ms(), succession, term, now);
        let leader = Box::new(leader.expect("settings that were checked when the director was made"));
        let (peers, islands) = (leader.engine().peers_count(), leader.engine().islands_count());
        tracing::info!(epoch = term.epoch, peers, islands, "leads");
        self.mode = Mode::Leading { leader, suspended: false };
        self.metrics.takeovers.increment(1);
        // Whatever the one before may still say is not believed from now on.
        self.publish_discovery();
    }

    /// Has the replica forget, if there is one.
    fn expire_replica(&mut self) {
        let now = self.clock.now();
        if let Mode::Standby { replica, .. } = &mut self.mode {
            replica.expire(&self.settings.engine, now);
        }
    }

    fn flush(&mut self, due: Instant) -> Result<(), PublisherGone> {
        let began = Instant::now();
        let now = self.clock.now();
        if let Mode::Leading { leader, suspended: true } = &mut self.mode {
            // What heartbeats do not know is told when it leads on.
            leader.reset_retries();
        }
        if let Some(leader) = self.mode.leader_mut() {
            self.metrics.lag.record(began.saturating_duration_since(due));
            leader.flush(minute_of_day(), &self.jobs, now)?;
            self.metrics.flush.record(began.elapsed());
        }
        self.metrics.set_gauges(self.mode.leader());
        Ok(())
    }

    /// What somebody who has gone asked is not answered.
    fn handle_admin_request(&mut self, query: AdminRequest) {
        let now = self.clock.now();
        let leader = match &self.mode {
            Mode::Leading { leader, .. } => Ok(leader),
            Mode::Standby { .. } => Err(AdminError::Standby),
        };
        let engine = leader.map(|leader| leader.engine());
        match query {
            AdminRequest::Explain(question, answer) => {
                drop(answer.send(leader.map(|leader| leader.explain(&question, now))));
            }
            AdminRequest::Assignments(answer) => {
                // Where it may be wrong, it is compared with nothing.
                let told = match &self.mode {
                    Mode::Leading { suspended: true, .. } => Err(AdminError::Suspended),
                    _ => engine.map(assignments),
                };
                drop(answer.send(told));
            }
            AdminRequest::CopyEngine(answer) => drop(answer.send(engine.map(|engine| (engine.clone(), now)))),
            AdminRequest::SetRules(rules) => self.set_rules(rules, now),
            AdminRequest::Resign(answer) => drop(answer),
        }
    }

    fn set_rules(&mut self, rules: Arc<Rules>, now: Duration) {
        if let Mode::Leading { leader, .. } = &mut self.mode {
            leader.set_rules(rules.clone(), now);
        }
        self.settings.rules = rules;
    }

    /// Announces the nodes that are always there.
    fn announce_configured_nodes(&mut self) {
        let configured = self.settings.transports.iter().filter(|node| node.is_always_available());
        let inputs: Vec<Input> = configured.map(|node| Input::Transport(node.transport(0))).collect();
        inputs.into_iter().for_each(|input| self.apply(BusEvent::Input(input)));
    }

    fn report(&mut self) {
        let now = self.clock.now();
        if let Some(leader) = self.mode.leader_mut() {
            leader.report(&self.jobs, now);
        }
    }

    /// Says that this director leads, if it does.
    fn publish_discovery(&self) {
        let Some(leader) = self.mode.leader() else { return };
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
    async fn resign(self, office: Election, leads: bool, answer: Reply<()>) {
        self.metrics.set_gauges(None);
        if let Mode::Leading { leader, suspended: false } = self.mode
            && leads
        {
            for errand in leader.into_jobs() {
                // A messenger that is gone tells nothing any more.
                let _ = self.jobs.send(errand).await;
            }
            let (finished, finish) = oneshot::channel();
            let _ = self.jobs.send(PublishJob::Drain(finished)).await;
            let _ = finish.await;
        }
        office.resign().await;
        tracing::info!("leads no more, nor stands by");
        let _ = answer.send(Ok(()));
        std::future::pending().await
    }
}

/// The time of day, in minutes since midnight, UTC.
fn minute_of_day() -> u16 {
    (unix_ms(SystemTime::now()) / MINUTE_MS % DAY_MINUTES) as u16
}

#[cfg(test)]
mod tests;
