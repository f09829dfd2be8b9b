//! Parses the lines of a scenario into steps.

use std::{str::FromStr, time::Duration};

use protocol::{MediaGrants, Position, Voice};

use crate::{event::RoomFailure, transport::TransportKind};

/// One line of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Limit(u32),
    JoinDistance(f32),
    LeaveDistance(f32),
    Silence(Duration),
    ReturnWindow(Duration),
    MoveInterval(Duration),
    /// The text of the following lines that begin with `|`.
    Rules(String),
    /// Minutes since midnight.
    Time(u16),
    Move {
        peer: String,
        position: Position,
        session: Option<u64>,
    },
    Connect {
        peer: String,
        session: Option<u64>,
        resumes: Option<u64>,
    },
    Client {
        peer: String,
        transports: Vec<String>,
    },
    Leave {
        peer: String,
        session: Option<u64>,
    },
    Prefer {
        peer: String,
        target: String,
    },
    StopHeartbeats {
        peer: String,
    },
    Node(NodeSpec),
    StopAnnouncements {
        node: String,
    },
    NodeGone {
        node: String,
    },
    NodeDown {
        node: NodeSpec,
        reason: String,
    },
    RoomFailed {
        peer: String,
        node: String,
        retry_in: Duration,
        failure: RoomFailure,
    },
    Flush,
    Wait(Duration),
    Name {
        island: String,
        peer: String,
    },
    Expect(Vec<Vec<String>>),
    In {
        island: String,
        peers: Vec<String>,
    },
    On {
        node: String,
        peers: Vec<String>,
    },
    Media {
        media: MediaGrants,
        peers: Vec<String>,
    },
    MediaChanged {
        islands: Vec<String>,
    },
    Assigned {
        peer: String,
        from: Option<String>,
    },
    AssignedOnly(Vec<String>),
    TakenOver(Vec<String>),
    Silent,
    Opened(usize),
    Closed {
        island: String,
    },
    Moved {
        island: String,
        from: String,
        to: String,
    },
}

/// The announcement of a node in a scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeSpec {
    pub(super) name: String,
    pub(super) kind: TransportKind,
    pub(super) capability: String,
    pub(super) size: u32,
    pub(super) seats: Option<u32>,
    pub(super) draining: bool,
}

/// Parses a line. `None`: it is empty or a comment.
pub(super) fn parse_step(line: &str) -> Result<Option<Step>, String> {
    let line = line.split('#').next().unwrap_or_default();
    let mut tokens = Tokens(line.split_whitespace().collect());
    if tokens.0.is_empty() {
        return Ok(None);
    }
    let verb = tokens.next()?;
    let step = match verb {
        "limit" => Step::Limit(tokens.value()?),
        "join" => Step::JoinDistance(tokens.value()?),
        "leave-distance" => Step::LeaveDistance(tokens.value()?),
        "silence" => Step::Silence(tokens.duration()?),
        "return-window" => Step::ReturnWindow(tokens.duration()?),
        "move-interval" => Step::MoveInterval(tokens.duration()?),
        "rules" => Step::Rules(String::new()),
        "time" => Step::Time(tokens.time()?),
        "client" => Step::Client { peer: tokens.name()?, transports: tokens.names() },
        "move" => Step::Move {
            peer: tokens.name()?,
            position: Position::new(tokens.value()?, tokens.value()?, tokens.value()?),
            session: if tokens.take_if("session") { Some(tokens.value()?) } else { None },
        },
        "connect" => Step::Connect {
            peer: tokens.name()?,
            session: if tokens.0.is_empty() { None } else { Some(tokens.value()?) },
            resumes: if tokens.take_if("resumes") { Some(tokens.value()?) } else { None },
        },
        "leave" => Step::Leave { peer: tokens.name()?, session: tokens.rest_value()? },
        "prefer" => Step::Prefer { peer: tokens.name()?, target: tokens.name()? },
        "hush" => Step::StopHeartbeats { peer: tokens.name()? },
        "node" => Step::Node(tokens.node()?),
        "hush-node" => Step::StopAnnouncements { node: tokens.name()? },
        "node-gone" => Step::NodeGone { node: tokens.name()? },
        "node-down" => Step::NodeDown { node: tokens.node()?, reason: tokens.names().join(" ") },
        "no-room" => tokens.room_failed(|_| RoomFailure::NotOpened)?,
        "mesh-failed" => tokens.room_failed(|tokens| RoomFailure::Mesh(tokens.names().join(" ").into()))?,
        "flush" => Step::Flush,
        "wait" => Step::Wait(tokens.duration()?),
        "name" => Step::Name { island: tokens.name()?, peer: tokens.name()? },
        "expect" => Step::Expect(tokens.groups()?),
        "in" => Step::In { island: tokens.name()?, peers: tokens.names() },
        "on" => Step::On { node: tokens.name()?, peers: tokens.names() },
        "media" => Step::Media { media: tokens.media()?, peers: tokens.names() },
        "media-changed" => Step::MediaChanged { islands: tokens.names() },
        "told" if tokens.take_if("only") => Step::AssignedOnly(tokens.names()),
        "told" => Step::Assigned {
            peer: tokens.name()?,
            from: if tokens.take_if("from") { Some(tokens.name()?) } else { None },
        },
        "taken-over" => Step::TakenOver(tokens.names()),
        "silent" => Step::Silent,
        "opened" => Step::Opened(tokens.value()?),
        "closed" => Step::Closed { island: tokens.name()? },
        "moved" => Step::Moved { island: tokens.name()?, from: tokens.name()?, to: tokens.name()? },
        _ => return Err(format!("no step begins with `{verb}`")),
    };
    match tokens.0.first() {
        Some(token) => Err(format!("unexpected `{token}`")),
        None => Ok(Some(step)),
    }
}

