use std::ops::{Index, IndexMut};

use crate::{
    engine::Engine,
    flush::cut::{bounds, components},
    ground::{Member, Point, Reaches},
    slab::NONE,
};

/// What a refinement knows of a piece.
#[derive(Debug, Clone, Default)]
pub(super) struct Sheet {
    island: u32,
    pub(super) members: Vec<Member>,
    /// The islands near it: all that have a member within the join distance of one of its own, and,
    /// once members have come or gone, perhaps some that had.
    pub(super) contacts: Vec<u32>,
    /// The contacts were sought. Until they are needed, or would change, they are not.
    knows_contacts: bool,
    /// The corners of a rectangle around all members.
    low: Point,
    high: Point,
    /// The flush is about it: it may be looked at again.
    pub(super) active: bool,
    /// It is in line to be looked at.
    pub(super) queued: bool,
}

/// The sheets of a refinement, opened as they are needed.
#[derive(Debug, Clone, Default)]
pub(super) struct Sheets {
    sheets: Vec<Sheet>,
    used: u32,
    /// By island.
    of: Vec<u32>,
}

impl Sheets {
    pub(super) fn find(&self, island: u32) -> u32 {
        self.of.get(island as usize).copied().unwrap_or(NONE)
    }

    pub(super) fn has(&self, island: u32) -> bool {
        self.find(island) != NONE
    }

    /// The sheet of an island, a new one if need be.
    pub(super) fn open(&mut self, engine: &mut Engine, island: u32) -> u32 {
        let index = self.open_without_contacts(engine, island);
        self[index].find_contacts(engine);
        index
    }

    /// The sheet of an island, a new one if need be, for one who only looks at the members.
    pub(super) fn open_without_contacts(&mut self, engine: &Engine, island: u32) -> u32 {
        let known = self.find(island);
        if known != NONE {
            return known;
        }
        let index = self.add(island);
        self[index].gather(engine);
        index
    }

    /// Seeks the contacts of an island that has a sheet, while they are what they were when it was
    /// opened.
    pub(super) fn complete(&mut self, engine: &mut Engine, island: u32) {
        let index = self.find(island);
        if index != NONE {
            self[index].find_contacts(engine);
        }
    }

    /// A new sheet for an island, unless nobody is near it. What the survey found is believed.
    pub(super) fn open_unless_alone(&mut self, engine: &mut Engine, island: u32) -> Option<u32> {
        let index = self.add(island);
        let sheet = &mut self[index];
        match engine.scratch.contacts.of(island) {
            Some(known) if !engine.islands[island].changed => {
                let inhabited = known.iter().filter(|&&contact| engine.islands.is_inhabited(contact));
                sheet.contacts.extend(inhabited);
                sheet.knows_contacts = true;
            }
            _ => sheet.find_contacts(engine),
        }
        if sheet.contacts.is_empty() {
            self.used -= 1;
            self.of[island as usize] = NONE;
            return None;
        }
        sheet.gather(engine);
        Some(index)
    }

    fn add(&mut self, island: u32) -> u32 {
        let index = self.used;
        self.used += 1;
        if index as usize == self.sheets.len() {
            self.sheets.push(Sheet::default());
        }
        if self.of.len() <= island as usize {
            self.of.resize(island as usize + 1, NONE);
        }
        self.of[island as usize] = index;
        self[index].clear(island);
        index
    }

    /// Closes all sheets. Their memory stays.
    pub(super) fn clear(&mut self) {
        for sheet in &self.sheets[..self.used as usize] {
            self.of[sheet.island as usize] = NONE;
        }
        self.used = 0;
    }

    /// Notes that two islands are near each other.
    pub(super) fn connect(&mut self, one: u32, other: u32) {
        self.note(one, other);
        self.note(other, one);
    }

