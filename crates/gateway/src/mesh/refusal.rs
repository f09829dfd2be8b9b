//! Why the gateway does not forward a message of a mesh.

use crate::metrics;

/// The longest encoded signal or link report, in bytes.
pub(crate) const MAX_SIGNAL_BYTES: usize = 16 * 1024;

/// Why a signal or a link report was not forwarded. Clients over RPC are sent the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MeshRefusal {
    #[error("longer than {MAX_SIGNAL_BYTES} bytes")]
    TooLong,
    #[error("an unknown kind, or a malformed address or island")]
    Malformed,
    #[error(r#"the payload is not the JSON of an offer or answer, {{"type", "sdp"}}"#)]
    Description,
    #[error(r#"the payload is not the JSON {{"candidate", "initiator"}}"#)]
    CandidateMessage,
    #[error("the sender or the recipient is not a member of this p2p island")]
    NoMember,
    #[error("the candidate must not pass")]
    Candidate,
    #[error("too many fallback messages")]
    Rate,
}

impl MeshRefusal {
    /// The value of the label `reason` in the metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed | Self::Description | Self::CandidateMessage => "malformed",
            Self::NoMember => "no-member",
            Self::Candidate => "candidate",
            Self::Rate => "rate",
        }
    }

    /// Counts a signal that was not forwarded.
    pub(crate) fn count_signal(self) {
        tracing::debug!(refusal = %self, "a mesh signal is not forwarded");
        metrics::mesh_signals_refused(self.reason()).increment(1);
    }
}
