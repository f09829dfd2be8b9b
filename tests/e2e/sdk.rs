//! The client SDK over both dialects, and the programs of `examples/`.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use client::{
    Address, Dialect, Event, Explorer, Handle, Identity, Position, Protobuf, Settings, Subscription,
    TopicEvent, TopicMessage, TopicsError, rfc4,
};
use protocol::{Close, v3::server_packet};
use test_support::{Realm, TEST_TIMEOUT, wallet, wire};
use tokio::time::timeout;

/// A client that does not move.
struct SdkClient {
    explorer: Explorer,
    handle: Handle,
    address: Address,
}

impl SdkClient {
    async fn start(realm: &Realm, dialect: Dialect, x: f32) -> Self {
        Self::start_as(realm, dialect, x, client::guest().unwrap()).await
    }

    async fn start_as(realm: &Realm, dialect: Dialect, x: f32, identity: Identity) -> Self {
        let gateway = client::discover(&realm.http, Some(dialect)).await.unwrap();
        let address = identity.address();
        let explorer = Explorer::start(Settings::new(gateway), identity);
        let handle = explorer.handle();
        handle.heartbeat(Position::new(x, 0.0, 0.0), None).await;
        Self { explorer, handle, address }
    }

    /// The first event that `pick` accepts.
    async fn expect_event<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event =
                    self.explorer.next().await.unwrap_or_else(|| panic!("the client ended before {what}"));
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        timeout(TEST_TIMEOUT, found).await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }
}

async fn next_topic_event(subscription: &mut Subscription) -> TopicEvent {
    timeout(TEST_TIMEOUT, subscription.next()).await.expect("a topic event in time").expect("a subscription")
}

