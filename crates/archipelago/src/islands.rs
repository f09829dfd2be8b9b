//! The table of islands, by number and by serial. Their members are in the [spatial
//! index](crate::spatial).

use std::{hash::Hasher, time::Duration};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::{
    ids::Serial,
    registry::{NO_NODE, NodeIndex},
    slab::{NONE, Slab},
};

/// All islands, by number. Numbers are reused after an island is closed; serials are not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Islands {
    records: Slab<Island>,
    by_serial: HashTable<u32>,
    populated_count: usize,
}

/// The state of an island, except its members.
#[derive(Debug, Clone)]
pub(crate) struct Island {
    /// [`Serial::NONE`] until the flush that creates the island emits it as opened.
    pub(crate) serial: Serial,
    /// Orders islands by age, those without a serial included: less is older.
    pub(crate) age: u64,
    /// Seats reserved on the node of the island.
    pub(crate) reserved_seats: u32,
    /// The rule that applies to the island, by index; `NONE` if no rule does, `RULE_UNDECIDED` if that
    /// was not evaluated yet.
    pub(crate) rule: u32,
    pub(crate) node: NodeIndex,
    pub(crate) state: IslandState,
    /// The number of members that moved since the last flush; `u32::MAX` if the island is to be
    /// examined completely for another reason.
    pub(crate) movers: u32,
    /// Whether a member moved, joined or left since the last flush.
    pub(crate) dirty: bool,
    /// Whether the incremental connectivity check found that it may be disconnected.
    pub(crate) maybe_split: bool,
    /// Whether its members differ from those after the last flush.
    pub(crate) members_changed: bool,
    /// Whether it is on the watch list, and so is evaluated again without a change of its own.
    pub(crate) watched: bool,
}

/// Marks an island with a rule that was not evaluated yet.
pub(crate) const RULE_UNDECIDED: u32 = NONE - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IslandState {
    /// It has members.
    Populated,
    /// Its last member left. Its id is kept for the return window, so that the member can rejoin.
    Empty,
    /// It is closed. Its number is reused after the flush.
    Closed,
}

impl Islands {
    /// Adds an island that counts as populated; the caller adds its members.
    pub(crate) fn add(&mut self, age: u64) -> u32 {
        self.populated_count += 1;
        self.records.insert(Island {
            serial: Serial::NONE,
            age,
            reserved_seats: 0,
            rule: RULE_UNDECIDED,
            node: NO_NODE,
            state: IslandState::Populated,
            movers: 0,
            dirty: false,
            maybe_split: false,
            members_changed: false,
            watched: false,
        })
    }

    /// Sets the serial of an island, which is also its final age.
    pub(crate) fn assign_serial(&mut self, island: u32, serial: Serial) {
        let record = &mut self.records[island];
        (record.serial, record.age) = (serial, serial.0);
        let records = &self.records;
        self.by_serial.insert_unique(hash(serial), island, |&island| hash(records[island].serial));
    }

    pub(crate) fn find(&self, serial: Serial) -> Option<u32> {
        self.by_serial.find(hash(serial), |&island| self.records[island].serial == serial).copied()
    }

    pub(crate) fn set_state(&mut self, island: u32, state: IslandState) {
        let before = std::mem::replace(&mut self.records[island].state, state);
        self.populated_count -= usize::from(before == IslandState::Populated);
        self.populated_count += usize::from(state == IslandState::Populated);
    }

    /// Removes a closed island and frees its number.
    pub(crate) fn remove(&mut self, island: u32) {
        let serial = self.records[island].serial;
        if let Ok(entry) = self.by_serial.find_entry(hash(serial), |&other| other == island) {
            entry.remove();
        }
        self.records[island].serial = Serial::NONE;
        self.records.remove(island);
    }

    pub(crate) fn is_populated(&self, island: u32) -> bool {
        self.records[island].state == IslandState::Populated
    }

    /// How many islands have members.
    pub(crate) fn populated_count(&self) -> usize {
        self.populated_count
    }

    /// Resets the rule of every island, including empty ones, so that the next flush decides it without
    /// the settling time.
    pub(crate) fn forget_rules(&mut self) {
        self.records.iter_mut().for_each(|island| island.rule = RULE_UNDECIDED);
    }

    /// The numbers of the islands that have members.
    pub(crate) fn populated(&self) -> impl Iterator<Item = u32> {
        (0..self.records.slot_count()).filter(|&island| self.is_populated(island))
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.by_serial.allocation_size()
    }
}

impl std::ops::Index<u32> for Islands {
    type Output = Island;

    fn index(&self, island: u32) -> &Island {
        &self.records[island]
    }
}

impl std::ops::IndexMut<u32> for Islands {
    fn index_mut(&mut self, island: u32) -> &mut Island {
        &mut self.records[island]
    }
}

/// An empty island, and until when its id is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmptyIsland {
    pub(crate) island: u32,
    pub(crate) serial: Serial,
    pub(crate) until: Duration,
}

fn hash(serial: Serial) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u64(serial.0);
    hasher.finish()
}
