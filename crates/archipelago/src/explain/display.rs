//! Explanations as text. The first line is the cause and the summary; the facts follow, indented.

use std::fmt::{self, Display, Formatter};

use super::{
    answer::Explanation,
    facts::{IslandFacts, PeerFacts, PositionFacts, RuleFacts},
};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.cause, self.summary)?;
        if let Some(place) = &self.place {
            place.fmt(f)?;
        }
        self.peers.iter().try_for_each(|peer| peer.fmt(f))?;
        self.islands.iter().try_for_each(|island| island.fmt(f))
    }
}

fn list(names: &[String], none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(", ") }
}

fn write_rules(f: &mut Formatter<'_>, rules: &[RuleFacts]) -> fmt::Result {
    rules.iter().try_for_each(|RuleFacts { name, matches, reason }| {
        let sign = if *matches { '+' } else { '-' };
        writeln!(f, "  {sign} rule `{name}`: {reason}")
    })
}

impl Display for PositionFacts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ([x, z], [parcel_x, parcel_z]) = (self.at, self.parcel);
        writeln!(f, "position {x},{z} in parcel {parcel_x},{parcel_z}")?;
        writeln!(f, "  areas: {}", list(&self.areas, "none"))?;
        writeln!(
            f,
            "  join distance {} m, leave distance {} m, at most {} members in an island",
            self.join_distance_m, self.leave_distance_m, self.limit
        )?;
        write_rules(f, &self.rules)
    }
}

impl Display for PeerFacts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.position;
        writeln!(f, "peer {}", self.address)?;
        let world = if self.present { "in the world" } else { "not in the world" };
        writeln!(f, "  {world}, last message {:.1} s ago, at {x},{y},{z}", self.heard_s_ago)?;
        if let Some(session) = &self.session {
            writeln!(f, "  session {session}")?;
        }
        if let Some(ago) = self.replaced_session_heard_s_ago {
            writeln!(f, "  a replaced session sent a heartbeat {ago:.1} s ago")?;
        }
        writeln!(f, "  can join {}", list(&self.can_join, "no available transport"))?;
        writeln!(f, "  areas in effect: {}", list(&self.areas, "none"))?;
        if let (Some(areas), Some(due)) = (&self.stands_in, self.counts_in_s) {
            writeln!(f, "  is in areas: {}, in effect in {due:.1} s", list(areas, "none"))?;
        }
        if let Some(room) = &self.desired_room {
            writeln!(f, "  prefers {room}")?;
        }
        match (&self.told_island, &self.told_node) {
            (Some(island), Some(node)) => writeln!(f, "  last assignment: {island} on {node}"),
            (Some(island), None) => writeln!(f, "  last assignment: {island}, without a place in its room"),
            (None, _) => writeln!(f, "  no assignment yet"),
        }
    }
}

impl Display for IslandFacts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let node = self.node.as_ref().map_or("no transport".to_owned(), ToString::to_string);
        writeln!(f, "island {}, {} of at most {} members, on {node}", self.id, self.size, self.limit)?;
        writeln!(f, "  areas: {}", list(&self.areas, "none"))?;
        writeln!(f, "  all members can join {}", list(&self.can_join, "no available transport"))?;
        if let Some(ago) = self.moved_s_ago {
            writeln!(f, "  moved {ago:.1} s ago")?;
        }
        let rule =
            self.rule.as_ref().map_or("no rule decides".to_owned(), |rule| format!("rule `{rule}` decides"));
        writeln!(f, "  {rule}")?;
        write_rules(f, &self.rules)?;
        if let Some((next, due)) = &self.next_rule {
            let next = next.as_ref().map_or("no rule".to_owned(), |rule| format!("rule `{rule}`"));
            writeln!(f, "  {next} decides in {due:.1} s if nothing changes")?;
        }
        for candidate in &self.candidates {
            let sign = if candidate.fits { '+' } else { '-' };
            let by = if candidate.by_rule { "" } else { " (default)" };
            let node = candidate.node.as_ref().map_or(String::new(), |node| format!(" {node}"));
            writeln!(f, "  {sign} {}{node}{by}: {}", candidate.choice, candidate.reason)?;
        }
        match self.better_for_s {
            Some(seconds) => writeln!(f, "  a better node has been available for {seconds:.1} s"),
            None => Ok(()),
        }
    }
}
