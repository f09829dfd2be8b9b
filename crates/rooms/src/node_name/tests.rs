//! Unique node names: quiet period, repeated and draining announcements, and a node that waits for the check.

use std::sync::Arc;

use admission::{ConnectionLimits, Verifier};
use bus::Headers;
use protocol::{subject, timing::NODE_ANNOUNCE_INTERVAL};
use tokio::time::sleep;
use transports::ws_room;

use super::*;
use crate::{
    Settings,
    node::{Node, NodeSubscriptions},
    settings::tests::settings,
};

const OWN: &str = "ws://127.0.0.1:5002";
const OTHER: &str = "ws://127.0.0.1:5003";

fn name_guard(bus: &Bus) -> NodeNameGuard {
    NodeNameGuard::new(bus, "rooms-1".parse().unwrap(), OWN.to_owned())
}

fn announce(bus: &Bus, node: &str, public_url: &str, draining: bool) {
    let announcement =
        TransportAnnouncement { public_url: public_url.to_owned(), draining, ..Default::default() };
    let subject = Subject::TransportAnnounce(node.parse().unwrap());
    bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
}

/// The result of the check while these announcements are published, one a second.
async fn ensure_unique_while_announced(announced: &[(&str, &str, bool)]) -> Result<(), NameTaken> {
    let bus = Bus::in_process();
    let mut guard = name_guard(&bus);
    let others = async {
        for &(node, public_url, draining) in announced {
            announce(&bus, node, public_url, draining);
            sleep(Duration::from_secs(1)).await;
        }
        future::pending::<()>().await;
    };
    tokio::select! {
        result = guard.ensure_unique() => result,
        () = others => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn name_is_free_after_a_quiet_announcement_interval() {
    let began = Instant::now();
    assert_eq!(ensure_unique_while_announced(&[]).await, Ok(()));
    assert!(began.elapsed() > NODE_ANNOUNCE_INTERVAL);
    // An announcement with the node's own URL is no conflict, and neither is one with another name.
    let others = [("rooms-1", OWN, false), ("rooms-2", OTHER, false)];
    assert_eq!(ensure_unique_while_announced(&others.repeat(3)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn name_announced_repeatedly_elsewhere_is_taken() {
    let taken = ensure_unique_while_announced(&[("rooms-1", OTHER, false); 2]).await.unwrap_err();
    assert_eq!((taken.node.as_str(), &*taken.url), ("rooms-1", OTHER));
    let message = taken.to_string();
    assert!(
        message.contains("rooms-1") && message.contains(OTHER) && message.contains("rooms.node"),
        "{message}"
    );
    // The second announcement may arrive after the quiet period would have ended without the first one.
    let late = [("rooms-1", OWN, false), ("rooms-1", OTHER, false), ("rooms-1", OTHER, false)];
    assert!(ensure_unique_while_announced(&late).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn single_or_draining_announcement_does_not_take_the_name() {
    assert_eq!(ensure_unique_while_announced(&[("rooms-1", OTHER, false)]).await, Ok(()));
    // A draining process is no conflict.
    assert_eq!(ensure_unique_while_announced(&[("rooms-1", OTHER, true); 4]).await, Ok(()));
    let last = [("rooms-1", OTHER, false), ("rooms-1", OTHER, true), ("rooms-1", OTHER, true)];
    assert_eq!(ensure_unique_while_announced(&last).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn changing_foreign_urls_do_not_delay_the_check_forever() {
    let urls: Vec<String> = (0..1_000).map(|number| format!("ws://10.0.0.1:{number}")).collect();
    let announced: Vec<_> = urls.iter().map(|url| ("rooms-1", &**url, false)).collect();
    let began = Instant::now();
    assert_eq!(ensure_unique_while_announced(&announced).await, Ok(()));
    assert!(began.elapsed() <= NODE_NAME_QUIET_PERIOD * (1 + MAX_FOREIGN_URLS as u32));
    let long = "x".repeat(10_000);
    let taken = ensure_unique_while_announced(&[("rooms-1", &*long, false); 2]).await.unwrap_err();
    assert_eq!(taken.url.len(), MAX_URL_CHARS);
}

fn node() -> Arc<Node> {
    let settings = Settings {
        public_url: OWN.to_owned(),
        handshakes: ConnectionLimits { total: 1, per_network: None, rate: None },
        ..settings()
    };
    let tokens = Arc::new(ws_room::Verifier::new([&b"a secret of sixteen characters"[..]]));
    Arc::new(Node::new(settings, tokens, Verifier::new(identity::Limits::default()), Arc::default()))
}

#[tokio::test(start_paused = true)]
async fn node_announces_nothing_before_the_name_check_passed() {
    let (bus, node) = (Bus::in_process(), node());
    let mut announcements = bus.subscribe("test", &[subject::TRANSPORT_ANNOUNCEMENTS], 16);
    let subscriptions = NodeSubscriptions { name_guard: Some(name_guard(&bus)), ..node.subscribe(&bus) };
    let scenario = async {
        sleep(NODE_NAME_QUIET_PERIOD / 2).await;
        assert!(!node.has_announced());
        node.stop_accepting(&bus);
        assert!(
            announcements.try_next().is_none(),
            "nothing is announced while another process may have the name"
        );
        sleep(NODE_NAME_QUIET_PERIOD).await;
        assert!(node.has_announced());
        let announcement = announcements.next().await.unwrap();
        let announcement = TransportAnnouncement::decode(announcement.payload).unwrap();
        assert_eq!((&*announcement.public_url, announcement.draining), (OWN, true));
    };
    tokio::select! {
        () = scenario => {}
        result = node.clone().run(bus.clone(), subscriptions) => panic!("{result:?}"),
    }
}
