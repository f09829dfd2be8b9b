//! Contract wallets against a local HTTP provider: caching, circuit breaker, deadlines, backoff and budgets.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    http::{StatusCode, header},
    response::AppendHeaders,
    routing::post,
};
use protocol::Address;
use tokio::net::TcpListener;

use super::*;

/// A provider that gives this answer after a delay, and counts its requests.
async fn provider(answer: &'static str, after: Duration) -> (String, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let answer = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            time::sleep(after).await;
            answer
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v3/key", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v3/key", post(answer))).await });
    (url, calls)
}

fn settings(rpc_url: String) -> ContractSettings {
    ContractSettings {
        rpc_url,
        deadline: Duration::from_secs(5),
        max_concurrent_checks: 2,
        cache_entries: 9,
        valid_ttl: Duration::from_secs(60),
        invalid_ttl: Duration::from_secs(60),
        failures_to_open: 2,
        cool_down: Duration::from_secs(60),
        per_network_per_hour: 0,
        per_day: 0,
    }
}

/// The network of the client, unless a test uses another.
fn client_network() -> Network {
    Network::from_ip([127, 0, 0, 1].into(), 64)
}

fn signed(signature: u8) -> [ContractSignature; 1] {
    let (contract, message) = (Address::new([1; 20]), "dcl-x".to_owned());
    [ContractSignature { link: 1, contract, message, signature: vec![signature] }]
}

const YES: &str = r#"{"result":"0x1626ba7e00000000000000000000000000000000000000000000000000000000"}"#;
const NO: &str = r#"{"error":{"code":3,"message":"execution reverted"}}"#;

