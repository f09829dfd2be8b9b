//! The meshes of all p2p islands, without I/O.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use archipelago::rules::MeshLimits;
use mesh::{Failure, FailureCause, Mesh, Plan, RestoredMember, Settings};
use protocol::{Address, IslandId, NodeName, Position, SessionId, mesh as wire};

use super::convert::{decode_report, decode_state};

/// A p2p island at the end of a flush.
#[derive(Debug, Clone)]
pub(crate) struct MeshIsland {
    pub(crate) id: IslandId,
    pub(crate) node: NodeName,
    pub(crate) limits: MeshLimits,
    pub(crate) members: Vec<MeshMember>,
}

#[derive(Debug, Clone)]
pub(crate) struct MeshMember {
    pub(crate) address: Address,
    pub(crate) session: Option<SessionId>,
    pub(crate) position: Position,
}

/// The outputs of [`MeshHost::tick`].
#[derive(Debug)]
pub(super) enum Output {
    /// Send a member its plan.
    Plan { island: IslandId, recipient: Address, session: Option<SessionId>, plan: Plan },
    /// Send a member of an island on this node fresh ICE servers.
    IceServers { node: NodeName, recipient: Address, session: Option<SessionId> },
    /// The mesh cannot hold its island.
    Failed { island: IslandId, node: NodeName, failure: MeshFailure, retry_in: Duration },
}

/// A reason for which a mesh cannot hold its island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MeshFailure {
    /// Members without paths.
    Paths(Failure),
    /// This member does not report its links: its client does not support the mesh, or does not respond.
    Silent(Address),
    /// The island has more members than a mesh without relay can have: no other node has seats.
    Full(u32),
}

impl fmt::Display for MeshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = match self {
            Self::Silent(member) => return write!(f, "its mesh failed: {member} does not report its links"),
            Self::Full(limit) => {
                return write!(f, "its mesh failed: without relay it has at most {limit} members");
            }
            Self::Paths(failure) => failure,
        };
        f.write_str(match failure.cause {
            FailureCause::Unserved => "its mesh failed: no path and no fallback",
            FailureCause::FallbackShare => "its mesh failed: too many messages by fallback",
        })?;
        if failure.cause == FailureCause::FallbackShare && !failure.pairs.is_empty() {
            f.write_str(", no path")?;
        }
        for (index, (from, to)) in failure.pairs.iter().enumerate() {
            write!(f, "{} {from} to {to}", if index == 0 { " from" } else { "," })?;
        }
        match failure.pair_count - failure.pairs.len() {
            0 => Ok(()),
            further => write!(f, " and {further} more"),
        }
    }
}

/// Sums over all meshes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) meshes: usize,
    pub(super) members: usize,
    /// The links that are up.
    pub(super) links: usize,
    /// The hops of the longest path in any mesh.
    pub(super) depth: usize,
}

/// The meshes of all p2p islands.
#[derive(Debug, Default)]
pub(super) struct MeshHost {
    islands: HashMap<IslandId, Hosted>,
    /// How often in a row the mesh of an island failed, and when it did last.
    failures: HashMap<IslandId, (u32, Duration)>,
}

#[derive(Debug)]
struct Hosted {
    node: NodeName,
    limits: MeshLimits,
    state: State,
    /// Versions of plans are greater than this.
    after_version: u32,
    is_silence_reported: bool,
    is_excess_reported: bool,
    members: HashMap<Address, Membership>,
}

#[derive(Debug)]
struct Membership {
    session: Option<SessionId>,
    /// When its ICE servers were minted.
    ice_minted_at: Duration,
}

#[derive(Debug)]
enum State {
    /// Another director planned it: its members' reports are collected.
    Restoring {
        until: Duration,
        reports: HashMap<Address, wire::LinkReport>,
        positions: HashMap<Address, Position>,
    },
    Planned(Box<Mesh>),
}

/// How long a new leader collects reports of the members of a mesh: they report every few seconds.
const RESTORE_TIME: Duration = Duration::from_secs(5);
/// The time for which the node does not host an island after its mesh failed; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const MAX_RETRY: Duration = Duration::from_secs(30 * 60);

