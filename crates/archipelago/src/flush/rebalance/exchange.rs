//! Steps between two pieces.
//!
//! Along the line through both centres, from the one to the other, everybody has a *reach*: how far
//! they stand past the middle. Handing over somebody of the first piece with a positive reach lowers
//! the sum of squares, and so does exchanging somebody of the first for somebody of the second whose
//! reach is less.

use super::Rebalance;
use crate::spatial::{Member, Point};

/// How far past the middle somebody stands who is handed over: this part of the distance between
/// the centres.
const TRANSFER_SHARE: f32 = 0.05;
/// How much farther one of two stands than the other who are exchanged.
const SWAP_SHARE: f32 = 0.10;
/// And not less than this.
const MIN_MARGIN_M: f32 = 0.5;

/// Two pieces are only just too many for one island up to this part of the limit above it.
const SLACK_DIVISOR: u32 = 10;

/// Memory that one exchange leaves to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    first: Vec<(f32, Member)>,
    second: Vec<(f32, Member)>,
    rest: Vec<Member>,
    ends: Vec<usize>,
    found: Vec<u32>,
}

/// The line through the centres of two pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct CentreLine {
    midpoint: (f64, f64),
    direction: (f32, f32),
    transfer_m: f32,
    swap_m: f32,
}

impl CentreLine {
    pub(super) fn between(from: (f64, f64), to: (f64, f64)) -> Option<Self> {
        let (x, z) = (to.0 - from.0, to.1 - from.1);
        let length = x.hypot(z);
        let length_m = length as f32;
        (length > 0.0).then(|| Self {
            midpoint: ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0),
            direction: ((x / length) as f32, (z / length) as f32),
            transfer_m: (TRANSFER_SHARE * length_m).max(MIN_MARGIN_M),
            swap_m: (SWAP_SHARE * length_m).max(MIN_MARGIN_M),
        })
    }

    /// Whether somebody at this place is to be handed over.
    pub(super) fn is_past_midpoint(&self, at: Point) -> bool {
        self.offset_m(at) > self.transfer_m
    }

    /// How far past the middle, in metres.
    fn offset_m(&self, at: Point) -> f32 {
        let x = (f64::from(at.x) - self.midpoint.0) as f32;
        let z = (f64::from(at.z) - self.midpoint.1) as f32;
        x * self.direction.0 + z * self.direction.1
    }
}

