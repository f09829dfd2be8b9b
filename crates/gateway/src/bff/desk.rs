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
use rpc::{Connection, ErrorCode, Event, Limits, Taken, Undecodable};

use super::{
    Backlogs,
    services::{AUTHENTICATION, Call, SIGNED_IN},
    subscriptions::{SubscriptionError, Subscriptions},
};
use crate::{resume::Resumption, sessions::MemberChange, topics::Publisher};

/// What a client may have open at a time: far above what any in the field has.
const LIMITS: Limits = Limits { ports: 16, calls: 256 };

/// The topic under which clients of 2022 say where they are. Nobody can listen to it.
const HEARTBEAT_TOPIC: &str = "heartbeat";

/// One client's side of the counter.
#[derive(Debug)]
pub(crate) struct Desk {
    connection: Connection<Call>,
    /// Who wants to hear of the end of the session, by the numbers of their calls.
    farewells: Vec<u32>,
    subscriptions: Subscriptions,
}

/// What a signed-in client asks of others.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    /// To be heard of where it is.
    Heartbeat(Heartbeat),
    /// To be heard by whoever listens to this topic.
    Publish(Topic, Bytes),
}

impl Desk {
    /// The desk of a client that has just connected.
    pub(crate) fn new(subscriptions: Subscriptions) -> Self {
        Self { connection: Connection::new(LIMITS, [&AUTHENTICATION]), farewells: Vec::new(), subscriptions }
    }

    /// What waits for its subscriptions.
    pub(crate) fn backlogs(&self) -> Arc<Backlogs> {
        self.subscriptions.backlogs()
    }

    /// Takes in a message.
    pub(crate) fn receive(&mut self, bytes: &Bytes) -> Result<Taken, Undecodable> {
        self.connection.receive(bytes)
    }

    /// The next message to write.
    pub(crate) fn poll_output(&mut self) -> Option<Bytes> {
        self.connection.poll_output()
    }

