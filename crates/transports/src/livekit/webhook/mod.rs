//! Events that a LiveKit server posts: verification, parsing, and recognition of repeated ones.
//!
//! The server posts JSON with the content type `application/webhook+json`. The `Authorization` header holds a
//! JWT that is signed with the server's API secret and contains the SHA-256 of the body. The server
//! repeats a delivery without a reply, and drops events that are older than 30 s or exceed its queue.
//! Therefore a receiver must tolerate repeated events ([`RecentIds`]) and reconcile
//! with the server's lists ([`occupancy`](super::occupancy)).

mod event;
mod fields;
mod receiver;
mod recent_ids;

pub(super) use self::event::join_time_ms;
pub use self::{
    event::{DisconnectReason, Event, EventKind, EventParticipant, EventRoom, Kind, State},
    receiver::{AuthError, MAX_BODY_BYTES, MAX_TOKEN_AGE, Receiver, WebhookError},
    recent_ids::RecentIds,
};

#[cfg(test)]
mod tests;
