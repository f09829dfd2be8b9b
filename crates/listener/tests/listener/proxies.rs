//! Trusted proxies: the PROXY protocol and headers.

use super::*;

fn behind_loopback(proxy_protocol: bool) -> Settings {
    let trusted_proxies = vec!["127.0.0.0/24".parse().unwrap()];
    let addresses = ClientAddresses { trusted_proxies, proxy_protocol, ipv6_prefix: 64 };
    Settings { addresses, ..settings() }
}

async fn network_of(stream: &mut TcpStream, before: &[u8], header: &str) -> String {
    let request = format!("GET /network HTTP/1.1\r\nhost: a\r\n{header}\r\n");
    stream.write_all(&[before, request.as_bytes()].concat()).await.unwrap();
    response(stream).await.rsplit("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn proxied_request_has_the_network_of_its_client() {
    let server = Server::start(behind_loopback(false)).await;
    let mut stream = server.connect().await;
    for (header, network) in [
        ("x-forwarded-for: 192.0.2.1\r\n", "192.0.2.1"),
        ("x-forwarded-for: 2001:db8:1:2:3::4\r\n", "2001:db8:1:2::"),
        ("", "127.0.0.1"),
    ] {
        assert_eq!(network_of(&mut stream, b"", header).await, network);
    }
    let mut direct = server.connect_from(1).await;
    assert_eq!(network_of(&mut direct, b"", "x-forwarded-for: 192.0.2.1\r\n").await, "127.0.7.1");
}

#[tokio::test]
async fn proxy_protocol_names_the_client_of_a_connection() {
    let server = Server::start(behind_loopback(true)).await;
    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n";
    assert_eq!(network_of(&mut server.connect().await, header, "").await, "192.0.2.1");
    let addresses = [192, 0, 2, 7, 127, 0, 0, 1, 0x13, 0x88, 0, 80];
    let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat();
    assert_eq!(network_of(&mut server.connect().await, &header, "").await, "192.0.2.7");
}

#[tokio::test]
async fn trusted_proxy_without_a_header_is_rejected() {
    let server = Server::start(behind_loopback(true)).await;
    assert_eq!(server.answer(REQUEST).await, "");
}

#[tokio::test]
async fn proxy_header_of_an_untrusted_peer_is_rejected() {
    let server = Server::start(behind_loopback(true)).await;
    let mut stream = server.connect_from(1).await;
    let request = [b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n".as_slice(), REQUEST].concat();
    stream.write_all(&request).await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400"));
    let mut direct = server.connect_from(2).await;
    assert_eq!(network_of(&mut direct, b"", "").await, "127.0.7.2", "without one it is served");
}

#[tokio::test]
async fn connections_of_a_proxy_do_not_count_per_network() {
    let limits = ConnectionLimits { total: 9, per_network: Some(1), rate: None };
    let server = Server::start(Settings { connections: limits, ..behind_loopback(false) }).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = server.connect().await;
        assert_eq!(network_of(&mut stream, b"", "x-forwarded-for: 1.2.3.4\r\n").await, "1.2.3.4");
        streams.push(stream);
    }
}

#[tokio::test]
async fn proxied_connections_count_for_their_clients() {
    let limits = ConnectionLimits { total: 9, per_network: Some(1), rate: None };
    let server = Server::start(Settings { connections: limits, ..behind_loopback(true) }).await;
    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n";
    let mut first = server.connect().await;
    assert_eq!(network_of(&mut first, header, "").await, "192.0.2.1");
    assert_eq!(server.answer(&[&header[..], REQUEST].concat()).await, "");
    let other = b"PROXY TCP4 192.0.2.2 127.0.0.1 5000 80\r\n";
    assert_eq!(network_of(&mut server.connect().await, other, "").await, "192.0.2.2");
}

#[test]
fn default_ipv6_network_is_64_bits() {
    let network = Network::from_ip("2001:db8::1".parse::<IpAddr>().unwrap(), 64);
    assert_eq!(network.to_string(), "2001:db8::");
}
