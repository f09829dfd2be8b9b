//! Validates the settings, with an error for every impossible value, and converts them to each role's
//! own types.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ::bus::NatsSettings;
use ::listener::ClientAddresses;
use admission::{ConnectionLimits, ContractSettings, Rate};
use archipelago::{Clustering, SettingsError, rules::Rules};
use director::ConfiguredNode;
use gateway::{KeepSession, RealmCheck, RealmNames};
use protocol::{NodeName, PositionPrecision, RoomName, RoomPattern, is_protocol_name};
use stats::{Access, TokenDigest};

use super::{Settings, bus, island_names::can_match_island, listener, realm, secrets, transports, urls};
use crate::role::Role;

/// Validated settings, in the types of the roles that use them.
#[derive(Debug, Clone)]
pub(crate) struct ValidatedSettings {
    /// The roles of this process, each once, in the order of [`Role::ALL`].
    pub(crate) roles: Vec<Role>,
    pub(crate) listen: SocketAddr,
    /// The address of the operators' listener, if there is one.
    pub(crate) admin: Option<SocketAddr>,
    /// How the addresses of clients are determined.
    pub(crate) client_addresses: ClientAddresses,
    /// The address of the metrics listener, if metrics are not served at `listen`.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// The file of owner rules and the rules in it, if there is one.
    pub(crate) rules: Option<(PathBuf, Rules)>,
    /// `None`: derived from the listen address.
    pub(crate) public_url: Option<String>,
    /// The bus over NATS; `None`: the bus within the process.
    pub(crate) bus: Option<NatsSettings>,
    /// The names of the room nodes.
    pub(crate) nodes: Vec<NodeName>,
    pub(crate) token_secrets: Vec<String>,
    /// Settings that are possible but not advisable; logged at start.
    pub(crate) warnings: Vec<String>,
    /// The fixed connection string for all clients, and the room that a signed login grants.
    pub(crate) realm: realm::ValidatedRealm,
    /// Nodes that do not announce themselves.
    pub(crate) transports: Vec<ConfiguredNode>,
}

impl ValidatedSettings {
    /// The owner rules; without a file, no rules.
    pub(crate) fn rules(&self) -> Rules {
        self.rules.as_ref().map(|(_, rules)| rules.clone()).unwrap_or_default()
    }
}

/// A secret shorter than this can be guessed, and is refused; one with less than 256 bits of entropy
/// causes a warning.
const MIN_SECRET_BYTES: usize = 16;
/// At this rate the largest message, 64 KiB, takes 4 s; the gateway does not read its sender meanwhile.
const MIN_TOPIC_BYTES_PER_SECOND: u32 = 16 * 1024;

/// The maximum of room nodes in one process. More nodes need more processes.
const MAX_ROOM_NODES: u32 = 16;

