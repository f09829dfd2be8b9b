//! What one client has asked for over RPC, and what it is still owed. Sans-IO.

use std::collections::HashMap;

use bytes::Bytes;
use protocol::{
    Address, DecodeError, Message,
    bff::{
        DisconnectionMessage, DisconnectionReason, SetCommsAdapter, WelcomePeerInformation, WorldCommand,
        world_command,
    },
    v3::{Heartbeat, IslandChangedMessage},
};
use rpc::{Backlog, Connection, ErrorCode, Event, Limits, Taken, Undecodable};

use super::services::{AUTHENTICATION, Call, SIGNED_IN};

/// What a client may have open at a time: far above what any in the field has.
const LIMITS: Limits = Limits { ports: 16, calls: 256 };

/// One client's side of the counter.
#[derive(Debug)]
pub(crate) struct Desk {
    connection: Connection<Call>,
    /// Who wants to hear of the end of the session, by the numbers of their calls.
    farewells: Vec<u32>,
    /// The streams of commands. Of what waits in one, only the newest counts.
    commands: HashMap<u32, Backlog>,
    /// A change of island that nobody has been told, as nobody has asked yet.
    untold: Option<Bytes>,
}

/// What a signed-in client asks of others.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    /// To be heard of where it is.
    Heartbeat(Heartbeat),
}

impl Desk {
    /// The desk of a client that has just connected.
    pub(crate) fn new() -> Self {
        Self {
            connection: Connection::new(LIMITS, [&AUTHENTICATION]),
            farewells: Vec::new(),
            commands: HashMap::new(),
            untold: None,
        }
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
    pub(crate) fn welcome(&mut self, number: u32, address: Address) {
        self.connection.offer(&SIGNED_IN);
        let available_modules = SIGNED_IN.iter().map(|module| module.name.to_owned()).collect();
        self.respond(number, &WelcomePeerInformation { peer_id: address.to_string(), available_modules });
    }

    /// What a signed-in client asks next of others; what concerns only itself is done.
    pub(crate) fn poll(&mut self) -> Option<Asked> {
        loop {
            match self.connection.poll_event()? {
                Event::Called { number, procedure, payload } => {
                    if let Some(asked) = self.called(number, procedure, payload) {
                        return Some(asked);
                    }
                }
                Event::Ended { number } => {
                    self.farewells.retain(|&farewell| farewell != number);
                    self.commands.remove(&number);
                }
            }
        }
    }

    fn called(&mut self, number: u32, procedure: Call, payload: Bytes) -> Option<Asked> {
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
            Call::GetCommsCommands => {
                let mut commands = Backlog::new(1);
                if let Some(change) = self.untold.take() {
                    commands.replace(change);
                }
                self.commands.insert(number, commands);
                self.connection.open_stream(number);
            }
        }
        None
    }

    /// The client is on another island, or another connection: an encoded `IslandChangedMessage`.
    pub(crate) fn island_changed(&mut self, change: &Bytes) {
        if self.commands.is_empty() {
            self.untold = Some(change.clone());
        }
        self.commands.values_mut().for_each(|commands| commands.replace(change.clone()));
    }

    /// Sends what waits on the streams of which more is wanted.
    pub(crate) fn serve_streams(&mut self) {
        let wanted: Vec<u32> = self.connection.wanted().collect();
        for number in wanted {
            if let Some(element) = self.commands.get_mut(&number).and_then(Backlog::pop) {
                self.connection.element(number, command(&element.payload));
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

/// A change of island as the command that it means to a client.
fn command(change: &Bytes) -> Bytes {
    // The director encoded it. If it were anything else, an empty command would change nothing.
    let change = IslandChangedMessage::decode(&change[..]).unwrap_or_default();
    let adapter = SetCommsAdapter { connection_string: change.conn_str };
    let command = Some(world_command::Command::SetCommsAdapter(adapter));
    WorldCommand { command }.encode_to_vec().into()
}
