//! The client's side of one connection: calls and streams over one port. Sans-IO.
//!
//! A [`Caller`] says hello by itself: it waits for the server, creates its port, and loads a module
//! when a procedure of it is called first; calls made before that wait. What the server says goes
//! into [`Caller::receive`], what became of the calls comes out of [`Caller::poll_event`], and what
//! has to be written out of [`Caller::poll_output`]. Take all of both before the next message goes
//! in, and nothing grows.
//!
//! A call ends with an answer or an error. Or it becomes a stream, whose elements come one at a time,
//! each when it is asked for ([`Caller::request_next`]), until one of both sides ends it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::dcl_rpc::{ModuleProcedure, RemoteError, StreamMessage};

use crate::{
    Undecodable,
    frame::{self, ServerMessage},
};

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is answered, and over.
    Answered {
        /// The number of the call.
        number: u32,
        /// The answer, encoded.
        payload: Bytes,
    },
    /// It is answered with an error, or its stream ended with one, and it is over.
    Failed {
        /// The number of the call.
        number: u32,
        /// What the server says.
        error: CallError,
    },
    /// It is answered with a stream, which waits for [`Caller::request_next`].
    Opened {
        /// The number of the call.
        number: u32,
    },
    /// The element that was wanted.
    Element {
        /// The number of the call.
        number: u32,
        /// What it says.
        payload: Bytes,
    },
    /// The server ended the stream, and the call is over.
    Ended {
        /// The number of the call.
        number: u32,
    },
}

/// An error that a server answers with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code})")]
pub struct CallError {
    /// What kind of error; [`crate::ErrorCode`] for servers of this project.
    pub code: u32,
    /// In words.
    pub message: String,
}

/// What no server says: the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// A message without so much as an identifier.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// A message that does not decode, or that only clients say.
    #[error("not a message of a server of dcl-rpc")]
    NotAServerMessage,
    /// An answer to something that was not asked like this.
    #[error("an answer of another kind than the question")]
    MismatchedResponse,
    /// An element that nobody asked for, or out of order.
    #[error("an element of a stream that was not asked for")]
    UnrequestedElement,
}

/// As many calls are open as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many open calls")]
pub struct TooManyCalls;

/// One connection's calls and streams. The contract stands in the module's documentation.
#[derive(Debug)]
pub struct Caller {
    max_calls: usize,
    port: PortState,
    modules: HashMap<&'static str, ModuleState>,
    /// What the server owes an answer, by number.
    pending: HashMap<u32, Pending>,
    /// How many of those are calls.
    calls: usize,
    last_number: u32,
    events: VecDeque<Event>,
    output: VecDeque<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortState {
    /// The server has not said that it is ready, or not answered.
    Awaited,
    Open(u32),
}

#[derive(Debug)]
enum ModuleState {
    /// Once there is a port it is asked for.
    Wanted,
    Requested,
    /// The ids of its procedures.
    Loaded(HashMap<String, u32>),
}

#[derive(Debug)]
enum Pending {
    Port,
    Module(&'static str),
    Call(Call),
}

#[derive(Debug)]
struct Call {
    module: &'static str,
    procedure: &'static str,
    state: CallState,
    /// Nobody waits for its answer any more.
    cancelled: bool,
}

#[derive(Debug)]
enum CallState {
    /// Until its module is loaded.
    AwaitingModule(Bytes),
    /// Not answered yet.
    Sent,
    /// Its last element had this number; whether the next is wanted.
    Streaming { sequence: u32, requested: bool },
}

/// Servers do not care how a client calls its port.
const PORT_NAME: &str = "client";
/// What an error of this side is told as; servers use small numbers.
const NO_PROCEDURE: u32 = crate::ErrorCode::UnknownProcedure as u32;

impl Caller {
    /// A connection that has just been opened, for at most so many calls at a time.
    pub fn new(max_calls: usize) -> Self {
        Self {
            max_calls,
            port: PortState::Awaited,
            modules: HashMap::new(),
            pending: HashMap::new(),
            calls: 0,
            last_number: 0,
            events: VecDeque::new(),
            output: VecDeque::new(),
        }
    }

