//! The headless explorer: signs in with a wallet, says where it is, and follows its island from
//! room to room.
//!
//! An [`Explorer`] runs by itself: [`Handle`] tells it what to do, and its [`Event`]s tell what
//! happens. It reconnects with a jittered pause when a server asks it to come back, and when its
//! island changes it is in the new room before it leaves the old one; what then arrives through both
//! is given once.

mod connection;
mod doubles;
mod event;
mod explorer;
mod link;
mod pause;
mod realm;
mod room;
mod rooms;
mod socket;

pub use event::{Ended, Event, RoomId};
pub use explorer::{Explorer, Handle, Settings};
pub use realm::{RealmError, discover};
