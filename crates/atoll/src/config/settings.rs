//! The settings, as they stand in `atoll.toml`. Each has its default in [`Settings::default`].

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
    /// The defaults, with one node, called `node`, in each of the tables of which there is one a
    /// node.
    pub(crate) fn example() -> Self {
        let mut specimen = Self::default();
        specimen.livekit.insert("node".to_owned(), LiveKit::default());
        specimen.external.insert("node".to_owned(), External::default());
        specimen
    }
}

/// `[server]`: what the process is, and its listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Server {
    /// What runs in this process, separated by commas: `gateway`, `rooms`, `director`, `stats`. Some of
    /// them alone need a bus, over which they find the others.
    pub(crate) roles: String,
    /// Address and port to listen on; port 0 takes a free one.
    pub(crate) listen: String,
    /// Where clients reach it: `http://host:port` or `https://host`. Empty: from the listen
    /// address. Required when that is a wildcard.
    pub(crate) public_url: String,
    /// Address and port for the operator, on a loopback address; port 0 takes a free one. Empty: none.
    pub(crate) admin: String,
    /// Address and port for `/metrics` and `/rooms/status`, which are then on no other listener; port 0
    /// takes a free one. Empty: they are on `listen`.
    pub(crate) metrics_listen: String,
    /// How long a request's head may take to arrive.
    pub(crate) header_timeout_s: u64,
    /// How long an HTTP connection may be idle between two requests.
    pub(crate) idle_timeout_s: u64,
    /// How long an HTTP connection may take less than 1 KiB a second of its response.
    pub(crate) write_timeout_s: u64,
    /// Connections at a time. 0: as many as the process may have files, less 64.
    pub(crate) max_connections: usize,
    /// The same, from one network. 0: no limit.
    pub(crate) max_connections_per_network: usize,
    /// Addresses and networks (CIDR) of reverse proxies whose `X-Forwarded-For` or `Forwarded` is
    /// believed, separated by commas.
    pub(crate) trusted_proxies: String,
    /// Whether connections of trusted proxies begin with a PROXY protocol header.
    pub(crate) proxy_protocol: bool,
    /// How many bits of an IPv6 address name one network, for all limits per network.
    pub(crate) ipv6_prefix: u8,
    /// How long a shutdown may wait for sockets to close.
    pub(crate) drain_timeout_s: u64,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    /// `pretty` or `json`.
    pub(crate) format: String,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rooms=debug`.
    pub(crate) level: String,
}

/// `[bus]`: over which the roles talk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bus {
    /// NATS servers of one cluster, separated by commas: `nats://host:port` or `tls://host:port`,
    /// with or without `user:password@` before the host. Empty: the bus is within the process.
    pub(crate) url: String,
    /// The user, where the URL does not say it.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    /// A token, instead of a user.
    pub(crate) token: String,
    /// A file with a JWT and the seed of its key, instead of a user.
    pub(crate) credentials_file: String,
    /// Certificates of authorities to trust, PEM. Empty: those of the system.
    pub(crate) ca_file: String,
    /// How subjects are spelled: `comms-v3`, or `archipelago-workers`.
    pub(crate) subjects: String,
    /// How long the first connection may take.
    pub(crate) connect_timeout_s: u64,
    /// How many servers of a NATS cluster hold the lease of the director that leads: 1, 3 or 5. 0: three where the
    /// cluster has three or more, else one.
    pub(crate) lease_replicas: usize,
}

/// `[realm]`: what `/about` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Realm {
    /// Empty: the realm has no name.
    pub(crate) name: String,
    /// Where clients reach the realm. Empty: where they reach the process.
    pub(crate) public_url: String,
    /// Further names and hosts of the realm, separated by commas: a signed login may name them as its
    /// realm.
    pub(crate) aliases: String,
    /// The Ethereum network, 1 for the main net.
    pub(crate) network_id: u64,
    /// URNs, separated by commas.
    pub(crate) global_scenes: String,
    /// URNs, separated by commas.
    pub(crate) scenes: String,
    /// The content service. Empty: none.
    pub(crate) content_url: String,
    /// The lambdas service. Empty: none.
    pub(crate) lambdas_url: String,
    /// A connection string that all clients are sent to, or `signed-login`. Empty: they follow the
    /// archipelago socket.
    pub(crate) fixed_adapter: String,
    /// The room that a signed login leads to, on the first room node of a process. Empty: there is
    /// none.
    pub(crate) fixed_room: String,
    /// Whether those who say that they are guests may log in.
    pub(crate) guests: bool,
}

