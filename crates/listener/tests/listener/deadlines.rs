//! The deadlines of heads, idle connections and responses.

use super::*;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn connection_without_a_whole_head_is_closed() {
    let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
    for beginning in [&b""[..], b"P", b"PRI *", b"GET / HTTP/1.1\r\nhost: a\r\n"] {
        let began = Instant::now();
        assert_eq!(server.answer(beginning).await, "", "{beginning:?}");
        assert!(began.elapsed() >= SHORT - Duration::from_millis(50));
    }
}

#[tokio::test]
async fn dripped_head_does_not_extend_its_deadline() {
    let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
    let mut stream = server.connect().await;
    let drip = async {
        while stream.write_all(b"G").await.is_ok() {
            time::sleep(SHORT / 10).await;
        }
    };
    timeout(TIMEOUT, drip).await.expect("the connection must end");
}

#[tokio::test]
async fn second_head_has_a_deadline_of_its_own() {
    let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    response(&mut stream).await;
    stream.write_all(b"GET").await.unwrap();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn idle_connection_outlives_the_head_timeout() {
    let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(REQUEST).await.unwrap();
        assert!(response(&mut stream).await.starts_with("HTTP/1.1 200"));
        time::sleep(SHORT * 2).await;
    }
    stream.write_all(REQUEST).await.unwrap();
    assert!(response(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn idle_connection_is_closed_after_the_idle_timeout() {
    let server = Server::start(Settings { idle_timeout: SHORT, ..settings() }).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    response(&mut stream).await;
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn running_request_has_no_deadline() {
    let slow = get(async || {
        time::sleep(SHORT * 3).await;
        "late"
    });
    let settings = Settings { head_timeout: SHORT, idle_timeout: SHORT, ..settings() };
    let server = Server::start_with(settings, Router::new().route("/slow", slow)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(response(&mut stream).await.ends_with("late"));
}

#[tokio::test]
async fn unread_response_ends_the_connection() {
    let write_timeout = Duration::from_secs(1);
    let server = Server::start(Settings { write_timeout, ..settings() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // Bytes in the kernel's buffers are still readable after the server closed the connection; the rest
    // was never sent.
    time::sleep(write_timeout * 4).await;
    let mut received = 0;
    let mut buffer = vec![0; 1024 * 1024];
    while let Ok(count @ 1..) = timeout(TIMEOUT, stream.read(&mut buffer)).await.expect("it must end") {
        received += count;
    }
    assert!(received < 64 * 1024 * 1024, "{received}");
}

#[tokio::test]
async fn response_read_steadily_arrives_whole() {
    let write_timeout = Duration::from_secs(1);
    let server = Server::start(Settings { write_timeout, ..settings() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut received = 0;
    let mut buffer = vec![0; 4 * 1024 * 1024];
    while let Ok(count @ 1..) = timeout(TIMEOUT, stream.read(&mut buffer)).await.expect("it must end") {
        received += count;
        time::sleep(Duration::from_millis(50)).await;
    }
    assert!(received > 64 * 1024 * 1024, "{received}");
}
