use std::{str::FromStr, time::Duration};

use protocol::Position;

use crate::TransportKind;

/// One line of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Limit(u32),
    JoinDistance(f32),
    LeaveDistance(f32),
    Silence(Duration),
    ReturnWindow(Duration),
    MoveInterval(Duration),
    /// What follows line by line after a `|`.
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

/// A node as a scenario announces it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeSpec {
    pub(super) name: String,
    pub(super) kind: TransportKind,
    pub(super) capability: String,
    pub(super) size: u32,
    pub(super) seats: Option<u32>,
    pub(super) draining: bool,
}

/// The step that a line tells, if it tells one.
pub(super) fn parse_step(line: &str) -> Result<Option<Step>, String> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = Tokens(line.split_whitespace().collect());
    if words.0.is_empty() {
        return Ok(None);
    }
    let verb = words.next()?;
    let step = match verb {
        "limit" => Step::Limit(words.value()?),
        "join" => Step::JoinDistance(words.value()?),
        "leave-distance" => Step::LeaveDistance(words.value()?),
        "silence" => Step::Silence(words.duration()?),
        "return-window" => Step::ReturnWindow(words.duration()?),
        "move-interval" => Step::MoveInterval(words.duration()?),
        "rules" => Step::Rules(String::new()),
        "time" => Step::Time(words.time()?),
        "client" => Step::Client { peer: words.name()?, transports: words.names() },
        "move" => Step::Move {
            peer: words.name()?,
            position: Position::new(words.value()?, words.value()?, words.value()?),
            session: if words.take_if("session") { Some(words.value()?) } else { None },
        },
        "connect" => Step::Connect {
            peer: words.name()?,
            session: if words.0.is_empty() { None } else { Some(words.value()?) },
            resumes: if words.take_if("resumes") { Some(words.value()?) } else { None },
        },
        "leave" => Step::Leave { peer: words.name()?, session: words.rest_value()? },
        "prefer" => Step::Prefer { peer: words.name()?, target: words.name()? },
        "hush" => Step::StopHeartbeats { peer: words.name()? },
        "node" => Step::Node(words.node()?),
        "hush-node" => Step::StopAnnouncements { node: words.name()? },
        "node-gone" => Step::NodeGone { node: words.name()? },
        "flush" => Step::Flush,
        "wait" => Step::Wait(words.duration()?),
        "name" => Step::Name { island: words.name()?, peer: words.name()? },
        "expect" => Step::Expect(words.groups()?),
        "in" => Step::In { island: words.name()?, peers: words.names() },
        "on" => Step::On { node: words.name()?, peers: words.names() },
        "told" if words.take_if("only") => Step::AssignedOnly(words.names()),
        "told" => Step::Assigned {
            peer: words.name()?,
            from: if words.take_if("from") { Some(words.name()?) } else { None },
        },
        "taken-over" => Step::TakenOver(words.names()),
        "silent" => Step::Silent,
        "opened" => Step::Opened(words.value()?),
        "closed" => Step::Closed { island: words.name()? },
        "moved" => Step::Moved { island: words.name()?, from: words.name()?, to: words.name()? },
        _ => return Err(format!("no step begins with `{verb}`")),
    };
    match words.0.first() {
        Some(word) => Err(format!("`{word}` is one word too many")),
        None => Ok(Some(step)),
    }
}

/// The words of a line that are still to be read.
struct Tokens<'a>(Vec<&'a str>);

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        if self.0.is_empty() { Err("a word is missing".into()) } else { Ok(self.0.remove(0)) }
    }

    fn take_if(&mut self, word: &str) -> bool {
        let there = self.0.first() == Some(&word);
        if there {
            self.0.remove(0);
        }
        there
    }

    fn name(&mut self) -> Result<String, String> {
        self.next().map(str::to_owned)
    }

    fn names(&mut self) -> Vec<String> {
        self.0.drain(..).map(str::to_owned).collect()
    }

    fn value<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.next()?;
        word.parse().map_err(|_| format!("`{word}` is not what belongs here"))
    }

    fn rest_value<T: FromStr>(&mut self) -> Result<Option<T>, String> {
        if self.0.is_empty() { Ok(None) } else { self.value().map(Some) }
    }

    fn duration(&mut self) -> Result<Duration, String> {
        let word = self.next()?;
        let (digits, unit_ms) = match word.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (word.strip_suffix('s').unwrap_or(word), 1_000),
        };
        let count: u64 = digits.parse().map_err(|_| format!("`{word}` is no time: 250ms or 5s are"))?;
        Ok(Duration::from_millis(count.saturating_mul(unit_ms)))
    }

    fn time(&mut self) -> Result<u16, String> {
        let word = self.next()?;
        let time = word
            .split_once(':')
            .and_then(|(hour, minute)| Some(hour.parse::<u16>().ok()? * 60 + minute.parse::<u16>().ok()?));
        time.ok_or_else(|| format!("`{word}` is no time of day: 09:30 is"))
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
            let inside = inside.ok_or_else(|| format!("`{group}` is no island: [a b] is"))?;
            groups.push(inside.split_whitespace().map(str::to_owned).collect());
        }
        Ok(groups)
    }
}
