//! Signed fetch: HTTP requests that a wallet signs, in headers (ADR-44).
//!
//! The wallet signs `method:path:timestamp:metadata`. Method and path are lower-cased, and the metadata
//! is signed byte for byte as it is sent. Clients of before August 2026 lower-cased the metadata too.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    ChainError, Limits, Link, MAX_CHAIN_BYTES, MAX_LINKS, OfflineVerification, chain::check_structure,
    crypto::keccak256, verify::verify_links_offline,
};

/// Each link of the chain as JSON, in a header of this name and its number from 0.
const LINK_HEADER_PREFIX: &str = "x-identity-auth-chain-";
/// Milliseconds since the Unix epoch.
const TIMESTAMP_HEADER: &str = "x-identity-timestamp";
/// A JSON object that says what the request is for.
const METADATA_HEADER: &str = "x-identity-metadata";

/// For how long after its timestamp a request is taken.
const FETCH_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// What the metadata names as signer when a scene had the request signed, without the person.
const SCENE_SIGNER: &str = "decentraland-kernel-scene";

/// Names and values of headers.
pub type Headers = Vec<(String, String)>;

/// A request in which all is well as far as can be seen without an Ethereum node, and without
/// knowing which requests have been seen before.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedFetch {
    /// Whose request it is, and which contracts must be asked before that is sure.
    pub verification: OfflineVerification,
    /// The payload that the last link signs.
    pub payload: String,
    /// When it claims to have been signed.
    pub signed_at: SystemTime,
    /// Until when the same request would be taken again.
    pub fresh_until: SystemTime,
    /// The metadata as it was signed: byte for byte, or in lower case where the payload was signed all
    /// in lower case. The keys of the outermost object are in lower case in both forms, so that
    /// `isGuest` is found under one name.
    pub metadata: Map<String, Value>,
}

