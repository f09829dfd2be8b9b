//! The client's side of one connection: calls and streams over one port. Sans-IO.
//!
//! A [`Caller`] does the handshake by itself. It waits until the server is ready, creates its port, and loads
//! a module at the first call of one of its procedures; calls made earlier are queued. [`Caller::receive`]
//! takes the messages of the server. [`Caller::poll_event`] returns the results of the calls, and
//! [`Caller::poll_output`] the messages to write. Poll both until they are empty before the next message is
//! received; then no queue grows beyond the limits.
//!
//! A call ends with a response or an error, or it becomes a stream. A stream delivers one element at a time,
//! each after [`Caller::request_next`], until one of the two sides ends it. The crate documentation has an
//! example.

mod event;
mod pending;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::dcl_rpc::{ModuleProcedure, RemoteError, StreamMessage};

use crate::frame::{self, ServerMessage};
use pending::{Call, CallState, Pending, PendingRequests};

pub use event::{CallError, Event, ProtocolViolation, TooManyCalls};

/// The calls and streams of one connection. The module documentation describes the contract.
#[derive(Debug)]
pub struct Caller {
    max_calls: usize,
    port: PortState,
    modules: HashMap<&'static str, ModuleState>,
    pending: PendingRequests,
    events: VecDeque<Event>,
    output: VecDeque<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortState {
    /// The server has not reported that it is ready, or has not answered the request for a port.
    Awaited,
    Open(u32),
}

#[derive(Debug)]
enum ModuleState {
    /// Requested as soon as the port is open.
    Wanted,
    Requested,
    /// The ids of the procedures, by name.
    Loaded(HashMap<String, u32>),
}

/// The name of the port. Servers do not use it.
const PORT_NAME: &str = "client";
/// The code of an error that this side detects: a procedure that its module does not have.
const NO_PROCEDURE: u32 = crate::ErrorCode::UnknownProcedure as u32;

impl Caller {
    /// A connection that has just been opened, with at most `max_calls` open calls at a time.
    pub fn new(max_calls: usize) -> Self {
        Self {
            max_calls,
            port: PortState::Awaited,
            modules: HashMap::new(),
            pending: PendingRequests::default(),
            events: VecDeque::new(),
            output: VecDeque::new(),
        }
    }

    /// Calls a procedure of a module. Returns the number that the events of this call carry.
    ///
    /// # Errors
    /// [`TooManyCalls`] if `max_calls` calls are open.
    pub fn call(
        &mut self,
        module: &'static str,
        procedure: &'static str,
        payload: Bytes,
    ) -> Result<u32, TooManyCalls> {
        if self.pending.calls() >= self.max_calls {
            return Err(TooManyCalls);
        }
        let call = Call { module, procedure, state: CallState::AwaitingModule(payload), cancelled: false };
        let number = self.pending.add(Pending::Call(call));
        match self.modules.entry(module).or_insert(ModuleState::Wanted) {
            ModuleState::Loaded(_) => self.send_request(number),
            ModuleState::Wanted => self.load_wanted(),
            ModuleState::Requested => {}
        }
        Ok(number)
    }

    /// Requests the next element of a stream. Has no effect if there is no such stream, or if its next
    /// element is requested already.
    pub fn request_next(&mut self, number: u32) {
        let PortState::Open(port) = self.port else { return };
        if let Some(Call { state: CallState::Streaming { sequence, requested }, .. }) =
            self.pending.call_mut(number)
            && !*requested
        {
            *requested = true;
            self.output.push_back(frame::acknowledgement(number, port, *sequence));
        }
    }

    /// Ends a stream, or discards the response of a call. No more events carry its number.
    pub fn cancel(&mut self, number: u32) {
        let Some(call) = self.pending.call_mut(number) else { return };
        match call.state {
            CallState::AwaitingModule(_) => {
                self.pending.remove(number);
            }
            CallState::Sent => call.cancelled = true,
            CallState::Streaming { .. } => self.end_stream(number),
        }
    }

    /// Processes a message of the server.
    ///
    /// # Errors
    /// [`ProtocolViolation`] if the message does not fit the protocol; the connection must be closed then.
    pub fn receive(&mut self, bytes: &Bytes) -> Result<(), ProtocolViolation> {
        let (number, message) = frame::decode_server_message(bytes)?;
        match message {
            ServerMessage::Ready => self.create_port(),
            ServerMessage::PortCreated { port } => match self.pending.remove(number) {
                Some(Pending::Port) => {
                    self.port = PortState::Open(port);
                    self.load_wanted();
                }
                _ => return Err(ProtocolViolation::MismatchedResponse),
            },
            ServerMessage::ModuleLoaded { procedures } => match self.pending.remove(number) {
                Some(Pending::Module(module)) => self.module_loaded(module, procedures),
                _ => return Err(ProtocolViolation::MismatchedResponse),
            },
            ServerMessage::Response(payload) => return self.handle_response(number, payload),
            ServerMessage::Stream(message) => return self.handle_stream_message(number, message),
            ServerMessage::Error(error) => self.handle_error(number, error),
            ServerMessage::Unexpected => return Err(ProtocolViolation::NotAServerMessage),
        }
        Ok(())
    }

