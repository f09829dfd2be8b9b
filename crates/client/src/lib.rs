//! The client SDK: an explorer that signs in with a wallet, says where it is, and follows its island
//! from room to room.
//!
//! An [`Explorer`] runs by itself: its [`Handle`] tells it what to do, and its [`Event`]s tell what
//! happens. [`discover`] finds the gateway of a realm, and [`Dialect`] is what is spoken with it; both
//! bring the same events.
//!
//! - When its island changes it is in the new room before it leaves the old one; what then arrives
//!   through both is given once. Told again of the room that it is in, it stays there.
//! - When a server drops it, it says why in a sentence ([`Event::Disconnected`]), and comes back after a
//!   pause that grows and is random, unless coming back would be wrong: when this wallet signed in
//!   elsewhere, or was refused. Of a realm with several gateways ([`discover_all`]) it tries the next.
//! - Over RPC it has topics: [`Handle::publish`] and [`Handle::subscribe`] reach people wherever they
//!   are, and subscriptions outlive sessions.
//!
//! ```no_run
//! use client::{Event, Explorer, Position, Settings};
//!
//! # async fn explore() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = client::discover("http://127.0.0.1:5000", None).await?;
//! let mut explorer = Explorer::start(Settings::new(gateway), client::guest()?);
//! explorer.handle().heartbeat(Position::new(8.0, 0.0, 8.0), None).await;
//! while let Some(event) = explorer.next().await {
//!     match event {
//!         Event::IslandChanged { island, peers, .. } => println!("{} people in {island}", peers.len()),
//!         Event::Message { sender: Some(sender), body, .. } => println!("{sender}: {} bytes", body.len()),
//!         Event::Closed { reason, comes_back: Some(pause) } => println!("{reason}; back in {pause:?}"),
//!         Event::Closed { reason, comes_back: None } => println!("{reason}"),
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
mod realm;
mod room;
mod rooms;
mod rotation;
mod session;
mod settings;
mod tls;
mod topics;

pub use disconnect::Disconnect;
pub use event::{Event, RoomId};
pub use explorer::{Explorer, Handle};
pub use guest::{GuestError, guest};
pub use realm::{Dialect, Gateway, RealmError, discover, discover_all, http_client};
pub use session::Session;
pub use settings::Settings;
pub use topics::{Subscription, TopicEvent, TopicMessage, TopicsError};

pub use bytes::Bytes;
pub use identity::{Identity, Wallet};
pub use protocol::{Address, Close, ConnectionString, IslandId, Position, Topic, rfc4};

/// Encodes and decodes packets of [`rfc4`].
pub use protocol::Message as Protobuf;
