//! Tests of the server's side: exact bytes, and arbitrary bytes.

use hex::FromHex;
use proptest::prelude::*;

use super::*;
use crate::Procedure;

static PLAZA: Module<char> = Module {
    name: "Plaza",
    procedures: &[Procedure { name: "Greet", id: 'g' }, Procedure { name: "Listen", id: 'l' }],
};
static CASINO: Module<char> = Module { name: "Casino", procedures: &[Procedure { name: "Bet", id: 'b' }] };

const LIMITS: Limits = Limits { ports: 2, calls: 3 };

/// Bytes from hex digits, with spaces between the fields.
fn hex(digits: &str) -> Bytes {
    Vec::from_hex(digits.replace(' ', "")).unwrap().into()
}

fn outputs(connection: &mut Connection<char>) -> Vec<String> {
    std::iter::from_fn(|| connection.poll_output()).map(hex::encode).collect()
}

/// Receives a message and returns the messages to write.
fn outputs_after(connection: &mut Connection<char>, message: &str) -> Vec<String> {
    connection.receive(&hex(message)).unwrap();
    outputs(connection)
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.replace(' ', "")).collect()
}

/// A connection with one port that has loaded `Plaza`.
fn open() -> Connection<char> {
    let mut connection = Connection::new(LIMITS, [&PLAZA]);
    assert_eq!(outputs(&mut connection), lines(&["0d 00000058"]), "SERVER_READY");
    let created = outputs_after(&mut connection, "0d 01000028 22 01 70");
    assert_eq!(created, lines(&["0d 01000030 15 01000000"]));
    let loaded = outputs_after(&mut connection, "0d 02000038 15 01000000 22 05 506c617a61");
    let greet = "2a 0c 0d 01000000 12 05 4772656574";
    let listen = "2a 0d 0d 02000000 12 06 4c697374656e";
    assert_eq!(loaded, [format!("0d020000401501000000{greet}{listen}").replace(' ', "")]);
    connection
}

const GREET: &str = "0d 03000008 15 01000000 25 01000000 32 02 6869";
const LISTEN: &str = "0d 04000008 15 01000000 25 02000000";

#[test]
fn call_is_answered_once_under_its_number() {
    let mut connection = open();
    assert!(outputs_after(&mut connection, GREET).is_empty());
    let called = Event::Called { number: 3, procedure: 'g', payload: "hi".into() };
    assert_eq!(connection.poll_event(), Some(called));
    connection.respond(3, "yo".into());
    connection.respond(3, "once only".into());
    connection.refuse(3, ErrorCode::Refused, "too late");
    assert_eq!(outputs(&mut connection), lines(&["0d 03000010 32 02 796f"]));
    outputs_after(&mut connection, GREET);
    connection.refuse(3, ErrorCode::Refused, "no");
    assert_eq!(outputs(&mut connection), lines(&["0d 03000048 15 07000000 1a 02 6e6f"]));
}

#[test]
fn stream_sends_one_element_per_acknowledgement() {
    let mut connection = open();
    outputs_after(&mut connection, LISTEN);
    connection.open_stream(4);
    assert_eq!(outputs(&mut connection), lines(&["0d 04000018 15 01000000"]), "the offer");
    connection.send_element(4, "unasked".into());
    assert_eq!(outputs(&mut connection), lines(&[]));
    let ack = |sequence: u8| hex(&format!("0d 04000020 15 01000000 25 0{sequence}000000 40 01"));
    let first = Bytes::from_static(b"\x0d\x04\0\0\x20\x15\x01\0\0\0\x40\x01");
    assert_eq!(connection.receive(&first), Ok(MessageKind::Acknowledged));
    assert_eq!(connection.receive(&first), Ok(MessageKind::Other), "requested twice");
    assert_eq!(connection.requested_streams().collect::<Vec<_>>(), [4]);
    connection.send_element(4, "a".into());
    connection.send_element(4, "unasked".into());
    assert_eq!(outputs(&mut connection), lines(&["0d 04000018 15 01000000 25 01000000 32 01 61"]));
    assert_eq!(connection.receive(&first), Ok(MessageKind::Other), "an old acknowledgement");
    assert_eq!(connection.requested_streams().count(), 0);
    assert_eq!(connection.receive(&ack(1)), Ok(MessageKind::Acknowledged));
    connection.send_element(4, Bytes::new());
    assert_eq!(outputs(&mut connection), lines(&["0d 04000018 15 01000000 25 02000000"]));
    connection.end_stream(4);
    assert_eq!(outputs(&mut connection), lines(&["0d 04000018 15 01000000 25 02000000 38 01"]));
    assert_eq!(connection.receive(&ack(2)), Ok(MessageKind::Other), "late, and no error");
    assert_eq!(outputs(&mut connection), lines(&[]));
}

