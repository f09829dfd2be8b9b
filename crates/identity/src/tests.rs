//! Tests of auth chains, contract signatures and challenges.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use protocol::Address;

use super::*;

const CHALLENGE: &str = "dcl-00112233445566778899aabbccddeeff";

fn wallet(seed: u8) -> Wallet {
    Wallet::from_secret([seed; 32]).unwrap()
}

/// 2026-01-01T00:00:00Z
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn identity(lifetime: Duration) -> Identity {
    Identity::new(&wallet(1), wallet(2), now() + lifetime)
}

fn links(lifetime: Duration) -> Vec<Link> {
    serde_json::from_str(&identity(lifetime).sign_challenge(CHALLENGE)).unwrap()
}

fn verify_links(links: &[Link]) -> Result<Address, ChainError> {
    verify_json(&serde_json::to_string(links).unwrap())
}

fn verify_json(json: &str) -> Result<Address, ChainError> {
    verify(json, wallet(1).address(), CHALLENGE, &Limits::default(), now())
}

/// Applies `change` to a valid chain and returns the error of its verification.
fn refused(change: impl FnOnce(&mut Vec<Link>)) -> ChainError {
    let mut links = links(DAY);
    change(&mut links);
    verify_links(&links).unwrap_err()
}

/// Verifies a chain with this payload in its delegation, with a matching signature.
fn with_delegation(payload: &str) -> Result<Address, ChainError> {
    let mut links = links(DAY);
    links[1].payload = payload.to_owned();
    links[1].signature = wallet(1).sign(&payload.replace('\r', ""));
    verify_links(&links)
}

#[test]
fn known_key_yields_known_address_and_signature() {
    // From the example of the web3 documentation: key, address, and signature of "Some data".
    let secret = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
    let wallet = Wallet::from_secret(hex::decode(secret).unwrap().try_into().unwrap()).unwrap();
    assert_eq!(wallet.address().to_string(), "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23");
    assert_eq!(
        wallet.sign("Some data"),
        "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
           6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"
    );
}

#[test]
fn chain_of_three_links_is_valid() {
    assert_eq!(verify_links(&links(DAY)), Ok(wallet(1).address()));
}

#[test]
fn chain_of_two_links_is_valid() {
    assert_eq!(verify_json(&wallet(1).sign_challenge(CHALLENGE)), Ok(wallet(1).address()));
}

#[test]
fn chain_with_two_delegations_is_valid() {
    let mut links = links(DAY);
    let payload = format!(
        "Decentraland Login\nEphemeral address: {}\nExpiration: 2026-01-02T00:00:00Z",
        wallet(3).address()
    );
    let signature = wallet(2).sign(&payload);
    links.insert(2, Link { kind: LinkKind::EcdsaEphemeral, payload, signature });
    assert_eq!(verify_links(&links), Err(ChainError::SignerMismatch { link: 3 }));
    links[3].signature = wallet(3).sign(CHALLENGE);
    assert_eq!(verify_links(&links), Ok(wallet(1).address()));
}

#[test]
fn signature_accepts_every_form_of_v() {
    for (signature, from, to) in [(wallet(1).sign("x"), "1b", "00"), (wallet(2).sign("x"), "1c", "01")] {
        // The signatures end in 27 (0x1b) or 28 (0x1c); the other form of the same v is 0 or 1.
        let other = if signature.ends_with(from) {
            to
        } else if from == "1b" {
            "01"
        } else {
            "00"
        };
        let plain = format!("{}{other}", &signature[..130]);
        let signer = |text: &str| crypto::recover_signer(b"x", &crypto::parse_signature(text).unwrap());
        assert_eq!(signer(&signature), signer(&plain));
    }
}

