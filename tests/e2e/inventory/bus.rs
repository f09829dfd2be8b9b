//! The traffic of a realm on a NATS server: subjects, headers, subscriptions, and the lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Message, jetstream};
use futures_util::StreamExt;
use protocol::bff::{PublishToTopicRequest, PublishToTopicResult, SubscriptionRequest};
use serde_json::Value;
use test_support::{
    Cluster, NatsServer, eventually, free_address, golden, rpc_caller, wallet,
    wire::{enter_room, sign_in, sign_in_with, sign_in_with_resume_secret},
    within,
};

use super::check_eventually;

/// The largest payload of this NATS server: larger messages are published in parts.
const MAX_PAYLOAD: usize = 4_096;
/// The processes, by name, with their roles.
const PROCESSES: [(&str, &str); 6] = [
    ("director-1", "director"),
    ("director-2", "director"),
    ("rooms-1", "rooms"),
    ("gateway-1", "gateway"),
    ("gateway-2", "gateway"),
    ("stats-1", "stats"),
];

/// A cluster, and the record of its traffic on the bus.
struct Observed {
    cluster: Cluster,
    /// The monitoring endpoint of the NATS server.
    monitor: String,
    /// Roles by the number of their process's connection.
    roles: BTreeMap<u64, &'static str>,
    traffic: Arc<Mutex<Traffic>>,
    client: async_nats::Client,
    _folder: tempfile::TempDir,
}

/// Normalised headers and payloads, by normalised subject.
type Traffic = BTreeMap<String, BTreeSet<String>>;

impl Observed {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("nats.conf");
        fs::write(&configuration, format!("max_payload: {MAX_PAYLOAD}\n")).unwrap();
        let port = free_address().port().to_string();
        let store = folder.path().join("store");
        let paths = [&configuration, &store].map(|path| path.to_str().unwrap());
        let flags = ["-c", paths[0], "--jetstream", "--store_dir", paths[1], "-m", &port];
        let nats = NatsServer::start_with(&flags);
        // The HTTP client needs a provider, although it reads no TLS here; the first test sets it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut all = client.subscribe(">").await.unwrap();
        client.flush().await.unwrap();
        let traffic = Arc::<Mutex<Traffic>>::default();
        let record = traffic.clone();
        tokio::spawn(async move {
            while let Some(message) = all.next().await {
                observe(&mut record.lock().unwrap(), &message);
            }
        });
        let monitor = format!("http://127.0.0.1:{port}/connz?subs=1&limit=100");
        let mut observed = Self {
            cluster: Cluster::on(nats, settings),
            monitor,
            roles: BTreeMap::new(),
            traffic,
            client,
            _folder: folder,
        };
        for (name, role) in PROCESSES {
            let before: Vec<u64> = observed.connections().await.into_keys().collect();
            observed.cluster.run(name, role, &[]);
            let mut added = None;
            eventually("the process is connected to the bus", async || {
                added = observed.connections().await.into_keys().find(|number| !before.contains(number));
                added.is_some()
            })
            .await;
            observed.roles.insert(added.unwrap(), role);
        }
        within(Duration::from_secs(30), "all processes are ready", async || {
            for name in ["gateway-1", "gateway-2", "stats-1", "rooms-1"] {
                if observed.cluster[name].get("/health/ready").await.status() != 200 {
                    return false;
                }
            }
            true
        })
        .await;
        observed
    }

    /// The subscriptions of each connection, by its number.
    async fn connections(&self) -> BTreeMap<u64, Vec<String>> {
        let document: Value = reqwest::get(&self.monitor).await.unwrap().json().await.unwrap();
        let connections = document["connections"].as_array().cloned().unwrap_or_default();
        let subscriptions = |connection: &Value| {
            let list = connection["subscriptions_list"].as_array().cloned().unwrap_or_default();
            list.iter().map(|subject| subject.as_str().unwrap().to_owned()).collect()
        };
        connections.iter().map(|one| (one["cid"].as_u64().unwrap(), subscriptions(one))).collect()
    }

    /// The observed subjects and subscriptions, as text.
    async fn describe(&self) -> String {
        let mut text = "# published: subjects, with their headers\n".to_owned();
        for (subject, lines) in &*self.traffic.lock().unwrap() {
            let _ = writeln!(text, "{subject}");
            lines.iter().for_each(|line| text += &format!("  {line}\n"));
        }
        let mut by_role: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (number, subjects) in self.connections().await {
            if let Some(&role) = self.roles.get(&number) {
                by_role
                    .entry(role)
                    .or_default()
                    .extend(subjects.iter().map(|subject| normal_subject(subject)));
            }
        }
        text += "\n# subscribed, by role\n";
        for (role, subjects) in by_role {
            subjects.iter().for_each(|subject| text += &format!("{role}: {subject}\n"));
        }
        text
    }

    /// The bucket in which the director that leads has its key.
    async fn describe_lease(&self) -> String {
        let jetstream = jetstream::new(self.client.clone());
        let names: Vec<String> = jetstream.stream_names().map(|name| name.unwrap()).collect().await;
        let mut text = String::new();
        for name in names {
            let stream = jetstream.get_stream(&name).await.unwrap();
            let config = &stream.cached_info().config;
            let _ = writeln!(text, "stream {name}");
            let _ = writeln!(text, "  subjects: {}", config.subjects.join(" "));
            let _ = writeln!(text, "  max_age: {:?}", config.max_age);
            let _ = writeln!(text, "  max_messages_per_subject: {}", config.max_messages_per_subject);
            let _ = writeln!(text, "  storage: {:?}, discard: {:?}", config.storage, config.discard);
            let _ = writeln!(
                text,
                "  allow_rollup: {}, allow_direct: {}",
                config.allow_rollup, config.allow_direct
            );
            let _ =
                writeln!(text, "  deny_delete: {}, replicas: {}", config.deny_delete, config.num_replicas);
        }
        text
    }
}

