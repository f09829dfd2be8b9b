//! The stats role: presence (which peers and islands are where) as HTTP endpoints for sites and operators.
//!
//! It subscribes to the bus and keeps the last state of each peer and island; state that is not refreshed
//! expires. Changes are published in a live feed. The names of scenes come from the content service.

mod access;
mod answers;
mod cached;
mod content;
mod encoded;
mod event;
mod feed;
mod islands;
mod metrics;
mod peer;
mod presence;
mod response;
mod router;
mod scene_names;
mod scenes;
mod service;
mod settings;
mod shared;

pub use access::{Access, TokenDigest};
pub use encoded::Encoded;
pub use metrics::describe_metrics;
pub use response::AGE;
pub use service::Stats;
pub use settings::Settings;
