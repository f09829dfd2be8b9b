//! The rooms of assigned islands on a server. No I/O.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use protocol::IslandId;
use tokio::time::Instant;

use super::command::OpenRequest;

/// The rooms that this director created or reconciled. Empty in a standby.
#[derive(Debug, Default)]
pub(super) struct KnownRooms {
    /// When each was created, as far as this director knows.
    created_at: HashMap<IslandId, Instant>,
    /// Rooms with changed grants: older tokens restore older permissions.
    media_changed: HashSet<IslandId>,
    /// Rooms that are being deleted, with the request to create one again.
    deleting: HashMap<IslandId, Option<OpenRequest>>,
}

/// A list of rooms may be older than a room that was created this recently.
const CREATION_MARGIN: Duration = Duration::from_secs(5);

impl KnownRooms {
    pub(super) fn contains(&self, island: &IslandId) -> bool {
        self.created_at.contains_key(island)
    }

    pub(super) fn islands(&self) -> impl Iterator<Item = &IslandId> {
        self.created_at.keys()
    }

    /// The room is created now.
    pub(super) fn create(&mut self, island: IslandId) {
        self.created_at.insert(island, Instant::now());
    }

    /// The room exists.
    pub(super) fn add(&mut self, island: IslandId) {
        self.created_at.entry(island).or_insert_with(Instant::now);
    }

    pub(super) fn remove(&mut self, island: &IslandId) {
        self.created_at.remove(island);
        self.media_changed.remove(island);
    }

    /// The rooms that a list of the server lacks.
    pub(super) fn missing(&self, listed: &[String]) -> Vec<IslandId> {
        let listed: HashSet<&str> = listed.iter().map(String::as_str).collect();
        let is_missing = |(island, created_at): &(&IslandId, &Instant)| {
            created_at.elapsed() > CREATION_MARGIN && !listed.contains(island.as_str())
        };
        self.created_at.iter().filter(is_missing).map(|(island, _)| island.clone()).collect()
    }

    pub(super) fn set_media_changed(&mut self, island: &IslandId) {
        self.media_changed.insert(island.clone());
    }

    pub(super) fn has_media_changed(&self, island: &IslandId) -> bool {
        self.media_changed.contains(island)
    }

    /// The room is deleted from now on. It is not known any more.
    pub(super) fn begin_deletion(&mut self, island: &IslandId) {
        self.remove(island);
        self.deleting.insert(island.clone(), None);
    }

    /// Postpones a request until the deletion of the room has ended; returns it if the room is not being deleted.
    pub(super) fn postpone(&mut self, request: OpenRequest) -> Option<OpenRequest> {
        match self.deleting.get_mut(&request.island) {
            Some(postponed) => {
                *postponed = Some(request);
                None
            }
            None => Some(request),
        }
    }

    /// The deletion has ended. Returns the postponed request.
    pub(super) fn end_deletion(&mut self, island: &IslandId) -> Option<OpenRequest> {
        self.deleting.remove(island).flatten()
    }

    /// Forgets all rooms. Deletions that run continue.
    pub(super) fn clear(&mut self) {
        self.created_at.clear();
        self.media_changed.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time};
    use transports::livekit::RoomOptions;

    use super::*;

    fn request(island: &IslandId) -> OpenRequest {
        let options = RoomOptions {
            max_participants: 1,
            empty_timeout_s: 1,
            departure_timeout_s: 1,
            metadata: String::new(),
        };
        OpenRequest { island: island.clone(), options, reply: oneshot::channel().0 }
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_missing_only_after_the_margin() {
        let (mut rooms, island) = (KnownRooms::default(), "I1".parse::<IslandId>().unwrap());
        rooms.create(island.clone());
        assert_eq!(rooms.missing(&[]), []);
        time::advance(CREATION_MARGIN * 2).await;
        assert_eq!(rooms.missing(&["I2".to_owned()]), std::slice::from_ref(&island));
        assert_eq!(rooms.missing(&["I1".to_owned()]), []);
        rooms.remove(&island);
        assert_eq!(rooms.missing(&[]), []);
    }

    #[test]
    fn creation_waits_for_the_end_of_a_deletion() {
        let (mut rooms, island) = (KnownRooms::default(), "I1".parse::<IslandId>().unwrap());
        assert!(rooms.postpone(request(&island)).is_some(), "it is not being deleted");
        rooms.create(island.clone());
        rooms.begin_deletion(&island);
        assert!(!rooms.contains(&island));
        assert!(rooms.postpone(request(&island)).is_none());
        assert!(rooms.end_deletion(&island).is_some());
        assert!(rooms.end_deletion(&island).is_none());
        assert!(rooms.postpone(request(&island)).is_some());
    }
}
