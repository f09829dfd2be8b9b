//! Encoding and decoding of dcl-rpc messages (`protocol/dcl/rpc.proto`).

use bytes::Bytes;
use protocol::{
    Message,
    dcl_rpc::{
        CreatePort, CreatePortResponse, DestroyPort, Header, ModuleProcedure, RemoteError, Request,
        RequestModule, RequestModuleResponse, Response, StreamMessage,
    },
};

/// A message without a valid identifier. It has no number, so no error response can be addressed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of dcl-rpc")]
pub struct Undecodable;

/// The kind of an error response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// The message, or the payload of the call, does not decode.
    BadPayload = 1,
    /// There is no such port.
    UnknownPort = 2,
    /// There is no such module, or the client may not use it yet.
    UnknownModule = 3,
    /// The port has loaded no such procedure.
    UnknownProcedure = 4,
    /// A limit of the connection is reached.
    LimitReached = 5,
    /// The message is none that a client sends to a server, or does not fit the state of the connection.
    Unexpected = 6,
    /// The server refuses the request of this client.
    Refused = 7,
}

/// A message from a client.
#[derive(Debug)]
pub(crate) enum ClientMessage {
    CreatePort,
    RequestModule {
        port: u32,
        module: String,
    },
    DestroyPort {
        port: u32,
    },
    Request(Request),
    Stream(StreamMessage),
    /// An error report of the client. It needs no response.
    Error,
    Undecodable,
    Unexpected,
}

/// A message from a server.
#[derive(Debug)]
pub(crate) enum ServerMessage {
    Ready,
    PortCreated {
        port: u32,
    },
    ModuleLoaded {
        procedures: Vec<ModuleProcedure>,
    },
    Response(Bytes),
    Stream(StreamMessage),
    Error(RemoteError),
    /// The message does not decode, or is of a kind that servers do not send.
    Unexpected,
}

const REQUEST: u32 = 1;
const RESPONSE: u32 = 2;
const STREAM_MESSAGE: u32 = 3;
const STREAM_ACK: u32 = 4;
const CREATE_PORT: u32 = 5;
const CREATE_PORT_RESPONSE: u32 = 6;
const REQUEST_MODULE: u32 = 7;
const REQUEST_MODULE_RESPONSE: u32 = 8;
const REMOTE_ERROR_RESPONSE: u32 = 9;
const DESTROY_PORT: u32 = 10;
const SERVER_READY: u32 = 11;

const NUMBER_BITS: u32 = 27;
/// The greatest number of a call: 27 bits.
pub(crate) const MAX_NUMBER: u32 = (1 << NUMBER_BITS) - 1;

/// The kind of a message (the upper 5 bits of its identifier), and the number of its call (the lower 27).
fn decode_identifier(bytes: &Bytes) -> Result<(u32, u32), Undecodable> {
    let Header { message_identifier } = Header::decode(bytes.clone()).map_err(|_| Undecodable)?;
    Ok((message_identifier >> NUMBER_BITS, message_identifier & MAX_NUMBER))
}

/// The number of the call that a message of a client belongs to, and its content.
pub(crate) fn decode_client_message(bytes: &Bytes) -> Result<(u32, ClientMessage), Undecodable> {
    let (kind, number) = decode_identifier(bytes)?;
    let message = match kind {
        // The client chooses the name of the port; the server does not use it.
        CREATE_PORT => decode(bytes, |_: CreatePort| ClientMessage::CreatePort),
        REQUEST_MODULE => decode(bytes, |request: RequestModule| ClientMessage::RequestModule {
            port: request.port_id,
            module: request.module_name,
        }),
        DESTROY_PORT => {
            decode(bytes, |destroy: DestroyPort| ClientMessage::DestroyPort { port: destroy.port_id })
        }
        REQUEST => decode(bytes, ClientMessage::Request),
        STREAM_MESSAGE | STREAM_ACK => decode(bytes, ClientMessage::Stream),
        REMOTE_ERROR_RESPONSE => ClientMessage::Error,
        _ => ClientMessage::Unexpected,
    };
    Ok((number, message))
}

fn decode<M: Message + Default>(bytes: &Bytes, wrap: impl FnOnce(M) -> ClientMessage) -> ClientMessage {
    M::decode(bytes.clone()).map_or(ClientMessage::Undecodable, wrap)
}