impl ValidatedSettings {
    /// Checks all values that their types alone do not; adds problems to `problems`.
    pub(crate) fn new(settings: &Settings, problems: &mut Vec<String>) -> Option<Self> {
        let Settings { server, log, identity, client, gateway, rooms, islands, stats, .. } = settings;
        let mut check = |holds: bool, key: &str, value: &dyn std::fmt::Display, rule: &str| {
            if !holds {
                problems.push(format!("{key} = {value}: {rule}"));
            }
        };
        let role_names = list(&server.roles);
        for name in &role_names {
            let rule = "is not a role: the roles are gateway, rooms, director and stats";
            check(Role::from_name(name).is_some(), "server.roles", name, rule);
        }
        check(!role_names.is_empty(), "server.roles", &"\"\"", "must name at least one role");
        let roles: Vec<Role> =
            Role::ALL.into_iter().filter(|role| role_names.contains(&role.to_string())).collect();
        let all_roles = roles.is_empty() || roles == Role::ALL;
        let rule = "needs bus.url (--bus), which connects the roles of several processes; without it, one process runs all roles";
        check(all_roles || !settings.bus.url.is_empty(), "server.roles", &server.roles, rule);
        let runs = |role| roles.contains(&role);
        let listen = server.listen.parse::<SocketAddr>().ok();
        check(listen.is_some(), "server.listen", &server.listen, "must be an IP address and a port");
        let public_url = (!server.public_url.is_empty()).then(|| server.public_url.clone());
        match &public_url {
            Some(url) => {
                let quoted = format!("{url:?}");
                check(urls::is_public_base(url), "server.public_url", &quoted, urls::PUBLIC_BASE_RULE);
            }
            None => {
                let wildcard = listen.is_some_and(|listen| listen.ip().is_unspecified());
                // No client is sent to a director.
                let wildcard = wildcard && roles != [Role::Director];
                let rule = "must be set when server.listen is a wildcard, because clients are sent this URL";
                check(!wildcard, "server.public_url", &"\"\"", rule);
            }
        }
        let admin = server.admin.parse::<SocketAddr>().ok();
        let loopback = admin.is_some_and(|admin| admin.ip().is_loopback());
        let rule = "must be a loopback address and a port, such as 127.0.0.1:5001, or empty";
        check(server.admin.is_empty() || loopback, "server.admin", &server.admin, rule);
        let metrics_listen = server.metrics_listen.parse::<SocketAddr>().ok();
        let is_address = server.metrics_listen.is_empty() || metrics_listen.is_some();
        let rule = "must be an IP address and a port, or empty";
        check(is_address, "server.metrics_listen", &server.metrics_listen, rule);
        check(
            ["pretty", "json"].contains(&&*log.format),
            "log.format",
            &log.format,
            "must be pretty or json",
        );
        for (key, value) in [
            ("server.header_timeout_s", server.header_timeout_s),
            ("server.idle_timeout_s", server.idle_timeout_s),
            ("server.write_timeout_s", server.write_timeout_s),
            ("server.ipv6_prefix", server.ipv6_prefix.into()),
            ("identity.ethereum_timeout_ms", identity.ethereum_timeout_ms),
            ("identity.ethereum_max_questions", identity.ethereum_max_questions as u64),
            ("identity.ethereum_failures", identity.ethereum_failures.into()),
            ("gateway.max_handshakes", gateway.max_handshakes as u64),
            ("gateway.max_handshakes_per_ip", gateway.max_handshakes_per_ip as u64),
            ("gateway.sign_in_burst_per_network", gateway.sign_in_burst_per_network.into()),
            ("gateway.logins_per_second_per_ip", gateway.logins_per_second_per_ip.into()),
            ("gateway.login_burst_per_ip", gateway.login_burst_per_ip.into()),
            ("gateway.max_sessions", gateway.max_sessions as u64),
            ("gateway.handshake_timeout_s", gateway.handshake_timeout_s),
            ("gateway.ping_interval_s", gateway.ping_interval_s),
            ("gateway.vouch_interval_s", gateway.vouch_interval_s),
            ("gateway.idle_timeout_s", gateway.idle_timeout_s),
            ("gateway.write_timeout_s", gateway.write_timeout_s),
            ("gateway.messages_per_second", gateway.messages_per_second.into()),
            ("gateway.max_subscriptions", gateway.max_subscriptions as u64),
            ("gateway.subscription_buffer", gateway.subscription_buffer as u64),
            ("rooms.token_ttl_s", rooms.token_ttl_s),
            ("rooms.max_island_size", rooms.max_island_size.into()),
            ("rooms.max_users", rooms.max_users as u64),
            ("rooms.entries_per_minute", rooms.entries_per_minute.into()),
            ("rooms.flush_interval_ms", rooms.flush_interval_ms),
            ("rooms.handshake_timeout_s", rooms.handshake_timeout_s),
            ("rooms.max_handshakes", rooms.max_handshakes as u64),
            ("rooms.max_handshakes_per_ip", rooms.max_handshakes_per_ip as u64),
            ("rooms.entry_burst_per_network", rooms.entry_burst_per_network.into()),
            ("rooms.ping_interval_s", rooms.ping_interval_s),
            ("rooms.write_timeout_s", rooms.write_timeout_s),
            ("rooms.messages_per_second", rooms.messages_per_second.into()),
            ("rooms.bytes_per_second", rooms.bytes_per_second.into()),
            ("islands.flush_interval_ms", islands.flush_interval_ms),
            ("islands.report_interval_ms", islands.report_interval_ms),
            ("islands.discovery_interval_s", islands.discovery_interval_s),
            ("stats.peer_timeout_s", stats.peer_timeout_s),
            ("stats.report_timeout_s", stats.report_timeout_s),
            ("stats.content_timeout_ms", stats.content_timeout_ms),
            ("stats.scene_ttl_s", stats.scene_ttl_s),
            ("stats.max_scene_parcels", stats.max_scene_parcels as u64),
            ("stats.request_burst_per_network", stats.request_burst_per_network.into()),
            ("stats.feed_events", stats.feed_events as u64),
            ("stats.max_feed_readers", stats.max_feed_readers as u64),
            ("stats.max_feed_readers_per_network", stats.max_feed_readers_per_network as u64),
            ("stats.feed_keep_alive_s", stats.feed_keep_alive_s),
        ] {
            check(value > 0, key, &value, "must be at least 1");
        }
        for pattern in list(&rooms.open) {
            let closed = !can_match_island(&pattern, &islands.id_prefix);
            check(
                closed,
                "rooms.open",
                &pattern,
                "islands can have such names, and their rooms are entered with a token only",
            );
            check(pattern != realm::STATUS, "rooms.open", &pattern, realm::STATUS_PROBLEM);
            let parsed = pattern.parse::<RoomPattern>();
            let rule = parsed.as_ref().err().map(ToString::to_string).unwrap_or_default();
            check(parsed.is_ok(), "rooms.open", &pattern, &rule);
        }
        let kept = keep_session(&gateway.keep_session).is_some();
        check(kept, "gateway.keep_session", &gateway.keep_session, "must be newest or oldest");
        // A longer pause after the largest message would look like a client that does not answer pings.
        let paced = gateway.topic_bytes_per_second >= MIN_TOPIC_BYTES_PER_SECOND;
        let rule = "must be at least 16384, so that no message delays its session for more than 4 s";
        check(paced, "gateway.topic_bytes_per_second", &gateway.topic_bytes_per_second, rule);
        let rpc_url = &identity.ethereum_rpc_url;
        let rule = "must be http://host:port or https://host, with or without a path";
        let usable = rpc_url.is_empty() || urls::is_url(rpc_url, &["http", "https"]);
        check(usable, "identity.ethereum_rpc_url", &"(hidden)", rule);
        let shortest = gateway.handshake_timeout_s.min(rooms.handshake_timeout_s).saturating_mul(1_000);
        let in_time = rpc_url.is_empty() || identity.ethereum_timeout_ms < shortest;
        let rule = "must be below gateway.handshake_timeout_s and rooms.handshake_timeout_s";
        check(in_time, "identity.ethereum_timeout_ms", &identity.ethereum_timeout_ms, rule);
        // A repetition may be late by a whole interval.
        let in_time = gateway.vouch_interval_s.saturating_mul(2) <= islands.silence_s;
        let rule = "must be at most half of islands.silence_s, or quiet clients are removed";
        check(in_time, "gateway.vouch_interval_s", &gateway.vouch_interval_s, rule);
        let in_time = islands.report_interval_ms < stats.report_timeout_s.saturating_mul(1_000);
        let rule =
            "must be below stats.report_timeout_s, or islands disappear from presence between two reports";
        check(in_time, "islands.report_interval_ms", &islands.report_interval_ms, rule);
        let in_time = islands.discovery_interval_s <= 10;
        let rule = "must be at most 10: a director that is silent for 30 s counts as gone";
        check(in_time, "islands.discovery_interval_s", &islands.discovery_interval_s, rule);
        let valid = realm_check(&identity.realm_check).is_some();
        check(valid, "identity.realm_check", &identity.realm_check, "must be refuse or log");
        let valid = clustering(&islands.clustering).is_some();
        check(valid, "islands.clustering", &islands.clustering, "must be own or given");
        let valid = positions(&stats.positions).is_some();
        check(valid, "stats.positions", &stats.positions, "must be exact or parcel");
        let peer_positions = &islands.peer_positions;
        let valid = peer_positions.is_empty() || positions(peer_positions).is_some();
        check(valid, "islands.peer_positions", peer_positions, "must be exact, parcel or empty");
        let valid = ["true", "false", "token"].contains(&&*stats.public);
        check(valid, "stats.public", &stats.public, "must be true, false or token");
        let has_token = stats.public != "token" || stats.token.len() >= MIN_SECRET_BYTES;
        let rule = "must have at least 16 characters where stats.public is token";
        check(has_token, "stats.token", &"(hidden)", rule);
        let counted = (1..=MAX_ROOM_NODES).contains(&rooms.nodes);
        check(counted, "rooms.nodes", &rooms.nodes, "must be 1 to 16");
        let (mut nodes, mut named) = (Vec::new(), true);
        for name in room_nodes(rooms) {
            match name.parse::<NodeName>() {
                Ok(node) => nodes.push(node),
                // One error is enough: the other names differ only in their number.
                Err(error) => {
                    check(!named, "rooms.node", &name, &error.to_string());
                    named = false;
                }
            }
        }
        let fits = rooms.max_room_size >= rooms.max_island_size as usize;
        check(fits, "rooms.max_room_size", &rooms.max_room_size, "must be at least rooms.max_island_size");
        let holds = rooms.queue_bytes >= 4 * protocol::MAX_MESSAGE_BYTES;
        check(holds, "rooms.queue_bytes", &rooms.queue_bytes, "must hold four messages of 64 KiB");
        let token_secrets: Vec<String> = list(&rooms.token_secrets);
        let long = token_secrets.iter().all(|secret| secret.len() >= MIN_SECRET_BYTES);
        check(long, "rooms.token_secrets", &"(hidden)", "each must have at least 16 characters");
        let signs = runs(Role::Director) || runs(Role::Gateway) && !settings.realm.fixed_room.is_empty();
        let shared = !settings.bus.url.is_empty() && (signs || runs(Role::Rooms));
        let rule = "must be set, and be the same in every process: make one with `openssl rand -hex 32`";
        check(!shared || !token_secrets.is_empty(), "rooms.token_secrets", &"\"\"", rule);
        let bounded = islands.world_bound_m.is_finite() && islands.world_bound_m > 0.0;
        check(bounded, "islands.world_bound_m", &islands.world_bound_m, "must be above 0");
        let assumed = list(&client.assumed_transports);
        let named = !assumed.is_empty() && assumed.iter().all(|name| is_protocol_name(name));
        let rule = "must list the transports that clients can join, such as livekit,ws-room";
        check(named, "client.assumed_transports", &client.assumed_transports, rule);
        match archipelago::Engine::new(settings.engine(), 0) {
            // It has been reported above.
            Ok(_) | Err(SettingsError::AssumedTransports) => {}
            Err(error) => problems.push(format!("islands.{error}")),
        }
        let client_addresses = listener::client_addresses(server, problems);
        let rules = rules(&settings.rules.file, problems);
        let bus = bus::parse(&settings.bus, problems);
        let transports = transports::configured(settings, problems);
        let realm = realm::ValidatedRealm::new(settings, problems);
        Some(Self {
            roles,
            listen: listen?,
            admin,
            client_addresses,
            metrics_listen,
            rules,
            public_url,
            bus,
            nodes,
            warnings: token_secrets
                .iter()
                .filter_map(|secret| secrets::entropy_warning("rooms.token_secrets", secret))
                .collect(),
            token_secrets,
            realm,
            transports,
        })
    }
}

