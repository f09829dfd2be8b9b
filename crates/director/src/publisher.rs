//! The publisher task: mints connection strings and publishes the changes of each flush.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use archipelago::AssignedIsland;
use bus::{Bus, Headers, Term};
use protocol::{
    Address, IslandId, Message as _, NodeName, Position, PositionPrecision, SessionId, Subject, Ulid,
    UlidClock,
    atoll_bus::MembershipEnded,
    unix_ms,
    v3::{IslandChangedMessage, IslandData, IslandStatusMessage, JoinIslandMessage, LeftIslandMessage},
};
use tokio::sync::{mpsc, oneshot};
use transports::{ConnectionRequest, livekit::RoomOptions};

use crate::{
    configured_nodes::Minters,
    flush_batch::{FlushBatch, MemberChange, PeerAssignment},
    livekit::RoomChanges,
    metrics,
    room_gate::{Admission, Opened, RoomGate},
};

/// A job of the publisher.
pub(crate) enum PublishJob {
    /// The changes of a flush, to be published in this term. The `Arc` is dropped once they were published.
    Batch(PublishTerm, FlushBatch, Arc<()>),
    /// All islands with their members.
    Report(PublishTerm, Vec<IslandSummary>),
    /// Replies when all earlier jobs were written to the connection.
    Drain(oneshot::Sender<()>),
}

/// The term in which a job is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishTerm {
    pub(crate) term: Term,
    /// All minted tokens are later than this: later than those of the previous leader, as far as is known.
    pub(crate) minted_after: Ulid,
    /// Distinguishes the engines of this director: each takeover starts one.
    pub(crate) leader: u64,
}

/// One island in a report.
pub(crate) struct IslandSummary {
    pub(crate) id: IslandId,
    pub(crate) peers: Vec<Address>,
    pub(crate) max_peers: u32,
    pub(crate) center: protocol::Position,
    pub(crate) radius_m: f32,
    /// The node of its room.
    pub(crate) node: Option<NodeName>,
}

/// Runs its jobs in order, in a task of its own, so that the engine never waits for it.
pub(crate) struct Publisher {
    bus: Bus,
    minters: Minters,
    rooms: RoomGate,
    /// The precision of member positions in `island_changed`.
    positions: PositionPrecision,
    /// The epoch of the job's term.
    epoch: Option<u64>,
    /// The engine that decided the job.
    leader: Option<u64>,
    /// Mints token ids in increasing order. A token from before a peer left an island is distinguished by it
    /// from one after its return.
    token_ulids: UlidClock,
}

/// The part of assignments that is the same for all members of an island, encoded once.
type SharedParts = HashMap<IslandId, Vec<u8>>;

impl Publisher {
    pub(crate) fn new(bus: Bus, minters: Minters, rooms: RoomGate) -> Self {
        Self {
            bus,
            minters,
            rooms,
            positions: PositionPrecision::Exact,
            epoch: None,
            leader: None,
            token_ulids: UlidClock::default(),
        }
    }

    /// Sets the precision of member positions in `island_changed`.
    pub(crate) fn with_positions(self, positions: PositionPrecision) -> Self {
        Self { positions, ..self }
    }

