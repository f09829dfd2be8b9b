//! The connection to a WebSocket room. Each connection is a task of its own.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    task::Context,
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
    sign_in::check_challenge,
};

/// A message to send in a room.
#[derive(Debug, Clone)]
pub(crate) struct OutgoingMessage {
    pub(crate) body: Bytes,
    pub(crate) unreliable: bool,
}

/// A connection to a room, or the attempt at one. Dropping it leaves the room.
#[derive(Debug)]
pub(crate) struct RoomConnection {
    id: RoomId,
    outgoing: mpsc::Sender<OutgoingMessage>,
    progress: mpsc::Receiver<RoomProgress>,
    entered: bool,
    send_mode: SendMode,
}

/// The time from which messages may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendMode {
    /// From the beginning: messages are queued until the welcome.
    QueueUntilWelcome,
    /// After the welcome: earlier messages are not sent in this room.
    AfterWelcome,
    /// Never: messages are not sent in this room any more.
    Never,
}

/// The progress of a connection.
#[derive(Debug)]
pub(crate) enum RoomProgress {
    /// The room has admitted the client.
    Entered,
    /// The connection has ended, or could not be established.
    Ended(Disconnect),
}

/// The capacity of the queue of outgoing messages. When it is full, the newest message is dropped.
const OUTGOING_QUEUE: usize = 256;

/// The room to enter, and the identity to enter it with.
pub(crate) struct Destination {
    /// The URL with the token.
    pub(crate) url: String,
    /// The URL without the token.
    pub(crate) public_url: String,
    pub(crate) island: IslandId,
    /// The identity of the client, which signs a challenge if there is no token.
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
        // The task reports at most one `Entered` and one `Ended`.
        let (progress_sender, progress) = mpsc::channel(2);
        tokio::spawn(async move {
            let (reason, connection) = match enter(&destination).await {
                Ok((mut connection, welcome)) => {
                    let joined = JoinedRoom { room: id, members: HashMap::new(), dedup: &dedup_room };
                    let welcomed = (&destination, welcome);
                    let sender = &progress_sender;
                    let reason = joined.run(welcomed, &mut connection, sender, queued, &events).await;
                    (reason, Some(connection))
                }
                Err(reason) => (reason, None),
            };
            drop(dedup_room);
            // Sending fails if the client was dropped.
            let _ = events.send(Event::RoomLeft { room: id, reason: reason.clone() }).await;
            let left = reason == Disconnect::Left;
            let _ = progress_sender.send(RoomProgress::Ended(reason)).await;
            if let Some(connection) = connection.filter(|_| left) {
                connection.close().await;
            }
        });
        Self { id, outgoing, progress, entered: false, send_mode: SendMode::AfterWelcome }
    }

    /// The same connection, which queues messages until the welcome instead of discarding them.
    pub(crate) fn queue_until_welcome(self) -> Self {
        Self { send_mode: SendMode::QueueUntilWelcome, ..self }
    }

    /// The same connection, which sends no more messages.
    pub(crate) fn without_sending(self) -> Self {
        Self { send_mode: SendMode::Never, ..self }
    }

    /// The next progress. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> RoomProgress {
        let progress = self.progress.recv().await.unwrap_or(RoomProgress::Ended(Disconnect::Left));
        self.entered |= matches!(progress, RoomProgress::Entered);
        progress
    }

    /// Whether the room has admitted the client.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered
    }

    /// Sends a message, and returns the id of this connection; `None` if the room has not admitted the
    /// client, or if the queue is full.
    pub(crate) fn send(&self, message: &OutgoingMessage) -> Option<RoomId> {
        let may_send = match self.send_mode {
            SendMode::QueueUntilWelcome => true,
            SendMode::AfterWelcome => self.entered,
            SendMode::Never => false,
        };
        (may_send && self.outgoing.try_send(message.clone()).is_ok()).then_some(self.id)
    }
}

/// A connection after the welcome.
struct JoinedRoom<'a> {
    room: RoomId,
    members: HashMap<u32, Address>,
    dedup: &'a DedupRoom,
}

impl JoinedRoom<'_> {
    /// Runs the connection from the welcome to its end.
    async fn run(
        mut self,
        (destination, welcome): (&Destination, WsWelcome),
        connection: &mut Connection,
        progress: &mpsc::Sender<RoomProgress>,
        mut queued: mpsc::Receiver<OutgoingMessage>,
        events: &mpsc::Sender<Event>,
    ) -> Disconnect {
        // Sent before the event, so that a message in response to the event is accepted.
        let _ = progress.send(RoomProgress::Entered).await;
        if events.send(self.room_entered(destination, welcome)).await.is_err() {
            return Disconnect::Left;
        }
        let mut left = pin!(async {
            progress.closed().await;
            // Queued messages have this time to be sent.
            sleep(CLOSE_TIMEOUT).await;
        });
        loop {
            let outgoing = |cx: &mut Context<'_>| queued.poll_recv(cx).map(|next| Some(encode(next?)));
            let packet = tokio::select! {
                packet = connection.next_message(outgoing) => packet,
                () = &mut left => Err(Disconnect::Left),
            };
            let packet = packet.and_then(|packet| WsPacket::decode(packet).map_err(Disconnect::broken));
            let event = match packet {
                Ok(packet) => packet.message.and_then(|message| self.room_event(message)),
                Err(reason) => return reason,
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
            // A close frame with the reason follows a kick.
            _ => None,
        }
    }
}

fn encode(OutgoingMessage { body, unreliable }: OutgoingMessage) -> Bytes {
    let update = WsPeerUpdate { from_alias: 0, body, unreliable };
    WsPacket { message: Some(Message::PeerUpdateMessage(update)) }.encode_to_vec().into()
}

async fn enter(destination: &Destination) -> Result<(Connection, WsWelcome), Disconnect> {
    let Destination { url, identity, options, .. } = destination;
    let mut connection = Connection::open(url, "rfc5, rfc4", *options).await?;
    let handshake = async {
        let identification = WsIdentification { address: identity.address().to_string() };
        let mut request = Message::PeerIdentification(identification);
        loop {
            let mut answer: WsPacket = connection.request(&WsPacket { message: Some(request) }).await?;
            // The close frame that follows a kick has the reason.
            while let Some(Message::PeerKicked(_)) = answer.message {
                answer = connection.next().await?;
            }
            request = match answer.message {
                Some(Message::WelcomeMessage(welcome)) => return Ok(welcome),
                // A room requests a signature if the URL has no token.
                Some(Message::ChallengeMessage(challenge)) => {
                    check_challenge(&challenge.challenge_to_sign)?;
                    let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
                    Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })
                }
                _ => return Err(Disconnect::broken("no welcome from the room")),
            }
        }
    };
    match timeout(options.timeout, handshake).await {
        Ok(Ok(welcome)) => Ok((connection, welcome)),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(Disconnect::broken("the room did not answer in time")),
    }
}
