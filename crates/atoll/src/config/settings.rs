//! All settings, as `atoll.toml` has them.

use std::collections::BTreeMap;

use director::ConfiguredNode;
use gateway::{CandidatePolicy, ProxiedServer};
use serde::{Deserialize, Serialize};

use super::{
    bus::Bus, client::Client, external::External, gateway::Gateway, identity::Identity, islands::Islands,
    livekit::LiveKit, log::Log, p2p::P2p, problems::Problems, realm::Realm, rooms::Rooms, rules::Rules,
    section::Section, server::Server, stats::Stats, urls,
};

/// All settings. [`Settings::default`] has the default of each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) server: Server,
    pub(crate) log: Log,
    pub(crate) bus: Bus,
    pub(crate) realm: Realm,
    pub(crate) identity: Identity,
    pub(crate) client: Client,
    pub(crate) gateway: Gateway,
    pub(crate) rooms: Rooms,
    /// By the name of the node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) livekit: BTreeMap<String, LiveKit>,
    pub(crate) p2p: P2p,
    /// By the name of the node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) external: BTreeMap<String, External>,
    pub(crate) islands: Islands,
    pub(crate) rules: Rules,
    pub(crate) stats: Stats,
}

/// The placeholder for the name of a node.
pub(super) const NODE_PLACEHOLDER: &str = "<node>";

impl Settings {
    /// Reports the values that break a rule of their section. The types of the settings check all others.
    pub(super) fn validate(&self, problems: &mut Problems) {
        for (name, table) in self.tables() {
            table.check_bounds(&name, problems);
        }
        self.server.validate(problems);
        self.bus.validate(problems);
        self.realm.validate(problems);
        self.identity.validate(problems);
        self.client.validate(problems);
        self.gateway.validate(problems);
        self.rooms.validate(problems);
        for (node, livekit) in &self.livekit {
            livekit.validate(&format!("livekit.{node}"), problems);
        }
        self.p2p.validate(problems);
        for (node, external) in &self.external {
            external.validate(&format!("external.{node}"), problems);
        }
        self.islands.validate(&self.client, problems);
        self.stats.validate(problems);
    }

    /// All tables by name, in the order in which they are printed.
    pub(super) fn tables(&self) -> Vec<(String, &dyn Section)> {
        fn of_nodes<'a, T: Section>(
            name: &str,
            nodes: &'a BTreeMap<String, T>,
        ) -> Vec<(String, &'a dyn Section)> {
            nodes.iter().map(|(node, table)| (format!("{name}.{node}"), table as &dyn Section)).collect()
        }
        let table = |name: &str, table| vec![(name.to_owned(), table)];
        [
            table("server", &self.server as &dyn Section),
            table("log", &self.log),
            table("bus", &self.bus),
            table("realm", &self.realm),
            table("identity", &self.identity),
            table("client", &self.client),
            table("gateway", &self.gateway),
            table("rooms", &self.rooms),
            of_nodes("livekit", &self.livekit),
            table("p2p", &self.p2p),
            of_nodes("external", &self.external),
            table("islands", &self.islands),
            table("rules", &self.rules),
            table("stats", &self.stats),
        ]
        .concat()
    }

    /// The defaults, with one node, called [`NODE_PLACEHOLDER`], in each of the tables with one entry per
    /// node.
    pub(super) fn specimen() -> Self {
        let mut specimen = Self::default();
        specimen.livekit.insert(NODE_PLACEHOLDER.to_owned(), LiveKit::default());
        specimen.external.insert(NODE_PLACEHOLDER.to_owned(), External::default());
        specimen
    }

    /// The nodes that do not announce themselves, for a process at `http_url`.
    pub(crate) fn configured_nodes(&self, http_url: &str) -> Vec<ConfiguredNode> {
        // http becomes ws and https wss.
        let gateway_url = self.realm.url(http_url).replacen("http", "ws", 1);
        let livekit = self
            .livekit
            .iter()
            .filter_map(|(node, livekit)| Some(livekit.settings(node.parse().ok()?, &gateway_url)));
        let p2p = self.p2p.node(self.server.listen.0.ip());
        let external =
            self.external.iter().filter_map(|(node, external)| external.settings(node.parse().ok()?));
        livekit.chain(p2p).chain(external).collect()
    }

    /// The ICE candidates that gateways let pass, for a process at `http_url`.
    pub(crate) fn mesh_candidates(&self, http_url: &str) -> CandidatePolicy {
        let hosts = [http_url, &self.realm.public_url].map(urls::host);
        self.p2p.candidates(self.server.listen.0.ip(), hosts.iter().map(String::as_str))
    }

    /// The LiveKit servers that clients reach through the signalling proxy.
    pub(crate) fn proxied_livekit(&self) -> Vec<ProxiedServer> {
        self.livekit.iter().filter_map(|(node, livekit)| livekit.proxied(node.parse().ok()?)).collect()
    }

    /// The settings as a TOML file, with secrets hidden.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}
