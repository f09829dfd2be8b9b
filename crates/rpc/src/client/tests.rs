//! Tests of the client's side: exact bytes, arbitrary bytes, and a simulation with the server's side.

use std::collections::BTreeMap;

use hex::FromHex;
use proptest::prelude::*;

use super::*;
use crate::{Connection, ErrorCode, Event as ServerEvent, Limits, Module, Procedure};

static PLAZA: Module<char> = Module {
    name: "Plaza",
    procedures: &[Procedure { name: "Greet", id: 'g' }, Procedure { name: "Listen", id: 'l' }],
};
static CASINO: Module<char> = Module { name: "Casino", procedures: &[Procedure { name: "Bet", id: 'b' }] };

const LIMITS: Limits = Limits { ports: 1, calls: 4 };

/// Bytes from hex digits, with spaces between the fields.
fn hex(digits: &str) -> Bytes {
    Vec::from_hex(digits.replace(' ', "")).unwrap().into()
}

/// Receives a message and returns the messages to write.
fn outputs_after(caller: &mut Caller, message: &str) -> Vec<String> {
    caller.receive(&hex(message)).unwrap();
    outputs(caller)
}

fn outputs(caller: &mut Caller) -> Vec<String> {
    std::iter::from_fn(|| caller.poll_output()).map(hex::encode).collect()
}

fn events(caller: &mut Caller) -> Vec<Event> {
    std::iter::from_fn(|| caller.poll_event()).collect()
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.replace(' ', "")).collect()
}

/// A caller with an open port that has loaded `Plaza`, after one answered call.
fn open() -> Caller {
    let mut caller = Caller::new(3);
    assert_eq!(caller.call("Plaza", "Greet", "hi".into()), Ok(1));
    assert_eq!(outputs(&mut caller), lines(&[]), "the server is not ready");
    assert_eq!(outputs_after(&mut caller, "0d 00000058"), lines(&["0d 02000028 22 06 636c69656e74"]));
    let load = "0d 03000038 15 09000000 22 05 506c617a61";
    assert_eq!(outputs_after(&mut caller, "0d 02000030 15 09000000"), lines(&[load]));
    let greet = "2a 0c 0d 05000000 12 05 4772656574";
    let listen = "2a 0d 0d 06000000 12 06 4c697374656e";
    let request = outputs_after(&mut caller, &format!("0d 03000040 15 09000000 {greet} {listen}"));
    assert_eq!(request, lines(&["0d 01000008 15 09000000 25 05000000 32 02 6869"]));
    assert_eq!(outputs_after(&mut caller, "0d 01000010 32 02 796f"), lines(&[]));
    assert_eq!(events(&mut caller), [Event::Answered { number: 1, payload: "yo".into() }]);
    caller
}

/// A caller with an open stream, call 4.
fn streaming() -> Caller {
    let mut caller = open();
    assert_eq!(caller.call("Plaza", "Listen", Bytes::new()), Ok(4));
    assert_eq!(outputs(&mut caller), lines(&["0d 04000008 15 09000000 25 06000000"]));
    assert_eq!(outputs_after(&mut caller, "0d 04000018 15 09000000"), lines(&[]));
    assert_eq!(events(&mut caller), [Event::Opened { number: 4 }]);
    caller
}

#[test]
fn stream_yields_one_element_per_request_until_it_ends() {
    let mut caller = streaming();
    caller.request_next(4);
    caller.request_next(4);
    assert_eq!(outputs(&mut caller), lines(&["0d 04000020 15 09000000 40 01"]), "requested once");
    outputs_after(&mut caller, "0d 04000018 15 09000000 25 01000000 32 01 61");
    assert_eq!(events(&mut caller), [Event::Element { number: 4, payload: "a".into() }]);
    caller.request_next(4);
    assert_eq!(outputs(&mut caller), lines(&["0d 04000020 15 09000000 25 01000000 40 01"]));
    let mut other = streaming();
    outputs_after(&mut caller, "0d 04000018 15 09000000 25 01000000 38 01");
    assert_eq!(events(&mut caller), [Event::Ended { number: 4 }]);
    other.cancel(4);
    assert_eq!(outputs(&mut other), lines(&["0d 04000018 15 09000000 38 01"]));
    // An element that was in flight when the stream ended is no violation.
    assert_eq!(outputs_after(&mut other, "0d 04000018 15 09000000 25 01000000 32 01 61"), lines(&[]));
    for caller in [&caller, &other] {
        assert!(caller.pending.len() == 0 && caller.pending.calls() == 0);
    }
}