/// The tokens of a line that are not parsed yet.
struct Tokens<'a>(Vec<&'a str>);

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        if self.0.is_empty() { Err("the line is too short".into()) } else { Ok(self.0.remove(0)) }
    }

    fn take_if(&mut self, token: &str) -> bool {
        let matches = self.0.first() == Some(&token);
        if matches {
            self.0.remove(0);
        }
        matches
    }

    fn name(&mut self) -> Result<String, String> {
        self.next().map(str::to_owned)
    }

    fn names(&mut self) -> Vec<String> {
        self.0.drain(..).map(str::to_owned).collect()
    }

    fn value<T: FromStr>(&mut self) -> Result<T, String> {
        let token = self.next()?;
        token.parse().map_err(|_| format!("`{token}` is not a valid value here"))
    }

    fn rest_value<T: FromStr>(&mut self) -> Result<Option<T>, String> {
        if self.0.is_empty() { Ok(None) } else { self.value().map(Some) }
    }

    fn duration(&mut self) -> Result<Duration, String> {
        let token = self.next()?;
        let (digits, unit_ms) = match token.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (token.strip_suffix('s').unwrap_or(token), 1_000),
        };
        let count: u64 =
            digits.parse().map_err(|_| format!("`{token}` is not a duration: expected 250ms or 5s"))?;
        Ok(Duration::from_millis(count.saturating_mul(unit_ms)))
    }

    fn time(&mut self) -> Result<u16, String> {
        let token = self.next()?;
        let time = token
            .split_once(':')
            .and_then(|(hour, minute)| Some(hour.parse::<u16>().ok()? * 60 + minute.parse::<u16>().ok()?));
        time.ok_or_else(|| format!("`{token}` is not a time of day: expected 09:30"))
    }

    fn room_failed(&mut self, failure: impl Fn(&mut Self) -> RoomFailure) -> Result<Step, String> {
        let (peer, node, retry_in) = (self.name()?, self.name()?, self.duration()?);
        Ok(Step::RoomFailed { peer, node, retry_in, failure: failure(self) })
    }

    fn media(&mut self) -> Result<MediaGrants, String> {
        let (voice, video) = match self.next()? {
            "voice" => (Voice::Everyone, false),
            "video" => (Voice::None, true),
            "voice+video" => (Voice::Everyone, true),
            "nothing" => (Voice::None, false),
            token => return Err(format!("`{token}` is not voice, video, voice+video or nothing")),
        };
        Ok(MediaGrants { voice, video })
    }

    fn node(&mut self) -> Result<NodeSpec, String> {
        let name = self.name()?;
        let kind = if self.take_if("kind") { self.value()? } else { TransportKind::WsRoom };
        let mut node =
            NodeSpec { name, kind, capability: kind.to_string(), size: 100, seats: None, draining: false };
        loop {
            if self.take_if("needs") {
                node.capability = self.name()?;
            } else if self.take_if("size") {
                node.size = self.value()?;
            } else if self.take_if("seats") {
                node.seats = Some(self.value()?);
            } else if self.take_if("draining") {
                node.draining = true;
            } else {
                return Ok(node);
            }
        }
    }

    fn groups(&mut self) -> Result<Vec<Vec<String>>, String> {
        let text = self.0.drain(..).collect::<Vec<_>>().join(" ");
        let mut groups = Vec::new();
        for group in text.split_inclusive(']').map(str::trim).filter(|group| !group.is_empty()) {
            let inside = group.strip_prefix('[').and_then(|group| group.strip_suffix(']'));
            let inside = inside.ok_or_else(|| format!("`{group}` is not an island: expected [a b]"))?;
            groups.push(inside.split_whitespace().map(str::to_owned).collect());
        }
        Ok(groups)
    }
}
