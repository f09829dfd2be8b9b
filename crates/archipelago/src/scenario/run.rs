//! Runs the steps of a scenario against an engine and checks its expectations.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{IslandId, Position, SessionId};

use super::{
    error::{ScenarioError, StepResult, ensure},
    names::{address, node_name},
    parse::{self, NodeSpec, Step},
};
use crate::{
    engine::Engine,
    event::{Heartbeat, Input, Output},
    invariants::InvariantChecker,
    rules::Rules,
    settings::Settings,
    transport::Transport,
};

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Scenarios start at a time other than zero, so that no result depends on the start being zero.
const START: Duration = Duration::from_secs(1_000);

/// Runs a scenario. Returns its number of steps.
///
/// # Errors
///
/// The first line that cannot be parsed, states an expectation that is not met, or violates an invariant.
pub fn run(text: &str) -> Result<usize, ScenarioError> {
    run_all(text).map(|(steps, _)| steps)
}

/// Runs a scenario. Returns the engine after the last step and the time then; `None` if no step needs an
/// engine.
///
/// # Errors
///
/// As [`run`].
pub fn run_to_engine(text: &str) -> Result<Option<(Engine, Duration)>, ScenarioError> {
    run_all(text).map(|(_, runner)| runner.engine.map(|engine| (engine, START + runner.elapsed)))
}

fn run_all(text: &str) -> Result<(usize, Runner), ScenarioError> {
    let mut runner = Runner::default();
    let mut steps = 0;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let fail = |reason| ScenarioError { line: index + 1, reason };
        let Some(mut step) = parse::parse_step(line).map_err(fail)? else { continue };
        if let Step::Rules(rules) = &mut step {
            let quoted = |line: &str| line.trim_start().strip_prefix('|').map(|line| format!("{line}\n"));
            while let Some(line) = lines.peek().and_then(|(_, line)| quoted(line)) {
                rules.push_str(&line);
                lines.next();
            }
        }
        runner.run_step(step).map_err(fail)?;
        steps += 1;
    }
    Ok((steps, runner))
}

/// The state of a running scenario.
#[derive(Default)]
pub(super) struct Runner {
    settings: Settings,
    engine: Option<Engine>,
    checker: InvariantChecker,
    elapsed: Duration,
    /// Peers that repeat their heartbeat, with their last position and session.
    active_peers: BTreeMap<String, (Position, Option<u64>)>,
    /// Nodes that repeat their announcement.
    active_nodes: BTreeMap<String, NodeSpec>,
    islands: BTreeMap<String, IslandId>,
    /// Outputs of the last `flush` or `wait`.
    pub(super) outputs: Vec<Output>,
}

impl Runner {
    fn run_step(&mut self, step: Step) -> StepResult {
        match step {
            Step::Limit(limit) => self.set(|settings| settings.max_island_size = limit),
            Step::JoinDistance(metres) => self.set(|settings| settings.join_distance_m = metres),
            Step::LeaveDistance(metres) => self.set(|settings| settings.leave_distance_m = metres),
            Step::Silence(time) => self.set(|settings| settings.silence = time),
            Step::ReturnWindow(time) => self.set(|settings| settings.return_window = time),
            Step::MoveInterval(time) => self.set(|settings| settings.move_interval = time),
            Step::Flush => {
                self.outputs.clear();
                self.flush()
            }
            Step::Wait(time) => self.wait(time),
            Step::Name { island, peer } => {
                let id = self.island_of(&peer)?;
                self.islands.insert(island, id);
                Ok(())
            }
            Step::Expect(groups) => self.expect(groups),
            Step::In { island, peers } => self.expect_in(&island, &peers),
            Step::On { node, peers } => self.expect_on(&node, &peers),
            Step::Media { media, peers } => self.expect_media(media, &peers),
            Step::MediaChanged { islands } => self.expect_media_changed(&islands),
            Step::Assigned { peer, from } => self.expect_assigned(&peer, from.as_deref()),
            Step::AssignedOnly(peers) => self.expect_assigned_only(&peers),
            Step::TakenOver(peers) => self.expect_taken_over(&peers),
            Step::Silent => ensure(self.outputs.is_empty(), || format!("{:?}", self.outputs)),
            Step::Opened(count) => self.expect_opened(count),
            Step::Closed { island } => self.expect_closed(&island),
            Step::Moved { island, from, to } => self.expect_moved(&island, &from, &to),
            input => self.apply_input(input),
        }
    }

    fn set(&mut self, change: impl FnOnce(&mut Settings)) -> StepResult {
        ensure(self.engine.is_none(), || "settings must come first".into())?;
        change(&mut self.settings);
        Ok(())
    }

