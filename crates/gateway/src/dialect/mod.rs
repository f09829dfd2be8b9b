//! The protocols that clients speak.

pub(crate) mod archipelago;
pub(crate) mod rpc;
