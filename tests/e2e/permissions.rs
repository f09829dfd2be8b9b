//! The NATS configuration that is shipped: what each role may say and hear, tried on a real server.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use protocol::{Address, Subject, subject};
use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    realm_process::{eventually, wallet},
    server::Server,
    wire::{enter_room, next_update, sign_in},
};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/nats.conf");
const USERS: [&str; 5] = ["gateway", "rooms", "director", "stats", "scene-server"];

/// A server with exactly the shipped configuration, and where it keeps what it has.
fn restricted_server() -> (Server, TempDir) {
    let store = tempfile::tempdir().unwrap();
    let passwords =
        USERS.map(|user| (format!("ATOLL_NATS_{}", user.replace('-', "_").to_uppercase()), password(user)));
    let mut environment = vec![("ATOLL_NATS_STORE", store.path().to_str().unwrap())];
    environment.extend(passwords.iter().map(|(key, value)| (&**key, &**value)));
    (Server::start_in(&environment, &["-c", CONFIGURATION]), store)
}

fn password(user: &str) -> String {
    format!("the-password-of-{user}")
}

/// Who may say it, who may hear it, and the subject that comes after it here. A new subject does not
/// compile until it has a place.
fn permissions(subject: &Subject) -> (&'static [&'static str], &'static [&'static str], Option<Subject>) {
    let peer = Address::new([7; 20]);
    let island = || "I1".parse().unwrap();
    match subject {
        Subject::PeerConnect(_) => {
            (&["gateway"], &["gateway", "director", "stats"], Some(Subject::PeerHeartbeat(peer)))
        }
        Subject::PeerHeartbeat(_) => {
            (&["gateway"], &["gateway", "director", "stats"], Some(Subject::PeerDisconnect(peer)))
        }
        Subject::PeerDisconnect(_) => {
            (&["gateway"], &["gateway", "director", "stats"], Some(Subject::PeerIslandChanged(peer)))
        }
        Subject::PeerIslandChanged(_) => {
            (&["director"], &["gateway", "director", "stats"], Some(Subject::PeerClusterChange(peer)))
        }
        // The service that decides who is together would, with a user of its own.
        Subject::PeerClusterChange(_) => (&[], &["director"], Some(Subject::IslandPeerJoin(island()))),
        Subject::IslandPeerJoin(_) => {
            (&["director"], &["gateway", "rooms", "stats"], Some(Subject::IslandPeerLeft(island())))
        }
        Subject::IslandPeerLeft(_) => {
            let next = Subject::PeerTopic(peer, "plaza.chat".parse().unwrap());
            (&["director"], &["gateway", "stats"], Some(next))
        }
        Subject::PeerTopic(..) => {
            let next = Subject::SystemTopic("news.today".parse().unwrap());
            (&["gateway"], &["gateway"], Some(next))
        }
        // Servers of the realm's owners would, with a user of their own.
        Subject::SystemTopic(_) => {
            let next = Subject::SceneTopic("messageBus.scene.bafy-1.door.open".parse().unwrap());
            (&[], &["gateway"], Some(next))
        }
        Subject::SceneTopic(_) => {
            let both = &["gateway", "scene-server"];
            (both, both, Some(Subject::EngineIslands))
        }
        Subject::EngineIslands => (&["director"], &["stats"], Some(Subject::EngineDiscovery)),
        Subject::EngineDiscovery => {
            let next = Subject::TransportAnnounce("rooms-1".parse().unwrap());
            (&["director"], &["gateway", "rooms", "director", "stats"], Some(next))
        }
        Subject::TransportAnnounce(_) => {
            (&["rooms"], &["gateway", "rooms", "director"], Some(Subject::MembershipEnded(island())))
        }
        Subject::MembershipEnded(_) => (&["director"], &["rooms", "director"], Some(Subject::PeersWanted)),
        Subject::PeersWanted => (&["gateway", "director", "stats"], &["gateway", "director"], None),
    }
}

