//! Members on TCP sockets, which a shard polls by itself.

use std::time::Duration;

use axum::Router;
use protocol::rfc5::ws_packet::Message;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use ws::testing::{BINARY, CLOSE, PING, PONG, RawClient, client_frame};

use crate::pace::tests::{authenticate, open, packet, router, send, update};

type Client = RawClient<TcpStream>;

async fn enter(router: &Router, wallet: u8) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(connecting, listener.accept());
    authenticate(open(router, client.unwrap(), server.unwrap().0).await, wallet).await
}

/// Two members of one room; the first knows the second.
async fn pair() -> (Client, Client) {
    let router = router(Duration::from_secs(10));
    let mut first = enter(&router, 1).await;
    let second = enter(&router, 2).await;
    assert!(matches!(packet(&mut first).await, Message::PeerJoinMessage(_)));
    (first, second)
}

/// The body of the next packet, which must be an update.
async fn received(client: &mut Client) -> Vec<u8> {
    match packet(client).await {
        Message::PeerUpdateMessage(update) => update.body.to_vec(),
        message => panic!("unexpected {message:?}"),
    }
}

#[tokio::test]
async fn silent_shard_is_woken_by_the_first_message() {
    let (mut first, mut second) = pair().await;
    for number in 0..3u8 {
        // Longer than a shard stays active without messages.
        sleep(Duration::from_millis(50)).await;
        send(&mut second, update(vec![number], true)).await;
        assert_eq!(received(&mut first).await, [number]);
    }
}

#[tokio::test]
async fn message_larger_than_a_read_arrives_whole() {
    let (mut first, mut second) = pair().await;
    let body: Vec<u8> = (0..60_000u32).map(|number| number as u8).collect();
    send(&mut second, update(body.clone(), false)).await;
    assert_eq!(received(&mut first).await, body);
}

#[tokio::test]
async fn ping_behind_many_messages_is_answered() {
    let (mut first, _second) = pair().await;
    for number in 0..15u8 {
        send(&mut first, update(vec![number], false)).await;
    }
    first.send(PING, b"last").await;
    assert_eq!(first.receive().await, Some((PONG, b"last".to_vec())));
}

/// Data and the end of the stream may be reported together.
#[tokio::test]
async fn last_message_and_the_disconnect_behind_it_are_read() {
    let router = router(Duration::from_secs(10));
    let mut first = enter(&router, 1).await;
    for wallet in 2..10 {
        let mut second = enter(&router, wallet).await;
        assert!(matches!(packet(&mut first).await, Message::PeerJoinMessage(_)));
        send(&mut second, update(vec![wallet], false)).await;
        second.0.shutdown().await.unwrap();
        assert_eq!(received(&mut first).await, [wallet]);
        let left = timeout(Duration::from_secs(5), packet(&mut first)).await;
        assert!(matches!(left, Ok(Message::PeerLeaveMessage(_))), "{left:?}");
    }
}

#[tokio::test]
async fn close_frame_of_the_client_is_answered() {
    let (mut first, mut second) = pair().await;
    let message = client_frame(BINARY, b"");
    second.0.write_all(&[message, client_frame(CLOSE, &1000u16.to_be_bytes())].concat()).await.unwrap();
    assert_eq!(second.receive().await, Some((CLOSE, 1000u16.to_be_bytes().to_vec())));
    assert!(matches!(packet(&mut first).await, Message::PeerLeaveMessage(_)));
    assert_eq!(second.receive().await, None, "the server closes the connection");
}
