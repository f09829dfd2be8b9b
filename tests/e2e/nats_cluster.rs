//! Two directors on a cluster of three NATS servers.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Info};
use test_support::{Cluster, NatsCluster, within};

const DIRECTORS: [&str; 2] = ["one", "two"];
const NO_LEADER: &str = "not ready: no director is known to lead";
/// NATS servers elect the leader of a stream after four to nine seconds of silence.
const LIMIT: Duration = Duration::from_secs(30);

/// The stream of the leases, if the cluster responds for it.
async fn lease_stream(context: &jetstream::Context) -> Option<Info> {
    Some(context.get_stream("KV_atoll-leases").await.ok()?.cached_info().clone())
}

/// The server that leads the stream.
fn leader_of(info: &Info) -> Option<String> {
    info.cluster.as_ref()?.leader.clone()
}

/// The response of this director's readiness probe.
async fn readiness(cluster: &Cluster, name: &str) -> (u16, String) {
    let answer = cluster[name].get("/health/ready").await;
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until both directors are ready, and exactly one of them leads.
async fn wait_for_one_leader(cluster: &Cluster) {
    within(LIMIT, "one director leads, and both are ready", async || {
        let mut leading = 0.0;
        for name in DIRECTORS {
            if readiness(cluster, name).await.0 != 200 {
                return false;
            }
            leading += cluster[name].count("atoll_director_leads").await;
        }
        leading == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directors_survive_a_nats_server_but_not_two() {
    let mut nats = NatsCluster::start(3);
    let mut cluster = Cluster::start(&[("BUS__URL", &nats.urls().join(","))]);
    for name in DIRECTORS {
        cluster.run(name, "director", &[]);
    }
    wait_for_one_leader(&cluster).await;
    let client = async_nats::connect(nats.urls()).await.unwrap();
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_secs(1));
    let mut before = None;
    within(LIMIT, "three replicas", async || {
        before = lease_stream(&context).await;
        before.as_ref().is_some_and(|info| {
            let replicas = info.cluster.iter().flat_map(|cluster| &cluster.replicas);
            info.config.num_replicas == 3 && replicas.filter(|peer| peer.current).count() == 2
        })
    })
    .await;
    let (leader, sequence) =
        before.map(|info| (leader_of(&info).unwrap(), info.state.last_sequence)).unwrap();
    let first = nats.index_of(&leader);
    nats.servers[first].stop();
    let began = Instant::now();
    within(LIMIT, "the lease is renewed at another server", async || {
        lease_stream(&context).await.is_some_and(|info| {
            leader_of(&info).is_some_and(|now| now != leader) && info.state.last_sequence > sequence + 4
        })
    })
    .await;
    wait_for_one_leader(&cluster).await;
    println!("a director leads again after {:?}", began.elapsed());
    // One server of three is not a quorum.
    let second = (first + 1) % 3;
    nats.servers[second].stop();
    for name in DIRECTORS {
        within(LIMIT, "no director leads", async || {
            readiness(&cluster, name).await == (503, NO_LEADER.to_owned())
                && cluster[name].count("atoll_director_leads").await == 0.0
        })
        .await;
    }
    for stopped in [first, second] {
        nats.servers[stopped].restart();
    }
    wait_for_one_leader(&cluster).await;
}
