//! The client SDK: signs in with a wallet, sends heartbeats with a position, and follows the assigned island
//! from room to room.
//!
//! An [`Explorer`] runs in tasks of its own. Its [`Handle`] takes commands, and it emits an [`Event`] for every
//! change. [`discover`] finds the gateway of a realm. [`Dialect`] selects the protocol between client and
//! gateway; the events are the same for both protocols.
//!
//! - The client enters WebSocket rooms, and with the feature `webrtc` LiveKit rooms, with the same events. In a LiveKit
//!   room a reliable message may be lost when the connection to the server is lost and cannot be resumed.
//! - When the island changes, the client enters the new room before it leaves the old one. A message that
//!   arrives through both rooms is delivered once. An assignment to the room that the client is in does not
//!   interrupt it.
//! - When a server closes the connection, [`Event::Disconnected`] carries the reason as a sentence. The
//!   client reconnects after a backoff with jitter, unless reconnecting would be wrong: if the wallet signed
//!   in elsewhere, or was refused. If the realm has several gateways ([`discover_all`]), the client tries the
//!   next one.
//! - Over RPC, [`Handle::publish`] and [`Handle::subscribe`] exchange messages by topic with clients in any
//!   island. Subscriptions outlive sessions.
//!
//! ```no_run
//! use client::{Event, Explorer, Position, Settings};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = client::discover("http://127.0.0.1:5000", None).await?;
//! let mut explorer = Explorer::start(Settings::new(gateway), client::guest()?);
//! explorer.handle().heartbeat(Position::new(8.0, 0.0, 8.0), None).await;
//! while let Some(event) = explorer.next().await {
//!     match event {
//!         Event::IslandChanged { island, peers, .. } => println!("{} peers in {island}", peers.len()),
//!         Event::Message { sender: Some(sender), body, .. } => println!("{sender}: {} bytes", body.len()),
//!         Event::Disconnected { reason, retry_in: Some(delay) } => println!("{reason}; retry in {delay:?}"),
//!         Event::Disconnected { reason, retry_in: None } => println!("{reason}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod archipelago;
mod backoff;
mod bff;
mod connection;
mod dedup;
mod disconnect;
mod event;
mod explorer;
mod guest;
mod link;
mod link_event;
mod mesh_link;
mod realm;
mod room;
mod rooms;
mod rotation;
mod session;
mod settings;
mod sign_in;
mod subscription;
mod tls;
mod topics;

pub use disconnect::Disconnect;
pub use event::{Event, RoomId};
pub use explorer::{Explorer, Handle};
pub use guest::{GuestError, guest};
pub use realm::{Dialect, Gateway, RealmError, discover, discover_all, http_client};
pub use room::is_joinable;
pub use session::Session;
pub use settings::Settings;
pub use subscription::{Subscription, TopicEvent, TopicMessage, TopicsError};

pub use bytes::Bytes;
pub use identity::{Identity, Wallet};
pub use protocol::{Address, Close, ConnectionString, IslandId, Position, Topic, rfc4};

/// Encodes and decodes packets of [`rfc4`].
pub use protocol::Message as Protobuf;