fn clustering(name: &str) -> Option<Clustering> {
    match name {
        "own" => Some(Clustering::ByDistance),
        "given" => Some(Clustering::External),
        _ => None,
    }
}

fn realm_check(name: &str) -> Option<RealmCheck> {
    match name {
        "refuse" => Some(RealmCheck::Refuse),
        "log" => Some(RealmCheck::Log),
        _ => None,
    }
}

fn positions(name: &str) -> Option<PositionPrecision> {
    match name {
        "exact" => Some(PositionPrecision::Exact),
        "parcel" => Some(PositionPrecision::Parcel),
        _ => None,
    }
}

fn keep_session(name: &str) -> Option<KeepSession> {
    match name {
        "newest" => Some(KeepSession::Newest),
        "oldest" => Some(KeepSession::Oldest),
        _ => None,
    }
}

/// The rule file and the rules in it.
fn rules(file: &str, problems: &mut Vec<String>) -> Option<(PathBuf, Rules)> {
    if file.is_empty() {
        return None;
    }
    let path = PathBuf::from(file);
    match crate::rules::load(&path) {
        Ok(rules) => Some((path, rules)),
        Err(error) => {
            problems.push(format!("rules.file = {file}: {error:#}"));
            None
        }
    }
}

impl Settings {
    /// The settings of the engine.
    pub(crate) fn engine(&self) -> archipelago::Settings {
        let islands = &self.islands;
        archipelago::Settings {
            clustering: clustering(&islands.clustering).unwrap_or_default(),
            join_distance_m: islands.join_distance_m,
            leave_distance_m: islands.leave_distance_m,
            max_island_size: islands.max_size,
            silence: seconds(islands.silence_s),
            return_window: seconds(islands.return_window_s),
            transport_timeout: seconds(islands.transport_timeout_s),
            settling: seconds(islands.settling_s),
            move_interval: seconds(islands.move_interval_s),
            id_prefix: islands.id_prefix.clone(),
            assumed_transports: list(&self.client.assumed_transports),
        }
    }

