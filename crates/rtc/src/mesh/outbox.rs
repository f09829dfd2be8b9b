//! The events that wait to be read.

use std::collections::VecDeque;

use super::event::Event;

/// Received messages that wait. At the bound, the newest is dropped.
const MAX_DATA: usize = 1024;
/// Other events that wait. At the bound, the newest is dropped.
const MAX_CONTROL: usize = 512;

/// A bounded queue of events, in their order. Messages do not displace signals, and forwarding never waits for
/// the application.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    events: VecDeque<Event>,
    data: usize,
}

impl Outbox {
    /// Queues an event. Returns whether there was capacity.
    pub(crate) fn push(&mut self, event: Event) -> bool {
        match &event {
            Event::Data(_) if self.data >= MAX_DATA => return false,
            Event::Data(_) => self.data += 1,
            // Only the newest members matter.
            Event::Members { .. } => {
                let is_members = |event: &&mut Event| matches!(event, Event::Members { .. });
                if let Some(older) = self.events.iter_mut().find(is_members) {
                    *older = event;
                    return true;
                }
            }
            _ if self.events.len() - self.data >= MAX_CONTROL => return false,
            // A report contains all links, so that only the newest matters; its counts are summed.
            Event::Report(newer) => {
                for queued in &mut self.events {
                    if let Event::Report(older) = queued {
                        let (sent, fallback) = (older.sent, older.sent_by_fallback);
                        *older = newer.clone();
                        older.sent += sent;
                        older.sent_by_fallback += fallback;
                        return true;
                    }
                }
            }
            Event::Signal(_) => {}
        }
        self.events.push_back(event);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.data -= usize::from(matches!(event, Event::Data(_)));
        Some(event)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        Address,
        mesh::{LinkReport, Signal},
    };

    use super::*;
    use crate::mesh::event::Data;

    #[test]
    fn messages_do_not_displace_signals() {
        let mut outbox = Outbox::default();
        let data = Data { sender: Address::new([1; 20]), alias: 1, payload: "a".into(), reliable: true };
        assert!((0..MAX_DATA).all(|_| outbox.push(Event::Data(data.clone()))));
        assert!(!outbox.push(Event::Data(data.clone())));
        let signal = || Event::Signal(Signal::default());
        assert!((0..MAX_CONTROL).all(|_| outbox.push(signal())));
        assert!(!outbox.push(signal()));
        outbox.pop();
        assert!(outbox.push(Event::Data(data)) && !outbox.push(signal()));
    }

    #[test]
    fn newer_report_replaces_a_queued_one() {
        let mut outbox = Outbox::default();
        let report = |version, sent| Event::Report(LinkReport { version, sent, ..LinkReport::default() });
        assert!(outbox.push(report(1, 2)) && outbox.push(report(2, 3)));
        assert_eq!(outbox.pop(), Some(report(2, 5)));
        assert!(outbox.is_empty());
    }
}
