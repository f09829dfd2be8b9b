//! A WebSocket room, from the client's side: one task a stay.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
};

use bytes::Bytes;
use identity::Identity;
use protocol::{
    Address, IslandId, Message as _,
    rfc5::{WsIdentification, WsPacket, WsPeerUpdate, WsSignedChallenge, WsWelcome, ws_packet::Message},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    Ended, Event, RoomId,
    connection::{Connection, FAREWELL, Opening},
    doubles::{Doubles, Ear},
    session::check_challenge,
};

/// Something to say in a room.
#[derive(Debug, Clone)]
pub(crate) struct Say {
    pub(crate) body: Bytes,
    pub(crate) unreliable: bool,
}

/// A stay in a room, or an attempt at one. Dropping it leaves the room.
#[derive(Debug)]
pub(crate) struct Stay {
    id: RoomId,
    say: mpsc::Sender<Say>,
    progress: mpsc::Receiver<Progress>,
    entered: bool,
    speech: Speech,
}

/// When messages may be sent in a stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// From its beginning on: messages are queued until the welcome.
    Early,
    /// Once the room has welcomed the explorer.
    Entered,
    /// Not any more.
    Silent,
}

/// How a stay goes on.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The room has welcomed the explorer.
    Entered,
    /// It is over, or did not come about.
    Ended(Ended),
}

/// What may wait to be said; at the bound, the newest is not said.
const SAY_QUEUE: usize = 256;

/// What a stay needs to know.
pub(crate) struct Destination {
    /// With its token.
    pub(crate) url: String,
    /// Without it.
    pub(crate) public_url: String,
    pub(crate) island: IslandId,
    /// Who enters.
    pub(crate) identity: Identity,
    pub(crate) opening: Opening,
}

impl Stay {
    /// Enters a room in a task of its own.
    pub(crate) fn begin(
        id: RoomId,
        destination: Destination,
        doubles: &Doubles,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let ear = doubles.listen(id);
        let (say, to_say) = mpsc::channel(SAY_QUEUE);
        // It enters once and ends once.
        let (progress_sender, progress) = mpsc::channel(2);
        tokio::spawn(async move {
            let (ended, connection) = match enter(&destination).await {
                Ok((mut connection, welcome)) => {
                    let inside = Inside { room: id, members: HashMap::new(), ear: &ear };
                    let arrival = (&destination, welcome);
                    let sender = &progress_sender;
                    let ended = inside.stay(arrival, &mut connection, sender, to_say, &events).await;
                    (ended, Some(connection))
                }
                Err(ended) => (ended, None),
            };
            drop(ear);
            // Nobody listens any more when the explorer is gone.
            let _ = events.send(Event::RoomLeft { room: id, ended: ended.clone() }).await;
            let left = ended == Ended::Left;
            let _ = progress_sender.send(Progress::Ended(ended)).await;
            if let Some(connection) = connection.filter(|_| left) {
                connection.close().await;
            }
        });
        Self { id, say, progress, entered: false, speech: Speech::Entered }
    }

    /// The same, but messages that are sent before the welcome are queued for it.
    pub(crate) fn saying_early(self) -> Self {
        Self { speech: Speech::Early, ..self }
    }

    /// The same, but it sends no more messages.
    pub(crate) fn silent(self) -> Self {
        Self { speech: Speech::Silent, ..self }
    }

    /// What becomes of it next. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> Progress {
        let progress = self.progress.recv().await.unwrap_or(Progress::Ended(Ended::Left));
        self.entered |= matches!(progress, Progress::Entered);
        progress
    }

    /// Whether the room has welcomed the explorer.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered
    }

    /// Says something, and gives where; `None` if the room has not been entered, or does not keep
    /// up.
    pub(crate) fn say(&self, say: &Say) -> Option<RoomId> {
        let says = match self.speech {
            Speech::Early => true,
            Speech::Entered => self.entered,
            Speech::Silent => false,
        };
        (says && self.say.try_send(say.clone()).is_ok()).then_some(self.id)
    }
}

/// A stay that came about.
struct Inside<'a> {
    room: RoomId,
    members: HashMap<u32, Address>,
    ear: &'a Ear,
}