    /// The settings of the director.
    pub(crate) fn director(&self, transports: Vec<ConfiguredNode>, rules: Rules) -> director::Settings {
        let islands = &self.islands;
        director::Settings {
            engine: self.engine(),
            realm: (!self.realm.name.is_empty()).then(|| self.realm.name.clone()),
            flush_interval: milliseconds(islands.flush_interval_ms),
            report_interval: milliseconds(islands.report_interval_ms),
            discovery_interval: seconds(islands.discovery_interval_s),
            position_bound_m: islands.world_bound_m,
            positions: positions(&islands.peer_positions).unwrap_or_else(|| self.shown_positions()),
            commit_hash: crate::COMMIT_HASH.map(str::to_owned),
            transports,
            rules: Arc::new(rules),
        }
    }

    /// The settings of the gateway.
    pub(crate) fn gateway(
        &self,
        parsed: &realm::ValidatedRealm,
        http_url: &str,
        ws_url: &str,
    ) -> gateway::Settings {
        let (gateway, realm) = (&self.gateway, &self.realm);
        gateway::Settings {
            public_url: ws_url.to_owned(),
            realm: gateway::Realm {
                network_id: realm.network_id,
                global_scenes: list(&realm.global_scenes),
                scenes: list(&realm.scenes),
                content_url: realm.content_url.clone(),
                lambdas_url: realm.lambdas_url.clone(),
                fixed_adapter: parsed.fixed_adapter(http_url),
                guests: realm.guests,
                names: RealmNames {
                    name: (!realm.name.is_empty()).then(|| realm.name.clone()),
                    hosts: [http_url, &realm.public_url]
                        .map(urls::host)
                        .into_iter()
                        .filter(|host| !host.is_empty())
                        .collect(),
                    aliases: list(&realm.aliases),
                },
                check: realm_check(&self.identity.realm_check).unwrap_or_default(),
            },
            handshakes: ConnectionLimits {
                total: gateway.max_handshakes,
                per_network: Some(gateway.max_handshakes_per_ip),
                rate: rate(gateway.sign_ins_per_second_per_network, gateway.sign_in_burst_per_network),
            },
            logins_per_network: Rate::per_second(
                gateway.logins_per_second_per_ip,
                gateway.login_burst_per_ip,
            ),
            max_sessions: gateway.max_sessions,
            max_sessions_per_network: limit(gateway.max_sessions_per_network),
            keep_session: keep_session(&gateway.keep_session).unwrap_or_default(),
            send_member_changes: gateway.tell_members,
            report_connected: gateway.tell_connected,
            load_limits: gateway::LoadLimits {
                memory_bytes: (gateway.max_memory_mb > 0)
                    .then(|| gateway.max_memory_mb.saturating_mul(1024 * 1024)),
                cpu_percent: (gateway.max_cpu_percent > 0).then(|| gateway.max_cpu_percent.into()),
            },
            handshake_timeout: seconds(gateway.handshake_timeout_s),
            ping_interval: seconds(gateway.ping_interval_s),
            republish_interval: seconds(gateway.vouch_interval_s),
            republish_for: seconds(gateway.vouch_for_s),
            external_clustering: clustering(&self.islands.clustering) == Some(Clustering::External),
            idle_timeout: seconds(gateway.idle_timeout_s),
            write_timeout: seconds(gateway.write_timeout_s),
            position_bound_m: self.islands.world_bound_m,
            messages_per_second: gateway.messages_per_second,
            topic_bytes_per_second: gateway.topic_bytes_per_second,
            max_subscriptions: gateway.max_subscriptions,
            subscription_buffer: gateway.subscription_buffer,
        }
    }

