//! A test client for dcl-rpc, frame by frame.

use std::collections::{HashMap, VecDeque};

use identity::Wallet;
use protocol::{
    Message, Position,
    bff::{
        GetChallengeRequest, GetChallengeResponse, PublishToTopicRequest, PublishToTopicResult,
        SetCommsAdapter, SignedChallenge, WelcomePeerInformation, WorldCommand, world_command,
    },
    dcl_rpc::{
        CreatePort, CreatePortResponse, Header, RemoteError, Request, RequestModule, RequestModuleResponse,
        Response, StreamMessage,
    },
    v3::Heartbeat,
};

use crate::{Realm, wire::Wire};

/// The kind of message that calls a procedure.
pub const REQUEST: u32 = 1;
const RESPONSE: u32 = 2;
const STREAM_MESSAGE: u32 = 3;
/// The kind of message that requests the next element of a stream.
pub const STREAM_ACK: u32 = 4;
const CREATE_PORT: u32 = 5;
/// The kind of message that loads a module.
pub const REQUEST_MODULE: u32 = 7;
const REMOTE_ERROR_RESPONSE: u32 = 9;

/// A connection with one port.
pub struct Caller {
    /// Its socket.
    pub wire: Wire,
    /// The id of its port.
    pub port: u32,
    number: u32,
    procedures: HashMap<String, u32>,
    /// Messages that arrived while the client waited for another one.
    buffered: VecDeque<Vec<u8>>,
}

/// The identifier of a message of this kind and number.
pub fn identifier(kind: u32, number: u32) -> u32 {
    kind << 27 | number
}

fn parse_identifier(bytes: &[u8]) -> (u32, u32) {
    let identifier = Header::decode(bytes).unwrap().message_identifier;
    (identifier >> 27, identifier & 0x07ff_ffff)
}

impl Caller {
    /// Opens a connection with one port, without a sign-in.
    pub async fn open(realm: &Realm) -> Self {
        let (mut wire, chosen) = Wire::open_with_subprotocols(&format!("{}/bff/rpc", realm.ws), "bff").await;
        assert_eq!(chosen.as_deref(), Some("bff"));
        assert_eq!(wire.next().await, b"\x0d\0\0\0\x58", "SERVER_READY");
        let (procedures, others) = (HashMap::new(), VecDeque::new());
        let mut caller = Self { wire, port: 0, number: 0, procedures, buffered: others };
        let create =
            CreatePort { message_identifier: caller.next_identifier(CREATE_PORT), port_name: "test".into() };
        caller.wire.send(create.encode_to_vec()).await;
        let created = caller.next_of_call(caller.number).await;
        caller.port = CreatePortResponse::decode(&created[..]).unwrap().port_id;
        caller.load_module("BffAuthenticationService").await;
        caller
    }

    /// The identifier of a message of this kind with a new number.
    pub fn next_identifier(&mut self, kind: u32) -> u32 {
        self.number += 1;
        identifier(kind, self.number)
    }

    /// The next message of this number.
    pub async fn next_of_call(&mut self, number: u32) -> Vec<u8> {
        if let Some(index) = self.buffered.iter().position(|bytes| parse_identifier(bytes).1 == number) {
            return self.buffered.remove(index).unwrap();
        }
        loop {
            let bytes = self.wire.next().await;
            if parse_identifier(&bytes).1 == number {
                return bytes;
            }
            self.buffered.push_back(bytes);
        }
    }

    /// Loads the procedures of a module.
    pub async fn load_module(&mut self, module: &str) {
        let (message_identifier, port_id) = (self.next_identifier(REQUEST_MODULE), self.port);
        let load = RequestModule { message_identifier, port_id, module_name: module.to_owned() };
        self.wire.send(load.encode_to_vec()).await;
        let loaded = self.next_of_call(self.number).await;
        for procedure in RequestModuleResponse::decode(&loaded[..]).unwrap().procedures {
            self.procedures.insert(format!("{module}.{}", procedure.procedure_name), procedure.procedure_id);
        }
    }

    /// Calls a procedure, and returns the number of the call.
    pub async fn call(&mut self, procedure: &str, argument: &impl Message) -> u32 {
        let request = Request {
            message_identifier: self.next_identifier(REQUEST),
            port_id: self.port,
            procedure_id: self.procedures[procedure],
            client_stream: 0,
            payload: argument.encode_to_vec().into(),
        };
        self.wire.send(request.encode_to_vec()).await;
        self.number
    }

    /// The response of the call with this number.
    pub async fn response<M: Message + Default>(&mut self, number: u32) -> M {
        let bytes = self.next_of_call(number).await;
        assert_eq!(parse_identifier(&bytes).0, RESPONSE, "{:?}", RemoteError::decode(&bytes[..]));
        M::decode(Response::decode(&bytes[..]).unwrap().payload).unwrap()
    }

