//! The application: the roles of a realm that run in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use admission::{ContractVerifier, Verifier};
use anyhow::{Context, Result};
use bus::Bus;
use director::{Director, Leadership, LiveKitServers};
use gateway::{FixedRoom, Gateway};
use metrics_exporter_prometheus::PrometheusHandle;
use rooms::Rooms;
use stats::Stats;
use tokio::{sync::oneshot, task::JoinSet, time};
use transports::ws_room;

use super::banner::Urls;
use crate::{
    config::{Configuration, Settings},
    process,
    role::Role,
};

/// The roles of a realm that run in this process; those that are `None` run elsewhere. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    bus: Bus,
    pub(super) gateway: Option<Gateway>,
    pub(super) rooms: Option<Rooms>,
    pub(super) stats: Option<Stats>,
    /// The LiveKit servers of the director, if one runs here.
    pub(super) livekit: LiveKitServers,
    /// Whether a leader is known, if a director runs here.
    leadership: Option<Leadership>,
    draining: Arc<AtomicBool>,
}

/// How often the metrics recorder does its upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often a drain checks whether it is over.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How long a drain waits for readers of the live feed.
const FEED_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

impl App {
    /// Builds the roles that are to run, and the director if it is one of them. The director's
    /// subscriptions exist from now on.
    pub(super) fn build(
        configuration: &Configuration,
        urls: &Urls,
        bus: Bus,
    ) -> Result<(Self, Option<Director>)> {
        let Configuration { settings, rules } = configuration;
        let Settings { server, realm, identity, client, gateway, rooms, islands, stats, .. } = settings;
        let runs = |role| server.roles.contains(&role);
        let mut secrets = rooms.token_secrets();
        if secrets.is_empty() {
            // Processes that share tokens with others have configured secrets.
            secrets.push(hex::encode(admission::random::<32>()?));
        }
        let minter = || ws_room::Minter::new(secrets[0].as_bytes(), rooms.token_ttl_s.duration());
        let mut verifier = Verifier::new(identity.limits()).with_host(&realm.challenge_host(&urls.http));
        if let Some(contracts) = identity.contracts() {
            verifier = verifier.with_contracts(ContractVerifier::new(contracts));
        }
        let fixed_room = (*realm.fixed_room).clone();
        let gateway_role = runs(Role::Gateway).then(|| {
            // If the rooms run in other processes, their announcements name the node.
            let node = rooms.node_names().into_iter().next().filter(|_| runs(Role::Rooms));
            Gateway::new(
                gateway::Settings {
                    proxied_livekit: settings.proxied_livekit(),
                    mesh_candidates: settings.mesh_candidates(&urls.http),
                    ..gateway.settings(realm, identity, islands, &urls.http, &urls.ws)
                },
                bus.clone(),
                verifier.clone(),
                fixed_room.clone().map(|name| FixedRoom { name, node, minter: minter() }),
                Arc::new(process::usage),
            )
        });
        let rooms_role = runs(Role::Rooms).then(|| {
            let nodes = rooms.settings(fixed_room.as_ref(), gateway.tell_connected, &urls.ws);
            Rooms::new(nodes, ws_room::Verifier::new(secrets.iter().map(String::as_bytes)), verifier)
        });
        let stats_role =
            runs(Role::Stats).then(|| Stats::new(stats.settings(realm, gateway, islands, &urls.http)));
        let director = runs(Role::Director).then(|| {
            let rules = rules.as_ref().map(|(_, rules)| rules.clone()).unwrap_or_default();
            let nodes = settings.configured_nodes(&urls.http);
            let settings = islands.director(client, realm, stats.positions.0, nodes, rules);
            Director::new(settings, bus.clone(), minter())
        });
        let director = director.transpose()?;
        let leadership = director.as_ref().map(Director::leadership);
        let livekit = director.as_ref().map(Director::livekit).unwrap_or_default();
        let app = Self {
            bus,
            gateway: gateway_role,
            rooms: rooms_role,
            stats: stats_role,
            livekit,
            leadership,
            draining: Arc::default(),
        };
        Ok((app, director))
    }

