//! The rate limit of presence requests from one network.

use std::{sync::Arc, time::Duration};

use admission::{Network, Rate, RateLimited, RateLimiter};
use axum::{
    Extension,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use tokio::time::{self, Instant};

use crate::metrics;

/// How long a request above the rate may wait for its turn. This slows a client that polls in a loop
/// down to the rate; a client that does not wait for its responses is refused.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The number of networks that are tracked. Each is dropped once its bucket is full again, within
/// seconds.
const MAX_NETWORKS: usize = 10_000;

/// Limits the requests of each network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Throttle(Arc<Mutex<RateLimiter<Network>>>);

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(Arc::new(Mutex::new(RateLimiter::new(rate, MAX_NETWORKS))))
    }

    fn reserve(&self, network: Network) -> Result<Instant, RateLimited> {
        self.0.lock().reserve(network, MAX_WAIT, Instant::now())
    }
}

/// Middleware: delays a request until its turn, or refuses it with 429.
pub(crate) async fn throttle(
    State(throttle): State<Throttle>,
    Extension(network): Extension<Network>,
    request: Request,
    next: Next,
) -> Response {
    match throttle.reserve(network) {
        Ok(turn) => {
            // Avoids the timer when there is no delay.
            if turn > Instant::now() {
                time::sleep_until(turn).await;
            }
            next.run(request).await
        }
        Err(_) => {
            metrics::presence_requests_refused().increment(1);
            // A new connection costs the client more than it costs the server.
            let headers = [(header::RETRY_AFTER, "1"), (header::CONNECTION, "close")];
            (StatusCode::TOO_MANY_REQUESTS, headers, "too many requests of this network").into_response()
        }
    }
}