/// Adds a message.
fn observe(traffic: &mut Traffic, message: &Message) {
    let subject = normal_subject(&message.subject);
    // Replies, and subjects of NATS itself.
    if subject.starts_with("_INBOX.") || subject.starts_with("$JS.") {
        return;
    }
    let lines = traffic.entry(subject.clone()).or_default();
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    for (name, values) in headers {
        let name: &str = name.as_ref();
        lines.extend(values.iter().map(|value| format!("{name}: {}", normal_value(value.as_str()))));
    }
    if subject.starts_with("$KV.") {
        let value = String::from_utf8_lossy(&message.payload);
        lines
            .insert(format!("payload: {}", value.split(' ').map(normal_value).collect::<Vec<_>>().join(" ")));
    }
}

/// A subject with placeholders for ids.
fn normal_subject(subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    if tokens[0] == "_INBOX" {
        return "_INBOX.(id)".to_owned();
    }
    let normal = |(index, token): (usize, &&str)| {
        let before = if index > 0 { tokens[index - 1] } else { "" };
        let is_process = PROCESSES.iter().any(|(name, _)| name == token);
        match token {
            _ if is_address(token) => "(address)".to_owned(),
            _ if is_process => "(node)".to_owned(),
            token if before == "island" && *token != "*" => "(island)".to_owned(),
            token => (*token).to_owned(),
        }
    };
    tokens.iter().enumerate().map(normal).collect::<Vec<_>>().join(".")
}

