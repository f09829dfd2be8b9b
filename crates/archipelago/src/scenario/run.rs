use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use protocol::{Address, IslandId, NodeName, Position, SessionId};

use super::{
    ScenarioError,
    parse::{self, Node, Step},
};
use crate::{Engine, Input, Output, Settings, Transport, invariants::Witness, rules::Rules};

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Scenarios begin at some time, so that nothing depends on its being zero.
const BEGINNING: Duration = Duration::from_secs(1_000);

/// Plays a scenario. Returns how many steps it has.
pub fn run(text: &str) -> Result<usize, ScenarioError> {
    play(text).map(|(steps, _)| steps)
}

/// Plays a scenario. Returns the engine as it is in the end, and what time it is then; `None` if the
/// scenario needs none.
pub fn stage(text: &str) -> Result<Option<(Engine, Duration)>, ScenarioError> {
    play(text).map(|(_, stage)| stage.engine.map(|engine| (engine, BEGINNING + stage.elapsed)))
}

fn play(text: &str) -> Result<(usize, Stage), ScenarioError> {
    let mut stage = Stage::default();
    let mut steps = 0;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let fail = |reason| ScenarioError { line: index + 1, reason };
        let Some(mut step) = parse::step(line).map_err(fail)? else { continue };
        if let Step::Rules(rules) = &mut step {
            let quoted = |line: &str| line.trim_start().strip_prefix('|').map(|line| format!("{line}\n"));
            while let Some(line) = lines.peek().and_then(|(_, line)| quoted(line)) {
                rules.push_str(&line);
                lines.next();
            }
        }
        stage.play(step).map_err(fail)?;
        steps += 1;
    }
    Ok((steps, stage))
}

/// The engine of a scenario and what surrounds it.
#[derive(Default)]
struct Stage {
    settings: Settings,
    engine: Option<Engine>,
    witness: Witness,
    elapsed: Duration,
    /// Who repeats where it stands.
    heard: BTreeMap<String, (Position, Option<u64>)>,
    /// Which nodes repeat that they are there.
    nodes: BTreeMap<String, Node>,
    islands: BTreeMap<String, IslandId>,
    /// Announced by the last flush or wait.
    outputs: Vec<Output>,
}

type Outcome = Result<(), String>;

