//! Tests of signed HTTP requests.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use protocol::unix_ms;

use super::*;
use crate::{Identity, LinkKind, Wallet};

const METADATA_JSON: &str =
    r#"{"intent":"dcl:explorer:comms-handshake","signer":"dcl:explorer","isGuest":false}"#;
const PATH: &str = "/Signed-Login";

/// 2026-01-01T00:00:00Z
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

fn wallet() -> Wallet {
    Wallet::from_secret([1; 32]).unwrap()
}

fn identity() -> Identity {
    let ephemeral = Wallet::from_secret([2; 32]).unwrap();
    Identity::new(&wallet(), ephemeral, now() + Duration::from_secs(60))
}

fn map(headers: &[(String, String)]) -> HeaderMap {
    let pair = |(name, value): &(String, String)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    headers.iter().map(pair).collect()
}

fn verify_at(headers: &HeaderMap, now: SystemTime) -> Result<SignedFetch, FetchError> {
    verify_fetch_offline("POST", PATH, headers, &Limits::default(), now)
}

/// Applies `change` to a valid request and returns the error of its verification.
fn refused(change: impl FnOnce(&mut HeaderMap)) -> FetchError {
    let mut headers = map(&identity().sign_fetch("post", PATH, METADATA_JSON, now()));
    assert!(verify_at(&headers, now()).is_ok());
    change(&mut headers);
    verify_at(&headers, now()).unwrap_err()
}

/// Verifies a request with this metadata, signed byte for byte.
fn with_metadata(metadata: &str) -> Result<SignedFetch, FetchError> {
    verify_at(&map(&wallet().sign_fetch("POST", PATH, metadata, now())), now())
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
}

