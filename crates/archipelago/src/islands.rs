use std::{hash::Hasher, time::Duration};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::{
    ids::Serial,
    registry::{NO_NODE, NodeIndex},
    slab::{NONE, Slab},
};

/// All islands by number. Who is in them is in the ground.
#[derive(Debug, Clone, Default)]
pub(crate) struct Islands {
    records: Slab<Island>,
    by_serial: HashTable<u32>,
    populated_count: usize,
}

/// What is known of an island, besides its members.
#[derive(Debug, Clone)]
pub(crate) struct Island {
    /// None for as long as the flush that made it lasts.
    pub(crate) serial: Serial,
    /// Orders islands by age, those without a serial too: less is older.
    pub(crate) age: u64,
    pub(crate) reserved_seats: u32,
    /// The rule that decides for it: its place among the rules, `NONE` if none does, `RULE_UNDECIDED` if
    /// that is not known yet.
    pub(crate) rule: u32,
    pub(crate) node: NodeIndex,
    pub(crate) state: IslandState,
    /// How many members moved since the last flush; as many as can be if it is to be looked at all
    /// over for another reason.
    pub(crate) movers: u32,
    /// A member moved, came or left since the last flush.
    pub(crate) dirty: bool,
    /// It may have fallen apart, though few moved.
    pub(crate) maybe_split: bool,
    /// Its members are not those of the last flush.
    pub(crate) members_changed: bool,
    /// It is to be looked at again though nothing of its own changes.
    pub(crate) watched: bool,
}

/// Stands for a rule that was not chosen yet.
pub(crate) const RULE_UNDECIDED: u32 = NONE - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IslandState {
    /// It has members.
    Populated,
    /// Its last member left; its id is kept for a while, should that member return.
    Empty,
    /// It is no more. The number is free for another after the flush.
    Closed,
}

impl Islands {
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

    /// Gives an island its lasting number.
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

    /// Gives up the number of a closed island.
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

    /// No rule is known to decide for any island, be it deserted.
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

/// A deserted island, and until when its id is kept.
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
