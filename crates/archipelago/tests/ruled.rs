//! Random crowds under random rules: after every flush all invariants hold, and when nothing changes
//! any more nothing is announced.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use archipelago::{
    Engine, Input, Output, Settings, Transport, TransportKind,
    invariants::Witness,
    rules::Rules,
    sim::{Rng, address},
};
use protocol::Position;

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const SIDE_M: f64 = 240.0;

struct Story {
    rng: Rng,
    engine: Engine,
    witness: Witness,
    now: Duration,
    places: Vec<Option<(f64, f64)>>,
    outputs: Vec<Output>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let settings = Settings { max_island_size: 2 + rng.below(9) as u32, ..Settings::default() };
        let people = 4 + rng.below(36);
        Self {
            engine: Engine::new(settings, 0).unwrap(),
            witness: Witness::default(),
            now: Duration::from_secs(1_000),
            places: vec![None; people],
            outputs: Vec::new(),
            rng,
        }
    }

    fn handle(&mut self, input: Input) {
        self.witness.hear(&input);
        self.engine.handle(input, self.now);
    }

    fn flush(&mut self) {
        self.now += FLUSH_INTERVAL;
        self.outputs.clear();
        self.engine.flush(self.now, &mut self.outputs);
        let seen = self.witness.see(&self.engine, &self.outputs);
        seen.unwrap_or_else(|violation| panic!("{violation}\n{:#?}", self.engine.rules()));
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

    fn nodes(&mut self, change: bool) {
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
                    let list = lists[self.rng.below(4)].iter().map(|&name| name.to_owned()).collect();
                    self.handle(Input::Connected { peer, session: None, transports: Some(list) });
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

    fn play(&mut self) {
        self.nodes(false);
        for step in 0..60 {
            if step % 20 == 0 {
                self.rules();
            }
            if step % 7 == 0 {
                self.nodes(true);
            }
            if step % 11 == 0 {
                let minute = self.rng.below(24 * 60) as u16;
                self.handle(Input::TimeOfDay { minute });
            }
            self.stir();
            self.flush();
        }
        // Nothing changes any more. Every timer ends within a minute: each island is moved at most
        // once in ten seconds, and what one leaves another may take.
        for _ in 0..240 {
            self.nodes(false);
            self.speak();
            self.flush();
        }
        for _ in 0..80 {
            self.nodes(false);
            self.speak();
            self.flush();
            assert_eq!(self.outputs, [], "{:#?}", self.engine.rules());
        }
    }
}

#[test]
fn whatever_the_rules_nothing_is_seen_that_must_not_be_and_it_falls_silent() {
    for seed in 0..400 {
        let played = std::panic::catch_unwind(|| Story::new(seed).play());
        assert!(played.is_ok(), "seed {seed}");
    }
}
