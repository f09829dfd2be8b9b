//! Questions about the members of islands and meshes.

use protocol::timing;

use super::*;

#[tokio::test(start_paused = true)]
async fn peer_is_member_of_the_island_assigned_last() {
    let sessions = new_sessions(Bus::in_process(), 10, KeepSession::Newest);
    let (id, _receiver) = begin(&sessions, PEER, 1);
    let began = Instant::now();
    assert!(!sessions.is_member(PEER, &island(1)).await, "not assigned yet");
    assert_eq!(began.elapsed(), MEMBERSHIP_REPORT_TIMEOUT);
    sessions.deliver_island_change(PEER, Some(id), island_change(1));
    assert!(sessions.is_member(PEER, &island(1)).await);
    sessions.deliver_island_change(PEER, Some(id), island_change(2));
    assert!(!sessions.is_member(PEER, &island(1)).await, "moved");
    assert!(sessions.is_member(PEER, &island(2)).await);
    sessions.end(PEER, id);
    assert!(!sessions.is_member(PEER, &island(2)).await, "signed out");
}

#[tokio::test(start_paused = true)]
async fn member_on_another_gateway_is_awaited() {
    let sessions = new_sessions(Bus::in_process(), 10, KeepSession::Newest);
    let remote = SessionId::new(7, 0);
    let report = async {
        time::sleep(Duration::from_millis(700)).await;
        sessions.observe_session(PEER, remote, None, None);
        sessions.observe_member_change(&island(1), PEER, Some(remote), true);
    };
    let island = island(1);
    let (is_member, ()) = tokio::join!(sessions.is_member(PEER, &island), report);
    assert!(is_member);
    sessions.observe_member_change(&island, PEER, Some(remote), false);
    assert!(!sessions.is_member(PEER, &island).await, "left");
}

#[tokio::test]
async fn mesh_is_shared_by_members_of_its_island_only() {
    let sessions = new_sessions(Bus::in_process(), 10, KeepSession::Newest);
    let [first, second, other] = [1, 2, 3].map(|number| Address::new([number; 20]));
    let mut receivers = Vec::new();
    for (peer, number, is_mesh) in [(first, 1, true), (second, 1, true), (other, 2, false)] {
        receivers.push(begin(&sessions, peer, number).1);
        sessions.deliver_island_change(peer, None, IslandChange { is_mesh, ..island_change(number) });
    }
    let shared = |one, other, number| sessions.shared_mesh(one, other, &island(number));
    assert_eq!([shared(first, second, 1), shared(second, first, 1)], [MeshMembership::Member; 2]);
    assert_eq!(shared(first, first, 1), MeshMembership::No, "itself");
    assert_eq!(shared(first, other, 1), MeshMembership::No, "another island");
    assert_eq!(shared(first, second, 2), MeshMembership::No, "not its island");
    let membership = |peer, number| sessions.mesh_membership(peer, &island(number));
    assert_eq!([membership(first, 1), membership(first, 2)], [MeshMembership::Member, MeshMembership::No]);
    assert_eq!(membership(other, 2), MeshMembership::No, "no mesh");
}

#[tokio::test(start_paused = true)]
async fn fallback_outlives_a_mesh_that_moves_to_rooms() {
    let sessions = new_sessions(Bus::in_process(), 10, KeepSession::Newest);
    let [first, second] = [1, 2].map(|number| Address::new([number; 20]));
    let mut receivers = Vec::new();
    for peer in [first, second] {
        receivers.push(begin(&sessions, peer, 1).1);
        sessions.deliver_island_change(peer, None, IslandChange { is_mesh: true, ..island_change(1) });
    }
    let shared = || sessions.shared_mesh(first, second, &island(1));
    // A repeated assignment does not prolong it.
    for _ in 0..2 {
        sessions.deliver_island_change(first, None, island_change(1));
        assert!(shared() != MeshMembership::Member && shared().has_fallback());
        time::advance(timing::ROOM_GRACE / 2).await;
    }
    assert!(!shared().has_fallback());
    sessions.deliver_island_change(first, None, IslandChange { is_mesh: true, ..island_change(1) });
    assert_eq!(shared(), MeshMembership::Member, "it moved to a mesh again");
    sessions.deliver_island_change(first, None, island_change(2));
    assert_eq!(sessions.mesh_membership(first, &island(2)), MeshMembership::No, "another island");
}
