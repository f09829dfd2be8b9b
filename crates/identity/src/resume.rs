//! The secret by which a client proves that its new session resumes its last one.

use std::fmt;

use protocol::ResumeHash;

use crate::crypto::keccak256;

/// The secret with which a client's next session resumes its present one, once.
///
/// Only the client and the gateway of its session know it. The bus carries its [`ResumeHash`], so that any
/// gateway can check the secret, but a reader of the bus cannot present it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResumeSecret([u8; 16]);

impl ResumeSecret {
    /// Makes a secret of these bytes, which must come from the random number generator of the operating
    /// system.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Reads the secret that a client presents. `None` if it does not have 16 bytes, so that no gateway
    /// issued it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// The bytes of the secret, to be sent to the client only.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first 16 bytes of the Keccak-256 hash of the secret.
    pub fn hash(&self) -> ResumeHash {
        let mut hash = [0; 16];
        hash.copy_from_slice(&keccak256(&self.0)[..16]);
        ResumeHash::new(hash)
    }
}

// A log must not contain the secret.
impl fmt::Debug for ResumeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_secret_hash_differs_from_secret() {
        let secret = ResumeSecret::new([7; 16]);
        assert_eq!(ResumeSecret::from_bytes(&[7; 16]), Some(secret));
        assert_eq!([0, 15, 17].map(|length| ResumeSecret::from_bytes(&vec![7; length])), [None; 3]);
        assert_ne!(secret.hash().as_bytes(), secret.as_bytes());
        assert_ne!(secret.hash(), ResumeSecret::new([8; 16]).hash());
        assert_eq!(format!("{secret:?}"), "ResumeSecret(..)");
    }
}
