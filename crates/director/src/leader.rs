//! What a director does that leads: has the engine decide, and hands on what changed.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago::{
    Engine, Input, Output, SettingsError,
    explain::{Explanation, Question},
    rules::Rules,
};
use bus::Term;
use metrics::{Counter, Gauge};
use protocol::Position;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    assignment_retry::AssignmentRetry,
    decode::{BusEvent, Heartbeat},
    flush_batch::FlushBatch,
    jump_limiter::{JumpLimiter, Withheld},
    publisher::{IslandSummary, PublishJob, PublishTerm},
    standby::Handover,
};

/// Flushes whose news may wait; at the bound flushes are skipped, and counted, until some are taken.
const BATCH_QUEUE: usize = 240;
/// So many are told again at one flush: a load that made them miss something is not to grow by that.
const MAX_RESENDS_PER_FLUSH: usize = 1_000;
/// How often it is said that islands wait.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Nobody would be told anything any more.
#[derive(Debug)]
pub(crate) struct PublisherGone;

/// The engine, and what it decided that was not handed over yet.
pub(crate) struct Leader {
    engine: Engine,
    publish_term: PublishTerm,
    outputs: Vec<Output>,
    /// What the messenger was not handed yet, flush by flush.
    batches: VecDeque<FlushBatch>,
    /// One clone for what was handed over and has not been told yet.
    in_flight: Arc<()>,
    retry: AssignmentRetry,
    jump_limiter: JumpLimiter,
    /// How many are told again at the next flush.
    resent: usize,
    /// The minute of the day that the engine knows of.
    minute: u16,
    /// When it was last said that islands wait.
    last_warned: Option<Instant>,
    skipped: Counter,
    resends: Counter,
    deferred: Counter,
    waiting: Gauge,
}

impl Leader {
    /// Goes on where another ended. Fails with settings that have not been checked.
    pub(crate) fn take_over(
        settings: archipelago::Settings,
        started_ms: u64,
        succession: Handover,
        term: Term,
        now: Duration,
    ) -> Result<Self, SettingsError> {
        let Handover { snapshot: takeover, inputs: since, minted_after } = succession;
        let minute = takeover.minute.unwrap_or_default();
        let jumps = JumpLimiter::new(&settings, &takeover.rules);
        let mut engine = Engine::resume(settings, started_ms, takeover, now)?;
        since.into_iter().for_each(|input| engine.handle(input, now));
        Ok(Self {
            engine,
            publish_term: PublishTerm { term, minted_after },
            outputs: Vec::new(),
            batches: VecDeque::new(),
            in_flight: Arc::default(),
            retry: AssignmentRetry::default(),
            jump_limiter: jumps,
            resent: 0,
            minute,
            last_warned: None,
            skipped: metrics::counter!("atoll_director_flushes_skipped_total"),
            resends: metrics::counter!("atoll_director_retold_total"),
            deferred: metrics::counter!("atoll_director_positions_deferred_total"),
            waiting: metrics::gauge!("atoll_director_islands_waiting"),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The term in which it tells what it decides.
    pub(crate) fn term(&self) -> Term {
        self.publish_term.term
    }

    /// Leads on in another term, in whose interim nobody else led: what was not told yet is told now.
    pub(crate) fn continue_in_term(&mut self, term: Term) {
        self.publish_term.term = term;
    }

    pub(crate) fn handle(&mut self, heard: BusEvent, now: Duration) {
        match heard {
            BusEvent::Input(input) => self.engine.handle(input, now),
            BusEvent::Heartbeat(heartbeat) => self.heartbeat(heartbeat, now),
            // What it said itself.
            BusEvent::Assigned { .. }
            | BusEvent::MembershipsEnded { .. }
            | BusEvent::LeaderDiscovery { .. }
            | BusEvent::PeersWanted => {}
        }
    }

    fn heartbeat(&mut self, mut heartbeat: Heartbeat, now: Duration) {
        let (peer, session) = (heartbeat.peer, heartbeat.session);
        // Its connect was not heard: what that would have said is here, too.
        if heartbeat.assignment.is_some() && !self.engine.knows_session(peer, session) {
            self.engine.handle(heartbeat.to_connect_input(), now);
        }
        let told = heartbeat.assignment.take();
        let seen = self.engine.peer(peer).map(|peer| peer.position());
        let position = self.jump_limiter.filter(peer, session, heartbeat.position, seen, now);
        if position != heartbeat.position {
            self.deferred.increment(1);
            heartbeat.position = position;
        }
        self.engine.handle(heartbeat.into_input(), now);
        let Some(told) = told else { return };
        if self.has_unpublished_batches() || self.resent >= MAX_RESENDS_PER_FLUSH {
            return;
        }
        let said = (!told.island.is_empty()).then_some((&*told.island, &*told.node));
        let agrees = self.engine.matches_last_assignment(peer, session, said);
        if self.retry.observe(peer, agrees, now) {
            tracing::debug!(%peer, island = told.island, node = told.node, "has not heard what it was told");
            let from = told.island.parse().ok();
            self.engine.handle(Input::ResendAssignment { peer, session, from }, now);
            self.resends.increment(1);
            self.resent += 1;
        }
    }

    /// Hands the engine the withheld positions that may pass now.
    fn apply_due_positions(&mut self, now: Duration) {
        for (peer, Withheld { session, position }) in self.jump_limiter.release_due(now) {
            // One that has left, or has signed in anew, is not there any more.
            if self.engine.peer(peer).is_some_and(|peer| session.is_none() || peer.session() == session) {
                let input = Input::Heartbeat { peer, session, position, desired_room: None };
                self.engine.handle(input, now);
            }
        }
    }

    /// Answers a question, and says of a peer that it is about if the engine does not know yet where
    /// that peer is.
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
                "; {peer} jumps too often: its position is now ({x:.1}, {z:.1}), which counts in {wait:.1} s"
            );
        }
        explanation
    }

