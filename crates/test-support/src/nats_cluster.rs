//! A cluster of NATS servers.

use crate::{free_address::free_ports, nats_server::NatsServer};

/// The number of servers: the fewest of which one may fail.
const SERVERS: usize = 3;

/// A cluster of three servers with JetStream.
pub struct NatsCluster {
    /// Its servers, of which some may not run.
    pub servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// A cluster, the first `running` servers of which run.
    pub fn start(running: usize) -> Self {
        let ports = free_ports(2 * SERVERS);
        let (ports, route_ports) = ports.split_at(SERVERS);
        let routes: Vec<String> = route_ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let plan = |(&port, route): (&u16, &String)| {
            let flags =
                [["--cluster_name", "atoll-test"], ["--cluster", route], ["--routes", &routes.join(",")]];
            NatsServer::plan_with_jetstream(port, flags.as_flattened())
        };
        let mut servers: Vec<NatsServer> = ports.iter().zip(&routes).map(plan).collect();
        servers.iter_mut().take(running).for_each(NatsServer::restart);
        Self { servers }
    }

    /// The URLs of all servers.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// The index of the server with this name.
    pub fn index_of(&self, name: &str) -> usize {
        self.servers.iter().position(|server| server.name() == name).expect("a server of this cluster")
    }
}
