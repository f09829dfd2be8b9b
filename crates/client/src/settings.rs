use std::{net::IpAddr, time::Duration};

use crate::{Gateway, connection::ConnectOptions};

/// How an explorer behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway, or several of one realm; [`crate::discover`] and [`crate::discover_all`] find them.
    pub gateway: Gateway,
    /// What it tells the gateway that it can join, such as `ws-room`; empty: nothing is said, and
    /// the gateway assumes.
    pub transports: Vec<String>,
    /// Whether its next session resumes its last one, so that it keeps its room: it asks the gateway
    /// for a secret, and presents it at the next sign-in. Otherwise it enters its room anew.
    pub resume_sessions: bool,
    /// How long any server may take to answer.
    pub response_timeout: Duration,
    /// How long it stays in the old room once the new one has welcomed it; `None`: it leaves the old
    /// room before it enters the new one.
    pub overlap: Option<Duration>,
    /// A connection over which nothing comes for so long, not even the answer to a ping, or which
    /// takes nothing for so long, is given up.
    pub liveness_timeout: Duration,
    /// How often it says again where it is, when it has not been told anything new.
    pub heartbeat_interval: Duration,
    /// The longest pause before it tries again, unless a server asks for a longer one.
    pub max_backoff: Duration,
    /// The address of this machine that its connections come from; `None`: any.
    pub local_address: Option<IpAddr>,
}

impl Settings {
    /// The usual behaviour, at this gateway.
    pub fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            transports: Vec::new(),
            resume_sessions: true,
            response_timeout: Duration::from_secs(10),
            overlap: Some(Duration::from_secs(2)),
            liveness_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
            max_backoff: Duration::from_secs(10),
            local_address: None,
        }
    }

    /// The behaviour of stock clients, which break before they make: as soon as they are told of
    /// another room they leave the one that they are in. They announce no extensions.
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
