//! Simulated peers of one mesh: they link as their plans state, and report their links.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh::{Alias, Failure, JoinError, LinkReport, Mesh, Plan, RestoredMember, RestoredState, Settings};
use protocol::{Address, Position};

/// The interval at which each peer reports, besides its changes.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that each peer sends to all others within that interval.
const MESSAGES: u32 = 10;

/// A peer of the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) plan: Option<Plan>,
    pub(crate) position: Position,
    prefers_to_initiate: bool,
    /// Its client sends no reports and holds no links.
    is_silent: bool,
    last_report: Option<LinkReport>,
}

/// A mesh and its peers. Links come up at once, except between peers that are cut off from each other.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    settings: Settings,
    pub(crate) now: Duration,
    next_reports: Duration,
    pub(crate) peers: BTreeMap<Address, Peer>,
    /// Pairs that cannot link, smaller address first.
    pub(crate) cut: BTreeSet<(Address, Address)>,
    /// Outputs since the last call of [`take_outputs`](Self::take_outputs).
    sent: Vec<(Address, Plan)>,
    failures: Vec<Failure>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        // A time other than zero, so that no result depends on the start.
        let now = Duration::from_secs(1_000);
        Self {
            mesh: Mesh::new(settings.clone()).unwrap(),
            settings,
            now,
            next_reports: now + REPORT_INTERVAL,
            peers: BTreeMap::new(),
            cut: BTreeSet::new(),
            sent: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn join(&mut self, peer: Address, x: f32, z: f32, offers: bool) -> Result<Alias, JoinError> {
        let position = Position::new(x, 0.0, z);
        let alias = self.mesh.join(peer, position, offers, self.now)?;
        let peer_state =
            Peer { plan: None, position, prefers_to_initiate: offers, is_silent: false, last_report: None };
        self.peers.insert(peer, peer_state);
        Ok(alias)
    }

    pub(crate) fn set_limits(&mut self, max_links: usize, relay: bool) {
        self.mesh.set_limits(max_links, relay, self.now).unwrap();
    }

    pub(crate) fn leave(&mut self, peer: Address) {
        self.peers.remove(&peer);
        self.mesh.leave(peer, self.now);
    }

    pub(crate) fn move_to(&mut self, peer: Address, x: f32, z: f32) {
        let position = Position::new(x, 0.0, z);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.position = position;
        }
        self.mesh.moved(peer, position, self.now);
    }

    pub(crate) fn set_silent(&mut self, peer: Address) {
        self.peers.get_mut(&peer).unwrap().is_silent = true;
    }

    /// Prevents a link, or permits it again.
    pub(crate) fn set_cut(&mut self, a: Address, b: Address, is_cut: bool) {
        let pair = (a.min(b), a.max(b));
        if is_cut {
            self.cut.insert(pair)
        } else {
            self.cut.remove(&pair)
        };
    }

    /// The members that a peer should have links to by its plan.
    pub(crate) fn targets(&self, peer: Address) -> BTreeSet<Address> {
        let Some(plan) = self.peers.get(&peer).and_then(|peer| peer.plan.as_ref()) else {
            return BTreeSet::new();
        };
        plan.links.iter().filter_map(|link| address_in(plan, link.alias)).collect()
    }

    /// Whether both ends hold the link.
    pub(crate) fn is_up(&self, a: Address, b: Address) -> bool {
        let is_active = |peer| self.peers.get(&peer).is_some_and(|peer: &Peer| !peer.is_silent);
        is_active(a)
            && is_active(b)
            && !self.cut.contains(&(a.min(b), a.max(b)))
            && self.targets(a).contains(&b)
            && self.targets(b).contains(&a)
    }

    pub(crate) fn report_of(&self, peer: Address) -> Option<LinkReport> {
        let state = &self.peers[&peer];
        let plan = state.plan.as_ref().filter(|_| !state.is_silent)?;
        let is_cut = |other: Address| self.cut.contains(&(peer.min(other), peer.max(other)));
        let (mut connected_to, mut failed) = (Vec::new(), Vec::new());
        for link in &plan.links {
            let other = address_in(plan, link.alias)?;
            if self.is_up(peer, other) {
                connected_to.push(link.alias);
            } else if is_cut(other) {
                failed.push(link.alias);
            }
        }
        Some(LinkReport { version: plan.version, connected_to, failed, ..LinkReport::default() })
    }

    /// Lets peers report: those with changed links, or all of them with their deliveries.
    fn report(&mut self, is_periodic: bool) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(report) = self.report_of(peer) else { continue };
            if !is_periodic && self.peers[&peer].last_report.as_ref() == Some(&report) {
                continue;
            }
            self.peers.get_mut(&peer).unwrap().last_report = Some(report.clone());
            let own = self.peers[&peer].plan.as_ref();
            let unreached = own.map_or(0, |plan| own_fallback(plan).len()) as u32;
            let others = self.peers.len() as u32 - 1;
            let [sent, sent_by_fallback] =
                [others, unreached].map(|members| if is_periodic { MESSAGES * members } else { 0 });
            self.mesh.report(peer, &LinkReport { sent, sent_by_fallback, ..report }, self.now);
        }
    }

    /// Lets time pass. Peers report as soon as their links changed.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.report(false);
            let deadline = self.mesh.next_deadline().unwrap_or(Duration::MAX).max(self.now);
            let next = deadline.min(self.next_reports);
            if next > end {
                break;
            }
            self.now = next;
            if self.next_reports == next {
                self.next_reports += REPORT_INTERVAL;
                self.report(true);
            }
            self.tick();
        }
        self.now = end;
    }

    fn tick(&mut self) {
        let update = self.mesh.tick(self.now);
        for (recipient, plan) in update.plans {
            self.peers.get_mut(&recipient).unwrap().plan = Some(plan.clone());
            self.sent.push((recipient, plan));
        }
        self.failures.extend(update.failure);
    }

    /// The plans and failures since the last call.
    pub(crate) fn take_outputs(&mut self) -> (Vec<(Address, Plan)>, Vec<Failure>) {
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.failures))
    }

    /// The peers as members of a restored mesh; those in `silent` have not reported in time.
    pub(crate) fn restored_members(&self, silent: &BTreeSet<Address>) -> Vec<RestoredMember> {
        let member = |(&address, peer): (&Address, &Peer)| {
            let plan = peer.plan.as_ref().filter(|_| !peer.is_silent && !silent.contains(&address));
            let reported = plan.map(|plan| RestoredState {
                alias: plan.alias,
                version: plan.version,
                highest_alias: plan.members.iter().map(|member| member.alias).max().unwrap_or(0),
                links: plan
                    .links
                    .iter()
                    .filter_map(|link| Some((link.alias, address_in(plan, link.alias)?)))
                    .filter(|&(_, other)| self.is_up(address, other))
                    .collect(),
            });
            let (position, prefers_to_initiate) = (peer.position, peer.prefers_to_initiate);
            RestoredMember { address, position, prefers_to_initiate, reported }
        };
        self.peers.iter().map(member).collect()
    }

    /// Replaces the mesh by one that is restored from the reports of all peers.
    pub(crate) fn restore(&mut self) {
        let members = self.restored_members(&BTreeSet::new());
        self.mesh = Mesh::restore(self.settings.clone(), members, self.now).unwrap();
    }
}

/// The address of a member by its alias.
pub(crate) fn address_in(plan: &Plan, alias: Alias) -> Option<Address> {
    plan.members.iter().find(|member| member.alias == alias).map(|member| member.address)
}

/// The members that the recipient of a plan serves by fallback.
pub(crate) fn own_fallback(plan: &Plan) -> &[Alias] {
    plan.routes.iter().find(|route| route.source == plan.alias).map_or(&[], |route| &route.fallback)
}
