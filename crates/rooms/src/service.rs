//! The room nodes of one process.

use std::sync::{Arc, atomic::AtomicU32};

use admission::Verifier;
use axum::Router;
use bus::Bus;
use protocol::{NodeName, RoomName};
use tokio::task::JoinSet;
use transports::ws_room;

use crate::{
    metrics,
    node::{self, Node},
    node_name::NameTaken,
    router,
    settings::Settings,
};

/// The room nodes of a process. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<[Arc<Node>]>);

/// The subscriptions of the room nodes of a process.
pub struct Subscriptions(Vec<node::NodeSubscriptions>);

impl Rooms {
    /// Creates a node for each of `settings`. All of them accept the tokens that `tokens` verifies and the
    /// auth chains that `verifier` verifies.
    pub fn new(
        settings: impl IntoIterator<Item = Settings>,
        tokens: ws_room::Verifier,
        verifier: Verifier,
    ) -> Self {
        // Aliases start at 1: in proto3 a 0 cannot be distinguished from a missing field. They are unique
        // within the process.
        let (tokens, next_alias) = (Arc::new(tokens), Arc::new(AtomicU32::new(1)));
        let node =
            |settings| Arc::new(Node::new(settings, tokens.clone(), verifier.clone(), next_alias.clone()));
        Self(settings.into_iter().map(node).collect())
    }

    /// The endpoints `/rooms/{room}`, each under the path of its node.
    pub fn router(&self) -> Router {
        router::router(&self.0)
    }

    /// The rooms of each node, and the number of members of each room.
    pub fn sizes(&self) -> Vec<(NodeName, Vec<(RoomName, usize)>)> {
        self.0.iter().map(|node| (node.settings.node.clone(), node.registry.sizes())).collect()
    }

    /// Subscribes each node to the messages that [`Rooms::run`] needs.
    pub fn subscribe(&self, bus: &Bus) -> Subscriptions {
        Subscriptions(self.0.iter().map(|node| node.subscribe(bus)).collect())
    }

    /// Runs the nodes: they flush rooms, announce themselves and end memberships. Returns an error if another
    /// process on the bus has the name of one of them; each node waits for a quiet period before its first
    /// announcement. Otherwise it returns only if a node panics or
    /// has no file descriptor left.
    pub async fn run(&self, bus: Bus, Subscriptions(subscriptions): Subscriptions) -> Result<(), NameTaken> {
        let mut nodes = JoinSet::new();
        for (node, subscriptions) in self.0.iter().cloned().zip(subscriptions) {
            let bus = bus.clone();
            nodes.spawn(async move { node.run(bus, subscriptions).await });
        }
        match nodes.join_next().await {
            Some(Ok(result)) => result,
            // A panic in a node ends the whole role.
            _ => Ok(()),
        }
    }

    /// Whether all nodes have announced themselves, so that the director may assign islands to them.
    pub fn have_announced(&self) -> bool {
        self.0.iter().all(|node| node.has_announced())
    }

    /// Stops accepting members and announces that. The director then moves islands to other nodes, if there
    /// are any, and the members follow.
    pub fn stop_accepting(&self, bus: &Bus) {
        self.0.iter().for_each(|node| node.stop_accepting(bus));
    }

    /// Stops accepting members, announces that, and closes all sockets with a code that lets clients
    /// reconnect. Each socket closes as soon as its queued frames have been written.
    pub fn drain(&self, bus: &Bus) {
        self.0.iter().for_each(|node| node.drain(bus));
    }

    /// The number of open sockets: during the handshake, in a room, or while closing.
    pub fn sockets_count(&self) -> usize {
        self.sum(Node::sockets_count)
    }

    /// Sets the gauges to the current sums over all nodes.
    pub fn observe(&self) {
        let rooms = self.sum(|node| node.registry.sizes().len());
        metrics::rooms().set(rooms as f64);
        let users = self.sum(|node| node.registry.users_count());
        metrics::members().set(users as f64);
        metrics::sockets().set(self.sockets_count() as f64);
        let queued = self.sum(|node| node.registry.slab_bytes());
        metrics::slab_bytes().set(queued as f64);
    }

    fn sum(&self, count: impl Fn(&Node) -> usize) -> usize {
        self.0.iter().map(|node| count(node)).sum()
    }
}
