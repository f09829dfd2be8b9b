//! Messages: own ones, received ones, and those that are forwarded.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use protocol::{
    Address,
    mesh::{Signal, signal::Content},
};
use tokio::time::Instant;

use super::{
    counters::count,
    event::{Data, Event},
    router::{Delivery, OwnPacket, Received},
    task::Task,
};
use crate::{channel::Incoming, connection::Label};

/// The time for queued messages when the peer is closed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The most members that a plan lists for the fallback: a list of this length may be incomplete.
const MAX_FALLBACK: usize = 16;
/// The longest time for which own reliable messages wait for paths: that of one attempt to link.
const PATHS_TIMEOUT: Duration = Duration::from_millis(3_500);

impl Task {
    /// Applies a message of a neighbour.
    pub(crate) fn message(&mut self, message: Incoming<u64>, now: Instant) {
        let Some((from, neighbour)) = self.neighbours.of_link(message.source) else { return };
        if !neighbour.admits(message.data.len(), now) {
            return self.cut_off(from, now);
        }
        let received = self.router.receive(from, message.label == Label::Reliable, message.data, now);
        if received == Received::Malformed && !neighbour.admits_malformed(now) {
            count(&self.counters.malformed);
            return self.cut_off(from, now);
        }
        self.received(received);
    }

    /// Delivers and forwards a packet, or counts it.
    pub(crate) fn received(&mut self, received: Received) {
        let counter = match received {
            Received::Delivery(delivery) => return self.deliver(delivery),
            Received::Waits => return,
            Received::Duplicate => &self.counters.duplicates,
            Received::Refused => &self.counters.refused_packets,
            Received::Malformed => &self.counters.malformed,
        };
        count(counter);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { source, alias, reliable, payload, data, to } = delivery;
        for address in to {
            self.send(address, reliable, data.clone());
        }
        self.emit(Event::Data(Data { sender: source, alias, payload, reliable }));
    }

    /// Queues a packet for a neighbour, or counts it. While a path is lost, reliable packets stay in the queue.
    fn send(&mut self, to: Address, reliable: bool, packet: Bytes) {
        let label = if reliable { Label::Reliable } else { Label::Lossy };
        let usable = self.neighbours.0.get(&to).filter(|neighbour| neighbour.negotiation.is_up() || reliable);
        let Some(link) = usable.and_then(|neighbour| neighbour.link.as_ref()).filter(|link| link.is_open())
        else {
            return count(&self.counters.link_dropped);
        };
        if link.send(label, packet) {
            return;
        }
        count(&self.counters.link_dropped);
        if reliable {
            // A gap in the reliable channel would go unnoticed: the neighbour sees a new link instead.
            count(&self.counters.overflows);
            self.lost(to, Instant::now());
        }
    }

    /// Whether the links of an own reliable message have capacity.
    pub(crate) fn may_send_reliable(&self) -> bool {
        self.router.own_targets().unwrap_or_default().to.iter().all(|address| {
            let link = self.neighbours.0.get(address).and_then(|neighbour| neighbour.link.as_ref());
            link.filter(|link| link.is_open()).is_none_or(|link| link.has_capacity())
        })
    }

    /// Whether own reliable messages wait for links, because the fallback cannot serve all members without a path. They
    /// wait for [`PATHS_TIMEOUT`] at most, in their bounded queue, and not again before all members had a path: those
    /// that no link reaches for longer must not delay messages to the others.
    pub(crate) fn awaits_paths(&mut self, now: Instant) -> bool {
        let unreached = self.router.own_targets().map_or(0, |targets| targets.fallback.len());
        if unreached == 0 {
            self.lacks_paths_since = None;
            return false;
        }
        if unreached < MAX_FALLBACK && self.fallbacks.has(unreached, now) {
            return false;
        }
        let since = *self.lacks_paths_since.get_or_insert(now);
        now.saturating_duration_since(since) < PATHS_TIMEOUT
    }

    /// Sends an own message.
    pub(crate) fn send_own(&mut self, label: Label, payload: Bytes, now: Instant) {
        let reliable = label == Label::Reliable;
        let others = self.router.newest().map_or(0, |newest| newest.members.len().saturating_sub(1));
        let Some(OwnPacket { data, targets, fallback }) = self.router.own_packet(payload, reliable) else {
            return;
        };
        self.report.sent = self.report.sent.saturating_add(u32::try_from(others).unwrap_or(u32::MAX));
        for to in targets.to {
            self.send(to, reliable, data.clone());
        }
        for to in targets.fallback {
            if !self.fallbacks.take(1, now) {
                count(&self.counters.output_dropped);
                continue;
            }
            self.report.sent_by_fallback = self.report.sent_by_fallback.saturating_add(1);
            self.emit(Event::Signal(Signal {
                island_id: self.router.island_id().to_owned(),
                peer: to.to_string(),
                negotiation: 0,
                content: Some(Content::Fallback(fallback.clone())),
            }));
        }
    }

    /// Closes the link to a neighbour that sends too much, and refuses it for a while.
    fn cut_off(&mut self, address: Address, now: Instant) {
        tracing::info!(%address, "a neighbour in the mesh is cut off: it exceeded its rate limit");
        count(&self.counters.cut_off);
        let until = now + self.limits.cut_off;
        if let Some(neighbour) = self.neighbours.0.get_mut(&address) {
            neighbour.cut_off(until);
        }
        self.lost(address, now);
    }

    /// Sends the queued messages, and closes all links.
    pub(crate) async fn finish(mut self, own: Vec<(Label, Bytes)>) {
        for (label, payload) in own {
            self.send_own(label, payload, Instant::now());
        }
        let links = self.neighbours.0.into_values().filter_map(|neighbour| neighbour.link);
        join_all(links.map(|link| link.flush_and_close(FLUSH_TIMEOUT))).await;
    }
}
