//! HTTP/1 only, and the network of a client in its requests.

use super::*;

#[tokio::test]
async fn http_2_by_prior_knowledge_is_refused() {
    let server = Server::start(settings()).await;
    let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings_frame].concat();
    let answer = server.answer(&preface).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn request_is_answered_with_the_network_of_its_peer() {
    let server = Server::start(settings()).await;
    let mut stream = server.connect_from(9).await;
    stream.write_all(REQUEST).await.unwrap();
    assert!(response(&mut stream).await.ends_with("127.0.7.9"));
}

#[tokio::test]
async fn head_above_the_limit_is_answered_431() {
    let server = Server::start(settings()).await;
    let head = format!("GET /network HTTP/1.1\r\nhost: a\r\nlong: {}\r\n\r\n", "x".repeat(100 * 1024));
    assert!(server.answer(head.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn upgraded_stream_is_the_tcp_stream_itself() {
    let upgrade = async |mut request: Request| {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let parts = upgraded.await.unwrap().downcast::<TokioIo<Stream>>().unwrap();
            let mut stream = parts.io.into_inner();
            assert!(stream.get_ref().nodelay().unwrap());
            // Longer than the head and idle timeouts of this test.
            time::sleep(Duration::from_millis(300)).await;
            let mut received = parts.read_buf.to_vec();
            while received.len() < 4 {
                stream.read_buf(&mut received).await.unwrap();
            }
            stream.write_all(&received).await.unwrap();
        });
        let mut response = axum::response::Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", "echo".parse().unwrap());
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response
    };
    let short = Duration::from_millis(50);
    let settings = Settings { head_timeout: short, idle_timeout: short, write_timeout: short, ..settings() };
    let server = Server::start_with(settings, Router::new().route("/upgrade", get(upgrade))).await;
    let mut stream = server.connect().await;
    let request = b"GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nab";
    stream.write_all(request).await.unwrap();
    let head = {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(TIMEOUT, stream.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(head).unwrap()
    };
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"cd").await.unwrap();
    let mut echoed = [0; 4];
    timeout(TIMEOUT, stream.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert_eq!(&echoed, b"abcd");
}
