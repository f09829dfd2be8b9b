//! Signed requests: no headers cause a panic, an unsigned request has no owner, and a signed one is
//! parsed as it was signed: byte for byte, or in lower case in any spelling.

#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use identity::{
    ChainError, FetchError, Limits, Link, SignedFetch, Wallet, fetch_headers, fetch_payload,
    verify_fetch_offline,
};
use libfuzzer_sys::fuzz_target;

const PATH: &str = "/signed-login";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn examine(headers: &HeaderMap) -> Result<SignedFetch, FetchError> {
    verify_fetch_offline("POST", PATH, headers, &Limits::default(), now())
}

/// `None`: the input cannot be headers.
fn map<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

/// Headers from the input: lines with a digit or a letter for the name, and a value.
fn forged(data: &[u8]) -> Option<HeaderMap> {
    let chain: Vec<String> =
        (0..=identity::MAX_LINKS).map(|link| format!("x-identity-auth-chain-{link}")).collect();
    let lines = data.split(|&byte| byte == b'\n').filter_map(|line| line.split_first());
    map(lines.map(|(&first, value)| match first {
        b't' => (&b"x-identity-timestamp"[..], value),
        b'm' => (&b"x-identity-metadata"[..], value),
        b'0'..=b'9' => (chain[usize::from(first - b'0')].as_bytes(), value),
        _ => (chain[identity::MAX_LINKS].as_bytes(), value),
    }))
}

/// A request that a wallet signed byte for byte.
fn signed(wallet: &Wallet, metadata: &str) -> Option<HeaderMap> {
    named(&wallet.sign_fetch("POST", PATH, metadata, now()))
}

/// A request with this metadata whose payload a wallet signed all in lower case.
fn lowercased(wallet: &Wallet, metadata: &str) -> Option<HeaderMap> {
    let timestamp_ms = now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis() as u64;
    let payload = fetch_payload("POST", PATH, timestamp_ms, metadata).to_lowercase();
    let links: Vec<Link> = serde_json::from_str(&wallet.sign_challenge(&payload)).ok()?;
    named(&fetch_headers(&links, timestamp_ms, metadata))
}

fn named(headers: &[(String, String)]) -> Option<HeaderMap> {
    map(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    if mode % 2 == 0 {
        if let Some(headers) = forged(rest)
            && let Ok(fetch) = examine(&headers)
        {
            // It can only be a contract's request, with a contract that has not been called.
            assert!(!fetch.verification.contract_signatures.is_empty(), "{fetch:?}");
        }
        return;
    }
    let Ok(metadata) = std::str::from_utf8(rest) else { return };
    let wallet = Wallet::from_secret([1; 32]).expect("a key");
    let Some(headers) = signed(&wallet, metadata) else { return };
    match examine(&headers) {
        Ok(fetch) => {
            assert_eq!(fetch.verification.owner, wallet.address());
            assert!(fetch.verification.contract_signatures.is_empty());
            assert!(fetch.metadata.keys().all(|key| *key == key.to_lowercase()), "{:?}", fetch.metadata);
            // A request signed in lower case is the same in any spelling of its metadata.
            let [plain, capitals] = [metadata, &metadata.to_ascii_uppercase()]
                .map(|metadata| examine(&lowercased(&wallet, metadata).expect("they were headers")));
            assert_eq!(plain, capitals);
        }
        Err(FetchError::Metadata | FetchError::SignedForScene) => {}
        Err(FetchError::Chain(ChainError::TooBig { .. })) => {}
        Err(error) => panic!("{error}"),
    }
});
