//! Probes a LiveKit server, and reports its health.

use std::{error::Error, fmt, pin::Pin, sync::Arc, time::Duration};

use livekit_api::services::{ServerError, ServerErrorCode, ServiceError, room::RoomClient};
use protocol::timing::NODE_ANNOUNCE_INTERVAL;
use tokio::time::{self, Interval, MissedTickBehavior};

use super::{
    health::{Health, HealthUpdate},
    keys::Keys,
};

/// Requests a LiveKit server's rooms. A reply shows that the server runs and accepts the API key.
#[derive(Debug)]
pub struct Probe {
    client: RoomClient,
    timeout: Duration,
}

/// Why a probe failed. It contains only the kind of the server's error and none of its text, which may repeat
/// a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No reply in time.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// There is no connection, or it broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The server refuses the key or its secret.
    #[error("it refuses the API key or the secret")]
    Refused,
    /// The server failed.
    #[error("it replied with an internal error")]
    Failed,
    /// Neither a LiveKit reply nor a LiveKit error. Servers refuse a key in plain text, too.
    #[error("its reply is not one of a LiveKit server, or it refuses the API key or the secret")]
    InvalidResponse,
}

/// The result of a running probe.
type PendingProbe = Pin<Box<dyn Future<Output = Result<u32, ProbeError>> + Send>>;

/// Probes a server every second, and reports its state every second, also while a reply takes longer.
pub struct HealthWatch {
    probe: Arc<Probe>,
    health: Health,
    ticks: Interval,
    /// The probe without a reply yet.
    pending: Option<PendingProbe>,
    /// The last report; `None` before the first reply.
    reported: Option<Result<u32, ProbeError>>,
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// How many participants are in its rooms; or why it is unhealthy.
    pub users: Result<u32, ProbeError>,
    /// Whether this is the first report, or the server became healthy or unhealthy with it.
    pub changed: bool,
}

/// The longest time for a reply. A loaded server replies late and still serves media. A server that hangs is
/// reported unhealthy after two timeouts.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Probe {
    /// A probe of the server with its API at `api_url` (`http://host:port` or `https://host`).
    pub fn new(api_url: &str, keys: &Keys) -> Self {
        Self::with_timeout(api_url, keys, PROBE_TIMEOUT)
    }

    fn with_timeout(api_url: &str, keys: &Keys, deadline: Duration) -> Self {
        // Without failover: a reply of another region's server would prove nothing about this one.
        let client = RoomClient::with_api_key(api_url, &keys.api_key, &keys.api_secret).with_failover(false);
        Self { client, timeout: deadline }
    }

    /// The number of participants in all rooms of the server.
    pub async fn users(&self) -> Result<u32, ProbeError> {
        let rooms = time::timeout(self.timeout, self.client.list_rooms(Vec::new())).await;
        let rooms = rooms.map_err(|_| ProbeError::TimedOut(self.timeout))??;
        Ok(rooms.iter().fold(0, |users, room| users.saturating_add(room.num_participants)))
    }
}

impl From<ServiceError> for ProbeError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Twirp(ServerError::Twirp(error)) => match error.code.as_str() {
                ServerErrorCode::UNAUTHENTICATED | ServerErrorCode::PERMISSION_DENIED => Self::Refused,
                _ => Self::Failed,
            },
            ServiceError::Twirp(ServerError::Request(error)) if !error.is_decode() => {
                Self::Unreachable(root_cause(&error))
            }
            ServiceError::Twirp(ServerError::Url(error)) => Self::Unreachable(error.to_string()),
            ServiceError::Twirp(_) => Self::InvalidResponse,
            // No token could be signed with them.
            ServiceError::AccessToken(_) | ServiceError::Env(_) => Self::Refused,
        }
    }
}

fn root_cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

impl HealthWatch {
    /// Starts to watch a server. Needs a runtime with timers and sockets.
    pub fn new(probe: Probe) -> Self {
        let mut ticks = time::interval(NODE_ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { probe: Arc::new(probe), health: Health::default(), ticks, pending: None, reported: None }
    }

    /// The state of the server: once it is known, and again every second. Cancel-safe.
    pub async fn next(&mut self) -> HealthReport {
        loop {
            let Some(pending) = &mut self.pending else {
                self.ticks.tick().await;
                self.start_probe();
                continue;
            };
            tokio::select! {
                biased;
                users = pending => {
                    self.pending = None;
                    match self.health.observe(users.is_ok()) {
                        HealthUpdate::ProbeAgain => self.start_probe(),
                        HealthUpdate::Known { healthy, changed } => return self.report(users, healthy, changed),
                    }
                }
                // The last report is repeated. A server without a report for some seconds counts as gone.
                _ = self.ticks.tick() => {
                    if let Some(users) = self.reported.clone() {
                        return HealthReport { users, changed: false };
                    }
                }
            }
        }
    }

    fn start_probe(&mut self) {
        let probe = self.probe.clone();
        self.pending = Some(Box::pin(async move { probe.users().await }));
    }

    fn report(&mut self, users: Result<u32, ProbeError>, healthy: bool, changed: bool) -> HealthReport {
        // A server that replies again stays unhealthy for a while, for the last reported reason.
        let recovering = !healthy && users.is_ok();
        let users = self.reported.take().filter(|_| recovering).unwrap_or(users);
        self.reported = Some(users.clone());
        HealthReport { users, changed }
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("probe", &self.probe)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