fn is_address(text: &str) -> bool {
    text.strip_prefix("0x").is_some_and(|hex| is_hex(hex, 40))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The value of a header, with placeholders for ids and numbers.
fn normal_value(value: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let is_ulid = value.len() == 26
        && value.bytes().all(|letter| letter.is_ascii_digit() || letter.is_ascii_uppercase());
    let is_process = PROCESSES.iter().any(|(name, _)| *name == value);
    match value {
        _ if is_address(value) => "(address)".to_owned(),
        _ if is_ulid => "(ULID)".to_owned(),
        _ if is_number(value) => "(number)".to_owned(),
        _ if is_hex(value, 16) => "(16 hex digits)".to_owned(),
        _ if is_hex(value, 32) => "(32 hex digits)".to_owned(),
        _ if is_process => "(node)".to_owned(),
        _ => match (value.split_once('.'), value.split_once('/')) {
            (Some((publisher, number)), _) if is_hex(publisher, 16) && is_number(number) => {
                "(16 hex digits).(number)".to_owned()
            }
            (_, Some((number, of))) if is_number(number) && is_number(of) => "(number)/(number)".to_owned(),
            _ => value.to_owned(),
        },
    }
}

/// Causes a message on every subject that processes publish to.
async fn drive(observed: &Observed) {
    let (one, two) = (&observed.cluster["gateway-1"], &observed.cluster["gateway-2"]);
    // Two peers meet, and part.
    let (alice, bob) = (wallet(), wallet());
    let mut first = sign_in_with(one, &alice, &["livekit", "ws-room"]).await;
    first.heartbeat(0.0).await;
    let island = first.island_changed().await;
    let _room = enter_room(&alice, &island).await;
    let mut second = sign_in(two, &bob).await;
    second.heartbeat(5.0).await;
    second.island_changed().await;
    second.heartbeat(900.0).await;
    // Either half may keep the island.
    tokio::select! {
        _ = first.island_changed() => {}
        _ = second.island_changed() => {}
    }
    // The same wallet signs in at another gateway; then a session is resumed there.
    let mut newer = sign_in(two, &alice).await;
    newer.heartbeat(0.0).await;
    first.closed().await;
    let carol = wallet();
    let (mut older, welcome) = sign_in_with_resume_secret(one, &carol, &[]).await;
    older.heartbeat(1_800.0).await;
    older.island_changed().await;
    let (mut resumed, welcome) = sign_in_with_resume_secret(two, &carol, &welcome.resume_secret).await;
    assert!(welcome.resumed, "the session is resumed");
    resumed.heartbeat(1_800.0).await;
    // Topics of peers and of a scene; a payload that takes several messages.
    let mut caller = rpc_caller::sign_in(one, &wallet()).await;
    let all = SubscriptionRequest { topic: "chat.*".to_owned() };
    caller.stream("TopicsService.PeerSubscription", &all).await;
    for (topic, length) in
        [("chat.small", 1), ("chat.large", 3 * MAX_PAYLOAD), ("messageBus.scene.bafy1.door", 1)]
    {
        let request = PublishToTopicRequest { topic: topic.to_owned(), payload: vec![7; length].into() };
        let result: PublishToTopicResult = caller.request("TopicsService.PublishToTopic", &request).await;
        assert!(result.ok);
    }
    drop((second, newer, resumed, caller));
}

#[tokio::test(flavor = "multi_thread")]
async fn bus_carries_these_subjects_and_headers() {
    let settings = [
        ("ISLANDS__REPORT_INTERVAL_MS", "200"),
        ("ISLANDS__DISCOVERY_INTERVAL_S", "1"),
        ("ISLANDS__RETURN_WINDOW_S", "0"),
    ];
    let observed = Observed::start(&settings).await;
    drive(&observed).await;
    check_eventually("bus.txt", async || observed.describe().await).await;
    golden::check("bus-lease.txt", &observed.describe_lease().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn bus_of_archipelago_workers_has_these_subjects() {
    let settings = [
        ("BUS__SUBJECTS", "archipelago-workers"),
        ("ISLANDS__CLUSTERING", "given"),
        ("ISLANDS__REPORT_INTERVAL_MS", "200"),
        ("ISLANDS__DISCOVERY_INTERVAL_S", "1"),
    ];
    let observed = Observed::start(&settings).await;
    let alice = wallet();
    let mut wire = sign_in(&observed.cluster["gateway-1"], &alice).await;
    wire.heartbeat(0.0).await;
    eventually("the heartbeat is on the bus", async || {
        observed.traffic.lock().unwrap().contains_key("peer.(address).heartbeat")
    })
    .await;
    // Another service assigns peers to clusters.
    let change = protocol::v3::ClusterChangeMessage { cluster_id: "one".to_owned(), realm: String::new() };
    let subject = format!("peer.{}.cluster_change", alice.address());
    let payload = protocol::Message::encode_to_vec(&change);
    observed.client.publish(subject, payload.into()).await.unwrap();
    wire.island_changed().await;
    drop(wire);
    check_eventually("bus-archipelago-workers.txt", async || observed.describe().await).await;
}
