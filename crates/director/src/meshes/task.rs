//! The task that runs the meshes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use archipelago::{Input, RoomFailure};
use bus::{Bus, Headers, Subscription};
use protocol::{Message as _, NodeName, Subject, mesh as wire, subject, unix_ms};
use tokio::{sync::mpsc, time};
use transports::p2p;

use super::{
    convert::encode_plan,
    host::{MeshHost, MeshIsland, Output, Totals},
};
use crate::{
    configured_nodes::{ConfiguredNode, TransportOffer},
    metrics,
    publisher::PublishTerm,
};

/// The p2p islands at the end of a flush.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) publish_term: PublishTerm,
    /// Whether the leader took over so recently that meshes of its predecessor exist.
    pub(crate) took_over: bool,
    pub(crate) islands: Vec<MeshIsland>,
}

/// The sender of snapshots. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct MeshHandle {
    nodes: Arc<[NodeName]>,
    snapshots: mpsc::Sender<Snapshot>,
}

/// The meshes, before they run.
pub(crate) struct MeshTask {
    bus: Bus,
    minters: HashMap<NodeName, p2p::Minter>,
    links: Subscription,
    snapshots: mpsc::Receiver<Snapshot>,
    inputs: mpsc::Sender<Input>,
}

/// Snapshots that can wait. When the queue is full, the newest one is dropped: the next one has the same content.
const SNAPSHOT_QUEUE: usize = 64;
/// Link reports that can wait; when the queue is full, the newest one is dropped, and repeated within seconds.
const REPORT_QUEUE: usize = 65_536;
/// How often the gauges of the meshes are set.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the meshes are checked.
const TICK: Duration = Duration::from_millis(50);

/// The task for the p2p nodes among these, if there are any, and its handle. `inputs` receives failures.
pub(crate) fn mesh_task(
    bus: &Bus,
    nodes: &[ConfiguredNode],
    inputs: mpsc::Sender<Input>,
) -> (Option<MeshTask>, MeshHandle) {
    let minters = nodes.iter().filter_map(|configured| match &configured.offer {
        TransportOffer::P2p(minter) => Some((configured.node.clone(), minter.clone())),
        _ => None,
    });
    let minters: HashMap<NodeName, p2p::Minter> = minters.collect();
    let (sender, snapshots) = mpsc::channel(SNAPSHOT_QUEUE);
    let handle = MeshHandle { nodes: minters.keys().cloned().collect(), snapshots: sender };
    let task = (!minters.is_empty()).then(|| MeshTask {
        bus: bus.clone(),
        minters,
        links: bus.subscribe("director-mesh", &[subject::MESH_LINKS], REPORT_QUEUE),
        snapshots,
        inputs,
    });
    (task, handle)
}

impl MeshHandle {
    /// Whether islands of this node are meshes.
    pub(crate) fn hosts(&self, node: &NodeName) -> bool {
        self.nodes.contains(node)
    }

    /// Whether there are no p2p nodes.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Passes a snapshot on.
    pub(crate) fn send(&self, snapshot: Snapshot) {
        // The next one has the same content.
        let _ = self.snapshots.try_send(snapshot);
    }
}

/// A number that grows faster than the versions of a mesh, which changes less than once a second in the long run:
/// seconds since 2025-01-01.
fn version_now() -> u32 {
    const BEGIN_S: u64 = 1_735_689_600;
    u32::try_from((unix_ms(SystemTime::now()) / 1_000).saturating_sub(BEGIN_S)).unwrap_or_default()
}

impl MeshTask {
    /// Runs until the director has ended.
    pub(crate) async fn run(mut self) {
        let began = Instant::now();
        let mut host = MeshHost::default();
        let mut leading: Option<PublishTerm> = None;
        let mut metrics_at = began;
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let ice_ttl = self.minters.values().filter_map(|minter| Some(minter.turn.as_ref()?.ttl)).min();
        loop {
            tokio::select! {
                snapshot = self.snapshots.recv() => {
                    let Some(Snapshot { publish_term, took_over, islands }) = snapshot else { return };
                    // Another engine decides.
                    if leading.is_none_or(|leading| leading.leader != publish_term.leader) {
                        host = MeshHost::default();
                    }
                    leading = Some(publish_term);
                    host.apply(islands, took_over, version_now(), began.elapsed());
                }
                envelope = self.links.next() => {
                    let Some(envelope) = envelope else { return };
                    if let Some(Subject::MeshLinks(sender)) = envelope.subject()
                        && let Ok(report) = wire::LinkReport::decode(&envelope.payload[..])
                    {
                        host.report(sender, report, began.elapsed());
                    }
                }
                _ = ticks.tick() => {
                    if leading.is_some_and(|term| self.is_replaced(term)) {
                        (leading, host) = (None, MeshHost::default());
                    }
                    if let Some(term) = leading {
                        host.tick(ice_ttl, began.elapsed()).into_iter().for_each(|output| self.publish(term, output));
                    }
                    if metrics_at <= Instant::now() {
                        metrics_at = Instant::now() + METRICS_INTERVAL;
                        let Totals { meshes, members, links, depth } = host.totals();
                        metrics::meshes(meshes, members, links, depth);
                    }
                }
            }
        }
    }

    /// Whether another director leads.
    fn is_replaced(&self, publish_term: PublishTerm) -> bool {
        publish_term.term.epoch.is_some_and(|epoch| epoch < self.bus.latest_epoch())
    }

    fn publish(&self, publish_term: PublishTerm, output: Output) {
        let epoch = publish_term.term.epoch;
        let headers = |session| Headers { session, epoch, ..Headers::default() };
        match output {
            Output::Plan { island, recipient, session, plan } => {
                let plan = encode_plan(&island, &plan).encode_to_vec();
                self.bus.publish(&Subject::MeshPlan(recipient), headers(session), plan);
                metrics::mesh_plans().increment(1);
            }
            Output::IceServers { node, recipient, session } => {
                let Some(minter) = self.minters.get(&node) else { return };
                if let Some(servers) = minter.ice_servers(recipient, SystemTime::now()) {
                    self.bus.publish(&Subject::MeshIceServers(recipient), headers(session), servers);
                }
            }
            Output::Failed { island, node, failure, retry_in } => {
                tracing::warn!(%island, %failure, ?retry_in, "the mesh does not hold its island");
                metrics::mesh_failures().increment(1);
                // If the queue is full, the mesh continues with its fallback.
                let failure = RoomFailure::Mesh(failure.to_string().into());
                let _ = self.inputs.try_send(Input::RoomUnavailable { island, node, retry_in, failure });
            }
        }
    }
}
