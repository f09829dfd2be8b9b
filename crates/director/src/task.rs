//! The task that owns a director's state and flushes on a timer.

use std::time::{Duration, Instant, SystemTime};

use archipelago::Input;
use bus::{Bus, ElectionState, Envelope, Headers, Subscription, Term};
use protocol::{
    Message as _, Subject,
    timing::NODE_ANNOUNCE_INTERVAL,
    unix_ms,
    v3::{ServiceDiscoveryMessage, ServiceStatus},
};
use tokio::{
    sync::mpsc,
    time::{self, MissedTickBehavior},
};

use crate::{
    admin::{AdminError, AdminRequest, Reply, assignments},
    decode::{BusEvent, SERVER_NAME, decode},
    election::Election,
    leader::{Leader, PublisherGone, next_start_ms},
    leadership::Leadership,
    meshes::MeshHandle,
    mode::Mode,
    pausable_clock::{PausableClock, minute_of_day},
    publisher::PublishJob,
    settings::Settings,
    task_metrics::TaskMetrics,
};

/// A flush that is this late means that the process was paused: the messages that arrived meanwhile are
/// processed before silent peers are removed.
const PAUSE_THRESHOLD: Duration = Duration::from_secs(1);
/// The shortest time between two replies to `peers.wanted`.
const DISCOVERY_REPLY_INTERVAL: Duration = Duration::from_millis(250);
/// With a longer backlog than this the heartbeats being processed are old.
const LATE_BACKLOG: usize = 16_384;

/// The state of a director, and its clock.
pub(crate) struct DirectorTask {
    settings: Settings,
    bus: Bus,
    clock: PausableClock,
    jobs: mpsc::Sender<PublishJob>,
    meshes: MeshHandle,
    mode: Mode,
    /// The latest epoch of a director's message received here.
    latest_epoch: u64,
    /// When it last replied to `peers.wanted`.
    last_discovery_reply: Option<Instant>,
    leadership: Leadership,
    metrics: TaskMetrics,
}

impl DirectorTask {
    /// A task that starts as a standby.
    pub(crate) fn new(
        mut settings: Settings,
        bus: Bus,
        jobs: mpsc::Sender<PublishJob>,
        meshes: MeshHandle,
        leadership: Leadership,
    ) -> Self {
        // From now on the mode holds the rules.
        let mode = Mode::new_standby(&bus, std::mem::take(&mut settings.rules));
        let (clock, metrics) = (PausableClock::new(), TaskMetrics::new());
        Self {
            settings,
            bus,
            clock,
            jobs,
            meshes,
            mode,
            latest_epoch: 0,
            last_discovery_reply: None,
            leadership,
            metrics,
        }
    }

