//! The BFF services over dcl-rpc: sign-in, sessions, connection strings, topics.

mod official;
mod topics;

use std::time::Duration;

use protocol::{
    Close, Message,
    bff::{DisconnectionMessage, GetChallengeRequest, SignedChallenge},
    dcl_rpc::{Request, RequestModule},
    v3::server_packet,
};
use test_support::{
    Realm, eventually,
    rpc_caller::{self, Caller, REQUEST, REQUEST_MODULE, sign_in},
    wallet,
    wire::{self, Wire, room_url},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_byte_by_byte() {
    let realm = Realm::start(&[]);
    let mut wire = Wire::open(&format!("{}/rpc", realm.ws)).await;
    assert_eq!(wire.next().await, b"\x0d\x00\x00\x00\x58");
    wire.send(b"\x0d\x01\x00\x00\x28\x22\x04game".to_vec()).await;
    assert_eq!(wire.next().await, b"\x0d\x01\x00\x00\x30\x15\x01\x00\x00\x00");
    wire.send(b"\x0d\x02\x00\x00\x38\x15\x01\x00\x00\x00\x22\x18BffAuthenticationService".to_vec()).await;
    let loaded = [
        &b"\x0d\x02\x00\x00\x40\x15\x01\x00\x00\x00"[..],
        b"\x2a\x13\x0d\x01\x00\x00\x00\x12\x0cGetChallenge",
        b"\x2a\x13\x0d\x02\x00\x00\x00\x12\x0cAuthenticate",
        b"\x2a\x1e\x0d\x03\x00\x00\x00\x12\x17GetDisconnectionMessage",
    ];
    assert_eq!(wire.next().await, loaded.concat());
    let wallet = wallet();
    let mut ask = b"\x0d\x03\x00\x00\x08\x15\x01\x00\x00\x00\x25\x01\x00\x00\x00\x32\x2c\x0a\x2a".to_vec();
    ask.extend(wallet.address().to_string().bytes());
    wire.send(ask).await;
    let answer = wire.next().await;
    let text = answer.strip_prefix(b"\x0d\x03\x00\x00\x10\x32").unwrap();
    assert_eq!(&text[1..2], b"\x0a");
    let challenge = std::str::from_utf8(&text[3..]).unwrap();
    assert!(challenge.starts_with("dcl-"), "{challenge}");
    let signed = SignedChallenge { auth_chain_json: wallet.sign_challenge(challenge) };
    let request = Request {
        message_identifier: rpc_caller::identifier(REQUEST, 4),
        port_id: 1,
        procedure_id: 2,
        client_stream: 0,
        payload: signed.encode_to_vec().into(),
    };
    wire.send(request.encode_to_vec()).await;
    let welcome = wire.next().await;
    let address = wallet.address().to_string();
    let start = [&b"\x0d\x04\x00\x00\x10\x32"[..], &welcome[6..8], b"\x0a\x2a", address.as_bytes()].concat();
    assert!(welcome.starts_with(&start), "{welcome:?}");
    assert_eq!(realm.json("/about").await["bff"]["userCount"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_and_socket_clients_meet_in_one_room() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let mut caller = sign_in(&realm, &one).await;
    // The first assignment waits until the client requests commands.
    caller.heartbeat(0.0).await;
    let commands = caller.stream("CommsDirectorService.GetCommsCommands", &()).await;
    let adapter = caller.adapter(commands, 0).await;
    let url = adapter.strip_prefix("ws-room:").expect("a room");
    let mut room = Wire::open(url).await;
    room.identify(&one).await;
    assert!(room.welcome().await.peer_identities.is_empty());
    let (_wire, _room, welcome) = wire::enter(&realm, &two, 10.0).await;
    let addresses: Vec<&String> = welcome.peer_identities.values().collect();
    assert_eq!(addresses, [&one.address().to_string()]);
    // Nothing changed for the first client.
    caller.acknowledge(commands, 1, false).await;
    caller.heartbeat(0.0).await;
    assert!(caller.wire.is_quiet_for(Duration::from_secs(1)).await);
    // Far away from the two others, it leaves their island and is assigned a new one. It then ends the
    // stream.
    let _third = wire::enter(&realm, &wallet(), 10.0).await;
    caller.heartbeat(5_000.0).await;
    let element = caller.stream_message(commands).await;
    assert_eq!((element.sequence_id, element.closed), (2, false));
    caller.acknowledge(commands, 2, true).await;
    caller.heartbeat(0.0).await;
    assert!(caller.wire.is_quiet_for(Duration::from_secs(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_session_wins_across_dialects() {
    let realm = Realm::start(&[]);
    let wallet = wallet();
    let mut socket = wire::sign_in(&realm, &wallet).await;
    socket.heartbeat(0.0).await;
    let island = room_url(&socket.island_changed().await);
    let mut caller = sign_in(&realm, &wallet).await;
    assert!(matches!(socket.next_packet().await, server_packet::Message::Kicked(_)));
    assert_eq!(socket.closed().await.0, Close::NewSession);
    // The first heartbeat of a new session causes an assignment, although the island is the same.
    let commands = caller.stream("CommsDirectorService.GetCommsCommands", &()).await;
    caller.heartbeat(0.0).await;
    let adapter = caller.adapter(commands, 0).await;
    let room = |url: &str| url.split('?').next().unwrap().replace("ws-room:", "");
    assert_eq!(room(&adapter), room(&island));
    // A session over the socket then replaces the one over RPC.
    let end_call = caller.call("BffAuthenticationService.GetDisconnectionMessage", &()).await;
    // The response proves that the gateway has read the call before.
    caller.heartbeat(0.0).await;
    let mut asks = Caller::open(&realm).await;
    assert!(asks.challenge(&wallet).await.already_connected);
    let _socket = wire::sign_in(&realm, &wallet).await;
    assert_eq!(caller.response::<DisconnectionMessage>(end_call).await.reason, 0);
    let (close, reason) = caller.wire.closed().await;
    assert_eq!((close, &*reason), (Close::NewSession, Close::NewSession.reason()));
    assert_eq!(realm.metric("explorer_bff_connected_users").await, 1.0);
    // Two sessions of the same dialect.
    let mut older = sign_in(&realm, &wallet).await;
    let _newer = sign_in(&realm, &wallet).await;
    assert_eq!(older.wire.closed().await.0, Close::NewSession);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_are_answered_with_errors() {
    let realm = Realm::start(&[]);
    let mut caller = Caller::open(&realm).await;
    let port_id = caller.port;
    // Before the sign-in only one service is available.
    for module in ["CommsDirectorService", "TopicsService", "CommsService", "Nonsense"] {
        let message_identifier = caller.next_identifier(REQUEST_MODULE);
        let load = RequestModule { message_identifier, port_id, module_name: module.to_owned() };
        caller.wire.send(load.encode_to_vec()).await;
        assert_eq!(caller.expect_error(message_identifier & 0xffff).await, "unknown module", "{module}");
    }
    for (port_id, procedure_id, error) in
        [(99, 1, "unknown port"), (port_id, 99, "unknown procedure"), (port_id, 1, "undecodable payload")]
    {
        let message_identifier = caller.next_identifier(REQUEST);
        let payload = b"\x0a\x05x"[..].into();
        let request = Request { message_identifier, port_id, procedure_id, client_stream: 0, payload };
        caller.wire.send(request.encode_to_vec()).await;
        assert_eq!(caller.expect_error(message_identifier & 0xffff).await, error);
    }
    // A failed sign-in has its reason in the response and in the close frame.
    let request = GetChallengeRequest { address: "me".to_owned(), ..Default::default() };
    let reason = caller.call_expecting_error("BffAuthenticationService.GetChallenge", &request).await;
    assert_eq!(caller.wire.closed().await, (Close::AuthRefused, reason));
    let mut caller = Caller::open(&realm).await;
    caller.challenge(&wallet()).await;
    let signed = SignedChallenge { auth_chain_json: wallet().sign_challenge("dcl-other") };
    let reason = caller.call_expecting_error("BffAuthenticationService.Authenticate", &signed).await;
    assert_eq!(caller.wire.closed().await, (Close::AuthRefused, reason));
    // A malformed frame belongs to no call, so only the close frame reports it.
    let mut caller = sign_in(&realm, &wallet()).await;
    assert_eq!(
        caller.call_expecting_error("BffAuthenticationService.Authenticate", &signed).await,
        "already signed in"
    );
    caller.wire.send(vec![0xff]).await;
    assert_eq!(caller.wire.closed().await.0, Close::Undecodable);
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_sessions_are_limited_and_drained() {
    let settings = [("GATEWAY__MAX_SESSIONS", "1"), ("GATEWAY__HANDSHAKE_TIMEOUT_S", "1")];
    let mut realm = Realm::start(&settings);
    let mut silent = Caller::open(&realm).await;
    assert_eq!(silent.wire.closed().await.0, Close::HandshakeTimeout);
    let mut first = sign_in(&realm, &wallet()).await;
    let (mut second, other) = (Caller::open(&realm).await, wallet());
    let challenge = second.challenge(&other).await.challenge_to_sign;
    let signed = SignedChallenge { auth_chain_json: other.sign_challenge(&challenge) };
    assert_eq!(
        second.call_expecting_error("BffAuthenticationService.Authenticate", &signed).await,
        "server full"
    );
    assert_eq!(second.wire.closed().await.0, Close::Full);
    eventually("one socket is open", async || realm.metric("atoll_gateway_sockets").await == 1.0).await;
    realm.interrupt();
    assert_eq!(first.wire.closed().await.0, Close::Restarting);
    drop(first);
    assert!(realm.wait(Duration::from_secs(10)).0.success());
}
