//! LiveKit rooms. The identity of a participant is the address of its wallet; participants with another identity,
//! such as agents, are ignored. LiveKit has no aliases: each connection numbers the members itself.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    time::Duration,
};

use protocol::Address;
use rtc::livekit::{
    Data, DataSender, Event as RtcEvent, JoinError, LeaveReason, Member, Options, Participant, SendError,
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    destination::{Destination, OutgoingMessage},
    membership::{Ended, Membership, Welcome},
};
use crate::Disconnect;

/// The aliases of this connection, by session. The client itself has alias 0.
#[derive(Debug, Default)]
struct Aliases {
    assigned: u32,
    by_sid: HashMap<String, u32>,
    /// Sessions that have ended, oldest first: their messages may still arrive.
    departed: VecDeque<String>,
}

/// Ended sessions with an alias. When more end, the oldest is forgotten, and messages of it are ignored.
const MAX_DEPARTED: usize = 256;
/// The time before a reliable message is tried again when the queue of the channel is full.
const RETRY: Duration = Duration::from_millis(10);

/// Enters the room and runs the connection to its end.
pub(super) async fn run(
    destination: &Destination,
    membership: &mut Membership,
    queued: mpsc::Receiver<OutgoingMessage>,
    (url, token): (&str, &str),
) -> Ended {
    let options = Options {
        udp_addresses: destination.udp_addresses.clone(),
        join_timeout: destination.options.timeout,
        ..Options::new(url, token)
    };
    let joined = tokio::select! {
        joined = Participant::join(options) => joined,
        () = Membership::left(membership.progress.clone()) => {
            return Ended { reason: Disconnect::Left, close: None };
        }
    };
    match joined {
        Ok(mut participant) => {
            let reason = serve(&mut participant, destination, membership, queued, url).await;
            Ended { reason, close: Some(Box::pin(participant.close())) }
        }
        Err(error) => Ended { reason: not_joined(&error), close: None },
    }
}

async fn serve(
    participant: &mut Participant,
    destination: &Destination,
    membership: &mut Membership,
    mut queued: mpsc::Receiver<OutgoingMessage>,
    url: &str,
) -> Disconnect {
    let mut aliases = Aliases::default();
    let sender = participant.sender();
    let mut left = pin!(Membership::left_and_sent(membership.progress.clone()));
    // A reliable message for which the queue of the channel has no capacity.
    let mut waiting: Option<OutgoingMessage> = None;
    loop {
        tokio::select! {
            event = participant.next() => {
                let Some(event) = event else { return Disconnect::broken("the connection has ended") };
                let applied = match event {
                    RtcEvent::Joined { room, others, .. } => {
                        let members = others.iter().filter_map(|member| aliases.assign(member)).collect();
                        // A server has many rooms, and its URL has none of them.
                        let (island, url) = (destination.island.clone(), format!("{url}#{room}"));
                        let transport = "livekit";
                        membership.entered(Welcome { island, url, transport, alias: 0, members }).await
                    }
                    RtcEvent::Left(reason) => Err(ended(reason)),
                    event => apply(&mut aliases, membership, event).await,
                };
                if let Err(reason) = applied {
                    return reason;
                }
            }
            message = queued.recv(), if waiting.is_none() => match message {
                Some(message) => waiting = send(&sender, message),
                // The client has left the room, and all its messages are with the participant.
                None => return Disconnect::Left,
            },
            () = sleep(RETRY), if waiting.is_some() => waiting = waiting.and_then(|message| send(&sender, message)),
            () = &mut left => return Disconnect::Left,
        }
    }
}