async fn next_topic_message(subscription: &mut Subscription) -> TopicMessage {
    match next_topic_event(subscription).await {
        TopicEvent::Message(message) => message,
        other => panic!("instead of a message: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialects_receive_the_same_events_in_one_island() {
    let realm = Realm::start(&[]);
    let island = |event| match event {
        Event::IslandChanged { island, peers, .. } => Some((island, peers)),
        _ => None,
    };
    let mut one = SdkClient::start(&realm, Dialect::Archipelago, 0.0).await;
    let (first, _) = one.expect_event("an island", island).await;
    one.expect_event("a room", |event| matches!(event, Event::RoomEntered { .. }).then_some(())).await;
    let mut two = SdkClient::start(&realm, Dialect::Rpc, 10.0).await;
    let (second, peers) = two.expect_event("an island", island).await;
    assert_eq!(first, second);
    assert_eq!(peers.get(&two.address), Some(&Position::new(10.0, 0.0, 0.0)));
    let members = |event| match event {
        Event::RoomEntered { members, .. } => Some(members.into_values().collect::<Vec<_>>()),
        _ => None,
    };
    assert_eq!(two.expect_event("a room", members).await, [one.address]);
    let room_message = |event| match event {
        Event::Message { sender, body, .. } => Some((sender, body)),
        _ => None,
    };
    assert_eq!(two.handle.send("from two".into(), false).await.len(), 1);
    assert_eq!(one.expect_event("a message", room_message).await, (Some(two.address), "from two".into()));
    assert_eq!(one.handle.send("from one".into(), false).await.len(), 1);
    assert_eq!(two.expect_event("a message", room_message).await, (Some(one.address), "from one".into()));
    let three = SdkClient::start(&realm, Dialect::Archipelago, 20.0).await;
    let joined = |event| match event {
        Event::IslandJoined { island, address } => Some((island, address)),
        _ => None,
    };
    let left = |event| match event {
        Event::IslandLeft { island, address } => Some((island, address)),
        _ => None,
    };
    assert_eq!(two.expect_event("a join", joined).await, (first.clone(), three.address));
    assert_eq!(one.expect_event("a join", joined).await.1, three.address);
    three.handle.leave().await;
    assert_eq!(two.expect_event("a leave", left).await, (first.clone(), three.address));
    assert_eq!(one.expect_event("a leave", left).await, (first, three.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_work_across_islands_and_need_rpc() {
    let realm = Realm::start(&[]);
    let (one, two) = (
        SdkClient::start(&realm, Dialect::Rpc, 0.0).await,
        SdkClient::start(&realm, Dialect::Rpc, 9e3).await,
    );
    let mut news = two.handle.subscribe("news.*").await.unwrap();
    let mut mailbox = two.handle.subscribe(&format!("{}.mail", two.address)).await.unwrap();
    // Once it has a subscription, it is signed in, too.
    let _own = one.handle.subscribe("own").await.unwrap();
    one.handle.publish("news.today", "sunny").await.unwrap();
    one.handle.publish(&format!("{}.mail", two.address), "private").await.unwrap();
    let (topic, payload) = ("news.today".parse().unwrap(), "sunny".into());
    assert_eq!(
        next_topic_message(&mut news).await,
        TopicMessage { topic, sender: Some(one.address), payload, missed: 0 }
    );
    assert_eq!(next_topic_message(&mut mailbox).await.payload, "private");
    // Many more messages than any queue holds arrive in order, as long as the subscriber reads.
    let talk = async {
        for number in 0..300_u32 {
            one.handle.publish("news.numbers", number.to_string()).await.unwrap();
        }
    };
    let read = async {
        for number in 0..300_u32 {
            let message = next_topic_message(&mut news).await;
            assert_eq!((message.payload, message.missed), (number.to_string().into(), 0));
        }
    };
    tokio::join!(talk, read);
    let refused = one.handle.subscribe(&format!("{}.mail", two.address)).await.unwrap_err();
    assert_eq!(refused.to_string(), "refused by the gateway: this mailbox is another's");
    let refused = one.handle.publish("news.*", "x").await.unwrap_err();
    assert!(matches!(refused, TopicsError::Malformed(_)), "{refused}");
    let plain = SdkClient::start(&realm, Dialect::Archipelago, 0.0).await;
    let refused = plain.handle.subscribe("news").await.unwrap_err();
    assert_eq!(
        (refused.clone(), refused.to_string().as_str()),
        (TopicsError::NeedsRpc, "topics need the RPC dialect")
    );
    // Dropping a subscription ends it.
    drop(news);
    drop(mailbox);
    test_support::eventually("no subscription is left", async || {
        let before = realm.count("atoll_gateway_topic_deliveries_total").await;
        one.handle.publish("news.today", "rainy").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        realm.count("atoll_gateway_topic_deliveries_total").await == before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_session_reports_it_and_does_not_reconnect() {
    let realm = Realm::start(&[]);
    for dialect in [Dialect::Archipelago, Dialect::Rpc] {
        let wallet = wallet();
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        let identity = Identity::new(&wallet, test_support::wallet(), later);
        let mut sdk = SdkClient::start_as(&realm, dialect, 0.0, identity).await;
        sdk.expect_event("a sign-in", |event| (event == Event::SignedIn).then_some(())).await;
        let mut newer = wire::sign_in(&realm, &wallet).await;
        let closed = |event| match event {
            Event::Disconnected { reason, retry_in } => Some((reason, retry_in)),
            _ => None,
        };
        let (reason, comes_back) = sdk.expect_event("the end", closed).await;
        assert_eq!(comes_back, None, "{dialect:?}");
        let code = Close::NewSession.code();
        assert!(
            matches!(reason, client::Disconnect::Closed { code: received_code, .. } if received_code == code),
            "{reason}"
        );
        assert_eq!(
            reason.to_string(),
            "closed by the server: a newer session took over (4003); this wallet is signed in elsewhere, and \
             reconnecting would end that session"
        );
        // The client does not reconnect, and the newer session stays.
        let after = timeout(TEST_TIMEOUT, sdk.explorer.next()).await.unwrap();
        assert!(after.is_none() || matches!(after, Some(Event::RoomLeft { .. })), "{after:?}");
        assert!(sdk.handle.publish("news", "x").await.is_err());
        newer.heartbeat(0.0).await;
        assert!(matches!(newer.next_packet().await, server_packet::Message::IslandChanged(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_survive_a_restart_and_report_a_gap() {
    let mut realm = Realm::start(&[]);
    let listen = realm.http.trim_start_matches("http://").to_owned();
    let mut sdk = SdkClient::start(&realm, Dialect::Rpc, 0.0).await;
    let mut news = sdk.handle.subscribe("news").await.unwrap();
    realm.interrupt();
    let closed = |event| match event {
        Event::Disconnected { reason, retry_in } => Some((reason.to_string(), retry_in.is_some())),
        _ => None,
    };
    let (reason, comes_back) = sdk.expect_event("the end", closed).await;
    assert!(comes_back && reason.contains("server restarting (1012)"), "{reason}");
    assert_eq!(sdk.handle.publish("news", "x").await, Err(TopicsError::NotSignedIn));
    tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT)).await.unwrap();
    // The next process, at the same address.
    let realm = Realm::launch_at(&listen, &[], &[]);
    assert_eq!(next_topic_event(&mut news).await, TopicEvent::Gap);
    let other = SdkClient::start(&realm, Dialect::Rpc, 9e3).await;
    let _own = other.handle.subscribe("own").await.unwrap();
    other.handle.publish("news", "again").await.unwrap();
    assert_eq!(next_topic_message(&mut news).await.payload, "again");
    // The client has repeated its position by itself.
    sdk.expect_event("its island", |event| matches!(event, Event::IslandChanged { .. }).then_some(())).await;
}

/// A program of `examples/`, killed when dropped.
struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    fn start(name: &str, args: &[&str]) -> Self {
        // Cargo builds them beside the tests of their package: target/<profile>/examples.
        let mut path = PathBuf::from(env!("CARGO_BIN_EXE_atoll"));
        path.set_file_name("examples");
        path.push(name);
        let piped = || Stdio::piped();
        let mut command = Command::new(&path);
        let spawned = command.args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; cargo build --examples builds it, and so does a run of all tests",
                path.display()
            )
        });
        let (line, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
        for output in outputs {
            let line = line.clone();
            thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
            });
        }
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, lines }
    }

    /// Waits for a printed line that contains `part`, and returns it.
    fn wait_for_line(&self, part: &str) -> String {
        let mut before = Vec::new();
        loop {
            let line = self.lines.recv_timeout(TEST_TIMEOUT);
            let line = line.unwrap_or_else(|_| panic!("no {part:?} in {before:#?}"));
            if line.contains(part) {
                return line;
            }
            before.push(line);
        }
    }

    fn write_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn chat_example_reaches_every_participant() {
    let realm = Realm::start(&[]);
    let mut chats = [(); 2].map(|()| Program::start("chat", &[&realm.http, "plaza"]));
    let [first, _] = [0, 1].map(|index: usize| {
        let you = chats[index].wait_for_line("you are ");
        chats[index].wait_for_line("subscribed to chat.plaza");
        you.trim_start_matches("you are ").to_owned()
    });
    chats[0].write_line("hello all");
    for chat in &chats {
        assert_eq!(chat.wait_for_line("hello"), format!("{first}: hello all"));
    }
    // A message cannot write escape sequences to another terminal.
    chats[0].write_line("\u{1b}[2Jclear\u{7} as\u{9b}31m day");
    for chat in &chats {
        assert_eq!(chat.wait_for_line("clear"), format!("{first}: [2Jclear as31m day"));
    }
    let nowhere = Program::start("chat", &["http://127.0.0.1:9", "plaza"]);
    nowhere.wait_for_line("http://127.0.0.1:9/about");
    Program::start("chat", &[]).wait_for_line("usage: chat URL ROOM");
}

#[tokio::test(flavor = "multi_thread")]
async fn explorer_example_ignores_non_packets() {
    let realm = Realm::start(&[]);
    let program = Program::start("explorer", &[&realm.http]);
    program.wait_for_line("in the room");
    let mut sdk = SdkClient::start(&realm, Dialect::Archipelago, 20.0).await;
    sdk.expect_event("its room", |event| matches!(event, Event::RoomEntered { .. }).then_some(())).await;
    sdk.handle.send("no packet".into(), false).await;
    let at = rfc4::Position { position_x: 7.0, position_z: 8.0, ..Default::default() };
    let packet = rfc4::Packet { message: Some(rfc4::packet::Message::Position(at)), protocol_version: 100 };
    sdk.handle.send(packet.encode_to_vec().into(), false).await;
    program.wait_for_line(&format!("{} is at 7.0 8.0", sdk.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn realm_with_a_fixed_adapter_is_not_discovered() {
    let realm = Realm::start(&[("REALM__FIXED_ADAPTER", "offline:offline")]);
    let error = client::discover(&realm.http, None).await.unwrap_err();
    let expected = "the realm's adapter is \"offline:offline\", which is no archipelago socket";
    assert_eq!(error.to_string(), expected);
    assert_eq!(client::discover(&realm.http, Some(Dialect::Rpc)).await.unwrap().dialect, Dialect::Rpc);
}

#[test]
fn explorer_example_prints_island_and_positions() {
    let realm = Realm::start(&[]);
    let one = Program::start("explorer", &[&realm.http]);
    let me = one.wait_for_line("I am ").trim_start_matches("I am ").to_owned();
    assert!(one.wait_for_line("island ").ends_with("of 1 peers, over ws-room"));
    one.wait_for_line("in the room, with 0 others");
    let two = Program::start("explorer", &[&realm.http]);
    two.wait_for_line("in the room, with 1 others");
    two.wait_for_line(&format!("{me} is at "));
}
