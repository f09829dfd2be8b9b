//! The resynchronization with other gateways: at the start and after each reconnect to the bus, a gateway
//! requests the sessions that it missed.

use std::time::Duration;

use bus::{Bus, Headers};
use bytes::Bytes;
use protocol::{
    IslandId, Message as _, ResumeHash, Subject,
    atoll_bus::GatewayHeartbeat,
    subject,
    timing::{RESYNC_ANSWER_WINDOW, RESYNC_DURATION},
};
use tokio::{sync::watch, time};

use crate::session::{handshake::SignInRequest, registry::SessionRegistry};

/// Bound of the queue of heartbeats during a resync. When it is full, the newest message is dropped and
/// counted. If a report is dropped, this gateway does not know its session as a remote one.
const RESYNC_QUEUE_MESSAGES: usize = 262_144;
/// Interval of resyncs without a reconnect. Entries of remote sessions expire after an hour without a report.
const REFRESH_INTERVAL: Duration = Duration::from_secs(25 * 60);
/// Interval at which a waiting sign-in checks whether its older session was reported.
const RESUME_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The resynchronization of one gateway.
#[derive(Debug)]
pub(crate) struct Resync {
    /// Whether a resync runs: this gateway requested the rosters of the others and awaits their reports.
    pending: watch::Sender<bool>,
}

impl Resync {
    pub(crate) fn new(bus: &Bus) -> Self {
        Self { pending: watch::Sender::new(bus.is_shared()) }
    }

    /// Resynchronizes at start, and after each reconnect to the bus, because messages were missed meanwhile.
    /// Otherwise it refreshes the remote sessions every [`REFRESH_INTERVAL`], with a twentieth more or less, so
    /// that gateways do not request the rosters at the same time.
    pub(crate) async fn run(&self, bus: &Bus, sessions: &SessionRegistry) {
        let mut reconnects = bus.reconnects();
        loop {
            self.pending.send_replace(bus.is_shared());
            let end_wait = async {
                time::sleep(RESYNC_ANSWER_WINDOW).await;
                self.pending.send_replace(false);
            };
            tokio::join!(request_rosters(bus, sessions), end_wait);
            loop {
                let interval = REFRESH_INTERVAL.mul_f64(0.95 + 0.1 * rand::random::<f64>());
                match time::timeout(interval, reconnects.changed()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => return,
                    // Sign-ins need not wait: no message was missed.
                    Err(_) if bus.is_shared() => request_rosters(bus, sessions).await,
                    Err(_) => {}
                }
            }
        }
    }

    /// Waits until another gateway has reported the session that a client wants to resume, or until no resync
    /// runs. A resync runs only after the start and after a reconnect to the bus; otherwise this returns at
    /// once.
    pub(crate) async fn wait_for_report(&self, sessions: &SessionRegistry, request: &SignInRequest) {
        if request.presented_hash.is_none() {
            return;
        }
        let reported = async {
            while !sessions.can_resume(request) {
                time::sleep(RESUME_POLL_INTERVAL).await;
            }
        };
        let mut pending = self.pending.subscribe();
        tokio::select! {
            _ = pending.wait_for(|pending| !pending) => {}
            () = reported => {}
        }
    }
}

/// Requests the rosters of the other gateways and processes the heartbeats that they publish. If a wallet
/// signed in on another gateway while this one received nothing, its older session here ends.
async fn request_rosters(bus: &Bus, sessions: &SessionRegistry) {
    let mut heartbeats = bus.subscribe("gateway-census", &[subject::PEER_HEARTBEATS], RESYNC_QUEUE_MESSAGES);
    bus.publish(&Subject::PeersWanted, Headers::default(), Bytes::new());
    let handle_heartbeats = async {
        while let Some(envelope) = heartbeats.next().await {
            if let (Some(Subject::PeerHeartbeat(peer)), Some(session)) =
                (envelope.subject(), envelope.headers.session)
            {
                let (island, hash) = decode_roster_entry(&envelope.payload);
                sessions.observe_session(peer, session, island, hash);
            }
        }
    };
    let _ = time::timeout(RESYNC_DURATION, handle_heartbeats).await;
}

/// Decodes a `GatewayHeartbeat`: the island of the assignment that was sent to the client last, and the hash
/// of its session's resumption secret.
fn decode_roster_entry(heartbeat: &Bytes) -> (Option<IslandId>, Option<ResumeHash>) {
    let heartbeat = GatewayHeartbeat::decode(&heartbeat[..]).unwrap_or_default();
    let island = heartbeat.told.and_then(|told| told.island.parse().ok());
    (island, ResumeHash::try_from(&heartbeat.resume_hash[..]).ok())
}