    /// The next result of a call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next message to write.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    fn create_port(&mut self) {
        if self.port == PortState::Awaited && !self.pending.has_port_request() {
            let number = self.pending.add(Pending::Port);
            self.output.push_back(frame::create_port(number, PORT_NAME));
        }
    }

    /// Requests the wanted modules, if the port is open.
    fn load_wanted(&mut self) {
        let PortState::Open(port) = self.port else { return };
        let wanted = self.modules.iter_mut().filter(|(_, module)| matches!(module, ModuleState::Wanted));
        let names: Vec<&'static str> = wanted
            .map(|(&name, module)| {
                *module = ModuleState::Requested;
                name
            })
            .collect();
        for name in names {
            let number = self.pending.add(Pending::Module(name));
            self.output.push_back(frame::request_module(number, port, name));
        }
    }

    fn module_loaded(&mut self, module: &'static str, procedures: Vec<ModuleProcedure>) {
        let ids = procedures.into_iter().map(|procedure| (procedure.procedure_name, procedure.procedure_id));
        self.modules.insert(module, ModuleState::Loaded(ids.collect()));
        for number in self.pending.waiting_for(module) {
            self.send_request(number);
        }
    }

    /// Sends a queued call of a loaded module.
    fn send_request(&mut self, number: u32) {
        let (PortState::Open(port), Some(call)) = (self.port, self.pending.call_mut(number)) else { return };
        let Some(ModuleState::Loaded(ids)) = self.modules.get(call.module) else { return };
        match (ids.get(call.procedure), std::mem::replace(&mut call.state, CallState::Sent)) {
            (Some(&id), CallState::AwaitingModule(payload)) => {
                self.output.push_back(frame::request(number, port, id, payload));
            }
            _ => {
                let message = format!("the server has no {}.{}", call.module, call.procedure);
                self.fail(number, CallError { code: NO_PROCEDURE, message });
            }
        }
    }

    fn handle_response(&mut self, number: u32, payload: Bytes) -> Result<(), ProtocolViolation> {
        let Some(pending) = self.pending.get(number) else { return Ok(()) };
        let Pending::Call(Call { state: CallState::Sent, cancelled, .. }) = pending else {
            return Err(ProtocolViolation::MismatchedResponse);
        };
        if !cancelled {
            self.events.push_back(Event::Answered { number, payload });
        }
        self.pending.remove(number);
        Ok(())
    }

    fn handle_stream_message(
        &mut self,
        number: u32,
        message: StreamMessage,
    ) -> Result<(), ProtocolViolation> {
        // Elements of a stream that this side ended may still be in flight.
        let Some(pending) = self.pending.get_mut(number) else { return Ok(()) };
        let Pending::Call(call) = pending else { return Err(ProtocolViolation::MismatchedResponse) };
        let cancelled = call.cancelled;
        match &mut call.state {
            CallState::AwaitingModule(_) => return Err(ProtocolViolation::MismatchedResponse),
            _ if message.closed => {
                if !cancelled {
                    self.events.push_back(Event::Ended { number });
                }
                self.pending.remove(number);
            }
            CallState::Sent if message.sequence_id != 0 => return Err(ProtocolViolation::UnrequestedElement),
            state @ CallState::Sent => {
                *state = CallState::Streaming { sequence: 0, requested: false };
                match cancelled {
                    false => self.events.push_back(Event::Opened { number }),
                    true => self.end_stream(number),
                }
            }
            CallState::Streaming { sequence, requested } => {
                if !*requested || message.sequence_id != sequence.wrapping_add(1) {
                    return Err(ProtocolViolation::UnrequestedElement);
                }
                (*sequence, *requested) = (message.sequence_id, false);
                self.events.push_back(Event::Element { number, payload: message.payload });
            }
        }
        Ok(())
    }

    fn handle_error(&mut self, number: u32, error: RemoteError) {
        let error = CallError { code: error.error_code, message: error.error_message };
        match self.pending.get(number) {
            // Without a port no call can be sent, so all of them fail.
            Some(Pending::Port) => {
                self.pending.remove(number);
                for call in self.pending.numbers() {
                    self.fail(call, error.clone());
                }
                self.modules.clear();
            }
            Some(&Pending::Module(module)) => {
                self.pending.remove(number);
                // The server may offer the module later: the next call requests it again.
                self.modules.remove(module);
                for call in self.pending.waiting_for(module) {
                    self.fail(call, error.clone());
                }
            }
            Some(Pending::Call(_)) => self.fail(number, error),
            None => {}
        }
    }

    fn fail(&mut self, number: u32, error: CallError) {
        if let Some(Pending::Call(Call { cancelled: false, .. })) = self.pending.get(number) {
            self.events.push_back(Event::Failed { number, error });
        }
        self.pending.remove(number);
    }

    fn end_stream(&mut self, number: u32) {
        if let (PortState::Open(port), Some(&mut Call { state: CallState::Streaming { sequence, .. }, .. })) =
            (self.port, self.pending.call_mut(number))
        {
            self.output.push_back(frame::stream_end(number, port, sequence));
            self.pending.remove(number);
        }
    }
}

#[cfg(test)]
mod tests;
