//! Rate limits, pings and close frames on the sockets of a complete gateway, in paused time.

use std::sync::Arc;

use admission::{Network, Verifier};
use axum::Extension;
use bus::Bus;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use identity::Wallet;
use protocol::{
    Address, Message as _,
    bff::{
        GetChallengeRequest, GetChallengeResponse, PublishToTopicRequest, SignedChallenge,
        SubscriptionRequest,
    },
    v3::{
        ChallengeRequestMessage, ClientPacket, Heartbeat, ServerPacket, SignedChallengeMessage,
        client_packet, server_packet,
    },
};
use rpc::client::{Caller, Event};
use tokio::io::{AsyncWriteExt, DuplexStream};
use ws::testing::{
    BINARY, CLOSE, FIRST_FRAGMENT, FLOOD, FRAGMENT, PER_SECOND, PING, PONG, RawClient, assert_close_replies,
    assert_throttled,
};

use super::*;
use crate::{gateway::Gateway, load_monitor::Usage, session::message::IslandChange, settings as defaults};

const ARCHIPELAGO: &str = "/archipelago/ws";
const RPC: &str = "/rpc";
/// Upper bound of the frames that a client sent before the flood.
const SIGN_IN: usize = 6;

fn settings() -> Settings {
    Settings {
        handshake_timeout: Duration::from_secs(1_000),
        messages_per_second: PER_SECOND as u32,
        ..defaults::tests::settings()
    }
}

fn gateway(settings: Settings) -> Gateway {
    let verifier = Verifier::new(identity::Limits::default());
    Gateway::new(settings, Bus::in_process(), verifier, None, Arc::new(Usage::default))
}

type Client = RawClient<DuplexStream>;

async fn connect(gateway: &Gateway, path: &str) -> Client {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let router = gateway.router().layer(Extension(Network::from_ip([127, 0, 0, 1].into(), 64)));
    let http = hyper::server::conn::http1::Builder::new();
    let connection = http.serve_connection(TokioIo::new(server), TowerToHyperService::new(router));
    tokio::spawn(connection.with_upgrades());
    RawClient::open(client, path).await
}

fn wallet() -> Wallet {
    Wallet::from_secret([7; 32]).unwrap()
}

async fn receive_packet(client: &mut Client) -> server_packet::Message {
    ServerPacket::decode(&client.receive_until(BINARY).await[..]).unwrap().message.unwrap()
}

async fn send_packet(client: &mut Client, message: client_packet::Message) {
    client.send(BINARY, &ClientPacket { message: Some(message) }.encode_to_vec()).await;
}

async fn sign_in(client: &mut Client) -> Address {
    let wallet = wallet();
    let request = ChallengeRequestMessage { address: wallet.address().to_string(), ..Default::default() };
    send_packet(client, client_packet::Message::ChallengeRequest(request)).await;
    let server_packet::Message::ChallengeResponse(response) = receive_packet(client).await else {
        panic!("no challenge")
    };
    let auth_chain_json = wallet.sign_challenge(&response.challenge_to_sign);
    let signed = SignedChallengeMessage { auth_chain_json };
    send_packet(client, client_packet::Message::SignedChallenge(signed)).await;
    assert!(matches!(receive_packet(client).await, server_packet::Message::Welcome(_)));
    wallet.address()
}

/// A client that speaks dcl-rpc.
struct RpcClient {
    client: Client,
    caller: Caller,
    /// Pings that the client received.
    pings: usize,
}

impl RpcClient {
    async fn event(&mut self) -> Event {
        loop {
            while let Some(message) = self.caller.poll_output() {
                self.client.send(BINARY, &message).await;
            }
            if let Some(event) = self.caller.poll_event() {
                return event;
            }
            match self.client.receive().await.expect("a frame") {
                (BINARY, message) => self.caller.receive(&message.into()).unwrap(),
                (PING, _) => self.pings += 1,
                frame => panic!("{frame:?}"),
            }
        }
    }