    /// The settings of each room node. The first node has the path that rooms have always had, the
    /// others have paths of their own. The first node also hosts the fixed room.
    pub(crate) fn rooms(
        &self,
        nodes: &[NodeName],
        fixed_room: Option<&RoomName>,
        ws_url: &str,
    ) -> Vec<rooms::Settings> {
        let path = |(index, node): (usize, &NodeName)| match index {
            0 => String::new(),
            _ => format!("/nodes/{node}"),
        };
        let paths = nodes.iter().enumerate().map(path);
        let node = |(node, path): (&NodeName, _)| self.room_node(node.clone(), path, ws_url);
        let mut nodes: Vec<_> = nodes.iter().zip(paths).map(node).collect();
        if let Some(first) = nodes.first_mut() {
            first.fixed_room = fixed_room.cloned();
        }
        nodes
    }

    fn room_node(&self, node: NodeName, path: String, ws_url: &str) -> rooms::Settings {
        let rooms = &self.rooms;
        rooms::Settings {
            node,
            public_url: ws_url.to_owned(),
            path,
            max_island_size: rooms.max_island_size,
            max_room_size: rooms.max_room_size,
            max_users: rooms.max_users,
            // All patterns were validated; a malformed one would not be served.
            open_rooms: list(&rooms.open).iter().filter_map(|pattern| pattern.parse().ok()).collect(),
            fixed_room: None,
            entries_per_minute: rooms.entries_per_minute,
            tell_connected: self.gateway.tell_connected,
            max_room_egress_bytes_per_second: rooms.max_room_egress_bytes_per_second,
            max_node_egress_bytes_per_second: rooms.max_node_egress_bytes_per_second,
            flush_interval: milliseconds(rooms.flush_interval_ms),
            handshake_timeout: seconds(rooms.handshake_timeout_s),
            handshakes: ConnectionLimits {
                total: rooms.max_handshakes,
                per_network: Some(rooms.max_handshakes_per_ip),
                rate: rate(rooms.entries_per_second_per_network, rooms.entry_burst_per_network),
            },
            ping_interval: seconds(rooms.ping_interval_s),
            grace: seconds(rooms.grace_s),
            write_timeout: seconds(rooms.write_timeout_s),
            token_ttl: seconds(rooms.token_ttl_s),
            queue_bytes: rooms.queue_bytes,
            messages_per_second: rooms.messages_per_second,
            bytes_per_second: rooms.bytes_per_second,
        }
    }

