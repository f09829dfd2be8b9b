//! The dcl-rpc dialect: calls of the services of `protocol/decentraland/bff`.

mod mesh;
mod mesh_session;
mod procedures;
mod subscriptions;

use std::sync::Arc;

use admission::Throttle;
use bytes::Bytes;
use protocol::{
    Address, Close, DecodeError, Message, Topic,
    bff::{
        DisconnectionMessage, DisconnectionReason, GetChallengeRequest, GetChallengeResponse,
        PublishToTopicRequest, PublishToTopicResult, SignedChallenge, Subscription, SubscriptionRequest,
        UnsubscriptionResult, WelcomePeerInformation,
    },
    v3::ChallengeRequestMessage,
};
use rpc::{Connection, ErrorCode, Event, Limits, MessageKind};
use tokio::time::Instant;

use crate::{
    dialect::{ClientRequest, Dialect, FrameCost},
    mesh::{refusal::MeshRefusal, topics::parse_topic},
    session::{message::SessionMessage, resumption::Resumption},
    settings::Settings,
    topics::Topics,
};
use mesh_session::MeshSession;
use procedures::{AUTHENTICATION_SERVICE, ProcedureId, SIGNED_IN_SERVICES};
use subscriptions::{SubscriptionError, Subscriptions};

/// Upper bounds of open ports and calls of one client, far above the use of deployed clients.
const RPC_LIMITS: Limits = Limits { ports: 16, calls: 256 };

/// The topic under which clients of 2022 publish their heartbeats. It is not delivered to subscribers.
const HEARTBEAT_TOPIC: &str = "heartbeat";

/// The RPC state of one client: its connection, open calls and subscriptions.
#[derive(Debug)]
pub(crate) struct RpcDialect {
    connection: Connection<ProcedureId>,
    /// Numbers of the open `GetDisconnectionMessage` calls, which are answered when the session is kicked.
    disconnection_calls: Vec<u32>,
    subscriptions: Subscriptions,
    /// Rate limit of the bytes that the client publishes under topics, which are delivered to many
    /// subscribers.
    topic_throttle: Throttle,
    /// Boxed, so that the session's future is small.
    mesh: Box<MeshSession>,
    /// The last call of the sign-in.
    sign_in_call: Option<u32>,
    /// The address of the client, once it is signed in.
    peer: Option<Address>,
}

impl RpcDialect {
    /// The state of a client that has just connected.
    pub(crate) fn new(topics: Arc<Topics>, settings: &Settings, now: Instant) -> Self {
        let (max, buffer) = (settings.max_subscriptions, settings.subscription_buffer);
        Self {
            connection: Connection::new(RPC_LIMITS, [&AUTHENTICATION_SERVICE]),
            disconnection_calls: Vec::new(),
            subscriptions: Subscriptions::new(topics, max, buffer),
            topic_throttle: Throttle::new(u32::MAX, settings.topic_bytes_per_second, now),
            mesh: Box::default(),
            sign_in_call: None,
            peer: None,
        }
    }
}

impl Dialect for RpcDialect {
    fn receive(&mut self, message: Bytes) -> Result<FrameCost, Close> {
        match self.connection.receive(&message) {
            // Due acknowledgements do not count against the rate limit: there is one for each element that
            // was sent.
            Ok(MessageKind::Acknowledged) => Ok(FrameCost::Free),
            Ok(MessageKind::Other) => Ok(FrameCost::Charged),
            Err(rpc::Undecodable) => Err(Close::Undecodable),
        }
    }