/// `[identity]`: what auth chains are held against.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Identity {
    /// How far clocks may be apart.
    pub(crate) clock_skew_s: u64,
    /// How far ahead an ephemeral key may expire.
    pub(crate) longest_ephemeral_days: u64,
    /// Whether signed requests are accepted whose payload was signed all in lower case, as clients did
    /// before August 2026.
    pub(crate) accept_lowercased_fetch: bool,
    /// The treatment of a signed login whose metadata names another realm: `refuse` or `log`.
    pub(crate) realm_check: String,
    /// The JSON-RPC API of an Ethereum node, which is asked about contract wallets. It counts as a
    /// secret. Empty: contract wallets are refused.
    pub(crate) ethereum_rpc_url: String,
    /// How long the questions about one chain may take.
    pub(crate) ethereum_timeout_ms: u64,
    /// How many chains may be asked about at a time; more wait, as long as they may take.
    pub(crate) ethereum_max_questions: usize,
    /// How many answers are remembered.
    pub(crate) ethereum_cache_entries: usize,
    /// For how long a signature that was found valid counts as valid.
    pub(crate) ethereum_valid_s: u64,
    /// For how long one that was not counts as not.
    pub(crate) ethereum_refused_s: u64,
    /// After how many failures in a row the node is not asked any more.
    pub(crate) ethereum_failures: u32,
    /// For how long; then it is tried again.
    pub(crate) ethereum_cool_down_s: u64,
    /// Questions for the wallets of one network in an hour. 0: no limit.
    pub(crate) ethereum_questions_per_network_per_hour: u32,
    /// Questions in a day. 0: no limit.
    pub(crate) ethereum_questions_per_day: u32,
}

/// `[client]`: what is assumed of clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Client {
    /// What a client that does not say so can join, separated by commas.
    pub(crate) assumed_transports: String,
}

/// `[gateway]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gateway {
    /// Sockets that may be signing in at a time.
    pub(crate) max_handshakes: usize,
    /// The same, from one network: an IPv4 address or an IPv6 prefix.
    pub(crate) max_handshakes_per_ip: usize,
    /// Sign-ins that one network may begin in a second, in the long run. 0: no limit.
    pub(crate) sign_ins_per_second_per_network: u32,
    /// The same, at once.
    pub(crate) sign_in_burst_per_network: u32,
    /// Signed logins a second from one network, in the long run.
    pub(crate) logins_per_second_per_ip: u32,
    /// The same, at once.
    pub(crate) login_burst_per_ip: u32,
    /// Sessions at a time.
    pub(crate) max_sessions: usize,
    /// The same, from one network. 0: no limit.
    pub(crate) max_sessions_per_network: usize,
    /// Which of two sessions of one wallet is kept: `newest` or `oldest`.
    pub(crate) keep_session: String,
    /// Whether members of an island are told who joins it and who leaves it.
    pub(crate) tell_members: bool,
    /// Whether a challenge, of a gateway or a room, reports that its address is connected already.
    pub(crate) tell_connected: bool,
    /// Resident memory above which `/about` asks nobody in. 0: no limit.
    pub(crate) max_memory_mb: u64,
    /// CPU, in percent of all cores over five seconds, above which it asks nobody in. 0: no limit.
    pub(crate) max_cpu_percent: u32,
    /// How long the whole sign-in may take.
    pub(crate) handshake_timeout_s: u64,
    /// A client from which nothing arrived for so long is pinged; after three such intervals it is closed.
    pub(crate) ping_interval_s: u64,
    /// How often the last position of a quiet client is repeated.
    pub(crate) vouch_interval_s: u64,
    /// For how long after its last heartbeat.
    pub(crate) vouch_for_s: u64,
    /// How long a session may last without a first heartbeat.
    pub(crate) idle_timeout_s: u64,
    /// How long one write may take.
    pub(crate) write_timeout_s: u64,
    /// Messages a second that one client may send; above, it is read more slowly.
    pub(crate) messages_per_second: u32,
    /// Bytes a second that one session may publish under topics; above, it is read more slowly.
    pub(crate) topic_bytes_per_second: u32,
    /// Subscriptions to topics that one session may have.
    pub(crate) max_subscriptions: usize,
    /// Messages that may wait for one subscription; above, the newest is dropped and counted.
    pub(crate) subscription_buffer: usize,
}