/// The number of the call that a message of a server belongs to, and its content.
pub(crate) fn decode_server_message(bytes: &Bytes) -> Result<(u32, ServerMessage), Undecodable> {
    fn decode<M: Message + Default>(bytes: &Bytes, wrap: impl FnOnce(M) -> ServerMessage) -> ServerMessage {
        M::decode(bytes.clone()).map_or(ServerMessage::Unexpected, wrap)
    }
    let (kind, number) = decode_identifier(bytes)?;
    let message = match kind {
        SERVER_READY => ServerMessage::Ready,
        CREATE_PORT_RESPONSE => {
            decode(bytes, |created: CreatePortResponse| ServerMessage::PortCreated { port: created.port_id })
        }
        REQUEST_MODULE_RESPONSE => decode(bytes, |loaded: RequestModuleResponse| {
            ServerMessage::ModuleLoaded { procedures: loaded.procedures }
        }),
        RESPONSE => decode(bytes, |response: Response| ServerMessage::Response(response.payload)),
        STREAM_MESSAGE => decode(bytes, ServerMessage::Stream),
        REMOTE_ERROR_RESPONSE => decode(bytes, ServerMessage::Error),
        _ => ServerMessage::Unexpected,
    };
    Ok((number, message))
}

fn identifier(kind: u32, number: u32) -> u32 {
    kind << NUMBER_BITS | number
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

pub(crate) fn create_port(number: u32, name: &str) -> Bytes {
    encode(&CreatePort { message_identifier: identifier(CREATE_PORT, number), port_name: name.to_owned() })
}

pub(crate) fn request_module(number: u32, port_id: u32, name: &str) -> Bytes {
    let (message_identifier, module_name) = (identifier(REQUEST_MODULE, number), name.to_owned());
    encode(&RequestModule { message_identifier, port_id, module_name })
}

pub(crate) fn request(number: u32, port_id: u32, procedure_id: u32, payload: Bytes) -> Bytes {
    let message_identifier = identifier(REQUEST, number);
    encode(&Request { message_identifier, port_id, procedure_id, client_stream: 0, payload })
}

/// The acknowledgement of the element `sequence_id`, which requests the one after it.
pub(crate) fn acknowledgement(number: u32, port_id: u32, sequence_id: u32) -> Bytes {
    let (message_identifier, payload) = (identifier(STREAM_ACK, number), Bytes::new());
    encode(&StreamMessage { message_identifier, port_id, sequence_id, payload, closed: false, ack: true })
}

pub(crate) fn server_ready() -> Bytes {
    encode(&Header { message_identifier: identifier(SERVER_READY, 0) })
}

pub(crate) fn port_created(number: u32, port_id: u32) -> Bytes {
    encode(&CreatePortResponse { message_identifier: identifier(CREATE_PORT_RESPONSE, number), port_id })
}

/// The response to a module request: the procedures, with consecutive ids from `first`.
pub(crate) fn module_loaded(
    number: u32,
    port_id: u32,
    first: u32,
    names: impl Iterator<Item = &'static str>,
) -> Bytes {
    let procedures = (first..)
        .zip(names)
        .map(|(procedure_id, name)| ModuleProcedure { procedure_id, procedure_name: name.to_owned() });
    encode(&RequestModuleResponse {
        message_identifier: identifier(REQUEST_MODULE_RESPONSE, number),
        port_id,
        procedures: procedures.collect(),
    })
}

pub(crate) fn response(number: u32, payload: Bytes) -> Bytes {
    encode(&Response { message_identifier: identifier(RESPONSE, number), payload })
}

pub(crate) fn error(number: u32, code: ErrorCode, message: &str) -> Bytes {
    encode(&RemoteError {
        message_identifier: identifier(REMOTE_ERROR_RESPONSE, number),
        error_code: code as u32,
        error_message: message.to_owned(),
    })
}

/// The offer of a stream (sequence 0), or an element of it.
pub(crate) fn element(number: u32, port_id: u32, sequence_id: u32, payload: Bytes) -> Bytes {
    let message_identifier = identifier(STREAM_MESSAGE, number);
    encode(&StreamMessage { message_identifier, port_id, sequence_id, payload, closed: false, ack: false })
}

pub(crate) fn stream_end(number: u32, port_id: u32, sequence_id: u32) -> Bytes {
    let (message_identifier, payload) = (identifier(STREAM_MESSAGE, number), Bytes::new());
    encode(&StreamMessage { message_identifier, port_id, sequence_id, payload, closed: true, ack: false })
}