    /// Runs the roles, each in a task of its own, and returns when the first of them ends; the others are then
    /// aborted.
    pub(super) async fn run(self, director: Option<Director>, metrics: PrometheusHandle) -> Result<()> {
        let Self { bus, gateway, rooms, stats, .. } = self;
        // Each role subscribes here, before any of them runs and publishes. The director subscribed when it was built.
        let gateway = gateway.map(|gateway| {
            let inbound = gateway.subscribe();
            async move {
                gateway.run(inbound).await;
                Ok(())
            }
        });
        let stats = stats.map(|stats| {
            let (subscription, bus) = (stats.subscribe(&bus), bus.clone());
            async move {
                stats.run(bus, subscription).await;
                Ok(())
            }
        });
        let rooms = rooms.map(|rooms| {
            let inbound = rooms.subscribe(&bus);
            async move { Ok(rooms.run(bus, inbound).await?) }
        });
        let upkeep = async move {
            let mut ticks = time::interval(UPKEEP_INTERVAL);
            loop {
                ticks.tick().await;
                metrics.run_upkeep();
            }
        };
        // Each role runs in a task of its own, so that a busy role does not delay the others.
        let mut tasks = JoinSet::<Result<()>>::new();
        gateway.map(|gateway| tasks.spawn(gateway));
        stats.map(|stats| tasks.spawn(stats));
        rooms.map(|rooms| tasks.spawn(rooms));
        director.map(|director| tasks.spawn(run_on_director_thread(director)));
        tasks.spawn(upkeep);
        tasks.join_next().await.context("no task runs")??
    }

    /// Why the process is not ready, if it is not: it drains; its gateway has received no announcement
    /// of a director, so that a client that signs in gets no island; the bus is disconnected; its
    /// director knows of no leader; or its room nodes have not announced themselves.
    pub(crate) fn not_ready_reason(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.gateway.as_ref().is_some_and(|gateway| !gateway.is_ready()) {
            Some("no director is known")
        } else if self.gateway.is_none() && self.bus.is_disconnected() {
            // A gateway reports this later, as a missing director: until then the assignments of its
            // sessions are valid.
            Some("the bus is disconnected")
        } else if self.gateway.is_none() && self.leadership.as_ref().is_some_and(|known| !known.is_known()) {
            // With a gateway in the process, the announcements of directors decide, as above.
            Some("no director is known to lead")
        } else if self.rooms.as_ref().is_some_and(|rooms| !rooms.have_announced()) {
            Some("its room nodes have not announced themselves")
        } else {
            None
        }
    }

    /// Sets the gauges to their current values.
    pub(crate) fn update_gauges(&self) {
        self.gateway.iter().for_each(Gateway::observe);
        self.rooms.iter().for_each(Rooms::observe);
    }

    pub(super) fn sockets_count(&self) -> usize {
        let gateway = self.gateway.as_ref().map_or(0, Gateway::sockets_count);
        gateway + self.rooms.as_ref().map_or(0, Rooms::sockets_count)
    }

    /// Closes all sockets, and waits until they are closed. Members of rooms first get the chance to
    /// follow their islands to other nodes, if there are any; after `move_timeout` their sockets are
    /// closed, too.
    pub(super) async fn drain(&self, move_timeout: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        self.gateway.iter().for_each(Gateway::drain);
        self.stats.iter().for_each(Stats::drain);
        if let Some(rooms) = &self.rooms {
            if self.bus.is_shared() {
                rooms.stop_accepting(&self.bus);
                let empty = async {
                    while rooms.sockets_count() > 0 {
                        time::sleep(DRAIN_POLL).await;
                    }
                };
                let _ = time::timeout(move_timeout, empty).await;
            }
            rooms.drain(&self.bus);
        }
        while self.sockets_count() > 0 {
            time::sleep(DRAIN_POLL).await;
        }
        // A reader of the live feed receives its end; the timeout covers a reader that does not read.
        let ended = async {
            while self.stats.as_ref().is_some_and(|stats| stats.feed_readers_count() > 0) {
                time::sleep(DRAIN_POLL).await;
            }
        };
        let _ = time::timeout(FEED_DRAIN_TIMEOUT, ended).await;
        // Sends the queued disconnects.
        self.bus.flush().await;
    }
}

/// Runs the director on a thread and a timer that nothing else uses, so that its clock is exact under
/// any load. The main runtime publishes its messages.
async fn run_on_director_thread(director: Director) -> Result<()> {
    let main_runtime = tokio::runtime::Handle::current();
    let (ended, end) = oneshot::channel();
    let direct = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(director.run(main_runtime));
        Ok(())
    };
    // The thread ends with the process.
    std::thread::Builder::new().name("director".to_owned()).spawn(move || ended.send(direct()))?;
    end.await?
}
