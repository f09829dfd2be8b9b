//! Rate limits, keep-alive and close frames, on the sockets of a real room node in paused time.

use std::time::Duration;

use admission::{Network, Verifier};
use axum::{Extension, Router};
use bus::Bus;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use identity::Wallet;
use protocol::{
    Close, Message as _,
    rfc5::{WsIdentification, WsPacket, WsPeerUpdate, WsSignedChallenge, ws_packet::Message},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    time::{self, Instant},
};
use transports::ws_room;
use ws::testing::{
    BINARY, CLOSE, FIRST_FRAGMENT, FLOOD, FRAGMENT, PER_SECOND, PING, PONG, RawClient, assert_close_replies,
    assert_throttled,
};

use super::*;
use crate::{Rooms, Settings, settings};

/// Frames that a client may have sent before the flood.
const HANDSHAKE_FRAMES: usize = 3;

type Client = RawClient<DuplexStream>;

pub(crate) fn router(handshake_timeout: Duration) -> Router {
    router_with(settings(handshake_timeout))
}

fn settings(handshake_timeout: Duration) -> Settings {
    Settings {
        open_rooms: vec!["lobby".parse().unwrap()],
        handshake_timeout,
        messages_per_second: PER_SECOND as u32,
        ..settings::tests::settings()
    }
}

fn router_with(settings: Settings) -> Router {
    let tokens = ws_room::Verifier::new([&b"a secret of sixteen characters"[..]]);
    let rooms = Rooms::new([settings], tokens, Verifier::new(identity::Limits::default()));
    let (router, bus) = (rooms.router(), Bus::in_process());
    let subscriptions = rooms.subscribe(&bus);
    tokio::spawn(async move { rooms.run(bus, subscriptions).await });
    router.layer(Extension(Network::from_ip([127, 0, 0, 1].into(), 64)))
}

async fn connect(router: &Router) -> Client {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let http = hyper::server::conn::http1::Builder::new();
    let connection = http.serve_connection(TokioIo::new(server), TowerToHyperService::new(router.clone()));
    tokio::spawn(connection.with_upgrades());
    RawClient::open(client, "/rooms/lobby").await
}

pub(crate) async fn packet<S>(client: &mut RawClient<S>) -> Message
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WsPacket::decode(&client.receive_until(BINARY).await[..]).unwrap().message.unwrap()
}

pub(crate) async fn send<S>(client: &mut RawClient<S>, message: Message)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.send(BINARY, &WsPacket { message: Some(message) }.encode_to_vec()).await;
}

async fn enter(router: &Router) -> Client {
    enter_as(router, 7).await
}

async fn enter_as(router: &Router, wallet: u8) -> Client {
    authenticate(connect(router).await, wallet).await
}

/// Enters the room with a signature.
pub(crate) async fn authenticate<S>(mut client: RawClient<S>, wallet: u8) -> RawClient<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let wallet = Wallet::from_secret([wallet; 32]).unwrap();
    let address = wallet.address().to_string();
    send(&mut client, Message::PeerIdentification(WsIdentification { address })).await;
    let Message::ChallengeMessage(challenge) = packet(&mut client).await else { panic!("no challenge") };
    let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
    send(&mut client, Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
    assert!(matches!(packet(&mut client).await, Message::WelcomeMessage(_)));
    client
}

#[tokio::test(start_paused = true)]
async fn frames_are_throttled_before_the_member_joins() {
    let router = router(Duration::from_secs(1_000));
    assert_throttled(async || connect(&router).await, HANDSHAKE_FRAMES).await;
}

#[tokio::test(start_paused = true)]
async fn frames_are_throttled_after_the_member_joined() {
    let router = router(Duration::from_secs(1_000));
    assert_throttled(async || enter(&router).await, HANDSHAKE_FRAMES).await;
}

#[tokio::test(start_paused = true)]
async fn flood_during_the_handshake_ends_at_the_deadline() {
    let deadline = Duration::from_secs(10);
    let mut client = connect(&router(deadline)).await;
    let began = Instant::now();
    client.send(FIRST_FRAGMENT, b"").await;
    client.flood(FRAGMENT, b"", FLOOD).await;
    let close = client.receive_until(CLOSE).await;
    assert_eq!(close[..2], Close::HandshakeTimeout.code().to_be_bytes());
    assert!(began.elapsed() <= deadline + Duration::from_millis(10), "{:?}", began.elapsed());
}

pub(crate) fn update(body: Vec<u8>, unreliable: bool) -> Message {
    Message::PeerUpdateMessage(WsPeerUpdate { from_alias: 0, body: body.into(), unreliable })
}

#[tokio::test(start_paused = true)]
async fn member_that_sends_gets_no_ping() {
    let mut client = enter(&router(Duration::from_secs(10))).await;
    for number in 0..600u32 {
        time::sleep(Duration::from_millis(100)).await;
        send(&mut client, update(number.to_be_bytes().to_vec(), true)).await;
    }
    client.send(PING, b"last").await;
    assert_eq!(client.receive().await, Some((PONG, b"last".to_vec())), "the first frame in a minute");
}

