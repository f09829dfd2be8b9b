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
    Disconnect, Event, RoomId,
    connection::{CLOSE_TIMEOUT, ConnectOptions, Connection},
    dedup::{Dedup, DedupRoom},
    session::check_challenge,
};

/// Something to say in a room.
#[derive(Debug, Clone)]
pub(crate) struct OutgoingMessage {
    pub(crate) body: Bytes,
    pub(crate) unreliable: bool,
}

/// A stay in a room, or an attempt at one. Dropping it leaves the room.
#[derive(Debug)]
pub(crate) struct RoomConnection {
    id: RoomId,
    outgoing: mpsc::Sender<OutgoingMessage>,
    progress: mpsc::Receiver<RoomProgress>,
    entered: bool,
    send_mode: SendMode,
}

/// When messages may be sent in a stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendMode {
    /// From its beginning on: messages are queued until the welcome.
    QueueUntilWelcome,
    /// Once the room has welcomed the explorer.
    AfterWelcome,
    /// Not any more.
    Never,
}

/// How a stay goes on.
#[derive(Debug)]
pub(crate) enum RoomProgress {
    /// The room has welcomed the explorer.
    Entered,
    /// It is over, or did not come about.
    Ended(Disconnect),
}

/// What may wait to be said; at the bound, the newest is not said.
const OUTGOING_QUEUE: usize = 256;

/// What a stay needs to know.
pub(crate) struct Destination {
    /// With its token.
    pub(crate) url: String,
    /// Without it.
    pub(crate) public_url: String,
    pub(crate) island: IslandId,
    /// Who enters.
    pub(crate) identity: Identity,
    pub(crate) options: ConnectOptions,
}

impl RoomConnection {
    /// Enters a room in a task of its own.
    pub(crate) fn open(
        id: RoomId,
        destination: Destination,
        dedup: &Dedup,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let dedup_room = dedup.register(id);
        let (outgoing, queued) = mpsc::channel(OUTGOING_QUEUE);
        // It enters once and ends once.
        let (progress_sender, progress) = mpsc::channel(2);
        tokio::spawn(async move {
            let (ended, connection) = match enter(&destination).await {
                Ok((mut connection, welcome)) => {
                    let joined = JoinedRoom { room: id, members: HashMap::new(), dedup: &dedup_room };
                    let welcomed = (&destination, welcome);
                    let sender = &progress_sender;
                    let ended = joined.run(welcomed, &mut connection, sender, queued, &events).await;
                    (ended, Some(connection))
                }
                Err(ended) => (ended, None),
            };
            drop(dedup_room);
            // Nobody listens any more when the explorer is gone.
            let _ = events.send(Event::RoomLeft { room: id, reason: ended.clone() }).await;
            let left = ended == Disconnect::Left;
            let _ = progress_sender.send(RoomProgress::Ended(ended)).await;
            if let Some(connection) = connection.filter(|_| left) {
                connection.close().await;
            }
        });
        Self { id, outgoing, progress, entered: false, send_mode: SendMode::AfterWelcome }
    }

    /// The same, but messages that are sent before the welcome are queued for it.
    pub(crate) fn queue_until_welcome(self) -> Self {
        Self { send_mode: SendMode::QueueUntilWelcome, ..self }
    }

    /// The same, but it sends no more messages.
    pub(crate) fn without_sending(self) -> Self {
        Self { send_mode: SendMode::Never, ..self }
    }

    /// What becomes of it next. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> RoomProgress {
        let progress = self.progress.recv().await.unwrap_or(RoomProgress::Ended(Disconnect::Left));
        self.entered |= matches!(progress, RoomProgress::Entered);
        progress
    }

    /// Whether the room has welcomed the explorer.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered
    }

    /// Says something, and gives where; `None` if the room has not been entered, or does not keep
    /// up.
    pub(crate) fn send(&self, say: &OutgoingMessage) -> Option<RoomId> {
        let may_send = match self.send_mode {
            SendMode::QueueUntilWelcome => true,
            SendMode::AfterWelcome => self.entered,
            SendMode::Never => false,
        };
        (may_send && self.outgoing.try_send(say.clone()).is_ok()).then_some(self.id)
    }
}