impl MeshHost {
    /// Applies the p2p islands of a flush. Others have ended, or have moved to another transport. `took_over`: the
    /// leader took over so recently that meshes of its predecessor exist. `after_version`: versions of the plans of new
    /// meshes are greater than this, which grows with time.
    pub(super) fn apply(
        &mut self,
        islands: Vec<MeshIsland>,
        took_over: bool,
        after_version: u32,
        now: Duration,
    ) {
        let present: HashSet<IslandId> = islands.iter().map(|island| island.id.clone()).collect();
        self.islands.retain(|id, _| present.contains(id));
        // A mesh that has held its island for longer starts with the first pause again.
        self.failures.retain(|_, (_, last)| now.saturating_sub(*last) < 2 * MAX_RETRY);
        for island in islands {
            let hosted = self
                .islands
                .entry(island.id)
                .or_insert_with(|| Hosted::new(island.node, island.limits, took_over, after_version, now));
            hosted.set_limits(island.limits, now);
            hosted.apply(&island.members, now);
        }
    }

    /// Applies the report of a member. Reports of other peers are ignored.
    pub(super) fn report(&mut self, sender: Address, report: wire::LinkReport, now: Duration) {
        let island = report.island_id.parse::<IslandId>().ok();
        let hosted = island.and_then(|island| self.islands.get_mut(&island));
        let Some(hosted) = hosted.filter(|hosted| hosted.members.contains_key(&sender)) else { return };
        match &mut hosted.state {
            State::Planned(mesh) => mesh.report(sender, &decode_report(&report), now),
            State::Restoring { reports, .. } => drop(reports.insert(sender, report)),
        }
    }

    /// Sums over all meshes, for the metrics.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for hosted in self.islands.values() {
            totals.meshes += 1;
            totals.members += hosted.members.len();
            if let State::Planned(mesh) = &hosted.state {
                totals.links += mesh.links().filter(|&(.., is_up)| is_up).count();
                totals.depth = totals.depth.max(mesh.depth());
            }
        }
        totals
    }

    /// Runs all timers that have expired. ICE servers are renewed at half of `ice_ttl`.
    pub(super) fn tick(&mut self, ice_ttl: Option<Duration>, now: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (id, hosted) in &mut self.islands {
            hosted.finish_restore(now);
            if let State::Planned(mesh) = &mut hosted.state {
                let update = mesh.tick(now);
                for (recipient, plan) in update.plans {
                    let session = hosted.members.get(&recipient).and_then(|member| member.session);
                    outputs.push(Output::Plan { island: id.clone(), recipient, session, plan });
                }
                let silent = mesh.silent_members(now).next().filter(|_| !hosted.is_silence_reported);
                hosted.is_silence_reported |= silent.is_some();
                let has_excess = hosted.members.len() > mesh.len();
                let is_new_excess =
                    has_excess && !std::mem::replace(&mut hosted.is_excess_reported, has_excess);
                let failure = update.failure.map(MeshFailure::Paths);
                let failure = failure.or(silent.map(|silent| MeshFailure::Silent(silent.address)));
                let limit = hosted.limits.max_members();
                if let Some(failure) = failure.or(is_new_excess.then_some(MeshFailure::Full(limit))) {
                    let (count, last) = self.failures.entry(id.clone()).or_default();
                    let retry_in = FIRST_RETRY.saturating_mul(1 << (*count).min(5)).min(MAX_RETRY);
                    (*count, *last) = (count.saturating_add(1), now);
                    let (island, node) = (id.clone(), hosted.node.clone());
                    outputs.push(Output::Failed { island, node, failure, retry_in });
                }
            }
            let Some(ttl) = ice_ttl else { continue };
            for (&recipient, member) in &mut hosted.members {
                if now.saturating_sub(member.ice_minted_at) >= ttl / 2 {
                    member.ice_minted_at = now;
                    let (node, session) = (hosted.node.clone(), member.session);
                    outputs.push(Output::IceServers { node, recipient, session });
                }
            }
        }
        outputs
    }
}

impl Hosted {
    fn new(node: NodeName, limits: MeshLimits, took_over: bool, after_version: u32, now: Duration) -> Self {
        let state = match took_over {
            true => State::Restoring {
                until: now + RESTORE_TIME,
                reports: HashMap::new(),
                positions: HashMap::new(),
            },
            false => State::Planned(Box::new(new_mesh(limits).with_versions_after(after_version))),
        };
        Self {
            node,
            limits,
            state,
            after_version,
            is_silence_reported: false,
            is_excess_reported: false,
            members: HashMap::new(),
        }
    }

    /// Applies the limits of the rule that decides for the island.
    fn set_limits(&mut self, limits: MeshLimits, now: Duration) {
        let before = std::mem::replace(&mut self.limits, limits);
        if before != limits
            && let State::Planned(mesh) = &mut self.state
            && let Err(error) = mesh.set_limits(limits.max_links as usize, limits.relay, now)
        {
            tracing::warn!(%error, "the limits of a mesh do not change");
        }
    }

