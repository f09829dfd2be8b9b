//! dcl-rpc, the server's side: no input causes a panic, nothing grows beyond the limits, and every
//! output can be decoded.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::{Message, dcl_rpc::Header};
use rpc::{Connection, ErrorCode, Event, Limits, Module, Procedure};

const LIMITS: Limits = Limits { ports: 3, calls: 4 };

static PLAZA: Module<u8> = Module {
    name: "Plaza",
    procedures: &[Procedure { name: "Greet", id: 0 }, Procedure { name: "Listen", id: 1 }],
};
static CASINO: Module<u8> = Module { name: "Casino", procedures: &[Procedure { name: "Bet", id: 2 }] };

fuzz_target!(|data: &[u8]| {
    let Some((&answers, mut rest)) = data.split_first() else { return };
    let mut connection = Connection::new(LIMITS, [&PLAZA]);
    let mut open = 0usize;
    // Each message is preceded by its length.
    while let Some((&length, after)) = rest.split_first() {
        let (message, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let _ = connection.receive(&Bytes::copy_from_slice(message));
        if length == 255 {
            connection.offer([&CASINO]);
        }
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Called { number, procedure, payload } => {
                    open += 1;
                    assert!(open <= LIMITS.calls, "more calls than may be");
                    let answer = (u32::from(answers) + number + u32::from(procedure)) % 4;
                    open -= usize::from(answer < 2);
                    match answer {
                        0 => connection.respond(number, payload),
                        1 => connection.refuse(number, ErrorCode::Refused, "no"),
                        2 => connection.open_stream(number),
                        _ => {}
                    }
                }
                Event::Ended { .. } => open -= 1,
            }
        }
        for number in connection.requested_streams().collect::<Vec<_>>() {
            connection.send_element(number, Bytes::from_static(b"element"));
        }
        let mut written = 0;
        while let Some(output) = connection.poll_output() {
            let header = Header::decode(output).expect("what goes out can be read");
            assert_ne!(header.message_identifier, 0);
            written += 1;
        }
        assert!(written <= 2 + 2 * LIMITS.calls, "an answer without a question");
    }
});
