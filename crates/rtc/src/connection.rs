//! One WebRTC connection that carries data channels.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use webrtc::{
    data_channel::{DataChannel, RTCDataChannelInit},
    error::{Error, Result},
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfiguration,
        RTCConfigurationBuilder, RTCIceCandidateInit, RTCIceServer, RTCIceTransportPolicy,
        RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, SettingEngine,
        SettingEngineBuilder,
    },
};
use webrtc_rtc::{ice::mdns::MulticastDnsMode, peer_connection::configuration::RTCOfferOptions};

/// An event of a connection. `T` names the connection.
pub(crate) struct ConnectionEvent<T> {
    pub(crate) source: T,
    pub(crate) kind: ConnectionEventKind,
}

pub(crate) enum ConnectionEventKind {
    /// A local ICE candidate, for the other side: the JSON of an `RTCIceCandidateInit`.
    Candidate(String),
    /// The other side has created a data channel.
    Channel(Arc<dyn DataChannel>),
    State(RTCPeerConnectionState),
    /// A data channel is open.
    ChannelOpened(Label),
    /// The other side has closed a data channel, or the connection has ended.
    ChannelClosed,
}

/// The data channels that a connection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// Ordered, with retransmissions.
    Reliable,
    /// Unordered, without retransmissions.
    Lossy,
}

/// The labels of the data channels on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LabelTexts {
    pub(crate) reliable: &'static str,
    pub(crate) lossy: &'static str,
}

/// How a connection finds its paths.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSettings {
    /// The local addresses of its UDP sockets. Port 0: any free port. A wildcard address: every address of the
    /// machine except the loopback.
    pub(crate) udp_addresses: Vec<SocketAddr>,
    pub(crate) ice_servers: Vec<RTCIceServer>,
    /// Only paths over a TURN server: no address of the machine is sent to the other side.
    pub(crate) relay_only: bool,
}

/// A connection. It is closed with [`Connection::close`].
pub(crate) struct Connection {
    inner: Arc<dyn PeerConnection>,
    /// Candidates that arrived before the remote description, without which none can be added.
    early_candidates: Vec<RTCIceCandidateInit>,
    has_remote_description: bool,
}

/// Data that the `webrtc` crate holds for one channel until the other side acknowledges it. Above it, a writer
/// waits.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// The most candidates that are kept before the remote description. Later ones are dropped: a server has one for
/// each of its addresses and transports.
const MAX_EARLY_CANDIDATES: usize = 64;
/// The interval and number of connectivity checks of a pair of candidates: the default interval of 200 ms is most
/// of the time of a join. After 3.5 s without a path a pair has failed: a path that is interrupted when ICE is
/// restarted has that long to be there again.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
const MAX_CHECKS: u16 = 175;
/// Silence after which a connection counts as disconnected, the further silence after which it has failed, and
/// the interval of the checks that end the silence.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(4);
const FAILED_AFTER: Duration = Duration::from_secs(8);
const KEEP_ALIVE: Duration = Duration::from_secs(1);

impl Label {
    pub(crate) const ALL: [Self; 2] = [Self::Reliable, Self::Lossy];
}

impl LabelTexts {
    pub(crate) fn text(self, label: Label) -> &'static str {
        match label {
            Label::Reliable => self.reliable,
            Label::Lossy => self.lossy,
        }
    }

    pub(crate) fn parse(self, text: &str) -> Option<Label> {
        Label::ALL.into_iter().find(|&label| self.text(label) == text)
    }
}

