//! Answers about the whole world, which all readers share.
//!
//! A request that finds its answer out of date starts one encoding, and all others wait for the same. The
//! encoding is a task of its own: readers that go away neither end it nor have it begun again.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
    stream,
};
use serde::Serialize;
use tokio::{
    task,
    time::{self, Instant},
};

use crate::encoded::Encoded;

/// A body is encoded at most once in this time, however many requests there are and whatever changes. An
/// answer is no older than this.
pub(crate) const ENCODING_INTERVAL: Duration = Duration::from_secs(1);

/// A part of a list with at most so many bytes is copied, so that its readers do not keep the whole list.
const COPIED_BYTES: usize = 16 * 1024;

/// What an answer was made of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Version {
    /// How many changes there had been.
    pub(crate) changes: u64,
    /// The number of the last event of the feed.
    pub(crate) event: u64,
}

/// The newest answer at one path, in which elements have the key `K`. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Cached<K> {
    /// What the encodings are counted under.
    path: &'static str,
    state: Arc<Mutex<State<K>>>,
}

#[derive(Debug)]
struct State<K> {
    latest: Option<Arc<Answer<K>>>,
    /// The encoding that is under way.
    refresh: Option<Refresh<K>>,
}

/// `None`: it failed.
type Refresh<K> = Shared<BoxFuture<'static, Option<Arc<Answer<K>>>>>;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer<K> {
    pub(crate) encoded: Arc<Encoded>,
    elements: Elements<K>,
    /// When the data last came from the bus.
    pub(crate) updated_at: Option<std::time::Instant>,
    version: Version,
    taken_at: Instant,
}

/// An answer that is about to be compressed.
#[derive(Debug)]
pub(crate) struct Draft<K> {
    pub(crate) version: Version,
    pub(crate) updated_at: Option<std::time::Instant>,
    pub(crate) list: List<K>,
}

/// A list in JSON.
#[derive(Debug)]
pub(crate) struct List<K> {
    json: Vec<u8>,
    elements: Elements<K>,
}

/// Which bytes of a list are which element, in the order of the keys. More than one may have the same.
type Elements<K> = Vec<(K, Range<usize>)>;

impl<K: Ord> List<K> {
    /// Encodes elements between `head` and `tail`.
    pub(crate) fn new<T: Serialize>(head: &str, list: impl IntoIterator<Item = (K, T)>, tail: &str) -> Self {
        let mut json = head.as_bytes().to_vec();
        let mut elements = Vec::new();
        for (key, element) in list {
            if !elements.is_empty() {
                json.push(b',');
            }
            let start = json.len();
            // What consists of texts and numbers alone can be written, and a vector takes all.
            let _ = serde_json::to_writer(&mut json, &element);
            elements.push((key, start..json.len()));
        }
        json.extend_from_slice(tail.as_bytes());
        elements.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { json, elements }
    }
}

impl<K: Ord> Answer<K> {
    /// Whether a request may have it that came when the world had this version.
    fn is_current(&self, version: Version) -> bool {
        // Whoever knows of an event finds it in the answer, however young that is.
        self.version.event >= version.event
            && (self.version.changes >= version.changes || self.taken_at.elapsed() < ENCODING_INTERVAL)
    }

    /// The elements with these keys, in the order of the list, between `head` and `tail`. Nothing is
    /// encoded, and what is large is not copied either.
    pub(crate) fn select(&self, keys: &BTreeSet<K>, head: &'static str, tail: &'static str) -> Body {
        let mut found: Vec<Range<usize>> = Vec::new();
        for key in keys {
            let first = self.elements.partition_point(|(element, _)| element < key);
            let same = self.elements[first..].iter().take_while(|(element, _)| element == key);
            found.extend(same.map(|(_, range)| range.clone()));
        }
        found.sort_by_key(|range| range.start);
        let whole = self.encoded.plain();
        let mut parts = vec![Bytes::from_static(head.as_bytes())];
        for (index, range) in found.into_iter().enumerate() {
            if index > 0 {
                parts.push(Bytes::from_static(b","));
            }
            parts.push(whole.slice(range));
        }
        parts.push(Bytes::from_static(tail.as_bytes()));
        if parts.iter().map(Bytes::len).sum::<usize>() <= COPIED_BYTES {
            return parts.concat().into();
        }
        Body::from_stream(stream::iter(parts.into_iter().map(Ok::<_, std::convert::Infallible>)))
    }
}

impl<K> Clone for Cached<K> {
    fn clone(&self) -> Self {
        Self { path: self.path, state: self.state.clone() }
    }
}

impl<K: Ord + Send + Sync + 'static> Cached<K> {
    /// No answer yet, at a path.
    pub(crate) fn new(path: &'static str) -> Self {
        Self { path, state: Arc::new(Mutex::new(State { latest: None, refresh: None })) }
    }

    /// The answer to a request that comes when the world has this version: the newest there is if that will
    /// do, else what `draft` makes, on a blocking thread, as soon as the last encoding is
    /// [`ENCODING_INTERVAL`] old. `None` if it fails.
    pub(crate) async fn get(
        &self,
        version: Version,
        draft: impl Fn() -> Draft<K> + Clone + Send + 'static,
    ) -> Option<Arc<Answer<K>>> {
        loop {
            let refresh = {
                let mut state = self.state();
                if let Some(latest) = state.latest.as_ref().filter(|latest| latest.is_current(version)) {
                    return Some(latest.clone());
                }
                let latest = state.latest.clone();
                state.refresh.get_or_insert_with(|| self.clone().refresh(latest, draft.clone())).clone()
            };
            // One that was under way may have begun too early for this request: then another follows.
            refresh.await?;
        }
    }

    fn refresh(
        self,
        latest: Option<Arc<Answer<K>>>,
        draft: impl FnOnce() -> Draft<K> + Send + 'static,
    ) -> Refresh<K> {
        let refresh = task::spawn(async move {
            if let Some(latest) = &latest {
                time::sleep_until(latest.taken_at + ENCODING_INTERVAL).await;
            }
            metrics::counter!("atoll_stats_encodings_total", "path" => self.path).increment(1);
            let encode = move || {
                let taken = Instant::now();
                let Draft { version, updated_at: heard, list: List { json, elements } } = draft();
                // What has not changed keeps its tag, and is not compressed again.
                let same = latest.filter(|latest| *latest.encoded.plain() == json[..]);
                let encoded = same.map_or_else(|| Arc::new(Encoded::new(json)), |same| same.encoded.clone());
                Arc::new(Answer { encoded, elements, updated_at: heard, version, taken_at: taken })
            };
            let answer = task::spawn_blocking(encode).await.ok();
            let mut state = self.state();
            state.refresh = None;
            if answer.is_some() {
                state.latest.clone_from(&answer);
            }
            answer
        });
        refresh.map(|answer| answer.ok().flatten()).boxed().shared()
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
