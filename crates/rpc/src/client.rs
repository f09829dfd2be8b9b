//! The client's side of one connection: calls and streams over one port. Sans-IO.
//!
//! A [`Caller`] says hello by itself: it waits for the server, creates its port, and loads a module
//! when a procedure of it is called first; calls made before that wait. What the server says goes
//! into [`Caller::receive`], what became of the calls comes out of [`Caller::poll_event`], and what
//! has to be written out of [`Caller::poll_output`]. Take all of both before the next message goes
//! in, and nothing grows.
//!
//! A call ends with an answer or an error. Or it becomes a stream, whose elements come one at a time,
//! each when it is asked for ([`Caller::want`]), until one of both sides ends it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::dcl_rpc::{ModuleProcedure, RemoteError, StreamMessage};

use crate::{
    Undecodable,
    frame::{self, Heard},
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
    Refused {
        /// The number of the call.
        number: u32,
        /// What the server says.
        error: Refusal,
    },
    /// It is answered with a stream, which waits for [`Caller::want`].
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
pub struct Refusal {
    /// What kind of error; [`crate::ErrorCode`] for servers of this project.
    pub code: u32,
    /// In words.
    pub message: String,
}

/// What no server says: the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message without so much as an identifier.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// A message that does not decode, or that only clients say.
    #[error("not a message of a server of dcl-rpc")]
    NotOfServer,
    /// An answer to something that was not asked like this.
    #[error("an answer of another kind than the question")]
    Mismatched,
    /// An element that nobody asked for, or out of order.
    #[error("an element of a stream that was not asked for")]
    Unwanted,
}

/// As many calls are open as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many open calls")]
pub struct TooManyCalls;

/// One connection's calls and streams. The contract stands in the module's documentation.
#[derive(Debug)]
pub struct Caller {
    max_calls: usize,
    port: Port,
    modules: HashMap<&'static str, Module>,
    /// What the server owes an answer, by number.
    open: HashMap<u32, Open>,
    /// How many of those are calls.
    calls: usize,
    last_number: u32,
    events: VecDeque<Event>,
    output: VecDeque<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// The server has not said that it is ready, or not answered.
    Awaited,
    Open(u32),
}

#[derive(Debug)]
enum Module {
    /// Once there is a port it is asked for.
    Wanted,
    Requested,
    /// The ids of its procedures.
    Loaded(HashMap<String, u32>),
}

#[derive(Debug)]
enum Open {
    Port,
    Module(&'static str),
    Call(Call),
}

#[derive(Debug)]
struct Call {
    module: &'static str,
    procedure: &'static str,
    progress: Progress,
    /// Nobody waits for its answer any more.
    abandoned: bool,
}

#[derive(Debug)]
enum Progress {
    /// Until its module is loaded.
    Waiting(Bytes),
    /// Not answered yet.
    Asked,
    /// Its last element had this number; whether the next is wanted.
    Streaming { sequence: u32, wanted: bool },
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
            port: Port::Awaited,
            modules: HashMap::new(),
            open: HashMap::new(),
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
        let call = Call { module, procedure, progress: Progress::Waiting(payload), abandoned: false };
        self.open.insert(number, Open::Call(call));
        self.calls += 1;
        match self.modules.entry(module).or_insert(Module::Wanted) {
            Module::Loaded(_) => self.ask(number),
            Module::Wanted => self.load_wanted(),
            Module::Requested => {}
        }
        Ok(number)
    }

    /// Asks for the next element of a stream. Without effect if there is no such stream, or its next
    /// element was asked for already.
    pub fn want(&mut self, number: u32) {
        let Port::Open(port) = self.port else { return };
        if let Some(Progress::Streaming { sequence, wanted }) = self.progress(number)
            && !*wanted
        {
            *wanted = true;
            let acknowledgement = frame::acknowledgement(number, port, *sequence);
            self.output.push_back(acknowledgement);
        }
    }

    /// Ends a stream, or forgets a call: nothing more is told of it.
    pub fn end(&mut self, number: u32) {
        let Some(Open::Call(call)) = self.open.get_mut(&number) else { return };
        match call.progress {
            Progress::Waiting(_) => self.forget(number),
            Progress::Asked => call.abandoned = true,
            Progress::Streaming { .. } => self.end_stream(number),
        }
    }

    /// Takes in a message.
    pub fn receive(&mut self, bytes: &Bytes) -> Result<(), Violation> {
        let (number, heard) = frame::hear(bytes)?;
        match heard {
            Heard::Ready => self.create_port(),
            Heard::PortCreated { port } => match self.open.remove(&number) {
                Some(Open::Port) => {
                    self.port = Port::Open(port);
                    self.load_wanted();
                }
                _ => return Err(Violation::Mismatched),
            },
            Heard::ModuleLoaded { procedures } => match self.open.remove(&number) {
                Some(Open::Module(module)) => self.loaded(module, procedures),
                _ => return Err(Violation::Mismatched),
            },
            Heard::Response(payload) => return self.answered(number, payload),
            Heard::Stream(message) => return self.streamed(number, message),
            Heard::Error(error) => self.refused(number, error),
            Heard::Unexpected => return Err(Violation::NotOfServer),
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
            if !self.open.contains_key(&self.last_number) {
                return self.last_number;
            }
        }
    }

    fn create_port(&mut self) {
        let asked = self.open.values().any(|open| matches!(open, Open::Port));
        if self.port == Port::Awaited && !asked {
            let number = self.next_number();
            self.open.insert(number, Open::Port);
            self.output.push_back(frame::create_port(number, PORT_NAME));
        }
    }

