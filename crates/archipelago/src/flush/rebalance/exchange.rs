//! Transfers and swaps of members between two pieces.

use super::piece_cache::PieceCache;
use crate::{
    flush::{centre_line::CentreLine, merge::prefers_island},
    ids::{IslandIndex, PieceIndex},
    world::{Member, World},
};

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
    found: Vec<IslandIndex>,
}

/// The exchange of members between pieces.
pub(super) struct Exchange<'a> {
    pub(super) world: &'a mut World,
    pub(super) pieces: &'a mut PieceCache,
    pub(super) scratch: &'a mut Scratch,
}

impl Exchange<'_> {
    /// Takes all steps between two pieces. Returns the number of members that changed their piece.
    pub(super) fn run(mut self, one: IslandIndex, other: IslandIndex) -> usize {
        let Some(line) = CentreLine::between(self.world, one, other) else { return 0 };
        if self.list_candidates(one, other, line) { self.apply_steps(one, other) } else { 0 }
    }

    fn size(&self, island: IslandIndex) -> u32 {
        self.world.spatial.size(island)
    }

    /// Whether piece `to` accepts members of piece `from` without giving any back. If both together are
    /// barely too large for one island, the smaller accepts only a few, so that its members are not
    /// isolated. Otherwise one peer that repeatedly joins and leaves would each time split and merge
    /// half of the others.
    fn accepts_transfer(&self, to: IslandIndex, from: IslandIndex) -> bool {
        let limit = self.world.merged_size_limit(to, from);
        let (slack, size) = (limit / SLACK_DIVISOR, self.size(to));
        size < limit && (size < slack || size + self.size(from) > limit + slack)
    }

    /// Lists the candidates for transfers and swaps, those with most to gain first. Returns whether
    /// there may be a step.
    fn list_candidates(&mut self, one: IslandIndex, other: IslandIndex, line: CentreLine) -> bool {
        let first = self.pieces.get_or_load_members(self.world, one);
        let second = self.pieces.get_or_load_members(self.world, other);
        let offsets =
            |piece: PieceIndex| self.pieces[piece].members.iter().map(|member| line.offset_m(member.at));
        let farthest = offsets(first).fold(f32::NEG_INFINITY, f32::max);
        let nearest = offsets(second).fold(f32::INFINITY, f32::min);
        let give = farthest > line.transfer_m && self.accepts_transfer(other, one);
        let take = -nearest > line.transfer_m && self.accepts_transfer(one, other);
        if !give && !take && farthest - nearest <= line.swap_m {
            return false;
        }
        let least = (nearest + line.swap_m).min(if give { line.transfer_m } else { f32::INFINITY });
        let most = (farthest - line.swap_m).max(if take { -line.transfer_m } else { f32::NEG_INFINITY });
        let candidates = |piece: PieceIndex| {
            let members = self.pieces[piece].members.iter();
            members.map(|&member| (line.offset_m(member.at), member))
        };
        let Scratch { first: from_first, second: from_second, .. } = &mut *self.scratch;
        from_first.clear();
        from_first.extend(candidates(first).filter(|&(offset, _)| offset > least));
        from_second.clear();
        from_second.extend(candidates(second).filter(|&(offset, _)| offset < most));
        from_first.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.peer.cmp(&b.1.peer)));
        from_second.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.peer.cmp(&b.1.peer)));
        true
    }

    fn piece(&mut self, island: IslandIndex) -> PieceIndex {
        self.pieces.get_or_load(self.world, island)
    }

    /// Takes the steps with the candidates in order, transfers before swaps. Returns the number of members
    /// that changed their piece.
    fn apply_steps(&mut self, one: IslandIndex, other: IslandIndex) -> usize {
        let (first_candidates, second_candidates) =
            (std::mem::take(&mut self.scratch.first), std::mem::take(&mut self.scratch.second));
        let (mut next_first, mut next_second, mut steps) = (0, 0, 0);
        // Each step moves the centres, so each candidate is compared with the current line.
        while let Some(line) = CentreLine::between(self.world, one, other) {
            let first = first_candidates.get(next_first).map(|&(_, member)| member);
            let second = second_candidates.get(next_second).map(|&(_, member)| member);
            let first_offset = first.map(|member| line.offset_m(member.at));
            let second_offset = second.map(|member| line.offset_m(member.at));
            if let (Some(first), Some(offset)) = (first, first_offset)
                && offset > line.transfer_m
                && self.accepts_transfer(other, one)
            {
                next_first += 1;
                steps += usize::from(self.try_transfer(first, one, other));
            } else if let (Some(second), Some(offset)) = (second, second_offset)
                && -offset > line.transfer_m
                && self.accepts_transfer(one, other)
            {
                next_second += 1;
                steps += usize::from(self.try_transfer(second, other, one));
            } else if let (Some(first), Some(second), Some(first_offset), Some(second_offset)) =
                (first, second, first_offset, second_offset)
                && first_offset - second_offset > line.swap_m
            {
                match self.try_swap(first, second, one, other) {
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
        (self.scratch.first, self.scratch.second) = (first_candidates, second_candidates);
        steps
    }

    /// Transfers a member if all conditions hold.
    fn try_transfer(&mut self, member: Member, from: IslandIndex, to: IslandIndex) -> bool {
        let allowed = self.size(from) > 1
            && self.limits_unchanged(member, from, to)
            && !self.would_merge_without(member, from, to)
            && self.can_accept(member, None, from, to, self.size(to) + 1)
            && self.can_leave(member, from);
        if allowed {
            self.move_member(member, from, to);
        }
        allowed
    }

    /// Swaps two members if all conditions hold for both; otherwise reports the first that may not move.
    fn try_swap(
        &mut self,
        first: Member,
        second: Member,
        one: IslandIndex,
        other: IslandIndex,
    ) -> SwapResult {
        if !self.limits_unchanged(first, one, other)
            || !self.can_accept(first, Some(second), one, other, self.size(other))
            || !self.can_leave(first, one)
        {
            return SwapResult::FirstBlocked;
        }
        if !self.limits_unchanged(second, other, one)
            || !self.can_accept(second, Some(first), other, one, self.size(one))
            || !self.can_leave(second, other)
        {
            return SwapResult::SecondBlocked;
        }
        self.move_member(first, one, other);
        self.move_member(second, other, one);
        SwapResult::Done
    }

    /// Whether a step leaves the size limits of both pieces unchanged, by zones and capabilities: it
    /// changes their sizes only.
    fn limits_unchanged(&self, member: Member, from: IslandIndex, to: IslandIndex) -> bool {
        self.world.limit_unchanged_without(from, member) && self.world.limit_unchanged_with(to, member)
    }

    /// Whether a piece stays connected without a member, and the member does not prefer it.
    fn can_leave(&mut self, member: Member, from: IslandIndex) -> bool {
        let serial = self.world.islands[from].serial;
        if prefers_island(self.world, member.peer, serial) {
            return false;
        }
        let piece = self.piece(from);
        let distances = &self.world.spatial.distances;
        self.pieces[piece].is_connected_without(
            member,
            distances,
            &mut self.scratch.rest,
            &mut self.scratch.ends,
        )
    }

    /// Whether a piece could merge with another neighbour if it lost this member.
    fn would_merge_without(&mut self, member: Member, from: IslandIndex, to: IslandIndex) -> bool {
        let rest = self.size(from) - 1;
        let piece = self.piece(from);
        let neighbours = &self.pieces[piece].neighbours;
        let fits = |neighbour: IslandIndex| {
            rest + self.world.spatial.size(neighbour) <= self.world.merged_size_limit(from, neighbour)
        };
        self.scratch.found.clear();
        self.scratch.found.extend(neighbours.iter().filter(|&&neighbour| neighbour != to && fits(neighbour)));
        self.scratch
            .found
            .iter()
            .any(|&neighbour| self.pieces.are_near(self.world, from, neighbour, Some(member.peer)))
    }

    /// Whether a piece can accept a member, in exchange for one of its own or not: the member is within
    /// the join distance of a remaining member, and brings the piece near no island that it could merge
    /// with at `size`.
    fn can_accept(
        &mut self,
        member: Member,
        in_exchange_for: Option<Member>,
        from: IslandIndex,
        to: IslandIndex,
        size: u32,
    ) -> bool {
        if size > self.world.size_limit(to) {
            return false;
        }
        let piece = self.piece(to);
        let excluding = in_exchange_for.map(|member| member.peer);
        if !self.pieces[piece].is_near_member(member, &self.world.spatial.distances, excluding) {
            return false;
        }
        self.scratch.found.clear();
        let room = self.world.zones.uniform_limit().map_or(u32::MAX, |limit| limit.saturating_sub(size));
        let spatial = &mut self.world.spatial;
        spatial.islands_near_point(member.at, member.traits.zone(), room, &mut self.scratch.found);
        self.scratch.found.iter().all(|&island| {
            let fits = || size + self.size(island) <= self.world.merged_size_limit(to, island);
            island == from || island == to || !fits()
        })
    }

    /// Finds the islands near a member.
    fn find_islands_near(&mut self, member: Member) {
        let found = &mut self.scratch.found;
        found.clear();
        self.world.spatial.islands_near_point(member.at, member.traits.zone(), u32::MAX, found);
    }

    /// Moves a member to another piece, and updates the cached pieces and neighbour lists.
    fn move_member(&mut self, member: Member, from: IslandIndex, to: IslandIndex) {
        // A step changes the neighbour lists only of the islands near the member. They are loaded
        // before the step, while they are still right without it.
        self.find_islands_near(member);
        for &island in [from, to].iter().chain(&self.scratch.found) {
            self.pieces.load_neighbours(self.world, island);
        }
        self.world.spatial.transfer(member.peer, to);
        self.world.queue_report(member.peer);
        self.world.mark_changed(from);
        self.world.mark_changed(to);
        let (source, target) = (self.piece(from), self.piece(to));
        self.pieces[source].remove(member.peer);
        self.pieces[target].add(member);
        self.find_islands_near(member);
        for &island in &self.scratch.found {
            if island != to {
                self.pieces.connect(to, island);
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
