//! How messages travel between two members.

use std::{fmt, time::Duration};

/// The way of most messages in a window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// From one NAT to the other.
    Direct,
    /// Over the TURN server.
    Turn,
    /// Forwarded by a third member.
    Routed,
    /// Through the gateway, in the mesh.
    Fallback,
    /// Both members are in a room of a room node.
    WsRoom,
}

/// The counts of messages by path, since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) direct: u64,
    pub(super) turn: u64,
    pub(super) routed: u64,
    pub(super) fallback: u64,
    /// Received messages, by any path.
    pub(super) received: u64,
}

impl Counts {
    /// The path of most messages since `earlier`; `None` if there is no such path.
    pub(super) fn path_since(self, earlier: Self) -> Option<Path> {
        let paths = [
            (Path::Direct, self.direct - earlier.direct),
            (Path::Turn, self.turn - earlier.turn),
            (Path::Routed, self.routed - earlier.routed),
            (Path::Fallback, self.fallback - earlier.fallback),
        ];
        let received = self.received - earlier.received;
        let (path, count) = paths.into_iter().max_by_key(|(_, count)| *count)?;
        (received > 0 && 2 * count >= received).then_some(path)
    }
}

/// The paths of a cell.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Each path in its order, and when it began after the start of the clients.
    pub(super) paths: Vec<(Path, Duration)>,
    /// Windows of the last path in a row.
    pub(super) windows: usize,
    /// Messages that each of the two members sent after both had joined.
    pub(super) sent: usize,
    /// Those of them that the other one did not receive.
    pub(super) lost: usize,
}

impl Outcome {
    /// Adds the path of one more window.
    pub(super) fn push(&mut self, path: Path, at: Duration) {
        if self.last() == Some(path) {
            self.windows += 1;
        } else {
            self.paths.push((path, at));
            self.windows = 1;
        }
    }

    /// The last path, when it began, and the lost messages, if any.
    pub(super) fn summary(&self) -> String {
        let Some((path, at)) = self.paths.last() else { return "no messages".to_owned() };
        let summary = format!("{path} ({:.1} s)", at.as_secs_f64());
        match self.lost {
            0 => summary,
            lost => format!("{summary}, {lost} of {} lost", self.sent),
        }
    }

    pub(super) fn last(&self) -> Option<Path> {
        self.paths.last().map(|(path, _)| *path)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Turn => "TURN",
            Self::Routed => "routed through a peer",
            Self::Fallback => "fallback",
            Self::WsRoom => "moved to ws-room",
        })
    }
}

/// For example `fallback, direct (1.5 s)`; the time is when the last path began.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let earlier = self.paths.len().saturating_sub(1);
        for (path, _) in &self.paths[..earlier] {
            write!(f, "{path}, ")?;
        }
        f.write_str(&self.summary())
    }
}
