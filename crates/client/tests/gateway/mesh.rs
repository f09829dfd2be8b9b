//! Clients in a mesh: two fake gateways forward their signals.

use client::{Dialect, Event, Explorer};
use protocol::{
    mesh::{Link, Member, Plan, Route, Signal},
    v3::{IslandChangedMessage, client_packet, server_packet},
};
use test_support::network_namespace;
use tokio::sync::watch;

use crate::fake_gateway::{FakeGateway, Socket, next};

/// A client that has signed in, its socket at its gateway, and its address.
async fn sign_in() -> (Explorer, Socket, String) {
    let (gateway, mut explorer) = FakeGateway::start_for(Dialect::Archipelago, |settings| {
        settings.transports = vec!["p2p".to_owned()];
        settings.udp_addresses = vec!["127.0.0.1:0".parse().unwrap()];
    })
    .await;
    let mut socket = gateway.accept("archipelago").await;
    let client_packet::Message::ChallengeRequest(request) = socket.receive().await else {
        panic!("no challenge request")
    };
    socket.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    (explorer, socket, request.address)
}

fn assignment() -> server_packet::Message {
    server_packet::Message::IslandChanged(IslandChangedMessage {
        island_id: "I7".to_owned(),
        conn_str: "p2p:I7".to_owned(),
        ..IslandChangedMessage::default()
    })
}

/// The plan of one of two members, of which the first offers.
fn plan(version: u32, alias: u32, addresses: &[String]) -> server_packet::Message {
    let other = 3 - alias;
    let route = |source, from, to: &[u32]| Route { source, from, to: to.into(), fallback: vec![] };
    let members = (1..).zip(addresses).map(|(alias, address)| Member { alias, address: address.clone() });
    server_packet::Message::MeshPlan(Plan {
        island_id: "I7".to_owned(),
        version,
        alias,
        members: members.collect(),
        links: vec![Link { alias: other, initiate: alias == 1 }],
        routes: vec![route(alias, 0, &[other]), route(other, other, &[])],
    })
}

/// Forwards the signals between two clients, and publishes the number of clients with a link.
async fn forward(mut sockets: [Socket; 2], addresses: [String; 2], linked: watch::Sender<usize>) {
    let mut has_link = [false; 2];
    loop {
        let [one, two] = &mut sockets;
        let (from, packet) = tokio::select! {
            packet = one.receive() => (0, packet),
            packet = two.receive() => (1, packet),
        };
        match packet {
            client_packet::Message::MeshSignal(signal) => {
                assert_eq!(signal.peer, addresses[1 - from]);
                let signal = Signal { peer: addresses[from].clone(), ..signal };
                sockets[1 - from].send(server_packet::Message::MeshSignal(signal)).await;
            }
            client_packet::Message::MeshLinks(report) => {
                has_link[from] = !report.connected_to.is_empty();
                linked.send_replace(has_link.iter().filter(|has| **has).count());
            }
            _ => {}
        }
    }
}

/// The next event that is no assignment.
async fn room_event(explorer: &mut Explorer) -> Event {
    loop {
        match next(explorer).await {
            Event::IslandChanged { .. } => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn clients_exchange_messages_in_a_mesh() {
    if !network_namespace::enter("mesh::clients_exchange_messages_in_a_mesh") {
        return;
    }
    let (mut one, mut socket_of_one, first) = sign_in().await;
    let (mut two, mut socket_of_two, second) = sign_in().await;
    let addresses = [first, second];
    socket_of_one.send(assignment()).await;
    socket_of_one.send(plan(1, 1, &addresses)).await;
    // The plan may arrive before the assignment.
    socket_of_two.send(plan(1, 2, &addresses)).await;
    socket_of_two.send(assignment()).await;
    for (explorer, own) in [(&mut one, 0), (&mut two, 1)] {
        let Event::RoomEntered { transport, url, alias, members, .. } = room_event(explorer).await else {
            panic!("not entered")
        };
        assert_eq!((transport, &*url, alias), ("p2p", "p2p:I7", own as u32 + 1));
        let other = (2 - own as u32, addresses[1 - own].parse().unwrap());
        assert_eq!(members.into_iter().collect::<Vec<_>>(), [other]);
    }
    let (linked, mut links) = watch::channel(0);
    let forwarding = tokio::spawn(forward([socket_of_one, socket_of_two], addresses.clone(), linked));
    links.wait_for(|linked| *linked == 2).await.unwrap();
    for (explorer, other) in [(&mut one, &addresses[1]), (&mut two, &addresses[0])] {
        let Event::LinksChanged { neighbours, .. } = room_event(explorer).await else { panic!("no link") };
        assert!(neighbours.iter().map(ToString::to_string).eq([other.clone()]));
    }
    let handles = [one.handle(), two.handle()];
    for (from, to, alias, unreliable) in [(&handles[0], &mut two, 1, false), (&handles[1], &mut one, 2, true)]
    {
        assert_eq!(from.send("hello".into(), unreliable).await.len(), 1);
        let Event::Message { alias: from, sender, body, .. } = room_event(to).await else {
            panic!("no message")
        };
        assert_eq!((from, body), (alias, "hello".into()));
        assert_eq!(sender.unwrap().to_string(), addresses[alias as usize - 1]);
    }
    forwarding.abort();
}

#[tokio::test]
async fn members_of_a_newer_plan_join_and_leave() {
    if !network_namespace::enter("mesh::members_of_a_newer_plan_join_and_leave") {
        return;
    }
    let (mut explorer, mut socket, own) = sign_in().await;
    let other = "0x00000000000000000000000000000000000000bb".to_owned();
    let addresses = [own.clone(), other.clone()];
    socket.send(assignment()).await;
    let plan_of = |version, aliases: &[u32]| {
        let member = |&alias: &u32| Member { alias, address: addresses[alias.min(2) as usize - 1].clone() };
        server_packet::Message::MeshPlan(Plan {
            island_id: "I7".to_owned(),
            version,
            alias: 1,
            members: aliases.iter().map(member).collect(),
            ..Plan::default()
        })
    };
    socket.send(plan_of(1, &[1, 2])).await;
    assert!(matches!(room_event(&mut explorer).await, Event::RoomEntered { .. }));
    socket.send(plan_of(2, &[1])).await;
    assert!(matches!(room_event(&mut explorer).await, Event::PeerLeft { alias: 2, .. }));
    socket.send(plan_of(3, &[1, 5])).await;
    let event = room_event(&mut explorer).await;
    let Event::PeerJoined { alias: 5, address, .. } = event else { panic!("{event:?}") };
    assert_eq!(address.to_string(), other);
}
