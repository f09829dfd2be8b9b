//! Bad input of members of rooms, and members that do not read.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn room_socket_refuses_malformed_frames() {
    let realm = Realm::start(&[]);
    let (_wire, mut observer, _) = enter(&realm, &wallet(), 0.0).await;
    assert_bad_frames_refused(async || {
        let mut wire = sign_in(&realm, &wallet()).await;
        wire.heartbeat(0.0).await;
        Wire::open(&room_url(&wire.island_changed().await)).await
    })
    .await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(enter(&realm, &wallet(), 0.0).await);
        // A member that leaves before its join was announced is never announced.
        let joined = observer.next_in_room().await;
        assert!(matches!(joined, ws_packet::Message::PeerJoinMessage(_)), "{joined:?}");
    }
    let rooms = std::sync::Mutex::new(wires);
    assert_bad_frames_refused(async || rooms.lock().unwrap().pop().unwrap().1).await;
    for _ in 0..4 {
        let left = observer.next_in_room().await;
        assert!(matches!(left, ws_packet::Message::PeerLeaveMessage(_)), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_for_another_room_or_address_are_refused() {
    let realm = Realm::start(&[("ROOMS__TOKEN_TTL_S", "2")]);
    let (me, other) = (wallet(), wallet());
    let mut wire = sign_in(&realm, &me).await;
    wire.heartbeat(0.0).await;
    let change = wire.island_changed().await;
    let url = room_url(&change);
    let refused = async |url: &str, wallet| {
        let mut room = Wire::open(url).await;
        room.identify(wallet).await;
        room.closed().await
    };
    let forged = url.replace("access_token=ey", "access_token=ez");
    assert_eq!(refused(&forged, &me).await.0, Close::TokenRefused);
    let other_room = url.replace(&change.island_id, "I0000elsewhere");
    let (close, reason) = refused(&other_room, &me).await;
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, "the access token is for another room"));
    let (close, reason) = refused(&url, &other).await;
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, "the access token is for another address"));
    let bare = url.split('?').next().unwrap();
    assert_eq!(refused(bare, &me).await.0, Close::UnknownRoom);
    let secret = transports::ws_room::Minter::new(b"another secret of sixteen", Duration::from_secs(60));
    let minted = protocol::Ulid(1);
    let island = change.island_id.parse().unwrap();
    let stolen = secret.connection(&realm.ws, &island, me.address(), minted, std::time::SystemTime::now());
    let stolen = stolen.unwrap().to_string().replace("ws-room:", "");
    assert_eq!(refused(&stolen, &me).await.0, Close::TokenRefused);
    sleep(Duration::from_millis(2_100)).await;
    let (close, reason) = refused(&url, &me).await;
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, "the access token has expired"));
    assert_eq!(realm.get("/rooms/no.such*room").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_stops_reading_is_closed_without_side_effects() {
    let realm =
        Realm::start(&[("ROOMS__BYTES_PER_SECOND", "100000000"), ("ROOMS__MESSAGES_PER_SECOND", "100000")]);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut slow, slow_welcome) = enter(&realm, &wallet(), 1.0).await;
    let (_w3, mut listener, _) = enter(&realm, &wallet(), 2.0).await;
    let (seen, mut has_seen) = tokio::sync::oneshot::channel();
    // It reads to the end: otherwise messages that the talker's connection still holds would fill its
    // own queue.
    let listening = tokio::spawn(async move {
        let (mut received, mut slow_left_after, mut seen) = (0u32, None, Some(seen));
        loop {
            match listener.next_in_room().await {
                ws_packet::Message::PeerUpdateMessage(update) => {
                    assert_eq!(update.body[..4], received.to_be_bytes(), "in order, none missing");
                    received += 1;
                }
                ws_packet::Message::PeerLeaveMessage(leave) => {
                    assert_eq!(leave.alias, slow_welcome.alias);
                    slow_left_after = Some(received);
                }
                _ => {}
            }
            if let Some(after) = slow_left_after
                && received >= after + 20
                && let Some(seen) = seen.take()
            {
                let _ = seen.send(());
            }
        }
    });
    // Sends more than any socket buffer holds, until the listener has seen enough.
    let mut number = 0u32;
    while has_seen.try_recv().is_err() {
        assert!(!listening.is_finished(), "the listener failed");
        let mut body = vec![0; 60_000];
        body[..4].copy_from_slice(&number.to_be_bytes());
        sender.update(body, false).await;
        number += 1;
        assert!(number < 5_000, "the slow member was never closed");
        sleep(Duration::from_millis(4)).await;
    }
    // A member that reads again receives the reason; its queued messages were dropped.
    let end = timeout(TEST_TIMEOUT, async {
        loop {
            match futures_util::StreamExt::next(&mut slow.0).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    });
    assert_eq!(end.await.expect("an end"), Some(Close::TooSlow.code()));
    assert_eq!(realm.closed("rooms", Close::TooSlow).await, 1.0);
    assert_eq!(realm.metric("dcl_ws_rooms_connections").await, 2.0);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_sends_without_reading_is_closed() {
    // Unreliable messages to it are dropped, so its queue never overflows; but its socket accepts no
    // byte.
    let settings = [
        ("ROOMS__WRITE_TIMEOUT_S", "1"),
        ("ROOMS__BYTES_PER_SECOND", "100000000"),
        ("ROOMS__MESSAGES_PER_SECOND", "100000"),
    ];
    let realm = Realm::start(&settings);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut slow, _) = enter(&realm, &wallet(), 1.0).await;
    let deadline = std::time::Instant::now() + TEST_TIMEOUT;
    let mut closed = 0.0;
    while closed == 0.0 {
        assert!(std::time::Instant::now() < deadline, "the slow member was never closed");
        for _ in 0..20 {
            sender.update(vec![0; 60_000], true).await;
            // A server that has closed it accepts nothing more.
            let _ = futures_util::SinkExt::send(&mut slow.0, Message::Ping("here".into())).await;
            sleep(Duration::from_millis(4)).await;
        }
        closed = realm.closed("rooms", Close::TooSlow).await;
    }
    assert_eq!(realm.metric("dcl_ws_rooms_connections").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_sockets_closed_at_any_step_leave_nothing() {
    let realm = Realm::start(&[("ROOMS__OPEN", "lobby")]);
    for step in 0..4 {
        for abruptly in [true, false] {
            let wallet = wallet();
            let mut wire = Wire::open(&format!("{}/rooms/lobby", realm.ws)).await;
            if step > 0 {
                wire.identify(&wallet).await;
            }
            if step > 1 {
                let ws_packet::Message::ChallengeMessage(challenge) = wire.next_in_room().await else {
                    panic!("no challenge")
                };
                let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
                let signed = protocol::rfc5::WsSignedChallenge { auth_chain_json };
                wire.send_room_packet(ws_packet::Message::SignedChallengeForServer(signed)).await;
            }
            if step > 2 {
                wire.welcome().await;
            }
            if abruptly {
                raw(&mut wire).set_zero_linger().unwrap();
                drop(wire);
            } else {
                wire.0.close(None).await.unwrap();
            }
        }
    }
    eventually("no socket, member or room is left", async || {
        realm.metric("atoll_rooms_sockets").await == 0.0
            && realm.metric("dcl_ws_rooms_connections").await == 0.0
            && realm.metric("dcl_ws_rooms_count").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flooding_member_is_throttled_without_loss() {
    let realm = Realm::start(&[("ROOMS__MESSAGES_PER_SECOND", "50")]);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut listener, _) = enter(&realm, &wallet(), 1.0).await;
    let began = std::time::Instant::now();
    for number in 0..150u32 {
        sender.update(number.to_be_bytes().to_vec(), false).await;
    }
    let mut received = 0;
    while received < 150 {
        if let ws_packet::Message::PeerUpdateMessage(update) = listener.next_in_room().await {
            assert_eq!(update.body[..], (received as u32).to_be_bytes());
            received += 1;
        }
    }
    // The burst of one second passes; the other hundred messages take two seconds.
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
}
