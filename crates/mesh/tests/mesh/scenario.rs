//! Text scenarios: tests of the mesh that need no Rust.
//!
//! Each line is one step; `#` starts a comment. Peers have names of one letter: their addresses are in the order of the
//! alphabet, so that `a` is the lowest. The [invariants](crate::invariants) are checked after every `wait`.
//!
//! | Inputs | |
//! |---|---|
//! | `links 4 6`, `fallback 0`, `no-relay` | settings: number of links and its bound, members that a sender serves by fallback; they must come first |
//! | `join a 0 5`, `join a 0 5 offers` | a joins at x z (metres); it prefers to initiate |
//! | `join-fails a` | a cannot join because the mesh is full |
//! | `leave a`, `move a 0 5` | |
//! | `cut a b`, `mend a b` | the link of a and b cannot be up; it can again |
//! | `silence a` | a reports nothing from here on and holds no links |
//! | `restart` | the mesh is restored from the reports of its members |
//! | `limits 3 relay`, `limits 3 no-relay` | the most links and the relay change |
//! | `wait 5s`, `wait 200ms` | time passes: peers link as their plans state, and report |
//!
//! | Expectations | |
//! |---|---|
//! | `links-of a b c` | a should have links to exactly these |
//! | `linked a b`, `not-linked a b` | a and b should have a link, or not |
//! | `hops a b 2` | b receives packets of a over so many links |
//! | `fallback-of a b c` | a has no path to exactly these |
//! | `initiates a b` | a makes the offer for the link of both |
//! | `alias a 3` | |
//! | `never-reported a` | exactly these members are silent and have never reported |
//!
//! and about the outputs of the last `wait`:
//!
//! | | |
//! |---|---|
//! | `plans a b` | exactly these were sent plans; `plans`: none was |
//! | `failure unserved`, `failure share`, `failure none` | the mesh reported this failure once, or none |

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use mesh::{Failure, FailureCause, Plan, Settings};
use protocol::Address;

use crate::{
    invariants::{check, forwarded},
    world::{World, address_in, own_fallback},
};

#[test]
fn every_scenario_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "scenario files are missing");
    let results = files.iter().map(|file| (file, run(&fs::read_to_string(file).unwrap())));
    let failures: Vec<String> = results
        .filter_map(|(file, result)| Some(format!("{}, {}", file.file_name()?.display(), result.err()?)))
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn failing_scenario_reports_its_line() {
    for (text, line) in [
        ("join a 0 0\njoin b 1 0\nwait 1s\nlinks-of a", 4),
        ("join a 0 0\n# nothing\nwait 1s\nplans", 4),
        ("jump a", 1),
        ("join a 0", 1),
        ("join a 0 0\nwait 1s\nfailure share", 3),
    ] {
        assert!(run(text).unwrap_err().starts_with(&format!("line {line}: ")), "{text}");
    }
}

/// Runs a scenario; the error names the first line that cannot be parsed or does not hold.
fn run(text: &str) -> Result<(), String> {
    let mut runner =
        Runner { settings: Settings::default(), world: None, plans: Vec::new(), failures: Vec::new() };
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let tokens: Vec<&str> = line.split_whitespace().collect();
        if !tokens.is_empty() {
            runner.run_step(&tokens).map_err(|reason| format!("line {number}: {reason}"))?;
        }
    }
    Ok(())
}

struct Runner {
    settings: Settings,
    world: Option<World>,
    plans: Vec<(Address, Plan)>,
    failures: Vec<Failure>,
}

fn address(name: &str) -> Result<Address, String> {
    match name.as_bytes() {
        &[letter] if letter.is_ascii_lowercase() => Ok(Address::new([letter; 20])),
        _ => Err(format!("`{name}` is not the name of a peer: expected one letter")),
    }
}

fn name(address: Address) -> String {
    char::from(address.as_bytes()[0]).to_string()
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(milliseconds), _) => number(milliseconds).map(Duration::from_millis),
        (None, Some(seconds)) => number(seconds).map(Duration::from_secs),
        _ => Err(format!("`{text}` is not a duration: expected 250ms or 5s")),
    }
}

fn ensure(condition: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(reason()) }
}

fn ensure_equal<T: PartialEq + std::fmt::Debug>(actual: T, expected: T) -> Result<(), String> {
    ensure(actual == expected, || format!("expected {expected:?}, got {actual:?}"))
}

fn names(tokens: &[&str]) -> BTreeSet<String> {
    tokens.iter().map(|&token| token.to_owned()).collect()
}

impl Runner {
    fn world(&mut self) -> &mut World {
        self.world.get_or_insert_with(|| World::new(self.settings.clone()))
    }

