//! Events of the connection that the client library reports: slow consumers and refused requests.

use std::{
    future,
    time::{Duration, Instant},
};

use async_nats::{Event, ServerError};
use parking_lot::Mutex;

use super::subscribers::Subscribers;
use crate::metrics;

/// The shortest time between two log messages about refused publications.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Counts the messages that the client library drops, under the name of their subscriber, and the requests
/// that the server refuses.
pub(super) fn event_handler(
    subscribers: Subscribers,
) -> impl Fn(Event) -> future::Ready<()> + Send + Sync + 'static {
    let last_warned = Mutex::<Option<Instant>>::default();
    move |event| {
        match event {
            Event::SlowConsumer(subscription) => {
                if let Some(queue) = subscribers.get(subscription) {
                    queue.count_slow_consumer();
                }
            }
            Event::ServerError(error) => on_server_error(&error, &last_warned),
            _ => {}
        }
        future::ready(())
    }
}

/// Counts and logs a request that the server refuses: its permissions do not fit the roles of this process.
/// This is the only sign of it, because the server drops refused messages silently.
fn on_server_error(error: &ServerError, last_warned: &Mutex<Option<Instant>>) {
    let text = error.to_string();
    let request = if text.contains("Permissions Violation for Publish") {
        "publish"
    } else if text.contains("Permissions Violation for Subscription") {
        "subscribe"
    } else {
        "other"
    };
    metrics::refused(request).increment(1);
    let mut last_warned = last_warned.lock();
    // Refused subscriptions are always logged: there are few, each once per connection. Publications may be
    // many, so their log is limited.
    if request != "subscribe" {
        if last_warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        *last_warned = Some(Instant::now());
    }
    tracing::error!(error = text, "the NATS server refuses a publication or a subscription");
}