#[test]
fn expiration_accepts_optional_milliseconds_and_zone() {
    let ephemeral = wallet(2).address();
    for time in [
        "2026-01-02T00:00:00.000Z",
        "2026-01-02T00:00:00Z",
        "2026-01-02T00:00:00",
        "2026-01-02T00:00:00.5",
        "2026-01-02T01:00:00+01:00",
    ] {
        let payload = format!("Decentraland Login\nEphemeral address: {ephemeral}\nExpiration: {time}");
        assert_eq!(with_delegation(&payload), Ok(wallet(1).address()), "{time}");
    }
}

#[test]
fn carriage_returns_are_dropped_before_hashing() {
    let ephemeral = wallet(2).address();
    let payload = format!("Any title\r\nEphemeral address: {ephemeral}\r\nExpiration: 2026-01-02T00:00:00Z");
    assert_eq!(with_delegation(&payload), Ok(wallet(1).address()));
}

#[test]
fn guest_chain_of_99_years_is_valid() {
    assert!(verify_links(&links(DAY * 365 * 99)).is_ok());
}

#[test]
fn clock_skew_of_a_minute_is_accepted() {
    let expired = Identity::new(&wallet(1), wallet(2), now() - Duration::from_secs(59));
    assert!(verify_json(&expired.sign_challenge(CHALLENGE)).is_ok());
}

#[test]
fn refuses_an_expired_ephemeral() {
    let expired = Identity::new(&wallet(1), wallet(2), now() - Duration::from_secs(61));
    assert_eq!(verify_json(&expired.sign_challenge(CHALLENGE)), Err(ChainError::Expired { link: 1 }));
}

#[test]
fn refuses_an_ephemeral_that_outlives_the_maximum() {
    assert_eq!(verify_links(&links(DAY * 366 * 101)), Err(ChainError::ExpiresTooLate { link: 1 }));
}

#[test]
fn refuses_a_first_link_that_is_not_a_signer() {
    assert_eq!(refused(|links| drop(links.remove(0))), ChainError::NoSigner);
}

#[test]
fn refuses_a_second_signer() {
    assert_eq!(refused(|links| links.insert(1, links[0].clone())), ChainError::SecondSigner { link: 1 });
}

#[test]
fn refuses_an_entity_in_the_middle_and_an_ephemeral_at_the_end() {
    assert_eq!(refused(|links| links.swap(1, 2)), ChainError::Misplaced { link: 1 });
    assert_eq!(refused(|links| drop(links.pop())), ChainError::Misplaced { link: 1 });
}

#[test]
fn refuses_another_challenge() {
    let json = identity(DAY).sign_challenge("dcl-another");
    assert_eq!(verify_json(&json), Err(ChainError::ChallengeMismatch));
}

#[test]
fn refuses_the_lone_signer_that_names_the_challenge() {
    let lone = Link { kind: LinkKind::Signer, payload: CHALLENGE.into(), signature: String::new() };
    assert_eq!(verify_links(&[lone]), Err(ChainError::TooFewLinks { links: 1 }));
    assert_eq!(verify_json("[]"), Err(ChainError::TooFewLinks { links: 0 }));
}

#[test]
fn refuses_more_than_ten_links() {
    let error = refused(|links| (0..8).for_each(|_| links.insert(1, links[1].clone())));
    assert_eq!(error, ChainError::TooManyLinks { links: 11 });
}

#[test]
fn refuses_more_than_16_kib() {
    let json = format!("{:17000}", identity(DAY).sign_challenge(CHALLENGE));
    assert_eq!(verify_json(&json), Err(ChainError::TooBig { bytes: 17_000 }));
}

#[test]
fn refuses_json_that_is_not_links() {
    for json in ["", "{}", "[1]", r#"[{"type":"MAGIC","payload":""}]"#, "[{\"type\":\"SIGNER\"}]"] {
        assert_eq!(verify_json(json), Err(ChainError::NotLinks), "{json}");
    }
}

#[test]
fn refuses_an_owner_that_is_no_address() {
    assert_eq!(refused(|links| links[0].payload = "not-an-address".into()), ChainError::OwnerNotAddress);
}

