//! The HTTP/1 accept loop of every listener of a process.
//!
//! It serves HTTP/1 and nothing else: HTTP/2 by prior knowledge is answered like any malformed request. Each
//! connection has deadlines for its request head, its idle time and the progress of its responses.
//! Connections are limited in total and per network. Each request carries the network of its client in its
//! extensions, as an [`admission::Network`].

mod accept;
mod address;
mod connection;
mod metrics;
mod proxy_protocol;
mod settings;
mod state;
mod stream;

pub use accept::serve;
pub use address::ClientAddresses;
pub use metrics::describe_metrics;
pub use settings::Settings;
pub use stream::{ConnectionGuard, Stream};