    /// Runs until the bus is closed or the publisher has ended.
    pub(crate) async fn run(
        mut self,
        mut election: Election,
        mut subscription: Subscription,
        mut node_inputs: mpsc::Receiver<Input>,
        mut admin_requests: mpsc::Receiver<AdminRequest>,
    ) {
        let interval = |period: Duration| {
            let mut ticks = time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        let mut flushes = interval(self.settings.flush_interval);
        let mut reports = interval(self.settings.report_interval);
        let mut discoveries = interval(self.settings.discovery_interval);
        let mut announcements = interval(NODE_ANNOUNCE_INTERVAL);
        let mut reconnects = self.bus.reconnects();
        loop {
            tokio::select! {
                biased;
                due = flushes.tick() => {
                    let due = due.into_std();
                    if self.flush_due(due, &mut election, &mut subscription, &mut node_inputs).is_err() {
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
                Ok(()) = reconnects.changed() => election.request_peers(),
                // The channel is closed if there is no LiveKit server.
                Some(input) = node_inputs.recv() => self.apply(BusEvent::Input(input)),
                // The channel is closed if no handle exists.
                Some(request) = admin_requests.recv() => match request {
                    AdminRequest::Resign(reply) => {
                        let is_leader = matches!(election.state(), ElectionState::Leader(_));
                        drop((subscription, node_inputs, admin_requests));
                        return self.resign(election, is_leader, reply).await;
                    }
                    request => self.handle_admin_request(request),
                },
                Some(envelope) = self.mode.next_leader_message() => self.handle_envelope(&envelope),
                envelope = subscription.next() => match envelope {
                    Some(envelope) => self.handle_envelope(&envelope),
                    None => return,
                },
            }
        }
    }

    /// A flush was due at `due`: follows the election, then flushes.
    fn flush_due(
        &mut self,
        due: Instant,
        election: &mut Election,
        subscription: &mut Subscription,
        node_inputs: &mut mpsc::Receiver<Input>,
    ) -> Result<(), PublisherGone> {
        let late = due.elapsed();
        if late > PAUSE_THRESHOLD {
            self.clock.skip(late);
            self.refresh_nodes();
        }
        if late > PAUSE_THRESHOLD || self.should_take_over(election.state()) {
            self.drain_inputs(subscription, node_inputs);
        }
        if subscription.backlog() > LATE_BACKLOG
            && let Some(leader) = self.mode.leader_mut()
        {
            leader.discard_reports(self.clock.now());
        }
        // The state is read again, because draining may have taken long.
        let state = election.state();
        let is_leader_known = election.is_campaigning() && state != ElectionState::Unknown;
        self.leadership.set_known(is_leader_known && !self.bus.is_disconnected());
        if self.apply_election_state(state) {
            election.start_listening();
        }
        self.flush(due)
    }

    /// Whether it is a standby that has won the election.
    fn should_take_over(&self, state: ElectionState) -> bool {
        matches!((&self.mode, state), (Mode::Standby { .. }, ElectionState::Leader(_)))
    }

    /// Processes all messages that have arrived.
    fn drain_inputs(&mut self, subscription: &mut Subscription, node_inputs: &mut mpsc::Receiver<Input>) {
        // Only those: more may arrive without end meanwhile.
        for envelope in (0..subscription.backlog()).map_while(|_| subscription.try_next()) {
            self.handle_envelope(&envelope);
        }
        let messages: Vec<Envelope> = match &mut self.mode {
            Mode::Standby { leader_messages, .. } => {
                (0..leader_messages.backlog()).map_while(|_| leader_messages.try_next()).collect()
            }
            Mode::Leading { .. } => Vec::new(),
        };
        messages.iter().for_each(|envelope| self.handle_envelope(envelope));
        while let Ok(input) = node_inputs.try_recv() {
            self.apply(BusEvent::Input(input));
        }
        self.announce_configured_nodes();
    }

    fn handle_envelope(&mut self, envelope: &Envelope) {
        let Some(event) = decode(envelope, &self.settings) else { return };
        match &event {
            BusEvent::Heartbeat { epoch, .. } => {
                self.metrics.heartbeats.increment(1);
                self.bus.observe_epoch(*epoch);
            }
            BusEvent::Assigned { .. }
            | BusEvent::MembershipsEnded { .. }
            | BusEvent::LeaderDiscovery { .. } => {
                self.latest_epoch = self.latest_epoch.max(envelope.headers.epoch.unwrap_or_default());
            }
            BusEvent::PeersWanted => self.reply_with_discovery(),
            BusEvent::Input(_) => {}
        }
        self.apply(event);
    }

    fn apply(&mut self, event: BusEvent) {
        let now = self.clock.now();
        match &mut self.mode {
            Mode::Standby { replica, .. } => replica.handle(event, now, unix_ms(SystemTime::now())),
            Mode::Leading { leader, .. } => leader.handle(event, now),
        }
    }

    /// Takes over, suspends or steps down, as the election requires. Returns whether it stepped down, so that
    /// its state is empty.
    fn apply_election_state(&mut self, state: ElectionState) -> bool {
        // While the bus is disconnected, a takeover could not be announced.
        let state = if self.bus.is_disconnected() { ElectionState::Unknown } else { state };
        if self.clock.set_paused(state == ElectionState::Unknown) {
            self.refresh_nodes();
        }
        match (&mut self.mode, state) {
            (Mode::Standby { .. }, ElectionState::Leader(term)) => self.take_over(term),
            (Mode::Standby { .. }, ElectionState::Standby | ElectionState::Unknown) => {}
            (Mode::Leading { leader, suspended }, ElectionState::Leader(term))
                // Unless another director led in between.
                if term == leader.term() || self.latest_epoch <= leader.term().epoch.unwrap_or_default() =>
            {
                if std::mem::replace(suspended, false) {
                    tracing::info!(epoch = term.epoch, "leads again");
                    leader.resume(self.clock.now());
                }
                leader.continue_in_term(term);
            }
            (Mode::Leading { leader, .. }, ElectionState::Leader(_) | ElectionState::Standby) => {
                tracing::info!(epoch = leader.term().epoch, "stepped down to standby");
                self.mode = Mode::new_standby(&self.bus, leader.engine().rules().clone());
                return true;
            }
            (Mode::Leading { leader, suspended }, ElectionState::Unknown) => {
                if !std::mem::replace(suspended, true) {
                    tracing::warn!(epoch = leader.term().epoch, "suspended: the leader is unknown");
                }
            }
        }
        false
    }

    /// Gives all known nodes a new timeout, because their announcements could not be received for a while.
    fn refresh_nodes(&mut self) {
        let now = self.clock.now();
        match &mut self.mode {
            Mode::Standby { replica, .. } => replica.refresh_nodes(now),
            Mode::Leading { leader, .. } => leader.refresh_nodes(now),
        }
    }

    /// Replies to `peers.wanted`: a participant that has just subscribed also needs to know whether there is
    /// a leader.
    fn reply_with_discovery(&mut self) {
        if self.last_discovery_reply.is_none_or(|at| at.elapsed() >= DISCOVERY_REPLY_INTERVAL) {
            self.last_discovery_reply = Some(Instant::now());
            self.publish_discovery();
        }
    }

    /// Becomes the leader, with an engine that continues from the replica.
    fn take_over(&mut self, term: Term) {
        let now = self.clock.now();
        self.expire_replica();
        let Mode::Standby { replica, .. } = &mut self.mode else { return };
        let unix_ms = unix_ms(SystemTime::now());
        let handover = std::mem::take(replica).hand_over(minute_of_day(), unix_ms);
        let leader = Leader::take_over(self.settings.engine.clone(), next_start_ms(), handover, term, now);
        let leader = Box::new(leader.expect("settings were validated by Director::new"));
        let (peers, islands) = (leader.engine().peers_count(), leader.engine().islands_count());
        tracing::info!(epoch = term.epoch, peers, islands, "leads");
        leader.send_islands(&self.meshes, true);
        self.mode = Mode::Leading { leader, suspended: false };
        self.metrics.takeovers.increment(1);
        // From now on the bus drops messages that the previous leader may still publish (fencing).
        self.publish_discovery();
    }

    /// Removes expired peers and nodes of the replica, if there is one.
    fn expire_replica(&mut self) {
        let now = self.clock.now();
        if let Mode::Standby { replica, .. } = &mut self.mode {
            replica.expire(&self.settings.engine, now);
        }
    }

    fn flush(&mut self, due: Instant) -> Result<(), PublisherGone> {
        let start = Instant::now();
        let now = self.clock.now();
        if let Mode::Leading { leader, suspended: true } = &mut self.mode {
            // Mismatching heartbeats are handled after it resumes.
            leader.discard_reports(now);
        }
        if let Some(leader) = self.mode.leader_mut() {
            self.metrics.lag.record(start.saturating_duration_since(due));
            leader.flush(minute_of_day(), &self.jobs, now)?;
            if leader.changed() {
                leader.send_islands(&self.meshes, false);
            }
            self.metrics.flush.record(start.elapsed());
        }
        self.metrics.set_gauges(self.mode.leader());
        Ok(())
    }

    /// A reply to a requester that is gone is dropped.
    fn handle_admin_request(&mut self, request: AdminRequest) {
        let now = self.clock.now();
        let leader = match &self.mode {
            Mode::Leading { leader, .. } => Ok(leader),
            Mode::Standby { .. } => Err(AdminError::Standby),
        };
        let engine = leader.map(|leader| leader.engine());
        match request {
            AdminRequest::Explain(question, reply) => {
                drop(reply.send(leader.map(|leader| leader.explain(&question, now))));
            }
            AdminRequest::Assignments(reply) => {
                // The assignments may be outdated, so the caller must not compare them with anything.
                let assignments = match &self.mode {
                    Mode::Leading { suspended: true, .. } => Err(AdminError::Suspended),
                    _ => engine.map(assignments),
                };
                drop(reply.send(assignments));
            }
            AdminRequest::AssignedRooms { node, island, reply } => {
                let rooms = self.mode.assigned_rooms(&node, island.as_ref(), now);
                drop(reply.send(rooms));
            }
            AdminRequest::CopyEngine(reply) => drop(reply.send(engine.map(|engine| (engine.clone(), now)))),
            AdminRequest::SetRules(rules, reply) => {
                let changed = **self.mode.rules() != *rules;
                if changed {
                    self.apply(BusEvent::Input(Input::Rules(rules)));
                }
                let _ = reply.send(Ok(changed));
            }
            AdminRequest::Resign(reply) => drop(reply),
        }
    }

    /// Announces the configured nodes that need no probe to the engine.
    fn announce_configured_nodes(&mut self) {
        let configured = self.settings.transports.iter().filter(|node| node.is_always_available());
        let inputs: Vec<Input> = configured.map(|node| Input::Transport(node.transport(0))).collect();
        inputs.into_iter().for_each(|input| self.apply(BusEvent::Input(input)));
    }

    fn report(&mut self) {
        let now = self.clock.now();
        if let Some(leader) = self.mode.leader_mut() {
            leader.report(&self.jobs, now);
            // Positions of members change without a change of islands.
            leader.send_islands(&self.meshes, false);
        }
    }

    /// Publishes `engine.discovery`, if this director leads.
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

    /// Publishes all decided batches if it `is_leader`, releases the lease and then stays idle.
    async fn resign(self, election: Election, is_leader: bool, reply: Reply<()>) {
        self.metrics.set_gauges(None);
        if let Mode::Leading { leader, suspended: false } = self.mode
            && is_leader
        {
            leader.publish_rest(&self.jobs).await;
        }
        election.resign().await;
        tracing::info!("stopped leading for good");
        let _ = reply.send(Ok(()));
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
