//! Exact bytes, any bytes at all, and the server's half on the other end.

use std::collections::BTreeMap;

use hex::FromHex;
use proptest::prelude::*;

use super::*;
use crate::{Connection, ErrorCode, Event as Asked, Limits, Module as Offered, Procedure};

static PLAZA: Offered<char> = Offered {
    name: "Plaza",
    procedures: &[Procedure { name: "Greet", id: 'g' }, Procedure { name: "Listen", id: 'l' }],
};
static CASINO: Offered<char> = Offered { name: "Casino", procedures: &[Procedure { name: "Bet", id: 'b' }] };

const LIMITS: Limits = Limits { ports: 1, calls: 4 };

/// Bytes from hex digits, with spaces between the fields.
fn hex(digits: &str) -> Bytes {
    Vec::from_hex(digits.replace(' ', "")).unwrap().into()
}

/// What is written after this message.
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

/// With its port, and `Plaza` loaded by a call that was answered.
fn open() -> Caller {
    let mut caller = Caller::new(3);
    assert_eq!(caller.call("Plaza", "Greet", "hi".into()), Ok(1));
    assert_eq!(outputs(&mut caller), lines(&[]), "the server is not ready");
    assert_eq!(outputs_after(&mut caller, "0d 00000058"), lines(&["0d 02000028 22 06 636c69656e74"]));
    let load = "0d 03000038 15 09000000 22 05 506c617a61";
    assert_eq!(outputs_after(&mut caller, "0d 02000030 15 09000000"), lines(&[load]));
    let greet = "2a 0c 0d 05000000 12 05 4772656574";
    let listen = "2a 0d 0d 06000000 12 06 4c697374656e";
    let asked = outputs_after(&mut caller, &format!("0d 03000040 15 09000000 {greet} {listen}"));
    assert_eq!(asked, lines(&["0d 01000008 15 09000000 25 05000000 32 02 6869"]));
    assert_eq!(outputs_after(&mut caller, "0d 01000010 32 02 796f"), lines(&[]));
    assert_eq!(events(&mut caller), [Event::Answered { number: 1, payload: "yo".into() }]);
    caller
}

/// A call that was answered with a stream.
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
    assert_eq!(outputs(&mut caller), lines(&["0d 04000020 15 09000000 40 01"]), "wanted once");
    outputs_after(&mut caller, "0d 04000018 15 09000000 25 01000000 32 01 61");
    assert_eq!(events(&mut caller), [Event::Element { number: 4, payload: "a".into() }]);
    caller.request_next(4);
    assert_eq!(outputs(&mut caller), lines(&["0d 04000020 15 09000000 25 01000000 40 01"]));
    let mut other = streaming();
    outputs_after(&mut caller, "0d 04000018 15 09000000 25 01000000 38 01");
    assert_eq!(events(&mut caller), [Event::Ended { number: 4 }]);
    other.cancel(4);
    assert_eq!(outputs(&mut other), lines(&["0d 04000018 15 09000000 38 01"]));
    // What was under way is late, and no violation.
    assert_eq!(outputs_after(&mut other, "0d 04000018 15 09000000 25 01000000 32 01 61"), lines(&[]));
    for caller in [&caller, &other] {
        assert!(caller.pending.is_empty() && caller.calls == 0);
    }
}

#[test]
fn unanswered_call_can_be_cancelled() {
    let mut caller = open();
    let (asked, waiting) =
        (caller.call("Plaza", "Listen", Bytes::new()), caller.call("Casino", "Bet", Bytes::new()));
    caller.cancel(waiting.unwrap());
    caller.cancel(asked.unwrap());
    outputs(&mut caller);
    assert_eq!(
        outputs_after(&mut caller, "0d 04000018 15 09000000"),
        lines(&["0d 04000018 15 09000000 38 01"])
    );
    assert_eq!(events(&mut caller), []);
    // Its module came nevertheless.
    outputs_after(&mut caller, "0d 06000040 15 09000000 2a 0a 0d 07000000 12 03 426574");
    assert!(caller.pending.is_empty() && caller.calls == 0);
    assert_eq!(caller.call("Casino", "Bet", Bytes::new()), Ok(7));
    assert_eq!(outputs(&mut caller), lines(&["0d 07000008 15 09000000 25 07000000"]));
}

