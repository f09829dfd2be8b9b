//! Plans, signals, and the links that follow from them.

use protocol::{
    Address,
    mesh::{LinkReport, Member, Plan, Signal, signal::Content},
};
use rand::RngExt as _;
use tokio::time::Instant;
use webrtc::{
    error::{Error, Result},
    peer_connection::RTCPeerConnectionState as State,
};

use super::{counters::count, event::Event, link::Link, negotiation::Action, task::Task};
use crate::connection::{ConnectionEvent, ConnectionEventKind};

impl Task {
    /// Applies a plan of the director.
    pub(crate) async fn plan(&mut self, plan: Plan, now: Instant) {
        let known = self.router.newest().map(|newest| newest.members.clone());
        if let Err(error) = self.router.accept(plan, now) {
            tracing::debug!(%error, "a plan of the mesh was refused");
            return count(&self.counters.refused_plans);
        }
        let Some(newest) = self.router.newest() else { return };
        let links: Vec<_> = newest.links.iter().take(self.limits.max_links).copied().collect();
        if known.as_ref() != Some(&newest.members) {
            let (alias, members) = (newest.alias, newest.members.clone());
            self.emit(Event::Members { alias, members });
        }
        self.neighbours.list(self.own, &links, &self.limits, now);
        self.report.changed(now);
        for (address, _) in links {
            if let Some((id, sdp)) = self.early.take_offer(address, now) {
                self.offer_received(address, id, sdp, now).await;
            }
        }
    }

    /// Applies a signal, which the gateway has authenticated.
    pub(crate) async fn signal(&mut self, signal: Signal, now: Instant) {
        let Signal { island_id, peer, negotiation: id, content } = signal;
        let (Ok(from), Some(content)) = (peer.parse::<Address>(), content) else {
            return count(&self.counters.refused_signals);
        };
        if island_id != self.router.island_id() || from == self.own {
            return count(&self.counters.refused_signals);
        }
        if let Content::Fallback(data) = content {
            let received = self.router.receive_fallback(from, data);
            return self.received(received);
        }
        let is_welcome = match self.neighbours.0.get(&from) {
            Some(neighbour) if neighbour.is_cut_off(now) => return count(&self.counters.refused_signals),
            Some(neighbour) => neighbour.is_welcome(now),
            None => false,
        };
        match content {
            Content::Offer(sdp) if is_welcome => self.offer_received(from, id, sdp, now).await,
            Content::Answer(sdp) if is_welcome => self.answer_received(from, id, sdp, now).await,
            Content::Candidate(json) => self.candidate_received(from, id, json, now).await,
            // The plan of the other member may have arrived before the own one.
            Content::Offer(sdp) => {
                if !self.early.keep_offer(from, id, sdp, now) {
                    count(&self.counters.refused_signals);
                }
            }
            _ => count(&self.counters.refused_signals),
        }
    }

    async fn offer_received(&mut self, from: Address, id: u32, sdp: String, now: Instant) {
        let Some(neighbour) = self.neighbours.0.get_mut(&from) else { return };
        if !neighbour.admits_offer(now) {
            return count(&self.counters.refused_signals);
        }
        let done = match neighbour.negotiation.offer_received(id, now) {
            Some(Action::AnswerRestart) => self.answer_restart(from, id, sdp).await,
            Some(_) => self.answer_new(from, id, sdp, now).await,
            None => return count(&self.counters.refused_signals),
        };
        self.check(from, done, now);
        self.report.changed(now);
    }

    async fn answer_new(&mut self, from: Address, id: u32, sdp: String, now: Instant) -> Result<()> {
        self.close_link(from);
        let mut link = self.open_link(now).await?;
        let answer = link.answer(sdp).await?;
        for candidate in self.early.take_candidates(from, id, now) {
            // A candidate of another address family cannot be used.
            let _ = link.add_candidate(&candidate).await;
        }
        self.keep_link(from, link);
        self.send_signal(from, id, Content::Answer(answer));
        Ok(())
    }

    async fn answer_restart(&mut self, from: Address, id: u32, sdp: String) -> Result<()> {
        let settings = self.settings.clone();
        let answer = self.link(from)?.answer_restart(settings, sdp).await?;
        self.send_signal(from, id, Content::Answer(answer));
        Ok(())
    }

