//! Commands to the task of a server.

use std::{sync::Arc, time::SystemTime};

use protocol::{Address, IslandId, NodeName};
use tokio::sync::oneshot;
use transports::livekit::{ApiError, RoomOptions};

/// A command to the task of a server.
#[derive(Debug)]
pub(super) enum Command {
    /// Create the room of an island.
    Open(OpenRequest),
    /// Members or media of rooms changed.
    Apply(Arc<RoomChanges>),
}

/// A request to create the room of an island.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) island: IslandId,
    pub(super) options: RoomOptions,
    /// Closed when the publisher no longer waits.
    pub(super) reply: oneshot::Sender<Result<(), ApiError>>,
}

/// The changes of one flush that concern rooms.
#[derive(Debug)]
pub(crate) struct RoomChanges {
    /// Ended memberships: on one node, from which the island moved away, or on all (`None`).
    pub(crate) ended: Vec<(IslandId, Option<NodeName>, Vec<Address>)>,
    /// Members with a newer session that replaced one without resuming it.
    pub(crate) taken_over: Vec<(IslandId, Vec<Address>)>,
    /// Islands that were closed.
    pub(crate) closed: Vec<IslandId>,
    /// Islands with other media grants from now on.
    pub(crate) media_changed: Vec<IslandId>,
    /// When they were published.
    pub(crate) published_at: SystemTime,
}

impl RoomChanges {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { ended, taken_over, closed, media_changed, .. } = self;
        ended.is_empty() && taken_over.is_empty() && closed.is_empty() && media_changed.is_empty()
    }
}
