//! The simulated peers of one gateway: groups at fixed distances, of which some peers walk and few
//! jump.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use protocol::{
    Address, Message as _, NodeName, Position, SessionId,
    atoll_bus::{GatewayHeartbeat, Told},
    unix_ms,
    v3::IslandChangedMessage,
};
use tokio::time::Instant;

use crate::percentiles::latency_histogram;

/// A group is a square of so many by so many peers, `SPACING_M` apart.
const GROUP_SIDE: usize = 5;
const GROUP_SIZE: usize = GROUP_SIDE * GROUP_SIDE;
const SPACING_M: f32 = 6.0;
/// The distance between groups, in metres: more than any island reaches.
const GROUP_SPACING_M: f32 = 200.0;
/// One of so many peers walks to the next group and back.
const WALKER_EVERY: usize = 10;
const WALK_M_PER_S: f32 = 1.5;
/// One of so many peers jumps to another group and back, at every so-many-th of its heartbeats.
const JUMPER_EVERY: usize = 100;
const JUMP_EVERY_BEATS: u64 = 5;
/// How many groups ahead of its own the jump leads.
const JUMP_DISTANCE_GROUPS: usize = 7;

/// The peers of one gateway. They send heartbeats in turn.
pub(super) struct SimulatedPeers {
    all: Vec<SimulatedPeer>,
    sent: usize,
    walk_m: f32,
    /// The number of groups in a row of the world.
    row: usize,
    stats: AssignmentStats,
}

struct SimulatedPeer {
    address: Address,
    session: SessionId,
    /// Its number among the peers of all gateways.
    number: usize,
    beats: u64,
    /// Its last assignment, as its gateway reports it.
    assignment: Told,
    /// The x coordinate of its last jump, and when the heartbeat was due. `None`: the assignment has
    /// arrived.
    jumped: Option<(f32, Instant)>,
}

/// The assignments that peers received, and their latency after jumps.
pub(super) struct AssignmentStats {
    /// From the due time of a jump's heartbeat to the assignment, in microseconds.
    pub(super) latency_us: Histogram<u64>,
    /// Jumps of which no assignment arrived before the peer's next jump.
    pub(super) unassigned_jumps: u64,
    /// Assignments of all peers.
    pub(super) island_changes: u64,
}

impl Default for AssignmentStats {
    fn default() -> Self {
        Self { latency_us: latency_histogram(), unassigned_jumps: 0, island_changes: 0 }
    }
}

impl AssignmentStats {
    pub(super) fn add(&mut self, other: &Self) {
        // Histograms of equal bounds always add.
        let _ = self.latency_us.add(&other.latency_us);
        self.unassigned_jumps += other.unassigned_jumps;
        self.island_changes += other.island_changes;
    }
}

impl SimulatedPeers {
    /// The peers of one of `gateways` gateways, of `count` in all. Each sends one heartbeat in a
    /// `step`.
    pub(super) fn new(gateway: usize, gateways: usize, count: usize, step: Duration) -> Self {
        let now_ms = unix_ms(SystemTime::now());
        let peer = |(index, number): (usize, usize)| SimulatedPeer {
            address: address(gateway, index),
            session: SessionId::new(now_ms, number as u128),
            number,
            beats: 0,
            assignment: Told::default(),
            jumped: None,
        };
        let all = (gateway..count).step_by(gateways).enumerate().map(peer).collect();
        let row = ((count / GROUP_SIZE + 1) as f32).sqrt().ceil() as usize;
        Self {
            all,
            sent: 0,
            walk_m: WALK_M_PER_S * step.as_secs_f32(),
            row,
            stats: AssignmentStats::default(),
        }
    }

    /// The next peer in turn, without a payload.
    pub(super) fn next_peer(&mut self) -> (Address, SessionId, Vec<u8>) {
        let peer = &self.all[self.sent % self.all.len()];
        self.sent += 1;
        (peer.address, peer.session, Vec::new())
    }