    async fn answer_received(&mut self, from: Address, id: u32, sdp: String, now: Instant) {
        let Some(neighbour) = self.neighbours.0.get_mut(&from) else { return };
        if neighbour.negotiation.answer_received(id).is_none() {
            return count(&self.counters.refused_signals);
        }
        let done = match self.link(from) {
            Ok(link) => link.accept_answer(sdp).await,
            Err(error) => Err(error),
        };
        self.check(from, done, now);
    }

    async fn candidate_received(&mut self, from: Address, id: u32, json: String, now: Instant) {
        let neighbour = self.neighbours.0.get_mut(&from).filter(|neighbour| neighbour.is_welcome(now));
        let current = neighbour.filter(|neighbour| neighbour.negotiation.is_current(id));
        let is_used = match current.and_then(|neighbour| neighbour.link.as_mut()) {
            // One that cannot be used is ignored: it may have another address family.
            Some(link) => link.add_candidate(&json).await.is_ok(),
            None => self.early.keep_candidate(from, id, json, now),
        };
        if !is_used {
            count(&self.counters.refused_signals);
        }
    }

    /// Performs an action of a timer or of an interruption.
    pub(crate) async fn perform(&mut self, address: Address, action: Action, now: Instant) {
        let done = match action {
            Action::Offer { id } => self.offer(address, id, now).await,
            Action::OfferRestart { id } => self.offer_restart(address, id).await,
            _ => {
                count(&self.counters.failed_attempts);
                self.close_link(address);
                self.report.changed(now);
                Ok(())
            }
        };
        self.check(address, done, now);
    }

    async fn offer(&mut self, address: Address, id: u32, now: Instant) -> Result<()> {
        self.close_link(address);
        let mut link = self.open_link(now).await?;
        let offer = link.offer(&self.reader()).await?;
        self.keep_link(address, link);
        self.send_signal(address, id, Content::Offer(offer));
        Ok(())
    }

    async fn offer_restart(&mut self, address: Address, id: u32) -> Result<()> {
        count(&self.counters.restarts);
        let settings = self.settings.clone();
        let offer = self.link(address)?.offer_restart(settings).await?;
        self.send_signal(address, id, Content::Offer(offer));
        Ok(())
    }

    /// Drops the attempt to link if it failed.
    fn check(&mut self, address: Address, done: Result<()>, now: Instant) {
        if let Err(error) = done {
            // Errors may quote SDP, which contains addresses and secrets.
            let kind = std::mem::discriminant(&error);
            tracing::debug!(%address, ?kind, "a link of the mesh could not be negotiated");
            self.lost(address, now);
        }
    }

    /// The connection has ended, or could not be negotiated.
    pub(crate) fn lost(&mut self, address: Address, now: Instant) {
        count(&self.counters.failed_attempts);
        self.close_link(address);
        if let Some(neighbour) = self.neighbours.0.get_mut(&address) {
            neighbour.negotiation.lost(now);
        }
        self.report.changed(now);
    }

    /// Applies an event of a connection.
    pub(crate) async fn connection_event(&mut self, event: ConnectionEvent<u64>, now: Instant) {
        let reader = self.reader();
        let Some((address, neighbour)) = self.neighbours.of_link(event.source) else { return };
        let Some(link) = &mut neighbour.link else { return };
        match event.kind {
            ConnectionEventKind::Candidate(json) => {
                if let Some(id) = neighbour.negotiation.id().filter(|_| link.permits(&json)) {
                    self.send_signal(address, id, Content::Candidate(json));
                }
            }
            ConnectionEventKind::Channel(channel) => {
                if !link.accept_channel(channel, &reader).await {
                    self.lost(address, now);
                }
            }
            ConnectionEventKind::ChannelOpened(label) => {
                link.channel_opened(label);
                if link.is_open() {
                    neighbour.negotiation.connected(now);
                    self.report.changed(now);
                }
            }
            ConnectionEventKind::ChannelClosed
            | ConnectionEventKind::State(State::Failed | State::Closed) => {
                self.lost(address, now);
            }
            ConnectionEventKind::State(State::Disconnected) => {
                let action = neighbour.negotiation.interrupted(now);
                self.report.changed(now);
                if let Some(action) = action {
                    self.perform(address, action, now).await;
                }
            }
            ConnectionEventKind::State(State::Connected) if link.is_open() => {
                neighbour.negotiation.connected(now);
                self.report.changed(now);
            }
            ConnectionEventKind::State(_) => {}
        }
    }

