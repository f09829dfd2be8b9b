//! LiveKit nodes that fail and recover.

use super::*;

/// A realm with a healthy LiveKit server.
async fn with_livekit(url: &str) -> Realm {
    let realm = Realm::start(&[
        ("LIVEKIT__LK__URL", url),
        ("LIVEKIT__LK__API_KEY", "devkey"),
        ("LIVEKIT__LK__API_SECRET", "secret"),
        ("ISLANDS__MOVE_INTERVAL_S", "1"),
    ]);
    eventually("LiveKit", async || realm.count("atoll_transport_healthy{node=\"lk\"}").await == 1.0).await;
    realm
}

/// A fake of LiveKit's API, which takes so many milliseconds to respond.
async fn fake_livekit(delay_ms: Arc<AtomicU64>) -> String {
    let answer = async move || {
        tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
        // An empty list of rooms.
        ([(header::CONTENT_TYPE, "application/protobuf")], Vec::<u8>::new())
    };
    let app = Router::new().route("/twirp/livekit.RoomService/ListRooms", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("ws://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_livekit_loses_its_islands_until_it_recovers() {
    let delay_ms = Arc::new(AtomicU64::new(0));
    let url = fake_livekit(delay_ms.clone()).await;
    let realm = with_livekit(&url).await;
    let mut peer = TestPeer::join(&realm, &[], 0.0, 0.0).await;
    let island = peer.change.island_id.clone();
    if matches!(connection(&peer.change), ConnectionString::WsRoom { .. }) {
        // The engine received the node's health a moment later.
        peer.next_assignment(0.0, 0.0).await;
    }
    assert!(matches!(connection(&peer.change), ConnectionString::LiveKit { .. }));
    delay_ms.store(3_600_000, Ordering::Relaxed);
    let hung = Instant::now();
    let change = peer.next_assignment(0.0, 0.0).await;
    assert!(matches!(connection(change), ConnectionString::WsRoom { .. }));
    assert_eq!((&change.island_id, change.from_island_id.as_ref()), (&island, Some(&island)));
    // The hang timeout of three seconds, two more, and slack for a busy machine.
    assert!(hung.elapsed() < Duration::from_secs(10), "{:?}", hung.elapsed());
    let why = explain_first_line(&realm, &["--island", &island]).await;
    assert!(
        why.starts_with("node dead: ") && why.contains("lk does not fit: it is down: no reply within 3s"),
        "{why}"
    );
    delay_ms.store(0, Ordering::Relaxed);
    let healthy = Instant::now();
    let change = peer.next_assignment(0.0, 0.0).await;
    assert!(matches!(connection(change), ConnectionString::LiveKit { .. }));
    assert_eq!(change.from_island_id.as_ref(), Some(&island));
    assert!(
        healthy.elapsed() >= Duration::from_secs(3),
        "it moved before the settling time: {:?}",
        healthy.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn livekit_with_a_slow_api_keeps_its_islands() {
    let delay_ms = Arc::new(AtomicU64::new(800));
    let url = fake_livekit(delay_ms.clone()).await;
    let realm = with_livekit(&url).await;
    let mut peer = TestPeer::join(&realm, &[], 0.0, 0.0).await;
    if matches!(connection(&peer.change), ConnectionString::WsRoom { .. }) {
        peer.next_assignment(0.0, 0.0).await;
    }
    assert!(matches!(connection(&peer.change), ConnectionString::LiveKit { .. }));
    for delay in [800, 2_500] {
        delay_ms.store(delay, Ordering::Relaxed);
        for _ in 0..5 {
            peer.wire.send_position(0.0, 0.0).await;
            assert!(peer.wire.is_quiet_for(Duration::from_secs(1)).await, "moved by an API of {delay} ms");
        }
    }
    // Replies alternate between slow and fast.
    let seconds = std::env::var("ATOLL_LIVEKIT_FIGURES").map_or(5, |_| 60);
    let alternating = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(700));
        for delay in [900, 50].into_iter().cycle() {
            ticks.tick().await;
            delay_ms.store(delay, Ordering::Relaxed);
        }
    };
    let quiet = async {
        for _ in 0..seconds {
            peer.wire.send_position(0.0, 0.0).await;
            assert!(peer.wire.is_quiet_for(Duration::from_secs(1)).await, "moved by alternating replies");
        }
    };
    tokio::select! {
        () = alternating => {}
        () = quiet => println!("replies of 900 and 50 ms in turn for {seconds} s: no move"),
    }
    assert_eq!(realm.count("atoll_transport_healthy{node=\"lk\"}").await, 1.0);
}
