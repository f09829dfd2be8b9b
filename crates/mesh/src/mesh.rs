//! The [`Mesh`]: inputs, deadlines and updates.

use std::{collections::BTreeSet, time::Duration};

use protocol::{Address, Position};

use crate::{
    exchanges::Exchanges,
    health::{Failure, Health, Paths},
    links::{Pair, ReportedLinks},
    output::{JoinError, RestoreError, SilentMember, Update},
    plan::{Alias, Plan},
    publisher::Publisher,
    report::{LinkReport, RestoredMember},
    restore::{earlier_targets, restored},
    settings::{Settings, SettingsError},
    state::{Member, State},
};

/// The interval of checks that need no input: exchanges, retries and health.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A report with an older plan than the member was sent this long ago: the plan was lost, and is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(2);

/// The planner of one peer-to-peer island. The [crate] documentation states its rules.
#[derive(Debug, Clone)]
pub struct Mesh {
    state: State,
    publisher: Publisher,
    exchanges: Exchanges,
    health: Health,
    /// Members that did not receive their last plan.
    resend: BTreeSet<Address>,
    publish_at: Option<Duration>,
    upkeep_at: Option<Duration>,
    /// Whether the next plan is the first after a restore.
    is_restored: bool,
}

impl Mesh {
    /// A mesh without members.
    ///
    /// # Errors
    ///
    /// The first setting that is out of bounds.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.validate()?;
        Ok(Self {
            state: State::new(settings),
            publisher: Publisher::default(),
            exchanges: Exchanges::default(),
            health: Health::default(),
            resend: BTreeSet::new(),
            publish_at: None,
            upkeep_at: None,
            is_restored: false,
        })
    }

    /// The same mesh, with plans of greater versions than this one. A member refuses a plan that is older than its own, so
    /// an island that becomes a mesh again must not begin with the first version.
    #[must_use]
    pub fn with_versions_after(mut self, version: u32) -> Self {
        self.state.version = self.state.version.max(version);
        self
    }

    /// The mesh of these members, as another planner left it. The result does not depend on their order.
    ///
    /// Members keep the aliases that they reported. A member that did not report keeps the alias that others report for
    /// it, and gets a new one if none does. All links that are up stay, as far as no member has more than
    /// [`Settings::max_links`]. The next [`tick`](Self::tick) returns a plan for every member, with a greater version than
    /// all reported ones. Every member is in formation again, because links may have been lost meanwhile.
    ///
    /// If two members report the same alias, the one with the lower address keeps it. Aliases and versions above
    /// 2³¹ are ignored: no mesh lasts as long, and one false report must not use up the numbers.
    ///
    /// # Errors
    ///
    /// A setting is out of bounds, or the members do not fit.
    pub fn restore(
        settings: Settings,
        members: impl IntoIterator<Item = RestoredMember>,
        now: Duration,
    ) -> Result<Self, RestoreError> {
        let mut mesh = Self::new(settings)?;
        let members = restored(members);
        if let Some(limit) = mesh.state.size_limit().filter(|&limit| members.list.len() > limit) {
            return Err(JoinError::Full { limit }.into());
        }
        mesh.state.version = members.version;
        for (alias, member) in &members.list {
            mesh.insert(*alias, member.address, member.position, member.prefers_to_initiate, now);
        }
        mesh.state.last_alias = members.last_alias;
        for (_, member) in &members.list {
            let Some(reported) = &member.reported else { continue };
            let others = reported.links.iter().map(|&(_, other)| other);
            let connected_to = others.filter(|other| mesh.is_other(member.address, *other)).collect();
            let links = ReportedLinks { connected_to, ..ReportedLinks::default() };
            mesh.state.links.report(member.address, links, now);
            if let Some(member) = mesh.state.members.get_mut(&member.address) {
                member.last_report = Some(now);
            }
        }
        let targets = earlier_targets(&members.list);
        let targets = targets.into_iter().filter(|&Pair(a, b)| mesh.is_other(a, b) && mesh.is_other(b, a));
        mesh.state.targets = targets.map(|pair| (pair, 0)).collect();
        mesh.is_restored = true;
        mesh.publish_at = Some(now);
        Ok(mesh)
    }

    /// Changes the most links of a member, and whether members forward messages of others. Links above the new number
    /// are removed by the next plan. [`Settings::target_links`] is 4 again, or `max_links` if that is less.
    ///
    /// # Errors
    ///
    /// `max_links` is out of bounds. The mesh is unchanged.
    pub fn set_limits(&mut self, max_links: usize, relay: bool, now: Duration) -> Result<(), SettingsError> {
        let target_links = Settings::default().target_links.min(max_links);
        let settings = Settings { max_links, target_links, relay, ..self.state.settings.clone() };
        settings.validate()?;
        self.state.settings = settings;
        self.state.members_changed = true;
        self.state.targets_outdated = true;
        self.schedule_publish(now);
        Ok(())
    }

    /// Adds a member. `prefers_to_initiate`: it makes the offer for a link to a member without this preference, as
    /// browsers should; otherwise the higher address does. An address that is a member already leaves and joins again,
    /// with a new alias.
    ///
    /// # Errors
    ///
    /// Without relay, the mesh is full; or no alias is left. The mesh is unchanged.
    pub fn join(
        &mut self,
        address: Address,
        position: Position,
        prefers_to_initiate: bool,
        now: Duration,
    ) -> Result<Alias, JoinError> {
        let others = self.len() - usize::from(self.contains(address));
        if let Some(limit) = self.state.size_limit().filter(|&limit| others >= limit) {
            return Err(JoinError::Full { limit });
        }
        let alias = self.state.last_alias.checked_add(1).ok_or(JoinError::NoAlias)?;
        self.leave(address, now);
        self.insert(alias, address, position, prefers_to_initiate, now);
        Ok(alias)
    }

    fn insert(
        &mut self,
        alias: Alias,
        address: Address,
        position: Position,
        prefers_to_initiate: bool,
        now: Duration,
    ) {
        let member = Member {
            alias,
            position,
            prefers_to_initiate,
            joined_at: now,
            last_report: None,
            plan: None,
            unreached: 0,
        };
        self.state.insert(address, member);
        self.schedule_publish(now);
    }

    /// Removes a member. Returns whether it was one.
    pub fn leave(&mut self, address: Address, now: Duration) -> bool {
        let was_member = self.state.remove(address);
        if was_member {
            self.health.remove(address);
            self.resend.remove(&address);
            self.schedule_publish(now);
        }
        was_member
    }

    /// Records the position of a member. Links change only after other members have been nearer for 10 s.
    pub fn moved(&mut self, address: Address, position: Position, now: Duration) {
        if let Some(member) = self.state.members.get_mut(&address)
            && member.position != position
        {
            member.position = position;
            self.exchanges.positions_changed();
            self.schedule_upkeep(now);
        }
    }

    /// Applies the report of a member. A report of another address, and aliases without a member, are ignored.
    pub fn report(&mut self, address: Address, report: &LinkReport, now: Duration) {
        let unreached = self.publisher.unreached_by(address);
        let unreached = unreached.filter(|&other| !self.state.is_in_formation(other, now)).count();
        let Some(member) = self.state.members.get_mut(&address) else { return };
        member.last_report = Some(now);
        // Members that became reachable since the last report received a part of the deliveries by fallback.
        let unreached_meanwhile = std::mem::replace(&mut member.unreached, unreached).max(unreached);
        let is_lost = member.plan.is_some_and(|(version, sent_at)| {
            report.version < version && now.saturating_sub(sent_at) >= RESEND_AFTER
        });
        let others = self.state.members.len() - 1;
        let sent = (report.sent, report.sent_by_fallback);
        if !self.state.is_in_formation(address, now) {
            self.health.record(address, sent, (unreached_meanwhile.min(others), others), now);
        }
        if is_lost && self.resend.insert(address) {
            self.schedule_publish(now);
        }
        let links = self.resolved(address, report);
        let changes = self.state.links.report(address, links, now);
        if changes.obstructed {
            self.state.targets_outdated = true;
        }
        if changes.obstructed || changes.came_up {
            self.exchanges.links_changed(now);
            self.schedule_publish(now);
        }
        self.schedule_upkeep(now);
    }

    /// The lists of a report as addresses of other members. A failure counts only for a link that is a target and was
    /// one in the plan that the reporting member had.
    fn resolved(&self, address: Address, report: &LinkReport) -> ReportedLinks {
        let addresses = |aliases: &[Alias]| -> BTreeSet<Address> {
            let known = aliases.iter().filter_map(|alias| self.state.aliases.get(alias));
            known.copied().filter(|&other| other != address).collect()
        };
        let mut failed = addresses(&report.failed);
        failed.retain(|&other| {
            let since = self.state.targets.get(&Pair::new(address, other));
            since.is_some_and(|&version| report.version >= version)
        });
        ReportedLinks {
            connected_to: addresses(&report.connected_to),
            failed,
            flooding: addresses(&report.flooding),
        }
    }

    /// The time at which [`tick`](Self::tick) has something to do; `None`: not before the next input.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.publish_at.into_iter().chain(self.upkeep_at).min()
    }

    /// Performs all tasks that are due, and returns the outputs. Call it at [`next_deadline`](Self::next_deadline); earlier calls
    /// have no effect.
    pub fn tick(&mut self, now: Duration) -> Update {
        let is_due = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        let is_upkeep_due = is_due(self.upkeep_at);
        let mut is_publish_due = is_due(self.publish_at);
        if is_upkeep_due {
            self.upkeep_at = None;
            is_publish_due |= self.upkeep(now);
        }
        let mut update = Update::default();
        if is_publish_due {
            self.publish_at = None;
            update.plans = self.publish(now);
        }
        if is_upkeep_due || is_publish_due {
            update.failure = self.check_health(now);
        }
        if self.is_waiting() {
            self.schedule_upkeep(now);
        }
        update
    }

    /// Ends obstacles that are over and exchanges links. Returns whether plans changed.
    fn upkeep(&mut self, now: Duration) -> bool {
        let has_expired = self.state.links.expire(now);
        self.state.targets_outdated |= has_expired;
        // New members are given links before any are exchanged.
        let is_settled = !self.state.targets_outdated && self.publish_at.is_none();
        let has_exchanged =
            is_settled && self.exchanges.is_waiting() && self.exchanges.step(&mut self.state, now);
        has_expired || has_exchanged
    }

    fn publish(&mut self, now: Duration) -> Vec<(Address, Plan)> {
        if self.state.targets_outdated {
            self.exchanges.links_changed(now);
        }
        Publisher::update_targets(&mut self.state, std::mem::take(&mut self.is_restored));
        let mut plans = self.publisher.publish(&mut self.state, now);
        for address in std::mem::take(&mut self.resend) {
            if let Err(index) = plans.binary_search_by_key(&address, |&(recipient, _)| recipient)
                && let Some(plan) = self.publisher.plan(&self.state, address)
            {
                if let Some(member) = self.state.members.get_mut(&address) {
                    member.plan = Some((plan.version, now));
                }
                plans.insert(index, (address, plan));
            }
        }
        plans
    }

    fn check_health(&mut self, now: Duration) -> Option<Failure> {
        let state = &self.state;
        let is_member = |address: Address| state.members.contains_key(&address);
        let mut unreached = self.publisher.unreached().filter(|&(from, to)| is_member(from) && is_member(to));
        let paths = Paths {
            unreached: &mut unreached,
            is_in_formation: |address| state.is_in_formation(address, now),
            max_fallback: state.settings.max_fallback,
            max_fallback_share: state.settings.max_fallback_share,
        };
        let mut failure = self.health.check(paths, now)?;
        let never_reported = state.members.iter().filter(|&(&address, member)| {
            member.last_report.is_none() && !state.is_in_formation(address, now)
        });
        failure.never_reported = never_reported.map(|(&address, _)| address).collect();
        Some(failure)
    }

    fn is_waiting(&self) -> bool {
        self.state.links.is_waiting()
            || self.exchanges.is_waiting()
            || self.health.is_waiting()
            || self.publisher.unreached().next().is_some()
    }

    /// Inputs are collected from the first one on; later ones do not delay the plan.
    fn schedule_publish(&mut self, now: Duration) {
        self.publish_at.get_or_insert(now + self.state.settings.debounce);
    }

    fn schedule_upkeep(&mut self, now: Duration) {
        self.upkeep_at.get_or_insert(now + UPKEEP_INTERVAL);
    }

    fn is_other(&self, address: Address, other: Address) -> bool {
        other != address && self.contains(other)
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.state.members.len()
    }

    /// Whether the mesh has no members.
    pub fn is_empty(&self) -> bool {
        self.state.members.is_empty()
    }

    /// Whether the address is a member.
    pub fn contains(&self, address: Address) -> bool {
        self.state.members.contains_key(&address)
    }

    /// The alias of a member.
    pub fn alias(&self, address: Address) -> Option<Alias> {
        self.state.members.get(&address).map(|member| member.alias)
    }

    /// The version of the newest plan; 0 before the first.
    pub fn version(&self) -> u32 {
        self.state.version
    }

    /// The current plan of a member, for sending it again; `None` before the first.
    pub fn plan(&self, address: Address) -> Option<Plan> {
        self.publisher.plan(&self.state, address)
    }

    /// The links that members should hold, lower address first, and whether both ends report them.
    pub fn links(&self) -> impl Iterator<Item = (Address, Address, bool)> + '_ {
        self.state.targets.keys().map(|&pair| (pair.0, pair.1, self.state.links.is_up(pair)))
    }

    /// The hops of the longest path of a message, by the current plans.
    pub fn depth(&self) -> usize {
        self.publisher.depth()
    }

    /// Members that have not reported for [`Settings::silence`], by address.
    pub fn silent_members(&self, now: Duration) -> impl Iterator<Item = SilentMember> + '_ {
        let silent = self.state.members.iter().filter(move |(_, member)| {
            let since = member.last_report.unwrap_or(member.joined_at);
            now.saturating_sub(since) >= self.state.settings.silence
        });
        silent.map(|(&address, member)| SilentMember { address, last_report: member.last_report })
    }

    /// Whether the last check found that the mesh cannot hold its island.
    pub fn is_failing(&self) -> bool {
        self.health.is_failing()
    }
}
