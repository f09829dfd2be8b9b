//! WebSocket frames, the server's side: arbitrary bytes, split anywhere, never cause a panic, decode to
//! the same frames however they are split, and yield no more payload than input.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ws::{Decoder, FrameError, Received};

const MAX_MESSAGE: usize = 1_000;

/// All frames, and the error after them. `parts` has the lengths of the parts, in a cycle.
fn decode(bytes: &[u8], parts: &[u8]) -> (Vec<Received>, Option<FrameError>) {
    let mut decoder = Decoder::new(MAX_MESSAGE);
    let (mut received, mut rest) = (Vec::new(), bytes);
    let mut lengths = parts.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |length| usize::from(*length).max(1));
        let (part, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        decoder.put(part);
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => received.push(frame),
                Ok(None) => break,
                Err(error) => return (received, Some(error)),
            }
        }
    }
    (received, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let (parts, bytes) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let (received, error) = decode(bytes, &[]);
    assert_eq!(decode(bytes, parts), (received.clone(), error), "cut differently");
    let mut payload = 0;
    for frame in &received {
        match frame {
            Received::Binary(message) => {
                assert!(message.len() <= MAX_MESSAGE);
                payload += message.len();
            }
            Received::Ping(message) => {
                assert!(message.len() <= 125);
                payload += message.len();
            }
            Received::Close(code) => {
                assert!(code.is_none_or(|code| (1000..5000).contains(&code) && !(1015..3000).contains(&code)));
            }
            Received::Fragment | Received::Text | Received::Pong => {}
        }
    }
    // Each frame has a header of six bytes or more.
    assert!(payload + 6 * received.len() <= bytes.len(), "more output than input");
});
