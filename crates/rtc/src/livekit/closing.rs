//! The end of a participant.

use std::time::Duration;

use livekit_protocol::{DisconnectReason, LeaveRequest, signal_request::Message as Request};
use tokio::{sync::oneshot, time::timeout};

use super::{
    event::Event,
    leave_reason::LeaveReason,
    phase::Phase,
    sender::{Acceptance, QueueItem},
    task::{End, Task},
};

/// The time for queued reliable messages when the participant leaves.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

impl Task {
    /// Sends the queued messages if the participant itself leaves, closes its connections, and reports the end.
    pub(crate) async fn finish(mut self, end: End) {
        self.sender.state.accept(Acceptance::None);
        let left = matches!(end, End::Left(LeaveReason::Left));
        if left && matches!(self.phase, Phase::Connected) {
            let (flush, flushed) = oneshot::channel();
            let flushing = async {
                if self.sender.reliable.send(QueueItem::Flush(flush)).await.is_ok() {
                    let _ = flushed.await;
                }
            };
            if self.session.as_ref().is_some_and(|session| session.channels().is_some()) {
                let _ = timeout(FLUSH_TIMEOUT, flushing).await;
            }
        }
        if left {
            let reason = DisconnectReason::ClientInitiated as i32;
            // Fails if the socket is lost: the server notices the end of the connections.
            let _ = self.link.send(Request::Leave(LeaveRequest { reason, ..LeaveRequest::default() }));
        }
        self.link.close().await;
        if let Some(session) = self.session {
            session.close();
        }
        match (end, self.phase) {
            (End::NotJoined(error), Phase::Joining { reply, .. }) => drop(reply.send(Err(error))),
            (End::Left(reason), Phase::Connected | Phase::Reconnecting(_)) => {
                self.room.push(Event::Left(reason));
                while let Some(event) = self.room.pop() {
                    if self.events.send(event).await.is_err() {
                        return;
                    }
                }
            }
            _ => {}
        }
    }
}