    /// Calls a procedure, and returns its response.
    pub async fn request<M: Message + Default>(&mut self, procedure: &str, argument: &impl Message) -> M {
        let number = self.call(procedure, argument).await;
        self.response(number).await
    }

    /// The error of the call with this number.
    pub async fn expect_error(&mut self, number: u32) -> String {
        let bytes = self.next_of_call(number).await;
        assert_eq!(parse_identifier(&bytes).0, REMOTE_ERROR_RESPONSE, "{bytes:?}");
        RemoteError::decode(&bytes[..]).unwrap().error_message
    }

    /// Calls a procedure, and returns its error.
    pub async fn call_expecting_error(&mut self, procedure: &str, argument: &impl Message) -> String {
        let number = self.call(procedure, argument).await;
        self.expect_error(number).await
    }

    /// Calls a procedure that returns a stream, and accepts the offer.
    pub async fn stream(&mut self, procedure: &str, argument: &impl Message) -> u32 {
        let number = self.call(procedure, argument).await;
        let offer = self.stream_message(number).await;
        assert_eq!((offer.sequence_id, offer.payload.len(), offer.closed), (0, 0, false));
        number
    }

    /// The next message of the stream with this number.
    pub async fn stream_message(&mut self, number: u32) -> StreamMessage {
        let bytes = self.next_of_call(number).await;
        assert_eq!(parse_identifier(&bytes).0, STREAM_MESSAGE, "{:?}", RemoteError::decode(&bytes[..]));
        StreamMessage::decode(&bytes[..]).unwrap()
    }

    /// Requests the element after this one, or ends the stream.
    pub async fn acknowledge(&mut self, number: u32, sequence_id: u32, closed: bool) {
        let kind = if closed { STREAM_MESSAGE } else { STREAM_ACK };
        let message_identifier = identifier(kind, number);
        let (port_id, payload) = (self.port, Vec::new().into());
        let ack = StreamMessage { message_identifier, port_id, sequence_id, payload, closed, ack: !closed };
        self.wire.send(ack.encode_to_vec()).await;
    }

    /// Requests the element after `sequence`, and returns it.
    pub async fn element<M: Message + Default>(&mut self, number: u32, sequence: u32) -> M {
        self.acknowledge(number, sequence, false).await;
        let message = self.stream_message(number).await;
        assert_eq!((message.sequence_id, message.closed), (sequence + 1, false));
        M::decode(message.payload).unwrap()
    }

    /// Requests a challenge.
    pub async fn challenge(&mut self, wallet: &Wallet) -> GetChallengeResponse {
        self.challenge_with(wallet, &[]).await
    }

    /// Requests a challenge, and announces these transports.
    pub async fn challenge_with(&mut self, wallet: &Wallet, transports: &[&str]) -> GetChallengeResponse {
        let transports = transports.iter().map(|&name| name.to_owned()).collect();
        let request =
            GetChallengeRequest { address: wallet.address().to_string(), transports, resume_secret: None };
        self.request("BffAuthenticationService.GetChallenge", &request).await
    }

    /// Publishes a message under a topic.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) {
        let request = PublishToTopicRequest { topic: topic.to_owned(), payload: payload.to_vec().into() };
        let published: PublishToTopicResult = self.request("TopicsService.PublishToTopic", &request).await;
        assert!(published.ok);
    }

    /// Sends a heartbeat.
    pub async fn heartbeat(&mut self, x: f32) {
        let heartbeat = Heartbeat { position: Some(Position::new(x, 0.0, 0.0).into()), desired_room: None };
        self.request::<()>("CommsDirectorService.SendHeartbeat", &heartbeat).await;
    }

    /// The next connection string on a stream of commands.
    pub async fn adapter(&mut self, commands: u32, sequence: u32) -> String {
        let command: WorldCommand = self.element(commands, sequence).await;
        let Some(world_command::Command::SetCommsAdapter(SetCommsAdapter { connection_string })) =
            command.command
        else {
            panic!("an empty command")
        };
        connection_string
    }
}

/// A connection that is signed in and has loaded every service.
pub async fn sign_in(realm: &Realm, wallet: &Wallet) -> Caller {
    sign_in_with(realm, wallet, &[]).await
}

/// The same, with these transports announced.
pub async fn sign_in_with(realm: &Realm, wallet: &Wallet, transports: &[&str]) -> Caller {
    let mut caller = Caller::open(realm).await;
    let challenge = caller.challenge_with(wallet, transports).await.challenge_to_sign;
    let signed = SignedChallenge { auth_chain_json: wallet.sign_challenge(&challenge) };
    let welcome: WelcomePeerInformation =
        caller.request("BffAuthenticationService.Authenticate", &signed).await;
    assert_eq!(welcome.peer_id, wallet.address().to_string());
    for module in welcome.available_modules {
        caller.load_module(&module).await;
    }
    caller
}
