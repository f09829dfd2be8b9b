//! A cache of the scene on each parcel, from the last response of the content service.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::Parcel;

/// A scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    /// The id of the entity.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) base: Parcel,
    pub(crate) parcels: Vec<Parcel>,
    pub(crate) thumbnail: Option<String>,
    pub(crate) description: Option<String>,
}

/// The last result for each parcel that was requested. It is used, however old it is, until there is a newer
/// one.
#[derive(Debug)]
pub(crate) struct Scenes {
    entries: BTreeMap<Parcel, Entry>,
    ttl: Duration,
    max: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` if there is no scene on the parcel.
    scene: Option<Arc<Scene>>,
    fetched_at: Instant,
    /// The time at which a peer was last on the parcel.
    occupied_at: Instant,
}

/// The limit of parcels in one request.
const BATCH: usize = 100;

impl Scenes {
    /// An empty cache of at most `max` parcels, each of which is requested again after `ttl`.
    pub(crate) fn new(ttl: Duration, max: usize) -> Self {
        Self { entries: BTreeMap::new(), ttl, max }
    }

    /// The scene on a parcel, if one is known.
    pub(crate) fn at(&self, parcel: Parcel) -> Option<&Scene> {
        self.entries.get(&parcel)?.scene.as_deref()
    }

    /// The parcels to request next, given the occupied ones: first those without a result, then those
    /// with a result older than the `ttl`.
    pub(crate) fn due(&mut self, occupied: impl Iterator<Item = Parcel>, now: Instant) -> Vec<Parcel> {
        let (mut unknown, mut old) = (Vec::new(), Vec::new());
        // At most `max` parcels, which fit into the cache together. Otherwise parcels would be removed and
        // requested again in turns.
        for parcel in occupied.take(self.max) {
            match self.entries.get_mut(&parcel) {
                None => unknown.push(parcel),
                Some(entry) => {
                    entry.occupied_at = now;
                    if now - entry.fetched_at >= self.ttl {
                        old.push(parcel);
                    }
                }
            }
        }
        unknown.append(&mut old);
        unknown.truncate(BATCH);
        unknown
    }

    /// Stores the response to a request for all parcels of `requested`. A parcel without a scene is stored as
    /// empty.
    pub(crate) fn update(&mut self, requested: &[Parcel], answer: Vec<(Scene, Vec<Parcel>)>, now: Instant) {
        let mut on: BTreeMap<Parcel, Arc<Scene>> = BTreeMap::new();
        for (scene, pointers) in answer {
            let scene = Arc::new(scene);
            on.extend(pointers.into_iter().map(|pointer| (pointer, scene.clone())));
        }
        for &parcel in requested {
            let scene = on.get(&parcel).cloned();
            self.entries.insert(parcel, Entry { scene, fetched_at: now, occupied_at: now });
        }
        self.remove_excess();
    }

    /// Removes the parcels that have been unoccupied for longest, down to the limit.
    fn remove_excess(&mut self) {
        let excess = self.entries.len().saturating_sub(self.max);
        if excess == 0 {
            return;
        }
        let mut by_age: Vec<(Instant, Parcel)> =
            self.entries.iter().map(|(&parcel, entry)| (entry.occupied_at, parcel)).collect();
        by_age.sort_unstable();
        for (_, parcel) in &by_age[..excess] {
            self.entries.remove(parcel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn parcel(x: i32) -> Parcel {
        Parcel { x, y: 0 }
    }

    fn parcels(xs: impl IntoIterator<Item = i32>) -> Vec<Parcel> {
        xs.into_iter().map(parcel).collect()
    }

    fn scene(id: &str, xs: &[i32]) -> (Scene, Vec<Parcel>) {
        let on = parcels(xs.iter().copied());
        let scene = Scene {
            id: id.to_owned(),
            name: id.to_owned(),
            base: on[0],
            parcels: on.clone(),
            thumbnail: None,
            description: None,
        };
        (scene, on)
    }

    fn id(scenes: &Scenes, x: i32) -> Option<&str> {
        scenes.at(parcel(x)).map(|scene| &*scene.id)
    }

    #[test]
    fn parcel_is_refetched_after_its_ttl_and_stays_known() {
        let now = Instant::now();
        let mut scenes = Scenes::new(10 * SECOND, 100);
        assert_eq!(scenes.due(parcels([1, 2, 9]).into_iter(), now), parcels([1, 2, 9]));
        scenes.update(&parcels([1, 2, 9]), vec![scene("plaza", &[1, 2, 3])], now);
        assert_eq!((id(&scenes, 1), id(&scenes, 9), id(&scenes, 3)), (Some("plaza"), None, None));
        assert_eq!(scenes.due(parcels([1, 2, 9]).into_iter(), now + 9 * SECOND), []);
        // A parcel without a scene is requested again too; unknown parcels come first.
        let due = scenes.due(parcels([1, 9, 10]).into_iter(), now + 10 * SECOND);
        assert_eq!(due, parcels([10, 1, 9]));
        assert_eq!(id(&scenes, 1), Some("plaza"), "as long as there is no newer result");
        scenes.update(&due, vec![scene("casino", &[9, 10])], now + 10 * SECOND);
        assert_eq!((id(&scenes, 1), id(&scenes, 9), id(&scenes, 2)), (None, Some("casino"), Some("plaza")));
    }

    #[test]
    fn request_size_and_memory_stay_within_their_bounds() {
        let now = Instant::now();
        let mut scenes = Scenes::new(1_000 * SECOND, 150);
        let crowd = || parcels(0..300).into_iter();
        let mut requested = 0;
        loop {
            let due = scenes.due(crowd(), now);
            if due.is_empty() {
                break;
            }
            assert!(due.len() <= BATCH);
            requested += due.len();
            scenes.update(&due, Vec::new(), now);
            assert!(scenes.entries.len() <= 150);
        }
        assert_eq!(requested, 150, "parcels above the limit are not requested repeatedly");
        // The peers moved: the parcels that they left are removed first.
        let later = now + SECOND;
        assert_eq!(scenes.due(parcels([7, 500]).into_iter(), later), parcels([500]));
        scenes.update(&parcels([500]), vec![scene("far", &[500])], later);
        assert_eq!((scenes.entries.len(), id(&scenes, 500)), (150, Some("far")));
        assert!(scenes.entries.contains_key(&parcel(7)));
    }
}
