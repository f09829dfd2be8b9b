//! Mints connection strings and publishes what changed.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use bus::{Bus, Headers, Term};
use protocol::{
    Address, IslandId, Message as _, NodeName, Position, PositionPrecision, SessionId, Subject, Ulid,
    UlidClock,
    atoll_bus::MembershipEnded,
    unix_ms,
    v3::{IslandChangedMessage, IslandData, IslandStatusMessage, JoinIslandMessage, LeftIslandMessage},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    configured_nodes::Minters,
    flush_batch::{AssignedIsland, FlushBatch, MemberChange, PeerAssignment},
};

/// What the messenger is handed.
pub(crate) enum PublishJob {
    /// The outcome of a flush, to be told in this mandate. What it comes with is dropped when it has
    /// been.
    Batch(PublishTerm, FlushBatch, Arc<()>),
    /// Where everybody is.
    Report(PublishTerm, Vec<IslandSummary>),
    /// Say when all that was handed over before is on its way.
    Drain(oneshot::Sender<()>),
}

/// In what capacity something is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishTerm {
    pub(crate) term: Term,
    /// What is minted is later than this: what the director before minted, as far as is known.
    pub(crate) minted_after: Ulid,
}

/// One island in a report.
pub(crate) struct IslandSummary {
    pub(crate) id: IslandId,
    pub(crate) peers: Vec<Address>,
    pub(crate) max_peers: u32,
    pub(crate) center: protocol::Position,
    pub(crate) radius_m: f32,
}

/// Does errands in their order, beside the engine and not in its way.
pub(crate) struct Publisher {
    bus: Bus,
    minters: Minters,
    /// How exactly `island_changed` gives the positions of members.
    positions: PositionPrecision,
    /// Of the term in which it tells what it is telling.
    epoch: Option<u64>,
    /// Tells tokens of before a peer left an island from those of after it came back.
    token_ulids: UlidClock,
}

impl Publisher {
    pub(crate) fn new(bus: Bus, minters: Minters) -> Self {
        Self {
            bus,
            minters,
            positions: PositionPrecision::Exact,
            epoch: None,
            token_ulids: UlidClock::default(),
        }
    }

    /// The same, but it publishes positions of members this exactly.
    pub(crate) fn with_positions(self, positions: PositionPrecision) -> Self {
        Self { positions, ..self }
    }

