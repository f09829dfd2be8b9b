//! Addresses for servers that tests start.

use std::net::{SocketAddr, TcpListener};

/// A free address of the loopback; another process may take it before it is used.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// So many free ports of the loopback. All of them are bound at one moment, so that they differ.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
