//! Text scenarios: tests of the engine that need no Rust.
//!
//! Each line is one step; `#` starts a comment. A scenario chooses its own names for peers and islands.
//! After every flush all [invariants](crate::invariants) are checked as well.
//!
//! | Inputs | |
//! |---|---|
//! | `limit 3`, `join 64`, `leave-distance 80`, `silence 15s`, `return-window 10s`, `move-interval 10s` | settings; they must come first |
//! | `move a 0 0 0` | a heartbeat of a with its position x y z (metres); the first one brings it into the world |
//! | `move a 0 0 0 session 2` | the same, in a's second session |
//! | `connect a`, `connect a 2` | a signs in; with its second session |
//! | `connect a 2 resumes 1` | with a second session that resumes its first |
//! | `leave a`, `leave a 1` | a disconnects; its first session disconnects |
//! | `prefer a b` | a prefers b's island; `prefer a nothing` ends the preference |
//! | `hush a` | a sends no heartbeat until its next `move` |
//! | `client a p2p ws-room` | a signs in with a list of the transports it can join |
//! | `node n1`, `node n1 size 50 seats 10 draining` | a node announces itself; its rooms hold at most 50 members, and it has 10 free seats |
//! | `node l1 kind livekit`, `node x kind external needs pulse` | a node of another kind than `ws-room`; `needs` names the capability that a client must have |
//! | `hush-node n1` | the node stops announcing itself |
//! | `node-gone n1` | the node withdraws |
//! | `node-down l1 kind livekit no reply` | the node is down; the rest of the line is the reason |
//! | `no-room a n1 5s` | the node could not open the room of a's island, and may be tried again after this time |
//! | `mesh-failed a n1 5s no path` | the same, because the mesh of the island failed; the rest of the line is the failure |
//! | `rules` | the owner's rules are the following lines, each after a `|`; no lines: no rules |
//! | `time 22:30` | the time of day, UTC |
//! | `flush` | the engine evaluates the inputs so far |
//! | `wait 5s` | time passes, with four flushes a second: each peer and node repeats its last message once a second |
//! | `name plaza a` | from here on, plaza names a's island |
//!
//! | Expectations | |
//! |---|---|
//! | `expect [a b] [c]` | the islands are exactly these |
//! | `expect` | there are none |
//! | `in plaza a b` | a and b are in the island named plaza |
//! | `on n1 a b`, `on nothing a` | their islands are on this node, or on none |
//! | `media voice a b`, `media video a`, `media voice+video a`, `media nothing a` | in their islands members may publish exactly these media |
//!
//! and about the outputs of the last `flush` or `wait`:
//!
//! | | |
//! |---|---|
//! | `told a` | a got one assignment, to the island that it is in |
//! | `told a from plaza`, `told a from nothing` | and the assignment named that former island, or none |
//! | `told only a b` | exactly these peers got assignments |
//! | `taken-over a b` | exactly these were taken over by a newer session, so that older tokens are revoked |
//! | `silent` | there was no output |
//! | `opened 2`, `closed plaza` | so many islands were opened; this one was closed |
//! | `moved plaza n1 n2` | its room moved from one node to the other |
//! | `media-changed plaza`, `media-changed` | the media that members may publish changed in exactly these islands; in none |

mod error;
mod expectations;
mod names;
mod parse;
mod run;

pub use self::{
    error::ScenarioError,
    names::address,
    run::{run, run_to_engine},
};
