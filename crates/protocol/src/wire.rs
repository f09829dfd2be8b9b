//! Messages compiled from `protocol/*.proto`.

#![allow(missing_docs, clippy::all, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));