#[test]
fn unanswered_call_can_be_cancelled() {
    let mut caller = open();
    let (sent, queued) =
        (caller.call("Plaza", "Listen", Bytes::new()), caller.call("Casino", "Bet", Bytes::new()));
    caller.cancel(queued.unwrap());
    caller.cancel(sent.unwrap());
    outputs(&mut caller);
    assert_eq!(
        outputs_after(&mut caller, "0d 04000018 15 09000000"),
        lines(&["0d 04000018 15 09000000 38 01"])
    );
    assert_eq!(events(&mut caller), []);
    // The module of the cancelled call is loaded nevertheless.
    outputs_after(&mut caller, "0d 06000040 15 09000000 2a 0a 0d 07000000 12 03 426574");
    assert!(caller.pending.len() == 0 && caller.pending.calls() == 0);
    assert_eq!(caller.call("Casino", "Bet", Bytes::new()), Ok(7));
    assert_eq!(outputs(&mut caller), lines(&["0d 07000008 15 09000000 25 07000000"]));
}

#[test]
fn server_error_is_reported_with_code_and_message() {
    let no = "15 07000000 1a 02 6e6f";
    let error = CallError { code: 7, message: "no".to_owned() };
    assert_eq!(error.to_string(), "no (error 7)");
    // The server refuses a call, a module (which it may offer later), and the port (which fails every call).
    let mut caller = open();
    caller.call("Plaza", "Greet", Bytes::new()).unwrap();
    outputs_after(&mut caller, &format!("0d 04000048 {no}"));
    assert_eq!(events(&mut caller), [Event::Failed { number: 4, error: error.clone() }]);
    caller.call("Casino", "Bet", Bytes::new()).unwrap();
    outputs(&mut caller);
    outputs_after(&mut caller, &format!("0d 06000048 {no}"));
    assert_eq!(events(&mut caller), [Event::Failed { number: 5, error: error.clone() }]);
    caller.call("Casino", "Bet", Bytes::new()).unwrap();
    assert_eq!(outputs(&mut caller), lines(&["0d 08000038 15 09000000 22 06 436173696e6f"]));
    let mut caller = Caller::new(2);
    let calls = ["Plaza", "Casino"].map(|module| caller.call(module, "Any", Bytes::new()).unwrap());
    assert_eq!(caller.call("Plaza", "Greet", Bytes::new()), Err(TooManyCalls));
    outputs_after(&mut caller, "0d 00000058");
    outputs_after(&mut caller, &format!("0d 03000048 {no}"));
    assert_eq!(events(&mut caller), calls.map(|number| Event::Failed { number, error: error.clone() }));
    assert!(caller.pending.len() == 0 && caller.pending.calls() == 0);
}

#[test]
fn unknown_procedure_fails_without_a_request() {
    let mut caller = open();
    caller.call("Plaza", "Dance", Bytes::new()).unwrap();
    assert_eq!(outputs(&mut caller), lines(&[]));
    let [Event::Failed { number: 4, error }] = &events(&mut caller)[..] else { panic!() };
    assert_eq!(error.message, "the server has no Plaza.Dance");
}

#[test]
fn invalid_server_message_is_a_violation() {
    use ProtocolViolation::*;
    for (message, violation) in [
        ("0d 01", Undecodable(crate::Undecodable)),
        ("0d 04000008", NotAServerMessage),
        ("0d 04000020 40 01", NotAServerMessage),
        ("0d 04000010 32 01 61", MismatchedResponse),
        ("0d 04000030", MismatchedResponse),
        ("0d 04000040", MismatchedResponse),
        ("0d 09000040", MismatchedResponse),
        ("0d 04000018 25 01000000 32 01 61", UnrequestedElement),
    ] {
        assert_eq!(streaming().receive(&hex(message)), Err(violation), "{message}");
    }
    let mut caller = streaming();
    caller.request_next(4);
    assert_eq!(caller.receive(&hex("0d 04000018 25 02000000")), Err(UnrequestedElement), "a gap");
    let mut caller = open();
    caller.call("Plaza", "Listen", Bytes::new()).unwrap();
    assert_eq!(caller.receive(&hex("0d 04000018 25 01000000")), Err(UnrequestedElement), "not offered");
    assert_eq!(open().receive(&hex("0d 04000010 32 01 61")), Ok(()), "of a call that has ended");
}