    pub(crate) fn set_rules(&mut self, rules: Arc<Rules>, now: Duration) {
        self.jump_limiter.set_distances(self.engine.settings(), &rules);
        self.engine.handle(Input::Rules(rules), now);
    }

    /// Flushes, unless too much waits already, and hands over what there are places for.
    pub(crate) fn flush(
        &mut self,
        minute: u16,
        errands: &mpsc::Sender<PublishJob>,
        now: Duration,
    ) -> Result<(), PublisherGone> {
        self.resent = 0;
        if self.batches.len() < BATCH_QUEUE {
            if std::mem::replace(&mut self.minute, minute) != minute {
                self.engine.handle(Input::TimeOfDay { minute }, now);
            }
            self.apply_due_positions(now);
            self.engine.flush(now, &mut self.outputs);
            if !self.outputs.is_empty() {
                let news = FlushBatch::from_outputs(&self.engine, &mut self.outputs);
                news.assigned.iter().for_each(|assigned| self.retry.on_assigned(assigned.peer, now));
                self.batches.push_back(news);
            }
        } else {
            self.skipped.increment(1);
        }
        while !self.batches.is_empty() {
            match errands.try_reserve() {
                Ok(place) => {
                    let news = self.batches.pop_front().unwrap_or_default();
                    place.send(PublishJob::Batch(self.publish_term, news, self.in_flight.clone()));
                }
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => return Err(PublisherGone),
            }
        }
        if self.has_unpublished_batches() {
            self.retry.clear();
        }
        self.report_waiting_islands(now);
        Ok(())
    }

    /// Whether something that was decided waits to be told: it is no wonder then that clients do not
    /// know it.
    fn has_unpublished_batches(&self) -> bool {
        !self.batches.is_empty() || Arc::strong_count(&self.in_flight) > 1
    }

    /// Takes nodes that are there for heard just now.
    pub(crate) fn refresh_nodes(&mut self, now: Duration) {
        let there = self.engine.transports().filter(|node| node.available);
        let nodes: Vec<_> = there.map(|node| node.transport.clone()).collect();
        nodes.into_iter().for_each(|node| self.engine.handle(Input::Transport(node), now));
    }

    /// What heartbeats say is old: nobody is told again for it.
    pub(crate) fn reset_retries(&mut self) {
        self.retry.clear();
    }

    /// Says once in a while that islands wait for a transport, and why the first does.
    fn report_waiting_islands(&mut self, now: Duration) {
        let (count, first) = self.engine.islands_without_transport();
        self.waiting.set(count as f64);
        let Some(first) = first else { return };
        if self.last_warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        let question = Question::Island(first.id());
        let why = self.engine.explain(&question, now).summary;
        tracing::warn!(count, why, "islands wait for a transport");
        self.last_warned = Some(Instant::now());
    }

    /// Has everybody's place reported, unless the messenger is behind: the next report says it.
    pub(crate) fn report(&mut self, errands: &mpsc::Sender<PublishJob>, now: Duration) {
        let engine = &self.engine;
        self.retry.retain(|peer| engine.peer(peer).is_some());
        self.jump_limiter.retain(|peer| engine.peer(peer).is_some(), now);
        let Ok(place) = errands.try_reserve() else { return };
        let islands = self.engine.islands().map(|island| IslandSummary {
            id: island.id(),
            peers: island.members().map(|(peer, _)| peer).collect(),
            max_peers: island.max_peers(),
            center: island.center(),
            radius_m: island.radius(),
        });
        place.send(PublishJob::Report(self.publish_term, islands.collect()));
    }

    /// What was decided and not handed over yet, in order.
    pub(crate) fn into_jobs(self) -> impl Iterator<Item = PublishJob> {
        let mandate = self.publish_term;
        self.batches.into_iter().map(move |news| PublishJob::Batch(mandate, news, self.in_flight.clone()))
    }
}

#[cfg(test)]
mod tests;
