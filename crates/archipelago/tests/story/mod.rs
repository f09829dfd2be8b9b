//! Random crowds under random rules.

// No test uses all of it.
#![allow(dead_code)]

mod chronicle;

use std::{sync::Arc, time::Duration};

use archipelago::{
    Engine, Input, Output, Settings, Transport, TransportKind,
    invariants::InvariantChecker,
    rules::Rules,
    sim::{Rng, address},
};
use chronicle::Chronicle;
use protocol::Position;

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const SIDE_M: f64 = 240.0;

pub(crate) struct Story {
    pub(crate) rng: Rng,
    pub(crate) engine: Engine,
    pub(crate) witness: InvariantChecker,
    pub(crate) now: Duration,
    pub(crate) places: Vec<Option<(f64, f64)>>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) chronicle: Chronicle,
    /// There are clients that can join nothing, and so are told nothing.
    pub(crate) deaf_clients: bool,
    engines: u64,
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let settings = Settings { max_island_size: 2 + rng.below(9) as u32, ..Settings::default() };
        let people = 4 + rng.below(36);
        Self {
            engine: Engine::new(settings, 0).unwrap(),
            witness: InvariantChecker::default(),
            now: Duration::from_secs(1_000),
            places: vec![None; people],
            outputs: Vec::new(),
            chronicle: Chronicle::default(),
            deaf_clients: true,
            engines: 1,
            rng,
        }
    }

    fn handle(&mut self, input: Input) {
        self.witness.observe_input(&input);
        self.chronicle.hear(&input, self.now);
        self.engine.handle(input, self.now);
    }

    pub(crate) fn flush(&mut self) {
        self.now += FLUSH_INTERVAL;
        self.outputs.clear();
        self.engine.flush(self.now, &mut self.outputs);
        let seen = self.witness.check_flush(&self.engine, &self.outputs);
        seen.unwrap_or_else(|violation| panic!("{violation}\n{:#?}", self.engine.rules()));
        self.chronicle.see(&self.outputs);
    }

    /// Another engine takes over, which knows what the chronicle does.
    pub(crate) fn take_over(&mut self) {
        let settings = self.engine.settings().clone();
        let takeover = self.chronicle.takeover();
        self.engine = Engine::resume(settings, self.engines, takeover, self.now).unwrap();
        self.engines += 1;
        self.witness.observe_takeover();
    }

    /// Much happens, and at times there are other rules, nodes and hours.
    pub(crate) fn stir_up(&mut self, step: u32) {
        if step.is_multiple_of(20) {
            self.rules();
        }
        if step.is_multiple_of(7) {
            self.nodes(true);
        }
        if step.is_multiple_of(11) {
            let minute = self.rng.below(24 * 60) as u16;
            self.handle(Input::TimeOfDay { minute });
        }
        self.stir();
        self.flush();
    }

    /// A moment in which nothing changes.
    pub(crate) fn stand_still(&mut self) {
        self.nodes(false);
        self.speak();
        self.flush();
    }

    /// Nothing changes any more. Every timer ends within a minute: each island is moved at most once
    /// in ten seconds, and what one leaves another may take.
    pub(crate) fn settle(&mut self) {
        (0..240).for_each(|_| self.stand_still());
    }

    fn somewhere(&mut self) -> (f64, f64) {
        (self.rng.range(0.0, SIDE_M), self.rng.range(0.0, SIDE_M))
    }

    fn rules(&mut self) {
        let text: String = (0..self.rng.below(6)).map(|number| self.rule(number)).collect();
        let rules = Rules::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        self.handle(Input::Rules(Arc::new(rules)));
    }

    fn rule(&mut self, number: usize) -> String {
        let mut text = format!("[[rule]]\nname = \"{number}\"\n");
        let mut say = |line: String| text.push_str(&(line + "\n"));
        let rng = &mut self.rng;
        match rng.below(4) {
            0 => {}
            1 => say(format!("area = {{ parcels = [\"{},{}..9,9\"] }}", rng.below(9), rng.below(9))),
            _ => {
                let (x, z, radius) = (rng.below(240), rng.below(240), 10 + rng.below(90));
                say(format!("area = {{ circle = {{ center = [{x}, {z}], radius_m = {radius} }} }}"));
                if rng.below(3) == 0 {
                    say("exclusive = false".into());
                }
            }
        }
        let counted = rng.below(3) == 0;
        if counted {
            say(format!("people = {{ min = {}, max = {} }}", rng.below(4), 3 + rng.below(9)));
        }
        if rng.below(5) == 0 {
            say(format!("crowding = {{ min = {} }}", rng.below(20)));
        }
        if rng.below(5) == 0 {
            say("hours = \"08:00-20:00\"".into());
        }
        if !counted && rng.below(3) == 0 {
            let join = 5 + rng.below(100);
            say(format!("join_distance_m = {join}\nleave_distance_m = {}", join + rng.below(40)));
        }
        if rng.below(3) == 0 {
            say(format!("island_size = {}", 1 + rng.below(12)));
        }
        match rng.below(4) {
            0 => say("transports = [\"livekit\"]".into()),
            1 => say("transports = [\"p2p\", \"ws-room\"]".into()),
            2 => say("transports = [{ node = \"w2\" }]".into()),
            _ => {}
        }
        text
    }

    pub(crate) fn nodes(&mut self, change: bool) {
        let kinds = [
            ("w1", TransportKind::WsRoom),
            ("w2", TransportKind::WsRoom),
            ("l", TransportKind::LiveKit),
            ("p", TransportKind::P2p),
        ];
        for (index, (name, kind)) in kinds.into_iter().enumerate() {
            // One is always there, and never full.
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
            }));
        }
    }

    /// Everybody does what chance wants.
    fn stir(&mut self) {
        for person in 0..self.places.len() {
            let peer = address(person as u32);
            match (self.rng.below(40), self.places[person]) {
                (0, Some(_)) => {
                    self.places[person] = None;
                    self.handle(Input::Disconnected { peer, session: None });
                }
                (1, _) => {
                    let lists: [&[&str]; 4] =
                        [&[], &["ws-room"], &["livekit"], &["ws-room", "p2p", "livekit"]];
                    let list = match self.rng.below(4) {
                        0 if !self.deaf_clients => lists[3],
                        index => lists[index],
                    };
                    let list = list.iter().map(|&name| name.to_owned()).collect();
                    self.handle(Input::Connected {
                        peer,
                        session: None,
                        transports: Some(list),
                        resumes: None,
                    });
                    self.places[person] = Some(self.somewhere());
                }
                (2..4, _) | (_, None) => self.places[person] = Some(self.somewhere()),
                (4..24, Some((x, z))) => {
                    let (dx, dz) = (self.rng.range(-5.0, 5.0), self.rng.range(-5.0, 5.0));
                    self.places[person] = Some((x + dx, z + dz));
                }
                _ => {}
            }
        }
        self.speak();
    }

    fn speak(&mut self) {
        for person in 0..self.places.len() {
            if let Some((x, z)) = self.places[person] {
                let position = Position::new(x as f32, 0.0, z as f32);
                let peer = address(person as u32);
                self.handle(Input::Heartbeat { peer, session: None, position, desired_room: None });
            }
        }
    }
}
