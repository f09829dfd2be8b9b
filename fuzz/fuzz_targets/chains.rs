//! Auth chains: no text panics, and none of those that the fuzzer can make is anybody's signature.

#![no_main]

use std::time::{Duration, SystemTime};

use identity::{Challenge, Limits};
use libfuzzer_sys::fuzz_target;
use protocol::Address;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let challenge = Challenge::new([7; 16]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let verified = identity::verify(text, Address::new([1; 20]), challenge.as_str(), &Limits::default(), now);
    assert!(verified.is_err());
});
