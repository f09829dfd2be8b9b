//! Two members behind NATs, the realm that they sign in to, and the path of their messages.

use std::{
    fmt, fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use test_support::{Namespace, Nat, NatKind, Realm, TEST_TIMEOUT, TurnServer, connect_to_public, within};
use tokio::time::sleep;

use super::{
    member::{MESSAGE_BYTES, Member},
    path::{Counts, Outcome, Path},
};

/// The addresses of the realm and of the TURN server.
const REALM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const TURN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// As in docs/p2p.md: coturn ends a relay if the network refuses one of its packets, such as one to a host behind a NAT.
const DENIED: &str = "--denied-peer-ip=10.0.0.0-10.255.255.255";
const RULES: &str = "default = { transports = [\"p2p\", \"ws-room\"] }\n";
const FALLBACKS: &str = "atoll_gateway_mesh_signals_total{kind=\"fallback\"}";
/// The path of messages is observed in windows of this time.
const WINDOW: Duration = Duration::from_millis(500);
/// A path of so many windows in a row is the last one, unless it is the fallback, which the director limits.
const LAST: usize = 6;
/// The longest time to observe a cell: a failing mesh moves after about 25 s.
const LIMIT: Duration = Duration::from_secs(60);
/// Messages that were sent last arrive within this time.
const ARRIVAL: Duration = Duration::from_secs(2);

/// The public network: the namespace of the test.
pub(super) struct Network {
    namespace: Namespace,
    turn: TurnServer,
    /// With the rules of all realms.
    folder: TempDir,
}

/// Two kinds of NATs, and the help that the members have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) kinds: [NatKind; 2],
    pub(super) setup: Setup,
}

/// A STUN server is always configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    WithoutTurn,
    WithTurn,
    /// Without TURN, but with a third member that has a public address.
    WithPublicMember,
}

