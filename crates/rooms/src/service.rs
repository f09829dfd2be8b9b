use std::sync::{Arc, atomic::AtomicU32};

use admission::Verifier;
use axum::Router;
use bus::Bus;
use tokio::task::JoinSet;
use transports::ws_room;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    NameTaken, Settings,
    node::{self, Node},
    router,
};

/// The room nodes of a process. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<[Arc<Node>]>);

/// What the room nodes of a process have to hear.
pub struct Subscriptions(Vec<node::NodeSubscriptions>);

impl Rooms {
    /// A node for each of these settings; all of them take tokens of `tokens` and chains of
    /// `verifier`.
    pub fn new(
        settings: impl IntoIterator<Item = Settings>,
        tokens: ws_room::Verifier,
        verifier: Verifier,
    ) -> Self {
        // Aliases start at 1: in proto3 a 0 looks like a field that is not there. No two members of
        // a process have the same.
        let (tokens, aliases) = (Arc::new(tokens), Arc::new(AtomicU32::new(1)));
        let node =
            |settings| Arc::new(Node::new(settings, tokens.clone(), verifier.clone(), aliases.clone()));
        Self(settings.into_iter().map(node).collect())
    }

    /// The endpoints `/rooms/{room}`, each under its node's path.
    pub fn router(&self) -> Router {
        router::router(&self.0)
    }

    /// The endpoint `/rooms/status` of all nodes, with its description.
    pub fn status_router(&self) -> OpenApiRouter {
        router::status_router(&self.0)
    }

    /// What each node has to hear from now on, for [`Rooms::run`].
    pub fn subscribe(&self, bus: &Bus) -> Subscriptions {
        Subscriptions(self.0.iter().map(|node| node.subscribe(bus)).collect())
    }

    /// Sends on what members say, announces the nodes, and ends memberships. Does not return, unless
    /// another process on the bus has the name of one of them: each listens for a while before it
    /// announces itself.
    pub async fn run(&self, bus: Bus, Subscriptions(inbound): Subscriptions) -> Result<(), NameTaken> {
        let mut nodes = JoinSet::new();
        for (node, inbound) in self.0.iter().cloned().zip(inbound) {
            let bus = bus.clone();
            nodes.spawn(async move { node.run(bus, inbound).await });
        }
        match nodes.join_next().await {
            Some(Ok(ended)) => ended,
            // A node that panics ends the role.
            _ => Ok(()),
        }
    }

    /// Whether all nodes have announced themselves, so that people may be sent to them.
    pub fn have_announced(&self) -> bool {
        self.0.iter().all(|node| node.has_announced())
    }

    /// Stops letting people in, and says so on the bus: the director moves islands to other nodes, if
    /// there are any, and those who are in follow.
    pub fn stop_accepting(&self, bus: &Bus) {
        self.0.iter().for_each(|node| node.stop_accepting(bus));
    }

    /// Stops letting people in, tells those who are in to come back elsewhere, and says so on the
    /// bus. Their sockets close as soon as what is queued has been written.
    pub fn drain(&self, bus: &Bus) {
        self.0.iter().for_each(|node| node.drain(bus));
    }

    /// How many sockets are open: in a room, on their way in, or on their way out.
    pub fn sockets_count(&self) -> usize {
        self.sum(Node::sockets_count)
    }

    /// Sets the gauges to what holds now, on all nodes together.
    pub fn observe(&self) {
        let rooms = self.sum(|node| node.registry.sizes().len());
        metrics::gauge!("dcl_ws_rooms_count").set(rooms as f64);
        let users = self.sum(|node| node.registry.users_count());
        metrics::gauge!("dcl_ws_rooms_connections").set(users as f64);
        metrics::gauge!("atoll_rooms_sockets").set(self.sockets_count() as f64);
        let queued = self.sum(|node| node.registry.slab_bytes());
        metrics::gauge!("atoll_rooms_slab_bytes").set(queued as f64);
    }

    fn sum(&self, of: impl Fn(&Node) -> usize) -> usize {
        self.0.iter().map(|node| of(node)).sum()
    }
}
