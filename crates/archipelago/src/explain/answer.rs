//! Questions, and the answers to them.

use std::fmt;

use protocol::{Address, IslandId, Position};
use serde::Serialize;

use super::facts::{IslandFacts, PeerFacts, PositionFacts};

/// A question to the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Which rules and limits apply at this position?
    At(Position),
    /// Why is this island as it is?
    Island(IslandId),
    /// Which island is this peer in, and why?
    Peer(Address),
    /// Why do these two peers not share an island, or not receive each other?
    Pair(Address, Address),
}

/// The answer to a [`Question`]. [`Display`](fmt::Display) prints it as text, serde as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The cause.
    pub cause: Cause,
    /// The cause as a sentence, in one line.
    pub summary: String,
    /// The rules and limits at the position in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PositionFacts>,
    /// The peers in question, those that are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerFacts>,
    /// The islands of those peers, or the island in question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub islands: Vec<IslandFacts>,
}

/// The cause that an explanation names. The names are part of the output format: JSON has them in
/// kebab-case, text as [`as_str`](Cause::as_str) spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Both peers are in one island and were sent the same assignment.
    Together,
    /// The rules and settings prefer the present state.
    AsWanted,
    /// The engine knows no such peer or island.
    Unknown,
    /// The peer disconnected.
    Left,
    /// The peer sent no message for longer than the silence setting.
    SilentPeer,
    /// The peer has a newer session than the one that sends messages, or its new session has not sent a
    /// position yet.
    OtherSession,
    /// An exclusive rule separates the peers inside an area from those outside.
    ExclusiveRule,
    /// Clusters are given by another service, and the peers are not in the same one.
    OtherCluster,
    /// They are farther apart than the leave distance.
    TooFar,
    /// They are between the join distance and the leave distance: not near enough to merge.
    Hysteresis,
    /// A merged island would exceed the size limit.
    FullIsland,
    /// A peer is in its preferred island.
    Preference,
    /// Their clients have no suitable transport in common, or cannot join the preferred one.
    Capability,
    /// A change waits for the settling time, or for the move interval after the last move.
    Settling,
    /// The rooms of a transport hold fewer members.
    Outgrown,
    /// A node has too few free seats.
    NoSeats,
    /// A node could not open a room for the island.
    NoRoom,
    /// The mesh of the island failed.
    MeshFailed,
    /// A node is draining.
    Draining,
    /// A node no longer announces itself.
    NodeDead,
    /// No node offers such a transport.
    NoTransport,
    /// The next flush makes the change.
    NextFlush,
}

impl Explanation {
    pub(super) fn new(cause: Cause, summary: String) -> Self {
        Self { cause, summary, place: None, peers: Vec::new(), islands: Vec::new() }
    }
}

impl Cause {
    /// The keyword that the text of an explanation begins with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Together => "together",
            Self::AsWanted => "as wanted",
            Self::Unknown => "unknown",
            Self::Left => "left",
            Self::SilentPeer => "silent peer",
            Self::OtherSession => "other session",
            Self::ExclusiveRule => "exclusive rule",
            Self::OtherCluster => "other cluster",
            Self::TooFar => "too far",
            Self::Hysteresis => "hysteresis",
            Self::FullIsland => "full island",
            Self::Preference => "preference",
            Self::Capability => "capability",
            Self::Settling => "settling",
            Self::Outgrown => "outgrown",
            Self::NoSeats => "no seats",
            Self::NoRoom => "no room",
            Self::MeshFailed => "mesh failed",
            Self::Draining => "draining",
            Self::NodeDead => "node dead",
            Self::NoTransport => "no transport",
            Self::NextFlush => "next flush",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
