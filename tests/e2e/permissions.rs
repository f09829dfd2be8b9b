//! The shipped NATS configuration: the subjects that each role may publish and receive, tried on a real
//! server.

mod subjects;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use protocol::Subject;
use tempfile::TempDir;
use test_support::{
    Cluster, NatsServer, eventually, wallet,
    wire::{enter_room, next_update, sign_in},
};

use subjects::{pattern, permissions, subjects};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/nats.conf");
const USERS: [&str; 5] = ["gateway", "rooms", "director", "stats", "scene-server"];

/// Starts a server with exactly the shipped configuration. Returns it with its storage folder.
fn restricted_server() -> (NatsServer, TempDir) {
    let store = tempfile::tempdir().unwrap();
    let passwords =
        USERS.map(|user| (format!("ATOLL_NATS_{}", user.replace('-', "_").to_uppercase()), password(user)));
    let mut environment = vec![("ATOLL_NATS_STORE", store.path().to_str().unwrap())];
    environment.extend(passwords.iter().map(|(key, value)| (&**key, &**value)));
    (NatsServer::start_in(&environment, &["-c", CONFIGURATION]), store)
}

fn password(user: &str) -> String {
    format!("the-password-of-{user}")
}

/// A client that signed in with the name and password of a role, and may try anything.
struct RoleClient {
    user: &'static str,
    client: Client,
    /// The errors of the server.
    refused: Arc<Mutex<BTreeSet<String>>>,
    /// The received messages: subject and user that published it.
    received: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl RoleClient {
    async fn connect(server: &NatsServer, user: &'static str) -> Self {
        let (refused, received) = <(Arc<Mutex<BTreeSet<String>>>, _)>::default();
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
        Self { user, client, refused, received }
    }

    async fn subscribe(&self, pattern: &str) {
        let mut messages = self.client.subscribe(pattern.to_owned()).await.unwrap();
        let received = self.received.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let user = String::from_utf8(message.payload.to_vec()).unwrap_or_default();
                received.lock().unwrap().insert((message.subject.to_string(), user));
            }
        });
    }

    async fn publish(&self, subject: &str) {
        self.client.publish(subject.to_owned(), self.user.into()).await.unwrap();
    }

    /// Whether the server reported that it refuses this.
    fn was_refused(&self, action: &str, subject: &str) -> bool {
        let expected = format!("Permissions Violation for {action} to \"{subject}\"");
        self.refused.lock().unwrap().iter().any(|error| error.contains(&expected))
    }

    /// Tries to subscribe to a subject, or to publish it.
    async fn attempt(&self, action: &str, subject: &str) {
        match action {
            "Publish" => self.publish(subject).await,
            _ => self.subscribe(subject).await,
        }
        self.client.flush().await.unwrap();
    }

    /// The same, and waits until the server has reported the refusal.
    async fn assert_refused(&self, action: &str, subject: &str) {
        self.attempt(action, subject).await;
        let refused = async || self.was_refused(action, subject);
        eventually(&format!("{} is refused: {action} {subject}", self.user), refused).await;
    }

    /// Asserts that the server refused none of these. Called at the end, when all has been tried: the
    /// server reports refusals in the order of the requests, so any report about these precedes the
    /// last refusal.
    async fn assert_never_refused(&self, allowed: &[(&str, String)]) {
        self.assert_refused("Publish", "atoll.the.end").await;
        for (action, subject) in allowed {
            assert!(!self.was_refused(action, subject), "{} is refused: {action} {subject}", self.user);
        }
    }
}

/// Prints a line of the table of permissions.
fn print_line(subject: &str, cells: [&str; 5]) {
    println!("{subject:<70} {}", cells.map(|cell| format!("{cell:<18}")).join(""));
}

