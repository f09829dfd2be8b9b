//! ECDSA over secp256k1 and Keccak-256 as Ethereum wallets use them.

use protocol::Address;
use secp256k1::{
    Message, PublicKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use sha3::{Digest, Keccak256};

/// The reason for which the bytes of a signature are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("not 65 bytes of r, s and v (0, 1, 27 or 28) in hex with 0x")]
    Malformed,
    #[error("s is in the upper half of its range")]
    HighS,
}

/// Keccak-256 of the bytes, without a prefix.
pub(crate) fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// The digest that a wallet signs for a text: Keccak-256 with the prefix of `personal_sign` (EIP-191 version
/// 0x45).
pub(crate) fn personal_digest(text: &[u8]) -> [u8; 32] {
    let digest = Keccak256::new()
        .chain_update(b"\x19Ethereum Signed Message:\n")
        .chain_update(text.len().to_string())
        .chain_update(text)
        .finalize();
    digest.into()
}

/// [`personal_digest`] as the message type of secp256k1.
pub(crate) fn personal_message(text: &[u8]) -> Message {
    Message::from_digest(personal_digest(text))
}

/// The address of a public key: the last 20 bytes of its Keccak-256.
pub(crate) fn address_of_key(key: &PublicKey) -> Address {
    let digest = keccak256(&key.serialize_uncompressed()[1..]);
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&digest[12..]);
    Address::new(bytes)
}

/// Parses `0x` and 130 hex digits: `r`, `s`, `v`. `v` is 0, 1, 27 or 28.
pub(crate) fn parse_signature(text: &str) -> Result<RecoverableSignature, SignatureError> {
    let digits = text.strip_prefix("0x").ok_or(SignatureError::Malformed)?;
    let mut bytes = [0; 65];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| SignatureError::Malformed)?;
    let recovery = match bytes[64] {
        0 | 27 => RecoveryId::Zero,
        1 | 28 => RecoveryId::One,
        _ => return Err(SignatureError::Malformed),
    };
    let signature =
        RecoverableSignature::from_compact(&bytes[..64], recovery).map_err(|_| SignatureError::Malformed)?;
    // Each signature has a second form with s negated that recovers to the same key. Only the form with the
    // low s is accepted (EIP-2), so that a signature cannot be altered into another valid one.
    let mut normal = signature.to_standard();
    normal.normalize_s();
    if normal != signature.to_standard() {
        return Err(SignatureError::HighS);
    }
    Ok(signature)
}

/// Recovers the address that signed this text; `None` if the signature recovers to no public key.
pub(crate) fn recover_signer(text: &[u8], signature: &RecoverableSignature) -> Option<Address> {
    signature.recover_ecdsa(personal_message(text)).ok().map(|key| address_of_key(&key))
}
