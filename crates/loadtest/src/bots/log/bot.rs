//! The log of one bot.

use std::collections::{BTreeMap, HashMap};

use client::RoomId;
use protocol::Address;
use tokio::time::Instant;

use super::{assignments::AssignmentLog, deliveries::RoomLog, ranges::Ranges, sessions::SessionLog};

/// The log of one bot.
#[derive(Debug, Default)]
pub(crate) struct BotLog {
    /// `None`: it is not registered yet.
    pub(crate) address: Option<Address>,
    /// Whether it behaves like a stock client.
    pub(crate) stock: bool,
    pub(crate) sessions: SessionLog,
    pub(crate) assignments: AssignmentLog,
    pub(crate) room_logs: BTreeMap<RoomId, RoomLog>,
    /// Its messages, numbered without gaps, independent of its rooms.
    pub(crate) sent: Vec<(u32, Instant)>,
    /// The message numbers that the client delivered of each other bot, through any room.
    pub(crate) received: HashMap<usize, Ranges>,
}
