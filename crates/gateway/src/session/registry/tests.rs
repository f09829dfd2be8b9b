//! Tests of the session registry.

mod membership;

use std::collections::HashMap;

use protocol::subject;

use super::*;
use crate::{
    session::{
        message::SessionMessage,
        queue::{RESERVED_FOR_ISLAND_CHANGES, SESSION_QUEUE_MESSAGES},
    },
    settings::tests::settings,
};

const PEER: Address = Address::new([1; 20]);

/// An empty registry for at most `max_sessions` sessions.
fn new_sessions(bus: Bus, max_sessions: usize, keep_session: KeepSession) -> SessionRegistry {
    SessionRegistry::new(bus, &Settings { max_sessions, keep_session, ..settings() })
}

fn island(number: u8) -> IslandId {
    format!("I{number}").parse().unwrap()
}

fn member_change(joined: bool) -> Arc<MemberChange> {
    let subject = match joined {
        true => Subject::IslandPeerJoin(island(1)),
        false => Subject::IslandPeerLeft(island(1)),
    };
    let topic = subject.to_string().parse().unwrap();
    Arc::new(MemberChange { joined, topic, message: "member".into() })
}

fn island_change(number: u8) -> IslandChange {
    IslandChange { island: island(number), node: None, is_mesh: false, message: "assignment".into() }
}

fn network() -> Network {
    Network::from_ip(std::net::IpAddr::from([127, 0, 0, 1]), 64)
}

fn sign_in_request(address: Address) -> SignInRequest {
    SignInRequest::without_extensions(address)
}

/// Begins a session with this byte as its random bytes.
fn try_begin(sessions: &SessionRegistry, request: SignInRequest, random: u8) -> Result<NewSession, Close> {
    sessions.begin(request, network(), [[random; 16]; 2])
}

/// Begins a session of a client that announced no extensions.
fn begin(sessions: &SessionRegistry, address: Address, random: u8) -> (SessionId, SessionReceiver) {
    let begun = try_begin(sessions, sign_in_request(address), random).unwrap();
    (begun.id, begun.receiver)
}

/// The published subjects, each with the session in its headers.
fn published(subscription: &mut bus::Subscription) -> Vec<(Subject, Option<SessionId>)> {
    std::iter::from_fn(|| subscription.try_next())
        .map(|envelope| (envelope.subject().unwrap(), envelope.headers.session))
        .collect()
}

/// The queued messages of a session, and its close code if it has ended.
async fn drain_messages(receiver: &mut SessionReceiver) -> (Vec<SessionMessage>, Option<Close>) {
    let mut all = Vec::new();
    loop {
        tokio::select! {
            biased;
            next = receiver.next() => match next {
                Ok(message) => all.push(message),
                Err(close) => return (all, Some(close)),
            },
            () = tokio::task::yield_now() => return (all, None),
        }
    }
}

#[tokio::test]
async fn newest_session_wins_and_late_end_of_older_is_ignored() {
    let bus = Bus::in_process();
    let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
    let sessions = new_sessions(bus, 9, KeepSession::Newest);
    let (older, mut older_receiver) = begin(&sessions, PEER, 9);
    let (newer, mut newer_receiver) = begin(&sessions, PEER, 1);
    assert!(newer > older);
    assert_eq!(drain_messages(&mut older_receiver).await, (vec![], Some(Close::NewSession)));
    sessions.end(PEER, older);
    sessions.deliver_island_change(PEER, Some(older), island_change(1));
    sessions.deliver_island_change(PEER, Some(newer), island_change(2));
    let message = SessionMessage::IslandChanged(island_change(2));
    assert_eq!(drain_messages(&mut newer_receiver).await, (vec![message], None));
    sessions.end(PEER, newer);
    let connect = |session| (Subject::PeerConnect(PEER), Some(session));
    let expected = [connect(older), connect(newer), (Subject::PeerDisconnect(PEER), Some(newer))];
    assert_eq!(published(&mut events), expected);
    assert_eq!(sessions.count(), 0);
}

