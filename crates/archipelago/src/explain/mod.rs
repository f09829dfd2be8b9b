//! Why things are as they are.
//!
//! Each answer begins with its cause in one line; what it rests on follows. Answers are worked out
//! from the engine as it is, by the same functions that decide.

mod diff;
mod display;
mod facts;
mod island;
mod pair;
mod peer;

use std::{fmt, time::Duration};

use protocol::{Address, IslandId, Position};
use serde::Serialize;

pub use diff::{IslandChange, IslandPart, RulesDiff};
pub use facts::{IslandFacts, NodeCandidate, PeerFacts, PositionFacts, RuleFacts};

use crate::engine::Engine;

/// What somebody wants to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// What would hold for somebody who stands here?
    At(Position),
    /// Why is this island as it is?
    Island(IslandId),
    /// Where is this peer, and why?
    Peer(Address),
    /// Why do these two not hear each other?
    Pair(Address, Address),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The cause.
    pub cause: Cause,
    /// The cause in words, in one line.
    pub summary: String,
    /// The place that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PositionFacts>,
    /// The peers that were asked about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerFacts>,
    /// The islands that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub islands: Vec<IslandFacts>,
}

/// Why something is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// They are together, and were told so.
    Together,
    /// It is as it is meant to be.
    AsWanted,
    /// Nobody knows such a peer or island.
    Unknown,
    /// The peer signed off.
    Left,
    /// The peer was not heard for too long.
    SilentPeer,
    /// The peer has another session than the one that is speaking, or has not yet said where it is
    /// in its new one.
    OtherSession,
    /// A rule keeps the people of an area to themselves.
    ExclusiveRule,
    /// Somebody else says who is together, and has not said it of them.
    OtherCluster,
    /// They are too far from each other.
    TooFar,
    /// They are near enough to stay together, and not to come together.
    Hysteresis,
    /// Together they would be too many.
    FullIsland,
    /// Somebody would rather be where it is.
    Preference,
    /// Their clients cannot join the same transport, or not the one that is wanted.
    Capability,
    /// A change has not lasted long enough to count, or comes too soon after the last.
    Settling,
    /// The rooms of a transport hold fewer.
    Outgrown,
    /// A node has not enough seats.
    NoSeats,
    /// A node is about to leave.
    Draining,
    /// A node is not heard any more.
    NodeDead,
    /// There is no such transport.
    NoTransport,
    /// The next flush changes it.
    NextFlush,
}

impl Engine {
    /// Answers a question.
    pub fn explain(&self, question: &Question, now: Duration) -> Explanation {
        match *question {
            Question::At(position) => self.explain_position(position),
            Question::Island(ref island) => self.explain_island(island, now),
            Question::Peer(peer) => self.explain_peer(peer, now),
            Question::Pair(one, other) => self.explain_pair(one, other, now),
        }
    }
}

impl Explanation {
    fn new(cause: Cause, summary: String) -> Self {
        Self { cause, summary, place: None, peers: Vec::new(), islands: Vec::new() }
    }
}

impl Cause {
    /// In words, as answers begin with it.
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