    /// The host in challenges: the realm's, or else that of this process, at `http_url`.
    pub(crate) fn challenge_host(&self, http_url: &str) -> String {
        let realm_url = &self.realm.public_url;
        urls::host(if realm_url.is_empty() { http_url } else { realm_url })
    }

    /// The limits for auth chains.
    pub(crate) fn identity(&self) -> identity::Limits {
        identity::Limits {
            clock_skew: seconds(self.identity.clock_skew_s),
            longest_ephemeral: seconds(self.identity.longest_ephemeral_days.saturating_mul(24 * 60 * 60)),
            lowercased_fetch: self.identity.accept_lowercased_fetch,
        }
    }

    /// How contract wallets are verified; `None`: they are refused.
    pub(crate) fn contracts(&self) -> Option<ContractSettings> {
        let identity = &self.identity;
        (!identity.ethereum_rpc_url.is_empty()).then(|| ContractSettings {
            rpc_url: identity.ethereum_rpc_url.clone(),
            deadline: milliseconds(identity.ethereum_timeout_ms),
            // A semaphore has a maximum of permits; so many are practically unlimited.
            max_concurrent_checks: identity.ethereum_max_questions.min(100_000),
            cache_entries: identity.ethereum_cache_entries,
            valid_ttl: seconds(identity.ethereum_valid_s),
            invalid_ttl: seconds(identity.ethereum_refused_s),
            failures_to_open: identity.ethereum_failures,
            cool_down: seconds(identity.ethereum_cool_down_s),
            per_network_per_hour: identity.ethereum_questions_per_network_per_hour,
            per_day: identity.ethereum_questions_per_day,
        })
    }