#[test]
fn fetch_payload_matches_deployed_clients() {
    let payload = fetch_payload("POST", "/Path", 1_767_225_600_123, r#"{"Signer":"dcl:explorer"}"#);
    assert_eq!(payload, r#"post:/path:1767225600123:{"Signer":"dcl:explorer"}"#);
    let names: Vec<String> =
        identity().sign_fetch("post", PATH, "{}", now()).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "x-identity-auth-chain-0",
        "x-identity-auth-chain-1",
        "x-identity-auth-chain-2",
        "x-identity-timestamp",
        "x-identity-metadata",
    ];
    assert_eq!(names, expected);
}

#[test]
fn request_signed_by_wallet_or_delegate_is_accepted() {
    for headers in [
        wallet().sign_fetch("post", PATH, METADATA_JSON, now()),
        identity().sign_fetch("POST", PATH, METADATA_JSON, now()),
    ] {
        let fetch = verify_at(&map(&headers), now()).unwrap();
        assert_eq!(fetch.verification.owner, wallet().address());
        assert!(fetch.verification.contract_signatures.is_empty());
        assert_eq!(fetch.metadata["intent"], "dcl:explorer:comms-handshake");
        assert_eq!(fetch.metadata["isguest"], false);
        assert_eq!((fetch.signed_at, fetch.fresh_until), (now(), now() + FETCH_LIFETIME));
        assert!(fetch.payload.starts_with("post:/signed-login:1767225600000:{"));
    }
}

/// The headers of a request with a payload that was signed all in lower case, as clients did before August
/// 2026.
fn lowercased(metadata: &str) -> HeaderMap {
    let timestamp = unix_ms(now());
    let payload = fetch_payload("POST", PATH, timestamp, metadata).to_lowercase();
    let links: Vec<Link> = serde_json::from_str(&wallet().sign_challenge(&payload)).unwrap();
    map(&fetch_headers(&links, timestamp, metadata))
}

#[test]
fn lowercased_payload_is_accepted_while_the_limits_allow_it() {
    let metadata = r#"{"intent":"dcl:explorer:comms-handshake","signer":"DCL:Explorer","isGuest":false}"#;
    let fetch = verify_at(&lowercased(metadata), now()).unwrap();
    // The metadata is parsed from the text that was signed.
    assert_eq!(fetch.metadata["signer"], "dcl:explorer");
    assert_eq!(fetch.metadata["isguest"], false);
    let strict = Limits { lowercased_fetch: false, ..Limits::default() };
    let refused = verify_fetch_offline("POST", PATH, &lowercased(metadata), &strict, now());
    assert_eq!(refused, Err(FetchError::Chain(ChainError::ChallengeMismatch)));
    // Without capital letters both forms are equal.
    assert!(verify_fetch_offline("POST", PATH, &lowercased("{}"), &strict, now()).is_ok());
}

#[test]
fn metadata_signed_byte_for_byte_keeps_its_letters() {
    let fetch =
        with_metadata(r#"{"isGuest":false,"sceneId":"bafyABC","realm":{"serverName":"Main"}}"#).unwrap();
    assert_eq!(fetch.metadata["sceneid"], "bafyABC");
    assert_eq!(fetch.metadata["realm"]["serverName"], "Main");
}

#[test]
fn fingerprint_ignores_signer_and_unsigned_letter_case() {
    let fingerprint = |headers: &HeaderMap| verify_at(headers, now()).unwrap().fingerprint();
    let sent = fingerprint(&map(&identity().sign_fetch("POST", PATH, METADATA_JSON, now())));
    assert_eq!(fingerprint(&map(&wallet().sign_fetch("post", PATH, METADATA_JSON, now()))), sent);
    let old = fingerprint(&lowercased(METADATA_JSON));
    let mut spelled = lowercased(METADATA_JSON);
    set(&mut spelled, METADATA_HEADER, &METADATA_JSON.to_uppercase());
    assert_eq!(fingerprint(&spelled), old);
    let other = Wallet::from_secret([3; 32]).unwrap();
    assert_ne!(fingerprint(&map(&other.sign_fetch("POST", PATH, METADATA_JSON, now()))), sent);
    assert_ne!(fingerprint(&map(&wallet().sign_fetch("POST", PATH, "{}", now()))), sent);
}

#[test]
fn contract_wallet_signatures_are_returned() {
    let signer =
        Link { kind: LinkKind::Signer, payload: wallet().address().to_string(), signature: String::new() };
    let payload = fetch_payload("POST", PATH, unix_ms(now()), "{}");
    let entity = Link { kind: LinkKind::Eip1654SignedEntity, payload, signature: "0x12".into() };
    let headers = fetch_headers(&[signer, entity], unix_ms(now()), "{}");
    let fetch = verify_at(&map(&headers), now()).unwrap();
    assert_eq!(fetch.verification.contract_signatures.len(), 1);
    assert_eq!(fetch.verification.contract_signatures[0].message, fetch.payload);
}

#[test]
fn refuses_missing_headers() {
    for name in [TIMESTAMP_HEADER, METADATA_HEADER, "x-identity-auth-chain-0", "x-identity-auth-chain-1"] {
        let error = refused(|headers| drop(headers.remove(name)));
        assert_eq!(error, FetchError::Missing { header: name.to_owned() });
    }
    let nothing = verify_at(&HeaderMap::new(), now()).unwrap_err();
    assert_eq!(nothing, FetchError::Missing { header: TIMESTAMP_HEADER.to_owned() });
    // Without the last link the chain ends with the delegation, which must not be last.
    let shorter = refused(|headers| drop(headers.remove("x-identity-auth-chain-2")));
    assert_eq!(shorter, FetchError::Chain(ChainError::Misplaced { link: 1 }));
}

#[test]
fn refuses_malformed_headers() {
    for (name, values) in [
        (TIMESTAMP_HEADER, &["", "soon", "-1", "1.5", "99999999999999999999999", "\u{ff}"][..]),
        ("x-identity-auth-chain-1", &["", "{}", "[]", r#"{"type":"SIGNER","payload":""},{"type":"SIGNER"}"#]),
    ] {
        for value in values {
            let error = refused(|headers| set(headers, name, value));
            assert_eq!(error, FetchError::Malformed { header: name.to_owned() }, "{value}");
        }
        let twice = refused(|headers| {
            let value = headers[name].clone();
            headers.append(name, value);
        });
        assert_eq!(twice, FetchError::Malformed { header: name.to_owned() });
    }
    let not_utf8 = refused(|headers| {
        headers.insert(METADATA_HEADER, HeaderValue::from_bytes(b"{\"\xff\":1}").unwrap());
    });
    assert_eq!(not_utf8, FetchError::Malformed { header: METADATA_HEADER.to_owned() });
}

#[test]
fn refuses_more_than_ten_links_and_more_than_16_kib() {
    let many = refused(|headers| {
        for index in 3..11 {
            let name: HeaderName = format!("{LINK_HEADER_PREFIX}{index}").parse().unwrap();
            headers.insert(name, HeaderValue::from_static("{}"));
        }
    });
    assert_eq!(many, FetchError::TooManyLinks);
    let big = refused(|headers| {
        let link = headers["x-identity-auth-chain-1"].to_str().unwrap().to_owned();
        set(headers, "x-identity-auth-chain-1", &format!("{link}{}", " ".repeat(MAX_CHAIN_BYTES)));
    });
    assert!(matches!(big, FetchError::Chain(ChainError::TooBig { .. })), "{big}");
}

#[test]
fn refuses_future_and_expired_timestamps() {
    let headers = map(&wallet().sign_fetch("POST", PATH, METADATA_JSON, now()));
    let second = Duration::from_secs(1);
    let skew = Limits::default().clock_skew;
    assert!(verify_at(&headers, now() - skew).is_ok());
    assert_eq!(verify_at(&headers, now() - skew - second), Err(FetchError::FromFuture));
    let strict = Limits { clock_skew: Duration::ZERO, ..Limits::default() };
    assert_eq!(
        verify_fetch_offline("POST", PATH, &headers, &strict, now() - second),
        Err(FetchError::FromFuture)
    );
    assert!(verify_at(&headers, now() + FETCH_LIFETIME).is_ok());
    assert_eq!(verify_at(&headers, now() + FETCH_LIFETIME + second), Err(FetchError::TooOld));
}

#[test]
fn refuses_metadata_that_is_no_object() {
    let twice = [r#"{"a":1,"a":2}"#, r#"{"a":1,"A":2}"#, r#"{"a":1,"\u0041":2}"#];
    for metadata in ["", "null", "[]", "\"{}\"", "{", "{} {}"].into_iter().chain(twice) {
        assert_eq!(with_metadata(metadata), Err(FetchError::Metadata), "{metadata}");
    }
}

#[test]
fn refuses_scene_signers_in_any_spelling() {
    for metadata in [
        r#"{"signer":"decentraland-kernel-scene"}"#,
        r#"{"signer":"Decentraland-Kernel-Scene"}"#,
        r#"{"SIGNER":"decentraland-kernel-scene"}"#,
        r#"{"signer":"decentraland\u002dkernel-scene"}"#,
        r#"{"signer":"\u0044ecentraland-kernel-scene"}"#,
        r#"{"si\u0047ner":"decentraland-kernel-scene"}"#,
    ] {
        assert_eq!(with_metadata(metadata), Err(FetchError::SignedForScene), "{metadata}");
    }
    // A request that a scene had signed is refused also when the letter case of the metadata was changed.
    let scene = r#"{"signer":"decentraland-kernel-scene"}"#;
    let respelled = r#"{"sIgner":"decentraland-kernel-SCENE"}"#;
    for mut headers in [map(&wallet().sign_fetch("POST", PATH, scene, now())), lowercased(scene)] {
        set(&mut headers, METADATA_HEADER, respelled);
        assert_eq!(verify_at(&headers, now()), Err(FetchError::SignedForScene));
    }
}

#[test]
fn metadata_keys_are_lowercased() {
    let fetch = with_metadata(r#"{"isGuest":1,"In\u0054ent":2,"\u00C4":3}"#).unwrap();
    assert_eq!(fetch.metadata.keys().collect::<Vec<_>>(), ["intent", "isguest", "\u{e4}"]);
}

#[test]
fn refuses_a_chain_of_another_request() {
    let other = FetchError::Chain(ChainError::ChallengeMismatch);
    let headers = map(&wallet().sign_fetch("POST", PATH, METADATA_JSON, now()));
    let limits = Limits::default();
    assert_eq!(verify_fetch_offline("GET", PATH, &headers, &limits, now()), Err(other.clone()));
    assert_eq!(verify_fetch_offline("POST", "/other", &headers, &limits, now()), Err(other.clone()));
    assert_eq!(refused(|headers| set(headers, TIMESTAMP_HEADER, "1767225600001")), other);
    assert_eq!(refused(|headers| set(headers, METADATA_HEADER, r#"{"signer":"dcl:other"}"#)), other);
    let expired = verify_at(
        &map(&identity().sign_fetch("POST", PATH, METADATA_JSON, now() + Duration::from_secs(130))),
        now() + Duration::from_secs(130),
    );
    assert_eq!(expired, Err(FetchError::Chain(ChainError::Expired { link: 1 })));
}

proptest! {
    #[test]
    fn any_signed_request_is_accepted(
        method in "GET|POST|put|delete",
        path in "(/[A-Za-z0-9_.:-]{0,9}){1,4}",
        key in "[A-Za-z]{1,9}",
        value in "\\PC{0,40}",
    ) {
        let metadata = serde_json::json!({ key: value }).to_string();
        let headers = map(&wallet().sign_fetch(&method, &path, &metadata, now()));
        let fetch = verify_fetch_offline(&method, &path, &headers, &Limits::default(), now()).unwrap();
        prop_assert_eq!(fetch.verification.owner, wallet().address());
    }

    #[test]
    fn altered_request_is_refused_or_equal(
        index in 0usize..5,
        at in any::<prop::sample::Index>(),
        byte in 0x20u8..0x7f,
    ) {
        let mut headers = identity().sign_fetch("POST", PATH, METADATA_JSON, now());
        let sent = verify_at(&map(&headers), now()).unwrap();
        let mut value = headers[index].1.clone().into_bytes();
        let at = at.index(value.len());
        value[at] = byte;
        headers[index].1 = String::from_utf8(value).unwrap();
        if let Ok(accepted) = verify_at(&map(&headers), now()) {
            prop_assert_eq!(accepted, sent);
        }
    }
}
