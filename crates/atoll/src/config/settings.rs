//! The settings, as `atoll.toml` has them. [`Settings::default`] has the default of each.

use std::collections::BTreeMap;

use protocol::subject::SubjectScheme;
use serde::{Deserialize, Serialize};

use super::nodes::{External, LiveKit, P2p};

/// All settings.
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

impl Settings {
    /// The defaults, with one node, called `node`, in each of the tables with one entry per node.
    pub(crate) fn example() -> Self {
        let mut specimen = Self::default();
        specimen.livekit.insert("node".to_owned(), LiveKit::default());
        specimen.external.insert("node".to_owned(), External::default());
        specimen
    }
}

/// `[server]`: the roles of the process, and its listeners.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Server {
    /// The roles of this process, separated by commas: `gateway`, `rooms`, `director`, `stats`. A
    /// process with only some of them needs a bus, over which it reaches the others.
    pub(crate) roles: String,
    /// Address and port to listen on; port 0 selects a free one.
    pub(crate) listen: String,
    /// The URL at which clients reach the process: `http://host:port` or `https://host`. Empty: derived
    /// from the listen address. Required when that is a wildcard.
    pub(crate) public_url: String,
    /// Address and port of the operators' listener, on a loopback address; port 0 selects a free one.
    /// Empty: none.
    pub(crate) admin: String,
    /// Address and port for `/metrics` and `/rooms/status`, which no other listener serves then; port 0
    /// selects a free one. Empty: `listen` serves them.
    pub(crate) metrics_listen: String,
    /// How long a request's head may take to arrive.
    pub(crate) header_timeout_s: u64,
    /// How long an HTTP connection may be idle between two requests.
    pub(crate) idle_timeout_s: u64,
    /// How long an HTTP connection may accept less than 1 KiB per second of its response.
    pub(crate) write_timeout_s: u64,
    /// The maximum of connections. 0: the process's limit of open files, less 64.
    pub(crate) max_connections: usize,
    /// The same, for one network. 0: no limit.
    pub(crate) max_connections_per_network: usize,
    /// Addresses and networks (CIDR) of reverse proxies that are trusted to set `X-Forwarded-For` or
    /// `Forwarded`, separated by commas.
    pub(crate) trusted_proxies: String,
    /// Whether connections of trusted proxies begin with a PROXY protocol header.
    pub(crate) proxy_protocol: bool,
    /// The number of bits of an IPv6 address that identify a network, for all limits per network.
    pub(crate) ipv6_prefix: u8,
    /// How long a drain waits for sockets to close.
    pub(crate) drain_timeout_s: u64,
}

/// `[log]`: format and level of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    /// `pretty` or `json`.
    pub(crate) format: String,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rooms=debug`.
    pub(crate) level: String,
}

/// `[bus]`: the bus that connects the roles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bus {
    /// NATS servers of one cluster, separated by commas: `nats://host:port` or `tls://host:port`, with
    /// or without `user:password@` before the host. Empty: the bus is within the process.
    pub(crate) url: String,
    /// The user, if the URL does not have it.
    pub(crate) user: String,
    /// The user's password.
    pub(crate) password: String,
    /// A token, instead of a user.
    pub(crate) token: String,
    /// A file with a JWT and the seed of its key, instead of a user.
    pub(crate) credentials_file: String,
    /// Certificates of trusted authorities, PEM. Empty: those of the system.
    pub(crate) ca_file: String,
    /// The subject scheme: `comms-v3` or `archipelago-workers`.
    pub(crate) subjects: String,
    /// How long the first connection may take.
    pub(crate) connect_timeout_s: u64,
    /// How many servers of a NATS cluster store the leader's lease: 1, 3 or 5. 0: three if the cluster
    /// has three or more servers, else one.
    pub(crate) lease_replicas: usize,
}