    /// The rate limit of presence requests from one network.
    pub(crate) fn presence_rate(&self) -> Option<Rate> {
        rate(self.stats.requests_per_second_per_network, self.stats.request_burst_per_network)
    }

    fn shown_positions(&self) -> PositionPrecision {
        positions(&self.stats.positions).unwrap_or_default()
    }

    fn presence_access(&self) -> Access {
        match &*self.stats.public {
            "false" => Access::Off,
            "token" => Access::Token(TokenDigest::new(&self.stats.token)),
            _ => Access::Public,
        }
    }

    /// The settings of presence.
    pub(crate) fn stats(&self, http_url: &str) -> stats::Settings {
        let realm_url = self.realm.public_url.trim_end_matches('/');
        stats::Settings {
            peer_timeout: seconds(self.stats.peer_timeout_s),
            report_timeout: seconds(self.stats.report_timeout_s),
            access: self.presence_access(),
            positions: self.shown_positions(),
            realm_name: self.realm.name.clone(),
            // A process with presence alone has another URL than the realm.
            public_url: if realm_url.is_empty() { http_url } else { realm_url }.to_owned(),
            max_users: self.gateway.max_sessions,
            max_island_size: self.islands.max_size,
            content_url: Some(self.realm.content_url.clone()).filter(|url| !url.is_empty()),
            content_timeout: milliseconds(self.stats.content_timeout_ms),
            scene_ttl: seconds(self.stats.scene_ttl_s),
            max_scene_parcels: self.stats.max_scene_parcels,
            feed_events: self.stats.feed_events,
            max_feed_readers: self.stats.max_feed_readers,
            max_feed_readers_per_network: self.stats.max_feed_readers_per_network,
            feed_keep_alive: seconds(self.stats.feed_keep_alive_s),
        }
    }
}

/// The names of the room nodes: the first one, then names that end with a number from 2 on.
pub(super) fn room_nodes(rooms: &super::settings::Rooms) -> impl Iterator<Item = String> {
    let first = rooms.node.clone();
    let stem = first.strip_suffix("-1").unwrap_or(&first).to_owned();
    let others = (2..=rooms.nodes.min(MAX_ROOM_NODES)).map(move |number| format!("{stem}-{number}"));
    std::iter::once(first).chain(others)
}

/// A rate; 0 means no limit.
fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    (per_second > 0).then_some(Rate::per_second(per_second, burst))
}

/// A limit; 0 means no limit.
pub(super) fn limit(limit: usize) -> Option<usize> {
    (limit > 0).then_some(limit)
}

/// The parts of a comma-separated list.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn seconds(seconds: u64) -> Duration {
    // A century is practically unlimited, and does not overflow a clock.
    Duration::from_secs(seconds.min(100 * 366 * 24 * 60 * 60))
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
