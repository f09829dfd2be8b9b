//! The BFF over RPC, from the client's side.

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
use rpc::client::{Caller, Event, Refusal};
use tokio::time::{Duration, timeout};

use crate::{
    Ended, Settings,
    connection::Connection,
    session::{News, check_challenge},
    topics::{TOPICS_SERVICE, Topics},
};

/// A session over RPC.
#[derive(Debug)]
pub(crate) struct Bff {
    connection: Connection,
    caller: Caller,
    /// The system topic that names this session's islands.
    island_topic: String,
    /// The call whose stream tells of it.
    islands: Option<u32>,
    /// The calls whose streams tell who joins islands, and who leaves them.
    joins: Option<u32>,
    leaves: Option<u32>,
    /// The island that was named last.
    island: String,
    /// The call that is answered when a newer session takes over.
    farewell: Option<u32>,
}

/// System topics of all islands. A gateway need only tell of one's own, and of others nothing is heard.
const JOINS: &str = "island.*.peer_join";
const LEAVES: &str = "island.*.peer_left";
const AUTHENTICATION_SERVICE: &str = "BffAuthenticationService";
const DIRECTOR_SERVICE: &str = "CommsDirectorService";
/// Calls that are open at a time: below what servers take.
const MAX_CALLS: usize = 200;
/// How long a server that refused a sign-in may take to close, which says why better.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Bff {
    /// Connects and signs in.
    pub(crate) async fn sign_in(settings: &Settings, identity: &Identity) -> Result<Self, Ended> {
        let url = &settings.gateway.url;
        let connection = Connection::open(url, protocol::RPC_SUBPROTOCOL, settings.opening()).await?;
        let address = identity.address().to_string();
        let island_topic = format!("{address}.island_changed");
        let caller = Caller::new(MAX_CALLS);
        let (islands, joins, leaves, island, farewell) = Default::default();
        let mut bff = Self { connection, caller, island_topic, islands, joins, leaves, island, farewell };
        let challenge: GetChallengeResponse =
            bff.ask("GetChallenge", &GetChallengeRequest { address }).await?;
        check_challenge(&challenge.challenge_to_sign)?;
        let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
        let _: WelcomePeerInformation = bff.ask("Authenticate", &SignedChallenge { auth_chain_json }).await?;
        Ok(bff)
    }

    /// Calls a procedure of the sign-in, and waits for the answer.
    async fn ask<M: Message + Default>(
        &mut self,
        procedure: &'static str,
        argument: &impl Message,
    ) -> Result<M, Ended> {
        self.call(AUTHENTICATION_SERVICE, procedure, argument);
        loop {
            self.flush().await?;
            let message = self.connection.next_message().await?;
            self.caller.receive(&message).map_err(Ended::broken)?;
            // There is one call at a time.
            match self.caller.poll_event() {
                Some(Event::Answered { payload, .. }) => return M::decode(payload).map_err(Ended::broken),
                Some(Event::Refused { error, .. }) => return Err(self.last_words(&error).await),
                Some(_) => return Err(Ended::broken("an answer of another kind than the question")),
                None => {}
            }
        }
    }

    /// Why a sign-in was refused: what the close says, if there is one.
    async fn last_words(&mut self, error: &Refusal) -> Ended {
        let closed = async {
            loop {
                if let Err(ended) = self.connection.next_message().await {
                    return ended;
                }
            }
        };
        match timeout(LAST_WORDS, closed).await {
            Ok(ended @ Ended::Closed { .. }) => ended,
            _ => Ended::broken(error),
        }
    }

    /// Asks for what an explorer wants to hear: of its islands, of the end, and its topics.
    pub(crate) fn listen(&mut self, topics: &mut Topics) {
        self.farewell = self.call(AUTHENTICATION_SERVICE, "GetDisconnectionMessage", &());
        let island_topic = self.island_topic.clone();
        let mut subscribe = |topic: &str| {
            let topic = SubscriptionRequest { topic: topic.to_owned() };
            self.call(TOPICS_SERVICE, "SystemSubscription", &topic)
        };
        let own = subscribe(&island_topic);
        let (joins, leaves) = (subscribe(JOINS), subscribe(LEAVES));
        (self.islands, self.joins, self.leaves) = (own, joins, leaves);
        topics.signed_in(&mut self.caller);
    }

    pub(crate) async fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), Ended> {
        // While a gateway leaves so many unanswered, one heartbeat less is no loss: they repeat.
        self.call(DIRECTOR_SERVICE, "SendHeartbeat", heartbeat);
        self.flush().await
    }

    /// What the gateway says next; topics are served meanwhile. Cancel-safe.
    pub(crate) async fn next(&mut self, topics: &mut Topics) -> Result<News, Ended> {
        loop {
            while let Some(event) = self.caller.poll_event() {
                if let Some(news) = self.hear(event, topics)? {
                    return Ok(news);
                }
            }
            self.flush().await?;
            tokio::select! {
                message = self.connection.next_message() => {
                    self.caller.receive(&message?).map_err(Ended::broken)?;
                }
                wake = topics.next() => topics.serve(wake, &mut self.caller),
            }
        }
    }

    fn hear(&mut self, event: Event, topics: &mut Topics) -> Result<Option<News>, Ended> {
        let own = [self.islands, self.joins, self.leaves];
        match event {
            Event::Opened { number } if own.contains(&Some(number)) => self.caller.want(number),
            Event::Element { number, payload } if own.contains(&Some(number)) => {
                self.caller.want(number);
                let element = SystemTopicSubscriptionResultElem::decode(payload).map_err(Ended::broken)?;
                return self.hear_island(number, element.payload);
            }
            Event::Refused { number, error } if self.islands == Some(number) => {
                return Err(Ended::broken(format_args!("the gateway does not name islands: {error}")));
            }
            Event::Ended { number } if self.islands == Some(number) => {
                return Err(Ended::broken("the gateway names no islands any more"));
            }
            // Gateways need not tell who joins and who leaves.
            Event::Refused { number, .. } | Event::Ended { number } if own.contains(&Some(number)) => {}
            Event::Answered { number, .. } if self.farewell == Some(number) => return Ok(Some(News::Kicked)),
            event => topics.hear(event, &mut self.caller),
        }
        Ok(None)
    }

    /// What a stream tells of islands.
    fn hear_island(&mut self, number: u32, payload: Bytes) -> Result<Option<News>, Ended> {
        Ok(if self.islands == Some(number) {
            let change = IslandChangedMessage::decode(payload).map_err(Ended::broken)?;
            self.island.clone_from(&change.island_id);
            Some(News::IslandChanged(change))
        } else if self.joins == Some(number) {
            let join = JoinIslandMessage::decode(payload).map_err(Ended::broken)?;
            (join.island_id == self.island).then_some(News::Joined(join))
        } else {
            let left = LeftIslandMessage::decode(payload).map_err(Ended::broken)?;
            (left.island_id == self.island).then_some(News::Left(left))
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

    async fn flush(&mut self) -> Result<(), Ended> {
        self.connection.send_all(|| self.caller.poll_output()).await
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}