/// `[rooms]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rooms {
    /// The name of the node, of the first where there are several.
    pub(crate) node: String,
    /// How many room nodes there are.
    pub(crate) nodes: u32,
    /// Secrets that director, room nodes and gateways share, separated by commas: the first signs
    /// tokens, all of them are taken. Empty: one is made at start, if the bus is within the process.
    pub(crate) token_secrets: String,
    /// How long a token admits.
    pub(crate) token_ttl_s: u64,
    /// The most members that an island is given here.
    pub(crate) max_island_size: u32,
    /// The most members of one room, with those who are about to leave it.
    pub(crate) max_room_size: usize,
    /// The most members on the node.
    pub(crate) max_users: usize,
    /// Rooms that are entered with a wallet's signature instead of a token, separated by commas:
    /// names, or beginnings of names followed by `*`.
    pub(crate) open: String,
    /// How often one address may enter one room in a minute; a third of that at once.
    pub(crate) entries_per_minute: u32,
    /// Bytes a second that one room may send to all its members together; above, its unreliable
    /// messages are dropped. 0: no limit.
    pub(crate) max_room_egress_bytes_per_second: u64,
    /// The same, for all rooms of the node together; each room that sends keeps an equal share. 0: no
    /// limit.
    pub(crate) max_node_egress_bytes_per_second: u64,
    /// How long frames are collected before they are sent on together.
    pub(crate) flush_interval_ms: u64,
    /// How long the whole of an entry may take.
    pub(crate) handshake_timeout_s: u64,
    /// Sockets that may be entering at a time.
    pub(crate) max_handshakes: usize,
    /// The same, from one network: an IPv4 address or an IPv6 prefix.
    pub(crate) max_handshakes_per_ip: usize,
    /// Entries that one network may begin in a second, in the long run. 0: no limit.
    pub(crate) entries_per_second_per_network: u32,
    /// The same, at once.
    pub(crate) entry_burst_per_network: u32,
    /// A client from which nothing arrived for so long is pinged; after three such intervals it is closed.
    pub(crate) ping_interval_s: u64,
    /// How long a socket stays open after its address left the island.
    pub(crate) grace_s: u64,
    /// How long a socket may take nothing of what is written to it.
    pub(crate) write_timeout_s: u64,
    /// The queue of one member: unreliable messages are dropped when it is half full, the member
    /// is closed when it is full.
    pub(crate) queue_bytes: usize,
    /// Messages a second that one member may send; above, its unreliable ones are dropped, and others wait.
    pub(crate) messages_per_second: u32,
    /// Bytes a second that one member may send; above, the same holds.
    pub(crate) bytes_per_second: u32,
}

/// `[islands]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Islands {
    /// Who says who is together: `own`, places and distances, or `given`, somebody else.
    pub(crate) clustering: String,
    /// Two islands merge when any two of their members are this near.
    pub(crate) join_distance_m: f32,
    /// Members stay together while hops of at most this connect them.
    pub(crate) leave_distance_m: f32,
    /// The most members of an island.
    pub(crate) max_size: u32,
    /// How far from the origin the world reaches on each axis.
    pub(crate) world_bound_m: f32,
    /// A peer that is not heard of for this long is gone.
    pub(crate) silence_s: u64,
    /// For how long the place of a peer that went is kept.
    pub(crate) return_window_s: u64,
    /// A node that is not heard of for this long is gone.
    pub(crate) transport_timeout_s: u64,
    /// How long a change that could flap must last before it counts.
    pub(crate) settling_s: u64,
    /// How long an island stays where it was moved to, unless it has to go.
    pub(crate) move_interval_s: u64,
    /// How exactly `island_changed` gives the positions of members: `exact` or `parcel`. Empty: as
    /// `stats.positions`.
    pub(crate) peer_positions: String,
    /// The beginning of island ids: letters and digits.
    pub(crate) id_prefix: String,
    /// How often what changed is told.
    pub(crate) flush_interval_ms: u64,
    /// How often all islands are reported.
    pub(crate) report_interval_ms: u64,
    /// How often the director says that it is there.
    pub(crate) discovery_interval_s: u64,
}

/// `[rules]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rules {
    /// The file of owner rules. Empty: there are none.
    pub(crate) file: String,
}

/// `[stats]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// A peer that was not heard of for this long is not shown.
    pub(crate) peer_timeout_s: u64,
    /// A report of islands older than this is not shown.
    pub(crate) report_timeout_s: u64,
    /// Access to `/peers`, `/islands`, `/parcels` and `/events`: `true` (every client), `token` (clients that
    /// send `token`) or `false` (no client).
    pub(crate) public: String,
    /// The access token of presence.
    pub(crate) token: String,
    /// What is shown of where people are: `exact` or `parcel`.
    pub(crate) positions: String,
    /// How long the content service may take to say what is on some parcels.
    pub(crate) content_timeout_ms: u64,
    /// How long it is not asked again for the same parcel.
    pub(crate) scene_ttl_s: u64,
    /// Of how many parcels it is remembered what is on them.
    pub(crate) max_scene_parcels: usize,
    /// Events that the live feed keeps for its readers.
    pub(crate) feed_events: usize,
    /// Requests for presence a second from one network, in the long run; above, they wait. 0: no limit.
    pub(crate) requests_per_second_per_network: u32,
    /// The same, at once.
    pub(crate) request_burst_per_network: u32,
    /// Readers of the live feed at a time.
    pub(crate) max_feed_readers: usize,
    /// The same, from one network.
    pub(crate) max_feed_readers_per_network: usize,
    /// How often a reader of the live feed to whom nothing happens is sent a comment.
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