impl Connection {
    /// Opens the sockets of a connection. Its events go to `events` with this source.
    pub(crate) async fn open<T: Copy + Send + Sync + 'static>(
        settings: &ConnectionSettings,
        source: T,
        events: mpsc::Sender<ConnectionEvent<T>>,
    ) -> Result<Self> {
        let mut media = MediaEngine::default();
        // Without codecs an offer that has media in it would be an error.
        media.register_default_codecs()?;
        let inner = PeerConnectionBuilder::new()
            .with_configuration(configuration(settings))
            .with_setting_engine(setting_engine())
            .with_media_engine(media)
            .with_handler(Arc::new(Handler { source, events }))
            .with_udp_addrs(settings.udp_addresses.clone())
            .with_data_channel_send_buffer_limit(SEND_BUFFER_BYTES)
            .build()
            .await?;
        Ok(Self { inner: Arc::new(inner), early_candidates: Vec::new(), has_remote_description: false })
    }

    /// Uses these ICE servers from the next offer or answer on: credentials of relays expire.
    pub(crate) async fn set_ice_servers(&self, settings: &ConnectionSettings) {
        if let Err(error) = self.inner.set_configuration(configuration(settings)).await {
            tracing::debug!(%error, "the ICE servers of a WebRTC connection were not changed");
        }
    }

    pub(crate) async fn create_channel(
        &self,
        label: Label,
        texts: LabelTexts,
    ) -> Result<Arc<dyn DataChannel>> {
        let init = match label {
            Label::Reliable => RTCDataChannelInit { ordered: true, ..RTCDataChannelInit::default() },
            Label::Lossy => RTCDataChannelInit {
                ordered: false,
                max_retransmits: Some(0),
                ..RTCDataChannelInit::default()
            },
        };
        self.inner.create_data_channel(texts.text(label), Some(init)).await
    }

    /// Begins a negotiation, and returns the SDP of the offer. With `restart`, ICE looks for paths anew.
    pub(crate) async fn offer(&self, restart: bool) -> Result<String> {
        let options = RTCOfferOptions { ice_restart: restart };
        let offer = self.inner.create_offer(Some(options)).await?;
        self.inner.set_local_description(offer.clone()).await?;
        Ok(offer.sdp)
    }

    /// Completes a negotiation that [`Self::offer`] began.
    pub(crate) async fn accept_answer(&mut self, sdp: String) -> Result<()> {
        self.inner.set_remote_description(RTCSessionDescription::answer(sdp)?).await?;
        self.add_early_candidates().await
    }

    /// Answers an offer of the other side, and returns the SDP of the answer.
    pub(crate) async fn answer(&mut self, sdp: String) -> Result<String> {
        self.inner.set_remote_description(RTCSessionDescription::offer(sdp)?).await?;
        let answer = self.inner.create_answer(None).await?;
        self.inner.set_local_description(answer.clone()).await?;
        self.add_early_candidates().await?;
        Ok(answer.sdp)
    }

    /// Adds a candidate of the other side: the JSON of an `RTCIceCandidateInit`.
    pub(crate) async fn add_candidate(&mut self, json: &str) -> Result<()> {
        let candidate: RTCIceCandidateInit =
            serde_json::from_str(json).map_err(|error| Error::Other(error.to_string()))?;
        if self.has_remote_description {
            return self.inner.add_ice_candidate(candidate).await;
        }
        if self.early_candidates.len() < MAX_EARLY_CANDIDATES {
            self.early_candidates.push(candidate);
        }
        Ok(())
    }

    async fn add_early_candidates(&mut self) -> Result<()> {
        self.has_remote_description = true;
        for candidate in std::mem::take(&mut self.early_candidates) {
            self.inner.add_ice_candidate(candidate).await?;
        }
        Ok(())
    }

    /// Closes the connection in a task of its own: the other side is sent the end of the channels.
    pub(crate) fn close(self) {
        tokio::spawn(async move {
            if let Err(error) = self.inner.close().await {
                tracing::debug!(%error, "a WebRTC connection did not close cleanly");
            }
        });
    }
}

fn configuration(settings: &ConnectionSettings) -> RTCConfiguration {
    let policy = if settings.relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
    RTCConfigurationBuilder::new()
        .with_ice_servers(settings.ice_servers.clone())
        .with_ice_transport_policy(policy)
        .build()
}

fn setting_engine() -> SettingEngine {
    SettingEngineBuilder::new()
        // With mDNS, no connection can be built where only the loopback is up. Candidates of other sides that
        // are mDNS names are of no use to us: servers have none.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_include_loopback_candidate(true)
        // Otherwise a relayed path is used only after two seconds.
        .with_relay_acceptance_min_wait(Some(Duration::ZERO))
        .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(MAX_CHECKS))
        .with_ice_timeouts(Some(DISCONNECTED_AFTER), Some(FAILED_AFTER), Some(KEEP_ALIVE))
        .build()
}

/// Puts events into a queue. It never waits, because the `webrtc` crate drives the connection on the same task. At
/// the bound of the queue the newest event is dropped: a lost candidate leaves fewer paths, and the timers of
/// the participant cover a lost change of state.
struct Handler<T> {
    source: T,
    events: mpsc::Sender<ConnectionEvent<T>>,
}

impl<T: Copy> Handler<T> {
    fn emit(&self, kind: ConnectionEventKind) {
        if self.events.try_send(ConnectionEvent { source: self.source, kind }).is_err() {
            tracing::debug!("an event of a WebRTC connection was dropped");
        }
    }
}

#[async_trait::async_trait]
impl<T: Copy + Send + Sync + 'static> PeerConnectionEventHandler for Handler<T> {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let candidate = event.candidate.to_json().map(|candidate| serde_json::to_string(&candidate));
        if let Ok(Ok(json)) = candidate {
            self.emit(ConnectionEventKind::Candidate(json));
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.emit(ConnectionEventKind::Channel(channel));
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.emit(ConnectionEventKind::State(state));
    }
}