/// A step of the simulation, on either side or between them.
#[derive(Debug, Clone, Copy)]
enum Step {
    Call(&'static str, &'static str),
    Want(usize),
    End(usize),
    /// The oldest message in flight reaches the server or the client.
    ToServer,
    ToClient,
    Respond(usize),
    Refuse(usize),
    Open(usize),
    Element(usize),
    EndStream(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = prop_oneof![
        Just(Step::Call("Plaza", "Greet")),
        Just(Step::Call("Plaza", "Listen")),
        Just(Step::Call("Casino", "Bet")),
        Just(Step::Call("Nowhere", "Any"))
    ];
    let any = 0_usize..8;
    let step = prop_oneof![
        2 => call,
        4 => any.clone().prop_map(Step::Want),
        1 => any.clone().prop_map(Step::End),
        8 => Just(Step::ToServer),
        8 => Just(Step::ToClient),
        1 => any.clone().prop_map(Step::Respond),
        1 => any.clone().prop_map(Step::Refuse),
        3 => any.clone().prop_map(Step::Open),
        4 => any.clone().prop_map(Step::Element),
        1 => any.prop_map(Step::EndStream),
    ];
    prop::collection::vec(step, 0..300)
}

/// Both sides, and the messages in flight between them.
struct Simulation {
    caller: Caller,
    server: Connection<char>,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    /// The calls that the server has received and not answered.
    served: Vec<u32>,
    streams: Vec<u32>,
    /// The results of each call that the server sent. The client must receive them, unless it cancelled the
    /// call.
    sent: BTreeMap<u32, Vec<String>>,
    received: BTreeMap<u32, Vec<String>>,
    cancelled: Vec<u32>,
    called: Vec<u32>,
    elements: u32,
}

fn one_of(numbers: &[u32], index: usize) -> Option<u32> {
    (!numbers.is_empty()).then(|| numbers[index % numbers.len()])
}

impl Simulation {
    fn new() -> Self {
        let server = Connection::new(LIMITS, [&PLAZA, &CASINO]);
        Self {
            caller: Caller::new(LIMITS.calls),
            server,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            served: Vec::new(),
            streams: Vec::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            cancelled: Vec::new(),
            called: Vec::new(),
            elements: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call(module, procedure) => {
                self.called.extend(self.caller.call(module, procedure, Bytes::new()));
            }
            Step::Want(index) => {
                one_of(&self.called, index).into_iter().for_each(|number| self.caller.request_next(number));
            }
            Step::End(index) => {
                if let Some(number) = one_of(&self.called, index) {
                    self.caller.cancel(number);
                    self.cancelled.push(number);
                }
            }
            Step::ToServer => {
                if let Some(bytes) = self.to_server.pop_front() {
                    self.server.receive(&bytes).unwrap();
                }
            }
            Step::ToClient => {
                if let Some(bytes) = self.to_client.pop_front() {
                    self.caller.receive(&bytes).unwrap();
                }
            }
            Step::Respond(index) => self.answer(index, |server, number| {
                server.respond(number, "yes".into());
                "answered"
            }),
            Step::Refuse(index) => self.answer(index, |server, number| {
                server.refuse(number, ErrorCode::Refused, "no");
                "refused"
            }),
            Step::Open(index) => {
                if let Some(number) = one_of(&self.served, index) {
                    self.served.retain(|&served| served != number);
                    self.streams.push(number);
                    self.server.open_stream(number);
                    self.sent.entry(number).or_default().push("opened".to_owned());
                }
            }
            Step::Element(index) => {
                let mut requested: Vec<u32> = self.server.requested_streams().collect();
                requested.sort_unstable();
                if let Some(number) = one_of(&requested, index) {
                    self.elements += 1;
                    self.server.send_element(number, self.elements.to_string().into());
                    self.sent.entry(number).or_default().push(self.elements.to_string());
                }
            }
            Step::EndStream(index) => {
                if let Some(number) = one_of(&self.streams, index) {
                    self.streams.retain(|&stream| stream != number);
                    self.server.end_stream(number);
                    self.sent.entry(number).or_default().push("ended".to_owned());
                }
            }
        }
        self.pump();
    }

