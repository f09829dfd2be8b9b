//! The cases of the Autobahn test suite that apply to a server for binary messages without extensions, under
//! the numbers of the suite.
//!
//! Families 1.1 and 6 do not apply: they exchange text, and a text frame is rejected with 1003 regardless of
//! its bytes. Families 12 and 13 do not apply: there is no compression. Families 9 and 10 measure speed and
//! messages above the limit of 64 KiB that is set here. Where the suite uses text for a case that is not
//! about text (families 3, 4, 5 and 7), the case uses binary messages here.
//!
//! The suite has variants of a case that differ only in how the bytes are cut; here each case runs whole, in
//! parts of 997 bytes and byte by byte.

// Test helpers outside of test functions fail by panicking, too.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task,
};
use ws::{
    FrameError, OpCode, ReadError, Received, Socket, close_answer, close_frame,
    testing::{BINARY, CLOSE, FIRST_FRAGMENT, FRAGMENT, LAST_FRAGMENT, PING, PONG, client_frame},
};

const MAX_MESSAGE: usize = 65_536;
/// Long enough for a busy machine; no test waits for it to expire.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The frames that the client sends and the frames that the server must reply with, each as first byte and
/// payload.
struct Case {
    number: String,
    sent: Vec<(u8, Vec<u8>)>,
    answered: Vec<(u8, Vec<u8>)>,
}

fn case(number: impl Into<String>, sent: &[(u8, &[u8])], answered: &[(u8, &[u8])]) -> Case {
    let owned = |frames: &[(u8, &[u8])]| frames.iter().map(|(first, load)| (*first, load.to_vec())).collect();
    Case { number: number.into(), sent: owned(sent), answered: owned(answered) }
}

/// The server's close frame with this code.
macro_rules! closed {
    ($code:expr) => {
        (CLOSE, &u16::to_be_bytes($code)[..])
    };
}

const FAILED: (u8, &[u8]) = (CLOSE, &1002u16.to_be_bytes());
const FIRST: &[u8] = b"one";
const SECOND: &[u8] = b"two";
const JOINED: &[u8] = b"onetwo";

/// 1.2: binary messages of every length encoding.
fn payload_sizes() -> Vec<Case> {
    let sizes = [0, 125, 126, 127, 128, 65_535, 65_536];
    let whole = sizes.iter().enumerate().map(|(index, size)| {
        let payload = vec![0xfe; *size];
        case(format!("1.2.{} and its variants", index + 1), &[(BINARY, &payload)], &[(BINARY, &payload)])
    });
    let too_big = vec![0xfe; MAX_MESSAGE + 1];
    let refused = [
        case("over the limit", &[(BINARY, &too_big)], &[closed!(1009)]),
        case(
            "over the limit in fragments",
            &[(FIRST_FRAGMENT, &too_big[1..]), (LAST_FRAGMENT, b"x")],
            &[closed!(1009)],
        ),
        case("text", &[(0x81, b"text")], &[closed!(1003)]),
    ];
    whole.chain(refused).collect()
}

/// 2: pings and pongs.
fn pings() -> Vec<Case> {
    let (longest, too_long) = ([0xfe; 125], [0xfe; 126]);
    let ten: Vec<[u8; 1]> = (0..10).map(|number| [number]).collect();
    let frames = |first| ten.iter().map(|payload| (first, &payload[..])).collect::<Vec<_>>();
    vec![
        case("2.1", &[(PING, b"")], &[(PONG, b"")]),
        case("2.2", &[(PING, b"Are you there?")], &[(PONG, b"Are you there?")]),
        case("2.3", &[(PING, b"\x00\xff\xfe\xfd")], &[(PONG, b"\x00\xff\xfe\xfd")]),
        case("2.4, 2.6", &[(PING, &longest)], &[(PONG, &longest)]),
        case("2.5", &[(PING, &too_long)], &[FAILED]),
        case("2.7", &[(PONG, b"")], &[]),
        case("2.8", &[(PONG, b"not asked for")], &[]),
        case("2.9", &[(PONG, b"not asked for"), (PING, b"?")], &[(PONG, b"?")]),
        case("2.10, 2.11", &frames(PING), &frames(PONG)),
    ]
}

