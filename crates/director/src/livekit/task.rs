//! The task that watches a server and administers its rooms.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use archipelago::Input;
use protocol::{IslandId, NodeName, RoomName};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep_until},
};
use transports::livekit::{
    ApiClient, ApiError, HealthReport, HealthWatch,
    occupancy::Participant,
    webhook::{Event, EventKind},
};

use super::{
    calls::{Calls, Outcome},
    command::{Command, OpenRequest, RoomChanges},
    known_rooms::KnownRooms,
    removals::{Removal, Removals, Target},
    report::engine_input,
    server::ServerSeed,
    settings::LiveKitSettings,
    tracker::Tracker,
};
use crate::{
    admin::{AdminError, AdminHandle, AssignedRoom},
    configured_nodes::ConfiguredNode,
};

/// The state of a server's task.
struct ServerTask {
    configured: ConfiguredNode,
    settings: Arc<LiveKitSettings>,
    tracker: Tracker,
    events: mpsc::Receiver<Event>,
    watch: HealthWatch,
    commands: mpsc::Receiver<Command>,
    inputs: mpsc::Sender<Input>,
    director: AdminHandle,
    calls: Calls,
    rooms: KnownRooms,
    /// The rooms of the server, as last listed.
    listed: Vec<RoomName>,
    /// Rooms of which this reconciliation has still to list the participants.
    to_list: VecDeque<RoomName>,
    removals: Removals,
    reconcile_at: Instant,
}

/// The director's task has ended, or is ending.
struct DirectorGone;

/// The longest time for a reply to a call other than a probe.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a director that may not remove participants asks whether it may.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Removals that are started one after the other.
const REMOVALS_AT_ONCE: usize = 32;
/// A participant that is no member and of which no end of a membership is known remains for this long after a list
/// shows it: the report of the end may be on its way.
const STRANGER_GRACE: Duration = Duration::from_secs(1);

/// Starts the task of a server on `runtime`. It reports the server's health as inputs of the engine, and learns from
/// the director which peers are members.
pub(crate) fn start(
    seed: ServerSeed,
    runtime: &Handle,
    settling: Duration,
    inputs: mpsc::Sender<Input>,
    director: AdminHandle,
) {
    runtime.spawn(ServerTask::new(seed, settling, inputs, director).run());
}

