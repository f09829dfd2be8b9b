//! Island stories as text.
//!
//! One line is one step; `#` begins a remark. Peers and islands go by names of the story's own.
//! After every flush the story is also held against all [invariants](crate::invariants).
//!
//! | What happens | |
//! |---|---|
//! | `limit 3`, `join 64`, `leave-distance 80`, `silence 15s`, `return-window 10s`, `move-interval 10s` | settings, before anything else |
//! | `move a 0 0 0` | a says that it stands at x y z (metres); the first time, it comes |
//! | `move a 0 0 0 session 2` | the same, in its second session |
//! | `connect a`, `connect a 2` | a signs in; its second session |
//! | `connect a 2 resumes 1` | and that session resumes its first |
//! | `leave a`, `leave a 1` | a disconnects; its first session does |
//! | `prefer a b` | a would like to be where b is; `prefer a nothing` |
//! | `hush a` | a says nothing more until it moves |
//! | `client a p2p ws-room` | a signs in and says what it can join |
//! | `node n1`, `node n1 size 50 seats 10 draining` | a node offers rooms, of at most 50, with 10 free seats |
//! | `node l1 kind livekit`, `node x kind external needs pulse` | rooms of another kind than `ws-room` |
//! | `hush-node n1` | the node is not heard any more |
//! | `node-gone n1` | the node says goodbye |
//! | `rules` | the owners' rules are those on the lines that follow, each after a `|`; without any, none |
//! | `time 22:30` | the time of day |
//! | `flush` | the islands are brought in line |
//! | `wait 5s` | time passes, with four flushes a second: everybody stays where it is and says so each second |
//! | `name plaza a` | a's island is called plaza from here on |
//!
//! | What must be so | |
//! |---|---|
//! | `expect [a b] [c]` | these are the islands |
//! | `expect` | there are none |
//! | `in plaza a b` | a and b are in the island called plaza |
//! | `on n1 a b`, `on nothing a` | their islands' rooms are on this node, or on none |
//!
//! and, of what was announced by the last `flush` or `wait`:
//!
//! | | |
//! |---|---|
//! | `told a` | a was told the island that it is in, once, and no other |
//! | `told a from plaza`, `told a from nothing` | and that it came from there |
//! | `told only a b` | these were told something, and nobody else |
//! | `taken-over a b` | only of these a newer session took over, and older tokens were revoked |
//! | `silent` | nothing at all was announced |
//! | `opened 2`, `closed plaza` | so many islands began; this one ended |
//! | `moved plaza n1 n2` | its room went from one node to the other |

mod parse;
mod run;

pub use run::{address, run, run_to_engine};

/// Why a scenario failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ScenarioError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it, or with what the engine did.
    pub reason: String,
}
