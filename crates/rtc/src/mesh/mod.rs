//! A member of the peer-to-peer mesh of an island.
//!
//! The director sends each member a plan: its neighbours, and for every source the neighbours to forward to. The member
//! links itself with its neighbours over WebRTC data channels (RFC 8831), reports its links, and forwards packets
//! along the trees of the plans. The messages are in `protocol/atoll/mesh.proto`.
//!
//! # Links
//! - The member that the plan names offers; the other offers when no offer arrives within 3.5 s. If both have
//!   offered, the lower address drops its own offer.
//! - A link that is not up after 3.5 s is dropped and tried again, after 0.5 s and then twice as long each time, up to
//!   15 s, each shortened at random to half at most. From the third failure in a row on it is reported as failed.
//! - A link without connectivity for 4 s is reported as down; the side that offered it restarts ICE (RFC 8445,
//!   section 2.4). After another 3.5 s the link is dropped and begun anew.
//! - A link that no plan lists any more is kept for 5 s.
//! - A neighbour above [`Limits::packets_per_second`] or [`Limits::bytes_per_second`], or with more than 20 malformed
//!   packets and 1 more a second, is cut off: its link is closed, and it is refused for [`Limits::cut_off`].
//!
//! # Delivery
//! - A message arrives at most once at each member.
//! - Reliable messages of one source arrive in order, and none is lost, while no link of its tree is lost and its tree
//!   does not change. A change of the tree may reorder messages that are in flight; a lost link loses those
//!   in its queues.
//! - A link has a queue of 256 reliable and 64 lossy packets, and of at most 1 MiB each. Lossy packets above it are
//!   dropped. Own reliable messages wait for capacity; a forwarded one that finds none closes the link, which is then
//!   begun anew. A link with reliable packets that makes no progress for 5 s is closed in the same way.
//! - A packet is routed by the plan of its version: plans are kept for 10 s after a newer one. A packet of an unknown
//!   version waits, at most 1 s and with at most 255 others (1 MiB), and is then routed by the newest plan. A packet
//!   is accepted only from the neighbour that the plan names for its source.
//! - Own messages for members that no path reaches are sent through the gateway, as [`Event::Signal`].

mod bucket;
mod counters;
mod early;
mod error;
mod event;
mod forwarding;
mod ice_servers;
mod link;
mod linking;
mod negotiation;
mod neighbour;
mod options;
mod outbox;
mod packet;
mod peer;
mod plans;
mod report;
mod router;
mod sender;
mod task;
mod window;
mod writer;

pub use counters::Counters;
pub use error::{InputError, SendError};
pub use event::{Data, Event};
pub use ice_servers::{IceServers, IceServersError};
pub use options::{Limits, Options};
pub use packet::MAX_PACKET_BYTES;
pub use peer::{MeshInputs, MeshPeer};
pub use sender::MeshSender;