#[test]
fn server_error_is_reported_with_code_and_message() {
    let no = "15 07000000 1a 02 6e6f";
    let refusal = CallError { code: 7, message: "no".to_owned() };
    assert_eq!(refusal.to_string(), "no (error 7)");
    // A call; a module, which may be on offer later; the port, and with it everything.
    let mut caller = open();
    caller.call("Plaza", "Greet", Bytes::new()).unwrap();
    outputs_after(&mut caller, &format!("0d 04000048 {no}"));
    assert_eq!(events(&mut caller), [Event::Failed { number: 4, error: refusal.clone() }]);
    caller.call("Casino", "Bet", Bytes::new()).unwrap();
    outputs(&mut caller);
    outputs_after(&mut caller, &format!("0d 06000048 {no}"));
    assert_eq!(events(&mut caller), [Event::Failed { number: 5, error: refusal.clone() }]);
    caller.call("Casino", "Bet", Bytes::new()).unwrap();
    assert_eq!(outputs(&mut caller), lines(&["0d 08000038 15 09000000 22 06 436173696e6f"]));
    let mut caller = Caller::new(2);
    let calls = ["Plaza", "Casino"].map(|module| caller.call(module, "Any", Bytes::new()).unwrap());
    assert_eq!(caller.call("Plaza", "Greet", Bytes::new()), Err(TooManyCalls));
    outputs_after(&mut caller, "0d 00000058");
    outputs_after(&mut caller, &format!("0d 03000048 {no}"));
    assert_eq!(events(&mut caller), calls.map(|number| Event::Failed { number, error: refusal.clone() }));
    assert!(caller.pending.is_empty() && caller.calls == 0);
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
    assert_eq!(caller.receive(&hex("0d 04000018 25 02000000")), Err(UnrequestedElement), "one was left out");
    let mut caller = open();
    caller.call("Plaza", "Listen", Bytes::new()).unwrap();
    assert_eq!(caller.receive(&hex("0d 04000018 25 01000000")), Err(UnrequestedElement), "not offered");
    assert_eq!(open().receive(&hex("0d 04000010 32 01 61")), Ok(()), "of a call that is over");
}

/// What happens next, anywhere.
#[derive(Debug, Clone, Copy)]
enum Step {
    Call(&'static str, &'static str),
    Want(usize),
    End(usize),
    /// The oldest message that is under way reaches the server, the client.
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
    let act = prop_oneof![
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
    prop::collection::vec(act, 0..300)
}

/// Both halves, and what is under way between them.
struct Simulation {
    caller: Caller,
    server: Connection<char>,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    /// Calls that the server has heard of and not ended, in the order of their numbers.
    served: Vec<u32>,
    streams: Vec<u32>,
    /// What became of each call as the server sees it: what the client must be told, unless it ended
    /// the call itself.
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

    fn step(&mut self, act: Step) {
        match act {
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
                let mut wanted: Vec<u32> = self.server.requested_streams().collect();
                wanted.sort_unstable();
                if let Some(number) = one_of(&wanted, index) {
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
            let said = answer(&mut self.server, number);
            self.sent.entry(number).or_default().push(said.to_owned());
        }
    }

    /// Takes all that both have to say.
    fn pump(&mut self) {
        self.to_server.extend(std::iter::from_fn(|| self.caller.poll_output()));
        self.to_client.extend(std::iter::from_fn(|| self.server.poll_output()));
        while let Some(asked) = self.server.poll_event() {
            match asked {
                Asked::Called { number, .. } => self.served.push(number),
                Asked::Ended { number } => {
                    self.served.retain(|&served| served != number);
                    self.streams.retain(|&stream| stream != number);
                }
            }
        }
        for event in events(&mut self.caller) {
            let (number, told) = match event {
                Event::Answered { number, .. } => (number, "answered".to_owned()),
                Event::Failed { number, .. } => (number, "refused".to_owned()),
                Event::Opened { number } => (number, "opened".to_owned()),
                Event::Ended { number } => (number, "ended".to_owned()),
                Event::Element { number, payload } => (number, String::from_utf8(payload.to_vec()).unwrap()),
            };
            assert!(!self.cancelled.contains(&number), "{number} is of no interest any more");
            self.received.entry(number).or_default().push(told);
        }
    }

    /// Everything that is under way arrives.
    fn deliver(&mut self) {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.step(Step::ToServer);
            self.step(Step::ToClient);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However calls, answers and messages under way interleave: neither half takes the other's word
    /// for a violation, the client is told what the server said, in that order and once, and in the
    /// end neither holds what the other has ended.
    #[test]
    fn client_and_server_agree_under_any_interleaving(acts in steps()) {
        let mut simulation = Simulation::new();
        simulation.pump();
        for act in acts {
            simulation.step(act);
            prop_assert!(simulation.caller.calls <= LIMITS.calls);
        }
        simulation.deliver();
        for &number in &simulation.called {
            let said = simulation.sent.get(&number).cloned().unwrap_or_default();
            let told = simulation.received.get(&number).cloned().unwrap_or_default();
            match simulation.cancelled.contains(&number) {
                // Of a module that nobody offers nothing can be called.
                _ if said.is_empty() && told == ["refused"] => {}
                true => prop_assert!(said.starts_with(&told), "{number}: {said:?}, {told:?}"),
                false => prop_assert_eq!(said, told),
            }
        }
        // Whatever is open ends.
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
        prop_assert!(simulation.caller.pending.is_empty() && simulation.caller.calls == 0);
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
