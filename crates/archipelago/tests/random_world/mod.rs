//! A random world: crowds under random rules with random nodes. The engine is checked after each flush.

// No test uses every function.
#![allow(dead_code)]

mod standby_state;

use std::{sync::Arc, time::Duration};

use archipelago::{
    Engine, Heartbeat, Input, Output, Settings, Transport, TransportKind,
    invariants::InvariantChecker,
    rules::Rules,
    sim::{Rng, address},
};
use protocol::Position;
use standby_state::StandbyState;

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const SIDE_M: f64 = 240.0;

pub(crate) struct RandomWorld {
    pub(crate) rng: Rng,
    pub(crate) engine: Engine,
    pub(crate) checker: InvariantChecker,
    pub(crate) now: Duration,
    pub(crate) positions: Vec<Option<(f64, f64)>>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) standby: StandbyState,
    /// Whether some clients can join no transport, and so get no assignment.
    pub(crate) clients_without_transports: bool,
    engine_count: u64,
}

impl RandomWorld {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let settings = Settings { max_island_size: 2 + rng.below(9) as u32, ..Settings::default() };
        let peers = 4 + rng.below(36);
        Self {
            engine: Engine::new(settings, 0).unwrap(),
            checker: InvariantChecker::default(),
            now: Duration::from_secs(1_000),
            positions: vec![None; peers],
            outputs: Vec::new(),
            standby: StandbyState::default(),
            clients_without_transports: true,
            engine_count: 1,
            rng,
        }
    }

    fn handle(&mut self, input: Input) {
        self.checker.observe_input(&input);
        self.standby.observe_input(&input, self.now);
        self.engine.handle(input, self.now);
    }

    pub(crate) fn flush(&mut self) {
        self.now += FLUSH_INTERVAL;
        self.outputs.clear();
        self.engine.flush(self.now, &mut self.outputs);
        let result = self.checker.check_flush(&self.engine, &self.outputs);
        result.unwrap_or_else(|violation| panic!("{violation}\n{:#?}", self.engine.rules()));
        self.standby.observe_outputs(&self.outputs);
    }

    /// Replaces the engine by one resumed from the recorded state, as a standby director does.
    pub(crate) fn replace_engine(&mut self) {
        let settings = self.engine.settings().clone();
        let snapshot = self.standby.snapshot();
        self.engine = Engine::resume(settings, self.engine_count, snapshot, self.now).unwrap();
        self.engine_count += 1;
        self.checker.observe_takeover();
    }

    /// Random peers act for one flush; now and then rules, nodes and the time of day change.
    pub(crate) fn random_step(&mut self, step: u32) {
        if step.is_multiple_of(20) {
            self.set_random_rules();
        }
        if step.is_multiple_of(7) {
            self.announce_nodes(true);
        }
        if step.is_multiple_of(11) {
            let minute = self.rng.below(24 * 60) as u16;
            self.handle(Input::TimeOfDay { minute });
        }
        self.act_randomly();
        self.flush();
    }

    /// One flush in which no input changes.
    pub(crate) fn still_step(&mut self) {
        self.announce_nodes(false);
        self.send_heartbeats();
        self.flush();
    }

    /// Flushes for a minute without changes. Every timer ends within it: each island moves at most once in ten
    /// seconds, and another island may take the seats that it leaves.
    pub(crate) fn wait_for_timers(&mut self) {
        (0..240).for_each(|_| self.still_step());
    }

    fn random_position(&mut self) -> (f64, f64) {
        (self.rng.range(0.0, SIDE_M), self.rng.range(0.0, SIDE_M))
    }

    fn set_random_rules(&mut self) {
        let text: String = (0..self.rng.below(6)).map(|number| self.random_rule(number)).collect();
        let rules = Rules::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        self.handle(Input::Rules(Arc::new(rules)));
    }

    fn random_rule(&mut self, number: usize) -> String {
        let mut text = format!("[[rule]]\nname = \"{number}\"\n");
        let mut add_line = |line: String| text.push_str(&(line + "\n"));
        let rng = &mut self.rng;
        match rng.below(4) {
            0 => {}
            1 => add_line(format!("area = {{ parcels = [\"{},{}..9,9\"] }}", rng.below(9), rng.below(9))),
            _ => {
                let (x, z, radius) = (rng.below(240), rng.below(240), 10 + rng.below(90));
                add_line(format!("area = {{ circle = {{ center = [{x}, {z}], radius_m = {radius} }} }}"));
                if rng.below(3) == 0 {
                    add_line("exclusive = false".into());
                }
            }
        }
        let counted = rng.below(3) == 0;
        if counted {
            add_line(format!("people = {{ min = {}, max = {} }}", rng.below(4), 3 + rng.below(9)));
        }
        if rng.below(5) == 0 {
            add_line(format!("crowding = {{ min = {} }}", rng.below(20)));
        }
        if rng.below(5) == 0 {
            add_line("hours = \"08:00-20:00\"".into());
        }
        if !counted && rng.below(3) == 0 {
            let join = 5 + rng.below(100);
            add_line(format!("join_distance_m = {join}\nleave_distance_m = {}", join + rng.below(40)));
        }
        if rng.below(3) == 0 {
            add_line(format!("island_size = {}", 1 + rng.below(12)));
        }
        match rng.below(6) {
            0 => add_line("voice = \"none\"".into()),
            1 => add_line("video = true".into()),
            2 => add_line("voice = \"everyone\"\nvideo = false".into()),
            _ => {}
        }
        match rng.below(4) {
            0 => add_line("transports = [\"livekit\"]".into()),
            1 => add_line("transports = [\"p2p\", \"ws-room\"]".into()),
            2 => add_line("transports = [{ node = \"w2\" }]".into()),
            _ => {}
        }
        text
    }

    pub(crate) fn announce_nodes(&mut self, change: bool) {
        let kinds = [
            ("w1", TransportKind::WsRoom),
            ("w2", TransportKind::WsRoom),
            ("l", TransportKind::LiveKit),
            ("p", TransportKind::P2p),
        ];
        for (index, (name, kind)) in kinds.into_iter().enumerate() {
            // The first node is always present and never full.
            let (present, draining) = match index {
                0 => (true, false),
                _ => (!change || self.rng.below(6) > 0, change && self.rng.below(6) == 0),
            };
            if !present {
                self.handle(Input::TransportGone { node: name.parse().unwrap() });
                continue;
            }
            self.handle(Input::Transport(Transport {
                node: name.parse().unwrap(),
                kind,
                capability: kind.as_str().into(),
                max_island_size: if kind == TransportKind::P2p { 4 } else { 100 },
                seats: (index > 0).then_some(12),
                users: 0,
                draining,
                public_url: "ws://localhost".into(),
                started_ms: 0,
                note: None,
            }));
        }
    }

    /// Each peer acts at random: it leaves, signs in, jumps, walks or does nothing.
    fn act_randomly(&mut self) {
        for index in 0..self.positions.len() {
            let peer = address(index as u32);
            match (self.rng.below(40), self.positions[index]) {
                (0, Some(_)) => {
                    self.positions[index] = None;
                    self.handle(Input::Disconnected { peer, session: None });
                }
                (1, _) => {
                    let lists: [&[&str]; 4] =
                        [&[], &["ws-room"], &["livekit"], &["ws-room", "p2p", "livekit"]];
                    let list = match self.rng.below(4) {
                        0 if !self.clients_without_transports => lists[3],
                        index => lists[index],
                    };
                    let list = list.iter().map(|&name| name.to_owned()).collect();
                    self.handle(Input::Connected {
                        peer,
                        session: None,
                        transports: Some(list),
                        resumes: None,
                    });
                    self.positions[index] = Some(self.random_position());
                }
                (2..4, _) | (_, None) => self.positions[index] = Some(self.random_position()),
                (4..24, Some((x, z))) => {
                    let (dx, dz) = (self.rng.range(-5.0, 5.0), self.rng.range(-5.0, 5.0));
                    self.positions[index] = Some((x + dx, z + dz));
                }
                _ => {}
            }
        }
        self.send_heartbeats();
    }

    fn send_heartbeats(&mut self) {
        for index in 0..self.positions.len() {
            if let Some((x, z)) = self.positions[index] {
                let position = Position::new(x as f32, 0.0, z as f32);
                let peer = address(index as u32);
                self.handle(Input::Heartbeat(Heartbeat::new(peer, position)));
            }
        }
    }
}