    /// Calls a procedure of a module; what becomes of it is told under the number that this gives.
    pub fn call(
        &mut self,
        module: &'static str,
        procedure: &'static str,
        payload: Bytes,
    ) -> Result<u32, TooManyCalls> {
        if self.calls >= self.max_calls {
            return Err(TooManyCalls);
        }
        let number = self.next_number();
        let call = Call { module, procedure, state: CallState::AwaitingModule(payload), cancelled: false };
        self.pending.insert(number, Pending::Call(call));
        self.calls += 1;
        match self.modules.entry(module).or_insert(ModuleState::Wanted) {
            ModuleState::Loaded(_) => self.send_request(number),
            ModuleState::Wanted => self.load_wanted(),
            ModuleState::Requested => {}
        }
        Ok(number)
    }

    /// Asks for the next element of a stream. Without effect if there is no such stream, or its next
    /// element was asked for already.
    pub fn request_next(&mut self, number: u32) {
        let PortState::Open(port) = self.port else { return };
        if let Some(CallState::Streaming { sequence, requested: wanted }) = self.call_state(number)
            && !*wanted
        {
            *wanted = true;
            let acknowledgement = frame::acknowledgement(number, port, *sequence);
            self.output.push_back(acknowledgement);
        }
    }

    /// Ends a stream, or forgets a call: nothing more is told of it.
    pub fn cancel(&mut self, number: u32) {
        let Some(Pending::Call(call)) = self.pending.get_mut(&number) else { return };
        match call.state {
            CallState::AwaitingModule(_) => self.remove(number),
            CallState::Sent => call.cancelled = true,
            CallState::Streaming { .. } => self.end_stream(number),
        }
    }

    /// Takes in a message.
    pub fn receive(&mut self, bytes: &Bytes) -> Result<(), ProtocolViolation> {
        let (number, message) = frame::decode_server_message(bytes)?;
        match message {
            ServerMessage::Ready => self.create_port(),
            ServerMessage::PortCreated { port } => match self.pending.remove(&number) {
                Some(Pending::Port) => {
                    self.port = PortState::Open(port);
                    self.load_wanted();
                }
                _ => return Err(ProtocolViolation::MismatchedResponse),
            },
            ServerMessage::ModuleLoaded { procedures } => match self.pending.remove(&number) {
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

    /// The next thing that became of a call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next message to write.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    fn next_number(&mut self) -> u32 {
        loop {
            // 0 is what a server says of nothing in particular.
            self.last_number = if self.last_number >= frame::MAX_NUMBER { 1 } else { self.last_number + 1 };
            if !self.pending.contains_key(&self.last_number) {
                return self.last_number;
            }
        }
    }

    fn create_port(&mut self) {
        let requested = self.pending.values().any(|open| matches!(open, Pending::Port));
        if self.port == PortState::Awaited && !requested {
            let number = self.next_number();
            self.pending.insert(number, Pending::Port);
            self.output.push_back(frame::create_port(number, PORT_NAME));
        }
    }

    /// Asks for modules that are wanted, if there is a port to ask on.
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
            let number = self.next_number();
            self.pending.insert(number, Pending::Module(name));
            self.output.push_back(frame::request_module(number, port, name));
        }
    }

    fn module_loaded(&mut self, module: &'static str, procedures: Vec<ModuleProcedure>) {
        let ids = procedures.into_iter().map(|procedure| (procedure.procedure_name, procedure.procedure_id));
        self.modules.insert(module, ModuleState::Loaded(ids.collect()));
        for number in self.waiting_for(module) {
            self.send_request(number);
        }
    }

