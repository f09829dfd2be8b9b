use std::time::{Duration, SystemTime};

use gateway::HeartbeatEncoder;
use hdrhistogram::Histogram;
use protocol::{Address, NodeName, Position, SessionId, unix_ms, v3::IslandChangedMessage};
use tokio::time::Instant;

use super::latency_histogram;

/// People who know each other stand in a square of so many by so many, so far from each other.
const GROUP_SIDE: usize = 5;
const GROUP_SIZE: usize = GROUP_SIDE * GROUP_SIDE;
const SPACING_M: f32 = 6.0;
/// How far groups are from each other: farther than any island reaches.
const GROUP_SPACING_M: f32 = 200.0;
/// Of so many people one walks to the next group and back.
const WALKER_EVERY: usize = 10;
const WALK_M_PER_S: f32 = 1.5;
/// Of so many people one jumps to another group and back, with each so-many-th of its heartbeats.
const JUMPER_EVERY: usize = 100;
const JUMP_EVERY_BEATS: u64 = 5;
/// How many groups on from its own that one is.
const JUMP_DISTANCE_GROUPS: usize = 7;

/// The people of one gateway, who speak one after the other.
pub(super) struct SimulatedPeers {
    all: Vec<SimulatedPeer>,
    said: usize,
    walk_m: f32,
    /// Groups in a row of the world.
    row: usize,
    told: AssignmentStats,
}

struct SimulatedPeer {
    address: Address,
    session: SessionId,
    /// Which of all people it is.
    number: usize,
    beats: u64,
    report: HeartbeatEncoder,
    /// Where it has jumped to, and when it was to say so, until it is told of its island there.
    jumped: Option<(f32, Instant)>,
}

/// What those were told who had jumped.
pub(super) struct AssignmentStats {
    /// How long after they were to say it, in microseconds.
    pub(super) latency_us: Histogram<u64>,
    /// Who jumped again before it was told.
    pub(super) unassigned_jumps: u64,
    /// Changes of island of all people.
    pub(super) island_changes: u64,
}

impl Default for AssignmentStats {
    fn default() -> Self {
        Self { latency_us: latency_histogram(), unassigned_jumps: 0, island_changes: 0 }
    }
}

impl AssignmentStats {
    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.latency_us.add(&other.latency_us);
        self.unassigned_jumps += other.unassigned_jumps;
        self.island_changes += other.island_changes;
    }
}

impl SimulatedPeers {
    /// The people of one of so many gateways, of so many in all, who speak once in a `step`.
    pub(super) fn new(gateway: usize, gateways: usize, count: usize, step: Duration) -> Self {
        let now_ms = unix_ms(SystemTime::now());
        let person = |(index, number): (usize, usize)| SimulatedPeer {
            address: address(gateway, index),
            session: SessionId::new(now_ms, number as u128),
            number,
            beats: 0,
            report: HeartbeatEncoder::new(None),
            jumped: None,
        };
        let all = (gateway..count).step_by(gateways).enumerate().map(person).collect();
        let row = ((count / GROUP_SIZE + 1) as f32).sqrt().ceil() as usize;
        Self {
            all,
            said: 0,
            walk_m: WALK_M_PER_S * step.as_secs_f32(),
            row,
            told: AssignmentStats::default(),
        }
    }

    /// Whose turn it is, without a heartbeat.
    pub(super) fn next_peer(&mut self) -> (Address, SessionId, Vec<u8>) {
        let person = &self.all[self.said % self.all.len()];
        self.said += 1;
        (person.address, person.session, Vec::new())
    }

    /// Whose turn it is, and its heartbeat, which was due at this time.
    pub(super) fn heartbeat(&mut self, due: Instant, epoch: u64) -> (Address, SessionId, Vec<u8>) {
        let index = self.said % self.all.len();
        self.said += 1;
        let person = &mut self.all[index];
        person.beats += 1;
        let place = position_of(person.number, person.beats, self.walk_m, self.row);
        if person.number.is_multiple_of(JUMPER_EVERY) && person.beats.is_multiple_of(JUMP_EVERY_BEATS) {
            self.told.unassigned_jumps += u64::from(person.jumped.replace((place.x, due)).is_some());
        }
        (person.address, person.session, person.report.encode(Some(place), epoch))
    }

    /// One of them was told of an island.
    pub(super) fn record_assignment(
        &mut self,
        index: usize,
        peer: Address,
        change: &IslandChangedMessage,
        node: Option<&NodeName>,
    ) {
        let (Some(person), Ok(island)) = (self.all.get_mut(index), change.island_id.parse()) else { return };
        person.report.set_assignment(&island, node);
        self.told.island_changes += 1;
        // Told of itself where it is now, it is told of no heartbeat before.
        let (Some(at), Some((x, due))) = (change.peers.get(&peer.to_string()), person.jumped) else { return };
        if at.x == x {
            self.told.latency_us.saturating_record(due.elapsed().as_micros() as u64);
            person.jumped = None;
        }
    }

    pub(super) fn take_stats(&mut self) -> AssignmentStats {
        std::mem::take(&mut self.told)
    }
}

/// Where somebody is when it says so for the so-many-th time.
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
    // Around the origin.
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

/// Whose address it is: of which gateway, and which of its people.
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