#[tokio::test(start_paused = true)]
async fn silent_member_is_pinged_twice_and_closed() {
    let mut client = enter(&router(Duration::from_secs(10))).await;
    let close = client.receive_pings_and_close().await;
    assert_eq!(close[..2], Close::Silent.code().to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn throttled_member_is_not_closed_as_silent() {
    let slow = Settings { bytes_per_second: 1_000, ..settings(Duration::from_secs(10)) };
    let mut client = enter(&router_with(slow)).await;
    // Wait until the bytes of the auth chain, which count too, are paid for.
    time::sleep(Duration::from_secs(5)).await;
    client.send(PONG, b"").await;
    let began = Instant::now();
    send(&mut client, update(vec![0; 60_000], false)).await;
    client.send(PING, b"last").await;
    client.receive_after(PONG, began, 59).await;
    client.receive_after(PING, began, 69).await;
}

#[tokio::test(start_paused = true)]
async fn close_frame_reply_depends_on_the_payload() {
    let router = router(Duration::from_secs(1_000));
    assert_close_replies(async || connect(&router).await).await;
    assert_close_replies(async || enter(&router).await).await;
}

/// A sender and a receiver. The sender's whole burst is available.
async fn pair() -> (Client, Client) {
    let router = router(Duration::from_secs(10));
    let (receiver, sender) = (enter_as(&router, 1).await, enter_as(&router, 2).await);
    time::sleep(Duration::from_secs(5)).await;
    (sender, receiver)
}

async fn send_number(client: &mut Client, number: u32, unreliable: bool) {
    send(client, update(number.to_be_bytes().to_vec(), unreliable)).await;
}

/// The number in the next update, and whether the update is unreliable.
async fn receive_number(client: &mut Client) -> (u32, bool) {
    loop {
        if let Message::PeerUpdateMessage(update) = packet(client).await {
            return (u32::from_be_bytes(update.body[..].try_into().unwrap()), update.unreliable);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unreliable_updates_above_the_rate_arrive_fresh() {
    const SECONDS: u32 = 15;
    let (mut sender, mut receiver) = pair().await;
    let began = Instant::now();
    let sending = async {
        for number in 0..40 * SECONDS {
            time::sleep_until(began + number * Duration::from_millis(25)).await;
            send_number(&mut sender, number, true).await;
        }
        send_number(&mut sender, u32::MAX, false).await;
    };
    let receiving = async {
        let mut arrived = 0;
        loop {
            match receive_number(&mut receiver).await {
                (u32::MAX, false) => return arrived,
                (number, _) => {
                    let age = began.elapsed().saturating_sub(number * Duration::from_millis(25));
                    assert!(age < Duration::from_millis(100), "{number} is {age:?} old");
                    arrived += 1;
                }
            }
        }
    };
    let ((), arrived) = tokio::join!(sending, receiving);
    let expected = PER_SECOND as u32 * SECONDS..=PER_SECOND as u32 * (SECONDS + 2);
    assert!(expected.contains(&arrived), "{arrived}");
}

#[tokio::test(start_paused = true)]
async fn reliable_update_behind_an_unreliable_flood_arrives_soon() {
    let (mut sender, mut receiver) = pair().await;
    let began = Instant::now();
    for number in 0..150 {
        send_number(&mut sender, number, true).await;
    }
    send_number(&mut sender, 150, false).await;
    while receive_number(&mut receiver).await != (150, false) {}
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn reliable_updates_above_the_rate_are_slowed_down() {
    let (mut sender, mut receiver) = pair().await;
    let began = Instant::now();
    for number in 0..60 {
        send_number(&mut sender, number, false).await;
    }
    for number in 0..60 {
        assert_eq!(receive_number(&mut receiver).await, (number, false));
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!((1.9..2.1).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn unreliable_updates_do_not_overtake_reliable_ones() {
    let (mut sender, mut receiver) = pair().await;
    for number in 0..120 {
        send_number(&mut sender, number, number % 2 == 0).await;
    }
    let mut reliable = 0;
    let mut latest = None;
    while reliable < 60 {
        let (number, unreliable) = receive_number(&mut receiver).await;
        assert!(latest < Some(number), "{number} after {latest:?}");
        latest = Some(number);
        reliable += u32::from(!unreliable);
    }
    assert_eq!(latest, Some(119));
}

#[tokio::test(start_paused = true)]
async fn flood_of_dropped_updates_is_read_at_ten_times_the_rate() {
    let mut client = enter(&router(Duration::from_secs(10))).await;
    time::sleep(Duration::from_secs(5)).await;
    let message = WsPacket { message: Some(update(Vec::new(), true)) }.encode_to_vec();
    let seconds = client.time_to_read(BINARY, &message).await.as_secs_f64();
    let per_second = (READ_FACTOR as usize * PER_SECOND) as f64;
    let expected = FLOOD as f64 / per_second - 1.0;
    assert!((expected..expected + 0.1).contains(&seconds), "{seconds}, not {expected}");
}