/// 3: reserved bits.
fn reserved_bits() -> Vec<Case> {
    let after_a_message = |number: &str, first: u8| {
        case(number, &[(BINARY, FIRST), (first, SECOND), (PING, b"")], &[(BINARY, FIRST), FAILED])
    };
    vec![
        case("3.1", &[(BINARY | 0x10, FIRST)], &[FAILED]),
        after_a_message("3.2", BINARY | 0x20),
        after_a_message("3.3", BINARY | 0x30),
        after_a_message("3.4", BINARY | 0x40),
        case("3.5", &[(BINARY | 0x50, b"\x00\xff")], &[FAILED]),
        case("3.6", &[(PING | 0x60, b"?")], &[FAILED]),
        case("3.7", &[(CLOSE | 0x70, b"")], &[FAILED]),
    ]
}

/// 4: reserved opcodes.
fn reserved_opcodes() -> Vec<Case> {
    let family = |family: &'static str, first_opcode: u8| {
        (0..5).map(move |index| {
            let first = 0x80 | (first_opcode + index);
            let payload: &[u8] = if index % 2 == 0 { b"" } else { b"reserved" };
            let sent = [(BINARY, FIRST), (first, payload), (PING, b"")];
            // The first two cases of the suite send the reserved frame first.
            match index {
                0 | 1 => case(format!("{family}.{}", index + 1), &sent[1..], &[FAILED]),
                _ => case(format!("{family}.{}", index + 1), &sent, &[(BINARY, FIRST), FAILED]),
            }
        })
    };
    family("4.1", 3).chain(family("4.2", 11)).collect()
}

/// 5: fragments.
fn fragments() -> Vec<Case> {
    let stray_then_message =
        |numbers: &str, first: u8| case(numbers, &[(first, b"stray"), (BINARY, FIRST)], &[FAILED]);
    let message_in_five = [
        (FIRST_FRAGMENT, &b"a"[..]),
        (FRAGMENT, b"b"),
        (PING, b"1"),
        (FRAGMENT, b"c"),
        (FRAGMENT, b"d"),
        (PING, b"2"),
        (LAST_FRAGMENT, b"e"),
    ];
    vec![
        case("5.1", &[(PING & 0x7f, FIRST), (LAST_FRAGMENT, SECOND)], &[FAILED]),
        case("5.2", &[(PONG & 0x7f, FIRST), (LAST_FRAGMENT, SECOND)], &[FAILED]),
        case("5.3 to 5.5", &[(FIRST_FRAGMENT, FIRST), (LAST_FRAGMENT, SECOND)], &[(BINARY, JOINED)]),
        case(
            "5.6 to 5.8",
            &[(FIRST_FRAGMENT, FIRST), (PING, b"?"), (LAST_FRAGMENT, SECOND)],
            &[(PONG, b"?"), (BINARY, JOINED)],
        ),
        stray_then_message("5.9 to 5.11", LAST_FRAGMENT),
        stray_then_message("5.12 to 5.14", FRAGMENT),
        case(
            "5.15",
            &[(FIRST_FRAGMENT, FIRST), (LAST_FRAGMENT, SECOND), (FRAGMENT, b"stray"), (BINARY, FIRST)],
            &[(BINARY, JOINED), FAILED],
        ),
        case("5.16", &[(FRAGMENT, b"stray"), (FIRST_FRAGMENT, FIRST), (LAST_FRAGMENT, SECOND)], &[FAILED]),
        case(
            "5.17",
            &[(LAST_FRAGMENT, b"stray"), (FIRST_FRAGMENT, FIRST), (LAST_FRAGMENT, SECOND)],
            &[FAILED],
        ),
        case("5.18", &[(FIRST_FRAGMENT, FIRST), (FIRST_FRAGMENT, SECOND)], &[FAILED]),
        case("5.18 with a whole message", &[(FIRST_FRAGMENT, FIRST), (BINARY, SECOND)], &[FAILED]),
        case("5.19, 5.20", &message_in_five, &[(PONG, b"1"), (PONG, b"2"), (BINARY, b"abcde")]),
        case(
            "fragments without data",
            &[(FIRST_FRAGMENT, b""), (FRAGMENT, b""), (FRAGMENT, b""), (LAST_FRAGMENT, b"")],
            &[(BINARY, b"")],
        ),
    ]
}

