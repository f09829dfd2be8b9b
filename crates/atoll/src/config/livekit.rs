//! `[livekit.<node>]`: LiveKit servers.

use std::sync::Arc;

use director::{ConfiguredNode, LiveKitSettings, TransportOffer};
use gateway::ProxiedServer;
use protocol::{NodeName, timing};
use reqwest::Url;
use transports::livekit::Keys;

use super::{
    problems::{Problems, quoted},
    section::section,
    urls::is_url,
    values::{Seconds, Secret, limit},
};

section! {
    /// `[livekit.<node>]`: LiveKit servers
    pub(crate) struct LiveKit {
        /// URL that clients connect to: `wss://host` or `ws://host:port`, without a query. Required.
        url: String = String::new(),
        /// URL of its API: `https://host` or `http://host:port`, without a path. Empty: derived from `url`.
        api_url: String = String::new(),
        /// Name of the key with which Atoll authenticates to the server. Required.
        api_key: String = String::new(),
        /// Secret of that key; it signs tokens. Required.
        api_secret: Secret = Secret::default(),
        /// Whether clients reach the signalling of the server through the gateway, which admits only members of
        /// the island. They are then sent `realm.public_url` with `/livekit/<node>` instead of `url`, which
        /// only gateways need to reach. Set it for directors and gateways alike. Media do not pass through the
        /// gateway.
        proxy: bool = false,
        /// Maximum number of members of an island that is assigned to this node.
        #[at_least(1)]
        max_island_size: u32 = 100,
        /// Maximum number of peers on the node. 0: no limit.
        max_users: u32 = 0,
        /// Validity of a token.
        #[at_least(1)]
        token_ttl_s: Seconds = Seconds::of(timing::TOKEN_TTL),
        /// Whether Atoll uses the API of the server: it probes the server every second and assigns islands to
        /// it only while it is healthy, creates and deletes rooms, and removes participants that are not
        /// members. With `false` it only mints tokens, and the server always counts as healthy.
        probe: bool = true,
        /// A server that replies to no probe for this long is dead, and its islands move. A server that
        /// replies later than usual is not.
        #[at_least(1)]
        hang_timeout_s: Seconds = Seconds(3),
        /// Whether the server creates rooms by itself (`room.auto_create` in its configuration). If so, and
        /// the server does not confirm within 1 s that it created the room of an island, members are sent a
        /// token that creates the room. Otherwise the island takes its next transport.
        auto_create: bool = true,
        /// How long a peer may remain in the room after it left the island.
        grace_s: Seconds = Seconds::of(timing::ROOM_GRACE),
        /// Whether the node drains: it accepts no new members, and its islands move to other nodes.
        draining: bool = false,
    }
}

impl LiveKit {
    /// `table` is the name of the node's table.
    pub(super) fn validate(&self, table: &str, problems: &mut Problems) {
        let key = |name: &str| format!("{table}.{name}");
        let bare = |url: Url| url.query().is_none() && url.fragment().is_none();
        let reachable = is_url(&self.url, &["ws", "wss"]) && Url::parse(&self.url).is_ok_and(bare);
        let rule = "must be a URL that begins with ws:// or wss://, without a query";
        problems.check(reachable, key("url"), quoted(&self.url), rule);
        let rule = "must be http:// or https:// and a host, without a path; empty: from the url";
        let api_url = self.api_url();
        // A problem of `url` has been reported above.
        let usable = self.api_url.is_empty() && !reachable || is_api_url(&api_url);
        problems.check(usable, key("api_url"), quoted(&api_url), rule);
        problems.check(!self.api_key.is_empty(), key("api_key"), quoted(&self.api_key), "must be set");
        problems.check(!self.api_secret.is_empty(), key("api_secret"), quoted(""), "must be set");
    }

    fn api_url(&self) -> String {
        // ws becomes http and wss https.
        if self.api_url.is_empty() { self.url.replacen("ws", "http", 1) } else { self.api_url.clone() }
    }

    fn keys(&self) -> Keys {
        Keys::new(&self.api_key, &*self.api_secret)
    }

    /// The address of the server: host, port and path of its URL, in lower case.
    pub(super) fn address(&self) -> String {
        let address = self.url.split_once("://").map_or("", |(_, address)| address);
        address.trim_end_matches('/').to_lowercase()
    }

    /// The server behind the signalling proxy, if clients reach it through that.
    pub(super) fn proxied(&self, node: NodeName) -> Option<ProxiedServer> {
        self.proxy.then(|| ProxiedServer { node, url: self.url.clone(), keys: self.keys() })
    }

    /// The node of this name. Clients reach gateways at `gateway_url` (`ws://host:port` or `wss://host`, with or
    /// without a path).
    pub(super) fn settings(&self, node: NodeName, gateway_url: &str) -> ConfiguredNode {
        let url = match self.proxy {
            true => format!("{}/livekit/{node}", gateway_url.trim_end_matches('/')),
            false => self.url.clone(),
        };
        ConfiguredNode {
            node,
            offer: TransportOffer::LiveKit(Arc::new(LiveKitSettings {
                url,
                api_url: self.api_url(),
                keys: self.keys(),
                token_ttl: self.token_ttl_s.duration(),
                probed: self.probe,
                hang_timeout: self.hang_timeout_s.duration(),
                auto_create: self.auto_create,
                grace: self.grace_s.duration(),
            })),
            max_island_size: self.max_island_size,
            max_users: limit(self.max_users),
            draining: self.draining,
        }
    }
}

/// Whether the URL has no path: the paths of LiveKit's API are fixed, and would replace it.
fn is_api_url(text: &str) -> bool {
    let bare = |url: Url| url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    is_url(text, &["http", "https"]) && Url::parse(text).is_ok_and(bare)
}
