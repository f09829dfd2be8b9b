//! Links over a TURN server: coturn, with the users of the connection strings.

use std::time::{Duration, Instant, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use protocol::{
    ConnectionString,
    mesh::{Signal, signal::Content},
};
use rtc::mesh::{IceServers, Options};
use test_support::{Namespace, TurnServer, network_namespace};
use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};
use transports::p2p::{Minter, TurnServers};

use crate::{
    hub::{Hub, address},
    member::{LIMIT, TestMember, link, options},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Mints connection strings for the server.
fn minter(server: &TurnServer) -> Minter {
    let turn = TurnServers { urls: vec![server.url()], secret: TurnServer::SECRET.to_owned(), ttl: HOUR };
    Minter { turn: Some(turn), relay_only: true, ..Minter::default() }
}

/// The options of a member with a connection string that was minted at this time.
fn minted(minter: &Minter, alias: u32, at: SystemTime) -> Options {
    let connection = minter.connection(&"I1".parse().unwrap(), address(alias), at);
    let ConnectionString::P2p { ice, relay_only, .. } = connection else { panic!("{connection}") };
    Options { ice_servers: ice.unwrap().parse().unwrap(), relay_only, ..options(alias) }
}

/// The password of one member, under the user name of another.
fn with_other_user(minter: &Minter, of: u32, other: u32, at: SystemTime) -> IceServers {
    let json = URL_SAFE_NO_PAD.decode(minter.ice_servers(address(of), at).unwrap()).unwrap();
    let json =
        String::from_utf8(json).unwrap().replace(&address(of).to_string(), &address(other).to_string());
    URL_SAFE_NO_PAD.encode(json).parse().unwrap()
}

/// The user name that is minted for a member at this time.
fn user(alias: u32, at: SystemTime) -> String {
    let expiry = (at + HOUR).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!("{expiry}:{}", address(alias))
}

/// The candidates in a signal.
fn candidates(signal: &Signal) -> Vec<String> {
    match signal.content.as_ref().unwrap() {
        Content::Candidate(candidate) => vec![candidate.clone()],
        Content::Offer(sdp) | Content::Answer(sdp) => {
            sdp.lines().filter(|line| line.starts_with("a=candidate:")).map(str::to_owned).collect()
        }
        Content::Fallback(_) => Vec::new(),
    }
}

/// The candidates that all members have sent so far.
fn all_candidates(hub: &Hub) -> Vec<String> {
    hub.log().iter().flat_map(|(_, signal)| candidates(signal)).collect()
}

/// A member that offers a link to a member that does not exist.
fn offering(hub: &Hub, alias: u32, options: Options) -> TestMember {
    let member = TestMember::start_with(hub, alias, options);
    member.plan(1, &[alias, 9], &[(alias, 9)]);
    member
}

/// Waits until the server has logged a line with these texts.
async fn logged(server: &TurnServer, texts: &[&str]) {
    let began = Instant::now();
    while !server.has_logged(texts) {
        assert!(began.elapsed() < LIMIT, "no line with {texts:?}: {}", server.log());
        sleep(Duration::from_millis(20)).await;
    }
}

const ALLOCATED: &str = "ALLOCATE processed, success";
const REFUSED: &str = "Cannot find credentials of user";

#[tokio::test]
async fn minted_credentials_are_accepted() {
    if !network_namespace::enter("turn::minted_credentials_are_accepted") {
        return;
    }
    let (server, hub, now) = (TurnServer::start(), Hub::default(), SystemTime::now());
    let began = Instant::now();
    let _member = offering(&hub, 1, minted(&minter(&server), 1, now));
    logged(&server, &[ALLOCATED, &address(1).to_string()]).await;
    while all_candidates(&hub).is_empty() {
        assert!(began.elapsed() < LIMIT, "no candidate: {}", server.log());
        sleep(Duration::from_millis(20)).await;
    }
    println!("allocated after {:?}", began.elapsed());
    let candidates = all_candidates(&hub);
    assert!(candidates.iter().all(|candidate| candidate.contains(" typ relay")), "{candidates:?}");
    assert!(!server.log().contains(REFUSED), "{}", server.log());
}

/// Checks that the server refuses the credentials of a member, and that it allocates nothing.
async fn assert_refused(server: &TurnServer, options: Options, user: &str) {
    let hub = Hub::default();
    let _member = offering(&hub, 1, options);
    logged(server, &[REFUSED, user]).await;
    // A second attempt is refused as well.
    while hub.offers().len() < 2 {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!server.log().contains(ALLOCATED), "{}", server.log());
    assert_eq!(all_candidates(&hub), [""; 0]);
}

#[tokio::test]
async fn expired_credentials_are_refused() {
    if !network_namespace::enter("turn::expired_credentials_are_refused") {
        return;
    }
    let server = TurnServer::start();
    let minted_at = SystemTime::now() - HOUR - Duration::from_secs(2);
    assert_refused(&server, minted(&minter(&server), 1, minted_at), &user(1, minted_at)).await;
}

#[tokio::test]
async fn credentials_of_another_secret_are_refused() {
    if !network_namespace::enter("turn::credentials_of_another_secret_are_refused") {
        return;
    }
    let (server, now) = (TurnServer::start(), SystemTime::now());
    let mut forger = minter(&server);
    forger.turn.as_mut().unwrap().secret = "another secret".to_owned();
    assert_refused(&server, minted(&forger, 1, now), &user(1, now)).await;
}

/// The server derives the password from the whole user name. It knows no wallets, and not which machine a user name
/// was minted for.
#[tokio::test]
async fn password_is_refused_for_another_wallet() {
    if !network_namespace::enter("turn::password_is_refused_for_another_wallet") {
        return;
    }
    let (server, now) = (TurnServer::start(), SystemTime::now());
    let ice_servers = with_other_user(&minter(&server), 1, 2, now);
    let options = Options { ice_servers, relay_only: true, ..options(1) };
    assert_refused(&server, options, &user(2, now)).await;
}

#[tokio::test]
async fn quota_of_a_wallet_spans_its_credentials() {
    if !network_namespace::enter("turn::quota_of_a_wallet_spans_its_credentials") {
        return;
    }
    let (server, now) = (TurnServer::start_with(&["--user-quota=1"]), SystemTime::now());
    let (minter, hub) = (minter(&server), Hub::default());
    let _first = offering(&hub, 1, minted(&minter, 1, now));
    logged(&server, &[ALLOCATED, &user(1, now)]).await;
    let later = now + Duration::from_secs(60);
    let _second = offering(&hub, 1, minted(&minter, 1, later));
    logged(&server, &["Allocation Quota Reached", &user(1, later)]).await;
    // Another wallet has a quota of its own.
    let _third = offering(&hub, 3, minted(&minter, 3, later));
    logged(&server, &[ALLOCATED, &user(3, later)]).await;
}

/// A machine with a runtime in its namespace.
struct Machine {
    namespace: Namespace,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

impl Machine {
    fn new() -> Self {
        let namespace = Namespace::new();
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).enable_all().on_thread_start(namespace.entrance());
        Self { namespace, runtime: Some(builder.build().unwrap()) }
    }

    /// Starts a member on this machine.
    fn start(&self, hub: &Hub, alias: u32, options: Options) -> TestMember {
        let _context = self.runtime.as_ref().unwrap().enter();
        // All addresses of the machine except the loopback.
        TestMember::start_with(hub, alias, Options { udp_addresses: Vec::new(), ..options })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The threads of a test must not wait for it.
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Two machines with no route except to a third one, which does not forward.
fn separate_machines() -> ([Machine; 2], Namespace) {
    let (machines, middle) = ([Machine::new(), Machine::new()], Namespace::new());
    middle.run(&["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]);
    for (network, Machine { namespace, .. }) in (1..).zip(&machines) {
        let [near, far] = [1, 2].map(|host| format!("10.98.{network}.{host}"));
        let name = format!("cable{network}");
        middle.connect(&name, &format!("{near}/24"), namespace, &format!("{far}/24"));
        namespace.run(&["ip", "route", "add", "default", "via", &near]);
    }
    (machines, middle)
}

/// Links members 1 and 2 with each other over the server, and exchanges messages.
async fn link_over(server: &TurnServer, machines: &[Machine; 2], minter: &Minter) -> Hub {
    let hub = Hub::default();
    let mut alias = 0;
    let mut members = machines.each_ref().map(|machine| {
        alias += 1;
        machine.start(&hub, alias, minted(minter, alias, SystemTime::now()))
    });
    link(&mut members, 1, &[1, 2], &[(1, 2)]).await;
    for (from, to) in [(0, 1), (1, 0)] {
        members[from].sender.send_reliable("over the relay".into()).unwrap();
        let data = members[to].data().await;
        assert_eq!((data.alias, data.payload), (members[from].alias, "over the relay".into()));
    }
    assert!(server.has_logged(&["CREATE_PERMISSION processed, success"]), "{}", server.log());
    hub
}

#[tokio::test]
async fn peers_without_a_route_connect_through_turn() {
    if !network_namespace::enter("turn::peers_without_a_route_connect_through_turn") {
        return;
    }
    let (machines, middle) = separate_machines();
    let server = TurnServer::start_in(&middle, [10, 98, 1, 1]);
    let minter = Minter { relay_only: false, ..minter(&server) };
    let hub = link_over(&server, &machines, &minter).await;
    let candidates = all_candidates(&hub);
    for kind in [" typ host", " typ relay"] {
        assert!(candidates.iter().any(|candidate| candidate.contains(kind)), "{candidates:?}");
    }
}

#[tokio::test]
async fn relay_only_peers_connect_without_host_candidates() {
    if !network_namespace::enter("turn::relay_only_peers_connect_without_host_candidates") {
        return;
    }
    let (machines, middle) = separate_machines();
    let server = TurnServer::start_in(&middle, [10, 98, 1, 1]);
    let hub = link_over(&server, &machines, &minter(&server)).await;
    let candidates = all_candidates(&hub);
    assert!(!candidates.is_empty());
    assert!(candidates.iter().all(|candidate| candidate.contains(" typ relay")), "{candidates:?}");
}

#[tokio::test]
async fn peers_without_a_route_or_turn_report_a_failure() {
    if !network_namespace::enter("turn::peers_without_a_route_or_turn_report_a_failure") {
        return;
    }
    let (machines, _middle) = separate_machines();
    let (hub, began) = (Hub::default(), Instant::now());
    let mut members = [1, 2].map(|alias| machines[alias as usize - 1].start(&hub, alias, options(alias)));
    for member in &members {
        member.plan(1, &[1, 2], &[(1, 2)]);
    }
    let report = members[0].reported(|report| report.failed == [2]).await;
    assert!(report.connected_to.is_empty());
    println!("reported after {:?}", began.elapsed());
}
