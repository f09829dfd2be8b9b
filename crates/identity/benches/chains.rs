//! Time that one core takes to verify the auth chain of a sign-in: `cargo bench -p identity`.

use std::time::{Duration, SystemTime};

use divan::{Bencher, counter::ItemsCount};
use identity::{Identity, Limits, Wallet, verify};

const CHALLENGE: &str = "dcl-00112233445566778899aabbccddeeff";

fn main() {
    divan::main();
}

fn wallet(seed: u8) -> Wallet {
    Wallet::from_secret([seed; 32]).expect("these bytes are a valid secret key")
}

fn bench(bencher: Bencher<'_, '_>, json: &str) {
    let (owner, limits, now) = (wallet(1).address(), Limits::default(), SystemTime::now());
    bencher
        .counter(ItemsCount::new(1u32))
        .bench(|| verify(divan::black_box(json), owner, CHALLENGE, &limits, now).expect("a valid chain"));
}

/// The wallet signs the challenge itself: one public key recovery. The reference for `three_links`.
#[divan::bench]
fn two_links(bencher: Bencher<'_, '_>) {
    bench(bencher, &wallet(1).sign_challenge(CHALLENGE));
}

/// The usual sign-in with an ephemeral key: two public key recoveries.
#[divan::bench]
fn three_links(bencher: Bencher<'_, '_>) {
    let expiration = SystemTime::now() + Duration::from_secs(86_400);
    bench(bencher, &Identity::new(&wallet(1), wallet(2), expiration).sign_challenge(CHALLENGE));
}
