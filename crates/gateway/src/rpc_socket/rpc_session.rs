//! What one client has asked for over RPC, and what it is still owed. Sans-IO.

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
    SubscriptionQueues,
    procedures::{AUTHENTICATION_SERVICE, ProcedureId, SIGNED_IN_SERVICES},
    subscriptions::{SubscriptionError, Subscriptions},
};
use crate::{resumption::Resumption, session_registry::MemberChange, topics::PublisherKind};

/// What a client may have open at a time: far above what any in the field has.
const RPC_LIMITS: Limits = Limits { ports: 16, calls: 256 };

/// The topic under which clients of 2022 say where they are. Nobody can listen to it.
const HEARTBEAT_TOPIC: &str = "heartbeat";

/// One client's side of the counter.
#[derive(Debug)]
pub(crate) struct RpcSession {
    connection: Connection<ProcedureId>,
    /// Who wants to hear of the end of the session, by the numbers of their calls.
    disconnection_calls: Vec<u32>,
    subscriptions: Subscriptions,
}

/// What a signed-in client asks of others.
#[derive(Debug, PartialEq)]
pub(crate) enum ClientRequest {
    /// To be heard of where it is.
    Heartbeat(Heartbeat),
    /// To be heard by whoever listens to this topic.
    Publish(Topic, Bytes),
}

impl RpcSession {
    /// The desk of a client that has just connected.
    pub(crate) fn new(subscriptions: Subscriptions) -> Self {
        Self {
            connection: Connection::new(RPC_LIMITS, [&AUTHENTICATION_SERVICE]),
            disconnection_calls: Vec::new(),
            subscriptions,
        }
    }

    /// What waits for its subscriptions.
    pub(crate) fn queues(&self) -> Arc<SubscriptionQueues> {
        self.subscriptions.queues()
    }

    /// Takes in a message.
    pub(crate) fn receive(&mut self, bytes: &Bytes) -> Result<MessageKind, Undecodable> {
        self.connection.receive(bytes)
    }

    /// The next message to write.
    pub(crate) fn poll_output(&mut self) -> Option<Bytes> {
        self.connection.poll_output()
    }

    /// The next call of the sign-in: its number, which procedure, its argument.
    pub(crate) fn poll_sign_in(&mut self) -> Option<(u32, ProcedureId, Bytes)> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure: ProcedureId::GetDisconnectionMessage, .. } => {
                    self.disconnection_calls.push(number);
                }
                Event::Called { number, procedure, payload } => return Some((number, procedure, payload)),
                Event::Ended { number } => self.disconnection_calls.retain(|&farewell| farewell != number),
            }
        }
    }

    /// Answers a call.
    pub(crate) fn respond(&mut self, number: u32, answer: &impl Message) {
        self.connection.respond(number, answer.encode_to_vec().into());
    }

    /// Answers a call with an error.
    pub(crate) fn reject(&mut self, number: u32, code: ErrorCode, reason: &str) {
        self.connection.refuse(number, code, reason);
    }

    /// The argument of a call; one that does not decode is answered with an error.
    pub(crate) fn decode_argument<M: Message + Default>(&mut self, number: u32, payload: Bytes) -> Option<M> {
        let argument: Result<M, DecodeError> = M::decode(payload);
        argument.inspect_err(|_| self.reject(number, ErrorCode::BadPayload, "undecodable payload")).ok()
    }

    /// Answers the call that signed `address` in, and puts all services on offer.
    pub(crate) fn welcome(&mut self, number: u32, address: Address, resumption: Option<Resumption>) {
        self.connection.offer(&SIGNED_IN_SERVICES);
        let available_modules = SIGNED_IN_SERVICES.iter().map(|module| module.name.to_owned()).collect();
        let (resume_secret, resumed) = Resumption::welcome(resumption);
        let (peer_id, resume_secret) = (address.to_string(), resume_secret.into());
        let welcome = WelcomePeerInformation { peer_id, available_modules, resume_secret, resumed };
        self.respond(number, &welcome);
    }

    /// What a client that signed in as `owner` asks next of others; what concerns only itself is
    /// done.
    pub(crate) fn poll_request(&mut self, owner: Address) -> Option<ClientRequest> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure, payload } => {
                    if let Some(asked) = self.handle_call(owner, number, procedure, payload) {
                        return Some(asked);
                    }
                }
                Event::Ended { number } => {
                    self.disconnection_calls.retain(|&farewell| farewell != number);
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
                let begun = self.subscriptions.subscribe_commands(number);
                self.open_stream(number, begun);
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
        let asked = if topic == HEARTBEAT_TOPIC {
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
        Some(asked)
    }

    /// Answers with a stream of what is published under a topic.
    fn subscribe_stream(
        &mut self,
        owner: Address,
        publisher: PublisherKind,
        number: u32,
        payload: Bytes,
    ) -> Option<()> {
        let SubscriptionRequest { topic } = self.decode_argument(number, payload)?;
        let begun = self.subscriptions.subscribe(owner, publisher, &topic, Some(number));
        self.open_stream(number, begun.map(drop));
        Some(())
    }

    /// Answers with the id of a subscription.
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

    /// Answers with a stream of what a subscription hears.
    fn open_subscription_stream(
        &mut self,
        publisher: PublisherKind,
        number: u32,
        payload: Bytes,
    ) -> Option<()> {
        let Subscription { subscription_id } = self.decode_argument(number, payload)?;
        let begun = self.subscriptions.attach_stream(publisher, subscription_id, number);
        self.open_stream(number, begun);
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

    fn open_stream(&mut self, number: u32, begun: Result<(), SubscriptionError>) {
        match begun {
            Ok(()) => self.connection.open_stream(number),
            Err(error) => self.reject_subscription(number, error),
        }
    }

    fn reject_subscription(&mut self, number: u32, error: SubscriptionError) {
        self.reject(number, error.code(), &error.to_string());
    }

    /// The client is on another island, or another connection: an encoded `IslandChangedMessage`.
    pub(crate) fn island_changed(&mut self, change: &Bytes) {
        self.subscriptions.island_changed(change);
    }

    /// Somebody joined the client's island, or left it.
    pub(crate) fn member_changed(&mut self, change: &MemberChange) {
        self.subscriptions.member_changed(change);
    }

    /// Sends what waits on the streams of which more is wanted.
    pub(crate) fn serve_streams(&mut self) {
        let wanted: Vec<u32> = self.connection.requested_streams().collect();
        for number in wanted {
            if let Some(element) = self.subscriptions.pop(number) {
                self.connection.send_element(number, element);
            }
        }
    }

    /// A newer session took over: whoever wants to hear of it does.
    pub(crate) fn notify_kicked(&mut self) {
        let message = DisconnectionMessage { reason: DisconnectionReason::DrKicked.into() };
        for number in std::mem::take(&mut self.disconnection_calls) {
            self.respond(number, &message);
        }
    }
}