    /// Runs until all senders of jobs are gone.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<PublishJob>) {
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => self.run_job(job).await,
                    None => return,
                },
                opened = self.rooms.next() => self.release(opened).await,
            }
            // A job may be long: other tasks on this thread run before the next.
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn run_job(&mut self, job: PublishJob) {
        match job {
            PublishJob::Batch(publish_term, batch, _in_flight) if self.enter_term(publish_term) => {
                self.publish_batch(batch).await
            }
            PublishJob::Report(publish_term, islands) if self.enter_term(publish_term) => {
                self.report(islands)
            }
            // The current leader decides these changes again.
            PublishJob::Batch(..) | PublishJob::Report(..) => {}
            PublishJob::Drain(reply) => {
                self.bus.flush().await;
                let _ = reply.send(());
            }
        }
    }

    /// Publishes in this term from now on. Returns `false` if a later epoch was seen.
    fn enter_term(&mut self, publish_term: PublishTerm) -> bool {
        self.epoch = publish_term.term.epoch;
        if self.leader.replace(publish_term.leader) != Some(publish_term.leader) {
            // Another engine decided the assignments that are held.
            self.rooms.clear();
        }
        self.token_ulids.observe(publish_term.minted_after.into());
        !self.is_deposed()
    }

    /// Whether a director of a later epoch leads.
    fn is_deposed(&self) -> bool {
        self.epoch.is_some_and(|epoch| epoch < self.bus.latest_epoch())
    }

    /// A batch may hold a whole realm, which is more than the bus's queue: each message waits for capacity.
    async fn publish_batch(&mut self, batch: FlushBatch) {
        // Ended memberships come first, so that the tokens minted below are newer.
        for (island, node, peers) in &batch.ended {
            self.bus.wait_for_capacity().await;
            self.end_memberships(island, node.as_ref(), peers, false);
        }
        for (island, peers) in &batch.taken_over {
            self.bus.wait_for_capacity().await;
            self.end_memberships(island, None, peers, true);
        }
        let FlushBatch { ended, taken_over, closed, media_changed, .. } = batch;
        let published_at = SystemTime::now();
        self.rooms.apply(RoomChanges { ended, taken_over, closed, media_changed, published_at });
        // Remaining members receive joins and leaves. A joining peer gets the member list with its
        // assignment, and a leaving peer needs no news of others that leave. So joins are published before
        // assignments, and leaves after.
        for MemberChange { island, peer, session } in batch.joined {
            self.bus.wait_for_capacity().await;
            let message = JoinIslandMessage { island_id: island.to_string(), peer_id: peer.to_string() };
            self.publish_for_session(session, &Subject::IslandPeerJoin(island), message.encode_to_vec());
        }
        let mut shared = SharedParts::new();
        for assignment in batch.assigned {
            if let Admission::Publish(assignment, room) = self.rooms.admit(assignment) {
                self.bus.wait_for_capacity().await;
                self.assign(&assignment, room.as_deref(), &mut shared);
            }
        }
        self.rooms.finish_batch();
        for MemberChange { island, peer, session } in batch.left {
            self.bus.wait_for_capacity().await;
            let message = LeftIslandMessage { island_id: island.to_string(), peer_id: peer.to_string() };
            self.publish_for_session(session, &Subject::IslandPeerLeft(island), message.encode_to_vec());
        }
    }

    /// Publishes the assignments that were held until the room existed.
    async fn release(&mut self, opened: Opened) {
        if self.is_deposed() {
            self.rooms.clear();
            return;
        }
        let (held, room) = self.rooms.opened(opened);
        let mut shared = SharedParts::new();
        for assignment in held {
            self.bus.wait_for_capacity().await;
            self.assign(&assignment, room.as_deref(), &mut shared);
        }
    }

    /// Publishes a message that belongs to a session.
    fn publish_for_session(&self, session: Option<SessionId>, subject: &Subject, payload: Vec<u8>) {
        self.publish(subject, Headers { session, ..Headers::default() }, payload);
    }

    /// Publishes as the leader, unless a later epoch was seen meanwhile.
    fn publish(&self, subject: &Subject, headers: Headers, payload: Vec<u8>) {
        if self.is_deposed() {
            return;
        }
        self.bus.publish(subject, Headers { epoch: self.epoch, ..headers }, payload);
    }

    fn end_memberships(
        &mut self,
        island: &IslandId,
        node: Option<&NodeName>,
        peers: &[Address],
        taken_over: bool,
    ) {
        let minted_before = self.next_ulid().to_string();
        let peers = peers.iter().map(ToString::to_string).collect();
        let node = node.map(NodeName::to_string).unwrap_or_default();
        let ended = MembershipEnded { peers, minted_before, node, taken_over };
        self.publish(&Subject::MembershipEnded(island.clone()), Headers::default(), ended.encode_to_vec());
    }

    /// Publishes an assignment. `room`: the options of its room, if the token must carry them.
    fn assign(&mut self, assignment: &PeerAssignment, room: Option<&RoomOptions>, shared: &mut SharedParts) {
        let PeerAssignment { peer, session, from, island } = assignment;
        let minted = self.next_ulid();
        let now = SystemTime::now();
        let minter = self.minters.for_node(&island.node);
        let request = ConnectionRequest {
            node_url: &island.node_url,
            island: &island.id,
            address: *peer,
            minted,
            media: island.media,
            room,
        };
        let connection = match minter.connection(&request, now) {
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
        let shared =
            shared.entry(island.id.clone()).or_insert_with(|| encode_shared_part(island, self.positions));
        // Concatenated protobuf messages decode as one message.
        let payload = [&shared[..], &own.encode_to_vec()].concat();
        let headers = Headers { session: *session, node: Some(island.node.clone()), ..Headers::default() };
        self.publish(&Subject::PeerIslandChanged(*peer), headers, payload);
        metrics::assignments().increment(1);
    }

    fn report(&self, islands: Vec<IslandSummary>) {
        let data = islands.into_iter().map(|summary| IslandData {
            id: summary.id.to_string(),
            peers: summary.peers.iter().map(ToString::to_string).collect(),
            max_peers: summary.max_peers,
            center: Some(summary.center.into()),
            radius: f64::from(summary.radius_m),
            participants: summary.node.and_then(|node| self.rooms.participants(&node, &summary.id)),
        });
        let report = IslandStatusMessage { data: data.collect() };
        self.publish(&Subject::EngineIslands, Headers::default(), report.encode_to_vec());
    }

    fn next_ulid(&mut self) -> Ulid {
        // Without randomness from the system the ids are still in order, and the tokens are signed.
        let random = admission::random::<16>().unwrap_or_default();
        self.token_ulids.mint(unix_ms(SystemTime::now()), u128::from_le_bytes(random))
    }
}

fn encode_shared_part(island: &AssignedIsland, positions: PositionPrecision) -> Vec<u8> {
    let member =
        |(peer, position): &(Address, Position)| (peer.to_string(), positions.published(*position).into());
    let peers = island.members.iter().map(member).collect();
    let island_id = island.id.to_string();
    IslandChangedMessage { island_id, peers, ..IslandChangedMessage::default() }.encode_to_vec()
}