#[test]
fn refuses_an_owner_other_than_the_announced() {
    let json = identity(DAY).sign_challenge(CHALLENGE);
    let result = verify(&json, wallet(9).address(), CHALLENGE, &Limits::default(), now());
    assert_eq!(result, Err(ChainError::OwnerMismatch));
}

#[test]
fn refuses_an_ephemeral_payload_of_other_lines() {
    let ephemeral = wallet(2).address();
    for payload in [
        String::new(),
        format!("Title\nEphemeral address: {ephemeral}"),
        format!("Title\nEphemeral address: {ephemeral}\nExpiration: soon"),
        "Title\nEphemeral address: not-an-address\nExpiration: 2026-01-02T00:00:00Z".to_owned(),
        format!("Title\nEphemeral address: {ephemeral}\nExpiration: 2026-01-02T00:00:00Z\nmore"),
    ] {
        assert_eq!(with_delegation(&payload), Err(ChainError::EphemeralPayload { link: 1 }), "{payload}");
    }
}

#[test]
fn refuses_a_link_without_signature() {
    assert_eq!(refused(|links| links[2].signature.clear()), ChainError::Unsigned { link: 2 });
}

#[test]
fn signer_link_may_lack_a_signature_or_have_null() {
    let chain = identity(DAY).sign_challenge(CHALLENGE);
    for signature in [r#","signature":null"#, ""] {
        let changed = chain.replacen(r#","signature":"""#, signature, 1);
        assert_ne!(changed, chain);
        assert_eq!(verify_json(&changed).map(|_| ()), Ok(()), "{changed}");
    }
    let mut links: serde_json::Value = serde_json::from_str(&chain).unwrap();
    links[2]["signature"] = serde_json::Value::Null;
    assert_eq!(verify_json(&links.to_string()).unwrap_err(), ChainError::Unsigned { link: 2 });
}

#[test]
fn refuses_malformed_signatures() {
    for signature in ["0x", "nothing", &"0".repeat(132), &format!("0x{}", "f".repeat(130))] {
        let error = refused(|links| links[2].signature = signature.to_owned());
        assert_eq!(error, ChainError::SignatureMalformed { link: 2 }, "{signature}");
    }
    let error = refused(|links| links[2].signature.replace_range(130.., "1d"));
    assert_eq!(error, ChainError::SignatureMalformed { link: 2 }, "v = 29");
}

#[test]
fn refuses_a_signature_with_high_s() {
    // s' = n - s and the other v: this signature recovers to the same key.
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let error = refused(|links| {
        let mut bytes = hex::decode(&links[2].signature[2..]).unwrap();
        let mut borrow = 0i16;
        for index in (0..32).rev() {
            let difference = i16::from(order[index]) - i16::from(bytes[32 + index]) - borrow;
            borrow = i16::from(difference < 0);
            bytes[32 + index] = difference.rem_euclid(256) as u8;
        }
        bytes[64] = if bytes[64] == 27 { 28 } else { 27 };
        links[2].signature = format!("0x{}", hex::encode(bytes));
    });
    assert_eq!(error, ChainError::SignatureHighS { link: 2 });
}

#[test]
fn refuses_a_signature_by_another_key() {
    let error = refused(|links| links[2].signature = wallet(1).sign(CHALLENGE));
    assert_eq!(error, ChainError::SignerMismatch { link: 2 });
    let error = refused(|links| links[1].signature = wallet(9).sign(&links[1].payload));
    assert_eq!(error, ChainError::SignerMismatch { link: 1 });
}

#[test]
fn contract_signature_is_refused_without_a_provider() {
    let mut links = links(DAY);
    links[1].kind = LinkKind::Eip1654Ephemeral;
    links[1].signature = "0x1234".into();
    assert_eq!(verify_links(&links), Err(ChainError::ContractWallet { link: 1 }));
    let json = serde_json::to_string(&links).unwrap();
    let verification =
        verify_offline(&json, wallet(1).address(), CHALLENGE, &Limits::default(), now()).unwrap();
    let [pending] = &verification.contract_signatures[..] else { panic!("one signature is to be confirmed") };
    assert_eq!((pending.contract, &pending.signature[..]), (wallet(1).address(), &[0x12, 0x34][..]));
    assert_eq!(pending.message, links[1].payload);
    for signature in ["1234", "0x123", "0xzz"] {
        links[1].signature = signature.into();
        assert_eq!(verify_links(&links), Err(ChainError::SignatureMalformed { link: 1 }), "{signature}");
    }
}

#[test]
fn refuses_a_second_contract_wallet_link() {
    let mut links = links(DAY);
    for link in &mut links[1..] {
        link.signature = "0x1234".into();
    }
    links[1].kind = LinkKind::Eip1654Ephemeral;
    links[2].kind = LinkKind::Eip1654SignedEntity;
    let json = serde_json::to_string(&links).unwrap();
    let verification = verify_offline(&json, wallet(1).address(), CHALLENGE, &Limits::default(), now());
    assert_eq!(verification, Err(ChainError::SecondContractLink { link: 2 }));
}

#[test]
fn contract_signature_has_both_possible_digests() {
    let signature = ContractSignature {
        link: 1,
        contract: wallet(1).address(),
        message: "Some data".into(),
        signature: vec![1],
    };
    // keccak256 of the message, and messageHash of the example in the web3 documentation.
    assert_eq!(
        signature.digests().map(hex::encode),
        [
            "43a26051362b8040b289abe93334a5e3662751aa691185ae9e9a2e1e0c169350",
            "1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655"
        ]
    );
    let fingerprint = signature.fingerprint();
    for other in [
        ContractSignature { contract: wallet(2).address(), ..signature.clone() },
        ContractSignature { message: "Other data".into(), ..signature.clone() },
        ContractSignature { signature: vec![1, 0], ..signature.clone() },
    ] {
        assert_ne!(other.fingerprint(), fingerprint, "{other:?}");
    }
    assert_eq!(ContractSignature { link: 2, ..signature.clone() }.fingerprint(), fingerprint);
}

#[test]
fn challenge_names_the_host_of_its_realm() {
    let text = |host| Challenge::new(host, [0xab; 16]).as_str().to_owned();
    let random = "ab".repeat(16);
    assert_eq!(text(""), format!("dcl-{random}"));
    assert_eq!(text("realm.example"), format!("dcl-realm.example-{random}"));
    assert_eq!(text("2001:db8::1"), format!("dcl-2001-db8--1-{random}"));
    assert_eq!(text("a:b\nc"), format!("dcl-a-b-c-{random}"));
    let challenge = Challenge::new("realm.example", [0xab; 16]);
    assert!(!format!("{challenge:?}").contains("ab"), "a log must not contain it");
}

proptest! {
    #[test]
    fn verification_never_panics(text in ".{0,200}", at in 0usize..900, byte in any::<u8>()) {
        let _ = verify_json(&text);
        let mut json = identity(DAY).sign_challenge(CHALLENGE).into_bytes();
        let at = at % json.len();
        json[at] = byte;
        if let Ok(json) = String::from_utf8(json) {
            let _ = verify_json(&json);
        }
    }

    #[test]
    fn any_wallet_verifies_its_own_chain(secret in any::<[u8; 32]>(), ephemeral in any::<[u8; 32]>()) {
        if let (Ok(wallet), Ok(ephemeral)) = (Wallet::from_secret(secret), Wallet::from_secret(ephemeral)) {
            let json = Identity::new(&wallet, ephemeral, now() + DAY).sign_challenge(CHALLENGE);
            let owner = verify(&json, wallet.address(), CHALLENGE, &Limits::default(), now());
            prop_assert_eq!(owner, Ok(wallet.address()));
        }
    }
}
