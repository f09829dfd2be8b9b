//! The island engine: who is together with whom, and on which transport.
//!
//! A state machine without sockets, clock or randomness of its own. Its shell hands in what happens
//! ([`Engine::handle`]), each time with the time at which it happens, and every so often has the
//! islands brought in line with it ([`Engine::current`]), which yields what is to be told. The same
//! inputs at the same times give the same outputs, to the last island id.
//!
//! # Time
//!
//! `now` is the time since some moment that the shell chooses once and keeps. It may stand still,
//! and it should not go back: if it does, whatever waits for it waits longer.
//!
//! # Peers and sessions
//!
//! A peer is a wallet's address. It is in the world from its first heartbeat until it disconnects
//! or is silent for too long, and in exactly one island from the first flush after the one until
//! the first flush after the other. Of a wallet's sessions the greatest wins: a message of an older
//! one changes nothing, a message without a session counts as the present one's, and a session
//! greater than any before, in whatever message, is a new client, which knows of no island yet.
//! Between [`Input::Connected`] and the heartbeat that follows, a peer is told nothing.
//!
//! # Islands
//!
//! Distances are on the ground; height does not part people.
//!
//! - Two islands merge when any two of their members are within the join distance and all of them
//!   fit the size limit. The larger survives, then the older. Of several that could be joined, one
//!   that a member would like to be in comes first, then the nearest.
//! - Members of an island stay together while they are connected through hops of at most the leave
//!   distance. Otherwise the largest group stays the island and each other group goes on by itself.
//! - No island is ever above its limit: the setting or what a rule says, or the largest room on offer
//!   if that is less.
//!   A crowd is held as several islands, each connected, and so that neighbours are together.
//! - Who leaves is taken out at the next flush; who comes back within the return window, near
//!   enough, is put back where it was if there is room. An island that was emptied is kept for that
//!   long, and is not shown meanwhile.
//! - A flush changes only islands that hold a peer which moved, came or left, and islands near
//!   those. When nothing changes any more, nothing is announced any more.
//!
//! Or somebody else says who is together, by [clusters](Clustering::Given): then those of one cluster
//! are in one island as far as they fit, wherever they stand, and those of none are in none.
//!
//! # Rules
//!
//! Owners' [rules] may keep the people of an area to themselves, change distances and sizes there, and
//! say which transports islands are to use. A peer is counted to the place where it stands once it
//! has stood there for the settling time. Between two peers the smaller distances hold; an island is
//! as large as every place that a member is counted to allows.
//!
//! # Transports
//!
//! Nodes announce what rooms they offer. Of the transports that the island's rule names, then those
//! that are used without a rule, the first is taken that has a node which all members can join, whose
//! rooms are large enough, and which has the seats: of several the one with the most free seats. An
//! island stays there until the node goes, drains, or can no longer hold it; and goes to one that is
//! wanted more when that has been to be had for the settling time, and the island has not been moved
//! lately. While there is none, people are together but are not told.
//!
//! [`Engine::explain`] says why any of this is as it is.
//!
//! # Taking over
//!
//! An engine is lost with its process, and what it was is not written down anywhere: what clients were
//! told says it. [`Engine::resume`] makes one that goes on from there, so that whoever has no reason to
//! be elsewhere is told nothing.
//!
//! # What is announced
//!
//! The difference between the end of one flush and the end of the next, not the steps between:
//! islands that [opened](Output::Opened), [moved](Output::Moved) or [closed](Output::Closed), peers
//! that [joined](Output::Joined) or [left](Output::Left) one. A client is [told](Output::Assigned)
//! its island and node when either is not what it was told last, and never otherwise.

mod clusters;
mod engine;
mod event;
pub mod explain;
mod flush;
mod ids;
pub mod invariants;
mod islands;
mod limits;
mod peers;
mod reconnect_grace;
mod registry;
pub mod rules;
pub mod scenario;
mod settings;
pub mod sim;
mod slab;
mod snapshot;
mod spatial;
mod transitions;
mod view;
mod zones;

pub use engine::{Counters, Engine};
pub use event::{Input, Output};
pub use registry::{Transport, TransportKind, TransportView};
pub use settings::{Clustering, Settings, SettingsError};
pub use snapshot::{EngineSnapshot, LastAssignment, PeerSnapshot};
pub use view::{IslandView, PeerView};