/// `[realm]`: the content of `/about`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Realm {
    /// Empty: the realm has no name.
    pub(crate) name: String,
    /// The URL at which clients reach the realm. Empty: that of the process.
    pub(crate) public_url: String,
    /// Further names and hosts of the realm, separated by commas: a signed login may name them as its
    /// realm.
    pub(crate) aliases: String,
    /// The id of the Ethereum network; 1: the main net.
    pub(crate) network_id: u64,
    /// URNs, separated by commas.
    pub(crate) global_scenes: String,
    /// URNs, separated by commas.
    pub(crate) scenes: String,
    /// The content service. Empty: none.
    pub(crate) content_url: String,
    /// The lambdas service. Empty: none.
    pub(crate) lambdas_url: String,
    /// A connection string that all clients are sent, or `signed-login`. Empty: clients use the
    /// archipelago socket.
    pub(crate) fixed_adapter: String,
    /// The room that a signed login grants, on the first room node of a process. Empty: there is none.
    pub(crate) fixed_room: String,
    /// Whether clients that declare themselves guests may log in.
    pub(crate) guests: bool,
}

/// `[identity]`: the limits for auth chains.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Identity {
    /// The tolerated difference between clocks.
    pub(crate) clock_skew_s: u64,
    /// How far in the future an ephemeral key may expire.
    pub(crate) longest_ephemeral_days: u64,
    /// Whether signed requests are accepted if their payload was signed all in lower case, as clients
    /// did before August 2026.
    pub(crate) accept_lowercased_fetch: bool,
    /// The treatment of a signed login with metadata that name another realm: `refuse` or `log`.
    pub(crate) realm_check: String,
    /// The JSON-RPC API of an Ethereum node, which verifies contract wallets. It counts as a secret.
    /// Empty: contract wallets are refused.
    pub(crate) ethereum_rpc_url: String,
    /// How long the calls for one auth chain may take.
    pub(crate) ethereum_timeout_ms: u64,
    /// How many auth chains may be verified by calls at a time; others wait, for at most that timeout.
    pub(crate) ethereum_max_questions: usize,
    /// The number of cached results.
    pub(crate) ethereum_cache_entries: usize,
    /// How long a valid signature is cached.
    pub(crate) ethereum_valid_s: u64,
    /// How long an invalid signature is cached.
    pub(crate) ethereum_refused_s: u64,
    /// The number of consecutive failures that open the circuit breaker.
    pub(crate) ethereum_failures: u32,
    /// How long the circuit breaker stays open before a trial call.
    pub(crate) ethereum_cool_down_s: u64,
    /// Calls for the wallets of one network per hour. 0: no limit.
    pub(crate) ethereum_questions_per_network_per_hour: u32,
    /// Calls per day. 0: no limit.
    pub(crate) ethereum_questions_per_day: u32,
}

/// `[client]`: assumptions about clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Client {
    /// The transports that a client can join if it announces none, separated by commas.
    pub(crate) assumed_transports: String,
}

