//! Signals as messages in mailbox topics, the form that clients over RPC use: `<address>.offer` and
//! `<address>.answer` with the JSON of an `RTCSessionDescription`, `<address>.candidate` with the JSON
//! `{candidate, initiator}`, and `<address>.fallback` with an encoded `Packet`.
//!
//! The JSON may have the number `negotiation`, an extension of this project: [`Signal::negotiation`].

use bytes::Bytes;
use protocol::{
    Address, Topic,
    mesh::{Signal, signal::Content},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::mesh::refusal::MeshRefusal;

/// The kind of a signal: the second and last segment of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalKind {
    Offer,
    Answer,
    Candidate,
    Fallback,
}

/// The payload of an offer or an answer.
#[derive(Serialize, Deserialize)]
struct Description {
    #[serde(rename = "type")]
    kind: String,
    sdp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    negotiation: Option<u32>,
}

/// The payload of a candidate that a client publishes. `initiator` is not read: the plan determines it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublishedCandidate {
    /// An `RTCIceCandidateInit`, its JSON as a text, only its `candidate`, or null after the last candidate.
    candidate: Value,
    /// The other members of an `RTCIceCandidateInit`, if the payload is one.
    sdp_mid: Option<Value>,
    #[serde(rename = "sdpMLineIndex")]
    sdp_m_line_index: Option<Value>,
    username_fragment: Option<Value>,
    negotiation: Option<u32>,
}

/// The payload of a candidate for a client.
#[derive(Serialize)]
struct ReceivedCandidate<'a> {
    candidate: &'a Value,
    /// Whether the sender of the candidate sends the offers of the link.
    initiator: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    negotiation: Option<u32>,
}

impl SignalKind {
    /// The segment of the topic.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Candidate => "candidate",
            Self::Fallback => "fallback",
        }
    }
}

/// The owner of the mailbox and the kind of its signals, if a topic is one of signals.
pub(crate) fn parse_topic(topic: &Topic) -> Option<(Address, SignalKind)> {
    let owner = topic.mailbox()?;
    let (_, segments) = topic.as_str().split_once('.')?;
    let kinds = [SignalKind::Offer, SignalKind::Answer, SignalKind::Candidate, SignalKind::Fallback];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == segments)?;
    Some((owner, kind))
}

/// Decodes the payload that a client published under a topic of signals: the number of the negotiation, and the
/// content.
pub(crate) fn decode_payload(kind: SignalKind, payload: Bytes) -> Result<(u32, Content), MeshRefusal> {
    match kind {
        SignalKind::Offer | SignalKind::Answer => {
            let Description { kind: named, sdp, negotiation } =
                serde_json::from_slice(&payload).map_err(|_| MeshRefusal::Description)?;
            if named != kind.as_str() {
                return Err(MeshRefusal::Description);
            }
            let content = match kind {
                SignalKind::Offer => Content::Offer(sdp),
                _ => Content::Answer(sdp),
            };
            Ok((negotiation.unwrap_or_default(), content))
        }
        SignalKind::Candidate => {
            let published: PublishedCandidate =
                serde_json::from_slice(&payload).map_err(|_| MeshRefusal::CandidateMessage)?;
            let negotiation = published.negotiation.unwrap_or_default();
            let init = published.into_init().ok_or(MeshRefusal::CandidateMessage)?;
            Ok((negotiation, Content::Candidate(init.to_string())))
        }
        SignalKind::Fallback => Ok((0, Content::Fallback(payload))),
    }
}

impl PublishedCandidate {
    /// The candidate as an `RTCIceCandidateInit`.
    fn into_init(self) -> Option<Value> {
        match self.candidate {
            init @ Value::Object(_) => Some(init),
            Value::Null => Some(json!({ "candidate": "" })),
            Value::String(text) if text.trim_start().starts_with('{') => {
                serde_json::from_str::<Map<String, Value>>(&text).ok().map(Value::Object)
            }
            Value::String(line) => {
                let mut init = Map::from_iter([("candidate".to_owned(), Value::String(line))]);
                let has_media = self.sdp_mid.is_some() || self.sdp_m_line_index.is_some();
                // A mesh has one media section. Without a reference to it browsers reject a candidate.
                let index = if has_media { self.sdp_m_line_index } else { Some(0.into()) };
                let members = [
                    ("sdpMid", self.sdp_mid),
                    ("sdpMLineIndex", index),
                    ("usernameFragment", self.username_fragment),
                ];
                init.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
                Some(Value::Object(init))
            }
            _ => None,
        }
    }
}

/// The kind of a received signal and its payload for a client. `initiator`: whether its sender sends the offers of
/// the link. `None` if the signal has no content, or no valid one.
pub(crate) fn encode_payload(signal: Signal, initiator: bool) -> Option<(SignalKind, Bytes)> {
    let negotiation = (signal.negotiation != 0).then_some(signal.negotiation);
    let description = |kind: SignalKind, sdp| {
        let description = Description { kind: kind.as_str().to_owned(), sdp, negotiation };
        Some((kind, serde_json::to_vec(&description).ok()?.into()))
    };
    match signal.content? {
        Content::Offer(sdp) => description(SignalKind::Offer, sdp),
        Content::Answer(sdp) => description(SignalKind::Answer, sdp),
        Content::Candidate(init) => {
            let candidate: Value = serde_json::from_str(&init).ok()?;
            let received = ReceivedCandidate { candidate: &candidate, initiator, negotiation };
            Some((SignalKind::Candidate, serde_json::to_vec(&received).ok()?.into()))
        }
        Content::Fallback(packet) => Some((SignalKind::Fallback, packet)),
    }
}