impl Network {
    pub(super) fn new() -> Self {
        let (namespace, folder) = (Namespace::current(), tempfile::tempdir().unwrap());
        for address in [REALM, TURN] {
            namespace.run(&["ip", "address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        namespace.forward_packets();
        fs::write(folder.path().join("rules.toml"), RULES).unwrap();
        let turn = TurnServer::start_in_with(&namespace, TURN, &[DENIED]);
        Self { namespace, turn, folder }
    }

    /// A realm in which all islands are meshes.
    fn realm(&self, setup: Setup) -> Realm {
        let (turn, rules) = (self.turn.url(), self.folder.path().join("rules.toml"));
        let stun = turn.replace("turn:", "stun:").replace("?transport=udp", "");
        let mut settings =
            vec![("P2P__ENABLED", "true"), ("P2P__STUN", &stun), ("ISLANDS__MOVE_INTERVAL_S", "1")];
        if setup == Setup::WithTurn {
            settings.extend([("P2P__TURN", &*turn), ("P2P__TURN_SECRET", TurnServer::SECRET)]);
        }
        let flags = ["--rules", &rules.display().to_string()];
        Realm::launch_at(&format!("{REALM}:0"), &flags, &settings)
    }
}

/// The running members of a cell.
struct Running {
    realm: Realm,
    nats: [Nat; 2],
    members: [Member; 2],
    /// The machine of the third member, and its client.
    public: Option<(Namespace, Member)>,
}

impl Running {
    fn start(cell: Cell, number: u8, network: &Network) -> Self {
        let realm = network.realm(cell.setup);
        let first = 3 * number;
        let nats = [0, 1].map(|index| Nat::new(cell.kinds[index], &network.namespace, first + index as u8));
        let public = (cell.setup == Setup::WithPublicMember).then(|| {
            let machine = Namespace::new();
            connect_to_public(&network.namespace, &machine, first + 2);
            machine
        });
        for machine in nats.iter().map(|nat| &nat.host).chain(&public) {
            machine.count_datagrams(MESSAGE_BYTES);
        }
        let members = nats.each_ref().map(|nat| Member::start(&nat.host, realm.socket()));
        let public = public.map(|machine| {
            let member = Member::start(&machine, realm.socket());
            (machine, member)
        });
        Self { realm, nats, members, public }
    }

    async fn counts(&self) -> Counts {
        let sent = self.nats.each_ref().map(|nat| nat.host.datagrams_sent());
        let routed = self.public.as_ref().map(|(machine, _)| machine.datagrams_sent()).unwrap_or_default();
        let mut counts = Counts { fallback: self.realm.count(FALLBACKS).await as u64, ..Counts::default() };
        for index in [0, 1] {
            let count = |to: &Ipv4Addr| sent[index].get(to).copied().unwrap_or_default();
            counts.direct += count(&self.nats[1 - index].address);
            counts.turn += count(&TURN);
            counts.routed += routed.get(&self.nats[index].address).copied().unwrap_or_default();
            counts.received += self.members[index].state().received.len() as u64;
        }
        counts
    }

    /// Observes the paths from now on, up to the last one.
    async fn observe(&self, began: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let mut earlier = self.counts().await;
        while began.elapsed() < LIMIT {
            sleep(WINDOW).await;
            let counts = self.counts().await;
            let has_moved = self.members.iter().all(|member| member.state().transport() == Some("ws-room"));
            let path = if has_moved { Some(Path::WsRoom) } else { counts.path_since(earlier) };
            if let Some(path) = path {
                outcome.push(path, began.elapsed());
            }
            if outcome.windows >= LAST && outcome.last() != Some(Path::Fallback) {
                break;
            }
            earlier = counts;
        }
        outcome
    }
}

impl Cell {
    /// Starts the members, which send messages to each other, and observes the paths of these.
    pub(super) async fn run(self, number: u8, network: &Network) -> Outcome {
        let running = Running::start(self, number, network);
        let (began, [one, other]) = (Instant::now(), &running.members);
        within(TEST_TIMEOUT, &format!("{self}: the members meet"), async || {
            one.state().is_with(other.address) && other.state().is_with(one.address)
        })
        .await;
        for member in &running.members {
            member.state().is_sending = true;
        }
        let mut outcome = running.observe(began).await;
        for member in &running.members {
            member.state().is_sending = false;
        }
        sleep(ARRIVAL).await;
        for (sender, receiver) in [(one, other), (other, one)] {
            let (sent, received) = (sender.state().next, receiver.state());
            let is_lost = |number: &u32| !received.received.contains(&(sender.address, *number));
            outcome.sent += sent as usize;
            outcome.lost += (0..sent).filter(is_lost).count();
        }
        outcome
    }

    /// The last path. No kind can be traversed without UDP, since the mesh uses TURN over UDP only. A symmetric NAT uses
    /// a port for each destination that the other side cannot know, and which a NAT that filters by port does not accept.
    pub(super) fn expected(self) -> Path {
        let [is_blocked, is_symmetric, filters_ports] = [
            [NatKind::UdpBlocked; 2],
            [NatKind::Symmetric; 2],
            [NatKind::Symmetric, NatKind::PortRestricted],
        ]
        .map(|kinds| self.kinds.map(|kind| kinds.contains(&kind)));
        if is_blocked.contains(&true) {
            return Path::WsRoom;
        }
        let is_traversable = !(is_symmetric.contains(&true) && filters_ports == [true; 2]);
        match self.setup {
            _ if is_traversable => Path::Direct,
            Setup::WithoutTurn => Path::WsRoom,
            Setup::WithTurn => Path::Turn,
            Setup::WithPublicMember => Path::Routed,
        }
    }
}

impl Setup {
    pub(super) const ALL: [Self; 3] = [Self::WithoutTurn, Self::WithTurn, Self::WithPublicMember];
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WithoutTurn => "Without TURN",
            Self::WithTurn => "With TURN",
            Self::WithPublicMember => "Without TURN, with a public member",
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kinds: [one, other], setup } = self;
        write!(f, "{setup}: {one}, {other}")
    }
}