impl ServerTask {
    fn new(seed: ServerSeed, settling: Duration, inputs: mpsc::Sender<Input>, director: AdminHandle) -> Self {
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
            rooms: KnownRooms::default(),
            listed: Vec::new(),
            to_list: VecDeque::new(),
            removals: Removals::default(),
            reconcile_at: Instant::now() + RETRY_INTERVAL,
        }
    }

    /// Runs until the publisher or the engine's task has ended.
    async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), DirectorGone> {
        let work_at = self.next_work();
        tokio::select! {
            biased;
            command = self.commands.recv(), if self.calls.has_capacity() => match command {
                Some(Command::Open(request)) => self.open(request),
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

    /// Creates the room of an island, unless the publisher no longer waits for it. If the room is being deleted, it is
    /// created after that.
    fn open(&mut self, request: OpenRequest) {
        if request.reply.is_closed() {
            return;
        }
        self.rooms.create(request.island.clone());
        self.removals.cancel(&request.island, &Target::Room);
        if let Some(OpenRequest { island, options, reply }) = self.rooms.postpone(request) {
            self.calls.open(island, options, Some(reply));
        }
    }

    /// Reports the health of the server to the engine. Creates rooms that a restarted server has lost.
    async fn report(&mut self, report: HealthReport) -> Result<(), DirectorGone> {
        let HealthReport { health, changed, .. } = &report;
        let changed = *changed;
        self.configured.set_health_gauge(health.is_ok());
        self.tracker.set_healthy(health.is_ok());
        if changed && health.is_ok() {
            // The server may have been restarted, and webhooks were lost.
            self.reconcile_at = Instant::now();
        }
        let node = self.node();
        match health {
            Ok(()) if changed => tracing::info!(%node, "healthy"),
            Err(error) if changed => tracing::warn!(%node, %error, "unhealthy, not announced"),
            _ => {}
        }
        let input = engine_input(&self.configured, &report, self.tracker.users());
        if let Err(TrySendError::Closed(_)) = self.inputs.try_send(input) {
            return Err(DirectorGone);
        }
        match report.rooms {
            Some(rooms) => self.rooms_listed(&rooms).await,
            None => Ok(()),
        }
    }

    /// Creates the rooms of assigned islands that the server does not have.
    async fn rooms_listed(&mut self, listed: &[String]) -> Result<(), DirectorGone> {
        self.listed = listed.iter().filter_map(|room| room.parse().ok()).collect();
        for island in self.rooms.missing(listed) {
            self.restore(island).await?;
        }
        Ok(())
    }

    /// Creates the room of an island that the server lost, if the island is still assigned to it.
    async fn restore(&mut self, island: IslandId) -> Result<(), DirectorGone> {
        if !self.calls.has_spare_capacity() {
            // The next list of rooms lacks the room, too.
            return Ok(());
        }
        match self.assigned_room(&island).await? {
            Ok(Some(room)) => {
                let max_island_size = self.configured.max_island_size;
                let rule = room.rule.as_deref();
                let options = self.settings.room_options(self.node(), max_island_size, &island, rule);
                tracing::info!(node = %self.node(), %island, "the server lost the room: created again");
                self.rooms.create(island.clone());
                self.calls.open(island, options, None);
            }
            Ok(None) => self.rooms.remove(&island),
            Err(_) => {}
        }
        Ok(())
    }

    /// Updates the occupancy. A participant that has joined and is no member is removed at once, unless it is within
    /// the grace of its membership.
    async fn apply_event(&mut self, event: &Event) -> Result<(), DirectorGone> {
        let joined = self.tracker.apply(event).joined;
        let room = event.room.as_ref().and_then(|room| room.name.parse::<IslandId>().ok());
        let Some(island) = room.filter(|island| self.rooms.contains(island)) else { return Ok(()) };
        if event.kind == EventKind::RoomFinished {
            return self.restore(island).await;
        }
        if !joined.is_empty() && self.rooms.has_media_changed(&island) {
            self.to_list.push_front(RoomName::from(&island));
        }
        self.remove_strangers(island, joined, Instant::now()).await.map(drop)
    }

    /// Schedules the removal of former members and rooms after the grace. Rooms with changed grants are listed at once:
    /// the list shows the participants with other permissions.
    fn apply_changes(&mut self, changes: &RoomChanges) {
        let Self { configured, rooms, tracker, removals, to_list, .. } = self;
        let at = Instant::now() + self.settings.grace;
        let is_known = |island: &IslandId| rooms.contains(island);
        let sid_of = |island: &IslandId, identity: &str| tracker.sid(island, identity);
        removals.schedule_ended(changes, &configured.node, is_known, sid_of, at);
        for island in &changes.media_changed {
            if rooms.contains(island) {
                rooms.set_media_changed(island);
                to_list.push_front(RoomName::from(island));
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
        // Each asks the director. Commands and probes are served in between.
        for _ in 0..REMOVALS_AT_ONCE {
            if !self.calls.has_spare_capacity() {
                break;
            }
            let Some(removal) = self.removals.take_due(Instant::now()) else { break };
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
        for island in self.rooms.islands().filter(|island| !assigned.contains_key(island)) {
            if !self.removals.is_scheduled(island, &Target::Room) {
                self.removals.schedule(Removal::room(island.clone()), at);
            }
        }
        for island in assigned.keys() {
            self.rooms.add(island.clone());
        }
        // A room that only the occupancy has may be gone from the server.
        let known = assigned.keys().map(RoomName::from).chain(self.tracker.rooms());
        self.to_list = self.listed.drain(..).chain(known).collect::<HashSet<_>>().into_iter().collect();
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
                self.rooms.begin_deletion(&removal.island);
                self.calls.remove(removal, None);
            }
            Target::Participant(identity) => {
                let is_member = room.is_some_and(|room| room.has_member(identity));
                match removal.replaced.clone() {
                    replaced @ Some(_) if is_member => self.calls.remove(removal, replaced),
                    None if is_member => {}
                    _ => self.calls.remove(removal, None),
                }
            }
        }
        Ok(())
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), DirectorGone> {
        match outcome {
            Outcome::Done => {}
            Outcome::Removed { removal, result } => self.removed(removal, result),
            Outcome::Listed { room, result: Ok(listed), requested_at } => {
                let participants: Vec<_> = listed.iter().map(|listed| listed.participant.clone()).collect();
                self.tracker.reconcile(room.as_str(), participants.clone(), requested_at);
                self.reconcile_at = self.reconcile_at.min(Instant::now() + self.tracker.list_interval());
                let island = room.as_str().parse::<IslandId>().ok();
                if let Some(island) = island.filter(|island| self.rooms.contains(island)) {
                    let at = Instant::now() + STRANGER_GRACE.min(self.settings.grace);
                    let room = self.remove_strangers(island.clone(), participants, at).await?;
                    if let Some(room) = room {
                        self.calls.correct_media(&island, room.media, listed);
                    }
                }
            }
            Outcome::Listed { room, result: Err(error), .. } => tracing::debug!(%room, %error, "not listed"),
        }
        Ok(())
    }

    /// Applies the outcome of a removal. A failed one is tried again, except that of a room that is needed again.
    fn removed(&mut self, removal: Removal, result: Result<(), ApiError>) {
        let node = &self.configured.node;
        match &result {
            Ok(()) => tracing::debug!(%node, island = %removal.island, target = ?removal.target, "removed"),
            Err(error) => tracing::debug!(%node, ?removal, %error, "not removed, tried again later"),
        }
        if removal.target == Target::Room
            && let Some(OpenRequest { island, options, reply }) = self.rooms.end_deletion(&removal.island)
        {
            self.calls.open(island, options, Some(reply));
        } else if result.is_err() {
            self.removals.retry(removal, Instant::now());
        }
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
            let is_member = room.as_ref().is_some_and(|room| room.has_member(&participant.identity));
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

    /// The islands that are assigned to this server, or only this one, with their members. A standby clears
    /// its rooms and removals.
    async fn assigned_rooms(
        &mut self,
        island: Option<IslandId>,
    ) -> Result<Result<HashMap<IslandId, AssignedRoom>, AdminError>, DirectorGone> {
        let rooms = self.director.assigned_rooms(self.node().clone(), island).await;
        match rooms {
            Err(AdminError::Gone) => return Err(DirectorGone),
            Err(AdminError::Standby) => {
                self.rooms.clear();
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