#[test]
fn client_ends_a_stream_with_message_or_acknowledgement() {
    for kind in ["18", "20"] {
        let mut connection = open();
        outputs_after(&mut connection, LISTEN);
        connection.poll_event();
        connection.open_stream(4);
        outputs(&mut connection);
        assert_eq!(outputs_after(&mut connection, &format!("0d 040000{kind} 15 01000000 38 01")), lines(&[]));
        assert_eq!(connection.poll_event(), Some(Event::Ended { number: 4 }));
        assert!(connection.calls.is_empty());
    }
}

#[test]
fn destroyed_port_ends_its_calls_and_streams() {
    let mut connection = open();
    outputs_after(&mut connection, LISTEN);
    connection.open_stream(4);
    outputs(&mut connection);
    connection.poll_event();
    assert_eq!(
        outputs_after(&mut connection, "0d 00000050 15 01000000"),
        lines(&["0d 04000018 15 01000000 38 01"])
    );
    assert_eq!(connection.poll_event(), Some(Event::Ended { number: 4 }));
    assert!(connection.ports.is_empty() && connection.calls.is_empty());
}

/// The number and the code of the only response, which is an error.
fn error(connection: &mut Connection<char>, message: &str) -> (u32, u32) {
    let answer = outputs_after(connection, message);
    assert_eq!(answer.len(), 1, "{message}");
    let bytes = Vec::from_hex(&answer[0]).unwrap();
    let error = <protocol::dcl_rpc::RemoteError as protocol::Message>::decode(&bytes[..]).unwrap();
    assert_eq!(error.message_identifier >> 27, 9, "{message}");
    assert!(!error.error_message.is_empty());
    (error.message_identifier & 0x07ff_ffff, error.error_code)
}

#[test]
fn invalid_message_is_answered_with_an_error() {
    let mut connection = open();
    for (message, number, code) in [
        ("0d 02000038 15 09000000 22 05 506c617a61", 2, ErrorCode::UnknownPort),
        ("0d 02000038 15 01000000 22 06 436173696e6f", 2, ErrorCode::UnknownModule),
        ("0d 03000008 15 09000000 25 01000000", 3, ErrorCode::UnknownPort),
        ("0d 03000008 15 01000000 25 03000000", 3, ErrorCode::UnknownProcedure),
        ("0d 03000008 15 01000000", 3, ErrorCode::UnknownProcedure),
        ("0d 03000008 15 01000000 25 01000000 2d 07000000", 3, ErrorCode::BadPayload),
        ("0d 00000050 15 09000000", 0, ErrorCode::UnknownPort),
        // Field 4 of a request is a number, not a string.
        ("0d 03000008 15 01000000 22 01 70", 3, ErrorCode::BadPayload),
        ("0d 05000018 15 01000000 32 01 61", 5, ErrorCode::Unexpected),
        ("0d 05000010 32 01 61", 5, ErrorCode::Unexpected),
        ("0d 050000f8", 5, ErrorCode::Unexpected),
        ("", 0, ErrorCode::Unexpected),
    ] {
        assert_eq!(error(&mut connection, message), (number, code as u32), "{message}");
    }
    assert_eq!(
        outputs_after(&mut connection, "0d 05000048"),
        lines(&[]),
        "an error is not answered with one"
    );
    assert_eq!(connection.receive(&hex("0d 01")), Err(Undecodable));
}

