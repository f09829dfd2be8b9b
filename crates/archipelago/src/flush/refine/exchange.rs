//! Steps between two pieces.
//!
//! Along the line through both centres, from the one to the other, everybody has a *reach*: how far
//! they stand past the middle. Handing over somebody of the first piece with a positive reach lowers
//! the sum of squares, and so does exchanging somebody of the first for somebody of the second whose
//! reach is less.

use super::Work;
use crate::ground::{Member, Point};

/// How far past the middle somebody stands who is handed over: this part of the distance between
/// the centres.
const HAND_SHARE: f32 = 0.05;
/// How much farther one of two stands than the other who are exchanged.
const SWAP_SHARE: f32 = 0.10;
/// And not less than this.
const LEAST_M: f32 = 0.5;

/// Two pieces are only just too many for one island up to this part of the limit above it.
const SLACK: u32 = 10;

/// Memory that one exchange leaves to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    ours: Vec<(f32, Member)>,
    theirs: Vec<(f32, Member)>,
    rest: Vec<Member>,
    ends: Vec<usize>,
    found: Vec<u32>,
}

/// The line through the centres of two pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    middle: (f64, f64),
    direction: (f32, f32),
    hand_m: f32,
    swap_m: f32,
}

impl Line {
    pub(super) fn between(from: (f64, f64), to: (f64, f64)) -> Option<Self> {
        let (x, z) = (to.0 - from.0, to.1 - from.1);
        let length = x.hypot(z);
        let length_m = length as f32;
        (length > 0.0).then(|| Self {
            middle: ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0),
            direction: ((x / length) as f32, (z / length) as f32),
            hand_m: (HAND_SHARE * length_m).max(LEAST_M),
            swap_m: (SWAP_SHARE * length_m).max(LEAST_M),
        })
    }

    /// Whether somebody at this place is to be handed over.
    pub(super) fn is_past(&self, at: Point) -> bool {
        self.reach(at) > self.hand_m
    }

    /// How far past the middle, in metres.
    fn reach(&self, at: Point) -> f32 {
        let x = (f64::from(at.x) - self.middle.0) as f32;
        let z = (f64::from(at.z) - self.middle.1) as f32;
        x * self.direction.0 + z * self.direction.1
    }
}