    /// Notes on the sheet of an island, if it has one, that another is near.
    pub(super) fn note(&mut self, island: u32, contact: u32) {
        let index = self.find(island);
        if index != NONE && !self[index].contacts.contains(&contact) {
            self[index].contacts.push(contact);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let sheet = |sheet: &Sheet| {
            sheet.members.capacity() * size_of::<Member>() + sheet.contacts.capacity() * size_of::<u32>()
        };
        self.sheets.iter().map(sheet).sum::<usize>()
            + self.sheets.capacity() * size_of::<Sheet>()
            + self.of.capacity() * size_of::<u32>()
    }
}

impl Index<u32> for Sheets {
    type Output = Sheet;

    fn index(&self, index: u32) -> &Sheet {
        &self.sheets[index as usize]
    }
}

impl IndexMut<u32> for Sheets {
    fn index_mut(&mut self, index: u32) -> &mut Sheet {
        &mut self.sheets[index as usize]
    }
}

impl Sheet {
    fn clear(&mut self, island: u32) {
        self.island = island;
        (self.active, self.queued, self.knows_contacts) = (false, false, false);
        self.contacts.clear();
        self.members.clear();
    }

    fn find_contacts(&mut self, engine: &mut Engine) {
        if std::mem::replace(&mut self.knows_contacts, true) {
            return;
        }
        engine.ground.touching(self.island, u32::MAX, &mut self.contacts);
    }

    fn gather(&mut self, engine: &Engine) {
        engine.ground.gather(self.island, &mut self.members);
        (self.low, self.high) = bounds(&self.members);
    }

    pub(super) fn add(&mut self, member: Member) {
        self.members.push(member);
        let Point { x, z } = member.at;
        self.low = Point { x: self.low.x.min(x), z: self.low.z.min(z) };
        self.high = Point { x: self.high.x.max(x), z: self.high.z.max(z) };
    }

    pub(super) fn remove(&mut self, peer: u32) {
        if let Some(index) = self.members.iter().position(|member| member.peer == peer) {
            self.members.swap_remove(index);
        }
    }

    /// Whether a member other than `but` is within the join distance of somebody.
    pub(super) fn touches(&self, somebody: Member, reaches: &Reaches, but: u32) -> bool {
        let Member { at, terms, .. } = somebody;
        self.members.iter().any(|member| {
            member.peer != but
                && member.at.distance_squared(at) <= reaches.join_squared(member.terms.zone(), terms.zone())
        })
    }

    /// Whether a member of this island other than `but` is within the join distance of one of the
    /// other.
    pub(super) fn is_near(&self, other: &Self, reaches: &Reaches, but: u32) -> bool {
        let others = self.members.iter().filter(|member| member.peer != but);
        others.into_iter().any(|&member| other.touches(member, reaches, NONE))
    }

    /// Whether the members hold together at the leave distance when one of them goes.
    pub(super) fn holds_without(
        &self,
        gone: Member,
        reaches: &Reaches,
        rest: &mut Vec<Member>,
        ends: &mut Vec<usize>,
    ) -> bool {
        if self.is_small(reaches) || self.meets_beside(gone, reaches) {
            return true;
        }
        rest.clear();
        rest.extend(self.members.iter().filter(|member| member.peer != gone.peer));
        ends.clear();
        components(rest, reaches, ends);
        ends.len() == 1
    }

    /// Whether nobody can be beyond the leave distance of anybody.
    fn is_small(&self, reaches: &Reaches) -> bool {
        let across = self.low.distance_squared(self.high);
        if let Some(squared) = reaches.only_leave_squared() {
            return across <= squared;
        }
        self.members.iter().all(|member| across <= reaches.own_leave_squared(member))
    }

    /// Whether all who are near one member are near the one of them that is nearest to it: then it
    /// is not through that member that they hold together.
    fn meets_beside(&self, gone: Member, reaches: &Reaches) -> bool {
        let near = || {
            let others = self.members.iter().filter(|member| member.peer != gone.peer);
            others.filter(|member| reaches.hold(member, &gone))
        };
        let nearest = near().min_by(|a, b| {
            a.at.distance_squared(gone.at)
                .total_cmp(&b.at.distance_squared(gone.at))
                .then(a.peer.cmp(&b.peer))
        });
        nearest.is_some_and(|hub| near().all(|member| reaches.hold(member, hub)))
    }
}
