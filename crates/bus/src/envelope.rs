//! A message of the bus with its headers.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{Address, NodeName, ResumeHash, SessionId, Subject, subject::SubjectScheme};

/// A message received from the bus.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The subject as text; [`Envelope::subject`] parses it.
    pub(crate) subject: Arc<str>,
    /// The scheme in which the subject is written.
    pub(crate) subject_scheme: SubjectScheme,
    /// Metadata of the payload.
    pub headers: Headers,
    /// The content of the message; its encoding depends on the subject.
    pub payload: Bytes,
    /// The number of messages that this subscription lost just before this one: its queue or the client
    /// library's was full, or parts were missing.
    pub missed: u64,
}

impl Envelope {
    /// The subject; `None` if this project does not define it.
    pub fn subject(&self) -> Option<Subject> {
        self.subject_scheme.parse(&self.subject).ok()
    }
}

/// Metadata that a message carries beside its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Atoll-Session`: the session that the message belongs to. Absent: the current one.
    pub session: Option<SessionId>,
    /// `Atoll-Transports`: the transports that the client can join, separated by commas. Absent: the client
    /// did not list any.
    pub transports: Option<Arc<str>>,
    /// `Atoll-Sender`: the peer that publishes on a scene's topic. Absent: a server publishes.
    pub sender: Option<Address>,
    /// `Atoll-Node`: in an island change, the node that hosts the island's room.
    pub node: Option<NodeName>,
    /// `Atoll-Epoch`: the epoch of the director that publishes; a later term has a higher one. Absent: the
    /// director leads without an election.
    pub epoch: Option<u64>,
    /// The resumption headers of a connect. Boxed, because few other messages have them.
    pub resumption: Option<Box<Resumption>>,
}

/// The resumption headers of a connect, present when the client announced extensions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumption {
    /// `Atoll-Resume-Hash`: the hash of the session's resumption secret.
    pub hash: Option<ResumeHash>,
    /// `Atoll-Resumes`: the older session that this one resumes.
    pub resumes: Option<SessionId>,
}

impl Headers {
    /// The headers of a message that belongs to one session.
    pub fn for_session(session: SessionId) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    /// The resumption headers. Both are absent unless the message is the connect of a client that announced
    /// extensions.
    pub fn resumption(&self) -> Resumption {
        self.resumption.as_deref().copied().unwrap_or_default()
    }
}