    /// Calls that concern only the client itself are handled here, and its streams once no call is left.
    fn poll_request(&mut self, now: Instant) -> Option<ClientRequest> {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Called { number, procedure, payload } => {
                    let request = match self.peer {
                        None => self.handle_sign_in_call(number, procedure, payload),
                        Some(peer) => self.handle_call(peer, number, procedure, payload, now),
                    };
                    if request.is_some() {
                        return request;
                    }
                }
                Event::Ended { number } => {
                    self.disconnection_calls.retain(|&call| call != number);
                    self.subscriptions.stream_ended(number);
                    self.mesh.stream_ended(number);
                }
            }
        }
        self.serve_streams();
        None
    }

    fn challenge(&mut self, challenge_to_sign: &str, already_connected: bool) {
        let challenge_to_sign = challenge_to_sign.to_owned();
        self.respond_to_sign_in(&GetChallengeResponse { challenge_to_sign, already_connected });
    }

    fn reject(&mut self, reason: &str) {
        if let Some(number) = self.sign_in_call {
            self.reject_call(number, ErrorCode::Refused, reason);
        }
    }

    /// Offers all services from now on.
    fn welcome(&mut self, peer: Address, resumption: Option<Resumption>) {
        self.peer = Some(peer);
        self.connection.offer(&SIGNED_IN_SERVICES);
        let available_modules = SIGNED_IN_SERVICES.iter().map(|module| module.name.to_owned()).collect();
        let (resume_secret, resumed) = Resumption::welcome(resumption);
        let (peer_id, resume_secret) = (peer.to_string(), resume_secret.into());
        let welcome = WelcomePeerInformation { peer_id, available_modules, resume_secret, resumed };
        self.respond_to_sign_in(&welcome);
    }

    /// An island change is kept until the client requests it, so it counts as sent from now on.
    fn deliver(&mut self, message: &SessionMessage) {
        match message {
            SessionMessage::IslandChanged(change) => {
                self.mesh.change_island(change);
                self.subscriptions.island_changed(&change.message);
            }
            SessionMessage::MemberChanged(change) => self.subscriptions.member_changed(change),
            SessionMessage::Mesh(message) => self.deliver_mesh_message(message),
        }
    }

    fn mesh_request_handled(&mut self, result: Result<(), MeshRefusal>) {
        self.end_mesh_call(result);
    }

    /// Responds to the open `GetDisconnectionMessage` calls that a newer session replaced this one.
    fn kick(&mut self) {
        let message = DisconnectionMessage { reason: DisconnectionReason::DrKicked.into() };
        for number in std::mem::take(&mut self.disconnection_calls) {
            self.respond(number, &message);
        }
    }

    fn poll_output(&mut self) -> Option<Bytes> {
        self.connection.poll_output()
    }

    /// Waits until a topic message is queued.
    async fn wait_for_output(&self) {
        self.subscriptions.queues().wait_for_message().await;
    }
}

impl RpcDialect {
    fn respond(&mut self, number: u32, response: &impl Message) {
        self.connection.respond(number, response.encode_to_vec().into());
    }

    fn respond_to_sign_in(&mut self, response: &impl Message) {
        if let Some(number) = self.sign_in_call {
            self.respond(number, response);
        }
    }

    /// Responds to a call with an error.
    fn reject_call(&mut self, number: u32, code: ErrorCode, reason: &str) {
        self.connection.refuse(number, code, reason);
    }

    /// Decodes the argument of a call. If that fails, responds with an error and returns `None`.
    fn decode_argument<M: Message + Default>(&mut self, number: u32, payload: Bytes) -> Option<M> {
        let argument: Result<M, DecodeError> = M::decode(payload);
        argument.inspect_err(|_| self.reject_call(number, ErrorCode::BadPayload, "undecodable payload")).ok()
    }

    fn handle_sign_in_call(
        &mut self,
        number: u32,
        procedure: ProcedureId,
        payload: Bytes,
    ) -> Option<ClientRequest> {
        let request = match procedure {
            ProcedureId::GetChallenge => {
                let request: GetChallengeRequest = self.decode_argument(number, payload)?;
                let GetChallengeRequest { address, transports, resume_secret } = request;
                let resume_secret = resume_secret.map(Vec::from);
                ClientRequest::Challenge(ChallengeRequestMessage { address, transports, resume_secret })
            }
            ProcedureId::Authenticate => {
                let SignedChallenge { auth_chain_json } = self.decode_argument(number, payload)?;
                ClientRequest::Authenticate { auth_chain_json }
            }
            ProcedureId::GetDisconnectionMessage => {
                self.disconnection_calls.push(number);
                return None;
            }
            // The module of this procedure is not offered yet.
            _ => return None,
        };
        self.sign_in_call = Some(number);
        Some(request)
    }