    /// Applies everything that is due.
    pub(crate) async fn run_timers(&mut self, now: Instant) {
        while let Some(received) = self.router.next_released(now) {
            self.received(received);
        }
        let addresses: Vec<Address> = self.neighbours.0.keys().copied().collect();
        for address in addresses {
            let Some(neighbour) = self.neighbours.0.get_mut(&address) else { continue };
            if neighbour.is_over(now) {
                self.close_link(address);
                self.neighbours.0.remove(&address);
                self.report.changed(now);
            } else if neighbour.is_welcome(now) {
                let id = rand::rng().random_range(1..=u32::MAX);
                if let Some(action) = neighbour.negotiation.due(id, now) {
                    self.perform(address, action, now).await;
                } else if neighbour.link.as_mut().is_some_and(|link| link.is_stalled(now)) {
                    count(&self.counters.overflows);
                    self.lost(address, now);
                }
            }
        }
        if let Some((sent, sent_by_fallback)) = self.report.take(now) {
            self.emit_report(sent, sent_by_fallback, now);
        }
    }

    /// The time of the next timer.
    pub(crate) fn due_time(&self, now: Instant) -> Option<Instant> {
        let neighbours = self.neighbours.0.values().filter_map(|neighbour| neighbour.due_time(now));
        neighbours.chain(self.router.release_time()).chain(self.report.due_time()).min()
    }

    fn emit_report(&mut self, sent: u32, sent_by_fallback: u32, now: Instant) {
        let Some(newest) = self.router.newest() else { return };
        let mut report = LinkReport {
            island_id: self.router.island_id().to_owned(),
            version: newest.version,
            sent,
            sent_by_fallback,
            alias: newest.alias,
            highest_alias: newest.highest_alias(),
            ..LinkReport::default()
        };
        for (address, neighbour) in &self.neighbours.0 {
            let Some(alias) = newest.alias_of(*address) else { continue };
            if neighbour.is_cut_off(now) {
                report.flooding.push(alias);
            } else if neighbour.negotiation.is_up() {
                report.connected_to.push(alias);
                report.neighbours.push(Member { alias, address: address.to_string() });
            } else if neighbour.negotiation.has_failed() && neighbour.unlisted_since.is_none() {
                report.failed.push(alias);
            }
        }
        for aliases in [&mut report.connected_to, &mut report.failed, &mut report.flooding] {
            aliases.sort_unstable();
        }
        self.emit(Event::Report(report));
    }

    fn send_signal(&mut self, to: Address, negotiation: u32, content: Content) {
        let (island_id, peer) = (self.router.island_id().to_owned(), to.to_string());
        self.emit(Event::Signal(Signal { island_id, peer, negotiation, content: Some(content) }));
    }

    pub(crate) fn emit(&mut self, event: Event) {
        let counter = match event {
            Event::Data(_) => &*self.counters.undelivered,
            _ => &self.counters.output_dropped,
        };
        if !self.outbox.push(event) {
            count(counter);
        }
    }

    async fn open_link(&mut self, now: Instant) -> Result<Link> {
        self.links += 1;
        Link::open(self.links, self.settings.clone(), self.reader().events, now).await
    }

    fn link(&mut self, address: Address) -> Result<&mut Link> {
        let neighbour = self.neighbours.0.get_mut(&address);
        neighbour.and_then(|neighbour| neighbour.link.as_mut()).ok_or(Error::ErrConnectionClosed)
    }

    fn keep_link(&mut self, address: Address, link: Link) {
        match self.neighbours.0.get_mut(&address) {
            Some(neighbour) => neighbour.link = Some(link),
            None => link.close(),
        }
    }

    pub(crate) fn close_link(&mut self, address: Address) {
        let neighbour = self.neighbours.0.get_mut(&address);
        if let Some(link) = neighbour.and_then(|neighbour| neighbour.link.take()) {
            link.close();
        }
    }
}