#[tokio::test]
async fn remote_sign_in_ends_only_an_older_session() {
    let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
    let (session, mut receiver) = begin(&sessions, PEER, 0);
    sessions.observe_session(PEER, session, None, None);
    sessions.observe_session(PEER, SessionId::new(1, 1), None, None);
    assert_eq!(sessions.count(), 1);
    let ahead = SessionId::new(1 << 45, 0);
    sessions.observe_session(PEER, ahead, None, None);
    assert_eq!(drain_messages(&mut receiver).await, (vec![], Some(Close::NewSession)));
    assert_eq!((sessions.count(), sessions.contains(PEER)), (0, true), "it is remote");
    sessions.observe_end(PEER, Some(session));
    assert!(sessions.contains(PEER), "an older session ended");
    sessions.observe_end(PEER, Some(ahead));
    assert!(!sessions.contains(PEER));
    assert!(begin(&sessions, PEER, 0).0 > ahead, "minted above any that was seen");
}

#[tokio::test]
async fn older_remote_session_triggers_reannouncement() {
    // Each bus is one side of an outage.
    let [there, here] = [(); 2].map(|()| Bus::in_process());
    let mut events = here.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
    let [there, here] = [there, here].map(|bus| new_sessions(bus, 9, KeepSession::Newest));
    let (older, mut older_receiver) = begin(&there, PEER, 0);
    std::thread::sleep(Duration::from_millis(2));
    let transports = Some("p2p,ws-room".into());
    let request = SignInRequest { transports: transports.clone(), ..sign_in_request(PEER) };
    let NewSession { id: newer, receiver: mut newer_receiver, .. } = try_begin(&here, request, 0).unwrap();
    assert!(newer > older);
    let begun = events.try_next().unwrap();
    here.observe_session(PEER, older, None, None);
    assert_eq!(published(&mut events), [], "it was announced just now");
    here.state.lock().local.get_mut(PEER).unwrap().announced_at -= ANNOUNCE_INTERVAL;
    here.observe_session(PEER, newer, None, None);
    assert_eq!(published(&mut events), [], "its own heartbeat");
    (0..3).for_each(|_| here.observe_session(PEER, older, None, None));
    let again = events.try_next().unwrap();
    assert_eq!((again.subject(), &again.headers), (begun.subject(), &begun.headers));
    assert_eq!(again.headers, Headers { transports, ..Headers::for_session(newer) });
    assert_eq!(published(&mut events), [], "once in an interval");
    there.observe_session(PEER, again.headers.session.unwrap(), None, None);
    assert_eq!(drain_messages(&mut older_receiver).await, (vec![], Some(Close::NewSession)));
    assert_eq!(drain_messages(&mut newer_receiver).await, (vec![], None));
}

