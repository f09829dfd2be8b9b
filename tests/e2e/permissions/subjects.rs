//! The subjects of the bus, and the users that may publish or receive them.

use protocol::{Address, Subject, subject};

/// The users that may publish a subject, those that may receive it, and the next subject of the list. A
/// new subject does not compile until it is in the list.
pub(super) fn permissions(
    subject: &Subject,
) -> (&'static [&'static str], &'static [&'static str], Option<Subject>) {
    let peer = Address::new([7; 20]);
    let island = || "I1".parse().unwrap();
    match subject {
        Subject::PeerConnect(_) => {
            (&["gateway"], &["gateway", "director", "stats"], Some(Subject::PeerHeartbeat(peer)))
        }
        Subject::PeerHeartbeat(_) => {
            (&["gateway"], &["gateway", "director", "stats"], Some(Subject::PeerDisconnect(peer)))
        }
        Subject::PeerDisconnect(_) => {
            (&["gateway"], &["gateway", "director", "stats"], Some(Subject::PeerIslandChanged(peer)))
        }
        Subject::PeerIslandChanged(_) => {
            (&["director"], &["gateway", "director", "stats"], Some(Subject::PeerClusterChange(peer)))
        }
        // An external clustering service would publish it, with a user of its own.
        Subject::PeerClusterChange(_) => (&[], &["director"], Some(Subject::IslandPeerJoin(island()))),
        Subject::IslandPeerJoin(_) => {
            (&["director"], &["gateway", "rooms", "stats"], Some(Subject::IslandPeerLeft(island())))
        }
        Subject::IslandPeerLeft(_) => {
            let next = Subject::PeerTopic(peer, "plaza.chat".parse().unwrap());
            (&["director"], &["gateway", "stats"], Some(next))
        }
        Subject::PeerTopic(..) => {
            let next = Subject::SystemTopic("news.today".parse().unwrap());
            (&["gateway"], &["gateway"], Some(next))
        }
        // Servers of the realm's operator would publish it, with a user of their own.
        Subject::SystemTopic(_) => {
            let next = Subject::SceneTopic("messageBus.scene.bafy-1.door.open".parse().unwrap());
            (&[], &["gateway"], Some(next))
        }
        Subject::SceneTopic(_) => {
            let both = &["gateway", "scene-server"];
            (both, both, Some(Subject::EngineIslands))
        }
        Subject::EngineIslands => (&["director"], &["stats"], Some(Subject::EngineDiscovery)),
        Subject::EngineDiscovery => {
            let next = Subject::TransportAnnounce("rooms-1".parse().unwrap());
            (&["director"], &["gateway", "rooms", "director", "stats"], Some(next))
        }
        Subject::TransportAnnounce(_) => {
            (&["rooms"], &["gateway", "rooms", "director"], Some(Subject::MembershipEnded(island())))
        }
        Subject::MembershipEnded(_) => {
            (&["director"], &["rooms", "director"], Some(Subject::MeshSignal(peer)))
        }
        Subject::MeshSignal(_) => (&["gateway"], &["gateway"], Some(Subject::MeshLinks(peer))),
        Subject::MeshLinks(_) => (&["gateway"], &["director"], Some(Subject::MeshPlan(peer))),
        Subject::MeshPlan(_) => (&["director"], &["gateway"], Some(Subject::MeshIceServers(peer))),
        Subject::MeshIceServers(_) => (&["director"], &["gateway"], Some(Subject::PeersWanted)),
        Subject::PeersWanted => (&["gateway", "director", "stats"], &["gateway", "director"], None),
    }
}

/// One subject of each kind.
pub(super) fn subjects() -> Vec<Subject> {
    let first = Subject::PeerConnect(Address::new([7; 20]));
    std::iter::successors(Some(first), |subject| permissions(subject).2).collect()
}

/// The pattern with which roles subscribe to it.
pub(super) fn pattern(subject: &Subject) -> &'static str {
    let patterns = [
        subject::PEER_CONNECTS,
        subject::PEER_HEARTBEATS,
        subject::PEER_DISCONNECTS,
        subject::PEER_ISLAND_CHANGES,
        subject::PEER_CLUSTER_CHANGES,
        subject::ISLAND_PEER_JOINS,
        subject::ISLAND_PEER_LEAVES,
        subject::TOPICS,
        subject::SCENE_TOPICS,
        subject::ENGINE_ISLANDS,
        subject::ENGINE_DISCOVERY,
        subject::TRANSPORT_ANNOUNCEMENTS,
        subject::MEMBERSHIP_ENDS,
        subject::MESH_SIGNALS,
        subject::MESH_LINKS,
        subject::MESH_PLANS,
        subject::MESH_ICE_SERVERS,
        subject::PEERS_WANTED,
    ];
    let text = subject.to_string();
    patterns.into_iter().find(|pattern| subject::matches(pattern, &text)).expect("a pattern of the roles")
}
