//! The room service with the listener of `atoll serve`.

use std::{future::pending, time::Duration};

use admission::{ConnectionLimits, Verifier};
use anyhow::Result;
use bus::Bus;
use listener::ClientAddresses;
use tokio::net::TcpListener;
use transports::ws_room;

use crate::client::SECRET;

const UNLIMITED: ConnectionLimits = ConnectionLimits { total: 100_000, per_network: None, rate: None };

/// Serves rooms on a free port, and prints its address.
pub(crate) async fn serve(flush_interval_ms: u64) -> Result<()> {
    let tokens = ws_room::Verifier::new([SECRET]);
    let verifier = Verifier::new(identity::Limits::default());
    let rooms = rooms::Rooms::new([room_settings(flush_interval_ms)?], tokens, verifier);
    let (bus, router) = (Bus::in_process(), rooms.router());
    let subscriptions = rooms.subscribe(&bus);
    tokio::spawn(async move { rooms.run(bus, subscriptions).await });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    listener::serve(listener, router, listener_settings(), pending()).await;
    Ok(())
}

/// The defaults of `atoll serve`, except for the limits: a room may have 1,000 members, and no load exceeds its
/// egress budget. Batches are still charged to the budget.
fn room_settings(flush_interval_ms: u64) -> Result<rooms::Settings> {
    Ok(rooms::Settings {
        node: "bench".parse()?,
        public_url: String::new(),
        path: String::new(),
        max_island_size: 2_000,
        max_room_size: 2_000,
        max_users: 10_000,
        open_rooms: Vec::new(),
        fixed_room: None,
        flush_interval: Duration::from_millis(flush_interval_ms),
        entries_per_minute: 30,
        tell_connected: true,
        max_room_egress_bytes_per_second: 16 * 1024 * 1024 * 1024,
        max_node_egress_bytes_per_second: 0,
        handshake_timeout: Duration::from_secs(10),
        handshakes: UNLIMITED,
        ping_interval: Duration::from_secs(10),
        grace: Duration::from_secs(10),
        token_ttl: Duration::from_secs(300),
        write_timeout: Duration::from_secs(10),
        queue_bytes: 1024 * 1024,
        messages_per_second: 100,
        bytes_per_second: 256 * 1024,
    })
}

fn listener_settings() -> listener::Settings {
    listener::Settings {
        name: "public",
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        write_timeout: Duration::from_secs(10),
        connections: UNLIMITED,
        addresses: ClientAddresses { ipv6_prefix: 64, ..ClientAddresses::default() },
    }
}
