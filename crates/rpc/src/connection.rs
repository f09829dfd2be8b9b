use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::dcl_rpc::{Request, StreamMessage};

use crate::{
    ErrorCode, Module, Undecodable,
    frame::{self, ClientMessage},
};

/// How much of everything one connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ports.
    pub ports: usize,
    /// Calls that are not answered yet and streams that have not ended, together.
    pub calls: usize,
}

/// What a client did.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// It calls a procedure: answer it by its number.
    Called {
        /// The number of the call.
        number: u32,
        /// The procedure.
        procedure: P,
        /// Its argument, encoded.
        payload: Bytes,
    },
    /// It wants no more of this stream, or of this answer.
    Ended {
        /// The number of the call.
        number: u32,
    },
}

/// What a message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// The acknowledgement of an element that was sent: there are as many of them as of those.
    Acknowledged,
    /// Anything else: what a client can send without end.
    Other,
}

/// One client's ports, calls and streams. The contract stands in the crate's documentation.
#[derive(Debug)]
pub struct Connection<P: 'static> {
    limits: Limits,
    modules: Vec<&'static Module<P>>,
    /// What each port has loaded, in that order: procedures are counted through.
    ports: HashMap<u32, Vec<&'static Module<P>>>,
    last_port: u32,
    calls: HashMap<u32, Call>,
    events: VecDeque<Event<P>>,
    output: VecDeque<Bytes>,
}

#[derive(Debug)]
struct Call {
    port: u32,
    /// `None`: not answered yet.
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    /// Of the last element; the offer is 0.
    sequence: u32,
    /// Whether the client has asked for the next element.
    element_requested: bool,
}

impl<P: Copy> Connection<P> {
    /// A connection that has just been opened, with these modules on offer.
    pub fn new(limits: Limits, modules: impl IntoIterator<Item = &'static Module<P>>) -> Self {
        Self {
            limits,
            modules: modules.into_iter().collect(),
            ports: HashMap::new(),
            last_port: 0,
            calls: HashMap::new(),
            events: VecDeque::new(),
            output: VecDeque::from([frame::server_ready()]),
        }
    }

    /// Puts more modules on offer.
    pub fn offer(&mut self, modules: impl IntoIterator<Item = &'static Module<P>>) {
        self.modules.extend(modules);
    }

    /// Takes in a message.
    pub fn receive(&mut self, bytes: &Bytes) -> Result<MessageKind, Undecodable> {
        let (number, message) = frame::decode_client_message(bytes)?;
        let result = match message {
            ClientMessage::CreatePort => self.create_port(number),
            ClientMessage::RequestModule { port, module } => self.load_module(number, port, &module),
            ClientMessage::DestroyPort { port } => self.destroy_port(port),
            ClientMessage::Request(request) => self.call(number, request),
            ClientMessage::Stream(message) => match self.handle_stream_message(number, &message) {
                Ok(taken) => return Ok(taken),
                Err(refusal) => Err(refusal),
            },
            ClientMessage::Error => Ok(()),
            ClientMessage::Undecodable => Err((ErrorCode::BadPayload, "undecodable message")),
            ClientMessage::Unexpected => Err((ErrorCode::Unexpected, "not a message for a server")),
        };
        if let Err((code, message)) = result {
            self.output.push_back(frame::error(number, code, message));
        }
        Ok(MessageKind::Other)
    }

    /// The next thing that the client did.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// The next message to write.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Answers a call. Without effect if nobody waits for it any more.
    pub fn respond(&mut self, number: u32, payload: Bytes) {
        if self.calls.get(&number).is_some_and(|call| call.stream.is_none()) {
            self.calls.remove(&number);
            self.output.push_back(frame::response(number, payload));
        }
    }

    /// Answers a call, or ends a stream, with an error.
    pub fn refuse(&mut self, number: u32, code: ErrorCode, message: &str) {
        if self.calls.remove(&number).is_some() {
            self.output.push_back(frame::error(number, code, message));
        }
    }

    /// Answers a call with a stream, which is offered to the client.
    pub fn open_stream(&mut self, number: u32) {
        if let Some(call) = self.calls.get_mut(&number)
            && call.stream.is_none()
        {
            call.stream = Some(Stream { sequence: 0, element_requested: false });
            self.output.push_back(frame::element(number, call.port, 0, Bytes::new()));
        }
    }

    /// The streams of which the client wants the next element.
    pub fn requested_streams(&self) -> impl Iterator<Item = u32> {
        let wanted = |call: &Call| call.stream.as_ref().is_some_and(|stream| stream.element_requested);
        self.calls.iter().filter(move |(_, call)| wanted(call)).map(|(&number, _)| number)
    }

