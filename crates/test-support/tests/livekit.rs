//! The LiveKit server and the network namespaces of tests.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{TcpStream, UdpSocket},
};

use test_support::{LiveKitOptions, LiveKitServer, network_namespace};

#[test]
fn namespace_has_only_the_loopback() {
    if !network_namespace::enter("namespace_has_only_the_loopback") {
        return;
    }
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap();
    let names: Vec<&str> =
        interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["lo"]);
    let route = UdpSocket::bind("0.0.0.0:0").unwrap().connect("192.0.2.1:9");
    assert!(route.is_err(), "no address outside of the machine is reachable");
}

#[test]
#[should_panic(expected = "no test ran in the network namespace")]
fn wrong_name_of_a_test_is_refused() {
    let _ = network_namespace::enter("some::other::test");
}

#[test]
fn livekit_server_answers_until_it_is_dropped() {
    if !network_namespace::enter("livekit_server_answers_until_it_is_dropped") {
        return;
    }
    let options = LiveKitOptions {
        webhooks: vec!["http://127.0.0.1:9/".to_owned()],
        empty_timeout_s: Some(5),
        departure_timeout_s: Some(2),
        ..LiveKitOptions::default()
    };
    let mut server = LiveKitServer::start_with(options);
    let address = server.address();
    server.shut_down();
    assert!(TcpStream::connect(address).is_err());
    server.restart();
    TcpStream::connect(address).unwrap();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}