    /// Does what it is told until nobody can tell it any more.
    pub(crate) async fn run(mut self, mut errands: mpsc::Receiver<PublishJob>) {
        while let Some(errand) = errands.recv().await {
            self.run_job(errand).await;
            // A long errand leaves the thread to others before the next.
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn run_job(&mut self, errand: PublishJob) {
        match errand {
            PublishJob::Batch(mandate, news, _under_way) if self.enter_term(mandate) => {
                self.publish_batch(news).await
            }
            PublishJob::Report(mandate, islands) if self.enter_term(mandate) => self.report(islands),
            // Whoever leads now decides this anew.
            PublishJob::Batch(..) | PublishJob::Report(..) => {}
            PublishJob::Drain(answer) => {
                self.bus.flush().await;
                let _ = answer.send(());
            }
        }
    }

    /// Tells in this mandate from now on, unless there has been a later one.
    fn enter_term(&mut self, mandate: PublishTerm) -> bool {
        self.epoch = mandate.term.epoch;
        self.token_ulids.observe(mandate.minted_after.into());
        self.epoch.is_none_or(|epoch| epoch >= self.bus.latest_epoch())
    }

    /// A whole realm may come at once, which is more than the bus takes at a time.
    async fn publish_batch(&mut self, news: FlushBatch) {
        // Memberships end before others begin, so that tokens minted below are newer.
        for (island, node, peers) in news.ended {
            self.bus.wait_for_capacity().await;
            self.end_memberships(island, node.as_ref(), &peers, false);
        }
        for (island, peers) in news.taken_over {
            self.bus.wait_for_capacity().await;
            self.end_memberships(island, None, &peers, true);
        }
        // Those who stay hear who joined and who left. Those who come are told who is there, and those
        // who go need not hear of others who do: so joins are told before people are assigned, and
        // leaves after.
        for MemberChange { island, peer, session } in news.joined {
            self.bus.wait_for_capacity().await;
            let message = JoinIslandMessage { island_id: island.to_string(), peer_id: peer.to_string() };
            self.publish_for_session(session, &Subject::IslandPeerJoin(island), message.encode_to_vec());
        }
        let mut shared: HashMap<IslandId, Vec<u8>> = HashMap::new();
        for assigned in news.assigned {
            self.bus.wait_for_capacity().await;
            let island = &assigned.island;
            let shared =
                shared.entry(island.id.clone()).or_insert_with(|| encode_shared_part(island, self.positions));
            self.assign(&assigned, shared);
        }
        for MemberChange { island, peer, session } in news.left {
            self.bus.wait_for_capacity().await;
            let message = LeftIslandMessage { island_id: island.to_string(), peer_id: peer.to_string() };
            self.publish_for_session(session, &Subject::IslandPeerLeft(island), message.encode_to_vec());
        }
    }

    /// Publishes what belongs to a session.
    fn publish_for_session(&self, session: Option<SessionId>, subject: &Subject, payload: Vec<u8>) {
        self.publish(subject, Headers { session, ..Headers::default() }, payload);
    }

    /// Publishes as somebody who leads, unless it has heard meanwhile that it does not.
    fn publish(&self, subject: &Subject, headers: Headers, payload: Vec<u8>) {
        if self.epoch.is_some_and(|epoch| epoch < self.bus.latest_epoch()) {
            return;
        }
        self.bus.publish(subject, Headers { epoch: self.epoch, ..headers }, payload);
    }

    fn end_memberships(
        &mut self,
        island: IslandId,
        node: Option<&NodeName>,
        peers: &[Address],
        taken_over: bool,
    ) {
        let minted_before = self.next_ulid().to_string();
        let peers = peers.iter().map(ToString::to_string).collect();
        let node = node.map(NodeName::to_string).unwrap_or_default();
        let ended = MembershipEnded { peers, minted_before, node, taken_over };
        self.publish(&Subject::MembershipEnded(island), Headers::default(), ended.encode_to_vec());
    }

    fn assign(&mut self, assigned: &PeerAssignment, shared: &[u8]) {
        let PeerAssignment { peer, session, from, island } = assigned;
        let minted = self.next_ulid();
        let now = SystemTime::now();
        let minter = self.minters.for_node(&island.node);
        let connection = match minter.connection(&island.node_url, &island.id, *peer, minted, now) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%peer, island = %island.id, %error, "no connection string could be minted");
                return;
            }
        };
        tracing::debug!(%peer, island = %island.id, ?from, "assigned");
        let own = IslandChangedMessage {
            conn_str: connection.to_string(),
            from_island_id: from.as_ref().map(ToString::to_string),
            ..IslandChangedMessage::default()
        };
        // Encoded messages put one after the other decode as one: what all members are told alike
        // is encoded once.
        let payload = [shared, &own.encode_to_vec()].concat();
        let headers = Headers { session: *session, node: Some(island.node.clone()), ..Headers::default() };
        self.publish(&Subject::PeerIslandChanged(*peer), headers, payload);
        metrics::counter!("atoll_director_assignments_total").increment(1);
    }

    fn report(&self, islands: Vec<IslandSummary>) {
        let data = islands.into_iter().map(|summary| IslandData {
            id: summary.id.to_string(),
            peers: summary.peers.iter().map(ToString::to_string).collect(),
            max_peers: summary.max_peers,
            center: Some(summary.center.into()),
            radius: f64::from(summary.radius_m),
        });
        let report = IslandStatusMessage { data: data.collect() };
        self.publish(&Subject::EngineIslands, Headers::default(), report.encode_to_vec());
    }

    fn next_ulid(&mut self) -> Ulid {
        // Without randomness from the system they are still in order, and tokens are signed.
        let random = admission::random::<16>().unwrap_or_default();
        self.token_ulids.mint(unix_ms(SystemTime::now()), u128::from_le_bytes(random))
    }
}

fn encode_shared_part(island: &AssignedIsland, positions: PositionPrecision) -> Vec<u8> {
    let member = |(peer, at): &(Address, Position)| (peer.to_string(), positions.published(*at).into());
    let peers = island.members.iter().map(member).collect();
    let island_id = island.id.to_string();
    IslandChangedMessage { island_id, peers, ..IslandChangedMessage::default() }.encode_to_vec()
}
