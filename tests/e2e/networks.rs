//! Limits per client network: one network cannot use up connections, handshakes, sessions or presence.

use std::time::Duration;

use protocol::Close;
use test_support::{Realm, TEST_TIMEOUT, eventually, wallet, wire::Wire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// A TCP connection from 127.0.7.`last`.
async fn connect_from(last: u8, realm: &Realm) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 7, last], 0).into()).unwrap();
    socket.connect(realm.http.trim_start_matches("http://").parse().unwrap()).await.unwrap()
}

/// An HTTP client from 127.0.7.`last` that never reuses a connection.
fn client_from(last: u8) -> reqwest::Client {
    let address = std::net::IpAddr::from([127, 0, 7, last]);
    reqwest::Client::builder().local_address(address).pool_max_idle_per_host(0).build().unwrap()
}

mod connections {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn silent_connections_do_not_starve_few_files() {
        let realm = Realm::with_files(100, &[("SERVER__HEADER_TIMEOUT_S", "600")]);
        let mut silent = Vec::new();
        for beginning in
            [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HT"].iter().cycle().take(120)
        {
            let mut stream = connect_from(1, &realm).await;
            // A connection that was evicted by now does not accept it.
            let _ = stream.write_all(beginning).await;
            silent.push(stream);
        }
        let client = client_from(2);
        for path in ["/health/live", "/about", "/peers"] {
            let answer = client.get(format!("{}{path}", realm.http)).send().await.unwrap();
            assert!(matches!(answer.status().as_u16(), 200 | 503), "{path}");
        }
        let mut wire = Wire::open_from(2, &realm.socket(), &[]).await.unwrap();
        wire.sign_in(&wallet()).await;
        let evicted = "atoll_listener_closed_total{listener=\"public\",reason=\"evicted\"}";
        eventually("connections are evicted", async || realm.count(evicted).await > 40.0).await;
        drop(silent);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn http_2_by_prior_knowledge_is_not_served() {
        let realm = Realm::start(&[]);
        let mut stream = connect_from(1, &realm).await;
        let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let _ = stream.write_all(&settings_frame).await;
        let mut answer = Vec::new();
        let _ =
            timeout(TEST_TIMEOUT, stream.read_to_end(&mut answer)).await.expect("the end of the connection");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn idle_connection_outlives_the_head_timeout() {
        let realm = Realm::start(&[("SERVER__HEADER_TIMEOUT_S", "1")]);
        let mut stream = connect_from(1, &realm).await;
        for pause in [2_500, 0] {
            stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"alive") {
                assert!(timeout(TEST_TIMEOUT, stream.read_buf(&mut answer)).await.unwrap().unwrap() > 0);
            }
            sleep(Duration::from_millis(pause)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn network_above_its_connections_is_refused() {
        let realm = Realm::start(&[("SERVER__MAX_CONNECTIONS_PER_NETWORK", "2")]);
        let _held = [connect_from(1, &realm).await, connect_from(1, &realm).await];
        let mut third = connect_from(1, &realm).await;
        let refused = timeout(TEST_TIMEOUT, third.read(&mut [0])).await.expect("the end of the connection");
        assert!(matches!(refused, Ok(0) | Err(_)));
        assert!(client_from(2).get(format!("{}/health/live", realm.http)).send().await.is_ok());
    }
}

mod handshakes {
    use super::*;

    /// With a limit of two handshakes, a network that has both is evicted in favour of another one.
    async fn largest_network_gives_way(url: &str) {
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(Wire::open_from(1, url, &[]).await.unwrap());
        }
        let _other = Wire::open_from(2, url, &[]).await.unwrap();
        assert_eq!(silent[0].closed().await.0, Close::Full, "the oldest");
        let _third = Wire::open_from(3, url, &[]).await.unwrap();
        assert_eq!(silent[1].closed().await.0, Close::Full);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn largest_network_gives_way_in_the_gateway() {
        let realm = Realm::start(&[("GATEWAY__MAX_HANDSHAKES", "2")]);
        largest_network_gives_way(&realm.socket()).await;
        let realm = Realm::start(&[("GATEWAY__MAX_HANDSHAKES", "2")]);
        largest_network_gives_way(&format!("{}/rpc", realm.ws)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn largest_network_gives_way_in_rooms() {
        let realm = Realm::start(&[("ROOMS__MAX_HANDSHAKES", "2"), ("ROOMS__OPEN", "lobby")]);
        largest_network_gives_way(&format!("{}/rooms/lobby", realm.ws)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn signed_in_session_is_never_evicted() {
        let realm = Realm::start(&[("GATEWAY__MAX_HANDSHAKES", "1")]);
        let mut wire = Wire::open_from(1, &realm.socket(), &[]).await.unwrap();
        wire.sign_in(&wallet()).await;
        let _silent = Wire::open_from(1, &realm.socket(), &[]).await.unwrap();
        let mut other = Wire::open_from(2, &realm.socket(), &[]).await.unwrap();
        other.sign_in(&wallet()).await;
        wire.heartbeat(0.0).await;
        wire.island_changed().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refused_handshake_frees_its_permit_at_once() {
        let settings = [
            ("GATEWAY__MAX_HANDSHAKES_PER_IP", "1"),
            ("ROOMS__MAX_HANDSHAKES_PER_IP", "1"),
            ("ROOMS__OPEN", "lobby"),
        ];
        let realm = Realm::start(&settings);
        for url in [realm.socket(), format!("{}/rooms/lobby", realm.ws)] {
            let mut refused = Wire::open_from(1, &url, &[]).await.unwrap();
            refused.send(b"\xff\xff\xff noise".to_vec()).await;
            // Its client reads nothing, and so does not answer the close frame.
            let mut next = None;
            eventually("another handshake may begin", async || {
                next = Wire::open_from(1, &url, &[]).await.ok();
                next.is_some()
            })
            .await;
            assert_eq!(
                refused.closed().await.0,
                Close::Undecodable,
                "the socket is still open and has the reason"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ipv6_addresses_of_one_prefix_share_a_limit() {
        let settings = [("GATEWAY__MAX_HANDSHAKES_PER_IP", "1"), ("SERVER__TRUSTED_PROXIES", "127.0.7.1")];
        let realm = Realm::start(&settings);
        let open = async |last, address| {
            Wire::open_from(last, &realm.socket(), &[("x-forwarded-for", address)]).await
        };
        let _first = open(1, "2001:db8::1").await.unwrap();
        assert_eq!(open(1, "2001:db8::2").await.err().unwrap().0, 503);
        assert_eq!(open(1, "6.6.6.6, 2001:db8::3").await.err().unwrap().0, 503, "the rightmost counts");
        let _other = open(1, "2001:db8:0:1::1").await.unwrap();
        // Headers of an untrusted peer are ignored.
        let _stranger = open(2, "192.0.2.1").await.unwrap();
        assert_eq!(open(2, "192.0.2.2").await.err().unwrap().0, 503);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sign_ins_of_one_network_are_limited_in_rate() {
        let settings =
            [("GATEWAY__SIGN_INS_PER_SECOND_PER_NETWORK", "1"), ("GATEWAY__SIGN_IN_BURST_PER_NETWORK", "2")];
        let realm = Realm::start(&settings);
        let mut refused = 0;
        for _ in 0..10 {
            match Wire::open_from(1, &realm.socket(), &[]).await {
                Ok(_) => {}
                Err((status, body)) => {
                    assert!(status == 503 && body.contains("too often"), "{status} {body}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
        assert!(Wire::open_from(2, &realm.socket(), &[]).await.is_ok());
    }
}

mod sessions {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn network_above_its_sessions_is_refused() {
        let realm = Realm::start(&[("GATEWAY__MAX_SESSIONS_PER_NETWORK", "1")]);
        let (one, two) = (wallet(), wallet());
        let mut first = Wire::open_from(1, &realm.socket(), &[]).await.unwrap();
        first.sign_in(&one).await;
        let mut second = Wire::open_from(1, &realm.socket(), &[]).await.unwrap();
        let challenge = second.request_challenge(&two).await;
        second.send_auth_chain(two.sign_challenge(&challenge)).await;
        assert_eq!(second.closed().await.0, Close::Full);
        // The same wallet may replace its own session, and another network has its own limit.
        Wire::open_from(1, &realm.socket(), &[]).await.unwrap().sign_in(&one).await;
        Wire::open_from(2, &realm.socket(), &[]).await.unwrap().sign_in(&two).await;
    }
}

mod presence {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_above_the_rate_wait_or_are_refused() {
        let settings =
            [("STATS__REQUESTS_PER_SECOND_PER_NETWORK", "2"), ("STATS__REQUEST_BURST_PER_NETWORK", "1")];
        let realm = Realm::start(&settings);
        let url = format!("{}/islands", realm.http);
        let client = client_from(1);
        let answers = futures_util::future::join_all((0..20).map(|_| client.get(&url).send())).await;
        let statuses: Vec<u16> =
            answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
        let count = |status| statuses.iter().filter(|&&other| other == status).count();
        // The burst of one, and the requests with a turn within two seconds.
        assert!(count(200) >= 5 && count(429) >= 1 && count(200) + count(429) == 20, "{statuses:?}");
        assert_eq!(client_from(2).get(&url).send().await.unwrap().status().as_u16(), 200);
        assert!(realm.metric("atoll_stats_requests_refused_total").await >= 1.0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn feed_readers_of_one_network_leave_seats() {
        let realm = Realm::start(&[("STATS__MAX_FEED_READERS_PER_NETWORK", "1")]);
        let url = format!("{}/events", realm.http);
        let reader = client_from(1).get(&url).send().await.unwrap();
        assert_eq!(reader.status().as_u16(), 200);
        assert_eq!(client_from(1).get(&url).send().await.unwrap().status().as_u16(), 503);
        assert_eq!(client_from(2).get(&url).send().await.unwrap().status().as_u16(), 200);
    }
}
