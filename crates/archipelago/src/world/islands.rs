//! The table of islands, by index and by serial. Their members are in the [spatial
//! index](super::spatial).

use std::{collections::VecDeque, hash::Hasher, time::Duration};

use hashbrown::HashTable;
use protocol::{IslandId, MediaGrants};
use rustc_hash::FxHasher;

use super::placements::{PlacementState, Placements};
use crate::{
    ids::{IslandIndex, NodeIndex, RuleIndex},
    island_ids::{IslandIds, Serial},
    slab::Slab,
};

/// All islands. Indexes are reused after an island is closed; serials are not.
#[derive(Debug, Clone)]
pub(crate) struct Islands {
    pub(crate) ids: IslandIds,
    records: Slab<IslandIndex, Island>,
    by_serial: HashTable<IslandIndex>,
    populated_count: usize,
    /// Empty islands that are kept, in the order in which they expire.
    pub(crate) empty: VecDeque<EmptyIsland>,
    pub(crate) placements: Placements,
}

/// The state of an island, except its members.
#[derive(Debug, Clone)]
pub(crate) struct Island {
    /// `None` until the flush that creates the island emits it as opened.
    pub(crate) serial: Option<Serial>,
    /// Orders islands by age, those without a serial included: less is older.
    pub(crate) age: u64,
    /// Seats reserved on the node of the island.
    pub(crate) reserved_seats: u32,
    pub(crate) rule: IslandRule,
    /// The grants at the end of the last flush that evaluated the island; `None` before the first.
    pub(crate) reported_media: Option<MediaGrants>,
    pub(crate) node: Option<NodeIndex>,
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

const _: () = assert!(size_of::<Island>() <= 40);

/// The rule that applies to an island, or that it was not evaluated yet. Packed, because an enum of both would
/// have the size of two indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(Rust, packed)]
pub(crate) struct IslandRule {
    rule: Option<RuleIndex>,
    is_decided: bool,
}

impl IslandRule {
    /// That was not evaluated yet.
    pub(crate) const UNDECIDED: Self = Self { rule: None, is_decided: false };

    /// This rule, or none.
    pub(crate) fn decided(rule: Option<RuleIndex>) -> Self {
        Self { rule, is_decided: true }
    }

    /// The rule, if one was found to apply.
    pub(crate) fn index(self) -> Option<RuleIndex> {
        self.rule
    }

    /// Whether the rule was evaluated.
    pub(crate) fn is_decided(self) -> bool {
        self.is_decided
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IslandState {
    /// It has members.
    Populated,
    /// Its last member left. Its id is kept for the return window, so that the member can rejoin.
    Empty,
    /// It is closed. Its index is reused after the flush.
    Closed,
}

impl Islands {
    pub(crate) fn new(ids: IslandIds) -> Self {
        Self {
            ids,
            records: Slab::default(),
            by_serial: HashTable::new(),
            populated_count: 0,
            empty: VecDeque::new(),
            placements: Placements::default(),
        }
    }

    /// Adds an island that counts as populated; the caller adds its members.
    pub(crate) fn add(&mut self, age: u64) -> IslandIndex {
        self.populated_count += 1;
        self.records.insert(Island {
            serial: None,
            age,
            reserved_seats: 0,
            rule: IslandRule::UNDECIDED,
            reported_media: None,
            node: None,
            state: IslandState::Populated,
            movers: 0,
            dirty: false,
            maybe_split: false,
            members_changed: false,
            watched: false,
        })
    }

    /// Sets the serial of an island, which is also its final age.
    pub(crate) fn assign_serial(&mut self, island: IslandIndex, serial: Serial) {
        let record = &mut self.records[island];
        (record.serial, record.age) = (Some(serial), serial.number());
        let records = &self.records;
        // Every island in the table has a serial.
        let hash_of = |&island: &IslandIndex| records[island].serial.map_or(0, hash);
        self.by_serial.insert_unique(hash(serial), island, hash_of);
    }

    /// The id of an island; `None` before it has one.
    pub(crate) fn id(&self, island: IslandIndex) -> Option<IslandId> {
        self.records[island].serial.map(|serial| self.ids.island_id(serial))
    }

    /// The island with this id, if there is one.
    pub(crate) fn find_by_id(&self, id: &str) -> Option<IslandIndex> {
        self.find(self.ids.serial(id)?)
    }

    pub(crate) fn find(&self, serial: Serial) -> Option<IslandIndex> {
        self.by_serial.find(hash(serial), |&island| self.records[island].serial == Some(serial)).copied()
    }

    pub(crate) fn set_state(&mut self, island: IslandIndex, state: IslandState) {
        let before = std::mem::replace(&mut self.records[island].state, state);
        self.populated_count -= usize::from(before == IslandState::Populated);
        self.populated_count += usize::from(state == IslandState::Populated);
    }

    /// Removes a closed island and frees its index.
    pub(crate) fn remove(&mut self, island: IslandIndex) {
        if let Some(serial) = self.records[island].serial.take()
            && let Ok(entry) = self.by_serial.find_entry(hash(serial), |&other| other == island)
        {
            entry.remove();
        }
        self.records.remove(island);
    }

    /// Puts an island on the watch list, due in the next flush.
    pub(crate) fn watch_at_once(&mut self, island: IslandIndex) {
        let state = PlacementState { recheck_at: Duration::ZERO, ..self.placements.state(island) };
        self.placements.set_state(island, state);
        if !std::mem::replace(&mut self.records[island].watched, true) {
            self.placements.watched.push(island);
        }
    }

    pub(crate) fn is_populated(&self, island: IslandIndex) -> bool {
        self.records[island].state == IslandState::Populated
    }

    /// How many islands have members.
    pub(crate) fn populated_count(&self) -> usize {
        self.populated_count
    }

    /// Resets the rule of every island, including empty ones, so that the next flush decides it without
    /// the settling time.
    pub(crate) fn forget_rules(&mut self) {
        self.records.iter_mut().for_each(|island| island.rule = IslandRule::UNDECIDED);
    }

    /// The islands that have members.
    pub(crate) fn populated(&self) -> impl Iterator<Item = IslandIndex> {
        self.records.slots().filter(|&island| self.is_populated(island))
    }

    /// The islands that have members, and the empty ones that are not closed.
    pub(crate) fn kept(&self) -> impl Iterator<Item = IslandIndex> {
        self.records.slots().filter(|&island| self.is_kept(island))
    }

    /// Whether an island has members or is empty and not closed, and has an id.
    pub(crate) fn is_kept(&self, island: IslandIndex) -> bool {
        let record = &self.records[island];
        record.state != IslandState::Closed && record.serial.is_some()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.by_serial.allocation_size()
    }
}

impl std::ops::Index<IslandIndex> for Islands {
    type Output = Island;

    fn index(&self, island: IslandIndex) -> &Island {
        &self.records[island]
    }
}

impl std::ops::IndexMut<IslandIndex> for Islands {
    fn index_mut(&mut self, island: IslandIndex) -> &mut Island {
        &mut self.records[island]
    }
}

/// An empty island, and until when its id is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmptyIsland {
    pub(crate) island: IslandIndex,
    pub(crate) serial: Serial,
    pub(crate) until: Duration,
}

fn hash(serial: Serial) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u64(serial.number());
    hasher.finish()
}