    /// The next peer in turn and its heartbeat, which was due at this time.
    pub(super) fn heartbeat(&mut self, due: Instant, epoch: u64) -> (Address, SessionId, Vec<u8>) {
        let index = self.sent % self.all.len();
        self.sent += 1;
        let peer = &mut self.all[index];
        peer.beats += 1;
        let position = position_of(peer.number, peer.beats, self.walk_m, self.row);
        if peer.number.is_multiple_of(JUMPER_EVERY) && peer.beats.is_multiple_of(JUMP_EVERY_BEATS) {
            self.stats.unassigned_jumps += u64::from(peer.jumped.replace((position.x, due)).is_some());
        }
        peer.assignment.epoch = epoch;
        let told = Some(peer.assignment.clone());
        let heartbeat = GatewayHeartbeat { position: Some(position.into()), told, ..Default::default() };
        (peer.address, peer.session, heartbeat.encode_to_vec())
    }

    /// Records the assignment of one peer.
    pub(super) fn record_assignment(
        &mut self,
        index: usize,
        address: Address,
        change: &IslandChangedMessage,
        node: Option<&NodeName>,
    ) {
        let Some(peer) = self.all.get_mut(index) else { return };
        peer.assignment.island.clone_from(&change.island_id);
        peer.assignment.node = node.map(ToString::to_string).unwrap_or_default();
        self.stats.island_changes += 1;
        // An assignment that holds the peer's position after the jump does not answer an earlier
        // heartbeat.
        let (Some(at), Some((x, due))) = (change.peers.get(&address.to_string()), peer.jumped) else {
            return;
        };
        if at.x == x {
            self.stats.latency_us.saturating_record(due.elapsed().as_micros() as u64);
            peer.jumped = None;
        }
    }

    pub(super) fn take_stats(&mut self) -> AssignmentStats {
        std::mem::take(&mut self.stats)
    }
}

/// The position of a peer at its heartbeat of this number.
fn position_of(number: usize, beats: u64, walk_m: f32, row: usize) -> Position {
    let (mut group, at) = (number / GROUP_SIZE, number % GROUP_SIZE);
    if number.is_multiple_of(JUMPER_EVERY) && beats / JUMP_EVERY_BEATS % 2 == 1 {
        group += JUMP_DISTANCE_GROUPS;
    }
    let mut x = (group % row) as f32 * GROUP_SPACING_M + (at % GROUP_SIDE) as f32 * SPACING_M;
    if number % WALKER_EVERY == 1 {
        let walked = beats as f32 * walk_m % (2.0 * GROUP_SPACING_M);
        x += walked.min(2.0 * GROUP_SPACING_M - walked);
    }
    let z = (group / row) as f32 * GROUP_SPACING_M + (at / GROUP_SIDE) as f32 * SPACING_M;
    // Centres the world on the origin.
    let middle = row as f32 * GROUP_SPACING_M / 2.0;
    Position::new(x - middle, 0.0, z - middle)
}

const ADDRESS_PREFIX: [u8; 8] = *b"heartbea";

fn address(gateway: usize, index: usize) -> Address {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&ADDRESS_PREFIX);
    bytes[8..12].copy_from_slice(&(gateway as u32).to_be_bytes());
    bytes[12..].copy_from_slice(&(index as u64).to_be_bytes());
    Address::new(bytes)
}

/// The gateway and the index that [`address`] put into an address. `None`: it is another address.
pub(super) fn parse_address(address: Address) -> Option<(usize, usize)> {
    let bytes = hex::decode(&address.to_string()[2..]).ok()?;
    let (mark, rest) = bytes.split_first_chunk::<8>()?;
    let (gateway, rest) = rest.split_first_chunk()?;
    let index = rest.first_chunk()?;
    (*mark == ADDRESS_PREFIX)
        .then_some((u32::from_be_bytes(*gateway) as usize, u64::from_be_bytes(*index) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_encodes_gateway_and_index() {
        assert_eq!(parse_address(address(3, 70_000)), Some((3, 70_000)));
        assert_eq!(parse_address(Address::new([1; 20])), None);
    }

    #[test]
    fn positions_of_standing_walking_and_jumping_peers() {
        let at = |number, beats| position_of(number, beats, 1.5, 10);
        assert_eq!(at(3, 1), at(3, 99));
        assert_eq!(at(1, 8).x - at(1, 7).x, 1.5);
        assert!((0..1_000).all(|beats| (0.0..=GROUP_SPACING_M).contains(&(at(1, beats).x - at(1, 0).x))));
        assert_eq!(at(100, 4), at(100, 0));
        assert!(at(100, 5).ground_distance_squared(at(100, 4)) > 100.0 * 100.0);
        assert!(at(25, 0).ground_distance_squared(at(24, 0)) > 100.0 * 100.0, "another group");
    }
}
