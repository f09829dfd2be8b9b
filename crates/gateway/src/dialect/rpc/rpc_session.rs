//! The RPC state of one client: its connection, open calls and subscriptions. Sans-IO.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{
    Address, DecodeError, Message, Topic,
    bff::{
        DisconnectionMessage, DisconnectionReason, PublishToTopicRequest, PublishToTopicResult, Subscription,
        SubscriptionRequest, UnsubscriptionResult, WelcomePeerInformation,
    },
    v3::Heartbeat,
};
use rpc::{Connection, ErrorCode, Event, Limits, MessageKind, Undecodable};

use super::{
    procedures::{AUTHENTICATION_SERVICE, ProcedureId, SIGNED_IN_SERVICES},
    subscriptions::{SubscriptionError, Subscriptions},
};
use crate::{
    session::{message::MemberChange, resumption::Resumption},
    topics::{PublisherKind, queues::SubscriptionQueues},
};

/// Upper bounds of open ports and calls of one client, far above the use of deployed clients.
const RPC_LIMITS: Limits = Limits { ports: 16, calls: 256 };

/// The topic under which clients of 2022 publish their heartbeats. It is not delivered to subscribers.
const HEARTBEAT_TOPIC: &str = "heartbeat";

/// The RPC state of one client.
#[derive(Debug)]
pub(crate) struct RpcSession {
    connection: Connection<ProcedureId>,
    /// Numbers of the open `GetDisconnectionMessage` calls, which are answered when the session is kicked.
    disconnection_calls: Vec<u32>,
    subscriptions: Subscriptions,
}

/// A request of a signed-in client that is published on the bus.
#[derive(Debug, PartialEq)]
pub(crate) enum ClientRequest {
    /// Publish this heartbeat.
    Heartbeat(Heartbeat),
    /// Publish this payload under this topic.
    Publish(Topic, Bytes),
}

impl RpcSession {
    /// The state of a client that has just connected.
    pub(crate) fn new(subscriptions: Subscriptions) -> Self {
        Self {
            connection: Connection::new(RPC_LIMITS, [&AUTHENTICATION_SERVICE]),
            disconnection_calls: Vec::new(),
            subscriptions,
        }
    }

    /// The message queues of its subscriptions.
    pub(crate) fn queues(&self) -> Arc<SubscriptionQueues> {
        self.subscriptions.queues()
    }

    /// Processes a message.
    pub(crate) fn receive(&mut self, bytes: &Bytes) -> Result<MessageKind, Undecodable> {
        self.connection.receive(bytes)
    }

    /// The next message to write.
    pub(crate) fn poll_output(&mut self) -> Option<Bytes> {
        self.connection.poll_output()
    }

