//! The settings of a client.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use protocol::timing;

use crate::{Gateway, connection::ConnectOptions};

/// The settings of a client.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway, or several of one realm. [`crate::discover`] and [`crate::discover_all`] find them.
    pub gateway: Gateway,
    /// The transports that the client can join, such as `livekit` and `ws-room`, sent to the gateway at sign-in. Empty:
    /// none are sent, and the gateway assumes its configured list.
    pub transports: Vec<String>,
    /// Whether each session resumes the previous one, so that the client keeps its room. The client requests
    /// a resumption secret from the gateway, and presents it at the next sign-in. Otherwise it must enter its
    /// room anew.
    pub resume_sessions: bool,
    /// The timeout of each connection, sign-in and room admission.
    pub response_timeout: Duration,
    /// The time for which the client stays in the old room after the new one has admitted it. `None`: the
    /// client leaves the old room before it enters the new one.
    pub overlap: Option<Duration>,
    /// A connection is given up if the server sends nothing for this long, pongs included, or reads nothing
    /// for this long.
    pub liveness_timeout: Duration,
    /// The interval in which the last heartbeat is repeated.
    pub heartbeat_interval: Duration,
    /// The longest backoff before a retry, unless a server requests a longer one.
    pub max_backoff: Duration,
    /// The local address of WebSocket connections; `None`: any.
    pub local_address: Option<IpAddr>,
    /// The local UDP addresses of connections to LiveKit rooms; port 0 is any free port. Empty: all addresses of the
    /// machine, or the loopback if the server is reached over it.
    pub udp_addresses: Vec<SocketAddr>,
}

impl Settings {
    /// The default settings for a gateway.
    pub fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            transports: Vec::new(),
            resume_sessions: true,
            response_timeout: Duration::from_secs(10),
            overlap: Some(timing::ROOM_OVERLAP),
            liveness_timeout: Duration::from_secs(45),
            heartbeat_interval: timing::HEARTBEAT_INTERVAL,
            max_backoff: timing::RECONNECT_BACKOFF,
            local_address: None,
            udp_addresses: Vec::new(),
        }
    }

    /// The behaviour of stock clients: as soon as they are assigned another room, they leave their room
    /// before they enter the new one. They announce no extensions.
    pub fn stock(gateway: Gateway) -> Self {
        Self { overlap: None, resume_sessions: false, ..Self::new(gateway) }
    }

    pub(crate) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            timeout: self.response_timeout,
            local_address: self.local_address,
            liveness_timeout: self.liveness_timeout,
        }
    }
}