    /// Sends the next element of a stream. Without effect unless it is wanted.
    pub fn send_element(&mut self, number: u32, payload: Bytes) {
        if let Some(Call { port, stream: Some(stream) }) = self.calls.get_mut(&number)
            && stream.element_requested
        {
            stream.element_requested = false;
            stream.sequence = stream.sequence.wrapping_add(1);
            self.output.push_back(frame::element(number, *port, stream.sequence, payload));
        }
    }

    /// Ends a stream.
    pub fn end_stream(&mut self, number: u32) {
        if let Some(Call { port, stream: Some(stream) }) = self.calls.get(&number) {
            self.output.push_back(frame::stream_end(number, *port, stream.sequence));
            self.calls.remove(&number);
        }
    }

    fn create_port(&mut self, number: u32) -> Result<(), Rejection> {
        if self.ports.len() >= self.limits.ports {
            return Err((ErrorCode::LimitReached, "too many ports"));
        }
        loop {
            self.last_port = self.last_port.wrapping_add(1).max(1);
            if !self.ports.contains_key(&self.last_port) {
                break;
            }
        }
        self.ports.insert(self.last_port, Vec::new());
        self.output.push_back(frame::port_created(number, self.last_port));
        Ok(())
    }

    fn load_module(&mut self, number: u32, port: u32, name: &str) -> Result<(), Rejection> {
        let loaded = self.ports.get_mut(&port).ok_or(UNKNOWN_PORT)?;
        let module = self.modules.iter().copied().find(|module| module.name == name);
        let module = module.ok_or((ErrorCode::UnknownModule, "unknown module"))?;
        if !loaded.iter().any(|loaded| loaded.name == name) {
            loaded.push(module);
        }
        let before = loaded.iter().take_while(|loaded| loaded.name != name);
        let first = 1 + before.map(|loaded| loaded.procedures.len() as u32).sum::<u32>();
        let names = module.procedures.iter().map(|procedure| procedure.name);
        self.output.push_back(frame::module_loaded(number, port, first, names));
        Ok(())
    }

    fn destroy_port(&mut self, port: u32) -> Result<(), Rejection> {
        self.ports.remove(&port).ok_or(UNKNOWN_PORT)?;
        let removed = self.calls.extract_if(|_, call| call.port == port);
        for (number, call) in removed {
            self.output.push_back(match call.stream {
                Some(stream) => frame::stream_end(number, port, stream.sequence),
                None => frame::error(number, ErrorCode::UnknownPort, "the port was destroyed"),
            });
            self.events.push_back(Event::Ended { number });
        }
        Ok(())
    }

    fn call(&mut self, number: u32, request: Request) -> Result<(), Rejection> {
        let port = request.port_id;
        let loaded = self.ports.get(&port).ok_or(UNKNOWN_PORT)?;
        let mut procedures = loaded.iter().flat_map(|module| module.procedures);
        let index = request.procedure_id.checked_sub(1);
        let procedure = index.and_then(|index| procedures.nth(index as usize));
        let procedure = procedure.ok_or((ErrorCode::UnknownProcedure, "unknown procedure"))?.id;
        if request.client_stream != 0 {
            return Err((ErrorCode::BadPayload, "no procedure takes a stream"));
        }
        if self.calls.contains_key(&number) {
            return Err((ErrorCode::Unexpected, "a call of this number is open"));
        }
        if self.calls.len() >= self.limits.calls {
            return Err((ErrorCode::LimitReached, "too many open calls"));
        }
        self.calls.insert(number, Call { port, stream: None });
        self.events.push_back(Event::Called { number, procedure, payload: request.payload });
        Ok(())
    }

    fn handle_stream_message(
        &mut self,
        number: u32,
        message: &StreamMessage,
    ) -> Result<MessageKind, Rejection> {
        if !message.closed && !message.ack {
            return Err((ErrorCode::Unexpected, "no stream of the client is open"));
        }
        // Of a stream that ended meanwhile nothing is left to say.
        let Some(Call { stream: Some(stream), .. }) = self.calls.get_mut(&number) else {
            return Ok(MessageKind::Other);
        };
        if message.closed {
            self.calls.remove(&number);
            self.events.push_back(Event::Ended { number });
        } else if message.sequence_id == stream.sequence && !stream.element_requested {
            stream.element_requested = true;
            return Ok(MessageKind::Acknowledged);
        }
        Ok(MessageKind::Other)
    }
}

/// Why something is not done.
type Rejection = (ErrorCode, &'static str);

const UNKNOWN_PORT: Rejection = (ErrorCode::UnknownPort, "unknown port");

#[cfg(test)]
mod tests;