    fn handle_call(
        &mut self,
        peer: Address,
        number: u32,
        procedure: ProcedureId,
        payload: Bytes,
        now: Instant,
    ) -> Option<ClientRequest> {
        match procedure {
            ProcedureId::GetChallenge | ProcedureId::Authenticate => {
                self.reject_call(number, ErrorCode::Unexpected, "already signed in");
            }
            ProcedureId::GetDisconnectionMessage => self.disconnection_calls.push(number),
            ProcedureId::SendHeartbeat => {
                let heartbeat = self.decode_argument(number, payload)?;
                self.respond(number, &());
                return Some(ClientRequest::Heartbeat(heartbeat));
            }
            ProcedureId::PublishToTopic => return self.publish(number, payload, now),
            ProcedureId::Mesh(procedure) => return self.handle_mesh_call(number, procedure, payload, now),
            ProcedureId::GetCommsCommands => {
                let result = self.subscriptions.subscribe_commands(number);
                self.open_stream(number, result);
            }
            ProcedureId::SubscribeStream(publisher) => {
                let SubscriptionRequest { topic } = self.decode_argument(number, payload)?;
                let result = self.subscriptions.subscribe(peer, publisher, &topic, Some(number));
                self.open_stream(number, result.map(drop));
            }
            ProcedureId::Subscribe(publisher) => {
                let SubscriptionRequest { topic } = self.decode_argument(number, payload)?;
                match self.subscriptions.subscribe(peer, publisher, &topic, None) {
                    Ok(subscription_id) => self.respond(number, &Subscription { subscription_id }),
                    Err(error) => self.reject_subscription(number, error),
                }
            }
            ProcedureId::OpenStream(publisher) => {
                let Subscription { subscription_id } = self.decode_argument(number, payload)?;
                let result = self.subscriptions.attach_stream(publisher, subscription_id, number);
                self.open_stream(number, result);
            }
            ProcedureId::Unsubscribe(publisher) => {
                let Subscription { subscription_id } = self.decode_argument(number, payload)?;
                let (ok, stream) = self.subscriptions.cancel(publisher, subscription_id);
                if let Some(stream) = stream {
                    self.connection.end_stream(stream);
                }
                self.respond(number, &UnsubscriptionResult { ok });
            }
        }
        None
    }

    fn publish(&mut self, number: u32, payload: Bytes, now: Instant) -> Option<ClientRequest> {
        let PublishToTopicRequest { topic, payload } = self.decode_argument(number, payload)?;
        let request = if topic == HEARTBEAT_TOPIC {
            ClientRequest::Heartbeat(self.decode_argument(number, payload)?)
        } else {
            match topic.parse::<Topic>() {
                Ok(topic) => {
                    if let Some(mailbox) = parse_topic(&topic) {
                        return self.publish_signal(number, mailbox, payload, now);
                    }
                    let read_at = self.topic_throttle.charge(topic.as_str().len() + payload.len(), now);
                    ClientRequest::Publish { topic, payload, read_at }
                }
                Err(error) => {
                    self.reject_subscription(number, SubscriptionError::Topic(error));
                    return None;
                }
            }
        };
        self.respond(number, &PublishToTopicResult { ok: true });
        Some(request)
    }

    fn open_stream(&mut self, number: u32, result: Result<(), SubscriptionError>) {
        match result {
            Ok(()) => self.connection.open_stream(number),
            Err(error) => self.reject_subscription(number, error),
        }
    }

    fn reject_subscription(&mut self, number: u32, error: SubscriptionError) {
        self.reject_call(number, error.code(), &error.to_string());
    }

    /// Sends one queued element on each stream for which the client requested the next one.
    fn serve_streams(&mut self) {
        let requested: Vec<u32> = self.connection.requested_streams().collect();
        for number in requested {
            if let Some(element) = self.subscriptions.pop(number).or_else(|| self.mesh.pop(number)) {
                self.connection.send_element(number, element);
            }
        }
    }
}
