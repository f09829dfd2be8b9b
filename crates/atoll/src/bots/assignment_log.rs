//! What a bot was told of its islands.

use protocol::{ConnectionString, IslandId};
use tokio::time::Instant;

/// Everything that a bot was told, oldest first.
#[derive(Debug, Default)]
pub(crate) struct AssignmentLog(Vec<(Instant, AssignmentEvent)>);

#[derive(Debug)]
enum AssignmentEvent {
    Assigned(Assignment),
    /// The gateway is gone: nobody would tell it of another island.
    Disconnected,
}

/// One change of island.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) island: IslandId,
    /// The protocol of the connection.
    pub(crate) kind: String,
    /// Where the island meets.
    endpoint: String,
    /// Whether it is a room that bots enter.
    pub(crate) is_room: bool,
    /// Whether the island is the same as before, and only its members meet elsewhere.
    pub(crate) is_move: bool,
}

/// A time in which a bot was in one island and could enter its rooms, without interruption.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IslandMembership<'a> {
    pub(crate) island: &'a IslandId,
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl AssignmentLog {
    pub(crate) fn assigned(
        &mut self,
        at: Instant,
        island: IslandId,
        connection: &ConnectionString,
        from: Option<&str>,
    ) {
        let text = connection.to_string();
        let kind = text.split(':').next().unwrap_or_default().to_owned();
        // Without what is only for a while, such as a token.
        let place = match connection {
            ConnectionString::WsRoom { url, .. } | ConnectionString::LiveKit { url, .. } => url.clone(),
            ConnectionString::P2p { .. } => kind.clone(),
            _ => text,
        };
        // Who returns is told again, and may find everything as it was.
        let elsewhere = self.assignments().next_back().is_some_and(|(_, last)| last.endpoint != place);
        let is_move = elsewhere && from == Some(island.as_str());
        let is_room = connection.room_url().is_some();
        self.0.push((
            at,
            AssignmentEvent::Assigned(Assignment { island, kind, endpoint: place, is_room, is_move }),
        ));
    }

    pub(crate) fn disconnected(&mut self, at: Instant) {
        self.0.push((at, AssignmentEvent::Disconnected));
    }

    /// All changes of island, and when they were told.
    pub(crate) fn assignments(&self) -> impl DoubleEndedIterator<Item = (Instant, &Assignment)> {
        self.0.iter().filter_map(|(at, told)| match told {
            AssignmentEvent::Assigned(assignment) => Some((*at, assignment)),
            AssignmentEvent::Disconnected => None,
        })
    }

    /// Whether it could be in a room, as far as it was told.
    pub(crate) fn can_be_in_room(&self) -> bool {
        let mut assignments = self.assignments().peekable();
        assignments.peek().is_none() || assignments.any(|(_, assignment)| assignment.is_room)
    }

    /// When it was in which island; moves interrupt nothing.
    pub(crate) fn memberships(&self, now: Instant) -> Vec<IslandMembership<'_>> {
        let mut memberships: Vec<IslandMembership<'_>> = Vec::new();
        let mut inside = false;
        for (at, told) in &self.0 {
            let island = match told {
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
