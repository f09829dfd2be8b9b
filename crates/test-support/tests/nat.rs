//! The NATs of tests behave like the kinds that they are named after.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use test_support::{Namespace, Nat, NatKind, network_namespace};

/// Two addresses of the public network.
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];

/// Runs a function on a thread in the namespace.
fn inside<T: Send>(namespace: &Namespace, function: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace.enter();
            function()
        });
        thread.join().unwrap()
    })
}

fn bind(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// The source of a datagram that one socket sends to another; `None` if it does not arrive.
fn probe(from: &UdpSocket, target: SocketAddr, to: &UdpSocket) -> Option<SocketAddr> {
    // A datagram to an address without a route is an error.
    let _ = from.send_to(b"probe", target);
    to.recv_from(&mut [0; 16]).ok().map(|(_, source)| source)
}

/// Checks which of the server's datagrams arrive, and which ports of the NAT the server receives from.
fn assert_kind(kind: NatKind, nat: &Nat) {
    let [contacted, other_port] = [(); 2].map(|()| bind(SERVERS[0]));
    let other_address = bind(SERVERS[1]);
    let host = inside(&nat.host, || bind(Ipv4Addr::UNSPECIFIED));
    let send = |server: &UdpSocket| probe(&host, server.local_addr().unwrap(), server);
    let mapped = send(&contacted);
    assert_eq!(mapped.is_some(), kind != NatKind::UdpBlocked, "{kind}");
    if let Some(mapped) = mapped {
        assert_eq!(mapped.ip(), nat.address, "{kind}");
        let answers = |server: &UdpSocket| probe(server, mapped, &host).is_some();
        let arrived = [&contacted, &other_port, &other_address].map(answers);
        let expected = match kind {
            NatKind::FullCone => [true, true, true],
            NatKind::AddressRestricted => [true, true, false],
            _ => [true, false, false],
        };
        assert_eq!(arrived, expected, "{kind}: the same address and port, another port, another address");
        let others = [&other_port, &other_address].map(|server| send(server) == Some(mapped));
        assert_eq!(others, [kind != NatKind::Symmetric; 2], "{kind}: one port for all destinations");
        // The host has sent to both by now.
        let answered = [&other_port, &other_address].map(answers);
        assert_eq!(answered, [kind != NatKind::Symmetric; 2], "{kind}");
    }
}

#[test]
fn each_kind_maps_and_filters_by_its_definition() {
    if !network_namespace::enter("each_kind_maps_and_filters_by_its_definition") {
        return;
    }
    let public = Namespace::current();
    public.forward_packets();
    for server in SERVERS {
        public.run(&["ip", "address", "add", &format!("{server}/32"), "dev", "lo"]);
    }
    let listener = TcpListener::bind((SERVERS[0], 0)).unwrap();
    for (number, kind) in (1..).zip(NatKind::ALL) {
        let nat = Nat::new(kind, &public, number);
        assert_kind(kind, &nat);
        let connected = inside(&nat.host, || TcpStream::connect(listener.local_addr().unwrap()).is_ok());
        assert!(connected, "{kind}: TCP passes");
        assert_eq!(listener.accept().unwrap().1.ip(), nat.address);
    }
}

#[test]
fn sent_datagrams_are_counted_by_destination() {
    if !network_namespace::enter("sent_datagrams_are_counted_by_destination") {
        return;
    }
    let machine = Namespace::current();
    machine.count_datagrams(900);
    let socket = bind(Ipv4Addr::LOCALHOST);
    let targets = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    for (target, bytes) in [(targets[0], 872), (targets[0], 1_000), (targets[1], 871), (targets[1], 1_000)] {
        socket.send_to(&vec![0; bytes], (target, 9)).unwrap();
    }
    // With headers of 28 bytes.
    assert_eq!(machine.datagrams_sent(), [(targets[0], 2), (targets[1], 1)].into());
}