    fn apply(&mut self, members: &[MeshMember], now: Duration) {
        let present: HashSet<Address> = members.iter().map(|member| member.address).collect();
        self.members.retain(|address, _| {
            let stays = present.contains(address);
            if !stays && let State::Planned(mesh) = &mut self.state {
                mesh.leave(*address, now);
            }
            stays
        });
        for &MeshMember { address, session, position } in members {
            // A newer session of a peer starts without links.
            let known = self.members.get(&address).is_some_and(|known| known.session == session);
            if !known {
                self.members.insert(address, Membership { session, ice_minted_at: now });
            }
            match &mut self.state {
                State::Restoring { positions, .. } => drop(positions.insert(address, position)),
                State::Planned(mesh) if known && mesh.contains(address) => mesh.moved(address, position, now),
                State::Planned(mesh) => join(mesh, address, position, now),
            }
        }
    }

    fn finish_restore(&mut self, now: Duration) {
        let State::Restoring { until, reports, positions } = &mut self.state else { return };
        if now < *until {
            return;
        }
        let members = self.members.keys().map(|&address| RestoredMember {
            address,
            position: positions.get(&address).copied().unwrap_or_default(),
            prefers_to_initiate: false,
            reported: reports.get(&address).and_then(decode_state),
        });
        let mesh = Mesh::restore(settings(self.limits), members, now).unwrap_or_else(|error| {
            tracing::warn!(%error, "a mesh is not restored");
            let mut mesh = new_mesh(self.limits);
            for &address in self.members.keys() {
                join(&mut mesh, address, positions.get(&address).copied().unwrap_or_default(), now);
            }
            mesh
        });
        self.state = State::Planned(Box::new(mesh.with_versions_after(self.after_version)));
    }
}

/// Adds a member. One above the limit is tried again at each flush: another one may have left.
fn join(mesh: &mut Mesh, address: Address, position: Position, now: Duration) {
    if let Err(error) = mesh.join(address, position, false, now) {
        tracing::debug!(%address, %error, "a peer cannot join the mesh");
    }
}

fn settings(limits: MeshLimits) -> Settings {
    let defaults = Settings::default();
    let max_links = limits.max_links as usize;
    Settings {
        max_links,
        target_links: defaults.target_links.min(max_links),
        relay: limits.relay,
        ..defaults
    }
}

