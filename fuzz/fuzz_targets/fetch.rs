//! Signed requests: no headers panic, what is not signed is nobody's, and what is signed is taken for
//! what it says, in whatever letters.

#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use identity::{ChainError, FetchError, Limits, SignedFetch, Wallet, examine_fetch};
use libfuzzer_sys::fuzz_target;

const PATH: &str = "/signed-login";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn examine(headers: &HeaderMap) -> Result<SignedFetch, FetchError> {
    examine_fetch("POST", PATH, headers, &Limits::default(), now())
}

/// `None`: they cannot be headers.
fn map<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

/// Headers that are all the fuzzer's: lines of a digit or a name, and a value.
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

/// What a wallet signed, with metadata of the fuzzer's, sent as it is or in capitals.
fn signed(wallet: &Wallet, metadata: &str, capitals: bool) -> Option<HeaderMap> {
    let mut headers = wallet.sign_fetch("POST", PATH, metadata, now());
    if capitals {
        let (_, metadata) = headers.last_mut()?;
        *metadata = metadata.to_ascii_uppercase();
    }
    map(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    if mode % 2 == 0 {
        if let Some(headers) = forged(rest)
            && let Ok(fetch) = examine(&headers)
        {
            // It could only be one of a contract, which has not been asked.
            assert!(!fetch.examined.contract_signatures.is_empty(), "{fetch:?}");
        }
        return;
    }
    let Ok(metadata) = std::str::from_utf8(rest) else { return };
    let wallet = Wallet::from_secret([1; 32]).expect("a key");
    let Some(headers) = signed(&wallet, metadata, false) else { return };
    match examine(&headers) {
        Ok(fetch) => {
            assert_eq!(fetch.examined.owner, wallet.address());
            assert!(fetch.examined.contract_signatures.is_empty());
            assert!(fetch.metadata.keys().all(|key| *key == key.to_lowercase()), "{:?}", fetch.metadata);
            // In other letters it is the same request.
            let headers = signed(&wallet, metadata, true).expect("they were headers");
            assert_eq!(examine(&headers), Ok(fetch));
        }
        Err(FetchError::Metadata | FetchError::SignedForScene) => {}
        Err(FetchError::Chain(ChainError::TooBig { .. })) => {}
        Err(error) => panic!("{error}"),
    }
});