/// `[gateway]`: sign-ins, sessions and topics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gateway {
    /// The maximum of concurrent handshakes.
    pub(crate) max_handshakes: usize,
    /// The same, for one network: an IPv4 address or an IPv6 prefix.
    pub(crate) max_handshakes_per_ip: usize,
    /// The sustained rate of sign-ins that one network may start, per second. 0: no limit.
    pub(crate) sign_ins_per_second_per_network: u32,
    /// The burst of this rate.
    pub(crate) sign_in_burst_per_network: u32,
    /// The sustained rate of signed logins from one network, per second.
    pub(crate) logins_per_second_per_ip: u32,
    /// The burst of this rate.
    pub(crate) login_burst_per_ip: u32,
    /// The maximum of sessions.
    pub(crate) max_sessions: usize,
    /// The same, for one network. 0: no limit.
    pub(crate) max_sessions_per_network: usize,
    /// The session of a wallet that is kept when it signs in again: `newest` or `oldest`.
    pub(crate) keep_session: String,
    /// Whether members of an island are notified of other members' joins and leaves.
    pub(crate) tell_members: bool,
    /// Whether a challenge, of a gateway or a room, reports that its address is already connected.
    pub(crate) tell_connected: bool,
    /// Memory (RSS) in MB above which `/about` reports that no users are accepted. 0: no limit.
    pub(crate) max_memory_mb: u64,
    /// CPU, in percent of all cores over five seconds, above which it does the same. 0: no limit.
    pub(crate) max_cpu_percent: u32,
    /// How long the whole sign-in may take.
    pub(crate) handshake_timeout_s: u64,
    /// A client that sent nothing for this time is pinged; after three such intervals its socket is
    /// closed.
    pub(crate) ping_interval_s: u64,
    /// The interval at which the gateway repeats the last position of a quiet client.
    pub(crate) vouch_interval_s: u64,
    /// How long the gateway does so after the client's last heartbeat.
    pub(crate) vouch_for_s: u64,
    /// How long a session may last without a first heartbeat.
    pub(crate) idle_timeout_s: u64,
    /// How long one write to a socket may take.
    pub(crate) write_timeout_s: u64,
    /// Messages per second that one client may send; above this rate the gateway reads it more slowly.
    pub(crate) messages_per_second: u32,
    /// Bytes per second that one session may publish under topics; above this rate the gateway reads it
    /// more slowly.
    pub(crate) topic_bytes_per_second: u32,
    /// The maximum of topic subscriptions of one session.
    pub(crate) max_subscriptions: usize,
    /// The backlog of one subscription, in messages; on overflow the newest message is dropped and
    /// counted.
    pub(crate) subscription_buffer: usize,
}

/// `[rooms]`: the WebSocket room nodes of this process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rooms {
    /// The name of the room node; with several, of the first.
    pub(crate) node: String,
    /// The number of room nodes in this process.
    pub(crate) nodes: u32,
    /// Secrets that director, room nodes and gateways share, separated by commas: the first signs
    /// tokens, all of them verify. Empty: a random one is made at start, if the bus is within the
    /// process.
    pub(crate) token_secrets: String,
    /// How long a token is valid.
    pub(crate) token_ttl_s: u64,
    /// The maximum of members of an island on this node.
    pub(crate) max_island_size: u32,
    /// The maximum of members of one room, including those that are about to leave it.
    pub(crate) max_room_size: usize,
    /// The maximum of members on the node.
    pub(crate) max_users: usize,
    /// Rooms that are entered with a wallet's signature instead of a token, separated by commas: names,
    /// or prefixes of names followed by `*`.
    pub(crate) open: String,
    /// How often one address may enter one room per minute; the burst is a third of that.
    pub(crate) entries_per_minute: u32,
    /// Bytes per second that one room may send to all its members together; above this rate its
    /// unreliable messages are dropped. 0: no limit.
    pub(crate) max_room_egress_bytes_per_second: u64,
    /// The same, for all rooms of the node together; each room that sends gets an equal share. 0: no
    /// limit.
    pub(crate) max_node_egress_bytes_per_second: u64,
    /// How long messages are collected into one batch.
    pub(crate) flush_interval_ms: u64,
    /// How long the whole entry into a room may take.
    pub(crate) handshake_timeout_s: u64,
    /// The maximum of concurrent entries.
    pub(crate) max_handshakes: usize,
    /// The same, for one network: an IPv4 address or an IPv6 prefix.
    pub(crate) max_handshakes_per_ip: usize,
    /// The sustained rate of entries that one network may start, per second. 0: no limit.
    pub(crate) entries_per_second_per_network: u32,
    /// The burst of this rate.
    pub(crate) entry_burst_per_network: u32,
    /// A client that sent nothing for this time is pinged; after three such intervals its socket is
    /// closed.
    pub(crate) ping_interval_s: u64,
    /// How long a socket stays open after its address left the island.
    pub(crate) grace_s: u64,
    /// How long a socket may accept no byte of the data written to it.
    pub(crate) write_timeout_s: u64,
    /// The queue of one member, in bytes: above half of it unreliable messages are dropped; on overflow
    /// the member's socket is closed.
    pub(crate) queue_bytes: usize,
    /// Messages per second that one member may send; above this rate its unreliable messages are
    /// dropped, and others are delayed.
    pub(crate) messages_per_second: u32,
    /// Bytes per second that one member may send; above this rate the same applies.
    pub(crate) bytes_per_second: u32,
}

