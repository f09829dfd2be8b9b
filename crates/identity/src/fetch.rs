//! Signed fetch: HTTP requests that a wallet signs, in headers (ADR-44).
//!
//! The wallet signs `method:path:timestamp:metadata`. Method and path are in lower case, and the metadata is
//! signed byte for byte as it is sent. Clients before August 2026 converted the metadata to lower case too.

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

/// Prefix of the headers that carry the links as JSON; the index of the link, from 0, follows.
const LINK_HEADER_PREFIX: &str = "x-identity-auth-chain-";
/// Header with the time of signing, in milliseconds since the Unix epoch.
const TIMESTAMP_HEADER: &str = "x-identity-timestamp";
/// Header with a JSON object that describes the purpose of the request.
const METADATA_HEADER: &str = "x-identity-metadata";

/// Time after its timestamp for which a request is accepted.
const FETCH_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// `signer` in the metadata of a request that a scene had signed, without the user's consent.
const SCENE_SIGNER: &str = "decentraland-kernel-scene";

/// Names and values of headers.
pub type Headers = Vec<(String, String)>;

/// A request that passed all checks that need neither an Ethereum node nor a replay cache.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedFetch {
    /// The owner of the request, and the contract signatures that a node must confirm before the owner is
    /// proven.
    pub verification: OfflineVerification,
    /// The payload that the last link signs.
    pub payload: String,
    /// The time of signing that the request claims.
    pub signed_at: SystemTime,
    /// The end of the time in which the same request would pass again: a replay cache must remember it until
    /// then.
    pub fresh_until: SystemTime,
    /// The metadata as it was signed: byte for byte, or in lower case if the whole payload was signed in
    /// lower case. The keys of the outermost object are in lower case in both forms, so that `isGuest` has
    /// one name.
    pub metadata: Map<String, Value>,
}

impl SignedFetch {
    /// Identifies the request by its owner and payload. It does not depend on the signatures, which a client
    /// can vary for one request.
    pub fn fingerprint(&self) -> [u8; 32] {
        keccak256(&[self.verification.owner.as_bytes(), self.payload.as_bytes()].concat())
    }
}

/// The reason for which a request is refused. A gateway sends the text to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// A header is missing.
    #[error("the header {header} is missing")]
    Missing {
        /// Name of the header.
        header: String,
    },
    /// A header does not parse, is not UTF-8, or occurs twice.
    #[error("the header {header} is malformed, or there twice")]
    Malformed {
        /// Name of the header.
        header: String,
    },
    /// The chain has more than [`MAX_LINKS`] links.
    #[error("the chain has more than {MAX_LINKS} links")]
    TooManyLinks,
    /// The timestamp is later than now plus [`Limits::clock_skew`].
    #[error("the request is signed in the future: set your clock")]
    FromFuture,
    /// The timestamp is more than 5 minutes old.
    #[error("the request was signed more than 5 minutes ago")]
    TooOld,
    /// The metadata is not a JSON object, or has a key twice.
    #[error("the metadata is not a JSON object with distinct keys")]
    Metadata,
    /// A scene had the request signed, where the user must have.
    #[error("the request was signed for a scene, not for a client")]
    SignedForScene,
    /// The chain is invalid, or does not sign this request.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Builds the payload to sign for a request: method and path in lower case, the metadata as it is sent.
pub fn fetch_payload(method: &str, path: &str, timestamp_ms: u64, metadata: &str) -> String {
    payload(method, path, &timestamp_ms.to_string(), metadata)
}

fn payload(method: &str, path: &str, timestamp: &str, metadata: &str) -> String {
    format!("{}:{}:{timestamp}:{metadata}", method.to_lowercase(), path.to_lowercase())
}

/// Builds the headers of a request with this chain. The last link must sign its [`fetch_payload`].
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

/// Verifies a request for `path` with these headers, except for signatures of contract wallets, which are
/// returned in [`SignedFetch::verification`].
///
/// The caller must check the metadata and reject requests that were accepted before.
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
    let verification = verify_links_offline(&links, &payload, limits, now)?;
    Ok(SignedFetch { verification, payload, signed_at, fresh_until, metadata })
}

/// The payload that a request must have signed, and the metadata in that form: byte for byte, or in lower
/// case if the chain signs the lower-case form and `limits` accept it. The caller parses only text that was
/// signed.
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

/// The value of a header that must occur exactly once.
fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, FetchError> {
    let mut values = headers.get_all(name).iter();
    let missing = || FetchError::Missing { header: name.to_owned() };
    let value = std::str::from_utf8(values.next().ok_or_else(missing)?.as_bytes());
    match (value, values.next()) {
        (Ok(value), None) => Ok(value),
        _ => Err(malformed(name)),
    }
}

/// Parses the chain from its headers, one link each. The indexes must have no gap.
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

/// A JSON object with keys that are distinct regardless of letter case, because parsers differ in which
/// duplicate counts. The keys are converted to lower case.
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
                        return Err(A::Error::custom("a key occurs twice"));
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
