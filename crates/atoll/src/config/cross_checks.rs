//! The rules about settings of several sections.

use std::collections::{BTreeSet, HashMap};

use super::{
    problems::Problems,
    room_names::{can_be_island, can_match_island},
    settings::Settings,
};
use crate::role::Role;

/// The maximum of distinct protocols of external nodes: a client announces at most eight, and three are
/// built in.
const MAX_EXTERNAL_PROTOCOLS: usize = 5;

/// Reports the rules that the settings break.
pub(super) fn check(settings: &Settings, problems: &mut Problems) {
    check_roles(settings, problems);
    check_times(settings, problems);
    check_room_names(settings, problems);
    check_node_names(settings, problems);
    check_protocols(settings, problems);
    check_livekit_proxies(settings, problems);
}

/// The settings that a process needs for its roles.
fn check_roles(settings: &Settings, problems: &mut Problems) {
    let Settings { server, bus, realm, rooms, .. } = settings;
    let roles = server.roles();
    let all_roles = roles.is_empty() || roles == Role::ALL;
    let rule = "needs bus.url (--bus), which connects the roles of several processes; without it, one process runs all roles";
    problems.check(all_roles || bus.url.is_shared(), "server.roles", server.roles.text(), rule);
    let runs = |role| roles.contains(&role);
    let signs = runs(Role::Director) || runs(Role::Gateway) && realm.fixed_room.is_some();
    let shared = bus.url.is_shared() && (signs || runs(Role::Rooms));
    let rule = "must be set, and be the same in every process: make one with `openssl rand -hex 32`";
    problems.check(!shared || !rooms.token_secrets().is_empty(), "rooms.token_secrets", "\"\"", rule);
}

/// Times that depend on each other.
fn check_times(settings: &Settings, problems: &mut Problems) {
    let Settings { identity, gateway, rooms, islands, stats, .. } = settings;
    let timeout = identity.ethereum_timeout_ms;
    let shortest = gateway.handshake_timeout_s.min(rooms.handshake_timeout_s);
    let in_time = identity.ethereum_rpc_url.is_empty() || timeout < shortest.millis();
    let rule = "must be below gateway.handshake_timeout_s and rooms.handshake_timeout_s";
    problems.check(in_time, "identity.ethereum_timeout_ms", timeout.0, rule);
    // A repetition may be late by a whole interval.
    let interval = gateway.vouch_interval_s;
    let in_time = interval.0.saturating_mul(2) <= islands.silence_s.0;
    let rule = "must be at most half of islands.silence_s, or quiet clients are removed";
    problems.check(in_time, "gateway.vouch_interval_s", interval.0, rule);
    let interval = islands.report_interval_ms;
    let in_time = interval < stats.report_timeout_s.millis();
    let rule = "must be below stats.report_timeout_s, or islands disappear from presence between two reports";
    problems.check(in_time, "islands.report_interval_ms", interval.0, rule);
}

/// Configured rooms have no names that islands can have.
fn check_room_names(settings: &Settings, problems: &mut Problems) {
    let prefix = &settings.islands.id_prefix;
    let rule = "islands can have such names, and their rooms are entered with a token only";
    for rooms in settings.rooms.open.iter() {
        problems.check(!can_match_island(&rooms.text, prefix), "rooms.open", &rooms.text, rule);
    }
    if let Some(room) = &*settings.realm.fixed_room {
        let free = !can_be_island(room.as_str(), prefix);
        problems.check(free, "realm.fixed_room", room, "an island can have this name");
    }
}

/// No two nodes have the same name.
fn check_node_names(settings: &Settings, problems: &mut Problems) {
    // The names so far, and the settings that have them.
    let mut used: HashMap<String, String> =
        settings.rooms.names().map(|name| (name, "rooms.node".to_owned())).collect();
    let livekit = settings.livekit.keys().map(|node| (node, format!("livekit.{node}")));
    let p2p = std::iter::once((&settings.p2p.node, "p2p.node".to_owned()));
    let external = settings.external.keys().map(|node| (node, format!("external.{node}")));
    for (node, key) in livekit.chain(p2p).chain(external) {
        if let Some(other) = used.insert(node.clone(), key.clone()) {
            problems.add(format!("{key}: {node} is also the name of {other}"));
        }
    }
}

/// The external nodes have few protocols.
fn check_protocols(settings: &Settings, problems: &mut Problems) {
    let protocols: BTreeSet<String> =
        settings.external.values().filter_map(|external| external.protocol()).collect();
    let named = protocols.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let rule = format_args!("there may be at most {MAX_EXTERNAL_PROTOCOLS} protocols");
    problems.check(protocols.len() <= MAX_EXTERNAL_PROTOCOLS, "external", named, rule);
}

/// No client is sent the URL of a server that clients reach through the signalling proxy only.
fn check_livekit_proxies(settings: &Settings, problems: &mut Problems) {
    let Settings { server, realm, livekit, external, .. } = settings;
    let roles = server.roles();
    for (node, proxied) in livekit.iter().filter(|(_, livekit)| livekit.proxy) {
        let key = format!("livekit.{node}.proxy");
        let knows_gateways = roles.contains(&Role::Gateway) || !realm.public_url.is_empty();
        let rule = "needs realm.public_url, under which clients reach the gateways";
        problems.check(knows_gateways || !roles.contains(&Role::Director), &key, true, rule);
        let address = proxied.address();
        let same = livekit.iter().filter(|(_, other)| !other.proxy && other.address() == address);
        let same = same.map(|(other, _)| format!("livekit.{other}"));
        let names_it = |text: &str| text.to_lowercase().contains(&address);
        let templates = external.iter().filter(|(_, external)| names_it(&external.template));
        let templates = templates.map(|(other, _)| format!("external.{other}.template"));
        let adapter = names_it(realm.fixed_adapter.text()).then(|| "realm.fixed_adapter".to_owned());
        for other in same.chain(templates).chain(adapter) {
            let rule = format!("clients are sent the URL of this server by {other}, past the proxy");
            problems.check(address.is_empty(), &key, true, rule);
        }
    }
}

#[cfg(test)]
mod tests;
