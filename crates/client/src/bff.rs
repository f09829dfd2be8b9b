//! A session over RPC: the client of the gateway's BFF services.

use std::collections::VecDeque;

use bytes::Bytes;
use identity::Identity;
use protocol::{
    Message,
    bff::{
        GetChallengeRequest, GetChallengeResponse, SignedChallenge, SubscriptionRequest,
        SystemTopicSubscriptionResultElem, WelcomePeerInformation,
    },
    v3::{Heartbeat, IslandChangedMessage, JoinIslandMessage, LeftIslandMessage},
};
use rpc::client::{CallError, Caller, Event};
use tokio::time::{Duration, timeout};

use crate::{
    Disconnect, Settings,
    connection::{Connection, available},
    link_event::IslandEvent,
    sign_in::{Welcome, check_challenge},
    topics::{TOPICS_SERVICE, Topics},
};

/// A session over RPC.
#[derive(Debug)]
pub(crate) struct BffSession {
    connection: Connection,
    caller: Caller,
    /// The system topic with the assignments of this session.
    island_topic: String,
    /// The call with the stream of `island_topic`.
    island_stream: Option<u32>,
    /// The calls with the streams of joins and of leaves.
    join_stream: Option<u32>,
    leave_stream: Option<u32>,
    /// The island of the last assignment.
    current_island: String,
    /// The call that the gateway answers when a newer session replaces this one.
    disconnection_call: Option<u32>,
    /// Whether a newer session replaced this one.
    kicked: bool,
    /// The heartbeat to send. A newer one replaces it.
    heartbeat: Option<Heartbeat>,
    /// Events that were received and not returned yet: at most one for each stream, because no further
    /// element is requested before.
    events: VecDeque<IslandEvent>,
}

/// System topics of joins in all islands. A gateway need only publish those of the client's island; events of
/// other islands are ignored.
const JOINS: &str = "island.*.peer_join";
const LEAVES: &str = "island.*.peer_left";
const AUTHENTICATION_SERVICE: &str = "BffAuthenticationService";
const DIRECTOR_SERVICE: &str = "CommsDirectorService";
/// The limit of open calls, below the limit of servers.
const MAX_CALLS: usize = 200;
/// The time to wait for the close frame after a refused sign-in. Its reason is more precise than the error.
const CLOSE_REASON_TIMEOUT: Duration = Duration::from_secs(1);

impl BffSession {
    /// Connects and signs in.
    pub(crate) async fn sign_in(
        url: &str,
        settings: &Settings,
        identity: &Identity,
        resume_secret: Option<Bytes>,
    ) -> Result<(Self, Welcome), Disconnect> {
        let connection = Connection::open(url, protocol::RPC_SUBPROTOCOL, settings.connect_options()).await?;
        let address = identity.address().to_string();
        let island_topic = format!("{address}.island_changed");
        let mut bff = Self {
            connection,
            caller: Caller::new(MAX_CALLS),
            island_topic,
            island_stream: None,
            join_stream: None,
            leave_stream: None,
            current_island: String::new(),
            disconnection_call: None,
            kicked: false,
            heartbeat: None,
            events: VecDeque::new(),
        };
        let transports = settings.transports.clone();
        let request = GetChallengeRequest { address, transports, resume_secret };
        let challenge: GetChallengeResponse = bff.request("GetChallenge", &request).await?;
        check_challenge(&challenge.challenge_to_sign)?;
        let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
        let welcome: WelcomePeerInformation =
            bff.request("Authenticate", &SignedChallenge { auth_chain_json }).await?;
        let WelcomePeerInformation { resume_secret, resumed, .. } = welcome;
        Ok((bff, Welcome { resume_secret, resumed }))
    }

    /// Calls a procedure of the sign-in, and waits for the response.
    async fn request<M: Message + Default>(
        &mut self,
        procedure: &'static str,
        argument: &impl Message,
    ) -> Result<M, Disconnect> {
        self.call(AUTHENTICATION_SERVICE, procedure, argument);
        loop {
            self.receive().await?;
            // During the sign-in, there is one call at a time.
            match self.caller.poll_event() {
                Some(Event::Answered { payload, .. }) => {
                    return M::decode(payload).map_err(Disconnect::broken);
                }
                Some(Event::Failed { error, .. }) => return Err(self.sign_in_rejection(&error).await),
                Some(_) => return Err(Disconnect::broken("the response does not match the request")),
                None => {}
            }
        }
    }

    /// The reason for which a sign-in was refused: that of the close frame, if one arrives.
    async fn sign_in_rejection(&mut self, error: &CallError) -> Disconnect {
        let closed = async {
            loop {
                if let Err(disconnect) = self.receive().await {
                    return disconnect;
                }
            }
        };
        match timeout(CLOSE_REASON_TIMEOUT, closed).await {
            Ok(disconnect @ Disconnect::Closed { .. }) => disconnect,
            _ => Disconnect::broken(error),
        }
    }