/// One subject of each kind.
fn subjects() -> Vec<Subject> {
    let first = Subject::PeerConnect(Address::new([7; 20]));
    std::iter::successors(Some(first), |subject| permissions(subject).2).collect()
}

/// The pattern by which roles hear of it.
fn pattern(subject: &Subject) -> &'static str {
    let patterns = [
        subject::PEER_CONNECTS,
        subject::PEER_HEARTBEATS,
        subject::PEER_DISCONNECTS,
        subject::PEER_ISLAND_CHANGES,
        subject::PEER_CLUSTER_CHANGES,
        subject::ISLAND_PEER_JOINS,
        subject::ISLAND_PEER_LEAVES,
        subject::TOPICS,
        subject::SCENE_TOPICS,
        subject::ENGINE_ISLANDS,
        subject::ENGINE_DISCOVERY,
        subject::TRANSPORT_ANNOUNCEMENTS,
        subject::MEMBERSHIP_ENDS,
        subject::PEERS_WANTED,
    ];
    let text = subject.to_string();
    patterns.into_iter().find(|pattern| subject::matches(pattern, &text)).expect("roles hear of it")
}

/// Somebody who signed in with the name and password of a role, and does what he likes.
struct RoleClient {
    user: &'static str,
    client: Client,
    /// What the server refused him.
    refused: Arc<Mutex<BTreeSet<String>>>,
    /// What he heard: subject and who said it.
    received: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl RoleClient {
    async fn connect(server: &Server, user: &'static str) -> Self {
        let (refused, heard) = <(Arc<Mutex<BTreeSet<String>>>, _)>::default();
        let refusals = refused.clone();
        let client = ConnectOptions::with_user_and_password(user.to_owned(), password(user))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    refusals.lock().unwrap().insert(error.to_string());
                }
                std::future::ready(())
            })
            .connect(server.url())
            .await
            .unwrap();
        Self { user, client, refused, received: heard }
    }

    async fn subscribe(&self, pattern: &str) {
        let mut messages = self.client.subscribe(pattern.to_owned()).await.unwrap();
        let heard = self.received.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let who = String::from_utf8(message.payload.to_vec()).unwrap_or_default();
                heard.lock().unwrap().insert((message.subject.to_string(), who));
            }
        });
    }

    async fn publish(&self, subject: &str) {
        self.client.publish(subject.to_owned(), self.user.into()).await.unwrap();
    }

    /// Whether the server said that it refuses this.
    fn was_refused(&self, what: &str, subject: &str) -> bool {
        let told = format!("Permissions Violation for {what} to \"{subject}\"");
        self.refused.lock().unwrap().iter().any(|error| error.contains(&told))
    }

    /// Tries to hear of something, or to say it.
    async fn attempt(&self, what: &str, subject: &str) {
        match what {
            "Publish" => self.publish(subject).await,
            _ => self.subscribe(subject).await,
        }
        self.client.flush().await.unwrap();
    }

    /// The same, and waits until the server has said that it refuses this.
    async fn assert_refused(&self, what: &str, subject: &str) {
        self.attempt(what, subject).await;
        let refused = async || self.was_refused(what, subject);
        eventually(&format!("{} is refused: {what} {subject}", self.user), refused).await;
    }

    /// The server refused none of these: what and subject. Asserted in the end, when all has been
    /// tried: the server says what it refuses in the order of what it was asked, so that whatever it
    /// had to say of these came before the last refusal.
    async fn assert_never_refused(&self, allowed: &[(&str, String)]) {
        self.assert_refused("Publish", "atoll.the.end").await;
        for (what, subject) in allowed {
            assert!(!self.was_refused(what, subject), "{} is refused: {what} {subject}", self.user);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_has_exactly_its_permissions() {
    let (server, _store) = restricted_server();
    let mut intruders = Vec::new();
    for user in USERS {
        intruders.push(RoleClient::connect(&server, user).await);
    }
    let subjects = subjects();
    assert_eq!(subjects.len(), subjects.iter().collect::<std::collections::HashSet<_>>().len());
    let line = |subject: &str, cells: [&str; 5]| {
        println!("{subject:<70} {}", cells.map(|cell| format!("{cell:<13}")).join(""));
    };
    line("may", USERS);
    let mut allowed = USERS.map(|_| Vec::new());
    for subject in &subjects {
        let (_, may_hear, _) = permissions(subject);
        for (intruder, allowed) in intruders.iter().zip(&mut allowed) {
            for pattern in [pattern(subject), &subject.to_string()] {
                match may_hear.contains(&intruder.user) {
                    true => {
                        intruder.attempt("Subscription", pattern).await;
                        allowed.push(("Subscription", pattern.to_owned()));
                    }
                    false => intruder.assert_refused("Subscription", pattern).await,
                }
            }
        }
    }
    for subject in &subjects {
        let text = subject.to_string();
        let (may_say, may_hear, _) = permissions(subject);
        for (intruder, allowed) in intruders.iter().zip(&mut allowed) {
            match may_say.contains(&intruder.user) {
                true => {
                    intruder.attempt("Publish", &text).await;
                    allowed.push(("Publish", text.clone()));
                }
                false => intruder.assert_refused("Publish", &text).await,
            }
        }
        let may = |user| match (may_say.contains(&user), may_hear.contains(&user)) {
            (true, true) => "say, hear",
            (true, false) => "say",
            (false, true) => "hear",
            (false, false) => "-",
        };
        line(&text, USERS.map(may));
    }
    for (intruder, allowed) in intruders.iter().zip(&allowed) {
        intruder.assert_never_refused(allowed).await;
    }
    // What was refused came to nobody, and what was not, to everybody who may hear it.
    let expected = |listener: &str| -> BTreeSet<(String, String)> {
        let said = subjects.iter().flat_map(|subject| {
            let (may_say, may_hear, _) = permissions(subject);
            let hears = may_hear.contains(&listener);
            may_say.iter().filter(move |_| hears).map(|user| (subject.to_string(), (*user).to_owned()))
        });
        said.collect()
    };
    for intruder in &intruders {
        let all = expected(intruder.user);
        eventually(&format!("{} hears {all:?}", intruder.user), async || {
            intruder.received.lock().unwrap().is_superset(&all)
        })
        .await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for intruder in &intruders {
        assert_eq!(*intruder.received.lock().unwrap(), expected(intruder.user), "{}", intruder.user);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_patterns_and_the_lease_are_restricted() {
    let (server, _store) = restricted_server();
    let wide =
        [">", "*.>", "peer.>", "peer.*.*", "island.>", "engine.>", "atoll.>", "$JS.>", "$KV.>", "$SYS.>"];
    let lease = [
        "$JS.API.STREAM.CREATE.KV_atoll-leases",
        "$JS.API.STREAM.UPDATE.KV_atoll-leases",
        "$JS.API.STREAM.INFO.KV_atoll-leases",
        "$JS.API.STREAM.MSG.GET.KV_atoll-leases",
        "$JS.API.DIRECT.GET.KV_atoll-leases.$KV.atoll-leases.director",
        "$KV.atoll-leases.director",
    ];
    let nobodys = [
        "$JS.API.STREAM.DELETE.KV_atoll-leases",
        "$JS.API.STREAM.PURGE.KV_atoll-leases",
        "$JS.API.STREAM.CREATE.another",
        "$KV.another.key",
        "$SYS.REQ.SERVER.PING",
        "engine.peer.0x00.island_changed",
        "_INBOX.anybody",
        "atoll.unheard.of",
    ];
    for user in USERS {
        let intruder = RoleClient::connect(&server, user).await;
        for pattern in wide {
            intruder.assert_refused("Subscription", pattern).await;
        }
        for subject in nobodys {
            intruder.assert_refused("Publish", subject).await;
        }
        let directors = lease.map(|subject| ("Publish", subject.to_owned())).into_iter();
        let directors: Vec<_> = directors.chain([("Subscription", "_INBOX.>".to_owned())]).collect();
        for (what, subject) in &directors {
            match user {
                "director" => intruder.attempt(what, subject).await,
                _ => intruder.assert_refused(what, subject).await,
            }
        }
        if user == "director" {
            intruder.assert_never_refused(&directors).await;
        }
        println!("{user}: refused {} wide patterns and {} subjects", wide.len(), nobodys.len());
    }
    // And nobody comes in without a name.
    assert!(async_nats::connect(server.url()).await.is_err());
    let wrong = ConnectOptions::with_user_and_password("gateway".to_owned(), password("stats"));
    assert!(wrong.connect(server.url()).await.is_err());
}

/// No process does what its user may not do.
async fn assert_nothing_refused(cluster: &Cluster) {
    for name in cluster.running() {
        for what in ["publish", "subscribe", "other"] {
            let metric = format!("atoll_bus_refused_total{{what=\"{what}\"}}");
            assert_eq!(cluster[name].count(&metric).await, 0.0, "{name} {what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn realm_runs_with_the_shipped_permissions() {
    let (server, _store) = restricted_server();
    let mut cluster = Cluster::on(server, &[]);
    for (name, role) in [
        ("gateway-a", "gateway"),
        ("gateway-b", "gateway"),
        ("rooms-1", "rooms"),
        ("director-a", "director"),
        ("director-b", "director"),
        ("stats", "stats"),
    ] {
        cluster.run(name, role, &[("BUS__USER", role), ("BUS__PASSWORD", &password(role))]);
    }
    cluster.ready().await;
    assert_nothing_refused(&cluster).await;
    let (one, two) = (wallet(), wallet());
    let mut first = sign_in(&cluster["gateway-a"], &one).await;
    let mut second = sign_in(&cluster["gateway-b"], &two).await;
    first.heartbeat(0.0).await;
    let alone = first.island_changed().await;
    second.heartbeat(10.0).await;
    let together = second.island_changed().await;
    assert_eq!(together.island_id, alone.island_id);
    let mut rooms = Vec::new();
    for (wallet, change) in [(&one, &alone), (&two, &together)] {
        rooms.push(enter_room(wallet, change).await.0);
    }
    rooms[1].update(b"hello".to_vec(), false).await;
    assert_eq!(next_update(&mut rooms[0]).await, b"hello");
    eventually("both are shown together", async || {
        let islands = cluster["stats"].json("/islands").await["islands"].clone();
        islands[0]["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })
    .await;
    // The director that leads dies, and the other one goes on.
    let mut leader = "";
    eventually("one director leads", async || {
        for name in ["director-a", "director-b"] {
            if cluster[name].count("atoll_director_leads").await == 1.0 {
                leader = name;
            }
        }
        !leader.is_empty()
    })
    .await;
    cluster.kill(leader);
    let other = if leader == "director-a" { "director-b" } else { "director-a" };
    eventually("the other leads", async || cluster[other].count("atoll_director_leads").await == 1.0).await;
    // When they part, one of them keeps the island, and the other is told of a new one.
    second.heartbeat(5_000.0).await;
    let apart = tokio::select! {
        change = first.island_changed() => change,
        change = second.island_changed() => change,
    };
    assert_eq!(apart.peers.len(), 1);
    assert_ne!(apart.island_id, alone.island_id);
    assert_nothing_refused(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_with_the_wrong_user_reports_refusals() {
    let (server, _store) = restricted_server();
    let mut cluster = Cluster::on(server, &[]);
    cluster.run("rooms-1", "rooms", &[("BUS__USER", "stats"), ("BUS__PASSWORD", &password("stats"))]);
    for what in ["publish", "subscribe"] {
        let metric = format!("atoll_bus_refused_total{{what=\"{what}\"}}");
        eventually(what, async || cluster["rooms-1"].count(&metric).await >= 1.0).await;
    }
    cluster.terminate("rooms-1");
    let (_, log) = cluster.ended("rooms-1").await;
    assert!(log.contains("the NATS server refuses what we say or want to hear"), "{log}");
    for subject in ["atoll.island.*.ended", "atoll.transport.rooms-1.announce"] {
        assert!(log.contains(subject), "{subject}: {log}");
    }
}
