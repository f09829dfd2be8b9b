//! `[rooms]`: the WebSocket room nodes of this process.

use std::str::FromStr;

use admission::ConnectionLimits;
use protocol::{NodeName, RoomName, RoomPattern, timing};

use super::{
    problems::Problems,
    room_names::{STATUS, STATUS_PROBLEM},
    secrets,
    section::section,
    values::{CommaList, HIDDEN, Millis, Seconds, Secret, parts, rate},
};

section! {
    /// `[rooms]`: the WebSocket rooms
    pub(crate) struct Rooms {
        /// Name of the room node; of the first one if there are several. Each name must be unique on the bus.
        /// A node listens for 1.5 s before it announces itself; the process ends if another process keeps
        /// announcing the name at another `server.public_url` and does not drain.
        node: String = "rooms-1".to_owned(),
        /// Number of room nodes in the process, 1 to 16, each with the limits below. The name of the second
        /// is that of the first with `-2` in place of `-1`, or with `-2` appended. Its rooms are at
        /// `/nodes/<its name>/rooms/{room}`. Further nodes follow the same pattern.
        nodes: u32 = 1,
        /// Secrets that directors, room nodes and, with `realm.fixed_room`, gateways share, separated by
        /// commas, at least 16 characters each. The first one signs tokens; all of them verify. A secret with
        /// less than 256 bits of entropy causes a warning. Empty: a random one is made at start; over NATS
        /// they must be set.
        token_secrets: Secret = Secret::default(),
        /// Validity of a token. After it expires, the last token of a member still admits that member while
        /// the node runs and the membership is not known to have ended, for at most 24 hours after the
        /// disconnect.
        #[at_least(1)]
        token_ttl_s: Seconds = Seconds::of(timing::TOKEN_TTL),
        /// Maximum number of members of an island that is assigned to this node.
        #[at_least(1)]
        max_island_size: u32 = 100,
        /// Maximum number of members of one room, including those that are about to leave it. At least
        /// `max_island_size`.
        max_room_size: usize = 150,
        /// Maximum number of members on the node. Further entries are closed with code 4012.
        #[at_least(1)]
        max_users: usize = 10_000,
        /// Rooms that are entered with a wallet's signature instead of a token, separated by commas: names,
        /// or prefixes of names followed by `*`. None of them may match a name that an island can have. A
        /// name has 1 to 128 characters: letters, digits, `-`, `_` and single dots between them
        /// (`name.dcl.eth`). A pattern that matches no possible room is an error at start.
        open: CommaList<OpenRooms> = CommaList::empty(),
        /// How often one address may enter one room per minute; the burst is a third of that. Above it, the
        /// entry is rejected with close code 1013, and an older session of the address keeps its seat. Each
        /// room is counted separately, so a peer may follow its island however often the island moves.
        #[at_least(1)]
        entries_per_minute: u32 = 30,
        /// Bytes that one room may send per second to all its members together. Above this rate its
        /// unreliable messages are dropped; reliable ones always pass, and are counted. A room may save up
        /// the bytes of one second. 0: no limit. The default is about twice the need of 150 members that each
        /// send 20 messages of 80 bytes a second (36 MB/s). The need grows with the square of the number of
        /// members, so raise it with `max_room_size`.
        max_room_egress_bytes_per_second: u64 = 64 * 1024 * 1024,
        /// The same for all rooms of the node together. While the budget lasts, any room may use it. When it
        /// is spent, a room drops its unreliable messages only above an equal share: the budget divided by
        /// the number of rooms that sent in the last second. 0: no limit, because only the operator knows the
        /// capacity of the link. Set it to about three quarters of that capacity.
        max_node_egress_bytes_per_second: u64 = 0,
        /// Time for which the messages of a room are collected into one batch, from the oldest of them, before
        /// the batch is sent. A room reads and sends seven times in this time, and at most once in a
        /// millisecond.
        #[at_least(1)]
        flush_interval_ms: Millis = Millis(14),
        /// Time limit for the whole entry into a room.
        #[at_least(1)]
        handshake_timeout_s: Seconds = Seconds(10),
        /// Maximum number of concurrent entries; the eviction is that of `gateway.max_handshakes`.
        #[at_least(1)]
        max_handshakes: usize = 512,
        /// Maximum number of concurrent entries of one network. Further ones are answered with 503.
        #[at_least(1)]
        max_handshakes_per_ip: usize = 32,
        /// Entries that one network may start per second, in the long run. Further ones are answered with
        /// 503. 0: no limit.
        entries_per_second_per_network: u32 = 500,
        /// Burst of this rate.
        #[at_least(1)]
        entry_burst_per_network: u32 = 5_000,
        /// A client that sent nothing for this time is pinged; after three such intervals its socket is
        /// closed with code 4004.
        #[at_least(1)]
        ping_interval_s: Seconds = Seconds::of(timing::PING_INTERVAL),
        /// Time for which a socket stays open after its peer left the island.
        grace_s: Seconds = Seconds::of(timing::ROOM_GRACE),
        /// A socket is closed with code 4006 when it accepts none of the bytes written to it for this time.
        #[at_least(1)]
        write_timeout_s: Seconds = Seconds(10),
        /// Size of the queue of one member, as the memory that it occupies: the frames, 16 bytes for each
        /// frame and 128 for each batch. At least four messages of 64 KiB. When the queue is half full,
        /// unreliable messages are dropped; when it is full, the member is closed with code 4006.
        queue_bytes: usize = 1024 * 1024,
        /// Messages that one member may send per second. Above this rate its unreliable messages are dropped
        /// and its other messages are delayed. At ten times the rate the socket is read more slowly.
        #[at_least(1)]
        messages_per_second: u32 = 100,
        /// Bytes that one member may send per second; above this rate the same applies.
        #[at_least(1)]
        bytes_per_second: u32 = 256 * 1024,
    }
}