/// An empty mesh with these limits, which are valid, because rules are checked.
fn new_mesh(limits: MeshLimits) -> Mesh {
    match Mesh::new(settings(limits)) {
        Ok(mesh) => mesh,
        Err(error) => unreachable!("the limits of rules are valid: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TTL: Option<Duration> = Some(Duration::from_secs(100));

    fn address(number: u8) -> Address {
        Address::new([number; 20])
    }

    /// The island `I1` with these members, each in its session of this number.
    fn island(sessions: &[(u8, u64)]) -> Vec<MeshIsland> {
        let member = |&(number, session)| MeshMember {
            address: address(number),
            session: Some(SessionId::new(session, 0)),
            position: Position::new(f32::from(number), 0.0, 0.0),
        };
        let members = sessions.iter().map(member).collect();
        let (id, node) = ("I1".parse().unwrap(), "p2p".parse().unwrap());
        vec![MeshIsland { id, node, limits: MeshLimits::default(), members }]
    }

    /// The aliases in the plans for each recipient, and the pauses of failures; advances to `until` in steps.
    fn run(host: &mut MeshHost, from: Duration, until: Duration) -> (Vec<(u8, u32)>, Vec<u64>, usize) {
        let (mut plans, mut failures, mut renewals) = (Vec::new(), Vec::new(), 0);
        let mut now = from;
        while now < until {
            for output in host.tick(TTL, now) {
                match output {
                    Output::Plan { recipient, plan, .. } => plans.push((recipient.as_bytes()[0], plan.alias)),
                    Output::Failed { retry_in, .. } => failures.push(retry_in.as_secs()),
                    Output::IceServers { .. } => renewals += 1,
                }
            }
            now += SECOND / 20;
        }
        (plans, failures, renewals)
    }

    fn report(alias: u32, version: u32, neighbours: &[(u32, u8)]) -> wire::LinkReport {
        let neighbours = neighbours
            .iter()
            .map(|&(alias, number)| wire::Member { alias, address: address(number).to_string() });
        wire::LinkReport {
            island_id: "I1".to_owned(),
            version,
            alias,
            highest_alias: 9,
            neighbours: neighbours.collect(),
            ..wire::LinkReport::default()
        }
    }

    #[test]
    fn each_member_gets_a_plan_and_a_newer_session_a_new_alias() {
        let mut host = MeshHost::default();
        host.apply(island(&[(1, 1), (2, 1)]), false, 0, Duration::ZERO);
        let (plans, ..) = run(&mut host, Duration::ZERO, SECOND);
        assert_eq!(plans, [(1, 1), (2, 2)]);
        host.apply(island(&[(1, 1), (2, 2)]), false, 0, SECOND);
        let (plans, ..) = run(&mut host, SECOND, 2 * SECOND);
        assert_eq!(plans, [(1, 1), (2, 3)]);
    }

    #[test]
    fn member_above_the_limit_joins_when_another_leaves() {
        let mut host = MeshHost::default();
        let limits = MeshLimits { max_links: 2, relay: false };
        let limited = |sessions: &[(u8, u64)]| {
            let islands = island(sessions);
            islands.into_iter().map(|island| MeshIsland { limits, ..island }).collect::<Vec<_>>()
        };
        let four = [(1, 1), (2, 1), (3, 1), (4, 1)];
        for took_over in [false, true] {
            host.apply(limited(&four), took_over, 0, Duration::ZERO);
            let until = RESTORE_TIME + 2 * SECOND;
            let (plans, failures, _) = run(&mut host, Duration::ZERO, until);
            assert_eq!((plans.len(), failures.len()), (3, 1), "took over: {took_over}");
            // The flush of each moment repeats the members.
            host.apply(limited(&four[1..]), false, 0, until);
            let recipients: HashSet<u8> =
                run(&mut host, until, until + SECOND).0.into_iter().map(|(recipient, _)| recipient).collect();
            assert_eq!(recipients, HashSet::from([2, 3, 4]));
            host.apply(Vec::new(), false, 0, until);
        }
    }

    #[test]
    fn island_without_a_mesh_is_forgotten() {
        let mut host = MeshHost::default();
        host.apply(island(&[(1, 1), (2, 1)]), false, 0, Duration::ZERO);
        host.apply(Vec::new(), false, 0, Duration::ZERO);
        assert_eq!(run(&mut host, Duration::ZERO, 60 * SECOND), (vec![], vec![], 0));
    }

    #[test]
    fn silent_mesh_fails_once_and_its_pause_doubles() {
        let mut host = MeshHost::default();
        let mut pauses = Vec::new();
        for cycle in 0..8 {
            let begin = cycle * 100 * SECOND;
            host.apply(island(&[(1, 1), (2, 1)]), false, 0, begin);
            pauses.extend(run(&mut host, begin, begin + 40 * SECOND).1);
            // The engine moves the island to another node.
            host.apply(Vec::new(), false, 0, begin + 40 * SECOND);
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1_800, 1_800, 1_800]);
        // An hour without a failure.
        host.apply(Vec::new(), false, 0, 5_000 * SECOND);
        host.apply(island(&[(1, 1), (2, 1)]), false, 0, 5_000 * SECOND);
        assert_eq!(run(&mut host, 5_000 * SECOND, 5_040 * SECOND).1, [60]);
    }

    #[test]
    fn ice_servers_are_renewed_at_half_of_their_validity() {
        let mut host = MeshHost::default();
        host.apply(island(&[(1, 1)]), false, 0, Duration::ZERO);
        assert_eq!(run(&mut host, Duration::ZERO, 49 * SECOND).2, 0);
        assert_eq!(run(&mut host, 49 * SECOND, 51 * SECOND).2, 1);
        assert_eq!(run(&mut host, 51 * SECOND, 101 * SECOND).2, 1);
    }

    #[test]
    fn new_leader_continues_with_the_reported_aliases() {
        let mut host = MeshHost::default();
        host.apply(island(&[(1, 1), (2, 1), (3, 1)]), true, 0, Duration::ZERO);
        host.report(address(1), report(5, 40, &[(7, 2)]), SECOND);
        host.report(address(2), report(7, 40, &[(5, 1)]), SECOND);
        host.report(address(8), report(6, 90, &[]), SECOND);
        assert_eq!(run(&mut host, SECOND, RESTORE_TIME).0, [], "reports are collected");
        let (plans, ..) = run(&mut host, RESTORE_TIME, RESTORE_TIME + SECOND);
        // The third did not report in time: its alias is above all that were used.
        assert_eq!(plans, [(1, 5), (2, 7), (3, 10)]);
    }
}