impl SignedFetch {
    /// What tells this request from any other, whatever its signatures look like.
    pub fn fingerprint(&self) -> [u8; 32] {
        keccak256(&[self.verification.owner.as_bytes(), self.payload.as_bytes()].concat())
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// A header is not there.
    #[error("the header {header} is missing")]
    Missing {
        /// Which one.
        header: String,
    },
    /// A header is not what it should be, or is there twice.
    #[error("the header {header} is malformed, or there twice")]
    Malformed {
        /// Which one.
        header: String,
    },
    /// Over [`MAX_LINKS`].
    #[error("the chain has more than {MAX_LINKS} links")]
    TooManyLinks,
    /// The request claims to be signed later than now.
    #[error("the request is signed in the future: set your clock")]
    FromFuture,
    /// The request was signed too long ago.
    #[error("the request was signed more than 5 minutes ago")]
    TooOld,
    /// The metadata is no JSON object, or has a key twice.
    #[error("the metadata is not a JSON object with distinct keys")]
    Metadata,
    /// A scene had the request signed, where a person must have.
    #[error("the request was signed for a scene, not for a person")]
    SignedForScene,
    /// The chain does not sign this request.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The payload to sign for a request: method and path in lower case, the metadata as it is sent.
pub fn fetch_payload(method: &str, path: &str, timestamp_ms: u64, metadata: &str) -> String {
    payload(method, path, &timestamp_ms.to_string(), metadata)
}

fn payload(method: &str, path: &str, timestamp: &str, metadata: &str) -> String {
    format!("{}:{}:{timestamp}:{metadata}", method.to_lowercase(), path.to_lowercase())
}

/// The headers of a request with this chain, whose last link signs its [`fetch_payload`].
pub fn fetch_headers(links: &[Link], timestamp_ms: u64, metadata: &str) -> Headers {
    let json = |link| serde_json::to_string(link).unwrap_or_default();
    let chain =
        links.iter().enumerate().map(|(index, link)| (format!("{LINK_HEADER_PREFIX}{index}"), json(link)));
    let others = [
        (TIMESTAMP_HEADER.to_owned(), timestamp_ms.to_string()),
        (METADATA_HEADER.to_owned(), metadata.to_owned()),
    ];
    chain.chain(others).collect()
}

/// Who signed a request for `path` with these headers, and for what.
pub fn verify_fetch_offline(
    method: &str,
    path: &str,
    headers: &HeaderMap,
    limits: &Limits,
    now: SystemTime,
) -> Result<SignedFetch, FetchError> {
    let timestamp = single_header(headers, TIMESTAMP_HEADER)?;
    let metadata = single_header(headers, METADATA_HEADER)?;
    let links = parse_links(headers)?;
    let signed_at = timestamp.parse().ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let signed_at = signed_at.ok_or_else(|| malformed(TIMESTAMP_HEADER))?;
    if signed_at > now + limits.clock_skew {
        return Err(FetchError::FromFuture);
    }
    let fresh_until = signed_at + FETCH_LIFETIME;
    if fresh_until < now {
        return Err(FetchError::TooOld);
    }
    let (payload, metadata) = signed_form(method, path, timestamp, metadata, &links, limits);
    let DistinctKeys(metadata) = serde_json::from_str(&metadata).map_err(|_| FetchError::Metadata)?;
    let signer = metadata.get("signer").and_then(Value::as_str).unwrap_or_default();
    if signer.trim().to_lowercase() == SCENE_SIGNER {
        return Err(FetchError::SignedForScene);
    }
    check_structure(&links)?;
    let examined = verify_links_offline(&links, &payload, limits, now)?;
    Ok(SignedFetch { verification: examined, payload, signed_at, fresh_until, metadata })
}

/// The payload that a request must have signed, and the metadata in that form: byte for byte, or all in
/// lower case if the chain signs that and `limits` accept it. Only signed text is ever read.
fn signed_form<'a>(
    method: &str,
    path: &str,
    timestamp: &str,
    metadata: &'a str,
    links: &[Link],
    limits: &Limits,
) -> (String, Cow<'a, str>) {
    let exact = payload(method, path, timestamp, metadata);
    let lowercased = exact.to_lowercase();
    let signed = links.last().map(|link| link.payload.as_str());
    if limits.lowercased_fetch && signed != Some(&exact) && signed == Some(&lowercased) {
        (lowercased, metadata.to_lowercase().into())
    } else {
        (exact, metadata.into())
    }
}

fn malformed(header: &str) -> FetchError {
    FetchError::Malformed { header: header.to_owned() }
}

/// The one value of a header.
fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, FetchError> {
    let mut values = headers.get_all(name).iter();
    let missing = || FetchError::Missing { header: name.to_owned() };
    let value = std::str::from_utf8(values.next().ok_or_else(missing)?.as_bytes());
    match (value, values.next()) {
        (Ok(value), None) => Ok(value),
        _ => Err(malformed(name)),
    }
}

/// The chain, a link a header, without a gap.
fn parse_links(headers: &HeaderMap) -> Result<Vec<Link>, FetchError> {
    let count = headers.keys().filter(|name| name.as_str().starts_with(LINK_HEADER_PREFIX)).count().max(1);
    if count > MAX_LINKS {
        return Err(FetchError::TooManyLinks);
    }
    let mut bytes = 0;
    let mut links = Vec::with_capacity(count);
    for name in (0..count).map(|index| format!("{LINK_HEADER_PREFIX}{index}")) {
        let json = single_header(headers, &name)?;
        bytes += json.len();
        if bytes > MAX_CHAIN_BYTES {
            return Err(ChainError::TooBig { bytes }.into());
        }
        links.push(serde_json::from_str(json).map_err(|_| malformed(&name))?);
    }
    Ok(links)
}

/// A JSON object in which no key is there twice, in whatever letters: readers would differ in which
/// one counts. The keys are in lower case.
struct DistinctKeys(Map<String, Value>);

impl<'de> Deserialize<'de> for DistinctKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = DistinctKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with distinct keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<DistinctKeys, A::Error> {
                let mut map = Map::new();
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    if map.insert(key.to_lowercase(), value).is_some() {
                        return Err(A::Error::custom("a key is there twice"));
                    }
                }
                Ok(DistinctKeys(map))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