async fn apply(
    aliases: &mut Aliases,
    membership: &mut Membership,
    event: RtcEvent,
) -> Result<(), Disconnect> {
    match event {
        RtcEvent::ParticipantJoined(member) => match aliases.assign(&member) {
            Some((alias, address)) => membership.peer_joined(alias, address).await,
            None => Ok(()),
        },
        RtcEvent::ParticipantLeft(member) => match aliases.depart(&member.sid) {
            Some(alias) => membership.peer_left(alias).await,
            None => Ok(()),
        },
        // Packets of Decentraland clients have no topic.
        RtcEvent::Data(Data { sender: Some(sender), payload, topic, .. })
            if topic.as_deref().unwrap_or_default().is_empty() =>
        {
            match (aliases.by_sid.get(&sender.sid), sender.identity.parse()) {
                (Some(&alias), Ok(address)) => membership.message(alias, Some(address), payload).await,
                _ => Ok(()),
            }
        }
        RtcEvent::Reconnected { resumed: false, unconfirmed, .. } => {
            tracing::debug!(unconfirmed, "rejoined a LiveKit room");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Sends a message. Returns a reliable one for which the queue has no capacity; the participant drops any other
/// that it cannot send.
fn send(sender: &DataSender, message: OutgoingMessage) -> Option<OutgoingMessage> {
    let sent = match message.unreliable {
        true => sender.send_lossy(message.body.clone(), None),
        false => sender.send_reliable(message.body.clone(), None),
    };
    match sent {
        Err(SendError::QueueFull) if !message.unreliable => Some(message),
        Err(error) => {
            tracing::debug!(%error, "a message was not sent in a LiveKit room");
            None
        }
        Ok(()) => None,
    }
}

impl Aliases {
    /// The alias of a participant that has joined; `None` if its identity is no address.
    fn assign(&mut self, member: &Member) -> Option<(u32, Address)> {
        let address = member.identity.parse().ok()?;
        self.assigned += 1;
        self.by_sid.insert(member.sid.clone(), self.assigned);
        Some((self.assigned, address))
    }

    /// The alias of a participant that has left.
    fn depart(&mut self, sid: &str) -> Option<u32> {
        let alias = *self.by_sid.get(sid)?;
        if self.departed.len() >= MAX_DEPARTED
            && let Some(oldest) = self.departed.pop_front()
        {
            self.by_sid.remove(&oldest);
        }
        self.departed.push_back(sid.to_owned());
        Some(alias)
    }
}

fn not_joined(error: &JoinError) -> Disconnect {
    match error {
        JoinError::Refused { status, .. } => Disconnect::Refused { status: *status, retry_after: None },
        JoinError::Ended(reason) => ended(reason.clone()),
        error => Disconnect::broken(error),
    }
}

fn ended(reason: LeaveReason) -> Disconnect {
    match reason {
        LeaveReason::Left => Disconnect::Left,
        LeaveReason::DuplicateIdentity => Disconnect::Replaced,
        LeaveReason::Removed | LeaveReason::RoomDeleted => Disconnect::Removed(reason.to_string()),
        reason => Disconnect::broken(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(identity: &str, sid: &str) -> Member {
        Member { identity: identity.to_owned(), sid: sid.to_owned() }
    }

    #[test]
    fn aliases_are_numbered_by_session_and_kept_for_late_messages() {
        let (address, mut aliases) = (Address::new([1; 20]), Aliases::default());
        let identity = address.to_string();
        assert_eq!(aliases.assign(&member(&identity, "PA_1")), Some((1, address)));
        assert_eq!(aliases.assign(&member("agent", "PA_2")), None, "no address");
        assert_eq!(aliases.assign(&member(&identity, "PA_3")), Some((2, address)), "another session");
        assert_eq!((aliases.depart("PA_1"), aliases.depart("PA_2")), (Some(1), None));
        assert_eq!(aliases.by_sid.get("PA_1"), Some(&1));
        for number in 0..MAX_DEPARTED {
            let sid = format!("PA_x{number}");
            aliases.assign(&member(&identity, &sid));
            aliases.depart(&sid);
        }
        assert_eq!(aliases.by_sid.get("PA_1"), None);
        assert_eq!(aliases.by_sid.len(), MAX_DEPARTED + 1);
    }

    #[test]
    fn reasons_decide_about_the_retry() {
        let retries = |reason| ended(reason).is_retryable();
        for reason in [LeaveReason::DuplicateIdentity, LeaveReason::Removed, LeaveReason::RoomDeleted] {
            assert!(!retries(reason.clone()), "{reason}");
        }
        for reason in
            [LeaveReason::ServerShutdown, LeaveReason::RoomClosed, LeaveReason::Lost("x".to_owned())]
        {
            assert!(retries(reason.clone()), "{reason}");
        }
        let refused = |status| not_joined(&JoinError::Refused { status, message: String::new() });
        assert!(refused(500).is_retryable() && !refused(404).is_retryable());
        assert!(refused(401).is_token_rejected() && ended(LeaveReason::Removed).is_token_rejected());
        assert!(!ended(LeaveReason::DuplicateIdentity).is_token_rejected());
        assert!(not_joined(&JoinError::Timeout("x")).is_retryable());
    }
}
