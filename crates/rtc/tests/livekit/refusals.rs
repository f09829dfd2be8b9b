//! Joins that fail, and their errors.

use std::time::{Duration, Instant};

use rtc::livekit::{JoinError, Options, Participant};
use test_support::{LiveKitOptions, LiveKitServer, free_address, network_namespace};
use tokio::net::TcpListener;

use crate::room::{create_room, join, token, try_join};

async fn refused(url: &str, token: String) -> u16 {
    match try_join(url, token).await {
        Err(JoinError::Refused { status, message }) => {
            assert!(!message.is_empty());
            status
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn bad_token_unknown_room_and_full_room_are_refused() {
    if !network_namespace::enter("refusals::bad_token_unknown_room_and_full_room_are_refused") {
        return;
    }
    let server = LiveKitServer::start_with(LiveKitOptions::default());
    assert_eq!(refused(&server.url(), "no.valid.token".to_owned()).await, 401);
    let forged = format!("{}x", token("one"));
    assert_eq!(refused(&server.url(), forged).await, 401);
    assert_eq!(refused(&server.url(), token("one")).await, 404);
    create_room(&server, 1).await;
    let (one, ..) = join(&server.url(), "one").await;
    assert_eq!(refused(&server.url(), token("two")).await, 500);
    one.close().await;
}

#[tokio::test]
async fn unreachable_and_silent_servers_have_distinct_errors() {
    if !network_namespace::enter("refusals::unreachable_and_silent_servers_have_distinct_errors") {
        return;
    }
    let options =
        |url: String| Options { join_timeout: Duration::from_secs(1), ..Options::new(url, token("one")) };
    let refused = Participant::join(options(format!("ws://{}", free_address()))).await;
    assert!(matches!(refused, Err(JoinError::Unreachable(_))), "{refused:?}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let began = Instant::now();
    let timed_out = Participant::join(options(format!("ws://{}", silent.local_addr().unwrap()))).await;
    assert!(matches!(timed_out, Err(JoinError::Timeout(_))), "{timed_out:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let no_url = Participant::join(options("file:///tmp".to_owned())).await;
    assert!(matches!(no_url, Err(JoinError::Url(_))), "{no_url:?}");
}
