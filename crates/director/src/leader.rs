//! The leading director: runs the engine and passes the changes to the publisher.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ::metrics::{Counter, Gauge};
use archipelago::{
    Engine, Heartbeat, Input, Output, SettingsError,
    explain::{Explanation, Question},
};
use bus::Term;
use protocol::{Position, timing::TAKEOVER_SETTLING, unix_ms};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    decode::BusEvent,
    flush_batch::FlushBatch,
    jump_limiter::{JumpLimiter, Withheld},
    meshes::{MeshHandle, MeshIsland, MeshMember, Snapshot},
    metrics,
    publisher::{IslandSummary, PublishJob, PublishTerm},
    standby::Handover,
};

/// Flushes that can wait for the publisher; when the queue is full, flushes are skipped and counted until
/// there is room.
const BATCH_QUEUE: usize = 240;
/// The shortest time between two warnings about waiting islands.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The publisher has ended: no change can be published any more.
#[derive(Debug)]
pub(crate) struct PublisherGone;

/// The engine, and the changes that were not passed to the publisher yet.
pub(crate) struct Leader {
    engine: Engine,
    publish_term: PublishTerm,
    took_over_at: Duration,
    outputs: Vec<Output>,
    /// Batches that were not passed to the publisher yet, one a flush.
    batches: VecDeque<FlushBatch>,
    /// Counts the batches that the publisher has but did not finish: each of them holds a clone.
    in_flight: Arc<()>,
    /// Whether the last flush changed anything.
    changed: bool,
    jump_limiter: JumpLimiter,
    /// The minute of the day that the engine uses.
    minute: u16,
    /// When the last warning about waiting islands was logged.
    last_warned: Option<Instant>,
    skipped: Counter,
    resends: Counter,
    deferred: Counter,
    waiting: Gauge,
}

