//! Tests of the live feed: resuming, resets, limits and the end.

use super::*;
use crate::event::IslandClosed;

const LIMITS: Limits =
    Limits { events: 4, readers: 2, readers_per_network: 2, keep_alive: Duration::from_secs(100) };

fn network(last: u8) -> Network {
    Network::from_ip(std::net::IpAddr::from([10, 0, 0, last]), 64)
}

fn feed_with(limits: Limits) -> Arc<Feed> {
    Arc::new(Feed::new(Ulid(7), limits))
}

fn feed() -> Arc<Feed> {
    feed_with(LIMITS)
}

/// Publishes an event of each of the islands with these numbers.
fn publish(feed: &Feed, numbers: std::ops::RangeInclusive<u32>) {
    let event = |number| Event::IslandClosed(IslandClosed { time: 1, island: number_name(number) });
    feed.publish(&numbers.map(event).collect::<Vec<_>>());
}

fn number_name(number: u32) -> String {
    format!("I{number}")
}

/// The events of the next chunk: the name of each with its island, or with the reason of a reset.
async fn next_events(reader: &mut Reader) -> Vec<String> {
    let chunk = reader.next().await.unwrap();
    let text = std::str::from_utf8(&chunk).unwrap();
    assert!(text.ends_with("\n\n"), "whole events: {text}");
    let event = |event: &str| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let data: serde_json::Value = serde_json::from_str(&field("data: ")).unwrap();
        let detail = data.get("island").or(data.get("reason")).and_then(|detail| detail.as_str());
        format!("{} {}", field("event: "), detail.unwrap_or("-"))
    };
    text.split_terminator("\n\n").map(event).collect()
}

fn id(number: u64) -> String {
    EventId { run: Ulid(7), number }.to_string()
}

#[tokio::test]
async fn reader_without_id_starts_at_the_latest_event() {
    let feed = feed();
    publish(&feed, 1..=2);
    let mut reader = feed.read(None, network(1), Instant::now()).unwrap();
    let ready = reader.next().await.unwrap();
    let ready = std::str::from_utf8(&ready).unwrap();
    assert!(ready.starts_with(&format!("event: ready\nid: {}\ndata: ", id(2))), "{ready}");
    publish(&feed, 3..=4);
    assert_eq!(next_events(&mut reader).await, ["island_closed I3", "island_closed I4"]);
    // The reader waits, and the next event wakes it.
    let late = async {
        tokio::task::yield_now().await;
        publish(&feed, 5..=5);
    };
    let (received, ()) = tokio::join!(next_events(&mut reader), late);
    assert_eq!(received, ["island_closed I5"]);
}

#[tokio::test]
async fn reader_resumes_from_its_id_while_events_are_kept() {
    let feed = feed();
    publish(&feed, 1..=6);
    let reads = async |last: &str| {
        let mut reader = feed.read(Some(last), network(1), Instant::now()).unwrap();
        next_events(&mut reader).await
    };
    assert_eq!(reads(&id(4)).await, ["island_closed I5", "island_closed I6"]);
    assert_eq!(reads(&id(2)).await.len(), 4, "all events that are kept");
    assert_eq!(reads(&id(1)).await, ["reset too-old"]);
    let other_run = EventId { run: Ulid(8), number: 4 }.to_string();
    for unknown in [&*other_run, &id(7), "", "-", "x-1", &id(u64::MAX), "00000000000000000000000007-x"] {
        assert_eq!(reads(unknown).await, ["reset unknown-id"], "{unknown}");
    }
    // After a reset, the reader continues with the next event.
    let mut reader = feed.read(Some("x"), network(1), Instant::now()).unwrap();
    next_events(&mut reader).await;
    publish(&feed, 7..=7);
    assert_eq!(next_events(&mut reader).await, ["island_closed I7"]);
}

#[tokio::test]
async fn slow_reader_is_reset_and_delays_no_other_reader() {
    let feed = feed();
    let mut slow = feed.read(None, network(1), Instant::now()).unwrap();
    let mut quick = feed.read(None, network(1), Instant::now()).unwrap();
    assert_eq!(next_events(&mut quick).await, ["ready -"]);
    for number in 1..=9 {
        publish(&feed, number..=number);
        assert_eq!(next_events(&mut quick).await, [format!("island_closed {}", number_name(number))]);
        assert!(feed.ring.lock().frames.len() <= LIMITS.events);
    }
    assert_eq!(next_events(&mut slow).await, ["ready -"]);
    assert_eq!(next_events(&mut slow).await, ["reset slow"]);
    publish(&feed, 10..=10);
    assert_eq!(next_events(&mut slow).await, ["island_closed I10"]);
}

#[tokio::test]
async fn large_backlog_arrives_in_chunks_of_whole_events() {
    let feed = feed_with(Limits { events: 10_000, ..LIMITS });
    let mut reader = feed.read(None, network(1), Instant::now()).unwrap();
    next_events(&mut reader).await;
    publish(&feed, 1..=3_000);
    let mut got = Vec::new();
    while got.len() < 3_000 {
        got.extend(next_events(&mut reader).await);
        assert!(got.len() < 3_000 || got.last().unwrap() == "island_closed I3000");
    }
    assert_eq!(got.len(), 3_000);
}

#[tokio::test]
async fn slots_are_limited_and_freed_from_stalled_readers() {
    let (feed, now) = (feed(), Instant::now());
    let mut stalled = feed.read(None, network(1), now).unwrap();
    let other = feed.read(None, network(1), now).unwrap();
    assert_eq!(feed.read(None, network(1), now).unwrap_err(), ReaderRejected::Full);
    drop(other);
    let later = now + Duration::from_secs(150);
    let mut fresh = feed.read(None, network(1), later).unwrap();
    feed.sweep(now + Duration::from_secs(200));
    assert_eq!(feed.readers_count(), 2);
    feed.sweep(now + Duration::from_secs(201));
    assert_eq!(feed.readers_count(), 1);
    assert_eq!(stalled.next().await, None);
    assert!(fresh.next().await.is_some());
}

#[tokio::test]
async fn idle_reader_receives_a_comment() {
    let feed = feed_with(Limits { keep_alive: Duration::from_millis(1), ..LIMITS });
    let mut reader = feed.read(None, network(1), Instant::now()).unwrap();
    next_events(&mut reader).await;
    assert_eq!(&reader.next().await.unwrap()[..], KEEP_ALIVE);
    publish(&feed, 1..=1);
    assert_eq!(next_events(&mut reader).await, ["island_closed I1"]);
}

#[tokio::test]
async fn closing_the_feed_ends_all_readers() {
    let feed = feed();
    let mut reader = feed.read(None, network(1), Instant::now()).unwrap();
    next_events(&mut reader).await;
    let close = async {
        tokio::task::yield_now().await;
        feed.close();
    };
    assert_eq!(tokio::join!(reader.next(), close).0, None);
    assert_eq!(feed.read(None, network(1), Instant::now()).unwrap_err(), ReaderRejected::Closed);
}

#[tokio::test]
async fn network_at_its_limit_leaves_slots_to_others() {
    let (feed, now) = (feed_with(Limits { readers: 3, readers_per_network: 2, ..LIMITS }), Instant::now());
    let readers = [(); 2].map(|()| feed.read(None, network(1), now).unwrap());
    assert_eq!(feed.read(None, network(1), now).unwrap_err(), ReaderRejected::NetworkFull);
    let _other = feed.read(None, network(2), now).unwrap();
    drop(readers);
    assert!(feed.read(None, network(1), now).is_ok());
}
