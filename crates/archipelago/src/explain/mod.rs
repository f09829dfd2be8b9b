//! Explains the engine's present decisions: why a peer, an island or a pair of peers is where it is.
//!
//! Each explanation begins with a cause in one line; the facts behind it follow. It is computed from the
//! engine's present state, by the same functions that decide in a flush.

mod answer;
mod candidates;
mod diff;
mod display;
mod facts;
mod island;
mod names;
mod pair;
mod peer;
mod position;
mod rule_facts;

use std::time::Duration;

use crate::engine::Engine;

pub use self::{
    answer::{Cause, Explanation, Question},
    diff::{IslandChange, IslandPart, RulesDiff},
    facts::{IslandFacts, NodeCandidate, PeerFacts, PositionFacts, RuleFacts},
};

impl Engine {
    /// Answers a question from the state at `now`. Changes nothing.
    pub fn explain(&self, question: &Question, now: Duration) -> Explanation {
        match *question {
            Question::At(position) => self.explain_position(position),
            Question::Island(ref island) => self.explain_island(island, now),
            Question::Peer(peer) => self.explain_peer(peer, now),
            Question::Pair(one, other) => self.explain_pair(one, other, now),
        }
    }
}