impl Work<'_> {
    /// Takes all steps between two pieces. Returns how many they were.
    pub(super) fn exchange(&mut self, one: u32, other: u32) -> usize {
        let Some(line) = self.line(one, other) else { return 0 };
        let mut scratch = std::mem::take(&mut self.scratch.exchange);
        let steps = if self.list(one, other, line, &mut scratch) {
            self.take_steps(one, other, &mut scratch)
        } else {
            0
        };
        self.scratch.exchange = scratch;
        steps
    }

    fn line(&self, one: u32, other: u32) -> Option<Line> {
        Line::between(self.engine.ground.centre(one), self.engine.ground.centre(other))
    }

    fn size(&self, island: u32) -> u32 {
        self.engine.ground.size(island)
    }

    /// Whether one piece takes members of another for nothing in return. If both are only just too
    /// many for one island, the smaller takes but a few, for company: one more who comes and goes
    /// would otherwise part half of the others each time, and bring them together again.
    fn takes(&self, to: u32, from: u32) -> bool {
        let limit = self.engine.limit_of_both(to, from);
        let (slack, size) = (limit / SLACK, self.size(to));
        size < limit && (size < slack || size + self.size(from) > limit + slack)
    }

    /// Lists who might be handed over or exchanged, those with most to gain first. Returns whether
    /// there is anybody.
    fn list(&mut self, one: u32, other: u32, line: Line, scratch: &mut Scratch) -> bool {
        let sheets = &mut self.scratch.sheets;
        let ours = sheets.open_without_contacts(self.engine, one);
        let theirs = sheets.open_without_contacts(self.engine, other);
        let reaches =
            |sheet: u32| self.scratch.sheets[sheet].members.iter().map(|member| line.reach(member.at));
        let farthest = reaches(ours).fold(f32::NEG_INFINITY, f32::max);
        let nearest = reaches(theirs).fold(f32::INFINITY, f32::min);
        let give = farthest > line.hand_m && self.takes(other, one);
        let take = -nearest > line.hand_m && self.takes(one, other);
        if !give && !take && farthest - nearest <= line.swap_m {
            return false;
        }
        let least = (nearest + line.swap_m).min(if give { line.hand_m } else { f32::INFINITY });
        let most = (farthest - line.swap_m).max(if take { -line.hand_m } else { f32::NEG_INFINITY });
        let candidates = |sheet: u32| {
            let members = self.scratch.sheets[sheet].members.iter();
            members.map(|&member| (line.reach(member.at), member))
        };
        scratch.ours.clear();
        scratch.ours.extend(candidates(ours).filter(|&(reach, _)| reach > least));
        scratch.theirs.clear();
        scratch.theirs.extend(candidates(theirs).filter(|&(reach, _)| reach < most));
        scratch.ours.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.peer.cmp(&b.1.peer)));
        scratch.theirs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.peer.cmp(&b.1.peer)));
        true
    }

    fn sheet(&mut self, island: u32) -> u32 {
        self.scratch.sheets.open(self.engine, island)
    }

    fn take_steps(&mut self, one: u32, other: u32, scratch: &mut Scratch) -> usize {
        let (ours, theirs) = (std::mem::take(&mut scratch.ours), std::mem::take(&mut scratch.theirs));
        let (mut next, mut next_theirs, mut steps) = (0, 0, 0);
        // The line moves with each step; who was listed is held against it as it is then.
        while let Some(line) = self.line(one, other) {
            let mine = ours.get(next).map(|&(_, member)| member);
            let yours = theirs.get(next_theirs).map(|&(_, member)| member);
            let reach = mine.map(|member| line.reach(member.at));
            let reach_yours = yours.map(|member| line.reach(member.at));
            if let (Some(mine), Some(reach)) = (mine, reach)
                && reach > line.hand_m
                && self.takes(other, one)
            {
                next += 1;
                steps += usize::from(self.hand(mine, one, other, scratch));
            } else if let (Some(yours), Some(reach)) = (yours, reach_yours)
                && -reach > line.hand_m
                && self.takes(one, other)
            {
                next_theirs += 1;
                steps += usize::from(self.hand(yours, other, one, scratch));
            } else if let (Some(mine), Some(yours), Some(reach), Some(reach_yours)) =
                (mine, yours, reach, reach_yours)
                && reach - reach_yours > line.swap_m
            {
                match self.swap(mine, yours, one, other, scratch) {
                    Swap::Done => (next, next_theirs, steps) = (next + 1, next_theirs + 1, steps + 2),
                    Swap::MineStays => next += 1,
                    Swap::YoursStays => next_theirs += 1,
                }
            } else {
                break;
            }
        }
        (scratch.ours, scratch.theirs) = (ours, theirs);
        steps
    }

    /// Hands a member over, if it may go.
    fn hand(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) -> bool {
        let may = self.size(from) > 1
            && self.is_alike(member, from, to)
            && !self.would_merge_without(member, from, to, scratch)
            && self.would_fit_in(member, None, from, to, self.size(to) + 1, scratch)
            && self.may_leave(member, from, scratch);
        if may {
            self.apply(member, from, to, scratch);
        }
        may
    }

    fn swap(&mut self, mine: Member, yours: Member, one: u32, other: u32, scratch: &mut Scratch) -> Swap {
        if !self.is_alike(mine, one, other)
            || !self.would_fit_in(mine, Some(yours), one, other, self.size(other), scratch)
            || !self.may_leave(mine, one, scratch)
        {
            return Swap::MineStays;
        }
        if !self.is_alike(yours, other, one)
            || !self.would_fit_in(yours, Some(mine), other, one, self.size(one), scratch)
            || !self.may_leave(yours, other, scratch)
        {
            return Swap::YoursStays;
        }
        self.apply(mine, one, other, scratch);
        self.apply(yours, other, one, scratch);
        Swap::Done
    }

    /// Whether a member may go from one piece to another for all that is said about sizes: a step
    /// changes nothing for either but how many they are.
    fn is_alike(&self, member: Member, from: u32, to: u32) -> bool {
        self.engine.is_alike_without(from, member) && self.engine.is_alike_with(to, member)
    }

    /// Whether a piece holds together without a member, and the member does not wish to be in it.
    fn may_leave(&mut self, member: Member, from: u32, scratch: &mut Scratch) -> bool {
        let serial = self.engine.islands[from].serial;
        if crate::flush::merge::would_like(self.engine, member.peer, serial) {
            return false;
        }
        let sheet = self.sheet(from);
        let reaches = &self.engine.ground.reaches;
        self.scratch.sheets[sheet].holds_without(member, reaches, &mut scratch.rest, &mut scratch.ends)
    }

    /// Whether a piece would fit together with another near it if it lost this member.
    fn would_merge_without(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) -> bool {
        let rest = self.size(from) - 1;
        let sheet = self.sheet(from);
        let contacts = &self.scratch.sheets[sheet].contacts;
        let fits = |contact: u32| {
            rest + self.engine.ground.size(contact) <= self.engine.limit_of_both(from, contact)
        };
        scratch.found.clear();
        scratch.found.extend(contacts.iter().filter(|&&contact| contact != to && fits(contact)));
        scratch.found.iter().any(|&contact| self.is_near(from, contact, member.peer))
    }

    /// Whether a piece may take a member in, for one of its own or not: the member is near somebody
    /// who stays, and brings it near no island that it would fit together with at `size`.
    fn would_fit_in(
        &mut self,
        member: Member,
        for_whom: Option<Member>,
        from: u32,
        to: u32,
        size: u32,
        scratch: &mut Scratch,
    ) -> bool {
        if size > self.engine.limit_of(to) {
            return false;
        }
        let sheet = self.sheet(to);
        let but = for_whom.map_or(crate::slab::NONE, |member| member.peer);
        if !self.scratch.sheets[sheet].touches(member, &self.engine.ground.reaches, but) {
            return false;
        }
        scratch.found.clear();
        let room = self.engine.zones.only_limit().map_or(u32::MAX, |limit| limit.saturating_sub(size));
        let ground = &mut self.engine.ground;
        ground.touching_point(member.at, member.terms.zone(), room, &mut scratch.found);
        scratch.found.iter().all(|&island| {
            let fits = || size + self.size(island) <= self.engine.limit_of_both(to, island);
            island == from || island == to || !fits()
        })
    }

    fn apply(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) {
        // What is near the member is what this changes for others.
        scratch.found.clear();
        self.engine.ground.touching_point(member.at, member.terms.zone(), u32::MAX, &mut scratch.found);
        for &island in [from, to].iter().chain(&scratch.found) {
            self.scratch.sheets.complete(self.engine, island);
        }
        self.engine.ground.hand(member.peer, to);
        self.engine.list(member.peer);
        self.engine.mark_changed(from);
        self.engine.mark_changed(to);
        let (ours, theirs) = (self.sheet(from), self.sheet(to));
        self.scratch.sheets[ours].remove(member.peer);
        self.scratch.sheets[theirs].add(member);
        scratch.found.clear();
        self.engine.ground.touching_point(member.at, member.terms.zone(), u32::MAX, &mut scratch.found);
        for &island in &scratch.found {
            if island != to {
                self.scratch.sheets.connect(to, island);
            }
        }
    }
}

enum Swap {
    Done,
    MineStays,
    YoursStays,
}
