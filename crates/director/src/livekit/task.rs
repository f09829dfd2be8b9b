//! The task that watches a server and administers its rooms.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use archipelago::{Input, Transport};
use protocol::{Address, IslandId, NodeName, RoomName, unix_ms};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep_until},
};
use transports::livekit::{
    ApiClient, HealthReport, HealthWatch, ListedParticipant,
    occupancy::Participant,
    webhook::{Event, EventKind},
};

use super::{
    calls::{Calls, Outcome},
    removals::{Removal, Removals, Target},
    server::{Command, RoomChanges, ServerSeed},
    settings::LiveKitSettings,
    tracker::Tracker,
};
use crate::{
    admin::{AdminError, AdminHandle, AssignedRoom},
    configured_nodes::ConfiguredNode,
};

/// The state of a server's task.
pub(super) struct ServerTask {
    configured: ConfiguredNode,
    settings: Arc<LiveKitSettings>,
    tracker: Tracker,
    events: mpsc::Receiver<Event>,
    watch: HealthWatch,
    commands: mpsc::Receiver<Command>,
    inputs: mpsc::Sender<Input>,
    director: AdminHandle,
    calls: Calls,
    /// The rooms of assigned islands, as far as this director created or reconciled them, and when it created
    /// them. Empty in a standby.
    rooms: HashMap<IslandId, Instant>,
    /// The rooms of the server, as last listed.
    listed: Vec<RoomName>,
    /// Rooms whose participants are still to be listed in this reconciliation.
    to_list: VecDeque<RoomName>,
    removals: Removals,
    /// Islands whose grants have changed: older tokens restore older permissions.
    media_changed: HashSet<IslandId>,
    reconcile_at: Instant,
}

/// The director's task has ended, or is ending.
struct DirectorGone;

/// The longest time for a reply to a call other than a probe.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a director that may not remove participants asks whether it may.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Explanations name a latency from this on.
const SLOW_REPLY: Duration = Duration::from_millis(500);
/// A list of rooms may be older than a room that was created this recently.
const CREATION_MARGIN: Duration = Duration::from_secs(5);

impl ServerTask {
    pub(super) fn new(
        seed: ServerSeed,
        settling: Duration,
        inputs: mpsc::Sender<Input>,
        director: AdminHandle,
    ) -> Self {
        let ServerSeed { configured, settings, commands, events, state } = seed;
        let LiveKitSettings { api_url, keys, hang_timeout, .. } = &*settings;
        let api = Arc::new(ApiClient::new(api_url, keys, CALL_TIMEOUT.max(*hang_timeout)));
        Self {
            watch: HealthWatch::new(api.clone(), *hang_timeout, settling),
            calls: Calls::new(configured.node.clone(), api),
            tracker: Tracker::new(configured.node.clone(), state),
            events,
            configured,
            settings,
            commands,
            inputs,
            director,
            rooms: HashMap::new(),
            listed: Vec::new(),
            to_list: VecDeque::new(),
            removals: Removals::default(),
            media_changed: HashSet::new(),
            reconcile_at: Instant::now() + RETRY_INTERVAL,
        }
    }

