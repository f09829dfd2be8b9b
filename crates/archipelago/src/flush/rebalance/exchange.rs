//! Transfers and swaps of members between two pieces.
//!
//! Each member has an *offset*: its signed distance past the midpoint, along the line from the centre
//! of the first piece to the centre of the second. Transferring a member of the first piece with a
//! positive offset lowers the sum of squares, and so does swapping a member of the first piece for one
//! of the second with a smaller offset.

use super::Rebalance;
use crate::spatial::{Member, Point};

/// A member is transferred only if its offset is more than this share of the distance between the
/// centres (hysteresis).
const TRANSFER_SHARE: f32 = 0.05;
/// Two members are swapped only if their offsets differ by more than this share of the distance between
/// the centres.
const SWAP_SHARE: f32 = 0.10;
/// The least margin for a transfer or a swap, in metres.
const MIN_MARGIN_M: f32 = 0.5;

/// Two pieces count as barely too large for one island if together they exceed its limit by at most one
/// part in this many.
const SLACK_DIVISOR: u32 = 10;

/// Buffers that an exchange reuses. `first` and `second` hold the candidates of the two pieces with
/// their offsets in metres.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    first: Vec<(f32, Member)>,
    second: Vec<(f32, Member)>,
    rest: Vec<Member>,
    ends: Vec<usize>,
    found: Vec<u32>,
}

/// The line through the centres of two pieces, from the first to the second, and the margins for a
/// step.
#[derive(Debug, Clone, Copy)]
pub(super) struct CentreLine {
    midpoint: (f64, f64),
    direction: (f32, f32),
    transfer_m: f32,
    swap_m: f32,
}

impl CentreLine {
    /// `None` if both centres are the same point.
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

    /// Whether a member at this position is far enough past the midpoint to be transferred.
    pub(super) fn is_past_midpoint(&self, at: Point) -> bool {
        self.offset_m(at) > self.transfer_m
    }

    /// The offset of a position past the midpoint, in metres.
    fn offset_m(&self, at: Point) -> f32 {
        let x = (f64::from(at.x) - self.midpoint.0) as f32;
        let z = (f64::from(at.z) - self.midpoint.1) as f32;
        x * self.direction.0 + z * self.direction.1
    }
}

