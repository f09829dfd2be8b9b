//! The parts of a sign-in that both protocols share.

use std::fmt;

use bytes::Bytes;

use crate::Disconnect;

/// The resumption fields of a gateway's welcome.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Welcome {
    /// The secret that lets the next session resume this one. Empty: the gateway does not support resumption.
    pub(crate) resume_secret: Bytes,
    /// Whether this session resumed the previous one.
    pub(crate) resumed: bool,
}

// Written by hand, so that the secret stays out of logs.
impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome").field("resumed", &self.resumed).finish_non_exhaustive()
    }
}

/// Checks that the text that a server wants signed is a challenge. A signature of another text could
/// authorize something at another service.
pub(crate) fn check_challenge(challenge: &str) -> Result<(), Disconnect> {
    match challenge.starts_with("dcl-") {
        true => Ok(()),
        false => Err(Disconnect::broken("the server requests a signature of a text that is no challenge")),
    }
}
