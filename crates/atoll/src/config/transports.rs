//! Converts the settings of nodes that do not announce themselves to the director's types.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
};

use director::{ConfiguredNode, TransportOffer};
use protocol::NodeName;
use reqwest::Url;
use transports::{external::Template, livekit, p2p};

use super::{
    Settings,
    nodes::{External, LiveKit, P2p},
    roles::{list, room_nodes, seconds},
    urls::is_url,
};

/// The maximum of distinct protocols of external nodes: a client announces at most eight, and three are
/// built in.
const MAX_EXTERNAL_PROTOCOLS: usize = 5;

/// The configured nodes. Adds problems to `problems`.
pub(super) fn configured(settings: &Settings, problems: &mut Vec<String>) -> Vec<ConfiguredNode> {
    let mut nodes = NodeReader { problems, used_names: HashMap::new() };
    // The syntax of these names is checked with the other settings of rooms.
    nodes.used_names.extend(room_nodes(&settings.rooms).map(|name| (name, "rooms.node".to_owned())));
    let mut configured: Vec<ConfiguredNode> =
        settings.livekit.iter().filter_map(|(node, livekit)| nodes.livekit(node, livekit)).collect();
    configured.extend(nodes.p2p(&settings.p2p));
    configured.extend(settings.external.iter().filter_map(|(node, external)| nodes.external(node, external)));
    let protocols: BTreeSet<&str> = configured
        .iter()
        .filter_map(|node| match &node.offer {
            TransportOffer::External(template) => Some(template.protocol()),
            _ => None,
        })
        .collect();
    let named = protocols.iter().copied().collect::<Vec<_>>().join(", ");
    let rule = format!("there may be at most {MAX_EXTERNAL_PROTOCOLS} protocols");
    nodes.check(protocols.len() <= MAX_EXTERNAL_PROTOCOLS, "external", &named, &rule);
    configured
}

/// Reads the nodes one by one.
struct NodeReader<'a> {
    problems: &'a mut Vec<String>,
    /// The names of the nodes so far, and the settings that have them.
    used_names: HashMap<String, String>,
}

impl NodeReader<'_> {
    fn check(&mut self, holds: bool, key: &str, value: &dyn Display, rule: &str) {
        if !holds {
            self.problems.push(format!("{key} = {value}: {rule}"));
        }
    }

    /// The name of a node, if it is valid and unique.
    fn name(&mut self, node: &str, key: &str) -> Option<NodeName> {
        match node.parse() {
            Ok(name) => match self.used_names.insert(node.to_owned(), key.to_owned()) {
                None => Some(name),
                Some(other) => {
                    self.problems.push(format!("{key}: {node} is also the name of {other}"));
                    None
                }
            },
            Err(error) => {
                self.problems.push(format!("{key} = {node}: {error}"));
                None
            }
        }
    }

    fn livekit(&mut self, node: &str, settings: &LiveKit) -> Option<ConfiguredNode> {
        let table = format!("livekit.{node}");
        let key = |name: &str| format!("{table}.{name}");
        let LiveKit { url, api_url, api_key, api_secret, .. } = settings;
        let bare = |url: Url| url.query().is_none() && url.fragment().is_none();
        let reachable = is_url(url, &["ws", "wss"]) && Url::parse(url).is_ok_and(bare);
        let rule = "must be a URL that begins with ws:// or wss://, without a query";
        self.check(reachable, &key("url"), &quoted(url), rule);
        // ws becomes http and wss https.
        let derived = api_url.is_empty();
        let api_url = if derived { url.replacen("ws", "http", 1) } else { api_url.clone() };
        let rule = "must be http:// or https:// and a host, without a path; empty: from the url";
        // A problem of `url` has been reported above.
        self.check(derived && !reachable || is_api_url(&api_url), &key("api_url"), &quoted(&api_url), rule);
        self.check(!api_key.is_empty(), &key("api_key"), &quoted(api_key), "must be set");
        self.check(!api_secret.is_empty(), &key("api_secret"), &quoted(""), "must be set");
        self.at_least_1(&key("max_island_size"), settings.max_island_size.into());
        self.at_least_1(&key("token_ttl_s"), settings.token_ttl_s);
        let keys = livekit::Keys::new(api_key, api_secret);
        Some(ConfiguredNode {
            node: self.name(node, &table)?,
            offer: TransportOffer::LiveKit {
                url: url.clone(),
                api_url,
                keys,
                token_ttl: seconds(settings.token_ttl_s),
                probed: settings.probe,
            },
            max_island_size: settings.max_island_size,
            max_users: limit(settings.max_users),
            draining: settings.draining,
        })
    }

    fn p2p(&mut self, settings: &P2p) -> Option<ConfiguredNode> {
        self.at_least_1("p2p.max_island_size", settings.max_island_size.into());
        self.at_least_1("p2p.turn_ttl_s", settings.turn_ttl_s);
        let (stun, turn) = (list(&settings.stun), list(&settings.turn));
        for url in &stun {
            self.check(is_ice_url(url, ["stun:", "stuns:"]), "p2p.stun", url, "must be stun: and a host");
        }
        for url in &turn {
            self.check(is_ice_url(url, ["turn:", "turns:"]), "p2p.turn", url, "must be turn: and a host");
        }
        let (secret, ttl) = (settings.turn_secret.clone(), seconds(settings.turn_ttl_s));
        let rule = "must be set, to generate users for the servers of p2p.turn";
        self.check(turn.is_empty() || !secret.is_empty(), "p2p.turn_secret", &quoted(""), rule);
        let turn = (!turn.is_empty()).then_some(p2p::TurnServers { urls: turn, secret, ttl });
        Some(ConfiguredNode {
            node: self.name(&settings.node, "p2p.node")?,
            offer: TransportOffer::P2p(p2p::Minter { stun, turn }),
            max_island_size: settings.max_island_size,
            max_users: None,
            draining: false,
        })
    }

    fn external(&mut self, node: &str, settings: &External) -> Option<ConfiguredNode> {
        let table = format!("external.{node}");
        self.at_least_1(&format!("{table}.max_island_size"), settings.max_island_size.into());
        let template = settings.template.parse::<Template>();
        let rule = template.as_ref().err().map(ToString::to_string).unwrap_or_default();
        self.check(template.is_ok(), &format!("{table}.template"), &quoted(&settings.template), &rule);
        Some(ConfiguredNode {
            node: self.name(node, &table)?,
            offer: TransportOffer::External(template.ok()?),
            max_island_size: settings.max_island_size,
            max_users: limit(settings.max_users),
            draining: settings.draining,
        })
    }

    fn at_least_1(&mut self, key: &str, value: u64) {
        self.check(value > 0, key, &value, "must be at least 1");
    }
}

/// A limit; 0 means no limit.
fn limit(max_users: u32) -> Option<u32> {
    (max_users > 0).then_some(max_users)
}

/// The text in quotes, so that an empty one is visible.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Whether the URL has no path: the paths of LiveKit's API are fixed, and would replace it.
fn is_api_url(text: &str) -> bool {
    let bare = |url: Url| url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    is_url(text, &["http", "https"]) && Url::parse(text).is_ok_and(bare)
}

fn is_ice_url(text: &str, schemes: [&str; 2]) -> bool {
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests;
