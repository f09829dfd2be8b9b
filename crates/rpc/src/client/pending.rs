//! The requests that the server has not answered, and the streams.

use std::collections::HashMap;

use bytes::Bytes;

use crate::frame;

/// The requests of one connection, by number.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    requests: HashMap<u32, Pending>,
    /// The number of entries in `requests` that are calls.
    calls: usize,
    last_number: u32,
}

/// A request that the server has not answered, or a stream.
#[derive(Debug)]
pub(super) enum Pending {
    Port,
    Module(&'static str),
    Call(Call),
}

/// A call, until it has ended.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) module: &'static str,
    pub(super) procedure: &'static str,
    pub(super) state: CallState,
    /// Set after [`Caller::cancel`](super::Caller::cancel): the response is discarded.
    pub(super) cancelled: bool,
}

/// The progress of a call.
#[derive(Debug)]
pub(super) enum CallState {
    /// The module is not loaded yet. Holds the argument.
    AwaitingModule(Bytes),
    /// The request was sent and is not answered yet.
    Sent,
    /// The call is a stream: the sequence number of its last element, and whether the next is requested.
    Streaming { sequence: u32, requested: bool },
}

impl PendingRequests {
    /// Adds a request. Returns its number.
    pub(super) fn add(&mut self, pending: Pending) -> u32 {
        let number = self.next_number();
        self.calls += usize::from(matches!(pending, Pending::Call(_)));
        self.requests.insert(number, pending);
        number
    }

    /// The request with this number.
    pub(super) fn get(&self, number: u32) -> Option<&Pending> {
        self.requests.get(&number)
    }

    /// The request with this number.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Pending> {
        self.requests.get_mut(&number)
    }

    /// The call with this number.
    pub(super) fn call_mut(&mut self, number: u32) -> Option<&mut Call> {
        match self.requests.get_mut(&number)? {
            Pending::Call(call) => Some(call),
            Pending::Port | Pending::Module(_) => None,
        }
    }

    /// Removes a request, which frees its number.
    pub(super) fn remove(&mut self, number: u32) -> Option<Pending> {
        let removed = self.requests.remove(&number)?;
        self.calls -= usize::from(matches!(removed, Pending::Call(_)));
        Some(removed)
    }

    /// The number of open calls.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// The number of all requests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the request for the port is not answered yet.
    pub(super) fn has_port_request(&self) -> bool {
        self.requests.values().any(|pending| matches!(pending, Pending::Port))
    }

    /// All numbers, in increasing order.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.requests.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// The queued calls of a module, by number: in the order in which they were made, until the numbers start
    /// again at 1.
    pub(super) fn waiting_for(&self, module: &str) -> Vec<u32> {
        let waits = |pending: &Pending| {
            matches!(pending, Pending::Call(call)
                if call.module == module && matches!(call.state, CallState::AwaitingModule(_)))
        };
        let waiting = self.requests.iter().filter(|(_, pending)| waits(pending)).map(|(&number, _)| number);
        let mut waiting: Vec<u32> = waiting.collect();
        waiting.sort_unstable();
        waiting
    }

    fn next_number(&mut self) -> u32 {
        loop {
            // 0 is reserved for messages of the server that belong to no call.
            self.last_number = if self.last_number >= frame::MAX_NUMBER { 1 } else { self.last_number + 1 };
            if !self.requests.contains_key(&self.last_number) {
                return self.last_number;
            }
        }
    }
}
