//! Signals and link reports of members of peer-to-peer meshes: the gateway forwards a signal only between members of
//! the same p2p island, and a report to the director.
//!
//! Session descriptions and candidates are never logged, because they contain network addresses.

pub(crate) mod candidates;
pub(crate) mod refusal;
pub(crate) mod throttle;
pub(crate) mod topics;

use bus::Headers;
use protocol::{
    Address, Message as _, SessionId, Subject,
    mesh::{LinkReport, Signal, signal::Content},
};

use crate::{metrics, session::local::MeshMembership, shared::Shared};
use refusal::{MAX_SIGNAL_BYTES, MeshRefusal};

/// Forwards signals of a session to their recipients. A forwarded signal names the sender. Returns the refusal of
/// the first signal that was not forwarded; the others are.
pub(crate) fn forward_signals(
    shared: &Shared,
    sender: Address,
    session: SessionId,
    signals: Vec<Signal>,
) -> Result<(), MeshRefusal> {
    let mut result = Ok(());
    for signal in signals {
        match checked_signal(shared, sender, signal) {
            Ok((recipient, kind, signal)) => {
                metrics::mesh_signals(kind).increment(1);
                let subject = Subject::MeshSignal(recipient);
                shared.bus.publish(&subject, Headers::for_session(session), signal.encode_to_vec());
            }
            Err(refusal) => {
                refusal.count_signal();
                result = result.and(Err(refusal));
            }
        }
    }
    result
}

fn checked_signal(
    shared: &Shared,
    sender: Address,
    signal: Signal,
) -> Result<(Address, &'static str, Signal), MeshRefusal> {
    if signal.encoded_len() > MAX_SIGNAL_BYTES {
        return Err(MeshRefusal::TooLong);
    }
    let recipient: Address = signal.peer.parse().map_err(|_| MeshRefusal::Malformed)?;
    let island = signal.island_id.parse().map_err(|_| MeshRefusal::Malformed)?;
    let content = signal.content.ok_or(MeshRefusal::Malformed)?;
    let membership = shared.sessions.shared_mesh(sender, recipient, &island);
    let is_permitted = match content {
        Content::Fallback(_) => membership.has_fallback(),
        _ => membership == MeshMembership::Member,
    };
    if !is_permitted {
        return Err(MeshRefusal::NoMember);
    }
    let policy = &shared.settings.mesh_candidates;
    let (kind, content) = match content {
        Content::Offer(sdp) => ("offer", Content::Offer(policy.filter_description(&sdp))),
        Content::Answer(sdp) => ("answer", Content::Answer(policy.filter_description(&sdp))),
        Content::Candidate(json) => {
            let json = policy.filter_candidate(&json).ok_or(MeshRefusal::Candidate)?;
            ("candidate", Content::Candidate(json))
        }
        Content::Fallback(packet) => ("fallback", Content::Fallback(packet)),
    };
    let signal = Signal { peer: sender.to_string(), content: Some(content), ..signal };
    Ok((recipient, kind, signal))
}

/// Forwards the link report of a member of a mesh to the director. The director receives no other reports.
pub(crate) fn forward_report(
    shared: &Shared,
    sender: Address,
    session: SessionId,
    report: &LinkReport,
) -> Result<(), MeshRefusal> {
    let is_member = |island| shared.sessions.mesh_membership(sender, island) == MeshMembership::Member;
    let checked = match report.island_id.parse() {
        _ if report.encoded_len() > MAX_SIGNAL_BYTES => Err(MeshRefusal::TooLong),
        Err(_) => Err(MeshRefusal::Malformed),
        Ok(island) if !is_member(&island) => Err(MeshRefusal::NoMember),
        Ok(_) => Ok(()),
    };
    match checked {
        Ok(()) => {
            let subject = Subject::MeshLinks(sender);
            shared.bus.publish(&subject, Headers::for_session(session), report.encode_to_vec());
        }
        Err(refusal) => tracing::debug!(%refusal, "a link report is not forwarded"),
    }
    checked
}
