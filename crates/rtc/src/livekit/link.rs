//! The signalling socket, while it is open, opened, or waited for.

use std::{future::pending, time::Duration};

use futures_util::future::BoxFuture;
use livekit_protocol::{Ping, signal_request, signal_response};
use tokio::time::{Instant, sleep_until};
use url::Url;

use super::{error::JoinError, signalling::Signalling};

/// The signalling socket of a participant.
pub(crate) enum Link {
    Open(OpenLink),
    Connecting(BoxFuture<'static, Result<Signalling, JoinError>>),
    /// The next attempt begins at this time.
    Waiting(Instant),
}

/// An open socket, and its pings.
pub(crate) struct OpenLink {
    signalling: Signalling,
    ping_interval: Duration,
    ping_timeout: Duration,
    next_ping: Instant,
    last_pong: Instant,
}

/// The progress of a link.
pub(crate) enum LinkProgress {
    Connected(Signalling),
    Message(Box<signal_response::Message>),
    /// The socket, or the attempt to open one, has failed.
    Lost(JoinError),
    /// The time for the next attempt has come.
    RetryDue,
}

/// The intervals of a server that states none.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

impl Link {
    pub(crate) fn connect(url: Url) -> Self {
        Self::Connecting(Box::pin(Signalling::connect(url)))
    }

    pub(crate) fn opened(signalling: Signalling) -> Self {
        let now = Instant::now();
        Self::Open(OpenLink {
            signalling,
            ping_interval: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
            next_ping: now + PING_INTERVAL,
            last_pong: now,
        })
    }

    /// Uses the intervals of a join response, in seconds; 0: the default.
    pub(crate) fn set_ping(&mut self, interval_s: i32, timeout_s: i32) {
        if let Self::Open(open) = self {
            let seconds = |seconds: i32, default| match u64::try_from(seconds) {
                Ok(seconds @ 1..) => Duration::from_secs(seconds),
                _ => default,
            };
            open.ping_interval = seconds(interval_s, PING_INTERVAL);
            open.ping_timeout = seconds(timeout_s, PING_TIMEOUT);
            open.next_ping = Instant::now() + open.ping_interval;
        }
    }

    /// Queues a request. Without an open socket it is dropped: the next socket begins with a new negotiation.
    pub(crate) fn send(&self, request: signal_request::Message) -> Result<(), JoinError> {
        match self {
            Self::Open(open) => open.signalling.send(request),
            _ => Ok(()),
        }
    }

    /// The next progress. With `reads` false an open socket only sends pings, and its silence is no loss.
    /// Cancel-safe.
    pub(crate) async fn progress(&mut self, reads: bool) -> LinkProgress {
        match self {
            Self::Open(open) => open.progress(reads).await,
            Self::Connecting(connecting) => match connecting.await {
                Ok(signalling) => LinkProgress::Connected(signalling),
                Err(error) => LinkProgress::Lost(error),
            },
            Self::Waiting(until) => {
                sleep_until(*until).await;
                LinkProgress::RetryDue
            }
        }
    }

    /// Closes an open socket after its queued requests.
    pub(crate) async fn close(self) {
        if let Self::Open(open) = self {
            open.signalling.close().await;
        }
    }
}

impl OpenLink {
    async fn progress(&mut self, reads: bool) -> LinkProgress {
        loop {
            if !reads {
                self.last_pong = Instant::now();
            }
            let lost_at = self.last_pong + self.ping_timeout;
            let next = async {
                match reads {
                    true => self.signalling.next().await,
                    false => pending().await,
                }
            };
            tokio::select! {
                message = next => match message {
                    // Every message shows that the server is alive.
                    Ok(message) => {
                        self.last_pong = Instant::now();
                        if !matches!(message, signal_response::Message::PongResp(_)) {
                            return LinkProgress::Message(Box::new(message));
                        }
                    }
                    Err(error) => return LinkProgress::Lost(error),
                },
                () = sleep_until(lost_at) => {
                    return LinkProgress::Lost(JoinError::Signalling("the server did not answer a ping".to_owned()));
                }
                () = sleep_until(self.next_ping) => {
                    self.next_ping = Instant::now() + self.ping_interval;
                    if let Err(error) = self.signalling.send(signal_request::Message::PingReq(Ping::default())) {
                        return LinkProgress::Lost(error);
                    }
                }
            }
        }
    }
}
