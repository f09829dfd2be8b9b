//! The limits of connections, and evictions.

use super::*;

fn limits(total: usize, per_network: Option<usize>) -> Settings {
    Settings { connections: ConnectionLimits { total, per_network, rate: None }, ..settings() }
}

#[tokio::test]
async fn silent_connections_of_one_network_are_evicted() {
    let server = Server::start(limits(3, None)).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(server.connect_from(1).await);
    }
    let mut stream = server.connect_from(2).await;
    stream.write_all(REQUEST).await.unwrap();
    assert!(response(&mut stream).await.ends_with("127.0.7.2"));
    assert!(is_closed(&mut silent[0]).await, "the oldest");
    silent[2].write_all(REQUEST).await.unwrap();
    assert!(response(&mut silent[2]).await.ends_with("127.0.7.1"), "a newer one");
}

#[tokio::test]
async fn busy_connection_is_never_evicted() {
    let gate = Gate::default();
    let server = Server::start_with(limits(1, None), gate.router()).await;
    let mut stream = server.connect_from(1).await;
    stream.write_all(GATED).await.unwrap();
    gate.arrived.notified().await;
    assert!(is_closed(&mut server.connect_from(2).await).await);
    gate.open.notify_one();
    assert!(response(&mut stream).await.ends_with("done"));
}

#[tokio::test]
async fn connection_with_unread_response_is_evicted() {
    let server = Server::start(limits(1, None)).await;
    let mut unread = server.connect_from(1).await;
    unread.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let began = Instant::now();
    loop {
        let mut stream = server.connect_from(2).await;
        stream.write_all(REQUEST).await.unwrap();
        if read_to_network(&mut stream).await {
            break;
        }
        assert!(began.elapsed() < TIMEOUT);
    }
}

async fn read_to_network(stream: &mut TcpStream) -> bool {
    let mut received = vec![0; 1024];
    match timeout(TIMEOUT, stream.read(&mut received)).await.unwrap() {
        Ok(count @ 1..) => received[..count].starts_with(b"HTTP/1.1 200"),
        _ => false,
    }
}

#[tokio::test]
async fn network_limit_does_not_affect_other_networks() {
    let server = Server::start(limits(9, Some(2))).await;
    let _held = [server.connect_from(1).await, server.connect_from(1).await];
    // The two are counted before a third is accepted.
    assert!(is_closed(&mut server.connect_from(1).await).await);
    let mut stream = server.connect_from(2).await;
    stream.write_all(REQUEST).await.unwrap();
    assert!(response(&mut stream).await.ends_with("127.0.7.2"));
}