    /// Asks for modules that are wanted, if there is a port to ask on.
    fn load_wanted(&mut self) {
        let Port::Open(port) = self.port else { return };
        let wanted = self.modules.iter_mut().filter(|(_, module)| matches!(module, Module::Wanted));
        let names: Vec<&'static str> = wanted
            .map(|(&name, module)| {
                *module = Module::Requested;
                name
            })
            .collect();
        for name in names {
            let number = self.next_number();
            self.open.insert(number, Open::Module(name));
            self.output.push_back(frame::request_module(number, port, name));
        }
    }

    fn loaded(&mut self, module: &'static str, procedures: Vec<ModuleProcedure>) {
        let ids = procedures.into_iter().map(|procedure| (procedure.procedure_name, procedure.procedure_id));
        self.modules.insert(module, Module::Loaded(ids.collect()));
        for number in self.waiting_for(module) {
            self.ask(number);
        }
    }

    /// The calls that wait for a module, in the order in which they were made.
    fn waiting_for(&self, module: &str) -> Vec<u32> {
        let waits = |open: &Open| {
            matches!(open, Open::Call(call)
                if call.module == module && matches!(call.progress, Progress::Waiting(_)))
        };
        let waiting = self.open.iter().filter(|(_, open)| waits(open)).map(|(&number, _)| number);
        let mut waiting: Vec<u32> = waiting.collect();
        waiting.sort_unstable();
        waiting
    }

    /// Makes a call whose module is loaded.
    fn ask(&mut self, number: u32) {
        let (Port::Open(port), Some(Open::Call(call))) = (self.port, self.open.get_mut(&number)) else {
            return;
        };
        let Some(Module::Loaded(ids)) = self.modules.get(call.module) else { return };
        match (ids.get(call.procedure), std::mem::replace(&mut call.progress, Progress::Asked)) {
            (Some(&id), Progress::Waiting(payload)) => {
                self.output.push_back(frame::request(number, port, id, payload));
            }
            _ => {
                let message = format!("the server has no {}.{}", call.module, call.procedure);
                self.refuse(number, Refusal { code: NO_PROCEDURE, message });
            }
        }
    }

    fn answered(&mut self, number: u32, payload: Bytes) -> Result<(), Violation> {
        let Some(open) = self.open.get(&number) else { return Ok(()) };
        let Open::Call(Call { progress: Progress::Asked, abandoned, .. }) = open else {
            return Err(Violation::Mismatched);
        };
        if !abandoned {
            self.events.push_back(Event::Answered { number, payload });
        }
        self.forget(number);
        Ok(())
    }

    fn streamed(&mut self, number: u32, message: StreamMessage) -> Result<(), Violation> {
        // Of a stream that was ended meanwhile, elements may be under way.
        let Some(open) = self.open.get_mut(&number) else { return Ok(()) };
        let Open::Call(call) = open else { return Err(Violation::Mismatched) };
        let abandoned = call.abandoned;
        match &mut call.progress {
            Progress::Waiting(_) => return Err(Violation::Mismatched),
            _ if message.closed => {
                if !abandoned {
                    self.events.push_back(Event::Ended { number });
                }
                self.forget(number);
            }
            Progress::Asked if message.sequence_id != 0 => return Err(Violation::Unwanted),
            progress @ Progress::Asked => {
                *progress = Progress::Streaming { sequence: 0, wanted: false };
                match abandoned {
                    false => self.events.push_back(Event::Opened { number }),
                    true => self.end_stream(number),
                }
            }
            Progress::Streaming { sequence, wanted } => {
                if !*wanted || message.sequence_id != sequence.wrapping_add(1) {
                    return Err(Violation::Unwanted);
                }
                (*sequence, *wanted) = (message.sequence_id, false);
                self.events.push_back(Event::Element { number, payload: message.payload });
            }
        }
        Ok(())
    }

    fn refused(&mut self, number: u32, error: RemoteError) {
        let refusal = Refusal { code: error.error_code, message: error.error_message };
        match self.open.get(&number) {
            // Without a port there is nothing to call on.
            Some(Open::Port) => {
                self.open.remove(&number);
                let mut calls: Vec<u32> = self.open.keys().copied().collect();
                calls.sort_unstable();
                calls.into_iter().for_each(|call| self.refuse(call, refusal.clone()));
                self.modules.clear();
            }
            Some(&Open::Module(module)) => {
                self.open.remove(&number);
                // It may be on offer later.
                self.modules.remove(module);
                for call in self.waiting_for(module) {
                    self.refuse(call, refusal.clone());
                }
            }
            Some(Open::Call(_)) => self.refuse(number, refusal),
            None => {}
        }
    }

    fn refuse(&mut self, number: u32, error: Refusal) {
        if let Some(Open::Call(Call { abandoned: false, .. })) = self.open.get(&number) {
            self.events.push_back(Event::Refused { number, error });
        }
        self.forget(number);
    }

    fn progress(&mut self, number: u32) -> Option<&mut Progress> {
        match self.open.get_mut(&number)? {
            Open::Call(call) => Some(&mut call.progress),
            _ => None,
        }
    }

    fn end_stream(&mut self, number: u32) {
        if let (Port::Open(port), Some(&mut Progress::Streaming { sequence, .. })) =
            (self.port, self.progress(number))
        {
            self.output.push_back(frame::stream_end(number, port, sequence));
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u32) {
        if let Some(Open::Call(_)) = self.open.remove(&number) {
            self.calls -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