impl Inside<'_> {
    /// From the welcome to the end.
    async fn stay(
        mut self,
        (destination, welcome): (&Destination, WsWelcome),
        connection: &mut Connection,
        progress: &mpsc::Sender<Progress>,
        mut to_say: mpsc::Receiver<Say>,
        events: &mpsc::Sender<Event>,
    ) -> Ended {
        // Whoever hears of it may have something to say at once.
        let _ = progress.send(Progress::Entered).await;
        if events.send(self.arrive(destination, welcome)).await.is_err() {
            return Ended::Left;
        }
        let mut left = pin!(async {
            progress.closed().await;
            // What waits to be said has a moment.
            sleep(FAREWELL).await;
        });
        loop {
            let packet = tokio::select! {
                packet = connection.next_message(|cx| to_say.poll_recv(cx).map(|say| Some(encode(say?)))) => packet,
                () = &mut left => Err(Ended::Left),
            };
            let packet = packet.and_then(|packet| WsPacket::decode(packet).map_err(Ended::broken));
            let event = match packet {
                Ok(packet) => packet.message.and_then(|message| self.hear(message)),
                Err(ended) => return ended,
            };
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return Ended::Left;
            }
        }
    }

    fn arrive(&mut self, destination: &Destination, welcome: WsWelcome) -> Event {
        let identities = welcome.peer_identities.into_iter();
        let members: BTreeMap<u32, Address> =
            identities.filter_map(|(alias, address)| Some((alias, address.parse().ok()?))).collect();
        self.members = members.iter().map(|(&alias, &address)| (alias, address)).collect();
        let Destination { island, public_url, .. } = destination;
        let (island, url) = (island.clone(), public_url.clone());
        Event::RoomEntered { room: self.room, island, url, alias: welcome.alias, members }
    }

    fn hear(&mut self, message: Message) -> Option<Event> {
        let room = self.room;
        match message {
            Message::PeerUpdateMessage(WsPeerUpdate { from_alias: alias, body, .. }) => {
                let sender = self.members.get(&alias).copied();
                let double = sender.is_some_and(|sender| self.ear.is_double(sender, &body, Instant::now()));
                Some(match double {
                    false => Event::Message { room, alias, sender, body },
                    true => Event::Double { room, alias, body },
                })
            }
            Message::PeerJoinMessage(join) => {
                let (alias, address) = (join.alias, join.address.parse().ok()?);
                self.members.insert(alias, address);
                Some(Event::PeerJoined { room, alias, address })
            }
            Message::PeerLeaveMessage(leave) => {
                self.members.remove(&leave.alias);
                Some(Event::PeerLeft { room, alias: leave.alias })
            }
            // A kick is followed by a close frame, which says why.
            _ => None,
        }
    }
}

fn encode(Say { body, unreliable }: Say) -> Bytes {
    let update = WsPeerUpdate { from_alias: 0, body, unreliable };
    WsPacket { message: Some(Message::PeerUpdateMessage(update)) }.encode_to_vec().into()
}

async fn enter(destination: &Destination) -> Result<(Connection, WsWelcome), Ended> {
    let Destination { url, identity, opening, .. } = destination;
    let mut connection = Connection::open(url, "rfc5, rfc4", *opening).await?;
    let handshake = async {
        let identification = WsIdentification { address: identity.address().to_string() };
        let mut to_say = Message::PeerIdentification(identification);
        loop {
            let mut answer: WsPacket = connection.ask(&WsPacket { message: Some(to_say) }).await?;
            // The close frame that follows says more.
            while let Some(Message::PeerKicked(_)) = answer.message {
                answer = connection.next().await?;
            }
            to_say = match answer.message {
                Some(Message::WelcomeMessage(welcome)) => return Ok(welcome),
                // Without a token, a room wants a signature.
                Some(Message::ChallengeMessage(challenge)) => {
                    check_challenge(&challenge.challenge_to_sign)?;
                    let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
                    Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })
                }
                _ => return Err(Ended::broken("no welcome from the room")),
            }
        }
    };
    match timeout(opening.deadline, handshake).await {
        Ok(Ok(welcome)) => Ok((connection, welcome)),
        Ok(Err(ended)) => Err(ended),
        Err(_) => Err(Ended::broken("the room did not answer in time")),
    }
}