/// A stay that came about.
struct JoinedRoom<'a> {
    room: RoomId,
    members: HashMap<u32, Address>,
    dedup: &'a DedupRoom,
}

impl JoinedRoom<'_> {
    /// From the welcome to the end.
    async fn run(
        mut self,
        (destination, welcome): (&Destination, WsWelcome),
        connection: &mut Connection,
        progress: &mpsc::Sender<RoomProgress>,
        mut queued: mpsc::Receiver<OutgoingMessage>,
        events: &mpsc::Sender<Event>,
    ) -> Disconnect {
        // Whoever hears of it may have something to say at once.
        let _ = progress.send(RoomProgress::Entered).await;
        if events.send(self.room_entered(destination, welcome)).await.is_err() {
            return Disconnect::Left;
        }
        let mut left = pin!(async {
            progress.closed().await;
            // What waits to be said has a moment.
            sleep(CLOSE_TIMEOUT).await;
        });
        loop {
            let packet = tokio::select! {
                packet = connection.next_message(|cx| queued.poll_recv(cx).map(|say| Some(encode(say?)))) => packet,
                () = &mut left => Err(Disconnect::Left),
            };
            let packet = packet.and_then(|packet| WsPacket::decode(packet).map_err(Disconnect::broken));
            let event = match packet {
                Ok(packet) => packet.message.and_then(|message| self.room_event(message)),
                Err(ended) => return ended,
            };
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return Disconnect::Left;
            }
        }
    }

    fn room_entered(&mut self, destination: &Destination, welcome: WsWelcome) -> Event {
        let identities = welcome.peer_identities.into_iter();
        let members: BTreeMap<u32, Address> =
            identities.filter_map(|(alias, address)| Some((alias, address.parse().ok()?))).collect();
        self.members = members.iter().map(|(&alias, &address)| (alias, address)).collect();
        let Destination { island, public_url, .. } = destination;
        let (island, url) = (island.clone(), public_url.clone());
        Event::RoomEntered { room: self.room, island, url, alias: welcome.alias, members }
    }

    fn room_event(&mut self, message: Message) -> Option<Event> {
        let room = self.room;
        match message {
            Message::PeerUpdateMessage(WsPeerUpdate { from_alias: alias, body, .. }) => {
                let sender = self.members.get(&alias).copied();
                let duplicate =
                    sender.is_some_and(|sender| self.dedup.is_duplicate(sender, &body, Instant::now()));
                Some(match duplicate {
                    false => Event::Message { room, alias, sender, body },
                    true => Event::Duplicate { room, alias, body },
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

fn encode(OutgoingMessage { body, unreliable }: OutgoingMessage) -> Bytes {
    let update = WsPeerUpdate { from_alias: 0, body, unreliable };
    WsPacket { message: Some(Message::PeerUpdateMessage(update)) }.encode_to_vec().into()
}

async fn enter(destination: &Destination) -> Result<(Connection, WsWelcome), Disconnect> {
    let Destination { url, identity, options: opening, .. } = destination;
    let mut connection = Connection::open(url, "rfc5, rfc4", *opening).await?;
    let handshake = async {
        let identification = WsIdentification { address: identity.address().to_string() };
        let mut request = Message::PeerIdentification(identification);
        loop {
            let mut answer: WsPacket = connection.request(&WsPacket { message: Some(request) }).await?;
            // The close frame that follows says more.
            while let Some(Message::PeerKicked(_)) = answer.message {
                answer = connection.next().await?;
            }
            request = match answer.message {
                Some(Message::WelcomeMessage(welcome)) => return Ok(welcome),
                // Without a token, a room wants a signature.
                Some(Message::ChallengeMessage(challenge)) => {
                    check_challenge(&challenge.challenge_to_sign)?;
                    let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
                    Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })
                }
                _ => return Err(Disconnect::broken("no welcome from the room")),
            }
        }
    };
    match timeout(opening.timeout, handshake).await {
        Ok(Ok(welcome)) => Ok((connection, welcome)),
        Ok(Err(ended)) => Err(ended),
        Err(_) => Err(Disconnect::broken("the room did not answer in time")),
    }
}
