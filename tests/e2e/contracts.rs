//! Contract wallets (EIP-1654): signed in when the contract accepts the signature, refused with the
//! reason when it does not or cannot be called; no other client is delayed.

use std::time::Duration;

use identity::Wallet;
use protocol::{
    Address, Close,
    bff::{GetChallengeRequest, GetChallengeResponse, SignedChallenge, WelcomePeerInformation},
    rfc5::{WsIdentification, WsSignedChallenge, ws_packet::Message},
    v3::{ChallengeRequestMessage, client_packet, server_packet},
};
use test_support::{
    Realm, TEST_TIMEOUT, eventually,
    rpc_caller::Caller,
    wallet,
    wire::{Wire, sign_in},
};

use crate::ethereum::{API_KEY, Behaviour, ContractWallet, Ethereum};

/// A realm that calls this Ethereum node.
fn realm(ethereum: &Ethereum, settings: &[(&str, &str)]) -> Realm {
    let provider = [("IDENTITY__ETHEREUM_RPC_URL", ethereum.url.as_str()), ("ROOMS__OPEN", "lobby")];
    Realm::start(&[&provider, settings].concat())
}

/// Requests a challenge for this contract, and sends the signed one.
async fn try_sign_in(realm: &Realm, contract: ContractWallet, sign: &dyn Fn(&str) -> String) -> Wire {
    let mut wire = Wire::open(&realm.socket()).await;
    let request = ChallengeRequestMessage { address: contract.address.to_string(), ..Default::default() };
    wire.send_packet(client_packet::Message::ChallengeRequest(request)).await;
    let server_packet::Message::ChallengeResponse(response) = wire.next_packet().await else {
        panic!("no challenge")
    };
    wire.send_auth_chain(sign(&response.challenge_to_sign)).await;
    wire
}

async fn sign_in_contract(realm: &Realm, contract: ContractWallet, sign: &dyn Fn(&str) -> String) -> Wire {
    let mut wire = try_sign_in(realm, contract, sign).await;
    match wire.next_packet().await {
        server_packet::Message::Welcome(welcome) => assert_eq!(welcome.peer_id, contract.address.to_string()),
        other => panic!("instead of a welcome: {other:?}"),
    }
    wire
}

