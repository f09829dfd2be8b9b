//! The invariants that can be violated.

use protocol::{Address, IslandId};

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A peer is in two islands.
    #[error("{0} is in two islands")]
    TwoIslands(Address),
    /// The number of peers to be placed differs from the number of peers in islands.
    #[error("{present} peers are in the world and {placed} in islands")]
    PeerCountMismatch {
        /// Peers in the world that belong in an island.
        present: usize,
        /// Peers in islands.
        placed: usize,
    },
    /// An island has no members.
    #[error("{0} is empty")]
    Empty(IslandId),
    /// Two islands have the same id.
    #[error("two islands are {0}")]
    DuplicateId(IslandId),
    /// An island is larger than its limit.
    #[error("{0} has {1} members")]
    TooLarge(IslandId, usize),
    /// The members of an island are not connected at the leave distance.
    #[error("the members of {0} are not connected")]
    NotConnected(IslandId),
    /// Two islands are within the join distance and fit the limit together, but did not merge.
    #[error("{0} and {1} should have merged")]
    Unmerged(IslandId, IslandId),
    /// Former members of one island are still connected at the leave distance, but were split.
    #[error("{0} was split without need")]
    NeedlessSplit(IslandId),
    /// Members that did not share an island before were merged without a link at the join distance.
    #[error("{0} merged beyond the join distance")]
    JoinedTooFar(IslandId),
    /// An island is on a node that cannot host it, or on none, although a node that its rule names could.
    #[error("{0} could be on a node that has room for it")]
    BadlyPlaced(IslandId),
    /// A disconnected peer is in an island.
    #[error("{0} disconnected and is in an island")]
    StaleMember(Address),
    /// The smaller of two merged islands survived, or the younger of two with the same size.
    #[error("{survivor} survived instead of {ended}")]
    WrongSurvivor {
        /// The island that should have ended.
        survivor: IslandId,
        /// The island that should have survived.
        ended: IslandId,
    },
    /// A new island has an id that was used before.
    #[error("id {0} was reused")]
    ReusedId(IslandId),
    /// Outputs about islands and members do not match the partition.
    #[error("the outputs about {0} do not match the islands")]
    OutputMismatch(IslandId),
    /// A peer got the same assignment again, or two in one flush.
    #[error("{0} got a redundant assignment")]
    RedundantAssignment(Address),
    /// A peer was assigned to an island that it is not in.
    #[error("{0} was assigned to {1}, which it is not in")]
    WrongAssignment(Address, IslandId),
    /// An assignment names a former island other than that of the last assignment.
    #[error("the assignment of {0} names a wrong former island")]
    WrongFormerIsland(Address),
    /// The grants of an island changed without an output, or an output or assignment has other grants.
    #[error("the outputs about the media of {0} do not match its grants")]
    MediaMismatch(IslandId),
    /// The island or node of a peer changed, but it got no assignment.
    #[error("{0} got no assignment")]
    MissingAssignment(Address),
}