    /// Subscribes to the assignments, joins and leaves, to the end of the session, and to the topics.
    pub(crate) fn subscribe(&mut self, topics: &mut Topics) {
        self.disconnection_call = self.call(AUTHENTICATION_SERVICE, "GetDisconnectionMessage", &());
        let island_topic = self.island_topic.clone();
        let mut subscribe = |topic: &str| {
            let topic = SubscriptionRequest { topic: topic.to_owned() };
            self.call(TOPICS_SERVICE, "SystemSubscription", &topic)
        };
        let islands = subscribe(&island_topic);
        let (joins, leaves) = (subscribe(JOINS), subscribe(LEAVES));
        (self.island_stream, self.join_stream, self.leave_stream) = (islands, joins, leaves);
        topics.signed_in(&mut self.caller);
    }

    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        self.heartbeat = Some(heartbeat);
    }

    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked
    }

    /// The next event of an island; serves the topics meanwhile. If `wanted` is false, no event is returned
    /// and none is requested. Cancel-safe.
    pub(crate) async fn next(
        &mut self,
        topics: &mut Topics,
        wanted: bool,
    ) -> Result<IslandEvent, Disconnect> {
        loop {
            while let Some(event) = self.caller.poll_event() {
                self.handle_event(event, topics)?;
            }
            if wanted {
                if let Some(event) = self.events.pop_front() {
                    return Ok(event);
                }
                let streams = [self.island_stream, self.join_stream, self.leave_stream];
                streams.into_iter().flatten().for_each(|number| self.caller.request_next(number));
            }
            tokio::select! {
                received = self.receive() => received?,
                wake = topics.next() => topics.serve(wake, &mut self.caller),
            }
        }
    }

    fn handle_event(&mut self, event: Event, topics: &mut Topics) -> Result<(), Disconnect> {
        let streams = [self.island_stream, self.join_stream, self.leave_stream];
        match event {
            Event::Element { number, payload } if streams.contains(&Some(number)) => {
                let element =
                    SystemTopicSubscriptionResultElem::decode(payload).map_err(Disconnect::broken)?;
                let event = self.decode_island_event(number, element.payload)?;
                self.events.extend(event);
            }
            Event::Failed { number, error } if self.island_stream == Some(number) => {
                return Err(Disconnect::broken(format_args!("the gateway sends no assignments: {error}")));
            }
            Event::Ended { number } if self.island_stream == Some(number) => {
                return Err(Disconnect::broken("the gateway ended the stream of assignments"));
            }
            // `next` requests the elements. Gateways need not offer the streams of joins and leaves.
            Event::Opened { number } | Event::Failed { number, .. } | Event::Ended { number }
                if streams.contains(&Some(number)) => {}
            // The close frame that follows may have another reason.
            Event::Answered { number, .. } if self.disconnection_call == Some(number) => self.kicked = true,
            event => topics.handle_event(event, &mut self.caller),
        }
        Ok(())
    }

    /// Decodes an element of one of the three streams; `None` for a join or leave of another island.
    fn decode_island_event(
        &mut self,
        number: u32,
        payload: Bytes,
    ) -> Result<Option<IslandEvent>, Disconnect> {
        Ok(if self.island_stream == Some(number) {
            let change = IslandChangedMessage::decode(payload).map_err(Disconnect::broken)?;
            self.current_island.clone_from(&change.island_id);
            Some(IslandEvent::IslandChanged(change))
        } else if self.join_stream == Some(number) {
            let join = JoinIslandMessage::decode(payload).map_err(Disconnect::broken)?;
            (join.island_id == self.current_island).then_some(IslandEvent::Joined(join))
        } else {
            let left = LeftIslandMessage::decode(payload).map_err(Disconnect::broken)?;
            (left.island_id == self.current_island).then_some(IslandEvent::Left(left))
        })
    }

    /// Calls a procedure; `None` if there are too many open calls.
    fn call(
        &mut self,
        module: &'static str,
        procedure: &'static str,
        argument: &impl Message,
    ) -> Option<u32> {
        self.caller.call(module, procedure, Bytes::from(argument.encode_to_vec())).ok()
    }

    /// Sends queued messages until a message arrives, and processes it. Cancel-safe.
    async fn receive(&mut self) -> Result<(), Disconnect> {
        let Self { connection, caller, heartbeat, .. } = self;
        let mut outgoing = || {
            caller.poll_output().or_else(|| {
                let heartbeat = Bytes::from(heartbeat.take()?.encode_to_vec());
                // If the gateway leaves too many calls unanswered, the heartbeat is dropped; it is repeated.
                caller.call(DIRECTOR_SERVICE, "SendHeartbeat", heartbeat).ok()?;
                caller.poll_output()
            })
        };
        let message = connection.next_message(|_| available(outgoing())).await?;
        self.caller.receive(&message).map_err(Disconnect::broken)
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}