    /// The next call of the sign-in: its number, which procedure, its argument.
    pub(crate) fn poll_sign_in(&mut self) -> Option<(u32, Call, Bytes)> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure: Call::GetDisconnectionMessage, .. } => {
                    self.farewells.push(number);
                }
                Event::Called { number, procedure, payload } => return Some((number, procedure, payload)),
                Event::Ended { number } => self.farewells.retain(|&farewell| farewell != number),
            }
        }
    }

    /// Answers a call.
    pub(crate) fn respond(&mut self, number: u32, answer: &impl Message) {
        self.connection.respond(number, answer.encode_to_vec().into());
    }

    /// Answers a call with an error.
    pub(crate) fn refuse(&mut self, number: u32, code: ErrorCode, reason: &str) {
        self.connection.refuse(number, code, reason);
    }

    /// The argument of a call; one that does not decode is answered with an error.
    pub(crate) fn argument<M: Message + Default>(&mut self, number: u32, payload: Bytes) -> Option<M> {
        let argument: Result<M, DecodeError> = M::decode(payload);
        argument.inspect_err(|_| self.refuse(number, ErrorCode::BadPayload, "undecodable payload")).ok()
    }

    /// Answers the call that signed `address` in, and puts all services on offer.
    pub(crate) fn welcome(&mut self, number: u32, address: Address, resumption: Option<Resumption>) {
        self.connection.offer(&SIGNED_IN);
        let available_modules = SIGNED_IN.iter().map(|module| module.name.to_owned()).collect();
        let (resume_secret, resumed) = Resumption::welcome(resumption);
        let (peer_id, resume_secret) = (address.to_string(), resume_secret.into());
        let welcome = WelcomePeerInformation { peer_id, available_modules, resume_secret, resumed };
        self.respond(number, &welcome);
    }

    /// What a client that signed in as `owner` asks next of others; what concerns only itself is
    /// done.
    pub(crate) fn poll(&mut self, owner: Address) -> Option<Asked> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure, payload } => {
                    if let Some(asked) = self.called(owner, number, procedure, payload) {
                        return Some(asked);
                    }
                }
                Event::Ended { number } => {
                    self.farewells.retain(|&farewell| farewell != number);
                    self.subscriptions.stream_ended(number);
                }
            }
        }
    }

    fn called(&mut self, owner: Address, number: u32, procedure: Call, payload: Bytes) -> Option<Asked> {
        use Publisher::{Peers, System};
        match procedure {
            Call::GetChallenge | Call::Authenticate => {
                self.refuse(number, ErrorCode::Unexpected, "already signed in");
            }
            Call::GetDisconnectionMessage => self.farewells.push(number),
            Call::SendHeartbeat => {
                let heartbeat = self.argument(number, payload)?;
                self.respond(number, &());
                return Some(Asked::Heartbeat(heartbeat));
            }
            Call::PublishToTopic => return self.publish(number, payload),
            Call::GetCommsCommands => {
                let begun = self.subscriptions.command(number);
                self.open(number, begun);
            }
            Call::PeerSubscription => self.stream(owner, Peers, number, payload)?,
            Call::SystemSubscription => self.stream(owner, System, number, payload)?,
            Call::SubscribeToPeerMessages => self.subscribe(owner, Peers, number, payload)?,
            Call::SubscribeToSystemMessages => self.subscribe(owner, System, number, payload)?,
            Call::GetPeerMessages => self.read(Peers, number, payload)?,
            Call::GetSystemMessages => self.read(System, number, payload)?,
            Call::UnsubscribeToPeerMessages => self.cancel(Peers, number, payload)?,
            Call::UnsubscribeToSystemMessages => self.cancel(System, number, payload)?,
        }
        None
    }

    fn publish(&mut self, number: u32, payload: Bytes) -> Option<Asked> {
        let PublishToTopicRequest { topic, payload } = self.argument(number, payload)?;
        let asked = if topic == HEARTBEAT_TOPIC {
            Asked::Heartbeat(self.argument(number, payload)?)
        } else {
            match topic.parse() {
                Ok(topic) => Asked::Publish(topic, payload),
                Err(error) => {
                    self.refuse_subscription(number, SubscriptionError::Topic(error));
                    return None;
                }
            }
        };
        self.respond(number, &PublishToTopicResult { ok: true });
        Some(asked)
    }

    /// Answers with a stream of what is published under a topic.
    fn stream(&mut self, owner: Address, publisher: Publisher, number: u32, payload: Bytes) -> Option<()> {
        let SubscriptionRequest { topic } = self.argument(number, payload)?;
        let begun = self.subscriptions.listen(owner, publisher, &topic, Some(number));
        self.open(number, begun.map(drop));
        Some(())
    }

    /// Answers with the id of a subscription.
    fn subscribe(&mut self, owner: Address, publisher: Publisher, number: u32, payload: Bytes) -> Option<()> {
        let SubscriptionRequest { topic } = self.argument(number, payload)?;
        match self.subscriptions.listen(owner, publisher, &topic, None) {
            Ok(subscription_id) => self.respond(number, &Subscription { subscription_id }),
            Err(error) => self.refuse_subscription(number, error),
        }
        Some(())
    }

    /// Answers with a stream of what a subscription hears.
    fn read(&mut self, publisher: Publisher, number: u32, payload: Bytes) -> Option<()> {
        let Subscription { subscription_id } = self.argument(number, payload)?;
        let begun = self.subscriptions.read(publisher, subscription_id, number);
        self.open(number, begun);
        Some(())
    }

    fn cancel(&mut self, publisher: Publisher, number: u32, payload: Bytes) -> Option<()> {
        let Subscription { subscription_id } = self.argument(number, payload)?;
        let (ok, stream) = self.subscriptions.cancel(publisher, subscription_id);
        if let Some(stream) = stream {
            self.connection.end_stream(stream);
        }
        self.respond(number, &UnsubscriptionResult { ok });
        Some(())
    }

    fn open(&mut self, number: u32, begun: Result<(), SubscriptionError>) {
        match begun {
            Ok(()) => self.connection.open_stream(number),
            Err(error) => self.refuse_subscription(number, error),
        }
    }

    fn refuse_subscription(&mut self, number: u32, error: SubscriptionError) {
        self.refuse(number, error.code(), &error.to_string());
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
        let wanted: Vec<u32> = self.connection.wanted().collect();
        for number in wanted {
            if let Some(element) = self.subscriptions.pop(number) {
                self.connection.element(number, element);
            }
        }
    }

    /// A newer session took over: whoever wants to hear of it does.
    pub(crate) fn kicked(&mut self) {
        let message = DisconnectionMessage { reason: DisconnectionReason::DrKicked.into() };
        for number in std::mem::take(&mut self.farewells) {
            self.respond(number, &message);
        }
    }
}
