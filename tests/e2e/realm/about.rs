//! The realm's `/about`: adapter, health, users, URLs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn fixed_adapter_is_shown_in_about() {
    for adapter in
        ["offline:offline", "ws-room:wss://rooms.example/rooms/x", "livekit:wss://lk?access_token=x"]
    {
        let realm = Realm::start(&[("REALM__FIXED_ADAPTER", adapter)]);
        let comms = realm.json("/about").await["comms"].clone();
        let expected = json!([format!("fixed-adapter:{adapter}"), adapter]);
        assert_eq!(json!([comms["adapter"], comms["fixedAdapter"]]), expected);
    }
    let realm = Realm::start(&[]);
    let comms = realm.json("/about").await["comms"].clone();
    assert!(comms.get("fixedAdapter").is_none(), "{comms}");
}

/// A fake content service: `/content/status` is healthy while the flag is set.
async fn content() -> (String, Arc<AtomicBool>) {
    let is_healthy = Arc::new(AtomicBool::new(true));
    let answer = {
        let is_healthy = is_healthy.clone();
        async move || if is_healthy.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::BAD_GATEWAY }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/content", listener.local_addr().unwrap());
    let app = Router::new().route("/content/status", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, is_healthy)
}

#[tokio::test(flavor = "multi_thread")]
async fn realm_health_follows_its_services() {
    let (url, is_healthy) = content().await;
    let realm = Realm::start(&[("REALM__CONTENT_URL", &format!("{url}/"))]);
    let states = async || {
        let response = realm.get("/about").await;
        let status = response.status().as_u16();
        let about: Value = response.json().await.unwrap();
        let healthy = |of: &Value| of["healthy"].as_bool().unwrap();
        (status, healthy(&about), healthy(&about["content"]), about["acceptingUsers"].as_bool().unwrap())
    };
    eventually("healthy", async || states().await == (200, true, true, true)).await;
    let about = realm.json("/about").await;
    assert_eq!(about["content"]["publicUrl"], format!("{url}/"));
    assert_eq!(about["lambdas"], json!({"healthy": true, "publicUrl": ""}));
    is_healthy.store(false, Ordering::SeqCst);
    eventually("unhealthy", async || states().await == (503, false, false, false)).await;
    assert_eq!(realm.metric("atoll_realm_service_healthy{service=\"content\"}").await, 0.0);
    // The other services stay healthy.
    let about = realm.json("/about").await;
    assert_eq!(json!([about["comms"]["healthy"], about["bff"]["healthy"]]), json!([true, true]));
    is_healthy.store(true, Ordering::SeqCst);
    eventually("healthy again", async || states().await == (200, true, true, true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_realm_accepts_no_users() {
    let realm = Realm::start(&[("GATEWAY__MAX_SESSIONS", "1")]);
    let accepting = async || realm.json("/about").await["acceptingUsers"].as_bool().unwrap();
    eventually("ready", accepting).await;
    let inside = sign_in(&realm, &wallet()).await;
    assert!(!accepting().await);
    assert_eq!(realm.get("/about").await.status(), 200, "a full realm is healthy");
    drop(inside);
    eventually("a session is free", accepting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overloaded_realm_advertises_full_but_serves_sign_ins() {
    let asks_nobody_in = async |realm: &Realm| {
        let response = realm.get("/about").await;
        response.status() == 200
            && response.json::<Value>().await.unwrap()["acceptingUsers"] == false
            && realm.metric("atoll_gateway_accepting").await == 0.0
    };
    let memory = Realm::start(&[&PLAZA[..], &[("GATEWAY__MAX_MEMORY_MB", "1")]].concat());
    eventually("short of memory", async || asks_nobody_in(&memory).await).await;
    sign_in(&memory, &wallet()).await;
    let (status, message) = refused(&memory, &signed(&wallet(), METADATA, SystemTime::now())).await;
    assert_eq!((status, message.as_str()), (503, "the realm is too busy, come back later"));
    // Rendering the metrics 50 times takes more than one percent of CPU.
    let cpu = Realm::start(&[("GATEWAY__MAX_CPU_PERCENT", "1")]);
    eventually("short of CPU", async || {
        for _ in 0..50 {
            cpu.get("/metrics").await.bytes().await.unwrap();
        }
        asks_nobody_in(&cpu).await
    })
    .await;
    // With limits far above the usage nothing changes.
    let idle = [("GATEWAY__MAX_MEMORY_MB", "100000"), ("GATEWAY__MAX_CPU_PERCENT", "100")];
    let idle = Realm::start(&idle);
    eventually("ready", async || idle.json("/about").await["acceptingUsers"] == true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_realm_is_unhealthy_in_about() {
    let realm = plaza(&[]).await;
    // This client is connected, and ignores the close.
    let (_wire, _room, _) = enter(&realm, &wallet(), 0.0).await;
    assert_eq!(realm.json("/about").await["healthy"], true);
    realm.interrupt();
    eventually("draining", async || realm.get("/about").await.status() == 503).await;
    let about = realm.json("/about").await;
    let states = json!([about["healthy"], about["acceptingUsers"], about["bff"]["healthy"]]);
    assert_eq!(states, json!([false, false, false]));
    let (status, message) = refused(&realm, &signed(&wallet(), METADATA, SystemTime::now())).await;
    assert_eq!((status, message.contains("restarting")), (503, true), "{message}");
}

#[test]
fn invalid_realm_settings_are_refused_with_key_and_value() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("ATOLL__REALM__FIXED_ADAPTER", "offline")
        .env("ATOLL__REALM__FIXED_ROOM", "a room")
        .env("ATOLL__REALM__CONTENT_URL", "peer.example")
        .env("ATOLL__ROOMS__OPEN", "name.dcl.eth, *.dcl.eth, status")
        .env("ATOLL__IDENTITY__ETHEREUM_RPC_URL", "node.example/key")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    for part in [
        "realm.fixed_adapter = offline: a connection string is a protocol, a colon and parameters",
        "realm.fixed_room = a room: must be",
        "realm.content_url = \"peer.example\": must be",
        "rooms.open = *.dcl.eth: no room can have such a name",
        "rooms.open = status: /rooms/status is not a room",
        "identity.ethereum_rpc_url = (hidden): must be",
        "6 problem(s)",
    ] {
        assert!(stderr.contains(part), "{part} not in {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_name_the_host_of_the_realm() {
    let challenge = async |settings: &[(&str, &str)]| {
        let realm = Realm::start(settings);
        Wire::open(&realm.socket()).await.request_challenge(&wallet()).await
    };
    let challenge_of = async |url| challenge(&[("REALM__PUBLIC_URL", url)]).await;
    assert!(challenge(&[]).await.starts_with("dcl-127.0.0.1-"));
    assert!(challenge_of("https://realm.example:8443/one").await.starts_with("dcl-realm.example-"));
    let ipv6 = challenge_of("https://[2001:db8::1]:8443").await;
    assert!(ipv6.starts_with("dcl-2001-db8--1-") && !ipv6.contains(':'), "{ipv6}");
}

#[tokio::test(flavor = "multi_thread")]
async fn realm_below_a_path_has_its_bff_there() {
    for (path, bff) in
        [("/realms/one/", "/realms/one/bff"), ("/realms/one", "/realms/one/bff"), ("/", "/bff")]
    {
        let at = free_address().to_string();
        let public_url = format!("http://{at}{path}");
        let _realm = Realm::launch_at(&at, &[], &[("SERVER__PUBLIC_URL", &public_url)]);
        let about = reqwest::get(format!("http://{at}/about")).await.unwrap();
        let about: Value = about.json().await.unwrap();
        assert_eq!(about["bff"]["publicUrl"], bff, "{public_url}");
    }
}

#[test]
fn impossible_urls_are_refused_at_start() {
    for key in ["SERVER__PUBLIC_URL", "REALM__PUBLIC_URL"] {
        for url in [
            "http://h ",
            "https://",
            "h:5000",
            "ws://h",
            "http://user:word@h",
            "http://h?x",
            "http://0.0.0.0:1",
        ] {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"))
                .args(["config", "--listen", "127.0.0.1:0"])
                .env(format!("ATOLL__{key}"), url)
                .output()
                .unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            let expected = format!("{} = {url:?}: must be http://", key.to_lowercase().replace("__", "."));
            assert!(!output.status.success() && error.contains(&expected), "{url}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_count_follows_sign_ins_on_every_gateway() {
    let mut cluster = Cluster::start(&[]);
    cluster.run("director", "director", &[]);
    cluster.run("rooms", "rooms", &[]);
    cluster.run("one", "gateway", &[]);
    cluster.run("two", "gateway", &[]);
    cluster.ready().await;
    let counted = async |cluster: &Cluster, users: u64| {
        for gateway in ["one", "two"] {
            // The count may be one second old; the rest of the limit is for a slow machine. The
            // director's report, from which it was counted before, arrives every ten seconds.
            within(Duration::from_secs(5), "the users are counted", async || {
                cluster[gateway].json("/about").await["comms"]["usersCount"] == users
            })
            .await;
        }
    };
    let first = sign_in(&cluster["one"], &wallet()).await;
    let second = sign_in(&cluster["two"], &wallet()).await;
    counted(&cluster, 2).await;
    drop(first);
    counted(&cluster, 1).await;
    drop(second);
    counted(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_services_need_no_certificates() {
    let (url, _well) = content().await;
    let settings = [("REALM__CONTENT_URL", url.as_str()), ("IDENTITY__ETHEREUM_RPC_URL", &url)];
    let realm = Realm::without_certificates(&settings);
    eventually("the service is healthy", async || realm.json("/about").await["content"]["healthy"] == true)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_service_without_certificates_is_unhealthy() {
    let settings = [
        ("REALM__CONTENT_URL", "https://127.0.0.1:9/content"),
        ("IDENTITY__ETHEREUM_RPC_URL", "https://127.0.0.1:9/key"),
    ];
    let mut realm = Realm::without_certificates(&settings);
    eventually("about", async || realm.get("/about").await.status() == 503).await;
    assert_eq!(realm.json("/about").await["content"]["healthy"], false);
    sign_in(&realm, &wallet()).await;
    realm.interrupt();
    let (status, log) = realm.wait(Duration::from_secs(10));
    assert!(status.success() && log.contains("no HTTP client to probe the service with"), "{log}");
}