#[cfg(test)]
mod tests {
    use SignalKind::{Answer, Candidate, Fallback, Offer};

    use super::*;

    fn decoded(kind: SignalKind, payload: &str) -> Result<(u32, Content), MeshRefusal> {
        decode_payload(kind, payload.to_owned().into())
    }

    fn candidate(payload: &str) -> Value {
        let (_, content) = decoded(Candidate, payload).unwrap();
        let Content::Candidate(init) = content else { panic!("{content:?}") };
        serde_json::from_str(&init).unwrap()
    }

    #[test]
    fn only_topics_of_signals_are_parsed() {
        let owner = Address::new([0xab; 20]);
        let parse = |topic: &str| parse_topic(&topic.parse().unwrap());
        for kind in [Offer, Answer, Candidate, Fallback] {
            let upper = owner.to_string().to_uppercase().replace("0X", "0x");
            assert_eq!(parse(&format!("{upper}.{}", kind.as_str())), Some((owner, kind)));
        }
        for topic in ["", ".chat", ".offer.chat", ".offers", ".Offer"] {
            assert_eq!(parse(&format!("{owner}{topic}")), None, "{topic}");
        }
        assert_eq!(parse("plaza.offer"), None);
    }

    #[test]
    fn signal_survives_both_conversions() {
        let init = r#"{"candidate":"candidate:1 1 udp 1 203.0.113.7 5000 typ host","sdpMid":"0"}"#;
        for (kind, negotiation, content) in [
            (Offer, 7, Content::Offer("v=0\r\na=\"ü\"\r\n".to_owned())),
            (Answer, 0, Content::Answer("v=0\r\n".to_owned())),
            (Candidate, u32::MAX, Content::Candidate(init.to_owned())),
            (Fallback, 0, Content::Fallback(vec![0, 0xff].into())),
        ] {
            let signal = Signal { negotiation, content: Some(content.clone()), ..Signal::default() };
            let (encoded, payload) = encode_payload(signal, true).unwrap();
            assert_eq!(encoded, kind);
            assert_eq!(decode_payload(kind, payload), Ok((negotiation, content)));
        }
    }

    #[test]
    fn payloads_are_those_of_clients_of_2022() {
        let received = |content, negotiation| {
            let signal = Signal { negotiation, content: Some(content), ..Signal::default() };
            let (_, payload) = encode_payload(signal, false).unwrap();
            serde_json::from_slice::<Value>(&payload).unwrap()
        };
        let offer = Content::Offer("v=0".to_owned());
        assert_eq!(received(offer.clone(), 0), json!({ "type": "offer", "sdp": "v=0" }));
        assert_eq!(received(offer, 7), json!({ "type": "offer", "sdp": "v=0", "negotiation": 7 }));
        let init = json!({ "candidate": "candidate:1", "sdpMid": "0" });
        let expected = json!({ "candidate": init, "initiator": false });
        assert_eq!(received(Content::Candidate(init.to_string()), 0), expected);
    }

    #[test]
    fn candidates_are_read_in_every_form() {
        let init = json!({ "candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0 });
        let object = json!({ "candidate": init, "initiator": true });
        assert_eq!(candidate(&object.to_string()), init);
        let text = json!({ "candidate": init.to_string(), "initiator": false });
        assert_eq!(candidate(&text.to_string()), init);
        assert_eq!(candidate(&init.to_string()), init, "an RTCIceCandidateInit itself");
        let line = json!({ "candidate": "candidate:1" });
        assert_eq!(candidate(&line.to_string()), json!({ "candidate": "candidate:1", "sdpMLineIndex": 0 }));
        assert_eq!(candidate(r#"{"candidate":null,"initiator":true}"#), json!({ "candidate": "" }));
    }

    #[test]
    fn malformed_payloads_are_refused() {
        let bad = ["", "sdp", "[]", "{", "null", "7", "{}", r#"{"type":"offer"}"#, r#"{"sdp":"v=0"}"#];
        let bad_offers = [
            r#"{"type":"answer","sdp":"v=0"}"#,
            r#"{"type":"offer","sdp":7}"#,
            r#"{"type":"offer","sdp":"v=0","negotiation":-1}"#,
            r#"{"type":"offer","sdp":"v=0","negotiation":4294967296}"#,
        ];
        for payload in bad.into_iter().chain(bad_offers) {
            assert_eq!(decoded(Offer, payload), Err(MeshRefusal::Description), "{payload}");
        }
        let bad_candidates =
            [r#"{"candidate":7}"#, r#"{"candidate":"{"}"#, r#"{"candidate":[]}"#, r#"{"initiator":true}"#];
        for payload in bad.into_iter().chain(bad_candidates) {
            assert_eq!(decoded(Candidate, payload), Err(MeshRefusal::CandidateMessage), "{payload}");
        }
        assert_eq!(decode_payload(Offer, vec![0xff].into()), Err(MeshRefusal::Description));
        assert_eq!(encode_payload(Signal::default(), true), None);
    }
}