    /// The next call of the sign-in: its number, procedure and argument.
    pub(crate) fn poll_sign_in(&mut self) -> Option<(u32, ProcedureId, Bytes)> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure: ProcedureId::GetDisconnectionMessage, .. } => {
                    self.disconnection_calls.push(number);
                }
                Event::Called { number, procedure, payload } => return Some((number, procedure, payload)),
                Event::Ended { number } => self.disconnection_calls.retain(|&call| call != number),
            }
        }
    }

    /// Responds to a call.
    pub(crate) fn respond(&mut self, number: u32, response: &impl Message) {
        self.connection.respond(number, response.encode_to_vec().into());
    }

    /// Responds to a call with an error.
    pub(crate) fn reject(&mut self, number: u32, code: ErrorCode, reason: &str) {
        self.connection.refuse(number, code, reason);
    }

    /// Decodes the argument of a call. If that fails, responds with an error and returns `None`.
    pub(crate) fn decode_argument<M: Message + Default>(&mut self, number: u32, payload: Bytes) -> Option<M> {
        let argument: Result<M, DecodeError> = M::decode(payload);
        argument.inspect_err(|_| self.reject(number, ErrorCode::BadPayload, "undecodable payload")).ok()
    }

    /// Responds to the call that signed `address` in, and offers all services from now on.
    pub(crate) fn welcome(&mut self, number: u32, address: Address, resumption: Option<Resumption>) {
        self.connection.offer(&SIGNED_IN_SERVICES);
        let available_modules = SIGNED_IN_SERVICES.iter().map(|module| module.name.to_owned()).collect();
        let (resume_secret, resumed) = Resumption::welcome(resumption);
        let (peer_id, resume_secret) = (address.to_string(), resume_secret.into());
        let welcome = WelcomePeerInformation { peer_id, available_modules, resume_secret, resumed };
        self.respond(number, &welcome);
    }

    /// The next request of the client `owner` that is to be published. Calls that concern only the client
    /// itself are handled here.
    pub(crate) fn poll_request(&mut self, owner: Address) -> Option<ClientRequest> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure, payload } => {
                    if let Some(request) = self.handle_call(owner, number, procedure, payload) {
                        return Some(request);
                    }
                }
                Event::Ended { number } => {
                    self.disconnection_calls.retain(|&call| call != number);
                    self.subscriptions.stream_ended(number);
                }
            }
        }
    }

    fn handle_call(
        &mut self,
        owner: Address,
        number: u32,
        procedure: ProcedureId,
        payload: Bytes,
    ) -> Option<ClientRequest> {
        use PublisherKind::{Peers, System};
        match procedure {
            ProcedureId::GetChallenge | ProcedureId::Authenticate => {
                self.reject(number, ErrorCode::Unexpected, "already signed in");
            }
            ProcedureId::GetDisconnectionMessage => self.disconnection_calls.push(number),
            ProcedureId::SendHeartbeat => {
                let heartbeat = self.decode_argument(number, payload)?;
                self.respond(number, &());
                return Some(ClientRequest::Heartbeat(heartbeat));
            }
            ProcedureId::PublishToTopic => return self.publish(number, payload),
            ProcedureId::GetCommsCommands => {
                let result = self.subscriptions.subscribe_commands(number);
                self.open_stream(number, result);
            }
            ProcedureId::PeerSubscription => self.subscribe_stream(owner, Peers, number, payload)?,
            ProcedureId::SystemSubscription => self.subscribe_stream(owner, System, number, payload)?,
            ProcedureId::SubscribeToPeerMessages => self.subscribe(owner, Peers, number, payload)?,
            ProcedureId::SubscribeToSystemMessages => self.subscribe(owner, System, number, payload)?,
            ProcedureId::GetPeerMessages => self.open_subscription_stream(Peers, number, payload)?,
            ProcedureId::GetSystemMessages => self.open_subscription_stream(System, number, payload)?,
            ProcedureId::UnsubscribeToPeerMessages => self.cancel(Peers, number, payload)?,
            ProcedureId::UnsubscribeToSystemMessages => self.cancel(System, number, payload)?,
        }
        None
    }

    fn publish(&mut self, number: u32, payload: Bytes) -> Option<ClientRequest> {
        let PublishToTopicRequest { topic, payload } = self.decode_argument(number, payload)?;
        let request = if topic == HEARTBEAT_TOPIC {
            ClientRequest::Heartbeat(self.decode_argument(number, payload)?)
        } else {
            match topic.parse() {
                Ok(topic) => ClientRequest::Publish(topic, payload),
                Err(error) => {
                    self.reject_subscription(number, SubscriptionError::Topic(error));
                    return None;
                }
            }
        };
        self.respond(number, &PublishToTopicResult { ok: true });
        Some(request)
    }

    /// Responds with a stream of the messages under a topic.
    fn subscribe_stream(
        &mut self,
        owner: Address,
        publisher: PublisherKind,
        number: u32,
        payload: Bytes,
    ) -> Option<()> {
        let SubscriptionRequest { topic } = self.decode_argument(number, payload)?;
        let result = self.subscriptions.subscribe(owner, publisher, &topic, Some(number));
        self.open_stream(number, result.map(drop));
        Some(())
    }

    /// Responds with the id of a new subscription.
    fn subscribe(
        &mut self,
        owner: Address,
        publisher: PublisherKind,
        number: u32,
        payload: Bytes,
    ) -> Option<()> {
        let SubscriptionRequest { topic } = self.decode_argument(number, payload)?;
        match self.subscriptions.subscribe(owner, publisher, &topic, None) {
            Ok(subscription_id) => self.respond(number, &Subscription { subscription_id }),
            Err(error) => self.reject_subscription(number, error),
        }
        Some(())
    }

    /// Responds with a stream of the messages of an existing subscription.
    fn open_subscription_stream(
        &mut self,
        publisher: PublisherKind,
        number: u32,
        payload: Bytes,
    ) -> Option<()> {
        let Subscription { subscription_id } = self.decode_argument(number, payload)?;
        let result = self.subscriptions.attach_stream(publisher, subscription_id, number);
        self.open_stream(number, result);
        Some(())
    }

    fn cancel(&mut self, publisher: PublisherKind, number: u32, payload: Bytes) -> Option<()> {
        let Subscription { subscription_id } = self.decode_argument(number, payload)?;
        let (ok, stream) = self.subscriptions.cancel(publisher, subscription_id);
        if let Some(stream) = stream {
            self.connection.end_stream(stream);
        }
        self.respond(number, &UnsubscriptionResult { ok });
        Some(())
    }

    fn open_stream(&mut self, number: u32, result: Result<(), SubscriptionError>) {
        match result {
            Ok(()) => self.connection.open_stream(number),
            Err(error) => self.reject_subscription(number, error),
        }
    }

    fn reject_subscription(&mut self, number: u32, error: SubscriptionError) {
        self.reject(number, error.code(), &error.to_string());
    }

    /// Passes on a new assignment: an encoded `IslandChangedMessage`.
    pub(crate) fn island_changed(&mut self, change: &Bytes) {
        self.subscriptions.island_changed(change);
    }

    /// Passes on that a peer joined or left the client's island.
    pub(crate) fn member_changed(&mut self, change: &MemberChange) {
        self.subscriptions.member_changed(change);
    }

    /// Sends one queued element on each stream for which the client requested the next one.
    pub(crate) fn serve_streams(&mut self) {
        let requested: Vec<u32> = self.connection.requested_streams().collect();
        for number in requested {
            if let Some(element) = self.subscriptions.pop(number) {
                self.connection.send_element(number, element);
            }
        }
    }

    /// Responds to the open `GetDisconnectionMessage` calls that a newer session replaced this one.
    pub(crate) fn notify_kicked(&mut self) {
        let message = DisconnectionMessage { reason: DisconnectionReason::DrKicked.into() };
        for number in std::mem::take(&mut self.disconnection_calls) {
            self.respond(number, &message);
        }
    }
}