    fn run_step(&mut self, tokens: &[&str]) -> Result<(), String> {
        match *tokens {
            ["links", target, max] => {
                (self.settings.target_links, self.settings.max_links) = (number(target)?, number(max)?);
            }
            ["fallback", members] => self.settings.max_fallback = number(members)?,
            ["no-relay"] => self.settings.relay = false,
            ["join", peer, x, z] => self.join(peer, x, z, false)?,
            ["join", peer, x, z, "offers"] => self.join(peer, x, z, true)?,
            ["join-fails", peer] => {
                if self.join(peer, "0", "0", false).is_ok() {
                    return Err(format!("{peer} joined"));
                }
            }
            ["leave", peer] => self.world().leave(address(peer)?),
            ["move", peer, x, z] => self.world().move_to(address(peer)?, number(x)?, number(z)?),
            ["cut", a, b] => self.world().set_cut(address(a)?, address(b)?, true),
            ["mend", a, b] => self.world().set_cut(address(a)?, address(b)?, false),
            ["silence", peer] => self.world().set_silent(address(peer)?),
            ["restart"] => self.world().restore(),
            ["limits", max, relay] => {
                (self.settings.max_links, self.settings.relay) = (number(max)?, relay == "relay");
                let Settings { max_links, relay, .. } = self.settings;
                self.world().set_limits(max_links, relay);
            }
            ["wait", time] => self.wait(duration(time)?),
            _ => return self.expect(tokens),
        }
        Ok(())
    }

    fn join(&mut self, peer: &str, x: &str, z: &str, offers: bool) -> Result<(), String> {
        let (peer, x, z) = (address(peer)?, number(x)?, number(z)?);
        self.world().join(peer, x, z, offers).map(|_| ()).map_err(|error| error.to_string())
    }

    fn wait(&mut self, time: Duration) {
        let (max_links, relay) = (self.settings.max_links, self.settings.relay);
        let world = self.world();
        world.take_outputs();
        world.wait(time);
        // Peers may be about to report a change of this moment.
        if time >= Duration::from_secs(1) {
            check(world, max_links, relay);
        }
        (self.plans, self.failures) = self.world().take_outputs();
    }

    fn plan(&mut self, peer: &str) -> Result<Plan, String> {
        let peer = address(peer)?;
        let plan = self.world().peers.get(&peer).and_then(|peer| peer.plan.clone());
        plan.ok_or_else(|| format!("{} has no plan", name(peer)))
    }

    fn expect_linked(&mut self, a: &str, b: &str, is_linked: bool) -> Result<(), String> {
        let targets = self.world().targets(address(a)?);
        let links: Vec<String> = targets.iter().copied().map(name).collect();
        ensure(targets.contains(&address(b)?) == is_linked, || format!("{a} has links to {links:?}"))
    }

    fn expect(&mut self, tokens: &[&str]) -> Result<(), String> {
        match *tokens {
            ["links-of", peer, ref others @ ..] => {
                let peer = address(peer)?;
                let links: BTreeSet<String> = self.world().targets(peer).into_iter().map(name).collect();
                ensure_equal(links, names(others))
            }
            ["linked", a, b] => self.expect_linked(a, b, true),
            ["not-linked", a, b] => self.expect_linked(a, b, false),
            ["hops", from, to, hops] => {
                let (from, to) = (self.plan(from)?.alias, self.plan(to)?.alias);
                let received: BTreeMap<_, _> = forwarded(self.world(), from);
                ensure_equal(received.get(&to).copied(), Some(number(hops)?))
            }
            ["fallback-of", peer, ref others @ ..] => {
                let plan = self.plan(peer)?;
                let unreached = own_fallback(&plan).iter().filter_map(|&alias| address_in(&plan, alias));
                ensure_equal(unreached.map(name).collect(), names(others))
            }
            ["initiates", a, b] => {
                let (plan, other) = (self.plan(a)?, self.plan(b)?.alias);
                let link = plan.links.iter().find(|link| link.alias == other);
                ensure_equal(link.map(|link| link.initiate), Some(true))
            }
            ["alias", peer, alias] => {
                let peer = address(peer)?;
                ensure_equal(self.world().mesh.alias(peer), Some(number(alias)?))
            }
            ["never-reported", ref peers @ ..] => {
                let now = self.world().now;
                let silent = self.world().mesh.silent_members(now);
                let silent = silent.filter(|member| member.last_report.is_none());
                ensure_equal(silent.map(|member| name(member.address)).collect(), names(peers))
            }
            ["plans", ref peers @ ..] => {
                ensure_equal(self.plans.iter().map(|&(peer, _)| name(peer)).collect(), names(peers))
            }
            ["failure", cause] => self.expect_failure(cause),
            _ => Err(format!("`{}` is not a step", tokens.join(" "))),
        }
    }

    fn expect_failure(&self, cause: &str) -> Result<(), String> {
        let expected = match cause {
            "none" => vec![],
            "unserved" => vec![FailureCause::Unserved],
            "share" => vec![FailureCause::FallbackShare],
            _ => return Err(format!("`{cause}` is not unserved, share or none")),
        };
        ensure_equal(self.failures.iter().map(|failure| failure.cause).collect(), expected)
    }
}
