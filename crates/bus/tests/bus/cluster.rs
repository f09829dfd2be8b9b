//! The lease in a cluster of three NATS servers.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Info};
use bus::{NatsSettings, Standing, Term};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    contract::PATIENCE,
    lease::{Candidate, settled},
    nats::settings,
    server::ServerCluster,
};

const STREAM: &str = "KV_atoll-leases";

fn settings_of(cluster: &ServerCluster) -> NatsSettings {
    NatsSettings { servers: cluster.urls(), ..settings("") }
}

/// Reads the stream of the leases, from outside.
struct Observer(jetstream::Context);

impl Observer {
    async fn new(cluster: &ServerCluster) -> Self {
        let client = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let mut context = jetstream::new(client.connect(cluster.urls()).await.unwrap());
        context.set_timeout(Duration::from_secs(1));
        Self(context)
    }

    /// The state of the stream, once it is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Info) -> bool) -> Info {
        let found = async {
            loop {
                // There is no answer while the cluster elects a leader of the stream.
                if let Ok(stream) = self.0.get_stream(STREAM).await
                    && wanted(stream.cached_info())
                {
                    return stream.cached_info().clone();
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }

    async fn replicas(&self, count: usize) {
        // Without the leader of the stream.
        let in_step = |info: &Info| {
            info.cluster
                .as_ref()
                .map_or(0, |cluster| cluster.replicas.iter().filter(|peer| peer.current).count())
                + 1
        };
        let wanted = |info: &Info| info.config.num_replicas == count && in_step(info) == count;
        self.until(&format!("{count} replicas"), wanted).await;
    }
}

/// The server that leads the stream.
fn stream_leader(info: &Info) -> Option<&str> {
    info.cluster.as_ref()?.leader.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_there_again_after_each_server_stops() {
    let mut cluster = ServerCluster::start(3);
    let observer = Observer::new(&cluster).await;
    let mut candidates = Vec::new();
    for _ in 0..2 {
        candidates.push(Candidate::stand_with(settings_of(&cluster)).await);
    }
    let [one, two] = candidates.try_into().ok().unwrap();
    let (mut one, mut epoch, mut two) = settled(one, two).await;
    let mut left = vec![0, 1, 2];
    while !left.is_empty() {
        observer.replicas(3).await;
        // The server that leads the stream, if it has not been stopped before.
        let info = observer.until("a leader of the stream", |info| stream_leader(info).is_some()).await;
        let leading = cluster.find(stream_leader(&info).unwrap());
        let stopped = if left.contains(&leading) { leading } else { left[0] };
        left.retain(|&server| server != stopped);
        let name = cluster.servers[stopped].name().to_owned();
        let before = info.state.last_sequence;
        cluster.servers[stopped].stop();
        let began = Instant::now();
        // The lease is renewed: the term of before does not count.
        let renewed = |info: &Info| {
            stream_leader(info).is_some_and(|leader| leader != name) && info.state.last_sequence > before + 4
        };
        observer.until("the lease is renewed", renewed).await;
        let later;
        (one, later, two) = settled(one, two).await;
        assert!(later >= epoch, "{later} after {epoch}");
        epoch = later;
        eprintln!("led again {:?} after {name} stopped", began.elapsed());
        if left.len() == 1 {
            // It returns with an empty disk, and is one of the two that are left when the last one stops.
            cluster.servers[stopped].forget();
        }
        cluster.servers[stopped].restart();
    }
    observer.replicas(3).await;
    settled(one, two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_unknown_without_a_quorum() {
    let mut cluster = ServerCluster::start(3);
    let observer = Observer::new(&cluster).await;
    let mut one = Candidate::stand_with(settings_of(&cluster)).await;
    one.leads().await;
    let mut two = Candidate::stand_with(settings_of(&cluster)).await;
    observer.replicas(3).await;
    cluster.servers[1].stop();
    cluster.servers[2].stop();
    for candidate in [&mut one, &mut two] {
        candidate.becomes(|standing| standing == Standing::Unknown).await;
    }
    // It stays so for longer than a lease lasts.
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        for candidate in [&one, &two] {
            assert!(!matches!(candidate.candidacy.standing(), Standing::Leads(_)));
        }
    }
    cluster.servers[1].restart();
    settled(one, two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_stream_grows_in_place_from_one_to_three_replicas() {
    let cluster = ServerCluster::start(3);
    let observer = Observer::new(&cluster).await;
    let single = NatsSettings { lease_replicas: Some(1), ..settings_of(&cluster) };
    let mut one = Candidate::stand_with(single).await;
    let epoch = one.leads().await;
    observer.replicas(1).await;
    let mut two = Candidate::stand_with(settings_of(&cluster)).await;
    one.candidacy.resign().await;
    let later = two.leads().await;
    assert!(later > epoch, "{later} after {epoch}");
    observer.replicas(3).await;
    // In one term, unless the change takes longer than that.
    assert!(two.leads().await >= later);
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_stream_grows_when_the_third_server_joins() {
    let mut cluster = ServerCluster::start(2);
    let observer = Observer::new(&cluster).await;
    let mut one = Candidate::stand_with(settings_of(&cluster)).await;
    let epoch = one.leads().await;
    observer.replicas(1).await;
    cluster.servers[2].restart();
    observer.replicas(3).await;
    let Standing::Leads(Term { epoch: Some(later) }) =
        one.becomes(|standing| matches!(standing, Standing::Leads(_))).await
    else {
        unreachable!()
    };
    assert!(later >= epoch);
}
