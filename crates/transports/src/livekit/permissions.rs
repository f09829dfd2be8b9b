//! The permissions of a participant, as its token and as `UpdateParticipant` express them.

use livekit_api::access_token::VideoGrants;
use livekit_protocol::{ParticipantPermission, TrackSource};
use protocol::{MediaGrants, RoomName, Voice};

/// The permissions of a member, from which both forms are made, so that they cannot differ.
struct Permissions {
    /// Whether it may publish tracks. Without any source it must be `false`: the server takes an empty list of
    /// sources for all of them.
    can_publish: bool,
    sources: Vec<TrackSource>,
}

/// The media that a participant with these permissions may publish.
pub(super) fn media_of(permission: &ParticipantPermission) -> MediaGrants {
    let ParticipantPermission { can_publish, can_publish_sources: sources, .. } = permission;
    let may = |source: TrackSource| *can_publish && (sources.is_empty() || sources.contains(&source.into()));
    let voice = if may(TrackSource::Microphone) { Voice::Everyone } else { Voice::None };
    MediaGrants { voice, video: may(TrackSource::Camera) }
}

/// A member may always subscribe, publish data and change its own metadata.
const CAN_SUBSCRIBE: bool = true;
const CAN_PUBLISH_DATA: bool = true;
const CAN_UPDATE_OWN_METADATA: bool = true;

impl From<MediaGrants> for Permissions {
    /// Shared screens, with or without sound, are never permitted: no rule asks for them.
    fn from(media: MediaGrants) -> Self {
        let microphone = (media.voice == Voice::Everyone).then_some(TrackSource::Microphone);
        let camera = media.video.then_some(TrackSource::Camera);
        let sources: Vec<TrackSource> = microphone.into_iter().chain(camera).collect();
        Self { can_publish: !sources.is_empty(), sources }
    }
}

/// The grants in the token of a member of `room`: those that Decentraland clients expect, and no others.
pub(super) fn video_grants(room: &RoomName, media: MediaGrants) -> VideoGrants {
    let Permissions { can_publish, sources } = media.into();
    VideoGrants {
        room_join: true,
        room: room.to_string(),
        can_publish: Some(can_publish),
        can_subscribe: Some(CAN_SUBSCRIBE),
        can_publish_data: Some(CAN_PUBLISH_DATA),
        can_update_own_metadata: Some(CAN_UPDATE_OWN_METADATA),
        can_publish_sources: sources.into_iter().map(|source| source.as_str_name().to_lowercase()).collect(),
        ..VideoGrants::default()
    }
}

/// The permissions of a member for `RoomService.UpdateParticipant`, which replaces all permissions of a
/// participant. They equal those in a token of [`Minter::connection`](super::Minter::connection) with the same
/// `media`, which the server restores when the participant joins again.
pub(super) fn participant_permission(media: MediaGrants) -> ParticipantPermission {
    let Permissions { can_publish, sources } = media.into();
    ParticipantPermission {
        can_subscribe: CAN_SUBSCRIBE,
        can_publish,
        can_publish_data: CAN_PUBLISH_DATA,
        can_publish_sources: sources.into_iter().map(i32::from).collect(),
        can_update_metadata: CAN_UPDATE_OWN_METADATA,
        ..ParticipantPermission::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Voice, bool, &[&str]); 4] = [
        (Voice::Everyone, false, &["microphone"]),
        (Voice::Everyone, true, &["microphone", "camera"]),
        (Voice::None, true, &["camera"]),
        (Voice::None, false, &[]),
    ];

    #[test]
    fn sources_follow_voice_and_video() {
        for (voice, video, sources) in ALL {
            let grants = video_grants(&"I1".parse().unwrap(), MediaGrants { voice, video });
            assert_eq!(grants.can_publish_sources, sources);
            assert_eq!(grants.can_publish, Some(!sources.is_empty()), "an empty list means all sources");
            assert_eq!((grants.can_publish_data, grants.can_subscribe), (Some(true), Some(true)));
        }
    }

    #[test]
    fn update_equals_the_token() {
        for (voice, video, _) in ALL {
            let media = MediaGrants { voice, video };
            let grants = video_grants(&"I1".parse().unwrap(), media);
            let permission = participant_permission(media);
            // As the server derives permissions from a token.
            let source = |source: &String| TrackSource::from_str_name(&source.to_uppercase()).unwrap() as i32;
            let expected = ParticipantPermission {
                can_subscribe: grants.can_subscribe(),
                can_publish: grants.can_publish(),
                can_publish_data: grants.can_publish_data(),
                can_publish_sources: grants.can_publish_sources.iter().map(source).collect(),
                can_update_metadata: grants.can_update_own_metadata(),
                hidden: grants.hidden,
                ..ParticipantPermission::default()
            };
            assert_eq!(permission, expected);
        }
    }

    #[test]
    fn room_name_may_have_dots() {
        let grants = video_grants(&"name.dcl.eth".parse().unwrap(), MediaGrants::default());
        assert_eq!(grants.room, "name.dcl.eth");
    }
}
