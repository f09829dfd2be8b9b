//! The meshes of p2p islands: a task that follows the islands on p2p nodes, plans their links and routes, and renews
//! the ICE servers of their members.

mod convert;
mod host;
mod task;

pub(crate) use host::{MeshIsland, MeshMember};
pub(crate) use task::{MeshHandle, MeshTask, Snapshot, mesh_task};