/// 7: closing.
fn closing() -> Vec<Case> {
    let close = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    let normal = close(1000, b"");
    let largest = vec![0xfe; MAX_MESSAGE];
    let mut cases = vec![
        case("7.1.1", &[(BINARY, FIRST), (CLOSE, &normal)], &[(BINARY, FIRST), closed!(1000)]),
        case("7.1.2", &[(CLOSE, &normal), (CLOSE, &normal)], &[closed!(1000)]),
        case("7.1.3", &[(CLOSE, &normal), (PING, b"")], &[closed!(1000)]),
        case("7.1.4", &[(CLOSE, &normal), (BINARY, FIRST)], &[closed!(1000)]),
        case(
            "7.1.5",
            &[(FIRST_FRAGMENT, FIRST), (CLOSE, &normal), (LAST_FRAGMENT, SECOND)],
            &[closed!(1000)],
        ),
        case(
            "7.1.6 (largest message)",
            &[(BINARY, &largest), (BINARY, FIRST), (CLOSE, &normal), (PING, b"")],
            &[(BINARY, &largest), (BINARY, FIRST), closed!(1000)],
        ),
        case("7.3.1", &[(CLOSE, b"")], &[closed!(1000)]),
        case("7.3.2", &[(CLOSE, b"\x03")], &[FAILED]),
        case("7.3.3", &[(CLOSE, &normal)], &[closed!(1000)]),
        case("7.3.4", &[(CLOSE, &close(1000, b"done"))], &[closed!(1000)]),
        case("7.3.5", &[(CLOSE, &close(1000, &[b'*'; 123]))], &[closed!(1000)]),
        case("7.3.6", &[(CLOSE, &close(1000, &[b'*'; 124]))], &[FAILED]),
        case("7.5.1", &[(CLOSE, &close(1000, b"\xce\xba\xed\xa0\x80"))], &[closed!(1007)]),
    ];
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    cases.extend(valid.iter().enumerate().map(|(index, code)| {
        case(format!("7.7.{}", index + 1), &[(CLOSE, &close(*code, b""))], &[closed!(*code)])
    }));
    let invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    cases.extend(
        invalid.iter().enumerate().map(|(index, code)| {
            case(format!("7.9.{}", index + 1), &[(CLOSE, &close(*code, b""))], &[FAILED])
        }),
    );
    cases.extend(
        [5000, 65_535].iter().enumerate().map(|(index, code)| {
            case(format!("7.13.{}", index + 1), &[(CLOSE, &close(*code, b""))], &[FAILED])
        }),
    );
    cases
}

/// Echoes messages until the client closes the connection or violates the protocol.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut socket = Socket::new(stream, MAX_MESSAGE);
    let close = loop {
        let sent = match socket.next().await {
            Ok(Received::Binary(message)) => socket.send(OpCode::Binary, &message, TIMEOUT).await,
            Ok(Received::Ping(payload)) => socket.send(OpCode::Pong, &payload, TIMEOUT).await,
            Ok(Received::Fragment | Received::Pong) => Ok(()),
            Ok(Received::Text) => break close_frame(1003, ""),
            Ok(Received::Close(code)) => break close_answer(code),
            Err(ReadError::Frame(error)) => break close_frame(FrameError::code(error), ""),
            Err(ReadError::Disconnected) => return,
        };
        sent.expect("the client reads");
    };
    socket.close(&close, TIMEOUT).await;
}

async fn run(case: Case) {
    let Case { number, sent, answered } = case;
    let sent: Vec<u8> = sent.iter().flat_map(|(first, payload)| client_frame(*first, payload)).collect();
    for part in [usize::MAX, 997, 1] {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let serving = tokio::spawn(serve(server));
        let (mut reading, mut writing) = tokio::io::split(client);
        for bytes in sent.chunks(part.min(sent.len())) {
            writing.write_all(bytes).await.unwrap();
            task::yield_now().await;
        }
        writing.shutdown().await.unwrap();
        serving.await.unwrap();
        let mut bytes = Vec::new();
        reading.read_to_end(&mut bytes).await.unwrap();
        let expected: Vec<u8> =
            answered.iter().flat_map(|(first, load)| server_frame(*first, load)).collect();
        assert!(bytes == expected, "{number}, in parts of {part}: {} bytes answered", bytes.len());
    }
}

fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        length @ 0..=125 => vec![length as u8],
        length @ 126..=0xffff => [&[126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&[first][..], &length, payload].concat()
}

#[tokio::test]
async fn family_1_2_payload_sizes() {
    for case in payload_sizes() {
        run(case).await;
    }
}

#[tokio::test]
async fn family_2_pings_and_pongs() {
    for case in pings() {
        run(case).await;
    }
}

#[tokio::test]
async fn family_3_reserved_bits() {
    for case in reserved_bits() {
        run(case).await;
    }
}

#[tokio::test]
async fn family_4_reserved_opcodes() {
    for case in reserved_opcodes() {
        run(case).await;
    }
}

#[tokio::test]
async fn family_5_fragments() {
    for case in fragments() {
        run(case).await;
    }
}

#[tokio::test]
async fn family_7_closing() {
    for case in closing() {
        run(case).await;
    }
}