    /// Runs until the publisher or the engine's task has ended.
    pub(super) async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), DirectorGone> {
        let work_at = self.next_work();
        tokio::select! {
            biased;
            command = self.commands.recv(), if self.calls.has_capacity() => match command {
                Some(Command::Open { island, options, reply }) => {
                    self.rooms.insert(island.clone(), Instant::now());
                    self.calls.open(island, options, Some(reply));
                }
                Some(Command::Apply(changes)) => self.apply_changes(&changes),
                None => return Err(DirectorGone),
            },
            Some(event) = self.events.recv() => self.apply_event(&event).await?,
            report = self.watch.next() => self.report(report).await?,
            outcome = self.calls.next() => self.finish(outcome).await?,
            () = sleep_until(work_at) => self.work().await?,
        }
        Ok(())
    }

    fn node(&self) -> &NodeName {
        &self.configured.node
    }

    /// Reports the health of the server to the engine. Creates rooms that a restarted server has lost.
    async fn report(&mut self, report: HealthReport) -> Result<(), DirectorGone> {
        let HealthReport { health, changed, rooms, latency } = report;
        let node = self.node();
        self.configured.set_health_gauge(health.is_ok());
        self.tracker.set_healthy(health.is_ok());
        match &health {
            Ok(()) if changed => tracing::info!(%node, "healthy"),
            Err(error) if changed => tracing::warn!(%node, %error, "unhealthy, not announced"),
            _ => {}
        }
        let transport = self.configured.transport(self.tracker.users());
        let input = match health {
            Ok(()) => Input::Transport(Transport { note: slowness(latency), ..transport }),
            Err(error) => Input::TransportDown { transport, reason: error.to_string().into() },
        };
        if let Err(TrySendError::Closed(_)) = self.inputs.try_send(input) {
            return Err(DirectorGone);
        }
        match rooms {
            Some(rooms) => self.rooms_listed(&rooms).await,
            None => Ok(()),
        }
    }

    /// Creates the rooms of assigned islands that the server does not have.
    async fn rooms_listed(&mut self, listed: &[String]) -> Result<(), DirectorGone> {
        self.listed = listed.iter().filter_map(|room| room.parse().ok()).collect();
        let is_missing = |(island, created_at): &(&IslandId, &Instant)| {
            created_at.elapsed() > CREATION_MARGIN && listed.iter().all(|room| room != island.as_str())
        };
        let missing: Vec<IslandId> =
            self.rooms.iter().filter(is_missing).map(|(island, _)| island.clone()).collect();
        for island in missing {
            if !self.calls.has_capacity() {
                break;
            }
            self.restore(island).await?;
        }
        Ok(())
    }

    /// Creates the room of an island that the server lost, if the island is still assigned to it.
    async fn restore(&mut self, island: IslandId) -> Result<(), DirectorGone> {
        match self.assigned_room(&island).await? {
            Ok(Some(room)) => {
                let max_island_size = self.configured.max_island_size;
                let rule = room.rule.as_deref();
                let options = self.settings.room_options(self.node(), max_island_size, &island, rule);
                tracing::info!(node = %self.node(), %island, "the server lost the room: created again");
                self.rooms.insert(island.clone(), Instant::now());
                self.calls.open(island, options, None);
            }
            Ok(None) => drop(self.rooms.remove(&island)),
            Err(_) => {}
        }
        Ok(())
    }

    /// Updates the occupancy. A participant that has joined and is no member is removed at once, unless it is within
    /// the grace of its membership.
    async fn apply_event(&mut self, event: &Event) -> Result<(), DirectorGone> {
        let joined = self.tracker.apply(event).joined;
        let room = event.room.as_ref().and_then(|room| room.name.parse::<IslandId>().ok());
        let Some(island) = room.filter(|island| self.rooms.contains_key(island)) else { return Ok(()) };
        if event.kind == EventKind::RoomFinished {
            return self.restore(island).await;
        }
        let identities: Vec<String> = joined.iter().map(|joined| joined.identity.clone()).collect();
        let room = self.remove_strangers(island.clone(), joined, Instant::now()).await?;
        if let Some(room) = room.filter(|_| self.media_changed.contains(&island)) {
            identities.into_iter().for_each(|identity| self.calls.set_media(&island, identity, room.media));
        }
        Ok(())
    }

    /// Sets the permissions of participants that differ from the grants of their island.
    fn correct_media(
        &mut self,
        island: &IslandId,
        room: Option<AssignedRoom>,
        listed: Vec<ListedParticipant>,
    ) {
        let Some(AssignedRoom { media, .. }) = room else { return };
        let differs = |listed: &ListedParticipant| listed.participant.counted && listed.media != media;
        for listed in listed.into_iter().filter(differs) {
            self.calls.set_media(island, listed.participant.identity, media);
        }
    }

    /// Schedules the removal of former members and rooms after the grace, and sets new permissions at once.
    fn apply_changes(&mut self, changes: &RoomChanges) {
        let at = Instant::now() + self.settings.grace;
        let RoomChanges { ended, taken_over, closed, media_changed, published_at } = changes;
        for (island, node, peers) in ended {
            let is_here = node.as_ref().is_none_or(|node| node == self.node());
            if !is_here || !self.rooms.contains_key(island) {
                continue;
            }
            for peer in peers {
                self.removals.schedule(Removal::participant(island.clone(), peer.to_string()), at);
            }
            if node.is_some() {
                self.removals.schedule(Removal::room(island.clone()), at);
            }
        }
        let replaced_at_ms = Some(unix_ms(*published_at));
        for (island, peers) in taken_over.iter().filter(|(island, _)| self.rooms.contains_key(island)) {
            for peer in peers {
                let removal = Removal::participant(island.clone(), peer.to_string());
                self.removals.schedule(Removal { replaced_at_ms, ..removal }, at);
            }
        }
        for island in closed.iter().filter(|island| self.rooms.contains_key(island)) {
            self.removals.schedule(Removal::room(island.clone()), at);
        }
        for (island, media) in media_changed.iter().filter(|(island, _)| self.rooms.contains_key(island)) {
            self.media_changed.insert(island.clone());
            for identity in self.tracker.identities(island) {
                self.calls.set_media(island, identity, *media);
            }
        }
    }

    /// When `work` has something to do.
    fn next_work(&self) -> Instant {
        if !self.calls.has_spare_capacity() {
            return self.reconcile_at;
        }
        if !self.to_list.is_empty() {
            return Instant::now();
        }
        self.removals.next_due().map_or(self.reconcile_at, |due| due.min(self.reconcile_at))
    }

    /// Starts the calls that are due.
    async fn work(&mut self) -> Result<(), DirectorGone> {
        if self.reconcile_at <= Instant::now() {
            self.reconcile().await?;
        }
        while self.calls.has_spare_capacity()
            && let Some(removal) = self.removals.take_due(Instant::now())
        {
            self.remove(removal).await?;
        }
        while self.calls.has_spare_capacity()
            && let Some(room) = self.to_list.pop_front()
        {
            self.calls.list(room);
        }
        Ok(())
    }

    /// Compares the rooms with the assigned islands, and then the participants of each with its members.
    async fn reconcile(&mut self) -> Result<(), DirectorGone> {
        self.reconcile_at = Instant::now() + self.tracker.list_interval();
        let Ok(assigned) = self.assigned_rooms(None).await? else { return Ok(()) };
        let at = Instant::now() + self.settings.grace;
        for island in self.rooms.keys().filter(|island| !assigned.contains_key(island)) {
            if !self.removals.is_scheduled(island, &Target::Room) {
                self.removals.schedule(Removal::room(island.clone()), at);
            }
        }
        for island in assigned.keys() {
            self.rooms.entry(island.clone()).or_insert_with(Instant::now);
        }
        let assigned = assigned.keys().map(RoomName::from);
        self.to_list = self.listed.drain(..).chain(assigned).collect::<HashSet<_>>().into_iter().collect();
        Ok(())
    }

    /// Starts a removal that is due, unless the peer is a member again, or the island is on the server again.
    async fn remove(&mut self, removal: Removal) -> Result<(), DirectorGone> {
        let room = match self.assigned_room(&removal.island).await? {
            Ok(room) => room,
            Err(AdminError::Standby | AdminError::Gone) => return Ok(()),
            Err(AdminError::Suspended) => {
                self.removals.schedule(removal, Instant::now() + RETRY_INTERVAL);
                return Ok(());
            }
        };
        match &removal.target {
            Target::Room if room.is_some() => {}
            Target::Room => {
                self.rooms.remove(&removal.island);
                self.media_changed.remove(&removal.island);
                self.calls.remove(removal, None);
            }
            Target::Participant(identity) => {
                let is_member = room.is_some_and(|room| is_member(&room, identity));
                match removal.replaced_at_ms {
                    replaced_at_ms @ Some(_) if is_member => self.calls.remove(removal, replaced_at_ms),
                    None if is_member => {}
                    _ => self.calls.remove(removal, None),
                }
            }
        }
        Ok(())
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), DirectorGone> {
        let node = self.node();
        match outcome {
            Outcome::Done => {}
            Outcome::Removed { removal: Removal { island, target, .. }, result: Ok(()) } => {
                tracing::debug!(%node, %island, ?target, "removed");
            }
            Outcome::Removed { removal, result: Err(error) } => {
                tracing::debug!(%node, ?removal, %error, "not removed, tried again later");
                self.removals.retry(removal, Instant::now());
            }
            Outcome::Listed { room, result: Ok(listed), requested_at } => {
                let participants: Vec<_> = listed.iter().map(|listed| listed.participant.clone()).collect();
                self.tracker.reconcile(room.as_str(), participants.clone(), requested_at);
                let island = room.as_str().parse::<IslandId>().ok();
                if let Some(island) = island.filter(|island| self.rooms.contains_key(island)) {
                    // The report of the end of their memberships may be on its way: they have the whole grace.
                    let at = Instant::now() + self.settings.grace;
                    let room = self.remove_strangers(island.clone(), participants, at).await?;
                    self.correct_media(&island, room, listed);
                }
            }
            Outcome::Listed { room, result: Err(error), .. } => {
                tracing::debug!(%node, %room, %error, "participants not listed");
            }
        }
        Ok(())
    }

    /// Schedules the removal of those participants that are not members, unless it is scheduled already. Agents and
    /// hidden participants are the operator's. Returns the room of the island, if there are participants.
    async fn remove_strangers(
        &mut self,
        island: IslandId,
        participants: Vec<Participant>,
        at: Instant,
    ) -> Result<Option<AssignedRoom>, DirectorGone> {
        if participants.is_empty() {
            return Ok(None);
        }
        let Ok(room) = self.assigned_room(&island).await? else { return Ok(None) };
        for participant in participants.into_iter().filter(|participant| participant.counted) {
            let is_member = room.as_ref().is_some_and(|room| is_member(room, &participant.identity));
            let removal = Removal::participant(island.clone(), participant.identity);
            if !is_member && !self.removals.is_scheduled(&island, &removal.target) {
                self.removals.schedule(removal, at);
            }
        }
        Ok(room)
    }

    async fn assigned_room(
        &mut self,
        island: &IslandId,
    ) -> Result<Result<Option<AssignedRoom>, AdminError>, DirectorGone> {
        Ok(self.assigned_rooms(Some(island.clone())).await?.map(|mut rooms| rooms.remove(island)))
    }

    /// The islands that are assigned to this server, or only this one, with their members. A standby forgets what
    /// it did as the leader.
    async fn assigned_rooms(
        &mut self,
        island: Option<IslandId>,
    ) -> Result<Result<HashMap<IslandId, AssignedRoom>, AdminError>, DirectorGone> {
        let rooms = self.director.assigned_rooms(self.node().clone(), island).await;
        match rooms {
            Err(AdminError::Gone) => return Err(DirectorGone),
            Err(AdminError::Standby) => {
                self.rooms.clear();
                self.media_changed.clear();
                self.removals.clear();
                self.to_list.clear();
                self.reconcile_at = Instant::now() + RETRY_INTERVAL;
            }
            Err(AdminError::Suspended) => self.reconcile_at = Instant::now() + RETRY_INTERVAL,
            Ok(_) => {}
        }
        Ok(rooms)
    }
}

/// The remark about a server whose last reply was late.
fn slowness(latency: Option<Duration>) -> Option<Arc<str>> {
    let latency = latency.filter(|latency| *latency >= SLOW_REPLY)?;
    Some(format!("its API is slow: the last reply took {:.1} s", latency.as_secs_f64()).into())
}

fn is_member(room: &AssignedRoom, identity: &str) -> bool {
    identity.parse::<Address>().is_ok_and(|address| room.members.contains(&address))
}
