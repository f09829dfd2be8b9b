//! Signals and link reports of members of peer-to-peer meshes: the gateway forwards a signal only between members of
//! the same p2p island, and a report to the director.
//!
//! Session descriptions and candidates are never logged, because they contain network addresses.

pub(crate) mod candidates;

use bus::Headers;
use protocol::{
    Address, Message as _, SessionId, Subject,
    mesh::{LinkReport, Signal, signal::Content},
};

use crate::{metrics, session::local::MeshMembership, shared::Shared};

/// The longest encoded signal or link report, in bytes.
const MAX_SIGNAL_BYTES: usize = 16 * 1024;

/// Why a signal was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignalRefusal {
    #[error("longer than {MAX_SIGNAL_BYTES} bytes")]
    TooLong,
    #[error("an unknown kind, or a malformed address or island")]
    Malformed,
    #[error("the sender and the recipient are not members of this p2p island")]
    NoMember,
    #[error("the candidate must not pass")]
    Candidate,
}

impl SignalRefusal {
    /// The value of the label `reason` in the metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::NoMember => "no-member",
            Self::Candidate => "candidate",
        }
    }
}

/// Forwards a signal of a session to its recipient. The forwarded signal names the sender.
pub(crate) fn forward_signal(shared: &Shared, sender: Address, session: SessionId, signal: Signal) {
    match checked_signal(shared, sender, signal) {
        Ok((recipient, kind, signal)) => {
            metrics::mesh_signals(kind).increment(1);
            let subject = Subject::MeshSignal(recipient);
            shared.bus.publish(&subject, Headers::for_session(session), signal.encode_to_vec());
        }
        Err(refusal) => {
            tracing::debug!(%refusal, "a mesh signal is not forwarded");
            metrics::mesh_signals_refused(refusal.reason()).increment(1);
        }
    }
}

fn checked_signal(
    shared: &Shared,
    sender: Address,
    signal: Signal,
) -> Result<(Address, &'static str, Signal), SignalRefusal> {
    if signal.encoded_len() > MAX_SIGNAL_BYTES {
        return Err(SignalRefusal::TooLong);
    }
    let recipient: Address = signal.peer.parse().map_err(|_| SignalRefusal::Malformed)?;
    let island = signal.island_id.parse().map_err(|_| SignalRefusal::Malformed)?;
    let content = signal.content.ok_or(SignalRefusal::Malformed)?;
    let membership = shared.sessions.shared_mesh(sender, recipient, &island);
    let is_permitted = match content {
        Content::Fallback(_) => membership.has_fallback(),
        _ => membership == MeshMembership::Member,
    };
    if !is_permitted {
        return Err(SignalRefusal::NoMember);
    }
    let policy = &shared.settings.mesh_candidates;
    let (kind, content) = match content {
        Content::Offer(sdp) => ("offer", Content::Offer(policy.filter_description(&sdp))),
        Content::Answer(sdp) => ("answer", Content::Answer(policy.filter_description(&sdp))),
        Content::Candidate(json) => {
            let json = policy.filter_candidate(&json).ok_or(SignalRefusal::Candidate)?;
            ("candidate", Content::Candidate(json))
        }
        Content::Fallback(packet) => ("fallback", Content::Fallback(packet)),
    };
    let signal = Signal { peer: sender.to_string(), content: Some(content), ..signal };
    Ok((recipient, kind, signal))
}

/// Forwards the link report of a member of a mesh to the director. The director receives no other reports.
pub(crate) fn forward_report(shared: &Shared, sender: Address, session: SessionId, report: &LinkReport) {
    let island = report.island_id.parse();
    let membership =
        island.map_or(MeshMembership::No, |island| shared.sessions.mesh_membership(sender, &island));
    let is_member = membership == MeshMembership::Member;
    if !is_member || report.encoded_len() > MAX_SIGNAL_BYTES {
        tracing::debug!("a link report is not forwarded");
        return;
    }
    let subject = Subject::MeshLinks(sender);
    shared.bus.publish(&subject, Headers::for_session(session), report.encode_to_vec());
}
