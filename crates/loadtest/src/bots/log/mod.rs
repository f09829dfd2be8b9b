//! The records that bots keep during a run. The checks read them.

mod assignments;
mod bot;
mod deliveries;
mod ranges;
mod sessions;

pub(crate) use assignments::IslandMembership;
pub(crate) use bot::BotLog;
pub(crate) use deliveries::{Deliveries, DeliveryCounts, RoomLog, count_deliveries, loses_messages};
pub(crate) use sessions::{SessionStatus, Sessions};