impl Rebalance<'_> {
    /// Takes all steps between two pieces. Returns the number of members that changed their piece.
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

    /// Whether piece `to` accepts members of piece `from` without giving any back. If both together are
    /// barely too large for one island, the smaller accepts only a few, so that its members are not
    /// isolated. Otherwise one peer that repeatedly joins and leaves would each time split and merge
    /// half of the others.
    fn accepts_transfer(&self, to: u32, from: u32) -> bool {
        let limit = self.engine.merged_size_limit(to, from);
        let (slack, size) = (limit / SLACK_DIVISOR, self.size(to));
        size < limit && (size < slack || size + self.size(from) > limit + slack)
    }

    /// Lists the candidates for transfers and swaps, those with most to gain first. Returns whether
    /// there may be a step.
    fn list_candidates(&mut self, one: u32, other: u32, line: CentreLine, scratch: &mut Scratch) -> bool {
        let pieces = &mut self.scratch.pieces;
        let first = pieces.get_or_load_members(self.engine, one);
        let second = pieces.get_or_load_members(self.engine, other);
        let offsets =
            |piece: u32| self.scratch.pieces[piece].members.iter().map(|member| line.offset_m(member.at));
        let farthest = offsets(first).fold(f32::NEG_INFINITY, f32::max);
        let nearest = offsets(second).fold(f32::INFINITY, f32::min);
        let give = farthest > line.transfer_m && self.accepts_transfer(other, one);
        let take = -nearest > line.transfer_m && self.accepts_transfer(one, other);
        if !give && !take && farthest - nearest <= line.swap_m {
            return false;
        }
        let least = (nearest + line.swap_m).min(if give { line.transfer_m } else { f32::INFINITY });
        let most = (farthest - line.swap_m).max(if take { -line.transfer_m } else { f32::NEG_INFINITY });
        let candidates = |piece: u32| {
            let members = self.scratch.pieces[piece].members.iter();
            members.map(|&member| (line.offset_m(member.at), member))
        };
        scratch.first.clear();
        scratch.first.extend(candidates(first).filter(|&(offset, _)| offset > least));
        scratch.second.clear();
        scratch.second.extend(candidates(second).filter(|&(offset, _)| offset < most));
        scratch.first.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.peer.cmp(&b.1.peer)));
        scratch.second.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.peer.cmp(&b.1.peer)));
        true
    }

    fn piece(&mut self, island: u32) -> u32 {
        self.scratch.pieces.get_or_load(self.engine, island)
    }

    /// Takes the steps with the candidates in order, transfers before swaps. Returns the number of members
    /// that changed their piece.
    fn apply_steps(&mut self, one: u32, other: u32, scratch: &mut Scratch) -> usize {
        let (first_candidates, second_candidates) =
            (std::mem::take(&mut scratch.first), std::mem::take(&mut scratch.second));
        let (mut next_first, mut next_second, mut steps) = (0, 0, 0);
        // Each step moves the centres, so each candidate is compared with the current line.
        while let Some(line) = self.line(one, other) {
            let first = first_candidates.get(next_first).map(|&(_, member)| member);
            let second = second_candidates.get(next_second).map(|&(_, member)| member);
            let first_offset = first.map(|member| line.offset_m(member.at));
            let second_offset = second.map(|member| line.offset_m(member.at));
            if let (Some(first), Some(offset)) = (first, first_offset)
                && offset > line.transfer_m
                && self.accepts_transfer(other, one)
            {
                next_first += 1;
                steps += usize::from(self.try_transfer(first, one, other, scratch));
            } else if let (Some(second), Some(offset)) = (second, second_offset)
                && -offset > line.transfer_m
                && self.accepts_transfer(one, other)
            {
                next_second += 1;
                steps += usize::from(self.try_transfer(second, other, one, scratch));
            } else if let (Some(first), Some(second), Some(first_offset), Some(second_offset)) =
                (first, second, first_offset, second_offset)
                && first_offset - second_offset > line.swap_m
            {
                match self.try_swap(first, second, one, other, scratch) {
                    SwapResult::Done => {
                        (next_first, next_second, steps) = (next_first + 1, next_second + 1, steps + 2)
                    }
                    SwapResult::FirstBlocked => next_first += 1,
                    SwapResult::SecondBlocked => next_second += 1,
                }
            } else {
                break;
            }
        }
        (scratch.first, scratch.second) = (first_candidates, second_candidates);
        steps
    }

    /// Transfers a member if all conditions hold.
    fn try_transfer(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) -> bool {
        let allowed = self.size(from) > 1
            && self.limits_unchanged(member, from, to)
            && !self.would_merge_without(member, from, to, scratch)
            && self.can_accept(member, None, from, to, self.size(to) + 1, scratch)
            && self.can_leave(member, from, scratch);
        if allowed {
            self.move_member(member, from, to, scratch);
        }
        allowed
    }

    /// Swaps two members if all conditions hold for both; otherwise reports the first that may not move.
    fn try_swap(
        &mut self,
        first: Member,
        second: Member,
        one: u32,
        other: u32,
        scratch: &mut Scratch,
    ) -> SwapResult {
        if !self.limits_unchanged(first, one, other)
            || !self.can_accept(first, Some(second), one, other, self.size(other), scratch)
            || !self.can_leave(first, one, scratch)
        {
            return SwapResult::FirstBlocked;
        }
        if !self.limits_unchanged(second, other, one)
            || !self.can_accept(second, Some(first), other, one, self.size(one), scratch)
            || !self.can_leave(second, other, scratch)
        {
            return SwapResult::SecondBlocked;
        }
        self.move_member(first, one, other, scratch);
        self.move_member(second, other, one, scratch);
        SwapResult::Done
    }

    /// Whether a step leaves the size limits of both pieces unchanged, by zones and capabilities: it
    /// changes their sizes only.
    fn limits_unchanged(&self, member: Member, from: u32, to: u32) -> bool {
        self.engine.limit_unchanged_without(from, member) && self.engine.limit_unchanged_with(to, member)
    }

    /// Whether a piece stays connected without a member, and the member does not prefer it.
    fn can_leave(&mut self, member: Member, from: u32, scratch: &mut Scratch) -> bool {
        let serial = self.engine.islands[from].serial;
        if crate::flush::merge::prefers_island(self.engine, member.peer, serial) {
            return false;
        }
        let piece = self.piece(from);
        let distances = &self.engine.spatial.distances;
        self.scratch.pieces[piece].is_connected_without(
            member,
            distances,
            &mut scratch.rest,
            &mut scratch.ends,
        )
    }

    /// Whether a piece could merge with another neighbour if it lost this member.
    fn would_merge_without(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) -> bool {
        let rest = self.size(from) - 1;
        let piece = self.piece(from);
        let neighbours = &self.scratch.pieces[piece].neighbours;
        let fits = |neighbour: u32| {
            rest + self.engine.spatial.size(neighbour) <= self.engine.merged_size_limit(from, neighbour)
        };
        scratch.found.clear();
        scratch.found.extend(neighbours.iter().filter(|&&neighbour| neighbour != to && fits(neighbour)));
        scratch.found.iter().any(|&neighbour| self.is_near(from, neighbour, member.peer))
    }

    /// Whether a piece can accept a member, in exchange for one of its own or not: the member is within
    /// the join distance of a remaining member, and brings the piece near no island that it could merge
    /// with at `size`.
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
        let piece = self.piece(to);
        let excluding = in_exchange_for.map_or(crate::slab::NONE, |member| member.peer);
        if !self.scratch.pieces[piece].is_near_member(member, &self.engine.spatial.distances, excluding) {
            return false;
        }
        scratch.found.clear();
        let room = self.engine.zones.uniform_limit().map_or(u32::MAX, |limit| limit.saturating_sub(size));
        let spatial = &mut self.engine.spatial;
        spatial.islands_near_point(member.at, member.traits.zone(), room, &mut scratch.found);
        scratch.found.iter().all(|&island| {
            let fits = || size + self.size(island) <= self.engine.merged_size_limit(to, island);
            island == from || island == to || !fits()
        })
    }

    /// Moves a member to another piece, and updates the cached pieces and neighbour lists.
    fn move_member(&mut self, member: Member, from: u32, to: u32, scratch: &mut Scratch) {
        // A step changes the neighbour lists only of the islands near the member. They are loaded
        // before the step, while they are still right without it.
        scratch.found.clear();
        self.engine.spatial.islands_near_point(member.at, member.traits.zone(), u32::MAX, &mut scratch.found);
        for &island in [from, to].iter().chain(&scratch.found) {
            self.scratch.pieces.load_neighbours(self.engine, island);
        }
        self.engine.spatial.transfer(member.peer, to);
        self.engine.queue_report(member.peer);
        self.engine.mark_changed(from);
        self.engine.mark_changed(to);
        let (source, target) = (self.piece(from), self.piece(to));
        self.scratch.pieces[source].remove(member.peer);
        self.scratch.pieces[target].add(member);
        scratch.found.clear();
        self.engine.spatial.islands_near_point(member.at, member.traits.zone(), u32::MAX, &mut scratch.found);
        for &island in &scratch.found {
            if island != to {
                self.scratch.pieces.connect(to, island);
            }
        }
    }
}

/// The result of a swap: done, or which of the two members may not move.
enum SwapResult {
    Done,
    FirstBlocked,
    SecondBlocked,
}
