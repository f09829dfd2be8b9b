//! The server's side of one connection.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::dcl_rpc::{Request, StreamMessage};

use crate::{
    ErrorCode, Module, Undecodable,
    frame::{self, ClientMessage},
};

/// The limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ports that are open at a time.
    pub ports: usize,
    /// Unanswered calls and open streams at a time, together.
    pub calls: usize,
}

/// An event that the server has to handle.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// The client calls a procedure. The server answers the call by its number.
    Called {
        /// The number of the call.
        number: u32,
        /// The procedure.
        procedure: P,
        /// The argument, encoded.
        payload: Bytes,
    },
    /// The client ended the stream, or destroyed the port of the call. Nothing more can be sent for this
    /// number.
    Ended {
        /// The number of the call.
        number: u32,
    },
}

/// The kind of a received message, for a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// The acknowledgement of an element. A client can send at most one for each element that it was sent.
    Acknowledged,
    /// Any other message: the number of these is not bounded by the protocol.
    Other,
}

/// The ports, calls and streams of one client. The crate documentation describes the contract.
#[derive(Debug)]
pub struct Connection<P: 'static> {
    limits: Limits,
    modules: Vec<&'static Module<P>>,
    /// The modules that each port has loaded, in the order of loading. Procedure ids count through all of
    /// them.
    ports: HashMap<u32, Vec<&'static Module<P>>>,
    last_port: u32,
    calls: HashMap<u32, Call>,
    events: VecDeque<Event<P>>,
    output: VecDeque<Bytes>,
}

#[derive(Debug)]
struct Call {
    port: u32,
    /// `None` until the call is answered with a stream.
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    /// The sequence number of the last element; 0 is the offer.
    sequence: u32,
    /// Whether the client has requested the next element.
    element_requested: bool,
}

impl<P: Copy> Connection<P> {
    /// A connection that has just been opened and offers these modules.
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

    /// Offers more modules.
    pub fn offer(&mut self, modules: impl IntoIterator<Item = &'static Module<P>>) {
        self.modules.extend(modules);
    }

    /// Processes a message of the client. A message that cannot be processed is answered with an error.
    ///
    /// # Errors
    /// [`Undecodable`] if the message has no number to which an error could be addressed.
    pub fn receive(&mut self, bytes: &Bytes) -> Result<MessageKind, Undecodable> {
        let (number, message) = frame::decode_client_message(bytes)?;
        let result = match message {
            ClientMessage::CreatePort => self.create_port(number),
            ClientMessage::RequestModule { port, module } => self.load_module(number, port, &module),
            ClientMessage::DestroyPort { port } => self.destroy_port(port),
            ClientMessage::Request(request) => self.call(number, request),
            ClientMessage::Stream(message) => match self.handle_stream_message(number, &message) {
                Ok(kind) => return Ok(kind),
                Err(rejection) => Err(rejection),
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

    /// The next event to handle.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// The next message to write.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Answers a call. Has no effect if the call was answered or has ended.
    pub fn respond(&mut self, number: u32, payload: Bytes) {
        if self.calls.get(&number).is_some_and(|call| call.stream.is_none()) {
            self.calls.remove(&number);
            self.output.push_back(frame::response(number, payload));
        }
    }

    /// Answers a call, or ends a stream, with an error. Has no effect if the call has ended.
    pub fn refuse(&mut self, number: u32, code: ErrorCode, message: &str) {
        if self.calls.remove(&number).is_some() {
            self.output.push_back(frame::error(number, code, message));
        }
    }

    /// Answers a call with a stream: offers it to the client, which then requests the first element.
    pub fn open_stream(&mut self, number: u32) {
        if let Some(call) = self.calls.get_mut(&number)
            && call.stream.is_none()
        {
            call.stream = Some(Stream { sequence: 0, element_requested: false });
            self.output.push_back(frame::element(number, call.port, 0, Bytes::new()));
        }
    }

    /// The streams for which the client has requested the next element.
    pub fn requested_streams(&self) -> impl Iterator<Item = u32> {
        let requested = |call: &Call| call.stream.as_ref().is_some_and(|stream| stream.element_requested);
        self.calls.iter().filter(move |(_, call)| requested(call)).map(|(&number, _)| number)
    }

    /// Sends the next element of a stream. Has no effect unless the client has requested it.
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
        // The stream may have ended while the message was in flight. That needs no error.
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

/// The reason for which a message is answered with an error.
type Rejection = (ErrorCode, &'static str);

const UNKNOWN_PORT: Rejection = (ErrorCode::UnknownPort, "unknown port");

#[cfg(test)]
mod tests;