/// The maximum of room nodes in one process. More nodes need more processes.
const MAX_ROOM_NODES: u32 = 16;

impl Rooms {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let counted = (1..=MAX_ROOM_NODES).contains(&self.nodes);
        problems.check(counted, "rooms.nodes", self.nodes, "must be 1 to 16");
        let malformed = self.names().find_map(|name| Some((name.parse::<NodeName>().err()?, name)));
        // One error is enough: the other names differ only in their number.
        if let Some((error, name)) = malformed {
            problems.check(false, "rooms.node", name, error);
        }
        let fits = self.max_room_size >= self.max_island_size as usize;
        let rule = "must be at least rooms.max_island_size";
        problems.check(fits, "rooms.max_room_size", self.max_room_size, rule);
        let holds = self.queue_bytes >= 4 * protocol::MAX_MESSAGE_BYTES;
        problems.check(holds, "rooms.queue_bytes", self.queue_bytes, "must hold four messages of 64 KiB");
        let long = parts(&self.token_secrets).all(secrets::is_long);
        let rule = "each must have at least 16 characters";
        problems.check(long, "rooms.token_secrets", HIDDEN, rule);
    }

    /// The secrets that verify tokens; the first one signs them.
    pub(crate) fn token_secrets(&self) -> Vec<String> {
        parts(&self.token_secrets).map(str::to_owned).collect()
    }

    /// Settings that are possible but not advisable.
    pub(crate) fn warnings(&self) -> Vec<String> {
        parts(&self.token_secrets)
            .filter_map(|secret| secrets::entropy_warning("rooms.token_secrets", secret))
            .collect()
    }

    /// The names of the room nodes: the first one, then names that end with a number from 2 on.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let first = self.node.clone();
        let stem = first.strip_suffix("-1").unwrap_or(&first).to_owned();
        let others = (2..=self.nodes.min(MAX_ROOM_NODES)).map(move |number| format!("{stem}-{number}"));
        std::iter::once(first).chain(others)
    }

    /// The names of the room nodes, validated.
    pub(crate) fn node_names(&self) -> Vec<NodeName> {
        self.names().filter_map(|name| name.parse().ok()).collect()
    }

    /// The settings of each room node. The first node has the path that rooms have always had, the
    /// others have paths of their own. The first node also hosts the fixed room.
    pub(crate) fn settings(
        &self,
        fixed_room: Option<&RoomName>,
        tell_connected: bool,
        ws_url: &str,
    ) -> Vec<rooms::Settings> {
        let node = |(index, node): (usize, NodeName)| {
            let path = if index == 0 { String::new() } else { format!("/nodes/{node}") };
            rooms::Settings {
                fixed_room: fixed_room.filter(|_| index == 0).cloned(),
                ..self.node(node, path, tell_connected, ws_url)
            }
        };
        self.node_names().into_iter().enumerate().map(node).collect()
    }

    fn node(&self, node: NodeName, path: String, tell_connected: bool, ws_url: &str) -> rooms::Settings {
        rooms::Settings {
            node,
            public_url: ws_url.to_owned(),
            path,
            max_island_size: self.max_island_size,
            max_room_size: self.max_room_size,
            max_users: self.max_users,
            open_rooms: self.open.iter().map(|room| room.pattern.clone()).collect(),
            fixed_room: None,
            entries_per_minute: self.entries_per_minute,
            tell_connected,
            max_room_egress_bytes_per_second: self.max_room_egress_bytes_per_second,
            max_node_egress_bytes_per_second: self.max_node_egress_bytes_per_second,
            flush_interval: self.flush_interval_ms.duration(),
            handshake_timeout: self.handshake_timeout_s.duration(),
            handshakes: ConnectionLimits {
                total: self.max_handshakes,
                per_network: Some(self.max_handshakes_per_ip),
                rate: rate(self.entries_per_second_per_network, self.entry_burst_per_network),
            },
            ping_interval: self.ping_interval_s.duration(),
            grace: self.grace_s.duration(),
            write_timeout: self.write_timeout_s.duration(),
            token_ttl: self.token_ttl_s.duration(),
            queue_bytes: self.queue_bytes,
            messages_per_second: self.messages_per_second,
            bytes_per_second: self.bytes_per_second,
        }
    }
}

