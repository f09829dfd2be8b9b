//! Which rules match, and the conditions of each.

use super::facts::{RuleFacts, seconds};
use crate::{
    engine::Engine,
    ids::ZoneIndex,
    rules::{CountRange, Distances, Rule},
};

impl Engine {
    /// The rules of a zone up to the first that matches an island of `size` members.
    pub(super) fn rules_tried(&self, zone: ZoneIndex, size: u32) -> Vec<RuleFacts> {
        let mut tried = Vec::new();
        for number in self.world.zones.rules_of(zone) {
            let rule = self.world.zones.rules().rule(number);
            let count = self.world.zones.crowding_count(number).unwrap_or_default();
            let (matches, reason) = if !rule.people.contains(size) {
                (false, format!("it applies to {} members, the island has {size}", rule.people))
            } else if !self.world.zones.crowding_holds(number) {
                let required = rule.crowding.map(|count| count.to_string()).unwrap_or_default();
                (false, format!("it applies to {required} peers in its area, there are {count}"))
            } else {
                (true, rule_conditions(rule))
            };
            tried.push(RuleFacts { name: rule.name.clone(), matches, reason });
            if matches {
                break;
            }
        }
        tried
    }
}

/// The conditions and effects of a rule, in one line.
pub(super) fn rule_conditions(rule: &Rule) -> String {
    let mut parts = Vec::new();
    if rule.people != CountRange::ANY {
        parts.push(format!("{} members", rule.people));
    }
    if let Some(crowding) = rule.crowding {
        parts.push(format!("{crowding} peers in its area"));
    }
    if let Some(hours) = rule.hours {
        parts.push(hours.to_string());
    }
    if let Some(transports) = &rule.transports {
        let names: Vec<String> = transports.iter().map(ToString::to_string).collect();
        parts.push(format!("prefers {}", names.join(", then ")));
    }
    if let Some(voice) = rule.voice {
        parts.push(format!("voice {voice}"));
    }
    if let Some(video) = rule.video {
        parts.push(format!("video {}", if video { "allowed" } else { "not allowed" }));
    }
    if let Some(links) = rule.max_links {
        parts.push(format!("at most {links} links of a member of a mesh"));
    }
    if let Some(relay) = rule.relay {
        parts.push(format!("meshes {} relay", if relay { "with" } else { "without" }));
    }
    if let Some(size) = rule.island_size {
        parts.push(format!("island size {size}"));
    }
    if let Some(Distances { join_m, leave_m }) = rule.distances {
        parts.push(format!("join distance {join_m} m, leave distance {leave_m} m"));
    }
    if let Some(settling) = rule.settling {
        parts.push(format!("settling time {} s", seconds(settling)));
    }
    if parts.is_empty() { "always".to_owned() } else { parts.join("; ") }
}