    async fn call(
        &mut self,
        module: &'static str,
        procedure: &'static str,
        argument: impl protocol::Message,
    ) -> Event {
        self.caller.call(module, procedure, argument.encode_to_vec().into()).unwrap();
        self.event().await
    }

    async fn sign_in(client: Client) -> Self {
        let (wallet, module) = (wallet(), "BffAuthenticationService");
        let mut rpc = Self { client, caller: Caller::new(8), pings: 0 };
        let request = GetChallengeRequest { address: wallet.address().to_string(), ..Default::default() };
        let Event::Answered { payload, .. } = rpc.call(module, "GetChallenge", request).await else {
            panic!("no challenge")
        };
        let response = GetChallengeResponse::decode(payload).unwrap();
        let auth_chain_json = wallet.sign_challenge(&response.challenge_to_sign);
        let welcome = rpc.call(module, "Authenticate", SignedChallenge { auth_chain_json }).await;
        assert!(matches!(welcome, Event::Answered { .. }), "{welcome:?}");
        rpc
    }
}

#[tokio::test(start_paused = true)]
async fn archipelago_frames_are_throttled_before_sign_in() {
    let gateway = gateway(settings());
    assert_throttled(async || connect(&gateway, ARCHIPELAGO).await, SIGN_IN).await;
}

