//! The BFF over RPC, from the client's side.

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
    session::{IslandEvent, Welcome, check_challenge},
    topics::{TOPICS_SERVICE, Topics},
};

/// A session over RPC.
#[derive(Debug)]
pub(crate) struct BffSession {
    connection: Connection,
    caller: Caller,
    /// The system topic that names this session's islands.
    island_topic: String,
    /// The call whose stream tells of it.
    island_stream: Option<u32>,
    /// The calls whose streams tell who joins islands, and who leaves them.
    join_stream: Option<u32>,
    leave_stream: Option<u32>,
    /// The island that was named last.
    current_island: String,
    /// The call that is answered when a newer session takes over.
    disconnection_call: Option<u32>,
    /// Whether one did.
    kicked: bool,
    /// What is to be sent; at the bound of one, the newest.
    heartbeat: Option<Heartbeat>,
    /// What was heard and not told yet: of each stream one element at most, as no other is asked for.
    events: VecDeque<IslandEvent>,
}

/// System topics of all islands. A gateway need only tell of one's own, and of others nothing is heard.
const JOINS: &str = "island.*.peer_join";
const LEAVES: &str = "island.*.peer_left";
const AUTHENTICATION_SERVICE: &str = "BffAuthenticationService";
const DIRECTOR_SERVICE: &str = "CommsDirectorService";
/// Calls that are open at a time: below what servers take.
const MAX_CALLS: usize = 200;
/// How long a server that refused a sign-in may take to close, which says why better.
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

    /// Calls a procedure of the sign-in, and waits for the answer.
    async fn request<M: Message + Default>(
        &mut self,
        procedure: &'static str,
        argument: &impl Message,
    ) -> Result<M, Disconnect> {
        self.call(AUTHENTICATION_SERVICE, procedure, argument);
        loop {
            self.receive().await?;
            // There is one call at a time.
            match self.caller.poll_event() {
                Some(Event::Answered { payload, .. }) => {
                    return M::decode(payload).map_err(Disconnect::broken);
                }
                Some(Event::Failed { error, .. }) => return Err(self.sign_in_rejection(&error).await),
                Some(_) => return Err(Disconnect::broken("an answer of another kind than the question")),
                None => {}
            }
        }
    }

    /// Why a sign-in was refused: what the close says, if there is one.
    async fn sign_in_rejection(&mut self, error: &CallError) -> Disconnect {
        let closed = async {
            loop {
                if let Err(ended) = self.receive().await {
                    return ended;
                }
            }
        };
        match timeout(CLOSE_REASON_TIMEOUT, closed).await {
            Ok(ended @ Disconnect::Closed { .. }) => ended,
            _ => Disconnect::broken(error),
        }
    }

    /// Asks for what an explorer wants to hear: of its islands, of the end, and its topics.
    pub(crate) fn subscribe(&mut self, topics: &mut Topics) {
        self.disconnection_call = self.call(AUTHENTICATION_SERVICE, "GetDisconnectionMessage", &());
        let island_topic = self.island_topic.clone();
        let mut subscribe = |topic: &str| {
            let topic = SubscriptionRequest { topic: topic.to_owned() };
            self.call(TOPICS_SERVICE, "SystemSubscription", &topic)
        };
        let own = subscribe(&island_topic);
        let (joins, leaves) = (subscribe(JOINS), subscribe(LEAVES));
        (self.island_stream, self.join_stream, self.leave_stream) = (own, joins, leaves);
        topics.signed_in(&mut self.caller);
    }

    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        self.heartbeat = Some(heartbeat);
    }

    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked
    }

    /// What the gateway says next; topics are served meanwhile. Unless news are wanted, it gives none
    /// and asks for none. Cancel-safe.
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
                if let Some(news) = self.events.pop_front() {
                    return Ok(news);
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
                let news = self.decode_island_event(number, element.payload)?;
                self.events.extend(news);
            }
            Event::Failed { number, error } if self.island_stream == Some(number) => {
                return Err(Disconnect::broken(format_args!("the gateway does not name islands: {error}")));
            }
            Event::Ended { number } if self.island_stream == Some(number) => {
                return Err(Disconnect::broken("the gateway names no islands any more"));
            }
            // They are asked for when news are wanted. Gateways need not tell who joins and who leaves.
            Event::Opened { number } | Event::Failed { number, .. } | Event::Ended { number }
                if streams.contains(&Some(number)) => {}
            // The end that follows may not say so.
            Event::Answered { number, .. } if self.disconnection_call == Some(number) => self.kicked = true,
            event => topics.handle_event(event, &mut self.caller),
        }
        Ok(())
    }

    /// What a stream tells of islands.
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

    /// `None`: too much is unanswered.
    fn call(
        &mut self,
        module: &'static str,
        procedure: &'static str,
        argument: &impl Message,
    ) -> Option<u32> {
        self.caller.call(module, procedure, Bytes::from(argument.encode_to_vec())).ok()
    }

    /// Sends what there is to send, until a message came. Cancel-safe.
    async fn receive(&mut self) -> Result<(), Disconnect> {
        let Self { connection, caller, heartbeat, .. } = self;
        let mut outgoing = || {
            caller.poll_output().or_else(|| {
                let heartbeat = Bytes::from(heartbeat.take()?.encode_to_vec());
                // While a gateway leaves so many unanswered, one less is no loss: they repeat.
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
