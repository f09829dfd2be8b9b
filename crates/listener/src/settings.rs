//! The settings of a listener.

use std::time::Duration;

use admission::ConnectionLimits;

use crate::address::ClientAddresses;

/// The deadlines and limits of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The label of its metrics: `public`, `admin` or `metrics`.
    pub name: &'static str,
    /// Time limit for a request head, counted from its first byte; for the first request of a connection,
    /// from `accept`. The PROXY protocol header counts towards that time.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests. Load balancers keep pooled connections for
    /// about 60 s, so this should be longer: otherwise a load balancer may send a request on a connection
    /// that was just closed.
    pub idle_timeout: Duration,
    /// A connection is closed when its client reads less than 1 KiB a second of a response for this long.
    pub write_timeout: Duration,
    /// The limits of connections in total and per network. Connections of trusted proxies count in the total
    /// alone.
    pub connections: ConnectionLimits,
    /// How the address of a client is determined.
    pub addresses: ClientAddresses,
}