#[tokio::test]
async fn both_answers_are_cached() {
    let (url, calls) = provider(YES, Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    for _ in 0..3 {
        assert_eq!(contracts.first_invalid(&signed(1), client_network()).await, Ok(None));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the first digest was accepted");
    let (url, calls) = provider(NO, Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    for _ in 0..3 {
        assert_eq!(contracts.first_invalid(&signed(1), client_network()).await, Ok(Some(1)));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2, "one request for each digest");
    assert_eq!(contracts.first_invalid(&signed(2), client_network()).await, Ok(Some(1)));
    assert_eq!(calls.load(Ordering::Relaxed), 4, "another signature is checked again");
}

#[tokio::test]
async fn breaker_opens_on_failures_and_not_on_invalid_answers() {
    let (url, calls) = provider("<html>bad gateway</html>", Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    for error in
        [ContractError::Failed, ContractError::Failed, ContractError::BreakerOpen, ContractError::BreakerOpen]
    {
        assert_eq!(contracts.first_invalid(&signed(1), client_network()).await, Err((1, error)));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let (url, calls) = provider(NO, Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    for signature in 0..9 {
        assert_eq!(contracts.first_invalid(&signed(signature), client_network()).await, Ok(Some(1)));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 18);
}

#[tokio::test]
async fn unclear_answer_is_neither_cached_nor_a_failure() {
    let answer = r#"{"error":{"code":-32000,"message":"bad elliptic curve pairing size"}}"#;
    let (url, calls) = provider(answer, Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    for _ in 0..5 {
        assert_eq!(
            contracts.first_invalid(&signed(1), client_network()).await,
            Err((1, ContractError::Failed))
        );
    }
    assert_eq!(calls.load(Ordering::Relaxed), 5, "neither cached nor counted as a failure");
}

#[tokio::test]
async fn precompiled_contract_is_invalid_without_a_call() {
    let (url, calls) = provider(YES, Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    for last in [[0, 0], [0, 8], [1, 0], [0xff, 0xff]] {
        let mut bytes = [0; 20];
        bytes[18..].copy_from_slice(&last);
        let [mut signature] = signed(1);
        signature.contract = Address::new(bytes);
        assert_eq!(contracts.first_invalid(&[signature], client_network()).await, Ok(Some(1)));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn slow_provider_times_out_and_waiting_call_is_busy() {
    let (url, calls) = provider(YES, Duration::from_secs(60)).await;
    let deadline = Duration::from_millis(200);
    let settings =
        ContractSettings { deadline, max_concurrent_checks: 1, failures_to_open: 9, ..settings(url) };
    let contracts = ContractVerifier::new(settings);
    let (one, two) = (signed(1), signed(2));
    let (first, second) = tokio::join!(
        contracts.first_invalid(&one, client_network()),
        contracts.first_invalid(&two, client_network())
    );
    assert_eq!(first, Err((1, ContractError::Timeout)));
    assert!(matches!(second, Err((1, ContractError::Busy | ContractError::Timeout))), "{second:?}");
    assert!(calls.load(Ordering::Relaxed) <= 2);
    assert_eq!(contracts.0.check_slots.available_permits(), 1, "the slot is free again");
}

#[tokio::test]
async fn cancelled_trial_is_repeated_by_the_next_call() {
    let (url, _) = provider(YES, Duration::from_secs(60)).await;
    let settings = ContractSettings { failures_to_open: 1, cool_down: Duration::ZERO, ..settings(url) };
    let contracts = ContractVerifier::new(settings);
    with_breaker(&contracts.0.breaker, |breaker| {
        let permit = breaker.try_acquire(Instant::now()).unwrap();
        breaker.record(&permit, Outcome::Failure, Instant::now());
    });
    let signatures = signed(1);
    let trial = contracts.first_invalid(&signatures, client_network());
    assert!(time::timeout(Duration::from_millis(100), trial).await.is_err(), "the call hangs");
    let breaker = contracts.0.breaker.lock();
    assert!(!breaker.is_open(Instant::now()));
}

#[tokio::test]
async fn debug_output_hides_the_provider_url() {
    let (url, _) = provider(YES, Duration::ZERO).await;
    let contracts = ContractVerifier::new(settings(url));
    assert!(!format!("{contracts:?}").contains("key"));
}

/// A provider that gives each of these answers as many times as its count, in order.
async fn changing_provider(
    answers: &'static [(usize, StatusCode, Option<&'static str>, &'static str)],
) -> (String, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let answer = move || {
        let mut number = counter.fetch_add(1, Ordering::Relaxed);
        let mut answers = answers.iter();
        let answer = loop {
            match answers.next() {
                Some((count, ..)) if number >= *count => number -= count,
                answer => break answer.expect("an answer to each request"),
            }
        };
        let &(_, status, retry_after, body) = answer;
        async move {
            let headers = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds)]);
            (status, headers.map(AppendHeaders), body)
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v3/key", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v3/key", post(answer))).await });
    (url, calls)
}

const LIMITED: &str = r#"{"error":{"code":-32005,"message":"daily request count exceeded"}}"#;

#[tokio::test]
async fn rate_limited_provider_is_paused_with_breaker_closed() {
    for (status, retry_after, body) in [
        (StatusCode::TOO_MANY_REQUESTS, Some("1"), "slow down"),
        (StatusCode::TOO_MANY_REQUESTS, None, LIMITED),
        (StatusCode::OK, None, LIMITED),
    ] {
        let answers = vec![
            (1, StatusCode::OK, None, YES),
            (1, status, retry_after, body),
            (9, StatusCode::OK, None, YES),
        ];
        let (url, calls) = changing_provider(answers.leak()).await;
        // A single failure would open the breaker.
        let contracts = ContractVerifier::new(ContractSettings { failures_to_open: 1, ..settings(url) });
        assert_eq!(contracts.first_invalid(&signed(1), client_network()).await, Ok(None));
        let refused = Instant::now();
        for _ in 0..5 {
            assert_eq!(
                contracts.first_invalid(&signed(2), client_network()).await,
                Err((1, ContractError::RateLimited))
            );
        }
        assert_eq!(
            contracts.first_invalid(&signed(1), client_network()).await,
            Ok(None),
            "cached answers are still used"
        );
        assert_eq!(calls.load(Ordering::Relaxed), 2, "the provider is not called during the pause");
        let answered = async {
            while contracts.first_invalid(&signed(2), client_network()).await != Ok(None) {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(Duration::from_secs(20), answered).await.expect("the provider is called again");
        assert!(refused.elapsed() >= Duration::from_millis(900), "after the pause");
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }
}

#[tokio::test]
async fn calls_over_the_budget_fail_and_cached_answers_are_free() {
    let (url, calls) = provider(YES, Duration::ZERO).await;
    let budget = ContractSettings { per_network_per_hour: 2, per_day: 3 * 24, ..settings(url) };
    let contracts = ContractVerifier::new(budget);
    let elsewhere = |last| Network::from_ip([10, 0, 0, last].into(), 64);
    for signature in 1..=2 {
        assert_eq!(contracts.first_invalid(&signed(signature), client_network()).await, Ok(None));
    }
    let over = contracts.first_invalid(&signed(3), client_network()).await;
    assert_eq!(over, Err((1, ContractError::NetworkBudget)));
    assert_eq!(contracts.first_invalid(&signed(1), client_network()).await, Ok(None));
    assert_eq!(contracts.first_invalid(&signed(3), elsewhere(1)).await, Ok(None), "another network");
    let over = contracts.first_invalid(&signed(4), elsewhere(2)).await;
    assert_eq!(over, Err((1, ContractError::DayBudget)));
    assert_eq!(contracts.first_invalid(&signed(3), client_network()).await, Ok(None));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}