    fn answer(&mut self, index: usize, answer: impl FnOnce(&mut Connection<char>, u32) -> &'static str) {
        if let Some(number) = one_of(&self.served, index) {
            self.served.retain(|&served| served != number);
            let result = answer(&mut self.server, number);
            self.sent.entry(number).or_default().push(result.to_owned());
        }
    }

    /// Moves the output of both sides into flight, and records their events.
    fn pump(&mut self) {
        self.to_server.extend(std::iter::from_fn(|| self.caller.poll_output()));
        self.to_client.extend(std::iter::from_fn(|| self.server.poll_output()));
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Called { number, .. } => self.served.push(number),
                ServerEvent::Ended { number } => {
                    self.served.retain(|&served| served != number);
                    self.streams.retain(|&stream| stream != number);
                }
            }
        }
        for event in events(&mut self.caller) {
            let (number, result) = match event {
                Event::Answered { number, .. } => (number, "answered".to_owned()),
                Event::Failed { number, .. } => (number, "refused".to_owned()),
                Event::Opened { number } => (number, "opened".to_owned()),
                Event::Ended { number } => (number, "ended".to_owned()),
                Event::Element { number, payload } => (number, String::from_utf8(payload.to_vec()).unwrap()),
            };
            assert!(!self.cancelled.contains(&number), "an event of the cancelled call {number}");
            self.received.entry(number).or_default().push(result);
        }
    }

    /// Delivers all messages in flight.
    fn deliver(&mut self) {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.step(Step::ToServer);
            self.step(Step::ToClient);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// For every interleaving of calls, responses and deliveries: neither side reports a violation, the
    /// client receives each result that the server sent once and in order, and in the end neither side holds
    /// a call that the other has ended.
    #[test]
    fn client_and_server_agree_under_any_interleaving(steps in steps()) {
        let mut simulation = Simulation::new();
        simulation.pump();
        for step in steps {
            simulation.step(step);
            prop_assert!(simulation.caller.pending.calls() <= LIMITS.calls);
        }
        simulation.deliver();
        for &number in &simulation.called {
            let sent = simulation.sent.get(&number).cloned().unwrap_or_default();
            let received = simulation.received.get(&number).cloned().unwrap_or_default();
            match simulation.cancelled.contains(&number) {
                // A call of a module that the server does not offer fails without reaching the server.
                _ if sent.is_empty() && received == ["refused"] => {}
                true => prop_assert!(sent.starts_with(&received), "{number}: {sent:?}, {received:?}"),
                false => prop_assert_eq!(sent, received),
            }
        }
        // The client and then the server end every open call.
        simulation.cancelled.clear();
        for number in simulation.called.clone() {
            simulation.caller.cancel(number);
            simulation.cancelled.push(number);
        }
        simulation.pump();
        simulation.deliver();
        while !simulation.served.is_empty() {
            simulation.step(Step::Refuse(0));
        }
        simulation.deliver();
        prop_assert!(simulation.caller.pending.len() == 0 && simulation.caller.pending.calls() == 0);
        prop_assert!(simulation.streams.is_empty() && simulation.server.requested_streams().count() == 0);
    }

    #[test]
    fn any_bytes_neither_panic_nor_exceed_the_bounds(
        messages in prop::collection::vec(
            (0_u32..32, 0_u32..6, prop::collection::vec(any::<u8>(), 0..40)), 0..60
        ),
    ) {
        let mut caller = Caller::new(3);
        for (kind, number, tail) in messages {
            let _ = caller.call("Plaza", if number % 2 == 0 { "Greet" } else { "Listen" }, Bytes::new());
            let mut bytes = vec![0x0d];
            bytes.extend((kind << 27 | number).to_le_bytes());
            bytes.extend(tail);
            let _ = caller.receive(&bytes.into());
            caller.request_next(number);
            prop_assert!(caller.events.len() <= 4 && caller.output.len() <= 5);
            outputs(&mut caller);
            events(&mut caller);
            prop_assert!(caller.pending.len() <= 5);
        }
    }
}
