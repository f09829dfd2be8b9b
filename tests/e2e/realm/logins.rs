//! The signed login to the fixed room.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn explorers_log_in_and_receive_each_other() {
    let realm = plaza(&[]).await;
    let adapter = format!("signed-login:{}/signed-login", realm.http);
    let about = realm.json("/about").await;
    let expected = json!([format!("fixed-adapter:{adapter}"), adapter]);
    assert_eq!(json!([about["comms"]["adapter"], about["comms"]["fixedAdapter"]]), expected);
    // One wallet signs itself, the other has authorized an ephemeral key.
    let (one, two) = (wallet(), wallet());
    let two_identity = Identity::new(&two, wallet(), SystemTime::now() + Duration::from_secs(60));
    let mut first = Wire::open(&room(&realm, log_in(&realm, &one).await)).await;
    first.identify(&one).await;
    first.welcome().await;
    let headers = two_identity.sign_fetch("post", "/signed-login", METADATA, SystemTime::now());
    let mut second = Wire::open(&room(&realm, post(&realm, &headers).await)).await;
    second.identify(&two).await;
    let welcome = second.welcome().await;
    assert_eq!(welcome.peer_identities.into_values().collect::<Vec<_>>(), [one.address().to_string()]);
    assert!(matches!(first.next_in_room().await,
        Message::PeerJoinMessage(join) if join.address == two.address().to_string()));
    first.update(b"hello".to_vec(), false).await;
    let Message::PeerUpdateMessage(update) = second.next_in_room().await else { panic!("no update") };
    assert_eq!(&update.body[..], b"hello");
    second.update(b"hello yourself".to_vec(), false).await;
    let Message::PeerUpdateMessage(update) = first.next_in_room().await else { panic!("no update") };
    assert_eq!(&update.body[..], b"hello yourself");
    // The token is valid for the wallet that logged in only.
    let mut another = Wire::open(&room(&realm, log_in(&realm, &one).await)).await;
    another.identify(&wallet()).await;
    assert_eq!(another.closed().await.0, Close::TokenRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_room_with_dots_admits_its_tokens() {
    const NAME: &str = "name.dcl.eth";
    let realm = Realm::start(&[("REALM__FIXED_ROOM", NAME), ("REALM__FIXED_ADAPTER", "signed-login")]);
    eventually("the room is there", async || log_in(&realm, &wallet()).await.0 == 200).await;
    let mut sockets = Vec::new();
    for wallet in [wallet(), wallet()] {
        let (status, answer) = log_in(&realm, &wallet).await;
        assert_eq!(status, 200, "{answer}");
        let connection: ConnectionString = answer["fixedAdapter"].as_str().unwrap().parse().unwrap();
        let url = connection.room_url().unwrap();
        assert!(url.starts_with(&format!("{}/rooms/{NAME}?access_token=", realm.ws)), "{url}");
        let mut socket = Wire::open(&url).await;
        socket.identify(&wallet).await;
        socket.welcome().await;
        sockets.push(socket);
    }
    sockets[0].update(b"hello".to_vec(), false).await;
    assert_eq!(next_update(&mut sockets[1]).await, b"hello");
    assert_eq!(realm.json("/rooms/status").await["rooms"], json!([{"id": NAME, "users": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn separate_gateway_names_the_node_with_the_fixed_room() {
    let mut cluster = Cluster::start(&[]);
    cluster.run("director", "director", &[]);
    cluster.run("gateway", "gateway", &PLAZA);
    cluster.run("annex", "rooms", &[]);
    cluster.run("palace", "rooms", &PLAZA);
    cluster.ready().await;
    let granted_url = async |cluster: &Cluster| {
        let (status, answer) = log_in(&cluster["gateway"], &wallet()).await;
        let leads = answer["fixedAdapter"].as_str().filter(|_| status == 200);
        leads.and_then(|adapter| adapter.parse::<ConnectionString>().ok()?.room_url())
    };
    let grants = async |cluster: &Cluster, node: &str| {
        let begins = format!("{}/rooms/plaza?", cluster[node].ws);
        granted_url(cluster).await.is_some_and(|url| url.starts_with(&begins))
    };
    eventually("the room is there", async || grants(&cluster, "palace").await).await;
    let me = wallet();
    let url = room(&cluster["palace"], log_in(&cluster["gateway"], &me).await);
    let mut wire = Wire::open(&url).await;
    wire.identify(&me).await;
    wire.welcome().await;
    // If two nodes announce the room, all gateways use the first by name; after its end they use the
    // other one.
    cluster.run("ballroom", "rooms", &PLAZA);
    eventually("the first by name", async || grants(&cluster, "ballroom").await).await;
    cluster.terminate("ballroom");
    eventually("the other", async || grants(&cluster, "palace").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_logins_are_refused_with_a_message() {
    let realm = plaza(&[("REALM__GUESTS", "false")]).await;
    let (me, now) = (wallet(), SystemTime::now());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let intent = r#"{"intent":"dcl:explorer:other","signer":"dcl:explorer"}"#;
    let signer = r#"{"intent":"dcl:explorer:comms-handshake","signer":"dcl:builder"}"#;
    let scene = r#"{"intent":"dcl:explorer:comms-handshake","signer":"decentraland-kernel-scene"}"#;
    let guest = |field: &str| METADATA.replace(r#""isGuest":false"#, field);
    let [yes, number, text, escaped, twice] = [
        r#""isGuest":true"#,
        r#""isGuest":1"#,
        r#""ISGUEST":"false""#,
        r#""is\u0047uest":true"#,
        r#""isGuest":false,"is\u0047uest":true"#,
    ]
    .map(guest);
    for (metadata, at, status, expected) in [
        (intent, now, 403, "its intent must be dcl:explorer:comms-handshake"),
        (signer, now, 403, "its signer must be dcl:explorer"),
        (scene, now, 403, "signed for a scene"),
        (&yes, now, 403, "guests are not let in"),
        (&number, now, 403, "guests are not let in"),
        (&text, now, 403, "guests are not let in"),
        (&escaped, now, 403, "guests are not let in"),
        (&twice, now, 400, "distinct keys"),
        ("no JSON", now, 400, "not a JSON object"),
        (METADATA, now - minutes(6), 401, "more than 5 minutes ago"),
        (METADATA, now + minutes(2), 401, "in the future"),
    ] {
        let (refused, message) = refused(&realm, &signed(&me, metadata, at)).await;
        assert_eq!((refused, message.contains(expected)), (status, true), "{message}");
    }
    assert_eq!(refused(&realm, &Headers::new()).await.0, 400);
    let stolen = Headers::from_iter(signed(&me, METADATA, now).into_iter().map(|(name, value)| {
        let other = value.replace(&me.address().to_string(), &wallet().address().to_string());
        (name, other)
    }));
    assert_eq!(refused(&realm, &stolen).await.0, 401);
    let elsewhere = me.sign_fetch("POST", "/other", METADATA, now);
    assert_eq!(refused(&realm, &elsewhere).await.0, 401);
    let (status, _) = post_with(&realm, &signed(&me, METADATA, now), "x".repeat(5_000)).await;
    assert_eq!(status, 413);
    for not_guest in [r#""isGuest":null"#, r#""guest":true"#] {
        room(&realm, post(&realm, &signed(&me, &guest(not_guest), now)).await);
    }
    // The refusals did not consume a request. Each request is accepted once.
    let request = signed(&me, METADATA, now);
    room(&realm, post(&realm, &request).await);
    let (status, message) = refused(&realm, &request).await;
    assert_eq!((status, message.as_str()), (401, "the request has been used before: sign another"));
    room(&realm, post(&realm, &lowercased(&me, METADATA, now)).await);
    let mut respelled = lowercased(&me, METADATA, now);
    for (name, value) in &mut respelled {
        if name == "x-identity-metadata" {
            *value = METADATA.replace("signer", "SIGNER");
        }
    }
    assert_eq!(refused(&realm, &respelled).await.0, 401, "the same signed payload in other letters");
    room(&realm, log_in(&realm, &me).await);
    assert!(realm.count("atoll_gateway_logins_total{outcome=\"denied\"}").await >= 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn login_signed_before_process_start_is_refused() {
    let realm = plaza(&[]).await;
    let request = signed(&wallet(), METADATA, SystemTime::now());
    room(&realm, post(&realm, &request).await);
    drop(realm);
    // The new process has an empty replay cache.
    let realm = plaza(&[]).await;
    let (status, message) = refused(&realm, &request).await;
    assert_eq!((status, message.contains("signed before the gateway started")), (503, true), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_log_in_by_default() {
    let realm = plaza(&[]).await;
    let guest = METADATA.replace("false", "true");
    room(&realm, post(&realm, &signed(&wallet(), &guest, SystemTime::now())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_wallets_log_in_too() {
    let ethereum = Ethereum::start().await;
    let realm = plaza(&[("IDENTITY__ETHEREUM_RPC_URL", &ethereum.url)]).await;
    let (contract, other) = (ethereum.deploy(), ethereum.deploy());
    room(&realm, post(&realm, &signed_by(contract, &contract.owner(), METADATA)).await);
    let (status, message) = refused(&realm, &signed_by(contract, &other.owner(), METADATA)).await;
    assert_eq!((status, message.contains("the contract wallet says")), (401, true), "{message}");
}

/// A request of a contract wallet, with a delegation signed by `owner`.
fn signed_by(contract: ContractWallet, owner: &Wallet, metadata: &str) -> Headers {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let chain = contract.delegate(owner).sign(&fetch_payload("POST", "/signed-login", now, metadata));
    fetch_headers(&serde_json::from_str::<Vec<identity::Link>>(&chain).unwrap(), now, metadata)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_login_causes_no_contract_question() {
    let ethereum = Ethereum::start().await;
    let settings = [
        ("IDENTITY__ETHEREUM_RPC_URL", ethereum.url.as_str()),
        ("IDENTITY__ETHEREUM_CACHE_ENTRIES", "0"),
        ("REALM__GUESTS", "false"),
        ("ROOMS__MAX_USERS", "1"),
    ];
    let realm = plaza(&settings).await;
    let contract = ethereum.deploy();
    let request = |metadata: &str| signed_by(contract, &contract.owner(), metadata);
    let used = request(METADATA);
    room(&realm, post(&realm, &used).await);
    let calls = ethereum.calls();
    assert!(calls > 0);
    for (headers, status) in [
        (request(&METADATA.replace("handshake", "other")), 403),
        (request(&METADATA.replace("dcl:explorer\"", "dcl:builder\"")), 403),
        (request(&METADATA.replace("false", "true")), 403),
        (used, 401),
    ] {
        let (refused, message) = refused(&realm, &headers).await;
        assert_eq!((refused, ethereum.calls()), (status, calls), "{message}");
    }
    let me = wallet();
    let mut inside = Wire::open(&room(&realm, log_in(&realm, &me).await)).await;
    inside.identify(&me).await;
    inside.welcome().await;
    eventually("full", async || realm.json("/about").await["acceptingUsers"] == false).await;
    let (status, message) = refused(&realm, &request(METADATA)).await;
    assert_eq!((status, ethereum.calls()), (503, calls), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_without_a_free_room_is_refused() {
    let realm = Realm::start(&[]);
    let (status, message) = refused(&realm, &signed(&wallet(), METADATA, SystemTime::now())).await;
    assert_eq!((status, message.as_str()), (404, "this realm has no fixed room to log in to"));

    let realm = plaza(&[("ROOMS__MAX_USERS", "1"), ("GATEWAY__MAX_HANDSHAKES_PER_IP", "2")]).await;
    let me = wallet();
    // The login shares the handshake limiter of the sockets.
    let waiting = [Wire::open(&realm.socket()).await, Wire::open(&realm.socket()).await];
    let (status, message) = refused(&realm, &signed(&me, METADATA, SystemTime::now())).await;
    assert_eq!((status, message.contains("of this network")), (503, true), "{message}");
    drop(waiting);
    eventually("the handshakes end", async || realm.metric("atoll_gateway_signing_in").await == 0.0).await;
    assert_full_then_free(&realm).await;
    // The room may be full before its node is.
    assert_full_then_free(&plaza(&[("ROOMS__MAX_ISLAND_SIZE", "1"), ("ROOMS__MAX_ROOM_SIZE", "1")]).await)
        .await;
}

/// One peer takes the only seat, and leaves it.
async fn assert_full_then_free(realm: &Realm) {
    let me = wallet();
    let mut inside = Wire::open(&room(realm, log_in(realm, &me).await)).await;
    inside.identify(&me).await;
    inside.welcome().await;
    eventually("full", async || {
        let (status, answer) = log_in(realm, &wallet()).await;
        status == 503 && answer["message"] == "the room is full, come back later"
    })
    .await;
    assert_eq!(realm.json("/about").await["acceptingUsers"], false);
    drop(inside);
    eventually("a seat is free", async || log_in(realm, &me).await.0 == 200).await;
}

/// The response to a login with this body, over a connection that stays open, in lower case.
async fn answer_to(realm: &Realm, head: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(realm.http.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("POST /signed-login HTTP/1.1\r\nhost: realm\r\n{head}\r\n\r\n{body}");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        // The message ends the response, whether or not the connection is kept.
        while !answer.ends_with(b"}") && socket.read_buf(&mut answer).await.unwrap() > 0 {}
    };
    tokio::time::timeout(TEST_TIMEOUT, read).await.expect("an answer");
    String::from_utf8(answer).unwrap().to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_endless_and_oversized_bodies_have_own_statuses() {
    let realm = plaza(&[("GATEWAY__HANDSHAKE_TIMEOUT_S", "2")]).await;
    let broken = answer_to(&realm, "transfer-encoding: chunked", "no chunk\r\n").await;
    assert!(broken.starts_with("http/1.1 400") && broken.contains("could not be read"), "{broken}");
    let endless = answer_to(&realm, "content-length: 10", "x").await;
    assert!(endless.starts_with("http/1.1 408") && endless.contains("took too long"), "{endless}");
    assert!(endless.contains("retry-after: 1"), "{endless}");
    let big = answer_to(&realm, "content-length: 5000", &"x".repeat(5_000)).await;
    assert!(big.starts_with("http/1.1 413") && !big.contains("\nretry-after"), "{big}");
    assert_eq!(realm.count("atoll_gateway_logins_total{outcome=\"denied\"}").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_one_address_are_limited_in_rate() {
    // Waiting for the room has used one request of the burst.
    let realm =
        plaza(&[("GATEWAY__LOGINS_PER_SECOND_PER_IP", "1"), ("GATEWAY__LOGIN_BURST_PER_IP", "5")]).await;
    let mut granted = 0;
    let message = loop {
        let (status, answer) = log_in(&realm, &wallet()).await;
        if status != 200 {
            assert_eq!(status, 503, "{answer}");
            break answer["message"].as_str().unwrap().to_owned();
        }
        granted += 1;
        assert!(granted < 200, "no limit");
    };
    assert_eq!(message, "too many sign-ins from this network, come back later");
    assert!(granted >= 4, "{granted}");
    // The next second allows another login.
    eventually("the rate allows another login", async || log_in(&realm, &wallet()).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn login_preflight_allows_other_origins() {
    let realm = Realm::start(&PLAZA);
    let url = format!("{}/signed-login", realm.http);
    let links = (0..identity::MAX_LINKS).map(|link| format!("x-identity-auth-chain-{link}"));
    let others = ["x-identity-timestamp", "x-identity-metadata", "content-type"].map(str::to_owned);
    let headers = links.chain(others).collect::<Vec<_>>().join(",");
    let preflight = reqwest::Client::new()
        .request(reqwest::Method::OPTIONS, url)
        .header("origin", "https://play.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", &headers);
    let response = preflight.send().await.unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["access-control-allow-headers"], headers.as_str());
    assert!(response.headers()["access-control-allow-methods"].to_str().unwrap().contains("POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_signing_form_is_accepted_while_the_setting_allows_it() {
    let metadata = METADATA.replace("false", "null");
    let realm = plaza(&[]).await;
    room(&realm, post(&realm, &lowercased(&wallet(), &metadata, SystemTime::now())).await);
    let strict = plaza(&[("IDENTITY__ACCEPT_LOWERCASED_FETCH", "false")]).await;
    let (status, message) = refused(&strict, &lowercased(&wallet(), METADATA, SystemTime::now())).await;
    assert_eq!((status, message.contains("does not sign this challenge")), (401, true), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_login_for_another_realm_is_refused_or_logged() {
    const COUNT: &str = "atoll_gateway_logins_for_other_realms_total";
    let settings = [("REALM__NAME", "Lagoon"), ("REALM__ALIASES", "atoll.example, reef")];
    let meant_for = |realm: &str| METADATA.replace("{\"intent", &format!("{{\"realm\":{realm},\"intent"));
    let realm = plaza(&settings).await;
    for own in [
        r#"{"serverName":"Lagoon","hostname":"localhost"}"#,
        r#"{"serverName":"reef","hostname":"https://Atoll.Example:8443/about"}"#,
        r#"{"protocol":"v3"}"#,
    ] {
        let at = SystemTime::now();
        room(&realm, post(&realm, &signed(&wallet(), &meant_for(own), at)).await);
        room(&realm, post(&realm, &lowercased(&wallet(), &meant_for(own), at)).await);
    }
    for (other, named) in [
        (r#"{"serverName":"desert"}"#, "its realm.serverName is desert"),
        (r#"{"serverName":"Lagoon","hostname":"desert.example"}"#, "its realm.hostname is desert.example"),
    ] {
        for request in [signed, lowercased] {
            let request = request(&wallet(), &meant_for(other), SystemTime::now());
            let (status, message) = refused(&realm, &request).await;
            assert_eq!((status, message.contains(named)), (403, true), "{message}");
        }
    }
    assert_eq!(realm.count(&format!("{COUNT}{{action=\"refused\"}}")).await, 4.0);
    let lenient = plaza(&[("REALM__NAME", "lagoon"), ("IDENTITY__REALM_CHECK", "log")]).await;
    let request = signed(&wallet(), &meant_for(r#"{"serverName":"desert"}"#), SystemTime::now());
    room(&lenient, post(&lenient, &request).await);
    assert_eq!(lenient.count(&format!("{COUNT}{{action=\"logged\"}}")).await, 1.0);
}
