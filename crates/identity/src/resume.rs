use std::fmt;

use protocol::ResumeHash;

use crate::crypto::keccak256;

/// The secret that lets a client's next session resume its present one, once.
///
/// Only the client and the gateway of its session know it. The bus carries its [`ResumeHash`], so
/// that any gateway can check the secret and no reader of the bus can present it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResumeSecret([u8; 16]);

impl ResumeSecret {
    /// A secret of these bytes, which must come from the operating system.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The secret that a client presents; `None` for bytes that no gateway gave to it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// Its bytes, for the client alone.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first 16 bytes of its Keccak-256 hash.
    pub fn hash(&self) -> ResumeHash {
        let mut hash = [0; 16];
        hash.copy_from_slice(&keccak256(&self.0)[..16]);
        ResumeHash::new(hash)
    }
}

// Secrets stay out of logs.
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