#[tokio::test]
async fn newest_session_survives_across_gateways() {
    let bus = Bus::in_process();
    let gateways: Vec<_> = (0..3)
        .map(|_| {
            let connects = bus.subscribe("test", &[subject::PEER_CONNECTS], 1_024);
            (new_sessions(bus.clone(), 1_000, KeepSession::Newest), connects)
        })
        .collect();
    let wallets: Vec<Address> = (0..20).map(|number| Address::new([number; 20])).collect();
    // Each gateway receives the announcements of the others only after each round.
    let begun: Vec<_> = std::thread::scope(|scope| {
        let race = |(sessions, mut connects): (SessionRegistry, bus::Subscription), seed: u8| {
            let mut receivers = Vec::new();
            for round in 0..10 {
                for &wallet in &wallets {
                    receivers.push((wallet, begin(&sessions, wallet, seed ^ round)));
                }
                observe_connects(&sessions, &mut connects);
            }
            (sessions, connects, receivers)
        };
        let threads: Vec<_> = gateways
            .into_iter()
            .zip([7, 3, 5])
            .map(|(own, seed)| scope.spawn(move || race(own, seed)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut local, mut newest) = (HashMap::new(), HashMap::new());
    for (sessions, mut connects, receivers) in begun {
        observe_connects(&sessions, &mut connects);
        for (wallet, (session, mut receiver)) in receivers {
            newest
                .entry(wallet)
                .and_modify(|newest: &mut SessionId| *newest = session.max(*newest))
                .or_insert(session);
            if drain_messages(&mut receiver).await.1.is_none() {
                assert_eq!(local.insert(wallet, session), None, "one live session of each wallet");
            }
        }
    }
    assert_eq!(local, newest);
}

fn observe_connects(sessions: &SessionRegistry, connects: &mut bus::Subscription) {
    while let Some(envelope) = connects.try_next() {
        if let (Some(Subject::PeerConnect(peer)), Some(session)) =
            (envelope.subject(), envelope.headers.session)
        {
            sessions.observe_session(peer, session, None, None);
        }
    }
}

#[tokio::test]
async fn full_queue_ends_session_and_drain_reports_restarting() {
    let bus = Bus::in_process();
    let mut events = bus.subscribe("test", &[subject::PEER_DISCONNECTS], 16);
    let sessions = new_sessions(bus, 9, KeepSession::Newest);
    let (session, mut receiver) = begin(&sessions, PEER, 0);
    for _ in 0..=SESSION_QUEUE_MESSAGES {
        sessions.deliver_island_change(PEER, None, island_change(1));
    }
    assert_eq!(sessions.count(), 0);
    assert_eq!(published(&mut events), [(Subject::PeerDisconnect(PEER), Some(session))]);
    let (waiting, close) = drain_messages(&mut receiver).await;
    assert_eq!((waiting.len(), close), (SESSION_QUEUE_MESSAGES, Some(Close::TooSlow)));
    // With a full queue too, the receiver reports the reason of the drain.
    let (_, mut receiver) = begin(&sessions, PEER, 0);
    (0..SESSION_QUEUE_MESSAGES).for_each(|_| sessions.deliver_island_change(PEER, None, island_change(1)));
    sessions.drain();
    assert_eq!(drain_messages(&mut receiver).await.1, Some(Close::Restarting));
    assert_eq!(published(&mut events), [], "the client is expected to reconnect");
    assert_eq!(try_begin(&sessions, sign_in_request(PEER), 0).unwrap_err(), Close::Restarting);
}

#[test]
fn session_limit_holds_and_takeover_needs_no_slot() {
    let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Newest);
    let _receiver = begin(&sessions, PEER, 0);
    assert_eq!(try_begin(&sessions, sign_in_request(Address::new([2; 20])), 0).unwrap_err(), Close::Full);
    assert!(try_begin(&sessions, sign_in_request(PEER), 0).is_ok());
}

#[test]
fn keep_oldest_rejects_newer_session_while_it_lives() {
    let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Oldest);
    let (oldest, receiver) = begin(&sessions, PEER, 0);
    assert_eq!(try_begin(&sessions, sign_in_request(PEER), 0).unwrap_err(), Close::AlreadySignedIn);
    drop(receiver);
    sessions.end(PEER, oldest);
    assert!(try_begin(&sessions, sign_in_request(PEER), 0).is_ok());
}

#[tokio::test]
async fn members_receive_member_changes_while_in_the_island() {
    let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
    let other = Address::new([2; 20]);
    let (_, mut receiver) = begin(&sessions, PEER, 0);
    let (_, mut others) = begin(&sessions, other, 0);
    sessions.broadcast_member_change(&island(1), other, None, &member_change(true));
    sessions.deliver_island_change(PEER, None, island_change(1));
    sessions.broadcast_member_change(&island(1), other, None, &member_change(true));
    sessions.deliver_island_change(other, None, island_change(1));
    sessions.deliver_island_change(other, None, island_change(2));
    sessions.broadcast_member_change(&island(1), other, None, &member_change(false));
    let moved = |number| SessionMessage::IslandChanged(island_change(number));
    let members = [true, false].map(|joined| SessionMessage::MemberChanged(member_change(joined)));
    assert_eq!(drain_messages(&mut receiver).await.0, [&[moved(1)][..], &members].concat());
    assert_eq!(drain_messages(&mut others).await.0, [moved(1), moved(2)]);
    // A peer that the engine dropped for silence leaves the island: neither it nor the others receive
    // changes.
    sessions.deliver_island_change(other, None, island_change(1));
    sessions.broadcast_member_change(&island(1), PEER, Some(SessionId::new(1, 1)), &member_change(false));
    assert_eq!(sessions.state.lock().local.members_count(&island(1)), 2, "an older session is named");
    sessions.broadcast_member_change(&island(1), PEER, None, &member_change(false));
    assert_eq!(drain_messages(&mut others).await.0.len(), 3);
    sessions.broadcast_member_change(&island(1), other, None, &member_change(false));
    assert_eq!(drain_messages(&mut receiver).await.0, []);
    let mut state = sessions.state.lock();
    for address in [PEER, other] {
        state.local.remove(address);
    }
    assert!(state.local.has_no_members());
}

#[tokio::test]
async fn member_changes_never_end_a_slow_session() {
    let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
    let (_, mut receiver) = begin(&sessions, PEER, 0);
    sessions.deliver_island_change(PEER, None, island_change(1));
    for _ in 0..2 * SESSION_QUEUE_MESSAGES {
        sessions.broadcast_member_change(&island(1), Address::new([2; 20]), None, &member_change(true));
    }
    sessions.deliver_island_change(PEER, None, island_change(2));
    let (messages, close) = drain_messages(&mut receiver).await;
    assert_eq!((messages.len(), close), (SESSION_QUEUE_MESSAGES - RESERVED_FOR_ISLAND_CHANGES + 1, None));
    assert_eq!(messages.last(), Some(&SessionMessage::IslandChanged(island_change(2))));
}

#[test]
fn transports_are_published_with_connect_only() {
    let bus = Bus::in_process();
    let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
    let sessions = new_sessions(bus, 9, KeepSession::Newest);
    let transports = Some("p2p,ws-room".into());
    let request = SignInRequest { transports: transports.clone(), ..sign_in_request(PEER) };
    let session = try_begin(&sessions, request, 0).unwrap().id;
    sessions.end(PEER, session);
    let headers: Vec<Headers> =
        std::iter::from_fn(|| events.try_next()).map(|envelope| envelope.headers).collect();
    let connect = Headers { transports, ..Headers::for_session(session) };
    assert_eq!(headers, [connect, Headers::for_session(session)]);
}

/// The request of a client that announced extensions and presents this secret.
fn request_with_secret(secret: Option<[u8; 16]>) -> SignInRequest {
    let presented_hash = secret.map(|secret| identity::ResumeSecret::new(secret).hash());
    SignInRequest { extensions: true, presented_hash, ..sign_in_request(PEER) }
}

/// Begins a session that presents `secret`; `own` makes its own secret. Returns the session, the older
/// session that it resumes, and the headers of its announcement.
fn begin_with_secret(
    sessions: &SessionRegistry,
    secret: Option<[u8; 16]>,
    own: u8,
) -> (SessionId, Option<SessionId>, Headers) {
    let mut connects = sessions.bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
    let begun = sessions.begin(request_with_secret(secret), network(), [[0; 16], [own; 16]]);
    let NewSession { id: session, resumption, .. } = begun.unwrap();
    let headers = connects.try_next().unwrap().headers;
    let resumes = resumption.unwrap().resumes;
    assert_eq!(headers.resumption().resumes, resumes);
    (session, resumes, headers)
}

#[test]
fn resume_secret_is_valid_once_for_the_newest_session() {
    let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
    let (first, resumed, _) = begin_with_secret(&sessions, None, 1);
    assert_eq!(resumed, None);
    assert_eq!(begin_with_secret(&sessions, Some([9; 16]), 2).1, None, "a wrong secret");
    assert_eq!(begin_with_secret(&sessions, Some([1; 16]), 3).1, None, "the secret of an older session");
    let (third, ..) = begin_with_secret(&sessions, None, 4);
    let (fourth, resumed, _) = begin_with_secret(&sessions, Some([4; 16]), 5);
    assert_eq!(resumed, Some(third));
    assert!(first < third && third < fourth);
    assert_eq!(begin_with_secret(&sessions, Some([4; 16]), 6).1, None, "the secret was used");
    // The session of a client without extensions has no secret, so no later session can resume an earlier
    // one.
    begin(&sessions, PEER, 0);
    assert_eq!(begin_with_secret(&sessions, Some([6; 16]), 7).1, None);
}

#[test]
fn ended_session_is_resumed_on_any_gateway() {
    let [there, here] = [(); 2].map(|()| new_sessions(Bus::in_process(), 9, KeepSession::Newest));
    let (first, _, headers) = begin_with_secret(&there, None, 1);
    here.observe_session(PEER, first, None, headers.resumption().hash);
    here.observe_end(PEER, Some(first));
    let (second, resumed, _) = begin_with_secret(&here, Some([1; 16]), 2);
    assert_eq!(resumed, Some(first));
    here.end(PEER, second);
    let (third, resumed, headers) = begin_with_secret(&here, Some([2; 16]), 3);
    assert_eq!(resumed, Some(second));
    there.observe_session(PEER, third, None, headers.resumption().hash);
    assert_eq!(
        begin_with_secret(&there, Some([3; 16]), 4).1,
        Some(third),
        "while it lives on another gateway"
    );
}

#[test]
fn session_without_extensions_has_no_resumption() {
    let bus = Bus::in_process();
    let mut connects = bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
    let sessions = new_sessions(bus, 9, KeepSession::Newest);
    let NewSession { id: session, resumption, .. } = try_begin(&sessions, sign_in_request(PEER), 7).unwrap();
    assert_eq!(Resumption::welcome(resumption), (Vec::new(), false));
    assert_eq!(connects.try_next().unwrap().headers, Headers::for_session(session));
}