/// `[islands]`: the engine and its director.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Islands {
    /// The source of islands: `own`, computed from positions and distances, or `given`, published by
    /// another service.
    pub(crate) clustering: String,
    /// Two islands merge when any two of their members are within this distance.
    pub(crate) join_distance_m: f32,
    /// Members stay in one island while hops of at most this length connect them.
    pub(crate) leave_distance_m: f32,
    /// The maximum of members of an island.
    pub(crate) max_size: u32,
    /// How far the world extends from the origin, on each axis.
    pub(crate) world_bound_m: f32,
    /// A peer without a message for this time is removed.
    pub(crate) silence_s: u64,
    /// The reconnect grace: how long a disconnected peer keeps its place in its island.
    pub(crate) return_window_s: u64,
    /// A node without an announcement for this time is removed.
    pub(crate) transport_timeout_s: u64,
    /// How long a change that could flap must last before it counts.
    pub(crate) settling_s: u64,
    /// The minimum time between two moves of an island, unless the second one is unavoidable.
    pub(crate) move_interval_s: u64,
    /// The precision of members' positions in `island_changed`: `exact` or `parcel`. Empty: as
    /// `stats.positions`.
    pub(crate) peer_positions: String,
    /// The prefix of island ids: letters and digits.
    pub(crate) id_prefix: String,
    /// The interval of flushes.
    pub(crate) flush_interval_ms: u64,
    /// The interval of reports of all islands.
    pub(crate) report_interval_ms: u64,
    /// The interval of the director's announcements.
    pub(crate) discovery_interval_s: u64,
}

/// `[rules]`: owner rules.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rules {
    /// The file of owner rules. Empty: no rules.
    pub(crate) file: String,
}

/// `[stats]`: presence.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// A peer without a message for this time is not shown.
    pub(crate) peer_timeout_s: u64,
    /// A report of islands older than this is not shown.
    pub(crate) report_timeout_s: u64,
    /// Access to `/peers`, `/islands`, `/parcels` and `/events`: `true` (every client), `token`
    /// (clients that send `token`) or `false` (no client).
    pub(crate) public: String,
    /// The access token of presence.
    pub(crate) token: String,
    /// The precision of positions that presence shows: `exact` or `parcel`.
    pub(crate) positions: String,
    /// How long the content service may take to name the scenes of some parcels.
    pub(crate) content_timeout_ms: u64,
    /// The minimum time between two requests to the content service for the same parcel.
    pub(crate) scene_ttl_s: u64,
    /// The number of parcels for which the scene is cached.
    pub(crate) max_scene_parcels: usize,
    /// The number of events that the live feed keeps for readers that resume.
    pub(crate) feed_events: usize,
    /// The sustained rate of presence requests from one network, per second; requests above it wait. 0:
    /// no limit.
    pub(crate) requests_per_second_per_network: u32,
    /// The burst of this rate.
    pub(crate) request_burst_per_network: u32,
    /// The maximum of readers of the live feed.
    pub(crate) max_feed_readers: usize,
    /// The same, for one network.
    pub(crate) max_feed_readers_per_network: usize,
    /// The interval of comments that keep an idle reader's connection alive.
    pub(crate) feed_keep_alive_s: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            roles: "gateway,rooms,director,stats".to_owned(),
            listen: "127.0.0.1:5000".to_owned(),
            public_url: String::new(),
            admin: "127.0.0.1:5001".to_owned(),
            metrics_listen: String::new(),
            header_timeout_s: 10,
            idle_timeout_s: 75,
            write_timeout_s: 60,
            max_connections: 0,
            max_connections_per_network: 0,
            trusted_proxies: String::new(),
            proxy_protocol: false,
            ipv6_prefix: 64,
            drain_timeout_s: 10,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "pretty".to_owned(), level: "info".to_owned() }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            url: String::new(),
            user: String::new(),
            password: String::new(),
            token: String::new(),
            credentials_file: String::new(),
            ca_file: String::new(),
            subjects: SubjectScheme::CommsV3.to_string(),
            connect_timeout_s: 5,
            lease_replicas: 0,
        }
    }
}

