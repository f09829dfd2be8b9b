//! Health of the external services that a realm refers to: content and lambdas.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use admission::HttpClient;
use reqwest::Client;
use tokio::time::{self, MissedTickBehavior};

use crate::metrics;

/// Interval between health probes of a service, and the timeout of one request.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// An external service and its health, which is probed in the background.
#[derive(Debug)]
pub(crate) struct RealmService {
    name: &'static str,
    url: String,
    healthy: AtomicBool,
}

impl RealmService {
    /// The service at `url`. An empty URL means that the realm has no such service, which counts as healthy.
    /// Any other service counts as unhealthy until its first successful probe.
    pub(crate) fn new(name: &'static str, url: &str) -> Self {
        Self { name, url: url.to_owned(), healthy: AtomicBool::new(url.is_empty()) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether the last probe succeeded.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Requests `/status` periodically. Does not return. After a failure it retries at once: two failures in
    /// a row make the service unhealthy, one success makes it healthy.
    pub(crate) async fn probe(&self) {
        if self.url.is_empty() {
            return std::future::pending().await;
        }
        let client = HttpClient::new(&self.url, |builder| builder.timeout(PROBE_TIMEOUT));
        let mut is_reported = false;
        let status = format!("{}/status", self.url.trim_end_matches('/'));
        let mut ticks = time::interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let client = match client.get() {
                Ok(client) => client,
                Err(error) => {
                    if !std::mem::replace(&mut is_reported, true) {
                        tracing::error!(service = self.name, %error, "no HTTP client to probe the service with");
                    }
                    continue;
                }
            };
            let healthy = is_success(client, &status).await || is_success(client, &status).await;
            metrics::realm_service_healthy(self.name).set(f64::from(healthy));
            if healthy != self.healthy.swap(healthy, Ordering::Relaxed) {
                match healthy {
                    true => tracing::info!(service = self.name, "the service is healthy"),
                    false => tracing::warn!(service = self.name, "the service is unhealthy"),
                }
            }
        }
    }
}

async fn is_success(client: &Client, url: &str) -> bool {
    client.get(url).send().await.is_ok_and(|response| response.status().is_success())
}