async fn refused_sign_in(
    realm: &Realm,
    contract: ContractWallet,
    sign: &dyn Fn(&str) -> String,
) -> (Close, String) {
    try_sign_in(realm, contract, sign).await.closed().await
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_wallet_signs_in_and_meets_others() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[]);
    let (one, two) = (ethereum.deploy(), ethereum.deploy());
    // The first wallet signs the challenge itself, which takes one call. The second one delegates to an
    // ephemeral key, which takes two, because it signs the other digest.
    let mut first = sign_in_contract(&realm, one, &|challenge| one.sign(challenge)).await;
    assert_eq!(ethereum.calls(), 1);
    let delegation = two.delegate(&two.owner());
    let mut second = sign_in_contract(&realm, two, &|challenge| delegation.sign(challenge)).await;
    assert_eq!(ethereum.calls(), 3);
    first.heartbeat(0.0).await;
    let island = first.island_changed().await.island_id;
    second.heartbeat(1.0).await;
    assert_eq!(second.island_changed().await.island_id, island);
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_wallet_signs_in_over_rpc() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[]);
    let (contract, other) = (ethereum.deploy(), ethereum.deploy());
    let challenge = async |caller: &mut Caller| {
        let address = contract.address.to_string();
        let procedure = "BffAuthenticationService.GetChallenge";
        caller
            .request::<GetChallengeResponse>(
                procedure,
                &GetChallengeRequest { address, ..Default::default() },
            )
            .await
            .challenge_to_sign
    };
    let mut caller = Caller::open(&realm).await;
    let delegation = contract.delegate(&other.owner());
    let signed = SignedChallenge { auth_chain_json: delegation.sign(&challenge(&mut caller).await) };
    let error = caller.call_expecting_error("BffAuthenticationService.Authenticate", &signed).await;
    assert!(error.contains("the contract wallet says"), "{error}");
    let mut caller = Caller::open(&realm).await;
    let signed = SignedChallenge { auth_chain_json: contract.sign(&challenge(&mut caller).await) };
    let welcome: WelcomePeerInformation =
        caller.request("BffAuthenticationService.Authenticate", &signed).await;
    assert_eq!(welcome.peer_id, contract.address.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_wallet_enters_an_open_room() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[]);
    let (contract, other) = (ethereum.deploy(), ethereum.deploy());
    let enter = async |delegation: &crate::ethereum::Delegation| {
        let mut wire = Wire::open(&format!("{}/rooms/lobby", realm.ws)).await;
        let address = contract.address.to_string();
        wire.send_room_packet(Message::PeerIdentification(WsIdentification { address })).await;
        let Message::ChallengeMessage(challenge) = wire.next_in_room().await else { panic!("a challenge") };
        let auth_chain_json = delegation.sign(&challenge.challenge_to_sign);
        wire.send_room_packet(Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
        wire
    };
    enter(&contract.delegate(&contract.owner())).await.welcome().await;
    let (close, reason) = enter(&contract.delegate(&other.owner())).await.closed().await;
    assert_eq!(close, Close::AuthRefused);
    assert!(reason.contains("the contract wallet says"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signature_of_another_owner_is_refused_by_the_contract() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[("IDENTITY__ETHEREUM_FAILURES", "1")]);
    let (contract, other) = (ethereum.deploy(), ethereum.deploy());
    let invalid_signature = "link 1: the contract wallet says that the signature is not valid (EIP-1654)";
    let stolen = contract.delegate(&other.owner());
    let (close, reason) = refused_sign_in(&realm, contract, &|challenge| stolen.sign(challenge)).await;
    assert_eq!((close, reason.as_str()), (Close::AuthRefused, invalid_signature));
    // Another key cannot use a delegation, and no contract is called for that.
    let delegation = contract.delegate(&contract.owner());
    let calls = ethereum.calls();
    let forged = |challenge: &str| {
        let chain = delegation.sign(challenge);
        let mut links: Vec<identity::Link> = serde_json::from_str(&chain).unwrap();
        links[2].signature = other.owner().sign(challenge);
        serde_json::to_string(&links).unwrap()
    };
    let (close, reason) = refused_sign_in(&realm, contract, &forged).await;
    assert_eq!(close, Close::AuthRefused);
    assert!(reason.contains("link 2 is not signed by"), "{reason}");
    assert_eq!(ethereum.calls(), calls);
    // A key pair is not a contract.
    let key_pair = ContractWallet::not_deployed(&wallet());
    let (close, reason) = refused_sign_in(&realm, key_pair, &|challenge| key_pair.sign(challenge)).await;
    assert_eq!((close, reason.as_str()), (Close::AuthRefused, invalid_signature));
    // A refusal is no failure of the provider: the breaker stays closed, and a valid delegation still
    // signs in.
    sign_in_contract(&realm, contract, &|challenge| delegation.sign(challenge)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_wallets_are_refused_without_a_provider() {
    let ethereum = Ethereum::start().await;
    let realm = Realm::start(&[]);
    let contract = ethereum.deploy();
    let (close, reason) = refused_sign_in(&realm, contract, &|challenge| contract.sign(challenge)).await;
    assert_eq!(close, Close::AuthRefused);
    assert!(reason.contains("contract wallet (EIP-1654), which this server cannot check"), "{reason}");
    assert_eq!(ethereum.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_signature_is_cached_until_it_expires() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[("IDENTITY__ETHEREUM_VALID_S", "2")]);
    let contract = ethereum.deploy();
    let delegation = contract.delegate(&contract.owner());
    let sign = |challenge: &str| delegation.sign(challenge);
    for _ in 0..3 {
        sign_in_contract(&realm, contract, &sign).await;
    }
    assert_eq!(ethereum.calls(), 2, "one verification, with both digests");
    assert_eq!(realm.count("atoll_contract_questions_total{outcome=\"cached\"}").await, 2.0);
    eventually("the cached result expires", async || {
        sign_in_contract(&realm, contract, &sign).await;
        ethereum.calls() == 4
    })
    .await;
    // Another signature causes calls again, of the same wallet, too.
    let again = contract.delegate(&contract.owner());
    sign_in_contract(&realm, contract, &|challenge| again.sign(challenge)).await;
    assert_eq!(ethereum.calls(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_provider_delays_no_other_sign_in() {
    let ethereum = Ethereum::start().await;
    let settings = [
        ("IDENTITY__ETHEREUM_TIMEOUT_MS", "60000"),
        ("GATEWAY__HANDSHAKE_TIMEOUT_S", "90"),
        ("ROOMS__HANDSHAKE_TIMEOUT_S", "90"),
        ("GATEWAY__MAX_HANDSHAKES_PER_IP", "200"),
    ];
    let realm = realm(&ethereum, &settings);
    ethereum.set_behaviour(Behaviour::Hung);
    let mut hung = Vec::new();
    for _ in 0..50 {
        let contract = ethereum.deploy();
        hung.push(try_sign_in(&realm, contract, &|challenge| contract.sign(challenge)).await);
    }
    // At most 32 chains are verified at a time (`identity.ethereum_max_questions`), and the others
    // wait.
    eventually("the calls hang", async || ethereum.calls() == 32).await;
    let ordinary: Vec<Wallet> = (0..50).map(|_| wallet()).collect();
    let all = futures_util::future::join_all(ordinary.iter().map(|wallet| sign_in(&realm, wallet)));
    let signed_in =
        tokio::time::timeout(TEST_TIMEOUT, all).await.expect("key pairs do not wait for contract calls");
    assert_eq!(signed_in.len(), 50);
    assert_eq!(realm.metric("atoll_gateway_signing_in").await, 50.0, "the others still wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_called_contracts_do_not_open_the_breaker() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[]);
    ethereum.set_behaviour(Behaviour::Strict);
    for _ in 0..50 {
        let odd = ContractWallet::not_deployed(&wallet());
        let (close, reason) = refused_sign_in(&realm, odd, &|challenge| odd.sign(challenge)).await;
        assert_eq!((close, close.should_reconnect()), (Close::Full, true), "{reason}");
    }
    assert_eq!(realm.metric("atoll_contract_breaker").await, 0.0);
    let contract = ethereum.deploy();
    sign_in_contract(&realm, contract, &|challenge| contract.sign(challenge)).await;
    // A precompiled contract (address 8, pairing) is not even called.
    let calls = ethereum.calls();
    let mut bytes = [0; 20];
    bytes[19] = 8;
    let pairing = ContractWallet::at(Address::new(bytes));
    let (close, _) = refused_sign_in(&realm, pairing, &|challenge| pairing.sign(challenge)).await;
    assert_eq!((close, ethereum.calls()), (Close::AuthRefused, calls));
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limited_provider_is_retried_after_a_pause() {
    let ethereum = Ethereum::start().await;
    let settings = [("IDENTITY__ETHEREUM_FAILURES", "1"), ("IDENTITY__ETHEREUM_COOL_DOWN_S", "3600")];
    let realm = realm(&ethereum, &settings);
    let (known, new) = (ethereum.deploy(), ethereum.deploy());
    let delegation = known.delegate(&known.owner());
    sign_in_contract(&realm, known, &|challenge| delegation.sign(challenge)).await;
    ethereum.set_behaviour(Behaviour::RateLimited);
    let calls = ethereum.calls();
    let (close, reason) = refused_sign_in(&realm, new, &|challenge| new.sign(challenge)).await;
    assert_eq!((close, close.should_reconnect()), (Close::Full, true));
    assert!(reason.ends_with("the Ethereum provider is asked too often, come back later"), "{reason}");
    assert_eq!(ethereum.calls(), calls + 1);
    sign_in_contract(&realm, known, &|challenge| delegation.sign(challenge)).await;
    assert_eq!(realm.metric("atoll_contract_breaker").await, 0.0);
    assert!(realm.count("atoll_contract_questions_total{outcome=\"limited\"}").await >= 1.0);
    ethereum.set_behaviour(Behaviour::Healthy);
    eventually("the provider is called again", async || {
        drop(try_sign_in(&realm, new, &|challenge| new.sign(challenge)).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
        ethereum.calls() > calls + 1
    })
    .await;
    sign_in_contract(&realm, new, &|challenge| new.sign(challenge)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_question_limit_does_not_affect_key_pairs() {
    let ethereum = Ethereum::start().await;
    let realm = realm(&ethereum, &[("IDENTITY__ETHEREUM_QUESTIONS_PER_NETWORK_PER_HOUR", "2")]);
    let known = ethereum.deploy();
    let delegation = known.delegate(&known.owner());
    for _ in 0..3 {
        sign_in_contract(&realm, known, &|challenge| delegation.sign(challenge)).await;
    }
    let second = ethereum.deploy();
    sign_in_contract(&realm, second, &|challenge| second.sign(challenge)).await;
    let (calls, third) = (ethereum.calls(), ethereum.deploy());
    let (close, reason) = refused_sign_in(&realm, third, &|challenge| third.sign(challenge)).await;
    assert_eq!((close, close.should_reconnect()), (Close::Full, true));
    assert!(
        reason.ends_with("too many contract wallets of this network sign in, come back later"),
        "{reason}"
    );
    assert_eq!(ethereum.calls(), calls);
    sign_in_contract(&realm, known, &|challenge| delegation.sign(challenge)).await;
    sign_in(&realm, &wallet()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_provider_opens_the_breaker_until_cool_down() {
    let ethereum = Ethereum::start().await;
    let settings = [
        ("IDENTITY__ETHEREUM_TIMEOUT_MS", "500"),
        ("IDENTITY__ETHEREUM_FAILURES", "3"),
        ("IDENTITY__ETHEREUM_COOL_DOWN_S", "3"),
        ("LOG__LEVEL", "trace"),
    ];
    let mut realm = realm(&ethereum, &settings);
    let contract = ethereum.deploy();
    let sign = |challenge: &str| contract.sign(challenge);
    for (mood, expected) in [
        (Behaviour::Failing, "the Ethereum provider failed, come back later"),
        (Behaviour::Garbage, "the Ethereum provider failed, come back later"),
        (Behaviour::Hung, "the Ethereum provider did not answer in time, come back later"),
    ] {
        ethereum.set_behaviour(mood);
        let (close, reason) = refused_sign_in(&realm, contract, &sign).await;
        assert_eq!((close, close.should_reconnect()), (Close::Full, true));
        assert!(reason.ends_with(expected), "{reason}");
    }
    // The breaker is open: the provider receives no call, and no client waits.
    assert_eq!(realm.metric("atoll_contract_breaker").await, 2.0);
    let calls = ethereum.calls();
    for _ in 0..5 {
        let (_, reason) = refused_sign_in(&realm, contract, &sign).await;
        assert!(reason.ends_with("the Ethereum provider is not well, come back later"), "{reason}");
    }
    assert_eq!(ethereum.calls(), calls);
    sign_in(&realm, &wallet()).await;
    // After the cool-down a trial call finds the provider healthy.
    ethereum.set_behaviour(Behaviour::Healthy);
    eventually("the breaker closes", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(try_sign_in(&realm, contract, &sign).await);
        realm.metric("atoll_contract_breaker").await == 0.0
    })
    .await;
    sign_in_contract(&realm, contract, &sign).await;
    realm.interrupt();
    let (_, log) = tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT)).await.unwrap();
    for part in ["contract wallets are rejected", "is tried again", "contract wallets are accepted"] {
        assert!(log.contains(part), "{part}");
    }
    assert!(!log.contains(API_KEY), "the provider's key in the log");
}
