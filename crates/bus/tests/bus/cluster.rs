//! The lease in a cluster of three NATS servers.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Info};
use bus::{ElectionState, NatsSettings, Term};
use test_support::NatsCluster;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    common::{TEST_TIMEOUT, settings},
    lease::{CandidateProcess, wait_for_one_leader},
};

const STREAM: &str = "KV_atoll-leases";

fn cluster_settings(cluster: &NatsCluster) -> NatsSettings {
    NatsSettings { servers: cluster.urls(), ..settings("") }
}

/// Reads the lease stream over a connection of its own.
struct Observer(jetstream::Context);

impl Observer {
    async fn new(cluster: &NatsCluster) -> Self {
        let client = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let mut context = jetstream::new(client.connect(cluster.urls()).await.unwrap());
        context.set_timeout(Duration::from_secs(1));
        Self(context)
    }

    /// The state of the stream, once it is as wanted.
    async fn wait_for(&self, what: &str, wanted: impl Fn(&Info) -> bool) -> Info {
        let wait = async {
            loop {
                // The request fails while the cluster elects a leader of the stream.
                if let Ok(stream) = self.0.get_stream(STREAM).await
                    && wanted(stream.cached_info())
                {
                    return stream.cached_info().clone();
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }

    async fn wait_for_replicas(&self, count: usize) {
        // `replicas` does not include the leader of the stream.
        let in_step = |info: &Info| {
            info.cluster
                .as_ref()
                .map_or(0, |cluster| cluster.replicas.iter().filter(|peer| peer.current).count())
                + 1
        };
        let wanted = |info: &Info| info.config.num_replicas == count && in_step(info) == count;
        self.wait_for(&format!("{count} replicas"), wanted).await;
    }
}

/// The server that leads the stream.
fn stream_leader(info: &Info) -> Option<&str> {
    info.cluster.as_ref()?.leader.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_returns_after_each_server_stops() {
    let mut cluster = NatsCluster::start(3);
    let observer = Observer::new(&cluster).await;
    let mut candidates = Vec::new();
    for _ in 0..2 {
        candidates.push(CandidateProcess::campaign_with(cluster_settings(&cluster)).await);
    }
    let [one, two] = candidates.try_into().ok().unwrap();
    let (mut one, mut epoch, mut two) = wait_for_one_leader(one, two).await;
    let mut not_stopped_yet = vec![0, 1, 2];
    while !not_stopped_yet.is_empty() {
        observer.wait_for_replicas(3).await;
        // Stops the server that leads the stream, if it was not stopped before.
        let info = observer.wait_for("a leader of the stream", |info| stream_leader(info).is_some()).await;
        let leading = cluster.index_of(stream_leader(&info).unwrap());
        let stopped = if not_stopped_yet.contains(&leading) { leading } else { not_stopped_yet[0] };
        not_stopped_yet.retain(|&server| server != stopped);
        let name = cluster.servers[stopped].name().to_owned();
        let before = info.state.last_sequence;
        cluster.servers[stopped].stop();
        let began = Instant::now();
        // Waits until the lease was renewed: the term from before the stop does not count.
        let renewed = |info: &Info| {
            stream_leader(info).is_some_and(|leader| leader != name) && info.state.last_sequence > before + 4
        };
        observer.wait_for("the lease is renewed", renewed).await;
        let new_epoch;
        (one, new_epoch, two) = wait_for_one_leader(one, two).await;
        assert!(new_epoch >= epoch, "{new_epoch} after {epoch}");
        epoch = new_epoch;
        eprintln!("led again {:?} after {name} stopped", began.elapsed());
        if not_stopped_yet.len() == 1 {
            // It restarts with an empty disk, and is one of the two servers that are left when the last one
            // stops.
            cluster.servers[stopped].wipe_store();
        }
        cluster.servers[stopped].restart();
    }
    observer.wait_for_replicas(3).await;
    wait_for_one_leader(one, two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_unknown_without_a_quorum() {
    let mut cluster = NatsCluster::start(3);
    let observer = Observer::new(&cluster).await;
    let mut one = CandidateProcess::campaign_with(cluster_settings(&cluster)).await;
    one.wait_for_leader().await;
    let mut two = CandidateProcess::campaign_with(cluster_settings(&cluster)).await;
    observer.wait_for_replicas(3).await;
    cluster.servers[1].stop();
    cluster.servers[2].stop();
    for candidate in [&mut one, &mut two] {
        candidate.wait_for_state(|state| state == ElectionState::Unknown).await;
    }
    // This stays so for longer than the lease TTL.
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        for candidate in [&one, &two] {
            assert!(!matches!(candidate.candidate.state(), ElectionState::Leader(_)));
        }
    }
    cluster.servers[1].restart();
    wait_for_one_leader(one, two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_stream_grows_in_place_from_one_to_three_replicas() {
    let cluster = NatsCluster::start(3);
    let observer = Observer::new(&cluster).await;
    let single = NatsSettings { lease_replicas: Some(1), ..cluster_settings(&cluster) };
    let mut one = CandidateProcess::campaign_with(single).await;
    let epoch = one.wait_for_leader().await;
    observer.wait_for_replicas(1).await;
    let mut two = CandidateProcess::campaign_with(cluster_settings(&cluster)).await;
    one.candidate.resign().await;
    let new_epoch = two.wait_for_leader().await;
    assert!(new_epoch > epoch, "{new_epoch} after {epoch}");
    observer.wait_for_replicas(3).await;
    // The same term, unless the change of replicas takes longer than the lease TTL.
    assert!(two.wait_for_leader().await >= new_epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_stream_grows_when_the_third_server_joins() {
    let mut cluster = NatsCluster::start(2);
    let observer = Observer::new(&cluster).await;
    let mut one = CandidateProcess::campaign_with(cluster_settings(&cluster)).await;
    let epoch = one.wait_for_leader().await;
    observer.wait_for_replicas(1).await;
    cluster.servers[2].restart();
    observer.wait_for_replicas(3).await;
    let ElectionState::Leader(Term { epoch: Some(new_epoch) }) =
        one.wait_for_state(|state| matches!(state, ElectionState::Leader(_))).await
    else {
        unreachable!()
    };
    assert!(new_epoch >= epoch);
}