#[test]
fn ports_and_calls_stay_within_their_limits() {
    let mut connection = open();
    assert_eq!(outputs_after(&mut connection, "0d 01000028"), lines(&["0d 01000030 15 02000000"]));
    assert_eq!(error(&mut connection, "0d 01000028"), (1, ErrorCode::LimitReached as u32));
    for number in 3..6 {
        outputs_after(&mut connection, &GREET.replacen('3', &number.to_string(), 1));
    }
    assert_eq!(connection.calls.len(), 3);
    assert_eq!(error(&mut connection, GREET), (3, ErrorCode::Unexpected as u32), "the number is in use");
    let more = GREET.replacen('3', "6", 1);
    assert_eq!(error(&mut connection, &more), (6, ErrorCode::LimitReached as u32));
}

#[test]
fn procedure_ids_continue_after_earlier_modules() {
    let mut connection = open();
    connection.offer([&CASINO]);
    let bet = lines(&["0d 02000040 15 01000000 2a 0a 0d 03000000 12 03 426574"]);
    for _ in 0..2 {
        assert_eq!(outputs_after(&mut connection, "0d 02000038 15 01000000 22 06 436173696e6f"), bet);
    }
    outputs_after(&mut connection, "0d 03000008 15 01000000 25 03000000");
    assert!(matches!(connection.poll_event(), Some(Event::Called { procedure: 'b', .. })));
}

/// A well-formed message with small numbers, so that messages refer to each other; or arbitrary bytes.
fn messages() -> impl Strategy<Value = Bytes> {
    let fields = (0u32..32, 0u32..4, 0u32..4, 0u32..4, prop::collection::vec(any::<u8>(), 0..40));
    let formed = fields.prop_map(|(kind, number, port, third, tail)| {
        let mut bytes = vec![0x0d];
        bytes.extend((kind << 27 | number).to_le_bytes());
        bytes.push(0x15);
        bytes.extend(port.to_le_bytes());
        match kind {
            7 => bytes.extend(b"\x22\x05Plaza"),
            _ => {
                bytes.push(0x25);
                bytes.extend(third.to_le_bytes());
            }
        }
        match number {
            0 => bytes.extend([0x40, 1]),
            1 => bytes.extend([0x38, 1]),
            2 => bytes.extend(tail),
            _ => {}
        }
        Bytes::from(bytes)
    });
    prop_oneof![4 => formed, 1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_neither_panic_nor_exceed_the_bounds(
        messages in prop::collection::vec(messages(), 0..120),
        answers: u8,
    ) {
        let mut connection = Connection::new(LIMITS, [&PLAZA, &CASINO]);
        connection.poll_output();
        for message in messages {
            let _ = connection.receive(&message);
            prop_assert!(connection.output.len() <= 1 + LIMITS.calls);
            prop_assert!(connection.events.len() <= LIMITS.calls);
            while let Some(event) = connection.poll_event() {
                if let Event::Called { number, .. } = event {
                    match (u32::from(answers) + number) % 4 {
                        0 => connection.respond(number, "yes".into()),
                        1 => connection.refuse(number, ErrorCode::Refused, "no"),
                        2 => connection.open_stream(number),
                        _ => {}
                    }
                }
            }
            for number in connection.requested_streams().collect::<Vec<_>>() {
                connection.send_element(number, "element".into());
            }
            prop_assert!(connection.output.len() <= 2 * (1 + LIMITS.calls));
            while let Some(output) = connection.poll_output() {
                prop_assert!(frame::decode_client_message(&output).is_ok());
            }
            prop_assert!(connection.ports.len() <= LIMITS.ports && connection.calls.len() <= LIMITS.calls);
            prop_assert!(connection.ports.values().all(|loaded| loaded.len() <= 2));
        }
    }
}