impl Leader {
    /// Continues from the state of a replica. Fails if the settings are invalid.
    pub(crate) fn take_over(
        settings: archipelago::Settings,
        started_ms: u64,
        handover: Handover,
        term: Term,
        now: Duration,
    ) -> Result<Self, SettingsError> {
        let Handover { snapshot, inputs, minted_after } = handover;
        let minute = snapshot.minute.unwrap_or_default();
        let jump_limiter = JumpLimiter::new(&settings, &snapshot.rules);
        let mut engine = Engine::resume(settings, started_ms, snapshot, now)?;
        inputs.into_iter().for_each(|input| engine.handle(input, now));
        Ok(Self {
            engine,
            publish_term: PublishTerm { term, minted_after, leader: started_ms },
            took_over_at: now,
            outputs: Vec::new(),
            batches: VecDeque::new(),
            in_flight: Arc::default(),
            changed: false,
            jump_limiter,
            minute,
            last_warned: None,
            skipped: metrics::skipped_flushes(),
            resends: metrics::resends(),
            deferred: metrics::deferred_positions(),
            waiting: metrics::waiting_islands(),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The term in which its changes are published.
    pub(crate) fn term(&self) -> Term {
        self.publish_term.term
    }

    /// Whether it has led for long enough that every gateway has repeated the position of each client.
    pub(crate) fn knows_all_peers(&self, now: Duration) -> bool {
        now.saturating_sub(self.took_over_at) >= TAKEOVER_SETTLING
    }

    /// It leads again after a time in which it received no messages: it may not know all peers.
    pub(crate) fn resume(&mut self, now: Duration) {
        self.took_over_at = now;
    }

    /// Continues in a later term; no other director led in between. Changes that were not published yet are
    /// published in that term.
    pub(crate) fn continue_in_term(&mut self, term: Term) {
        self.publish_term.term = term;
    }

    pub(crate) fn handle(&mut self, event: BusEvent, now: Duration) {
        match event {
            BusEvent::Input(input) => self.input(input, now),
            BusEvent::Heartbeat { heartbeat, .. } => self.heartbeat(heartbeat, now),
            // Its own messages.
            BusEvent::Assigned { .. }
            | BusEvent::MembershipsEnded { .. }
            | BusEvent::LeaderDiscovery { .. }
            | BusEvent::PeersWanted => {}
        }
    }

    fn input(&mut self, input: Input, now: Duration) {
        if let Input::Rules(rules) = &input {
            self.jump_limiter.set_distances(self.engine.settings(), rules);
        }
        self.engine.handle(input, now);
    }

    fn heartbeat(&mut self, mut heartbeat: Heartbeat, now: Duration) {
        let Heartbeat { peer, session, position, .. } = heartbeat;
        let current = || self.engine.peer(peer).map(|peer| peer.position());
        heartbeat.position = self.jump_limiter.filter(peer, session, position, current, now);
        if heartbeat.position != position {
            self.deferred.increment(1);
        }
        // The client may report its last assignment only because the newer one waits for the publisher.
        if self.has_unpublished_batches()
            && let Some(client) = &mut heartbeat.client
        {
            client.last_assigned = None;
        }
        self.engine.handle(Input::Heartbeat(heartbeat), now);
    }

    /// Passes the withheld positions that are due to the engine.
    fn apply_due_positions(&mut self, now: Duration) {
        for (peer, Withheld { session, position }) in self.jump_limiter.release_due(now) {
            // The peer may have left, or have a newer session.
            if self.engine.peer(peer).is_some_and(|peer| session.is_none() || peer.session() == session) {
                let heartbeat = Heartbeat { session, ..Heartbeat::new(peer, position) };
                self.engine.handle(Input::Heartbeat(heartbeat), now);
            }
        }
    }

    /// Answers a question. If it is about a peer with a withheld position, the answer names that position.
    pub(crate) fn explain(&self, question: &Question, now: Duration) -> Explanation {
        let mut explanation = self.engine.explain(question, now);
        let peers = match *question {
            Question::Peer(peer) => [Some(peer), None],
            Question::Pair(one, other) => [Some(one), Some(other)],
            Question::At(_) | Question::Island(_) => [None, None],
        };
        for peer in peers.into_iter().flatten() {
            let Some((position, wait)) = self.jump_limiter.withheld(peer, now) else { continue };
            let (Position { x, z, .. }, wait) = (position, wait.as_secs_f64());
            explanation.summary += &format!(
                "; {peer} jumps too often: its position ({x:.1}, {z:.1}) is withheld for {wait:.1} s"
            );
        }
        explanation
    }

    /// Flushes the engine unless too many batches wait, and passes as many batches to the publisher as it has
    /// room for.
    pub(crate) fn flush(
        &mut self,
        minute: u16,
        jobs: &mpsc::Sender<PublishJob>,
        now: Duration,
    ) -> Result<(), PublisherGone> {
        if self.batches.len() < BATCH_QUEUE {
            if std::mem::replace(&mut self.minute, minute) != minute {
                self.engine.handle(Input::TimeOfDay { minute }, now);
            }
            self.apply_due_positions(now);
            self.engine.flush(now, &mut self.outputs);
            self.changed = !self.outputs.is_empty();
            if self.changed {
                let batch = FlushBatch::from_outputs(&mut self.outputs);
                self.resends.increment(batch.missed_count);
                self.batches.push_back(batch);
            }
        } else {
            self.skipped.increment(1);
        }
        while !self.batches.is_empty() {
            match jobs.try_reserve() {
                Ok(permit) => {
                    let batch = self.batches.pop_front().unwrap_or_default();
                    permit.send(PublishJob::Batch(self.publish_term, batch, self.in_flight.clone()));
                }
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => return Err(PublisherGone),
            }
        }
        if self.has_unpublished_batches() {
            self.discard_reports(now);
        }
        self.report_waiting_islands(now);
        Ok(())
    }

    /// Whether batches are still unpublished: then clients cannot know their assignments yet.
    fn has_unpublished_batches(&self) -> bool {
        !self.batches.is_empty() || Arc::strong_count(&self.in_flight) > 1
    }

    /// Gives all available nodes a new timeout.
    pub(crate) fn refresh_nodes(&mut self, now: Duration) {
        let available = self.engine.transports().filter(|node| node.available);
        let nodes: Vec<_> = available.map(|node| node.transport.clone()).collect();
        nodes.into_iter().for_each(|node| self.engine.handle(Input::Transport(node), now));
    }

    /// Forgets the assignments that heartbeats reported, because they are old: they cause no resend.
    pub(crate) fn discard_reports(&mut self, now: Duration) {
        self.engine.handle(Input::ReportsOutdated, now);
    }

    /// Logs now and then that islands wait for a transport, with the reason for the first one.
    fn report_waiting_islands(&mut self, now: Duration) {
        let (count, first) = self.engine.islands_without_transport();
        self.waiting.set(count as f64);
        let Some(first) = first else { return };
        if self.last_warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        let question = Question::Island(first.id());
        let reason = self.engine.explain(&question, now).summary;
        tracing::warn!(count, reason, "islands wait for a transport");
        self.last_warned = Some(Instant::now());
    }

    /// Passes a report of all islands to the publisher. It is skipped when the publisher's queue is full; the
    /// next one has the same content. Also forgets peers that are gone.
    pub(crate) fn report(&mut self, jobs: &mpsc::Sender<PublishJob>, now: Duration) {
        let engine = &self.engine;
        self.jump_limiter.retain(|peer| engine.peer(peer).is_some(), now);
        let Ok(permit) = jobs.try_reserve() else { return };
        let islands = self.engine.islands().map(|island| IslandSummary {
            id: island.id(),
            peers: island.members().map(|(peer, _)| peer).collect(),
            max_peers: island.max_peers(),
            center: island.center(),
            radius_m: island.radius(),
            node: island.room_node().cloned(),
        });
        permit.send(PublishJob::Report(self.publish_term, islands.collect()));
    }

    /// Whether the last flush changed anything.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// Passes the islands on p2p nodes to the task of their meshes. `took_over`: meshes of another leader exist.
    pub(crate) fn send_islands(&self, meshes: &MeshHandle, took_over: bool) {
        if meshes.is_empty() {
            return;
        }
        let islands = self.engine.islands().filter_map(|island| {
            let node = island.room_node().filter(|node| meshes.hosts(node))?.clone();
            let member = |(address, position)| {
                let session = self.engine.peer(address).and_then(|peer| peer.session());
                MeshMember { address, session, position }
            };
            let members = island.members().map(member).collect();
            Some(MeshIsland { id: island.id(), node, limits: island.mesh_limits(), members })
        });
        let islands = islands.collect();
        meshes.send(Snapshot { publish_term: self.publish_term, took_over, islands });
    }

    /// Publishes the batches that were not passed to the publisher yet, and waits until all are written.
    pub(crate) async fn publish_rest(self, jobs: &mpsc::Sender<PublishJob>) {
        for job in self.into_jobs() {
            // If the publisher has ended, the job is lost.
            let _ = jobs.send(job).await;
        }
        let (done_sender, done) = oneshot::channel();
        let _ = jobs.send(PublishJob::Drain(done_sender)).await;
        let _ = done.await;
    }

    /// The batches that were not passed to the publisher yet, in order.
    fn into_jobs(self) -> impl Iterator<Item = PublishJob> {
        let publish_term = self.publish_term;
        self.batches
            .into_iter()
            .map(move |batch| PublishJob::Batch(publish_term, batch, self.in_flight.clone()))
    }
}

/// The start time of an engine, in milliseconds since the Unix epoch, which becomes part of its island ids:
/// unique within this process.
pub(crate) fn next_start_ms() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_ms(SystemTime::now());
    let next = |last: u64| Some(now.max(last + 1));
    // The closure always returns `Some`, so this is the previous value.
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
    now.max(last + 1)
}

#[cfg(test)]
mod tests;