/// The permitted attempts of each user: action and subject.
type Allowed = [Vec<(&'static str, String)>; 5];

/// Each user tries to subscribe to each subject, and to its pattern.
async fn try_subscriptions(clients: &[RoleClient], subjects: &[Subject], allowed: &mut Allowed) {
    for subject in subjects {
        let (_, receivers, _) = permissions(subject);
        for (client, allowed) in clients.iter().zip(&mut *allowed) {
            for pattern in [pattern(subject), &subject.to_string()] {
                match receivers.contains(&client.user) {
                    true => {
                        client.attempt("Subscription", pattern).await;
                        allowed.push(("Subscription", pattern.to_owned()));
                    }
                    false => client.assert_refused("Subscription", pattern).await,
                }
            }
        }
    }
}

/// Each user tries to publish each subject. Prints the table.
async fn try_publications(clients: &[RoleClient], subjects: &[Subject], allowed: &mut Allowed) {
    print_line("may", USERS);
    for subject in subjects {
        let text = subject.to_string();
        let (publishers, receivers, _) = permissions(subject);
        for (client, allowed) in clients.iter().zip(&mut *allowed) {
            match publishers.contains(&client.user) {
                true => {
                    client.attempt("Publish", &text).await;
                    allowed.push(("Publish", text.clone()));
                }
                false => client.assert_refused("Publish", &text).await,
            }
        }
        let may = |user| match (publishers.contains(&user), receivers.contains(&user)) {
            (true, true) => "publish, receive",
            (true, false) => "publish",
            (false, true) => "receive",
            (false, false) => "-",
        };
        print_line(&text, USERS.map(may));
    }
}

/// The messages that this user must receive after all publications: subject and publisher.
fn expected_messages(subjects: &[Subject], listener: &str) -> BTreeSet<(String, String)> {
    let received = subjects.iter().filter(|subject| permissions(subject).1.contains(&listener));
    let published = received.flat_map(|subject| {
        permissions(subject).0.iter().map(|user| (subject.to_string(), (*user).to_owned()))
    });
    published.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_has_exactly_its_permissions() {
    let (server, _store) = restricted_server();
    let mut clients = Vec::new();
    for user in USERS {
        clients.push(RoleClient::connect(&server, user).await);
    }
    let subjects = subjects();
    assert_eq!(subjects.len(), subjects.iter().collect::<std::collections::HashSet<_>>().len());
    let mut allowed = Allowed::default();
    try_subscriptions(&clients, &subjects, &mut allowed).await;
    try_publications(&clients, &subjects, &mut allowed).await;
    for (client, allowed) in clients.iter().zip(&allowed) {
        client.assert_never_refused(allowed).await;
    }
    // No user received a refused message, and every permitted one reached all users that may receive
    // it.
    for client in &clients {
        let all = expected_messages(&subjects, client.user);
        eventually(&format!("{} receives {all:?}", client.user), async || {
            client.received.lock().unwrap().is_superset(&all)
        })
        .await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for client in &clients {
        let all = expected_messages(&subjects, client.user);
        assert_eq!(*client.received.lock().unwrap(), all, "{}", client.user);
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
    let forbidden = [
        "$JS.API.STREAM.DELETE.KV_atoll-leases",
        "$JS.API.STREAM.PURGE.KV_atoll-leases",
        "$JS.API.STREAM.CREATE.another",
        "$KV.another.key",
        "$SYS.REQ.SERVER.PING",
        "engine.peer.0x00.island_changed",
        "_INBOX.other",
        "atoll.no.such",
    ];
    for user in USERS {
        let client = RoleClient::connect(&server, user).await;
        for pattern in wide {
            client.assert_refused("Subscription", pattern).await;
        }
        for subject in forbidden {
            client.assert_refused("Publish", subject).await;
        }
        let directors = lease.map(|subject| ("Publish", subject.to_owned())).into_iter();
        let directors: Vec<_> = directors.chain([("Subscription", "_INBOX.>".to_owned())]).collect();
        for (action, subject) in &directors {
            match user {
                "director" => client.attempt(action, subject).await,
                _ => client.assert_refused(action, subject).await,
            }
        }
        if user == "director" {
            client.assert_never_refused(&directors).await;
        }
        println!("{user}: refused {} wide patterns and {} subjects", wide.len(), forbidden.len());
    }
    // A connection without valid credentials is refused.
    assert!(async_nats::connect(server.url()).await.is_err());
    let wrong = ConnectOptions::with_user_and_password("gateway".to_owned(), password("stats"));
    assert!(wrong.connect(server.url()).await.is_err());
}

/// Asserts that no process was refused anything.
async fn assert_nothing_refused(cluster: &Cluster) {
    for name in cluster.running() {
        for action in ["publish", "subscribe", "other"] {
            let metric = format!("atoll_bus_refused_total{{what=\"{action}\"}}");
            assert_eq!(cluster[name].count(&metric).await, 0.0, "{name} {action}");
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
    // The leading director is killed, and the other one takes over.
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
    // When they part, one of them keeps the island, and the other one is assigned a new island.
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
    for action in ["publish", "subscribe"] {
        let metric = format!("atoll_bus_refused_total{{what=\"{action}\"}}");
        eventually(action, async || cluster["rooms-1"].count(&metric).await >= 1.0).await;
    }
    cluster.terminate("rooms-1");
    let (_, log) = cluster.ended("rooms-1").await;
    assert!(log.contains("the NATS server refuses a publication or a subscription"), "{log}");
    for subject in ["atoll.island.*.ended", "atoll.transport.rooms-1.announce"] {
        assert!(log.contains(subject), "{subject}: {log}");
    }
}