/// Rooms that are entered without a token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenRooms {
    /// The pattern as it was written.
    pub(super) text: String,
    pattern: RoomPattern,
}

impl FromStr for OpenRooms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == STATUS {
            return Err(STATUS_PROBLEM.to_owned());
        }
        let pattern = text.parse().map_err(|error: protocol::RoomPatternError| error.to_string())?;
        Ok(Self { text: text.to_owned(), pattern })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{problems, settings};

    #[test]
    fn room_nodes_are_numbered() {
        let rooms = |node: &str| {
            let rooms = Rooms { node: node.to_owned(), nodes: 3, ..Rooms::default() };
            rooms.names().collect::<Vec<_>>()
        };
        assert_eq!(rooms("rooms-1"), ["rooms-1", "rooms-2", "rooms-3"]);
        assert_eq!(rooms("eu"), ["eu", "eu-2", "eu-3"]);
        assert_eq!(rooms("eu-11"), ["eu-11", "eu-11-2", "eu-11-3"]);
    }

    #[test]
    fn room_node_count_and_names_are_validated() {
        let nodes = |nodes: &str| problems(&format!("[rooms]\nnodes = {nodes}"));
        assert_eq!(nodes("0"), ["rooms.nodes = 0: must be 1 to 16"]);
        assert_eq!(nodes("17"), ["rooms.nodes = 17: must be 1 to 16"]);
        // Short enough for one node, too long with a number.
        let long = "n".repeat(64);
        let problems = problems(&format!("[rooms]\nnodes = 3\nnode = \"{long}\""));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("rooms.node = {long}-2: must be")), "{problems:?}");
    }

    #[test]
    fn short_token_secret_is_rejected_and_not_printed() {
        let secrets = "[rooms]\ntoken_secrets = \"fifteen letters, a secret of sixteen characters\"";
        let expected = ["rooms.token_secrets = (hidden): each must have at least 16 characters"];
        assert_eq!(problems(secrets), expected);
    }

    #[test]
    fn only_the_first_node_hosts_the_fixed_room() {
        let settings =
            settings("[rooms]\nnodes = 2").rooms.settings(Some(&"plaza".parse().unwrap()), true, "ws://host");
        let nodes: Vec<_> =
            settings.iter().map(|node| (node.path.as_str(), node.fixed_room.is_some())).collect();
        assert_eq!(nodes, [("", true), ("/nodes/rooms-2", false)]);
    }
}