    /// The calls that wait for a module, in the order in which they were made.
    fn waiting_for(&self, module: &str) -> Vec<u32> {
        let waits = |open: &Pending| {
            matches!(open, Pending::Call(call)
                if call.module == module && matches!(call.state, CallState::AwaitingModule(_)))
        };
        let waiting = self.pending.iter().filter(|(_, open)| waits(open)).map(|(&number, _)| number);
        let mut waiting: Vec<u32> = waiting.collect();
        waiting.sort_unstable();
        waiting
    }

    /// Makes a call whose module is loaded.
    fn send_request(&mut self, number: u32) {
        let (PortState::Open(port), Some(Pending::Call(call))) = (self.port, self.pending.get_mut(&number))
        else {
            return;
        };
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
        let Some(open) = self.pending.get(&number) else { return Ok(()) };
        let Pending::Call(Call { state: CallState::Sent, cancelled: abandoned, .. }) = open else {
            return Err(ProtocolViolation::MismatchedResponse);
        };
        if !abandoned {
            self.events.push_back(Event::Answered { number, payload });
        }
        self.remove(number);
        Ok(())
    }

    fn handle_stream_message(
        &mut self,
        number: u32,
        message: StreamMessage,
    ) -> Result<(), ProtocolViolation> {
        // Of a stream that was ended meanwhile, elements may be under way.
        let Some(open) = self.pending.get_mut(&number) else { return Ok(()) };
        let Pending::Call(call) = open else { return Err(ProtocolViolation::MismatchedResponse) };
        let abandoned = call.cancelled;
        match &mut call.state {
            CallState::AwaitingModule(_) => return Err(ProtocolViolation::MismatchedResponse),
            _ if message.closed => {
                if !abandoned {
                    self.events.push_back(Event::Ended { number });
                }
                self.remove(number);
            }
            CallState::Sent if message.sequence_id != 0 => return Err(ProtocolViolation::UnrequestedElement),
            progress @ CallState::Sent => {
                *progress = CallState::Streaming { sequence: 0, requested: false };
                match abandoned {
                    false => self.events.push_back(Event::Opened { number }),
                    true => self.end_stream(number),
                }
            }
            CallState::Streaming { sequence, requested: wanted } => {
                if !*wanted || message.sequence_id != sequence.wrapping_add(1) {
                    return Err(ProtocolViolation::UnrequestedElement);
                }
                (*sequence, *wanted) = (message.sequence_id, false);
                self.events.push_back(Event::Element { number, payload: message.payload });
            }
        }
        Ok(())
    }

    fn handle_error(&mut self, number: u32, error: RemoteError) {
        let refusal = CallError { code: error.error_code, message: error.error_message };
        match self.pending.get(&number) {
            // Without a port there is nothing to call on.
            Some(Pending::Port) => {
                self.pending.remove(&number);
                let mut calls: Vec<u32> = self.pending.keys().copied().collect();
                calls.sort_unstable();
                calls.into_iter().for_each(|call| self.fail(call, refusal.clone()));
                self.modules.clear();
            }
            Some(&Pending::Module(module)) => {
                self.pending.remove(&number);
                // It may be on offer later.
                self.modules.remove(module);
                for call in self.waiting_for(module) {
                    self.fail(call, refusal.clone());
                }
            }
            Some(Pending::Call(_)) => self.fail(number, refusal),
            None => {}
        }
    }

    fn fail(&mut self, number: u32, error: CallError) {
        if let Some(Pending::Call(Call { cancelled: false, .. })) = self.pending.get(&number) {
            self.events.push_back(Event::Failed { number, error });
        }
        self.remove(number);
    }

    fn call_state(&mut self, number: u32) -> Option<&mut CallState> {
        match self.pending.get_mut(&number)? {
            Pending::Call(call) => Some(&mut call.state),
            _ => None,
        }
    }

    fn end_stream(&mut self, number: u32) {
        if let (PortState::Open(port), Some(&mut CallState::Streaming { sequence, .. })) =
            (self.port, self.call_state(number))
        {
            self.output.push_back(frame::stream_end(number, port, sequence));
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(Pending::Call(_)) = self.pending.remove(&number) {
            self.calls -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
