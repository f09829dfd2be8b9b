//! The wire formats, defined once: generated messages, identifiers, bus subjects, connection strings, close
//! codes, the media that members may publish, and the durations that hold together across processes.
//!
//! Pure: no sockets, no clock, no randomness. Every other crate of the workspace depends on this one, and
//! only this one spells a subject or parses a connection string.

mod close;
mod connection;
mod id;
mod media;
mod position;
mod position_precision;
mod room;
pub mod subject;
mod time;
pub mod timing;
mod topic;
mod wire;

pub use close::Close;
pub use connection::{ConnectionString, ConnectionStringError, KNOWN_PROTOCOLS, is_protocol_name};
pub use id::{
    Address, AddressError, IslandId, NodeName, ResumeHash, ResumeHashError, SessionId, TokenError, UlidClock,
};
pub use media::{MediaGrants, Voice, VoiceError};
pub use position::{Parcel, ParcelError, Position, PositionError};
pub use position_precision::PositionPrecision;
pub use room::{RoomName, RoomNameError, RoomPattern, RoomPatternError};
pub use subject::Subject;
pub use time::{is_far_ahead, unix_ms};
pub use topic::{SceneTopic, SystemTopic, Topic, TopicError, TopicPattern};

/// Bus messages that only this project defines.
pub use wire::atoll::bus as atoll_bus;
/// The peer-to-peer mesh of an island, which only this project defines.
pub use wire::atoll::mesh;
/// The framing of dcl-rpc.
pub use wire::dcl::rpc as dcl_rpc;
/// The services of a gateway over RPC.
pub use wire::decentraland::bff;
/// The packets that clients send inside room messages (RFC-4); servers do not decode them.
pub use wire::decentraland::kernel::comms::rfc4;
/// Messages between a client and a WebSocket room (RFC-5).
pub use wire::decentraland::kernel::comms::rfc5;
/// Messages between a client and its gateway, and messages that services publish on the bus.
pub use wire::decentraland::kernel::comms::v3;

pub use prost::{DecodeError, Message};
pub use ulid::Ulid;

/// The largest message a client may send, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The WebSocket subprotocol of the archipelago socket. The gateway selects it when a client offers it.
pub const ARCHIPELAGO_SUBPROTOCOL: &str = "archipelago";
/// The WebSocket subprotocol of the RPC socket. The gateway selects it when a client offers it.
pub const RPC_SUBPROTOCOL: &str = "bff";
/// The WebSocket subprotocols of rooms, in order of preference.
pub const ROOM_SUBPROTOCOLS: [&str; 2] = ["rfc5", "rfc4"];
