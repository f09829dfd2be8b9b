//! The island engine: groups peers into islands by distance and assigns each island to a transport node.
//!
//! A sans-IO state machine: it owns no socket, clock or source of randomness. The caller passes every
//! event together with the time at which it happened ([`Engine::handle`]) and evaluates the islands
//! periodically ([`Engine::flush`]); a flush returns the decisions as [`Output`]s. The engine is
//! deterministic: the same inputs at the same times give the same outputs, including island ids.
//!
//! # Example
//!
//! Two peers 10 m apart join one island, and both are assigned to the only node.
//!
//! ```
//! use std::time::Duration;
//!
//! use archipelago::{Engine, Heartbeat, Input, Output, Settings, SettingsError, Transport, TransportKind};
//! use protocol::{Address, Position, SessionId};
//!
//! # fn main() -> Result<(), SettingsError> {
//! // Milliseconds since the Unix epoch; part of every island id.
//! let mut engine = Engine::new(Settings::default(), 1_700_000_000_000)?;
//! let now = Duration::ZERO;
//! engine.handle(
//!     Input::Transport(Transport {
//!         node: "ws-1".parse().unwrap(),
//!         kind: TransportKind::WsRoom,
//!         capability: "ws-room".into(),
//!         max_island_size: 100,
//!         seats: None,
//!         users: 0,
//!         draining: false,
//!         public_url: "wss://rooms.example.org".into(),
//!         started_ms: 0,
//!         note: None,
//!     }),
//!     now,
//! );
//!
//! let (alice, bob) = (Address::new([1; 20]), Address::new([2; 20]));
//! for (peer, x) in [(alice, 0.0), (bob, 10.0)] {
//!     let session = Some(SessionId::new(1, 0));
//!     engine.handle(Input::Connected { peer, session, transports: None, resumes: None }, now);
//!     let position = Position::new(x, 0.0, 0.0);
//!     engine.handle(Input::Heartbeat(Heartbeat { session, ..Heartbeat::new(peer, position) }), now);
//! }
//!
//! let mut outputs = Vec::new();
//! engine.flush(now, &mut outputs);
//! let assigned = outputs.iter().filter(|output| matches!(output, Output::Assigned { .. }));
//! assert_eq!(assigned.count(), 2);
//! assert_eq!(engine.islands().next().unwrap().size(), 2);
//!
//! // Without further input a flush has nothing to report.
//! outputs.clear();
//! engine.flush(now + Duration::from_secs(1), &mut outputs);
//! assert_eq!(outputs, []);
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! `now` is the time since a moment that the caller chooses once and keeps. It may pause, and it should
//! not run backwards: if it does, every pending timeout takes longer.
//!
//! # Peers and sessions
//!
//! A peer is identified by its wallet address. It is in the world from its first heartbeat until it
//! disconnects or times out. It is in exactly one island from the first flush after that heartbeat until
//! the first flush after it left. The greatest session of a wallet wins: a message of an older session
//! changes nothing, a message without a session counts as one of the current session, and a session
//! greater than any before, in whatever message, is a new client, which has no assignment yet. Between
//! [`Input::Connected`] and the heartbeat that follows, a peer is sent nothing.
//!
//! # Islands
//!
//! Distances are measured on the ground (x and z); height is ignored.
//!
//! - Two islands merge when any two of their members are within the join distance and all members
//!   together fit the size limit. The larger island survives; of equal sizes, the older. Of several
//!   merge candidates, one that a member prefers comes first, then the nearest.
//! - An island stays one while its members are connected by hops of at most the leave distance
//!   (hysteresis: the leave distance is not below the join distance). When they are not, the largest
//!   connected component keeps the island and every other component gets an island of its own.
//! - No island is ever above its size limit: the setting or the limit of a rule, or the largest room on
//!   offer if that is smaller. A crowd (a connected group above the limit) is held as several connected
//!   islands, split by position so that neighbours share an island.
//! - A peer that left is removed at the next flush. A peer that reconnects within the return window,
//!   near enough, rejoins its island if there is room. An island that became empty is kept for that
//!   long; views do not list it meanwhile.
//! - A flush changes only islands with a member that moved, joined or left, and islands near those. When
//!   nothing changes any more, a flush has no outputs.
//!
//! With [external clustering](Clustering::External) the caller names the cluster of each peer instead:
//! peers of one cluster share an island as far as they fit, at any distance, and a peer without a
//! cluster is in no island.
//!
//! # Rules
//!
//! [Rules](rules) of the realm's owner may group the peers of an area only among themselves, change
//! distances and size limits there, and choose the transports that islands use. A peer counts for the
//! zone at its position once it has been there for the settling time. Between two peers the smaller of
//! their distances applies; the size limit of an island is the smallest among the zones of its members.
//!
//! # Transports
//!
//! Nodes announce which rooms they offer. The engine goes through the transports that the island's rule
//! names, then the default transports, and takes the first that has a node which all members can join,
//! with rooms large enough and enough free seats; of several such nodes, the one with the most free
//! seats. An island stays on its node until the node disappears, drains, or can no longer hold the
//! island. It moves to a more preferred node when that one has been available for the settling time and
//! the island has not moved recently. While no node is available, peers share an island but receive no
//! assignment.
//!
//! [`Engine::explain`] gives the reason for each of these decisions.
//!
//! # Resuming
//!
//! The state of an engine ends with its process and is not persisted. A new leader rebuilds it from the
//! assignments that clients received last: [`Engine::resume`] restores an engine that continues with the
//! same islands, so that a peer whose assignment is still right is sent nothing.
//!
//! # Outputs
//!
//! The outputs of a flush are the difference between the state after the flush before and the state
//! after this one, without intermediate steps: islands that [opened](Output::Opened),
//! [moved](Output::Moved) or [closed](Output::Closed) or with [other grants](Output::MediaChanged), and peers
//! that [joined](Output::Joined) or [left](Output::Left) an island. A client is sent an [assignment](Output::Assigned) when its
//! island or node differs from its last assignment, or when its heartbeats show that it [missed
//! it](Output::AssignmentMissed), and never otherwise.

mod engine;
mod event;
pub mod explain;
mod flush;
mod ids;
mod index_vec;
mod inputs;
#[cfg(feature = "sim")]
pub mod invariants;
mod island_ids;
mod point;
mod restore;
pub mod rules;
#[cfg(feature = "sim")]
pub mod scenario;
mod settings;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
mod snapshot;
mod transport;
mod view;
mod world;

pub use engine::Engine;
pub use event::{AssignedIsland, ClientReport, Heartbeat, Input, Output, ReportedAssignment, RoomFailure};
pub use inputs::Counters;
pub use settings::{Clustering, Settings, SettingsError};
pub use snapshot::{EngineSnapshot, LastAssignment, PeerSnapshot};
pub use transport::{Transport, TransportKind, TransportView};
pub use view::{IslandView, PeerView};
