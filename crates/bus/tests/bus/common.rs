//! Helpers of all tests: settings, subjects of peers, waiting for messages.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bus::{Bus, Credentials, Envelope, Headers, NatsSettings, Subscription};
use futures_util::StreamExt;
use protocol::{Address, IslandId, Subject, subject::SubjectScheme};
use tokio::time::timeout;

/// The longest wait for an event that is certain to happen. Only a failing test waits that long.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn settings(url: &str) -> NatsSettings {
    NatsSettings {
        servers: vec![url.to_owned()],
        credentials: Credentials::None,
        ca_file: None,
        subject_scheme: SubjectScheme::CommsV3,
        connect_timeout: Duration::from_secs(5),
        pattern_queue: None,
        lease_replicas: None,
    }
}

/// Waits until the server has registered all earlier subscriptions of this bus.
///
/// `Bus::flush` only writes them to the socket: a message that another connection publishes next may reach
/// the server first. A server handles the commands of one connection in order, so a probe over the same
/// connection returns after them.
pub(crate) async fn subscribed(bus: &Bus) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let island: IslandId = format!("IPROBE{}", NEXT.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    let subject = Subject::MembershipEnded(island);
    let mut probe = bus.subscribe("probe", &[&subject.to_string()], 1);
    bus.publish(&subject, Headers::default(), "");
    next(&mut probe).await;
}

/// The same for the subscriptions of a client that does not use this crate.
pub(crate) async fn client_subscribed(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut probe = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    timeout(TEST_TIMEOUT, probe.next()).await.expect("a message in time").expect("a connection");
}

pub(crate) fn peer(number: u32) -> Address {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Address::new(bytes)
}

pub(crate) fn heartbeat(number: u32) -> Subject {
    Subject::PeerHeartbeat(peer(number))
}

pub(crate) async fn next(subscription: &mut Subscription) -> Envelope {
    timeout(TEST_TIMEOUT, subscription.next()).await.expect("a message in time").expect("a bus")
}

/// Waits until a condition holds that no message announces.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
