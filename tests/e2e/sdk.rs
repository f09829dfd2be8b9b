//! The client SDK, over both dialects, and the programs of `examples/`.

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
use tokio::time::timeout;

use crate::{
    front::{Realm, wallet},
    wire::{self, PATIENCE},
};

/// An explorer that stands somewhere.
struct Person {
    explorer: Explorer,
    handle: Handle,
    address: Address,
}

impl Person {
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

    /// The first event that this picks.
    async fn sees<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let seen = async {
            loop {
                let event = self.explorer.next().await.unwrap_or_else(|| panic!("gone before {what}"));
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }
}

async fn heard(subscription: &mut Subscription) -> TopicEvent {
    timeout(PATIENCE, subscription.next()).await.expect("something in time").expect("a subscription")
}

async fn message(subscription: &mut Subscription) -> TopicMessage {
    match heard(subscription).await {
        TopicEvent::Message(message) => message,
        other => panic!("instead of a message: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialects_bring_the_same_events_and_meet_in_one_island() {
    let realm = Realm::start(&[]);
    let island = |event| match event {
        Event::IslandChanged { island, peers, .. } => Some((island, peers)),
        _ => None,
    };
    let mut one = Person::start(&realm, Dialect::Archipelago, 0.0).await;
    let (first, _) = one.sees("an island", island).await;
    one.sees("a room", |event| matches!(event, Event::RoomEntered { .. }).then_some(())).await;
    let mut two = Person::start(&realm, Dialect::Rpc, 10.0).await;
    let (second, peers) = two.sees("an island", island).await;
    assert_eq!(first, second);
    assert_eq!(peers.get(&two.address), Some(&Position::new(10.0, 0.0, 0.0)));
    let members = |event| match event {
        Event::RoomEntered { members, .. } => Some(members.into_values().collect::<Vec<_>>()),
        _ => None,
    };
    assert_eq!(two.sees("a room", members).await, [one.address]);
    let said = |event| match event {
        Event::Message { sender, body, .. } => Some((sender, body)),
        _ => None,
    };
    assert_eq!(two.handle.say("from two".into(), false).await.len(), 1);
    assert_eq!(one.sees("a message", said).await, (Some(two.address), "from two".into()));
    assert_eq!(one.handle.say("from one".into(), false).await.len(), 1);
    assert_eq!(two.sees("a message", said).await, (Some(one.address), "from one".into()));
    let three = Person::start(&realm, Dialect::Archipelago, 20.0).await;
    let came = |event| match event {
        Event::IslandJoined { island, address } => Some((island, address)),
        _ => None,
    };
    let went = |event| match event {
        Event::IslandLeft { island, address } => Some((island, address)),
        _ => None,
    };
    assert_eq!(two.sees("who came", came).await, (first.clone(), three.address));
    assert_eq!(one.sees("who came", came).await.1, three.address);
    three.handle.leave().await;
    assert_eq!(two.sees("who went", went).await, (first.clone(), three.address));
    assert_eq!(one.sees("who went", went).await, (first, three.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_heard_far_away_and_need_rpc() {
    let realm = Realm::start(&[]);
    let (one, two) =
        (Person::start(&realm, Dialect::Rpc, 0.0).await, Person::start(&realm, Dialect::Rpc, 9e3).await);
    let mut news = two.handle.subscribe("news.*").await.unwrap();
    let mut mailbox = two.handle.subscribe(&format!("{}.mail", two.address)).await.unwrap();
    // It has been signed in once it listens, too.
    let _own = one.handle.subscribe("own").await.unwrap();
    one.handle.publish("news.today", "sunny").await.unwrap();
    one.handle.publish(&format!("{}.mail", two.address), "private").await.unwrap();
    let (topic, payload) = ("news.today".parse().unwrap(), "sunny".into());
    assert_eq!(
        message(&mut news).await,
        TopicMessage { topic, sender: Some(one.address), payload, missed: 0 }
    );
    assert_eq!(message(&mut mailbox).await.payload, "private");
    // Many more than wait anywhere, in order, as long as somebody reads.
    let talk = async {
        for number in 0..300_u32 {
            one.handle.publish("news.numbers", number.to_string()).await.unwrap();
        }
    };
    let read = async {
        for number in 0..300_u32 {
            let message = message(&mut news).await;
            assert_eq!((message.payload, message.missed), (number.to_string().into(), 0));
        }
    };
    tokio::join!(talk, read);
    let refused = one.handle.subscribe(&format!("{}.mail", two.address)).await.unwrap_err();
    assert_eq!(refused.to_string(), "refused by the gateway: this mailbox is another's");
    let refused = one.handle.publish("news.*", "x").await.unwrap_err();
    assert!(matches!(refused, TopicsError::Malformed(_)), "{refused}");
    let plain = Person::start(&realm, Dialect::Archipelago, 0.0).await;
    let refused = plain.handle.subscribe("news").await.unwrap_err();
    assert_eq!(
        (refused.clone(), refused.to_string().as_str()),
        (TopicsError::NeedsRpc, "topics need the RPC dialect")
    );
    // What was dropped is no longer listened to.
    drop(news);
    drop(mailbox);
    crate::front::eventually("nobody listens", async || {
        let before = realm.count("atoll_gateway_topic_deliveries_total").await;
        one.handle.publish("news.today", "rainy").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        realm.count("atoll_gateway_topic_deliveries_total").await == before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_replaced_says_so_and_stays_away() {
    let realm = Realm::start(&[]);
    for dialect in [Dialect::Archipelago, Dialect::Rpc] {
        let wallet = wallet();
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        let identity = Identity::new(&wallet, crate::front::wallet(), later);
        let mut person = Person::start_as(&realm, dialect, 0.0, identity).await;
        person.sees("a sign-in", |event| (event == Event::SignedIn).then_some(())).await;
        let mut newer = wire::sign_in(&realm, &wallet).await;
        let closed = |event| match event {
            Event::Closed { reason, comes_back } => Some((reason, comes_back)),
            _ => None,
        };
        let (reason, comes_back) = person.sees("the end", closed).await;
        assert_eq!(comes_back, None, "{dialect:?}");
        let code = Close::NewSession.code();
        assert!(matches!(reason, client::Ended::Closed { code: told, .. } if told == code), "{reason}");
        assert_eq!(
            reason.to_string(),
            "closed by the server: a newer session took over (4003); this wallet is signed in elsewhere, and \
             coming back would end that session"
        );
        // That was all; and the newer session is left alone.
        let after = timeout(PATIENCE, person.explorer.next()).await.unwrap();
        assert!(after.is_none() || matches!(after, Some(Event::RoomLeft { .. })), "{after:?}");
        assert!(person.handle.publish("news", "x").await.is_err());
        newer.heartbeat(0.0).await;
        assert!(matches!(newer.next_packet().await, server_packet::Message::IslandChanged(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_outlive_a_server_and_say_that_something_is_missing() {
    let mut realm = Realm::start(&[]);
    let listen = realm.http.trim_start_matches("http://").to_owned();
    let mut person = Person::start(&realm, Dialect::Rpc, 0.0).await;
    let mut news = person.handle.subscribe("news").await.unwrap();
    realm.interrupt();
    let closed = |event| match event {
        Event::Closed { reason, comes_back } => Some((reason.to_string(), comes_back.is_some())),
        _ => None,
    };
    let (reason, comes_back) = person.sees("the end", closed).await;
    assert!(comes_back && reason.contains("server restarting (1012)"), "{reason}");
    assert_eq!(person.handle.publish("news", "x").await, Err(TopicsError::NotSignedIn));
    tokio::task::spawn_blocking(move || realm.wait(PATIENCE)).await.unwrap();
    // The next one, at the same place.
    let realm = Realm::launch_at(&listen, &[], &[]);
    assert_eq!(heard(&mut news).await, TopicEvent::Gap);
    let other = Person::start(&realm, Dialect::Rpc, 9e3).await;
    let _own = other.handle.subscribe("own").await.unwrap();
    other.handle.publish("news", "again").await.unwrap();
    assert_eq!(message(&mut news).await.payload, "again");
    // It has said again where it is, although nobody told it to.
    person.sees("its island", |event| matches!(event, Event::IslandChanged { .. }).then_some(())).await;
}

/// A program of `examples/`, ended when dropped.
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
            panic!("{}: {error}; cargo build --examples makes it, as a run of all tests does", path.display())
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

    /// Waits until it prints a line with this in it.
    fn prints(&self, part: &str) -> String {
        let mut before = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no {part:?} in {before:#?}"));
            if line.contains(part) {
                return line;
            }
            before.push(line);
        }
    }

    fn says(&mut self, line: &str) {
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
fn the_chat_is_heard_by_everybody_in_its_room() {
    let realm = Realm::start(&[]);
    let mut chats = [(); 2].map(|()| Program::start("chat", &[&realm.http, "plaza"]));
    let [first, _] = [0, 1].map(|index: usize| {
        let you = chats[index].prints("you are ");
        chats[index].prints("you hear chat.plaza");
        you.trim_start_matches("you are ").to_owned()
    });
    chats[0].says("hello everybody");
    for chat in &chats {
        assert_eq!(chat.prints("hello"), format!("{first}: hello everybody"));
    }
    // Nobody writes escapes to the terminal of others.
    chats[0].says("\u{1b}[2Jclear\u{7} as\u{9b}31m day");
    for chat in &chats {
        assert_eq!(chat.prints("clear"), format!("{first}: [2Jclear as31m day"));
    }
    let nowhere = Program::start("chat", &["http://127.0.0.1:9", "plaza"]);
    nowhere.prints("http://127.0.0.1:9/about");
    Program::start("chat", &[]).prints("usage: chat URL ROOM");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explorer_hears_positions_after_what_is_none() {
    let realm = Realm::start(&[]);
    let program = Program::start("explorer", &[&realm.http]);
    program.prints("in its room");
    let mut person = Person::start(&realm, Dialect::Archipelago, 20.0).await;
    person.sees("its room", |event| matches!(event, Event::RoomEntered { .. }).then_some(())).await;
    person.handle.say("no packet".into(), false).await;
    let at = rfc4::Position { position_x: 7.0, position_z: 8.0, ..Default::default() };
    let packet = rfc4::Packet { message: Some(rfc4::packet::Message::Position(at)), protocol_version: 100 };
    person.handle.say(packet.encode_to_vec().into(), false).await;
    program.prints(&format!("{} is at 7.0 8.0", person.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_that_sends_everybody_elsewhere_is_no_gateway() {
    let realm = Realm::start(&[("REALM__FIXED_ADAPTER", "offline:offline")]);
    let error = client::discover(&realm.http, None).await.unwrap_err();
    let expected = "the realm's adapter is \"offline:offline\", which is no archipelago socket";
    assert_eq!(error.to_string(), expected);
    assert_eq!(client::discover(&realm.http, Some(Dialect::Rpc)).await.unwrap().dialect, Dialect::Rpc);
}

#[test]
fn explorers_tell_of_their_island_and_whom_they_hear() {
    let realm = Realm::start(&[]);
    let one = Program::start("explorer", &[&realm.http]);
    let me = one.prints("I am ").trim_start_matches("I am ").to_owned();
    assert!(one.prints("island ").ends_with("of 1 people, over ws-room"));
    one.prints("in its room, with 0 others");
    let two = Program::start("explorer", &[&realm.http]);
    two.prints("in its room, with 1 others");
    two.prints(&format!("{me} is at "));
}
