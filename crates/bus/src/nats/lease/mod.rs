//! Leader election through a lease: the key of a NATS key-value bucket names the leader.
//!
//! The bucket expires entries that are not written again, and each write names the revision that it replaces
//! (compare-and-swap). So one candidate at a time has its name in the key, as long as it renews it in time. A
//! write that times out may or may not have been applied. The task then reads the key again, and treats
//! leadership as unconfirmed until a later write is acknowledged.

mod bucket;
mod error;
mod key;
mod replica_grower;
mod replicas;
mod stream;
mod task;

use std::sync::Arc;

use async_nats::Client;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use crate::{
    election::{Candidate, CandidateTasks, ObservedState},
    fencing::EpochFence,
};
use replica_grower::ReplicaGrower;
use task::LeaseTask;

pub(super) use replicas::ReplicaTarget;

/// Starts the tasks of a candidate for the lease `lease_name`.
pub(super) fn campaign(
    client: &Client,
    lease_name: &'static str,
    fence: Arc<EpochFence>,
    replicas: ReplicaTarget,
) -> Candidate {
    let (resign, resigned) = oneshot::channel();
    let (observed_sender, observed) = watch::channel(ObservedState::UNKNOWN);
    let mut tasks = JoinSet::new();
    tasks.spawn(LeaseTask::new(client.clone(), lease_name, fence, observed_sender, replicas).run(resigned));
    tasks.spawn(ReplicaGrower::new(client.clone(), replicas, observed.clone()).run());
    Candidate::new(observed, Some(CandidateTasks { resign, tasks }))
}
