//! Auth chains: no text causes a panic, and the fuzzer cannot forge a signature: neither of a whole
//! chain, nor of a link in a chain with valid shape, owner and challenge.

#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use identity::{Challenge, Limits, Link, LinkKind, Wallet};
use libfuzzer_sys::fuzz_target;
use protocol::Address;

/// The owner of the chain, and the ephemeral key that a delegation may name.
static KEYS: LazyLock<[Wallet; 2]> =
    LazyLock::new(|| [1, 2].map(|secret| Wallet::from_secret([secret; 32]).expect("a key")));

fuzz_target!(|data: &[u8]| {
    let challenge = Challenge::new("", [7; 16]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Ok(text) = std::str::from_utf8(data) {
        let verified =
            identity::verify(text, Address::new([1; 20]), challenge.as_str(), &Limits::default(), now);
        assert!(verified.is_err());
    }
    let Some((&[shape, signs, at], rest)) = data.split_first_chunk() else { return };
    let [owner, ephemeral] = &*KEYS;
    let (inner, outer) = rest.split_at(usize::from(at).min(rest.len()));
    let payload = delegation(shape, inner, ephemeral);
    let (owner_signs, ephemeral_signs) = (signs & 1 != 0, signs & 2 != 0);
    let kind = if signs & 4 != 0 { LinkKind::Eip1654Ephemeral } else { LinkKind::EcdsaEphemeral };
    let signature = match owner_signs {
        // Carriage returns are not part of the signed text.
        true => owner.sign(&payload.replace('\r', "")),
        false => forged(signs, outer),
    };
    let delegation = Link { kind, payload, signature };
    let signature = if ephemeral_signs { ephemeral.sign(challenge.as_str()) } else { forged(signs, outer) };
    let entity =
        Link { kind: LinkKind::EcdsaSignedEntity, payload: challenge.as_str().to_owned(), signature };
    let signer =
        Link { kind: LinkKind::Signer, payload: owner.address().to_string(), signature: String::new() };
    // Without the delegation the owner itself must sign.
    let mut links = vec![signer, delegation, entity];
    if signs & 8 != 0 {
        links.remove(1);
    }
    let Ok(json) = serde_json::to_string(&links) else { return };
    let examined =
        identity::verify_offline(&json, owner.address(), challenge.as_str(), &Limits::default(), now);
    if let Ok(examined) = examined {
        assert_eq!(examined.owner, owner.address());
        let asked = !examined.contract_signatures.is_empty();
        assert!(links.len() == 3 && ephemeral_signs && (owner_signs || asked), "{links:?}");
    }
});

/// The payload of an ephemeral link: the input itself, or its three lines with parts from the input.
fn delegation(shape: u8, said: &[u8], ephemeral: &Wallet) -> String {
    let said = String::from_utf8_lossy(said);
    let (first, second) = said.split_once('\0').unwrap_or((&said, ""));
    let address = ephemeral.address();
    match shape % 4 {
        0 => said.into_owned(),
        1 => format!("{first}\nEphemeral address: {second}\nExpiration: 2030-01-01T00:00:00.000Z"),
        2 => format!("Decentraland Login\nEphemeral address: {address}{first}\nExpiration: {second}"),
        _ => {
            format!("Decentraland Login\r\nEphemeral address: {address}\r\nExpiration: 20{first}:00{second}")
        }
    }
}

/// A forged signature: text, or 65 bytes with a valid recovery id.
fn forged(signs: u8, said: &[u8]) -> String {
    if signs & 16 != 0 {
        return String::from_utf8_lossy(said).into_owned();
    }
    let mut bytes = [0x11; 65];
    let length = said.len().min(64);
    bytes[..length].copy_from_slice(&said[..length]);
    bytes[64] = [0, 1, 27, 28][usize::from(signs >> 6)];
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}
