//! Tokens, participants and the API of the server.

use std::time::{Duration, Instant};

use livekit_api::{
    access_token::{AccessToken, VideoGrants},
    services::room::{CreateRoomOptions, RoomClient},
};
use rtc::livekit::{Data, Event, JoinError, Member, Options, Participant};
use test_support::LiveKitServer;
use tokio::time::timeout;

pub(crate) const ROOM: &str = "I1";
/// The timeout of a step, long enough for a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn token(identity: &str) -> String {
    token_for(identity, "", VideoGrants { can_publish_data: Some(true), ..VideoGrants::default() })
}

/// A hidden agent that may not publish.
pub(crate) fn observer_token(identity: &str) -> String {
    let grants = VideoGrants {
        hidden: true,
        can_publish: Some(false),
        can_publish_data: Some(false),
        ..VideoGrants::default()
    };
    token_for(identity, "agent", grants)
}

fn token_for(identity: &str, kind: &str, grants: VideoGrants) -> String {
    let grants = VideoGrants { room_join: true, room: ROOM.to_owned(), can_subscribe: Some(true), ..grants };
    AccessToken::with_api_key(LiveKitServer::API_KEY, LiveKitServer::API_SECRET)
        .with_ttl(Duration::from_secs(300))
        .with_identity(identity)
        .with_kind(kind)
        .with_grants(grants)
        .to_jwt()
        .unwrap()
}

pub(crate) fn api(server: &LiveKitServer) -> RoomClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    RoomClient::with_api_key(&server.http(), LiveKitServer::API_KEY, LiveKitServer::API_SECRET)
}

pub(crate) async fn create_room(server: &LiveKitServer, max_participants: u32) {
    let options = CreateRoomOptions { max_participants, ..CreateRoomOptions::default() };
    api(server).create_room(ROOM, options).await.unwrap();
}

pub(crate) async fn try_join(url: &str, token: String) -> Result<Participant, JoinError> {
    let options = Options { join_timeout: LIMIT, ..Options::new(url, token) };
    timeout(LIMIT + Duration::from_secs(5), Participant::join(options)).await.unwrap()
}

/// A participant that has joined, its own session, and the others at that time.
pub(crate) async fn join(url: &str, identity: &str) -> (Participant, Member, Vec<Member>) {
    let began = Instant::now();
    let mut participant = try_join(url, token(identity)).await.unwrap();
    println!("{identity} joined in {:?}", began.elapsed());
    let Event::Joined { room, own, others } = next(&mut participant).await else {
        panic!("not joined first")
    };
    assert_eq!((&*room, &*own.identity), (ROOM, identity));
    (participant, own, others)
}

pub(crate) async fn next(participant: &mut Participant) -> Event {
    timeout(LIMIT, participant.next()).await.expect("an event in time").expect("an event before the end")
}

/// The next event that `pick` accepts; the others are skipped.
pub(crate) async fn wait_for<T>(
    participant: &mut Participant,
    mut pick: impl FnMut(&Event) -> Option<T>,
) -> T {
    loop {
        let event = next(participant).await;
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}

/// The next message.
pub(crate) async fn data(participant: &mut Participant) -> Data {
    wait_for(participant, |event| match event {
        Event::Data(data) => Some(data.clone()),
        _ => None,
    })
    .await
}

/// Waits until the participant sees this identity join.
pub(crate) async fn joined(participant: &mut Participant, identity: &str) -> Member {
    wait_for(participant, |event| match event {
        Event::ParticipantJoined(member) if member.identity == identity => Some(member.clone()),
        _ => None,
    })
    .await
}

/// Waits until the participant sees this session leave.
pub(crate) async fn left(participant: &mut Participant, sid: &str) {
    wait_for(participant, |event| match event {
        Event::ParticipantLeft(member) if member.sid == sid => Some(()),
        _ => None,
    })
    .await;
}
