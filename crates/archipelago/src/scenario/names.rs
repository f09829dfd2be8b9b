//! Names of peers and nodes in scenarios.

use protocol::{Address, NodeName};

/// The address of the peer with this name: the bytes of the name, so that addresses sort as names do.
pub fn address(name: &str) -> Address {
    let mut bytes = [0; 20];
    bytes.iter_mut().zip(name.bytes()).for_each(|(byte, letter)| *byte = letter);
    Address::new(bytes)
}

/// The name of a peer by its address.
pub(super) fn peer_name(peer: Address) -> String {
    let letters = peer.as_bytes().iter().take_while(|&&byte| byte != 0);
    letters.map(|&byte| char::from(byte)).collect()
}

pub(super) fn node_name(name: &str) -> Result<NodeName, String> {
    name.parse().map_err(|error| format!("`{name}` {error}"))
}
