//! Shared responses that cover the whole world.
//!
//! A request that finds the cached response outdated starts one encoding, and all other requests wait for the
//! same. The encoding is a task of its own: a client that disconnects neither cancels it nor causes another
//! one.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
    stream,
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    task,
    time::{self, Instant},
};

use crate::{encoded::Encoded, metrics};

/// A body is encoded at most once in this time, regardless of the number of requests and changes. A response
/// is no older than this.
pub(crate) const ENCODING_INTERVAL: Duration = Duration::from_secs(1);

/// A part of a list with at most this many bytes is copied, so that its response does not keep the whole list
/// in memory.
const COPIED_BYTES: usize = 16 * 1024;

/// The state from which a response was made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Version {
    /// The number of changes so far.
    pub(crate) changes: u64,
    /// The number of the last event of the feed.
    pub(crate) event: u64,
}

/// The newest response at one path. Its elements have keys of type `K`. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Cached<K> {
    /// The label of the metric that counts the encodings.
    path: &'static str,
    state: Arc<Mutex<State<K>>>,
}

#[derive(Debug)]
struct State<K> {
    latest: Option<Arc<Answer<K>>>,
    /// The encoding in progress.
    refresh: Option<Refresh<K>>,
}

/// The result of an encoding; `None` if it failed.
type Refresh<K> = Shared<BoxFuture<'static, Option<Arc<Answer<K>>>>>;

/// An encoded response.
#[derive(Debug)]
pub(crate) struct Answer<K> {
    pub(crate) encoded: Arc<Encoded>,
    elements: Elements<K>,
    /// The time at which the data last changed through a bus message.
    pub(crate) updated_at: Option<std::time::Instant>,
    version: Version,
    taken_at: Instant,
}

/// A response that is encoded, but not compressed yet.
#[derive(Debug)]
pub(crate) struct Draft<K> {
    pub(crate) version: Version,
    pub(crate) updated_at: Option<std::time::Instant>,
    pub(crate) list: List<K>,
}

/// A list, encoded as JSON.
#[derive(Debug)]
pub(crate) struct List<K> {
    json: Vec<u8>,
    elements: Elements<K>,
}

/// The byte range of each element of a list, sorted by key. Several elements may have the same key.
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
            // Encoding does not fail: elements consist of strings and numbers, and a vector accepts every
            // write.
            let _ = serde_json::to_writer(&mut json, &element);
            elements.push((key, start..json.len()));
        }
        json.extend_from_slice(tail.as_bytes());
        elements.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { json, elements }
    }
}

impl<K: Ord> Answer<K> {
    /// Whether this response is recent enough for a request that requires `version`.
    fn is_current(&self, version: Version) -> bool {
        // A client that received an event must find it in the response, even if the response is young.
        self.version.event >= version.event
            && (self.version.changes >= version.changes || self.taken_at.elapsed() < ENCODING_INTERVAL)
    }

    /// The elements with these keys, in the order of the list, between `head` and `tail`. Nothing is encoded
    /// again, and a large result shares the bytes of the list instead of copying them.
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
    /// A cache without a response.
    pub(crate) fn new(path: &'static str) -> Self {
        Self { path, state: Arc::new(Mutex::new(State { latest: None, refresh: None })) }
    }

    /// The response to a request that requires `version`: the newest one if it is recent enough, otherwise a
    /// new one. `draft` makes it on a blocking thread, as soon as the last encoding is [`ENCODING_INTERVAL`]
    /// old. `None` if it fails.
    pub(crate) async fn get(
        &self,
        version: Version,
        draft: impl Fn() -> Draft<K> + Clone + Send + 'static,
    ) -> Option<Arc<Answer<K>>> {
        loop {
            let refresh = {
                let mut state = self.state.lock();
                if let Some(latest) = state.latest.as_ref().filter(|latest| latest.is_current(version)) {
                    return Some(latest.clone());
                }
                let latest = state.latest.clone();
                state.refresh.get_or_insert_with(|| self.clone().refresh(latest, draft.clone())).clone()
            };
            // An encoding that was in progress may have begun too early for this request: then another
            // follows.
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
            metrics::encodings(self.path).increment(1);
            let encode = move || {
                let taken_at = Instant::now();
                let Draft { version, updated_at, list: List { json, elements } } = draft();
                // An unchanged body keeps its tag, and is not compressed again.
                let same = latest.filter(|latest| *latest.encoded.plain() == json[..]);
                let encoded = same.map_or_else(|| Arc::new(Encoded::new(json)), |same| same.encoded.clone());
                Arc::new(Answer { encoded, elements, updated_at, version, taken_at })
            };
            let answer = task::spawn_blocking(encode).await.ok();
            let mut state = self.state.lock();
            state.refresh = None;
            if answer.is_some() {
                state.latest.clone_from(&answer);
            }
            answer
        });
        refresh.map(|answer| answer.ok().flatten()).boxed().shared()
    }
}

#[cfg(test)]
mod tests;
