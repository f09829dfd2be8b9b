//! Calls of a server's room service, which run beside the server's task.

use std::{sync::Arc, time::Instant};

use protocol::{IslandId, MediaGrants, NodeName, RoomName};
use tokio::{sync::oneshot, task::JoinSet};
use transports::livekit::{ApiClient, ApiError, ListedParticipant, RoomOptions};

use super::removals::{Removal, Replaced, Target};
use crate::metrics;

/// The calls that run. Dropping it cancels them.
pub(super) struct Calls {
    node: NodeName,
    api: Arc<ApiClient>,
    running: JoinSet<Outcome>,
}

/// The outcome of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A room was created or permissions were set, or the attempt failed. The next list of rooms or participants
    /// shows that.
    Done,
    /// A participant or a room was removed, or was not there; or the call failed.
    Removed { removal: Removal, result: Result<(), ApiError> },
    /// The participants of a room.
    Listed { room: RoomName, result: Result<Vec<ListedParticipant>, ApiError>, requested_at: Instant },
}

/// Calls that run at a time. Beyond, commands and removals wait.
const MAX_CALLS: usize = 64;
/// The part of them that is kept free for the creation of rooms, for which clients wait.
const RESERVED_FOR_OPENING: usize = 32;
/// The difference of clocks that is tolerated.
const CLOCK_MARGIN_MS: u64 = 2_000;

impl Calls {
    pub(super) fn new(node: NodeName, api: Arc<ApiClient>) -> Self {
        Self { node, api, running: JoinSet::new() }
    }

    /// Whether another call may start.
    pub(super) fn has_capacity(&self) -> bool {
        self.running.len() < MAX_CALLS
    }

    /// Whether another call may start for which no client waits.
    pub(super) fn has_spare_capacity(&self) -> bool {
        self.running.len() + RESERVED_FOR_OPENING < MAX_CALLS
    }

    /// The next outcome; waits while none runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> Outcome {
        loop {
            match self.running.join_next().await {
                Some(Ok(outcome)) => return outcome,
                // A call neither panics nor is cancelled while the task lives.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Creates a room, and sends the result to `reply`.
    pub(super) fn open(
        &mut self,
        island: IslandId,
        options: RoomOptions,
        reply: Option<oneshot::Sender<Result<(), ApiError>>>,
    ) {
        let (node, api) = (self.node.clone(), self.api.clone());
        self.running.spawn(async move {
            let result = api.create_room(&(&island).into(), &options).await;
            count(&node, "create_room", &result);
            if let Err(error) = &result {
                tracing::warn!(%node, %island, %error, "the room could not be created");
            }
            if let Some(reply) = reply {
                // The publisher waits for a limited time.
                let _ = reply.send(result);
            }
            Outcome::Done
        });
    }

    /// Removes a participant or a room. With `replaced`, a participant is removed only if it is that connection.
    pub(super) fn remove(&mut self, removal: Removal, replaced: Option<Replaced>) {
        let (node, api) = (self.node.clone(), self.api.clone());
        self.running.spawn(async move {
            let result = match &removal.target {
                Target::Room => {
                    let result = api.delete_room(&(&removal.island).into()).await;
                    count(&node, "delete_room", &result);
                    result
                }
                Target::Participant(identity) => {
                    remove_participant(&node, &api, &removal.island, identity, replaced).await
                }
            };
            Outcome::Removed { removal, result }
        });
    }

    /// Lets the members in a list publish this media, if they may publish other media: one after the other, so that a
    /// change of many rooms does not flood the server.
    pub(super) fn correct_media(
        &mut self,
        island: &IslandId,
        media: MediaGrants,
        mut listed: Vec<ListedParticipant>,
    ) {
        listed.retain(|listed| listed.participant.counted && listed.media != media);
        if listed.is_empty() {
            return;
        }
        let (node, api, room) = (self.node.clone(), self.api.clone(), RoomName::from(island));
        self.running.spawn(async move {
            for ListedParticipant { participant, .. } in listed {
                let result = api.set_media(&room, &participant.identity, media).await;
                count(&node, "update_participant", &result);
            }
            Outcome::Done
        });
    }

    /// Lists the participants of a room.
    pub(super) fn list(&mut self, room: RoomName) {
        let (node, api, requested_at) = (self.node.clone(), self.api.clone(), Instant::now());
        self.running.spawn(async move {
            let result = list(&node, &api, &room).await;
            Outcome::Listed { room, result, requested_at }
        });
    }
}

async fn remove_participant(
    node: &NodeName,
    api: &ApiClient,
    island: &IslandId,
    identity: &str,
    replaced: Option<Replaced>,
) -> Result<(), ApiError> {
    if let Some(replaced) = replaced {
        // The server removes by identity. If the newer session has joined already, the server has closed the older
        // connection, and the removal would close the newer one.
        let participants = list(node, api, &island.into()).await?;
        let is_replaced = |listed: &ListedParticipant| {
            let participant = &listed.participant;
            participant.identity == identity
                && match &replaced {
                    Replaced::Sid(sid) => participant.sid == *sid,
                    // The clocks of the server and of this process may differ.
                    Replaced::Before(time_ms) => {
                        participant.joined_ms > 0 && participant.joined_ms + CLOCK_MARGIN_MS < *time_ms
                    }
                }
        };
        if !participants.iter().any(is_replaced) {
            return Ok(());
        }
    }
    let result = api.remove_participant(&island.into(), identity).await;
    count(node, "remove_participant", &result);
    result
}

async fn list(node: &NodeName, api: &ApiClient, room: &RoomName) -> Result<Vec<ListedParticipant>, ApiError> {
    let result = api.participants(room).await;
    count(node, "list_participants", &result);
    result
}

fn count<T>(node: &NodeName, call: &'static str, result: &Result<T, ApiError>) {
    metrics::livekit_calls(node, call, if result.is_ok() { "ok" } else { "error" }).increment(1);
}
