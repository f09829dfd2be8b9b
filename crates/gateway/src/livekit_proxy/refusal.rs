//! Answers of the proxy itself.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("only GET is allowed")]
    OtherMethod,
    #[error("there is no such LiveKit server")]
    UnknownNode,
    #[error("no valid access token")]
    InvalidToken,
    #[error("not a member of this room")]
    NoMember,
    #[error("too many connections, come back later")]
    Full,
    #[error("the membership could not be checked, come back later")]
    MembershipUnknown,
    #[error("the LiveKit server cannot be reached")]
    Unreachable,
}

impl Refusal {
    /// The value of the label `reason` in the metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::OtherMethod => "method",
            Self::UnknownNode => "unknown-node",
            Self::InvalidToken => "token",
            Self::NoMember => "no-member",
            Self::Full => "full",
            Self::MembershipUnknown => "membership-unknown",
            Self::Unreachable => "unreachable",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let status = match self {
            Self::OtherMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownNode => StatusCode::NOT_FOUND,
            Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::NoMember => StatusCode::FORBIDDEN,
            Self::Full | Self::MembershipUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
        };
        // Pages of other origins read the reason from `/validate`, as from the server itself.
        (status, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], self.to_string()).into_response()
    }
}