#[tokio::test(start_paused = true)]
async fn archipelago_frames_are_throttled_after_sign_in() {
    let gateway = gateway(settings());
    assert_throttled(
        async || {
            let mut client = connect(&gateway, ARCHIPELAGO).await;
            sign_in(&mut client).await;
            client
        },
        SIGN_IN,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn rpc_frames_are_throttled_before_sign_in() {
    let gateway = gateway(settings());
    assert_throttled(async || connect(&gateway, RPC).await, SIGN_IN).await;
}

#[tokio::test(start_paused = true)]
async fn rpc_frames_are_throttled_after_sign_in() {
    let gateway = gateway(settings());
    assert_throttled(async || RpcClient::sign_in(connect(&gateway, RPC).await).await.client, SIGN_IN).await;
}

#[tokio::test(start_paused = true)]
async fn flood_before_sign_in_ends_at_the_deadline() {
    let deadline = Duration::from_secs(10);
    let gateway = gateway(Settings { handshake_timeout: deadline, ..settings() });
    for path in [ARCHIPELAGO, RPC] {
        let mut client = connect(&gateway, path).await;
        let began = Instant::now();
        client.send(FIRST_FRAGMENT, b"").await;
        client.flood(FRAGMENT, b"", FLOOD).await;
        let close = client.receive_until(CLOSE).await;
        assert_eq!(close[..2], Close::HandshakeTimeout.code().to_be_bytes());
        assert!(began.elapsed() <= deadline + Duration::from_millis(10), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_session_receives_packets_and_no_pings() {
    let gateway = gateway(settings());
    let mut client = connect(&gateway, ARCHIPELAGO).await;
    let address = sign_in(&mut client).await;
    client.send(FIRST_FRAGMENT, b"").await;
    client.flood(FRAGMENT, b"", FLOOD).await;
    time::sleep(Duration::from_secs(40)).await;
    let began = Instant::now();
    let change =
        IslandChange { island: "I1".parse().unwrap(), node: None, is_mesh: false, message: Bytes::new() };
    gateway.0.sessions.deliver_island_change(address, None, change);
    let (first, packet) = client.receive().await.unwrap();
    assert_eq!(first, BINARY, "frames arrived all the time, so no ping was due");
    let packet = ServerPacket::decode(&packet[..]).unwrap().message;
    assert!(matches!(packet, Some(server_packet::Message::IslandChanged(_))));
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
}

fn heartbeat() -> Heartbeat {
    Heartbeat { position: Some(Default::default()), desired_room: None }
}

#[tokio::test(start_paused = true)]
async fn archipelago_client_that_sends_gets_no_ping() {
    let gateway = gateway(settings());
    let mut client = connect(&gateway, ARCHIPELAGO).await;
    sign_in(&mut client).await;
    for _ in 0..60 {
        time::sleep(Duration::from_secs(1)).await;
        send_packet(&mut client, client_packet::Message::Heartbeat(heartbeat())).await;
    }
    client.send(PING, b"last").await;
    assert_eq!(
        client.receive().await,
        Some((PONG, b"last".to_vec())),
        "the client received no other frame in a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn rpc_client_that_sends_gets_no_ping() {
    let gateway = gateway(settings());
    let mut rpc = RpcClient::sign_in(connect(&gateway, RPC).await).await;
    for _ in 0..60 {
        time::sleep(Duration::from_secs(1)).await;
        let sent = rpc.call("CommsDirectorService", "SendHeartbeat", heartbeat()).await;
        assert!(matches!(sent, Event::Answered { .. }), "{sent:?}");
    }
    assert_eq!(rpc.pings, 0);
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_pinged_twice_and_closed() {
    let gateway = gateway(settings());
    for path in [ARCHIPELAGO, RPC] {
        let mut client = connect(&gateway, path).await;
        let mut client = if path == RPC {
            RpcClient::sign_in(client).await.client
        } else {
            sign_in(&mut client).await;
            client
        };
        let close = client.receive_pings_and_close().await;
        assert_eq!(close[..2], Close::Silent.code().to_be_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_sends_no_heartbeats_is_idle() {
    let gateway = gateway(settings());
    let mut client = connect(&gateway, ARCHIPELAGO).await;
    sign_in(&mut client).await;
    let began = Instant::now();
    for _ in 0..18 {
        time::sleep(Duration::from_secs(5)).await;
        client.send(PONG, b"").await;
    }
    let close = client.receive_after(CLOSE, began, 90).await;
    assert_eq!(close[..2], Close::Idle.code().to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn incomplete_frame_bytes_count_as_activity() {
    let gateway = gateway(Settings { idle_timeout: Duration::from_secs(1_000), ..settings() });
    let mut client = connect(&gateway, ARCHIPELAGO).await;
    sign_in(&mut client).await;
    let began = Instant::now();
    for byte in ws::testing::client_frame(PING, b"slow") {
        time::sleep(Duration::from_secs(9)).await;
        client.0.write_all(&[byte]).await.unwrap();
    }
    client.receive_after(PONG, began, 90).await;
}

#[tokio::test(start_paused = true)]
async fn throttled_session_is_not_closed_as_silent() {
    let gateway = gateway(Settings { topic_bytes_per_second: 100, ..settings() });
    let mut rpc = RpcClient::sign_in(connect(&gateway, RPC).await).await;
    let topic = PublishToTopicRequest { topic: "plaza".to_owned(), payload: vec![0; 6_000].into() };
    let sent = rpc.call("TopicsService", "PublishToTopic", topic).await;
    assert!(matches!(sent, Event::Answered { .. }), "{sent:?}");
    let began = Instant::now();
    rpc.client.send(PING, b"last").await;
    rpc.client.receive_after(PONG, began, 59).await;
}

#[tokio::test(start_paused = true)]
async fn due_rpc_acknowledgements_are_not_throttled() {
    let gateway = gateway(settings());
    let mut rpc = RpcClient::sign_in(connect(&gateway, RPC).await).await;
    let subscription = SubscriptionRequest { topic: "plaza".to_owned() };
    let opened = rpc.call("TopicsService", "PeerSubscription", subscription).await;
    let Event::Opened { number } = opened else { panic!("{opened:?}") };
    let began = Instant::now();
    for _ in 0..FLOOD {
        rpc.caller.request_next(number);
        let topic = "plaza".parse().unwrap();
        gateway.0.topics.deliver_peer(Address::new([1; 20]), &topic, &Bytes::from_static(b"hello"));
        assert!(matches!(rpc.event().await, Event::Element { .. }));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn close_frame_reply_depends_on_its_payload() {
    let gateway = gateway(settings());
    for path in [ARCHIPELAGO, RPC] {
        assert_close_replies(async || connect(&gateway, path).await).await;
    }
}
