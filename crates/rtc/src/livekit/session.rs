//! The two WebRTC connections of a session: the publisher sends, the subscriber receives.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use livekit_protocol::{
    IceServer, JoinResponse, SessionDescription, SignalTarget, SyncState, TrickleRequest, UpdateSubscription,
    signal_request::Message as Request,
};
use webrtc::{
    data_channel::DataChannel,
    peer_connection::{RTCIceServer, RTCPeerConnectionState},
};

use super::error::JoinError;
use crate::{
    channel::ChannelReader,
    connection::{Connection, ConnectionSettings, Label, LabelTexts},
};

/// The data channels of LiveKit.
pub(crate) const LABELS: LabelTexts = LabelTexts { reliable: "_reliable", lossy: "_lossy" };

/// A connection of a participant. The number of the session distinguishes it from connections of an older one: their
/// events may still be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) session: u32,
    pub(crate) target: Target,
}

/// The direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// To the server, which receives the offer.
    Publisher,
    /// From the server, which sends the offer.
    Subscriber,
}

/// The connections of a session.
pub(crate) struct Session {
    number: u32,
    settings: ConnectionSettings,
    reader: ChannelReader<Source>,
    /// `None`: the token does not permit to publish data.
    publisher: Option<Publisher>,
    subscriber: Connection,
    /// The states of the connections, as far as they were reported.
    states: [RTCPeerConnectionState; 2],
    opened: HashSet<(Target, u8)>,
    /// The last offer of the server and its answer, which a resumption repeats.
    subscriber_offer: Option<SessionDescription>,
    subscriber_answer: Option<SessionDescription>,
    /// Whether the server has to send an answer, or its next offer.
    awaits: Awaited,
}

struct Publisher {
    connection: Connection,
    reliable: Arc<dyn DataChannel>,
    lossy: Arc<dyn DataChannel>,
}

/// The negotiations that are not complete.
#[derive(Debug, Clone, Copy, Default)]
struct Awaited {
    answer: bool,
    offer: bool,
}

impl Target {
    fn number(self) -> i32 {
        match self {
            Self::Publisher => SignalTarget::Publisher as i32,
            Self::Subscriber => SignalTarget::Subscriber as i32,
        }
    }
}

impl Session {
    /// Opens the connections of a session that the server has admitted, and returns the offer of the publisher.
    pub(crate) async fn open(
        join: &JoinResponse,
        udp_addresses: Vec<SocketAddr>,
        number: u32,
        reader: impl Fn(Source) -> ChannelReader<Source>,
        publishes: bool,
    ) -> Result<(Self, Option<Request>), JoinError> {
        let ice_servers = ice_servers(&join.ice_servers);
        let settings = ConnectionSettings { udp_addresses, ice_servers, relay_only: false };
        let source = Source { session: number, target: Target::Subscriber };
        let reader = reader(source);
        let subscriber = Connection::open(&settings, source, reader.events.clone()).await?;
        let mut session = Self {
            number,
            settings,
            reader,
            publisher: None,
            subscriber,
            states: [RTCPeerConnectionState::New; 2],
            opened: HashSet::new(),
            subscriber_offer: None,
            subscriber_answer: None,
            awaits: Awaited { answer: false, offer: true },
        };
        let offer = if publishes { Some(session.open_publisher().await?) } else { None };
        Ok((session, offer))
    }

    /// Opens the publisher, and returns its offer.
    async fn open_publisher(&mut self) -> Result<Request, JoinError> {
        let source = Source { session: self.number, target: Target::Publisher };
        let connection = Connection::open(&self.settings, source, self.reader.events.clone()).await?;
        let reliable = connection.create_channel(Label::Reliable, LABELS).await?;
        let lossy = connection.create_channel(Label::Lossy, LABELS).await?;
        for channel in [&reliable, &lossy] {
            ChannelReader { source, ..self.reader.clone() }.spawn(channel.clone());
        }
        let offer = connection.offer(false).await?;
        self.awaits.answer = true;
        self.publisher = Some(Publisher { connection, reliable, lossy });
        Ok(Request::Offer(description("offer", offer, 0)))
    }

    /// Whether the events of this connection belong to this session.
    pub(crate) fn is_source(&self, source: Source) -> bool {
        source.session == self.number
    }

    /// Answers an offer of the server.
    pub(crate) async fn accept_offer(&mut self, offer: SessionDescription) -> Result<Request, JoinError> {
        let answer = self.subscriber.answer(offer.sdp.clone()).await?;
        self.awaits.offer = false;
        let answer = description("answer", answer, offer.id);
        (self.subscriber_offer, self.subscriber_answer) = (Some(offer), Some(answer.clone()));
        Ok(Request::Answer(answer))
    }