    /// Steps that are an input to the engine.
    fn apply_input(&mut self, step: Step) -> StepResult {
        match step {
            Step::Move { peer, position, session } => {
                let input = heartbeat(&peer, position, session);
                self.active_peers.insert(peer, (position, session));
                self.handle(input)
            }
            Step::Connect { peer, session, resumes } => {
                let [session, resumes] = [session, resumes].map(|number| number.map(session_id));
                let peer = address(&peer);
                self.handle(Input::Connected { peer, session, transports: None, resumes })
            }
            Step::Client { peer, transports } => {
                let peer = address(&peer);
                self.handle(Input::Connected {
                    peer,
                    session: None,
                    transports: Some(transports),
                    resumes: None,
                })
            }
            Step::Rules(text) => {
                let rules = Rules::parse(&text).map_err(|error| format!("in the rules: {error}"))?;
                self.handle(Input::Rules(Arc::new(rules)))
            }
            Step::Time(minute) => self.handle(Input::TimeOfDay { minute }),
            Step::Leave { peer, session } => {
                self.active_peers.remove(&peer);
                let (peer, session) = (address(&peer), session.map(session_id));
                self.handle(Input::Disconnected { peer, session })
            }
            Step::Prefer { peer, target } => self.prefer(&peer, &target),
            Step::StopHeartbeats { peer } => {
                self.active_peers.remove(&peer);
                Ok(())
            }
            Step::Node(node) => {
                let input = announcement(&node)?;
                self.active_nodes.insert(node.name.clone(), node);
                self.handle(input)
            }
            Step::StopAnnouncements { node } => {
                self.active_nodes.remove(&node);
                Ok(())
            }
            Step::NodeGone { node } => {
                self.active_nodes.remove(&node);
                self.handle(Input::TransportGone { node: node_name(&node)? })
            }
            Step::NodeDown { node, reason } => {
                self.active_nodes.remove(&node.name);
                let (transport, reason) = (transport(&node)?, reason.into());
                self.handle(Input::TransportDown { transport, reason })
            }
            Step::RoomFailed { peer, node, retry_in, failure } => {
                let (island, node) = (self.island_of(&peer)?, node_name(&node)?);
                self.handle(Input::RoomUnavailable { island, node, retry_in, failure })
            }
            other => Err(format!("{other:?} is not an input")),
        }
    }

    fn prefer(&mut self, peer: &str, target: &str) -> StepResult {
        let desired_room = match target {
            "nothing" => Some(String::new()),
            target => Some(self.island_of(target)?.to_string()),
        };
        let &(position, session) =
            self.active_peers.get(peer).ok_or_else(|| format!("{peer} is not in the world"))?;
        let session = session.map(session_id);
        let heartbeat = Heartbeat::new(address(peer), position);
        self.handle(Input::Heartbeat(Heartbeat { session, desired_room, ..heartbeat }))
    }

    fn handle(&mut self, input: Input) -> StepResult {
        self.checker.observe_input(&input);
        let now = START + self.elapsed;
        self.engine()?.handle(input, now);
        Ok(())
    }

    fn flush(&mut self) -> StepResult {
        let now = START + self.elapsed;
        let mut outputs = Vec::new();
        self.engine()?.flush(now, &mut outputs);
        let engine = self.engine.as_ref().ok_or("no engine")?;
        self.checker.check_flush(engine, &outputs).map_err(|violation| violation.to_string())?;
        self.outputs.extend(outputs);
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> StepResult {
        self.outputs.clear();
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.elapsed += FLUSH_INTERVAL;
            if self.elapsed.as_millis().is_multiple_of(HEARTBEAT_INTERVAL.as_millis()) {
                self.repeat_heartbeats()?;
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Repeats the last message of each peer and node that is not silent.
    fn repeat_heartbeats(&mut self) -> StepResult {
        for (peer, (position, session)) in self.active_peers.clone() {
            self.handle(heartbeat(&peer, position, session))?;
        }
        for node in self.active_nodes.clone().values() {
            self.handle(announcement(node)?)?;
        }
        Ok(())
    }

    pub(super) fn engine(&mut self) -> Result<&mut Engine, String> {
        if self.engine.is_none() {
            let engine = Engine::new(self.settings.clone(), 0).map_err(|error| error.to_string())?;
            self.engine = Some(engine);
        }
        self.engine.as_mut().ok_or_else(|| "no engine".into())
    }

    pub(super) fn island_of(&mut self, peer: &str) -> Result<IslandId, String> {
        let view = self.engine()?.peer(address(peer)).ok_or_else(|| format!("{peer} is not in the world"))?;
        let island = view.island().ok_or_else(|| format!("{peer} is in no island yet"))?;
        Ok(island.id())
    }

    pub(super) fn island_named(&self, island: &str) -> Result<IslandId, String> {
        self.islands.get(island).cloned().ok_or_else(|| format!("no island is named {island}"))
    }
}

fn heartbeat(peer: &str, position: Position, session: Option<u64>) -> Input {
    let session = session.map(session_id);
    Input::Heartbeat(Heartbeat { session, ..Heartbeat::new(address(peer), position) })
}

fn announcement(node: &NodeSpec) -> Result<Input, String> {
    transport(node).map(Input::Transport)
}

fn transport(node: &NodeSpec) -> Result<Transport, String> {
    Ok(Transport {
        node: node_name(&node.name)?,
        kind: node.kind,
        capability: node.capability.as_str().into(),
        max_island_size: node.size,
        seats: node.seats,
        users: 0,
        draining: node.draining,
        public_url: "ws://localhost".into(),
        started_ms: 0,
        note: None,
    })
}

fn session_id(number: u64) -> SessionId {
    SessionId::new(number, 0)
}
