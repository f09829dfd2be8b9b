//! The assignments of one bot.

use protocol::{ConnectionString, IslandId};
use tokio::time::Instant;

/// All assignments and disconnects of a bot, oldest first.
#[derive(Debug, Default)]
pub(crate) struct AssignmentLog(Vec<(Instant, AssignmentEvent)>);

#[derive(Debug)]
enum AssignmentEvent {
    Assigned(Assignment),
    /// The session ended: no assignment can arrive until the next sign-in.
    Disconnected,
}

/// One assignment.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) island: IslandId,
    /// The protocol of the connection.
    pub(crate) kind: String,
    /// The node's address, without a token.
    endpoint: String,
    /// Whether it is a room that bots can enter.
    pub(crate) is_room: bool,
    /// Whether the island is the same as before, and only its node changed.
    pub(crate) is_move: bool,
}

/// A period in which a bot was in one island and could enter its rooms, without interruption.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IslandMembership<'a> {
    pub(crate) island: &'a IslandId,
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl AssignmentLog {
    /// Records an assignment. Returns whether it is another room than that of the last one, and one that bots can
    /// enter.
    pub(crate) fn assigned(
        &mut self,
        at: Instant,
        island: IslandId,
        connection: &ConnectionString,
        from: Option<&str>,
    ) -> bool {
        let text = connection.to_string();
        let kind = text.split(':').next().unwrap_or_default().to_owned();
        // Without parts that expire, such as a token.
        let endpoint = match connection {
            ConnectionString::WsRoom { url, .. } | ConnectionString::LiveKit { url, .. } => url.clone(),
            ConnectionString::P2p { .. } => kind.clone(),
            _ => text,
        };
        // After a reconnect the assignment is repeated, often without a change.
        let has_moved = self.assignments().next_back().is_some_and(|(_, last)| last.endpoint != endpoint);
        let is_move = has_moved && from == Some(island.as_str());
        let is_room = client::is_joinable(connection);
        let is_other = self
            .assignments()
            .next_back()
            .is_none_or(|(_, last)| last.endpoint != endpoint || last.island != island);
        self.0.push((at, AssignmentEvent::Assigned(Assignment { island, kind, endpoint, is_room, is_move })));
        is_room && is_other
    }

    pub(crate) fn disconnected(&mut self, at: Instant) {
        self.0.push((at, AssignmentEvent::Disconnected));
    }

    /// All assignments with their times.
    pub(crate) fn assignments(&self) -> impl DoubleEndedIterator<Item = (Instant, &Assignment)> {
        self.0.iter().filter_map(|(at, event)| match event {
            AssignmentEvent::Assigned(assignment) => Some((*at, assignment)),
            AssignmentEvent::Disconnected => None,
        })
    }

    /// Whether the bot could be in a room, as far as its assignments show.
    pub(crate) fn can_be_in_room(&self) -> bool {
        let mut assignments = self.assignments().peekable();
        assignments.peek().is_none() || assignments.any(|(_, assignment)| assignment.is_room)
    }

    /// The periods in islands. A move does not end a period.
    pub(crate) fn memberships(&self, now: Instant) -> Vec<IslandMembership<'_>> {
        let mut memberships: Vec<IslandMembership<'_>> = Vec::new();
        let mut inside = false;
        for (at, event) in &self.0 {
            let island = match event {
                AssignmentEvent::Assigned(Assignment { island, is_room: true, .. }) => Some(island),
                _ => None,
            };
            let last = memberships.last_mut().filter(|_| inside);
            if let Some(last) = last {
                if island == Some(last.island) {
                    continue;
                }
                last.until = *at;
            }
            inside = island.is_some();
            memberships.extend(island.map(|island| IslandMembership { island, from: *at, until: now }));
        }
        memberships
    }
}
