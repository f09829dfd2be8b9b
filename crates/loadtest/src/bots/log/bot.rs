//! The log of one bot.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use client::RoomId;
use protocol::Address;
use tokio::time::Instant;

use super::{assignments::AssignmentLog, deliveries::RoomLog, ranges::Ranges, sessions::SessionLog};
use crate::bots::numbering::{Delivery, PerDelivery};

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
    /// The entries into rooms: the transport, and the time from the assignment. `None`: it entered a room again that
    /// it had been assigned before.
    pub(crate) entries: Vec<(&'static str, Option<Duration>)>,
    /// When it was assigned a room that it has not entered yet.
    pub(crate) entry_began: Option<Instant>,
    /// Its messages, numbered without gaps, independent of its rooms.
    pub(crate) sent: PerDelivery<Vec<(u32, Instant)>>,
    /// The message numbers that the client delivered of each other bot, through any room.
    pub(crate) received: HashMap<(usize, Delivery), Ranges>,
}