impl Rebalance<'_> {
    /// Takes all steps between two pieces. Returns how many they were.
    pub(super) fn exchange(&mut self, one: u32, other: u32) -> usize {
        let Some(line) = self.line(one, other) else { return 0 };
        let mut scratch = std::mem::take(&mut self.scratch.exchange);
        let steps = if self.list_candidates(one, other, line, &mut scratch) {
            self.apply_steps(one, other, &mut scratch)
        } else {
            0
        };
        self.scratch.exchange = scratch;
        steps
    }

    fn line(&self, one: u32, other: u32) -> Option<CentreLine> {
        CentreLine::between(self.engine.spatial.centre(one), self.engine.spatial.centre(other))
    }

    fn size(&self, island: u32) -> u32 {
        self.engine.spatial.size(island)
    }

    /// Whether one piece takes members of another for nothing in return. If both are only just too
    /// many for one island, the smaller takes but a few, for company: one more who comes and goes
    /// would otherwise part half of the others each time, and bring them together again.
    fn accepts_transfer(&self, to: u32, from: u32) -> bool {
        let limit = self.engine.merged_size_limit(to, from);
        let (slack, size) = (limit / SLACK_DIVISOR, self.size(to));
        size < limit && (size < slack || size + self.size(from) > limit + slack)
    }

    /// Lists who might be handed over or exchanged, those with most to gain first. Returns whether
    /// there is anybody.
    fn list_candidates(&mut self, one: u32, other: u32, line: CentreLine, scratch: &mut Scratch) -> bool {
        let sheets = &mut self.scratch.pieces;
        let ours = sheets.get_or_load_members(self.engine, one);
        let theirs = sheets.get_or_load_members(self.engine, other);
        let reaches =
            |sheet: u32| self.scratch.pieces[sheet].members.iter().map(|member| line.offset_m(member.at));
        let farthest = reaches(ours).fold(f32::NEG_INFINITY, f32::max);
        let nearest = reaches(theirs).fold(f32::INFINITY, f32::min);
        let give = farthest > line.transfer_m && self.accepts_transfer(other, one);
        let take = -nearest > line.transfer_m && self.accepts_transfer(one, other);
        if !give && !take && farthest - nearest <= line.swap_m {
            return false;
        }
        let least = (nearest + line.swap_m).min(if give { line.transfer_m } else { f32::INFINITY });
        let most = (farthest - line.swap_m).max(if take { -line.transfer_m } else { f32::NEG_INFINITY });
        let candidates = |sheet: u32| {
            let members = self.scratch.pieces[sheet].members.iter();
            members.map(|&member| (line.offset_m(member.at), member))
        };
        scratch.first.clear();
        scratch.first.extend(candidates(ours).filter(|&(reach, _)| reach > least));
        scratch.second.clear();
        scratch.second.extend(candidates(theirs).filter(|&(reach, _)| reach < most));
        scratch.first.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.peer.cmp(&b.1.peer)));
        scratch.second.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.peer.cmp(&b.1.peer)));
        true
    }

    fn piece(&mut self, island: u32) -> u32 {
        self.scratch.pieces.get_or_load(self.engine, island)
    }

    fn apply_steps(&mut self, one: u32, other: u32, scratch: &mut Scratch) -> usize {
        let (ours, theirs) = (std::mem::take(&mut scratch.first), std::mem::take(&mut scratch.second));
        let (mut next, mut next_theirs, mut steps) = (0, 0, 0);
        // The line moves with each step; who was listed is held against it as it is then.
        while let Some(line) = self.line(one, other) {
            let mine = ours.get(next).map(|&(_, member)| member);
            let yours = theirs.get(next_theirs).map(|&(_, member)| member);
            let reach = mine.map(|member| line.offset_m(member.at));
            let reach_yours = yours.map(|member| line.offset_m(member.at));
            if let (Some(mine), Some(reach)) = (mine, reach)
                && reach > line.transfer_m
                && self.accepts_transfer(other, one)
            {
                next += 1;
                steps += usize::from(self.try_transfer(mine, one, other, scratch));
            } else if let (Some(yours), Some(reach)) = (yours, reach_yours)
                && -reach > line.transfer_m
                && self.accepts_transfer(one, other)
            {
                next_theirs += 1;
                steps += usize::from(self.try_transfer(yours, other, one, scratch));
            } else if let (Some(mine), Some(yours), Some(reach), Some(reach_yours)) =
                (mine, yours, reach, reach_yours)
                && reach - reach_yours > line.swap_m
            {
                match self.try_swap(mine, yours, one, other, scratch) {
                    SwapResult::Done => (next, next_theirs, steps) = (next + 1, next_theirs + 1, steps + 2),
                    SwapResult::FirstBlocked => next += 1,
                    SwapResult::SecondBlocked => next_theirs += 1,
                }
            } else {
                break;
            }
        }
        (scratch.first, scratch.second) = (ours, theirs);
        steps
    }

    /// Hands a member over, if it may go.
    fn try_transfer(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) -> bool {
        let may = self.size(from) > 1
            && self.limits_unchanged(member, from, to)
            && !self.would_merge_without(member, from, to, scratch)
            && self.can_accept(member, None, from, to, self.size(to) + 1, scratch)
            && self.can_leave(member, from, scratch);
        if may {
            self.move_member(member, from, to, scratch);
        }
        may
    }

    fn try_swap(
        &mut self,
        mine: Member,
        yours: Member,
        one: u32,
        other: u32,
        scratch: &mut Scratch,
    ) -> SwapResult {
        if !self.limits_unchanged(mine, one, other)
            || !self.can_accept(mine, Some(yours), one, other, self.size(other), scratch)
            || !self.can_leave(mine, one, scratch)
        {
            return SwapResult::FirstBlocked;
        }
        if !self.limits_unchanged(yours, other, one)
            || !self.can_accept(yours, Some(mine), other, one, self.size(one), scratch)
            || !self.can_leave(yours, other, scratch)
        {
            return SwapResult::SecondBlocked;
        }
        self.move_member(mine, one, other, scratch);
        self.move_member(yours, other, one, scratch);
        SwapResult::Done
    }

    /// Whether a member may go from one piece to another for all that is said about sizes: a step
    /// changes nothing for either but how many they are.
    fn limits_unchanged(&self, member: Member, from: u32, to: u32) -> bool {
        self.engine.limit_unchanged_without(from, member) && self.engine.limit_unchanged_with(to, member)
    }

    /// Whether a piece holds together without a member, and the member does not wish to be in it.
    fn can_leave(&mut self, member: Member, from: u32, scratch: &mut Scratch) -> bool {
        let serial = self.engine.islands[from].serial;
        if crate::flush::merge::prefers_island(self.engine, member.peer, serial) {
            return false;
        }
        let sheet = self.piece(from);
        let reaches = &self.engine.spatial.distances;
        self.scratch.pieces[sheet].is_connected_without(member, reaches, &mut scratch.rest, &mut scratch.ends)
    }

    /// Whether a piece would fit together with another near it if it lost this member.
    fn would_merge_without(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) -> bool {
        let rest = self.size(from) - 1;
        let sheet = self.piece(from);
        let contacts = &self.scratch.pieces[sheet].neighbours;
        let fits = |contact: u32| {
            rest + self.engine.spatial.size(contact) <= self.engine.merged_size_limit(from, contact)
        };
        scratch.found.clear();
        scratch.found.extend(contacts.iter().filter(|&&contact| contact != to && fits(contact)));
        scratch.found.iter().any(|&contact| self.is_near(from, contact, member.peer))
    }

    /// Whether a piece may take a member in, for one of its own or not: the member is near somebody
    /// who stays, and brings it near no island that it would fit together with at `size`.
    fn can_accept(
        &mut self,
        member: Member,
        in_exchange_for: Option<Member>,
        from: u32,
        to: u32,
        size: u32,
        scratch: &mut Scratch,
    ) -> bool {
        if size > self.engine.size_limit(to) {
            return false;
        }
        let sheet = self.piece(to);
        let but = in_exchange_for.map_or(crate::slab::NONE, |member| member.peer);
        if !self.scratch.pieces[sheet].is_near_member(member, &self.engine.spatial.distances, but) {
            return false;
        }
        scratch.found.clear();
        let room = self.engine.zones.uniform_limit().map_or(u32::MAX, |limit| limit.saturating_sub(size));
        let ground = &mut self.engine.spatial;
        ground.islands_near_point(member.at, member.traits.zone(), room, &mut scratch.found);
        scratch.found.iter().all(|&island| {
            let fits = || size + self.size(island) <= self.engine.merged_size_limit(to, island);
            island == from || island == to || !fits()
        })
    }

    fn move_member(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) {
        // What is near the member is what this changes for others.
        scratch.found.clear();
        self.engine.spatial.islands_near_point(member.at, member.traits.zone(), u32::MAX, &mut scratch.found);
        for &island in [from, to].iter().chain(&scratch.found) {
            self.scratch.pieces.load_neighbours(self.engine, island);
        }
        self.engine.spatial.transfer(member.peer, to);
        self.engine.queue_report(member.peer);
        self.engine.mark_changed(from);
        self.engine.mark_changed(to);
        let (ours, theirs) = (self.piece(from), self.piece(to));
        self.scratch.pieces[ours].remove(member.peer);
        self.scratch.pieces[theirs].add(member);
        scratch.found.clear();
        self.engine.spatial.islands_near_point(member.at, member.traits.zone(), u32::MAX, &mut scratch.found);
        for &island in &scratch.found {
            if island != to {
                self.scratch.pieces.connect(to, island);
            }
        }
    }
}

enum SwapResult {
    Done,
    FirstBlocked,
    SecondBlocked,
}
