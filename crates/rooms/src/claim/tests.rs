use std::sync::Arc;

use admission::{Limits, Verifier};
use bus::Headers;
use protocol::subject;
use tokio::time::sleep;
use transports::ws_room;

use super::*;
use crate::{
    Settings,
    node::{ANNOUNCE_INTERVAL, Inbound, Shared},
    settings::tests::settings,
};

const OWN: &str = "ws://127.0.0.1:5002";
const OTHER: &str = "ws://127.0.0.1:5003";

fn claim(bus: &Bus) -> Claim {
    Claim::new(bus, "rooms-1".parse().unwrap(), OWN.to_owned())
}

fn announce(bus: &Bus, node: &str, public_url: &str, draining: bool) {
    let announcement =
        TransportAnnouncement { public_url: public_url.to_owned(), draining, ..Default::default() };
    let subject = Subject::TransportAnnounce(node.parse().unwrap());
    bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
}

/// What comes of a claim while this is announced, a second between one and the next.
async fn settled(announced: &[(&str, &str, bool)]) -> Result<(), NameTaken> {
    let bus = Bus::in_process();
    let mut claim = claim(&bus);
    let others = async {
        for &(node, public_url, draining) in announced {
            announce(&bus, node, public_url, draining);
            sleep(Duration::from_secs(1)).await;
        }
        future::pending::<()>().await;
    };
    tokio::select! {
        settled = claim.settle() => settled,
        () = others => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_free_when_nobody_was_heard_for_longer_than_an_interval() {
    let began = Instant::now();
    assert_eq!(settled(&[]).await, Ok(()));
    assert!(began.elapsed() > ANNOUNCE_INTERVAL);
    // Its own address is its own, whoever was there; another name is nobody's business.
    let others = [("rooms-1", OWN, false), ("rooms-2", OTHER, false)];
    assert_eq!(settled(&others.repeat(3)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_announced_elsewhere_again_and_again_is_taken() {
    let taken = settled(&[("rooms-1", OTHER, false); 2]).await.unwrap_err();
    assert_eq!((taken.node.as_str(), &*taken.url), ("rooms-1", OTHER));
    let told = taken.to_string();
    assert!(told.contains("rooms-1") && told.contains(OTHER) && told.contains("rooms.node"), "{told}");
    // The second word may come long after the silence would have ended, had there been no first one.
    let late = [("rooms-1", OWN, false), ("rooms-1", OTHER, false), ("rooms-1", OTHER, false)];
    assert!(settled(&late).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_last_word_of_a_process_takes_no_name() {
    assert_eq!(settled(&[("rooms-1", OTHER, false)]).await, Ok(()));
    // It drains.
    assert_eq!(settled(&[("rooms-1", OTHER, true); 4]).await, Ok(()));
    let last = [("rooms-1", OTHER, false), ("rooms-1", OTHER, true), ("rooms-1", OTHER, true)];
    assert_eq!(settled(&last).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn those_who_always_say_something_else_hold_nobody_up_for_ever() {
    let urls: Vec<String> = (0..1_000).map(|number| format!("ws://10.0.0.1:{number}")).collect();
    let announced: Vec<_> = urls.iter().map(|url| ("rooms-1", &**url, false)).collect();
    let began = Instant::now();
    assert_eq!(settled(&announced).await, Ok(()));
    assert!(began.elapsed() <= SILENCE * (1 + MAX_OTHERS as u32));
    let long = "x".repeat(10_000);
    let taken = settled(&[("rooms-1", &*long, false); 2]).await.unwrap_err();
    assert_eq!(taken.url.len(), MAX_URL_CHARS);
}

fn node() -> Shared {
    let settings = Settings {
        public_url: OWN.to_owned(),
        handshakes: Limits { total: 1, per_network: None, rate: None },
        ..settings()
    };
    let tokens = Arc::new(ws_room::Verifier::new([&b"a secret of sixteen characters"[..]]));
    Shared::new(settings, tokens, Verifier::new(identity::Limits::default()), Arc::default())
}

#[tokio::test(start_paused = true)]
async fn a_node_says_nothing_until_its_name_is_known_to_be_free() {
    let (bus, node) = (Bus::in_process(), node());
    let mut announcements = bus.subscribe("test", &[subject::TRANSPORT_ANNOUNCEMENTS], 16);
    let inbound = Inbound { claim: Some(claim(&bus)), ..node.subscribe(&bus) };
    let story = async {
        sleep(SILENCE / 2).await;
        assert!(!node.has_announced());
        node.retire(&bus);
        assert!(announcements.try_next().is_none(), "another may have the name, and drains not");
        sleep(SILENCE).await;
        assert!(node.has_announced());
        let announcement = announcements.next().await.unwrap();
        let announcement = TransportAnnouncement::decode(announcement.payload).unwrap();
        assert_eq!((&*announcement.public_url, announcement.draining), (OWN, true));
    };
    tokio::select! {
        () = story => {}
        ended = node.run(bus.clone(), inbound) => panic!("{ended:?}"),
    }
}