impl Stage {
    fn play(&mut self, step: Step) -> Outcome {
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
            Step::Told { peer, from } => self.expect_told(&peer, from.as_deref()),
            Step::ToldOnly(peers) => self.expect_told_only(&peers),
            Step::TakenOver(peers) => self.expect_taken_over(&peers),
            Step::Silent => check(self.outputs.is_empty(), || format!("{:?}", self.outputs)),
            Step::Opened(count) => self.expect_opened(count),
            Step::Closed { island } => self.expect_closed(&island),
            Step::Moved { island, from, to } => self.expect_moved(&island, &from, &to),
            happening => self.happen(happening),
        }
    }

    fn set(&mut self, change: impl FnOnce(&mut Settings)) -> Outcome {
        check(self.engine.is_none(), || "settings come first".into())?;
        change(&mut self.settings);
        Ok(())
    }

    /// Steps that are an input.
    fn happen(&mut self, step: Step) -> Outcome {
        match step {
            Step::Move { peer, position, session } => {
                let input = heartbeat(&peer, position, session);
                self.heard.insert(peer, (position, session));
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
                self.heard.remove(&peer);
                let (peer, session) = (address(&peer), session.map(session_id));
                self.handle(Input::Disconnected { peer, session })
            }
            Step::Prefer { peer, whose } => self.prefer(&peer, &whose),
            Step::Hush { peer } => {
                self.heard.remove(&peer);
                Ok(())
            }
            Step::Node(node) => {
                let input = announcement(&node)?;
                self.nodes.insert(node.name.clone(), node);
                self.handle(input)
            }
            Step::HushNode { node } => {
                self.nodes.remove(&node);
                Ok(())
            }
            Step::NodeGone { node } => {
                self.nodes.remove(&node);
                self.handle(Input::TransportGone { node: node_name(&node)? })
            }
            other => Err(format!("{other:?} is no happening")),
        }
    }

    fn prefer(&mut self, peer: &str, whose: &str) -> Outcome {
        let desired_room = match whose {
            "nothing" => Some(String::new()),
            whose => Some(self.island_of(whose)?.to_string()),
        };
        let &(position, session) = self.heard.get(peer).ok_or_else(|| format!("{peer} is not there"))?;
        let session = session.map(session_id);
        self.handle(Input::Heartbeat { peer: address(peer), session, position, desired_room })
    }

    fn handle(&mut self, input: Input) -> Outcome {
        self.witness.hear(&input);
        let now = BEGINNING + self.elapsed;
        self.engine()?.handle(input, now);
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        let now = BEGINNING + self.elapsed;
        let mut outputs = Vec::new();
        self.engine()?.flush(now, &mut outputs);
        let engine = self.engine.as_ref().ok_or("no engine")?;
        self.witness.see(engine, &outputs).map_err(|violation| violation.to_string())?;
        self.outputs.extend(outputs);
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> Outcome {
        self.outputs.clear();
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.elapsed += FLUSH_INTERVAL;
            if self.elapsed.as_millis().is_multiple_of(HEARTBEAT_INTERVAL.as_millis()) {
                self.repeat()?;
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Everybody who is not quiet says again what it said last.
    fn repeat(&mut self) -> Outcome {
        for (peer, (position, session)) in self.heard.clone() {
            self.handle(heartbeat(&peer, position, session))?;
        }
        for node in self.nodes.clone().values() {
            self.handle(announcement(node)?)?;
        }
        Ok(())
    }

    fn engine(&mut self) -> Result<&mut Engine, String> {
        if self.engine.is_none() {
            let engine = Engine::new(self.settings.clone(), 0).map_err(|error| error.to_string())?;
            self.engine = Some(engine);
        }
        self.engine.as_mut().ok_or_else(|| "no engine".into())
    }

    fn island_of(&mut self, peer: &str) -> Result<IslandId, String> {
        let view = self.engine()?.peer(address(peer)).ok_or_else(|| format!("{peer} is not there"))?;
        let island = view.island().ok_or_else(|| format!("{peer} is in no island yet"))?;
        Ok(island.id())
    }

    fn named(&self, island: &str) -> Result<IslandId, String> {
        self.islands.get(island).cloned().ok_or_else(|| format!("no island is called {island}"))
    }

    fn expect(&mut self, groups: Vec<Vec<String>>) -> Outcome {
        let names: BTreeMap<Address, String> =
            groups.iter().flatten().map(|name| (address(name), name.clone())).collect();
        let name = |peer: Address| names.get(&peer).cloned().unwrap_or_else(|| name_of(peer));
        let islands = self.engine()?.islands();
        let actual: BTreeSet<BTreeSet<String>> =
            islands.map(|island| island.members().map(|(peer, _)| name(peer)).collect()).collect();
        let expected: BTreeSet<BTreeSet<String>> =
            groups.into_iter().map(|group| group.into_iter().collect()).collect();
        check(actual == expected, || format!("the islands are {}", print(&actual)))
    }

    fn expect_in(&mut self, island: &str, peers: &[String]) -> Outcome {
        let expected = self.named(island)?;
        for peer in peers {
            let actual = self.island_of(peer)?;
            check(actual == expected, || format!("{peer} is in {actual}, and {island} is {expected}"))?;
        }
        Ok(())
    }

    fn expect_on(&mut self, node: &str, peers: &[String]) -> Outcome {
        for peer in peers {
            let id = self.island_of(peer)?;
            let transport = self.engine()?.island(&id).and_then(|island| island.transport().cloned());
            let actual = transport.as_ref().map_or("nothing", |node| node.as_str());
            check(actual == node, || format!("{peer} is on {actual}"))?;
        }
        Ok(())
    }

    fn told(&self, peer: Address) -> impl Iterator<Item = (&IslandId, Option<&IslandId>)> {
        self.outputs.iter().filter_map(move |output| match output {
            Output::Assigned { peer: told, island, from, .. } if *told == peer => {
                Some((island, from.as_ref()))
            }
            _ => None,
        })
    }

    fn expect_told(&mut self, peer: &str, from: Option<&str>) -> Outcome {
        let island = self.island_of(peer)?;
        let told: Vec<_> = self.told(address(peer)).collect();
        let &[(actual, former)] = told.as_slice() else {
            return Err(format!("{peer} was told {} times", told.len()));
        };
        check(*actual == island, || format!("{peer} was told {actual} and is in {island}"))?;
        let expected = match from {
            None => return Ok(()),
            Some("nothing") => None,
            Some(name) => Some(self.named(name)?),
        };
        check(former == expected.as_ref(), || format!("{peer} was told that it came from {former:?}"))
    }

    fn expect_told_only(&self, peers: &[String]) -> Outcome {
        let assigned = |output: &Output| match output {
            Output::Assigned { peer, .. } => Some(*peer),
            _ => None,
        };
        self.expect_peers(peers, assigned, "told")
    }

    fn expect_taken_over(&self, peers: &[String]) -> Outcome {
        let taken_over = |output: &Output| match output {
            Output::TakenOver { peer, .. } => Some(*peer),
            _ => None,
        };
        self.expect_peers(peers, taken_over, "taken over")
    }

    /// Checks that the outputs of which `pick` finds a peer are those of exactly these peers.
    fn expect_peers(
        &self,
        peers: &[String],
        pick: impl Fn(&Output) -> Option<Address>,
        what: &str,
    ) -> Outcome {
        let expected: BTreeSet<Address> = peers.iter().map(|peer| address(peer)).collect();
        let actual: BTreeSet<Address> = self.outputs.iter().filter_map(pick).collect();
        let names = || actual.iter().map(|&peer| name_of(peer)).collect::<Vec<_>>();
        check(actual == expected, || format!("{what} were {:?}", names()))
    }

    fn expect_opened(&self, expected: usize) -> Outcome {
        let actual = self.outputs.iter().filter(|output| matches!(output, Output::Opened { .. })).count();
        check(actual == expected, || format!("{actual} islands were opened"))
    }

    fn expect_closed(&self, island: &str) -> Outcome {
        let output = Output::Closed { island: self.named(island)? };
        check(self.outputs.contains(&output), || format!("{island} was not closed"))
    }

    fn expect_moved(&self, island: &str, from: &str, to: &str) -> Outcome {
        let (from, to) = (node_name(from)?, node_name(to)?);
        let output = Output::Moved { island: self.named(island)?, from, to };
        check(self.outputs.contains(&output), || format!("{:?}", self.outputs))
    }
}

fn check(holds: bool, reason: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(reason()) }
}

fn heartbeat(peer: &str, position: Position, session: Option<u64>) -> Input {
    let session = session.map(session_id);
    Input::Heartbeat { peer: address(peer), session, position, desired_room: None }
}

fn announcement(node: &Node) -> Result<Input, String> {
    Ok(Input::Transport(Transport {
        node: node_name(&node.name)?,
        kind: node.kind,
        capability: node.capability.as_str().into(),
        max_island_size: node.size,
        seats: node.seats,
        users: 0,
        draining: node.draining,
        public_url: "ws://localhost".into(),
        started_ms: 0,
    }))
}

fn node_name(name: &str) -> Result<NodeName, String> {
    name.parse().map_err(|error| format!("`{name}` {error}"))
}

/// The address of a peer is its name, so that addresses are ordered as names are.
pub fn address(name: &str) -> Address {
    let mut bytes = [0; 20];
    bytes.iter_mut().zip(name.bytes()).for_each(|(byte, letter)| *byte = letter);
    Address::new(bytes)
}

fn name_of(peer: Address) -> String {
    let letters = peer.as_bytes().iter().take_while(|&&byte| byte != 0);
    letters.map(|&byte| char::from(byte)).collect()
}

fn session_id(number: u64) -> SessionId {
    SessionId::new(number, 0)
}

fn print(islands: &BTreeSet<BTreeSet<String>>) -> String {
    let print =
        |island: &BTreeSet<String>| format!("[{}]", island.iter().cloned().collect::<Vec<_>>().join(" "));
    islands.iter().map(print).collect::<Vec<_>>().join(" ")
}