    /// Accepts the server's answer to the offer of the publisher.
    pub(crate) async fn accept_answer(&mut self, answer: SessionDescription) -> Result<(), JoinError> {
        if let Some(publisher) = &mut self.publisher {
            publisher.connection.accept_answer(answer.sdp).await?;
            self.awaits.answer = false;
        }
        Ok(())
    }

    /// Adds a candidate of the server. One that cannot be used is ignored: it may have another address family.
    pub(crate) async fn add_candidate(&mut self, trickle: &TrickleRequest) {
        let connection = match SignalTarget::try_from(trickle.target) {
            Ok(SignalTarget::Publisher) => self.publisher.as_mut().map(|publisher| &mut publisher.connection),
            _ => Some(&mut self.subscriber),
        };
        if let Some(connection) = connection
            && let Err(error) = connection.add_candidate(&trickle.candidate_init).await
        {
            tracing::debug!(%error, "a candidate of the LiveKit server is not usable");
        }
    }

    /// The request that passes a local candidate to the server.
    pub(crate) fn trickle(source: Source, candidate: String) -> Request {
        let (target, candidate_init) = (source.target.number(), candidate);
        Request::Trickle(TrickleRequest { candidate_init, target, ..TrickleRequest::default() })
    }

    /// Reads a channel that the server has created.
    pub(crate) fn read_channel(&self, channel: Arc<dyn DataChannel>) {
        self.reader.clone().spawn(channel);
    }

    pub(crate) fn channel_opened(&mut self, target: Target, label: Label) {
        self.opened.insert((target, label as u8));
    }

    pub(crate) fn set_state(&mut self, target: Target, state: RTCPeerConnectionState) {
        self.states[target as usize] = state;
    }

    /// Whether a connection is lost. ICE reports that after some seconds of silence.
    pub(crate) fn is_broken(&self) -> bool {
        use RTCPeerConnectionState::{Closed, Disconnected, Failed};
        self.states.iter().any(|state| matches!(state, Disconnected | Failed | Closed))
    }

    /// Whether the data channels of both directions are open.
    pub(crate) fn is_open(&self) -> bool {
        let is_open = |target| Label::ALL.iter().all(|&label| self.opened.contains(&(target, label as u8)));
        is_open(Target::Subscriber) && (self.publisher.is_none() || is_open(Target::Publisher))
    }

    /// Whether a resumed session is usable again: both negotiations are complete, and no connection is lost.
    pub(crate) fn is_restored(&self) -> bool {
        let connected = |target: Target| self.states[target as usize] == RTCPeerConnectionState::Connected;
        let publishes = self.publisher.is_none() || connected(Target::Publisher);
        !self.awaits.answer && !self.awaits.offer && publishes && connected(Target::Subscriber)
    }

    /// The channels of the publisher: reliable, lossy.
    pub(crate) fn channels(&self) -> Option<[Arc<dyn DataChannel>; 2]> {
        self.publisher.as_ref().map(|publisher| [publisher.reliable.clone(), publisher.lossy.clone()])
    }

    /// Continues the session on a new signalling socket. Returns the requests: the state of the participant, and
    /// an offer with which the publisher looks for new paths. The server does the same for the subscriber.
    pub(crate) async fn resume<'a>(
        &mut self,
        servers: &[IceServer],
        received: impl Iterator<Item = (&'a str, u32)>,
    ) -> Result<Vec<Request>, JoinError> {
        let received = received.map(|(sid, last_seq)| livekit_protocol::DataChannelReceiveState {
            publisher_sid: sid.to_owned(),
            last_seq,
        });
        let mut requests = vec![Request::SyncState(SyncState {
            offer: self.subscriber_offer.clone(),
            answer: self.subscriber_answer.clone(),
            subscription: Some(UpdateSubscription::default()),
            datachannel_receive_states: received.collect(),
            ..SyncState::default()
        })];
        self.settings.ice_servers = ice_servers(servers);
        self.subscriber.set_ice_servers(&self.settings).await;
        self.awaits.offer = true;
        if let Some(publisher) = &self.publisher {
            publisher.connection.set_ice_servers(&self.settings).await;
            let offer = publisher.connection.offer(true).await?;
            self.awaits.answer = true;
            requests.push(Request::Offer(description("offer", offer, 0)));
        }
        Ok(requests)
    }

    pub(crate) fn close(self) {
        self.subscriber.close();
        if let Some(publisher) = self.publisher {
            publisher.connection.close();
        }
    }
}

fn description(kind: &str, sdp: String, id: u32) -> SessionDescription {
    SessionDescription { r#type: kind.to_owned(), sdp, id, ..SessionDescription::default() }
}

fn ice_servers(servers: &[IceServer]) -> Vec<RTCIceServer> {
    let server = |server: &IceServer| RTCIceServer {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.clone(),
    };
    servers.iter().map(server).collect()
}
