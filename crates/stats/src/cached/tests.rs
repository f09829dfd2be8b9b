//! Tests of the shared responses: sharing, intervals, versions and selections.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{body::to_bytes, http::HeaderMap};
use futures_util::future::join_all;

use super::*;

/// A source of data that counts how often it was encoded.
#[derive(Clone, Default)]
struct World {
    changes: Arc<AtomicU64>,
    event: Arc<AtomicU64>,
    encodings: Arc<AtomicU64>,
    /// The encoded data does not depend on the changes.
    is_constant: bool,
}

impl World {
    fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn happen(&self) {
        self.event.fetch_add(1, Ordering::Relaxed);
        self.change();
    }

    fn version(&self) -> Version {
        Version { changes: self.changes.load(Ordering::Relaxed), event: self.event.load(Ordering::Relaxed) }
    }

    fn encodings(&self) -> u64 {
        self.encodings.load(Ordering::Relaxed)
    }

    fn draft(&self) -> impl Fn() -> Draft<u64> + Clone + Send + 'static {
        let world = self.clone();
        move || {
            world.encodings.fetch_add(1, Ordering::Relaxed);
            let version = world.version();
            let number = if world.is_constant { 0 } else { version.changes };
            Draft { version, updated_at: None, list: List::new("[", [(number, number)], "]") }
        }
    }

    async fn get(&self, cached: &Cached<u64>) -> Arc<Answer<u64>> {
        cached.get(self.version(), self.draft()).await.unwrap()
    }
}

fn cached() -> Cached<u64> {
    Cached::new("/test")
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_encoding() {
    let (cached, world) = (cached(), World::default());
    let answers = join_all((0..100).map(|_| world.get(&cached))).await;
    assert_eq!(world.encodings(), 1);
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer, &answers[0])));
}

#[tokio::test(start_paused = true)]
async fn changing_world_is_encoded_once_a_second() {
    let (cached, world) = (cached(), World::default());
    let began = Instant::now();
    let mut taken = Vec::new();
    while began.elapsed() < Duration::from_secs(5) {
        world.change();
        let answers = join_all((0..10).map(|_| world.get(&cached))).await;
        for answer in answers {
            assert!(answer.taken_at.elapsed() <= ENCODING_INTERVAL, "too old");
            taken.push(answer.taken_at);
        }
        time::advance(Duration::from_millis(10)).await;
    }
    taken.dedup();
    assert!(taken.windows(2).all(|pair| pair[1] - pair[0] >= ENCODING_INTERVAL), "{taken:?}");
    // One encoding at the beginning, and one each second.
    assert!((4..=6).contains(&world.encodings()), "{}", world.encodings());
}

#[tokio::test(start_paused = true)]
async fn unchanged_world_is_not_encoded_again() {
    let (cached, world) = (cached(), World::default());
    for _ in 0..10 {
        world.get(&cached).await;
        time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(world.encodings(), 1);
}

#[tokio::test(start_paused = true)]
async fn answer_holds_every_event_that_was_delivered() {
    let (cached, world) = (cached(), World::default());
    let first = world.get(&cached).await;
    world.happen();
    let answer = world.get(&cached).await;
    assert_eq!(answer.version.event, 1);
    assert!(answer.taken_at - first.taken_at >= ENCODING_INTERVAL, "it waits for its turn");
    assert_eq!(world.encodings(), 2);
}

#[tokio::test(start_paused = true)]
async fn encoding_that_began_too_early_is_followed_by_another() {
    let (cached, world) = (cached(), World::default());
    let behind = World::default();
    // Its encoding is older than the version that the request requires.
    let slow = cached.get(behind.version(), behind.draft());
    let mut slow = std::pin::pin!(slow);
    assert!((&mut slow).now_or_never().is_none());
    world.happen();
    let answer = world.get(&cached).await;
    assert_eq!((answer.version.event, behind.encodings(), world.encodings()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn encoding_outlives_the_request_that_began_it() {
    let (cached, world) = (cached(), World::default());
    for _ in 0..100 {
        let mut request = Box::pin(world.get(&cached));
        assert!((&mut request).now_or_never().is_none());
    }
    world.get(&cached).await;
    assert_eq!(world.encodings(), 1);
}

#[tokio::test(start_paused = true)]
async fn same_bytes_keep_their_tag() {
    let (cached, world) = (cached(), World { is_constant: true, ..World::default() });
    let first = world.get(&cached).await;
    world.change();
    time::advance(Duration::from_secs(2)).await;
    let second = world.get(&cached).await;
    assert_eq!(world.encodings(), 2);
    assert!(Arc::ptr_eq(&first.encoded, &second.encoded));
}

#[tokio::test(start_paused = true)]
async fn failed_encoding_is_tried_again() {
    let (cached, world) = (cached(), World::default());
    let fails = || -> Draft<u64> { panic!("as it should") };
    assert!(cached.get(world.version(), fails).await.is_none());
    assert_eq!(world.get(&cached).await.encoded.plain(), &b"[0]"[..]);
}

async fn text(body: Body) -> String {
    String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn selected_elements_keep_the_order_of_the_list() {
    let draft = || Draft {
        version: Version::default(),
        updated_at: None,
        list: List::new("{", [("c", 1), ("a", 2), ("b", 3), ("a", 4)], "}"),
    };
    let answer = Cached::new("/test").get(Version::default(), draft).await.unwrap();
    assert_eq!(answer.encoded.plain(), &b"{1,2,3,4}"[..]);
    for (keys, expected) in [
        (vec!["a", "c"], "<1,2,4>"),
        (vec!["b"], "<3>"),
        (vec!["absent"], "<>"),
        (vec![], "<>"),
        (vec!["a", "b", "c", "d"], "<1,2,3,4>"),
    ] {
        assert_eq!(text(answer.select(&keys.into_iter().collect(), "<", ">")).await, expected);
    }
}

#[tokio::test]
async fn large_selection_is_the_same_text() {
    let word = "x".repeat(1_000);
    let draft = {
        let word = word.clone();
        move || {
            let list = List::new("[", (0..100_u64).map(|key| (key, word.clone())), "]");
            Draft { version: Version::default(), updated_at: None, list }
        }
    };
    let answer = cached().get(Version::default(), draft).await.unwrap();
    let selected: Vec<String> =
        serde_json::from_str(&text(answer.select(&(10..60).collect(), "[", "]")).await).unwrap();
    assert_eq!(selected, vec![word; 50]);
    // The response to a client that has the body does not make it.
    let mut headers = HeaderMap::new();
    headers.insert("if-none-match", "*".parse().unwrap());
    let response = answer.encoded.respond_part(&headers, || -> Body { panic!("it is not needed") });
    assert_eq!(response.status(), 304);
}