impl Default for Realm {
    fn default() -> Self {
        Self {
            name: String::new(),
            public_url: String::new(),
            aliases: String::new(),
            network_id: 1,
            global_scenes: String::new(),
            scenes: String::new(),
            content_url: String::new(),
            lambdas_url: String::new(),
            fixed_adapter: String::new(),
            fixed_room: String::new(),
            guests: true,
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            clock_skew_s: 60,
            longest_ephemeral_days: 36_600,
            accept_lowercased_fetch: true,
            realm_check: "refuse".to_owned(),
            ethereum_rpc_url: String::new(),
            ethereum_timeout_ms: 2_000,
            ethereum_max_questions: 32,
            ethereum_cache_entries: 10_000,
            ethereum_valid_s: 300,
            ethereum_refused_s: 10,
            ethereum_failures: 5,
            ethereum_cool_down_s: 10,
            ethereum_questions_per_network_per_hour: 120,
            ethereum_questions_per_day: 40_000,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self { assumed_transports: "livekit,ws-room".to_owned() }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            max_handshakes: 512,
            max_handshakes_per_ip: 32,
            sign_ins_per_second_per_network: 500,
            sign_in_burst_per_network: 5_000,
            logins_per_second_per_ip: 20,
            login_burst_per_ip: 100,
            max_sessions: 10_000,
            max_sessions_per_network: 0,
            keep_session: "newest".to_owned(),
            tell_members: true,
            tell_connected: true,
            max_memory_mb: 0,
            max_cpu_percent: 0,
            handshake_timeout_s: 10,
            ping_interval_s: 10,
            vouch_interval_s: 5,
            vouch_for_s: 120,
            idle_timeout_s: 90,
            write_timeout_s: 10,
            messages_per_second: 20,
            topic_bytes_per_second: 64 * 1024,
            max_subscriptions: 64,
            subscription_buffer: 50,
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            node: "rooms-1".to_owned(),
            nodes: 1,
            token_secrets: String::new(),
            token_ttl_s: 300,
            max_island_size: 100,
            max_room_size: 150,
            max_users: 10_000,
            open: String::new(),
            entries_per_minute: 30,
            max_room_egress_bytes_per_second: 64 * 1024 * 1024,
            max_node_egress_bytes_per_second: 0,
            flush_interval_ms: 10,
            handshake_timeout_s: 10,
            max_handshakes: 512,
            max_handshakes_per_ip: 32,
            entries_per_second_per_network: 500,
            entry_burst_per_network: 5_000,
            ping_interval_s: 10,
            grace_s: 10,
            write_timeout_s: 10,
            queue_bytes: 1024 * 1024,
            messages_per_second: 100,
            bytes_per_second: 256 * 1024,
        }
    }
}

impl Default for Islands {
    fn default() -> Self {
        Self {
            clustering: "own".to_owned(),
            join_distance_m: 64.0,
            leave_distance_m: 80.0,
            max_size: 100,
            world_bound_m: 100_000.0,
            silence_s: 15,
            return_window_s: 10,
            transport_timeout_s: 3,
            settling_s: 3,
            move_interval_s: 10,
            peer_positions: String::new(),
            id_prefix: "I".to_owned(),
            flush_interval_ms: 250,
            report_interval_ms: 2_000,
            discovery_interval_s: 10,
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            peer_timeout_s: 20,
            report_timeout_s: 10,
            public: "true".to_owned(),
            token: String::new(),
            positions: "exact".to_owned(),
            content_timeout_ms: 2_000,
            scene_ttl_s: 300,
            max_scene_parcels: 10_000,
            requests_per_second_per_network: 50,
            request_burst_per_network: 100,
            feed_events: 4_096,
            max_feed_readers: 256,
            max_feed_readers_per_network: 64,
            feed_keep_alive_s: 15,
        }
    }
}
