//! The NATS headers of a message: encoding and decoding.

use async_nats::{HeaderMap, HeaderName};
use protocol::is_protocol_name;

use super::sequence::{Part, SequenceId, parse_decimal};
use crate::envelope::{Headers, Resumption};

/// The session that a message belongs to: a ULID.
const SESSION: HeaderName = HeaderName::from_static("Atoll-Session");
/// The transports that the client can join, separated by commas.
const TRANSPORTS: HeaderName = HeaderName::from_static("Atoll-Transports");
/// The peer that publishes on a scene's topic: an address. Absent or empty: a server publishes.
const SENDER: HeaderName = HeaderName::from_static("Atoll-Sender");
/// The node of the room that a client is assigned to.
const NODE: HeaderName = HeaderName::from_static("Atoll-Node");
/// The epoch of the director that publishes: a decimal.
const EPOCH: HeaderName = HeaderName::from_static("Atoll-Epoch");
/// The hash of a session's resumption secret: 32 hex digits.
const RESUME_HASH: HeaderName = HeaderName::from_static("Atoll-Resume-Hash");
/// The older session that a session resumes: a ULID.
const RESUMES: HeaderName = HeaderName::from_static("Atoll-Resumes");
/// The message's number among its publisher's: see [`SequenceId`].
const SEQUENCE: HeaderName = HeaderName::from_static("Atoll-Sequence");
/// The part of a larger message: see [`Part`].
const PART: HeaderName = HeaderName::from_static("Atoll-Part");
/// The bytes that the headers of a part need beyond those of a whole message: the `Atoll-Part` header, and 20
/// for sequence numbers that get longer.
const PART_SIZE: usize = "Atoll-Part: 16384/16384\r\n".len() + 20;

/// The header that cannot be decoded, because of which a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedHeader(pub(super) &'static str);

/// The decoded headers of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DecodedHeaders {
    pub(super) headers: Headers,
    pub(super) sequence_id: Option<SequenceId>,
    pub(super) part: Option<Part>,
}

/// Encodes the headers of a message with its sequence id.
pub(super) fn encode(headers: &Headers, sequence_id: SequenceId, part: Option<Part>) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(SEQUENCE, sequence_id.to_string());
    if let Some(part) = part {
        map.insert(PART, part.to_string());
    }
    if let Some(session) = headers.session {
        map.insert(SESSION, session.to_string());
    }
    // A list that is not valid is left out: a line break in it would start another header.
    if let Some(transports) = headers.transports.as_deref().filter(|names| are_transports(names)) {
        map.insert(TRANSPORTS, transports);
    }
    if let Some(sender) = headers.sender {
        map.insert(SENDER, sender.to_string());
    }
    if let Some(node) = &headers.node {
        map.insert(NODE, node.to_string());
    }
    if let Some(epoch) = headers.epoch {
        map.insert(EPOCH, epoch.to_string());
    }
    let Resumption { hash, resumes } = headers.resumption();
    if let Some(hash) = hash {
        map.insert(RESUME_HASH, hash.to_string());
    }
    if let Some(session) = resumes {
        map.insert(RESUMES, session.to_string());
    }
    map
}

/// The bytes that a part has left for its payload, if the server accepts `most` bytes.
pub(super) fn part_capacity(map: &HeaderMap, max_payload: usize) -> usize {
    max_payload.saturating_sub(encoded_size(map) + PART_SIZE)
}

/// The size of the headers in bytes; they count towards the payload limit.
pub(super) fn encoded_size(map: &HeaderMap) -> usize {
    let lines = map.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let lines =
        lines.map(|(name, value)| AsRef::<str>::as_ref(name).len() + value.as_str().len() + ": \r\n".len());
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

/// Decodes the headers; unknown ones are ignored.
pub(super) fn decode(map: Option<&HeaderMap>) -> Result<DecodedHeaders, MalformedHeader> {
    let Some(map) = map else { return Ok(Default::default()) };
    let session = single_value(map, SESSION, "session")?
        .map(|text| text.parse().map_err(|_| MalformedHeader("session")));
    let transports = single_value(map, TRANSPORTS, "transports")?;
    if !transports.is_none_or(are_transports) {
        return Err(MalformedHeader("transports"));
    }
    let sender = single_value(map, SENDER, "sender")?.filter(|text| !text.is_empty());
    let sender = sender.map(|text| text.parse().map_err(|_| MalformedHeader("sender")));
    let node = single_value(map, NODE, "node")?.map(|text| text.parse().map_err(|_| MalformedHeader("node")));
    let epoch =
        single_value(map, EPOCH, "epoch")?.map(|text| parse_decimal(text).ok_or(MalformedHeader("epoch")));
    let resume_hash = single_value(map, RESUME_HASH, "resume_hash")?;
    let resume_hash = resume_hash.map(|text| text.parse().map_err(|_| MalformedHeader("resume_hash")));
    let resumes = single_value(map, RESUMES, "resumes")?
        .map(|text| text.parse().map_err(|_| MalformedHeader("resumes")));
    let sequence_id = single_value(map, SEQUENCE, "sequence")?
        .map(|text| SequenceId::parse(text).ok_or(MalformedHeader("sequence")));
    let sequence_id = sequence_id.transpose()?;
    let part = single_value(map, PART, "part")?
        .map(|text| Part::parse(text).ok_or(MalformedHeader("part")))
        .transpose()?;
    if part.is_some() && sequence_id.is_none() {
        return Err(MalformedHeader("part"));
    }
    let resumption = Resumption { hash: resume_hash.transpose()?, resumes: resumes.transpose()? };
    let headers = Headers {
        session: session.transpose()?,
        transports: transports.map(Into::into),
        sender: sender.transpose()?,
        node: node.transpose()?,
        epoch: epoch.transpose()?,
        resumption: (resumption != Resumption::default()).then(|| resumption.into()),
    };
    Ok(DecodedHeaders { headers, sequence_id, part })
}

/// The value of a header that may be present at most once.
fn single_value<'a>(
    map: &'a HeaderMap,
    name: HeaderName,
    label: &'static str,
) -> Result<Option<&'a str>, MalformedHeader> {
    let mut values = map.get_all(name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_str())),
        _ => Err(MalformedHeader(label)),
    }
}

fn are_transports(names: &str) -> bool {
    names.split(',').all(is_protocol_name)
}

#[cfg(test)]
mod tests {
    use protocol::{Address, ResumeHash, SessionId};

    use super::*;

    #[test]
    fn headers_round_trip() {
        let sequence_id = SequenceId { publisher: 7, number: u64::MAX };
        for headers in [
            Headers::default(),
            Headers::for_session(SessionId::new(1, 2)),
            Headers {
                session: Some(SessionId::new(3, 4)),
                transports: Some("p2p,ws-room".into()),
                sender: Some(Address::new([9; 20])),
                node: Some("rooms-1".parse().unwrap()),
                epoch: Some(u64::MAX),
                resumption: Some(Box::new(Resumption {
                    hash: Some(ResumeHash::new([5; 16])),
                    resumes: Some(SessionId::new(1, 2)),
                })),
            },
        ] {
            for part in [None, Some(Part { number: 2, total: 3 })] {
                let decoded =
                    DecodedHeaders { headers: headers.clone(), sequence_id: Some(sequence_id), part };
                assert_eq!(decode(Some(&encode(&headers, sequence_id, part))), Ok(decoded));
            }
        }
        assert_eq!(decode(None), Ok(DecodedHeaders::default()));
    }

    #[test]
    fn transports_with_a_line_break_are_not_written() {
        let transports = Some("p2p\r\nAtoll-Sender: 0x".into());
        let headers = Headers { transports, ..Headers::default() };
        let map = encode(&headers, SequenceId { publisher: 1, number: 1 }, None);
        assert_eq!(decode(Some(&map)).unwrap().headers, Headers::default());
    }

    #[test]
    fn malformed_or_duplicate_header_is_named() {
        let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let sender = Address::new([1; 20]).to_string();
        let header = |name: &'static str, values: &[&str]| {
            let mut map = HeaderMap::new();
            values.iter().for_each(|&value| map.append(name, value));
            decode(Some(&map)).map(|decoded| decoded.headers)
        };
        assert!(header("Atoll-Session", &[ulid]).unwrap().session.is_some());
        assert_eq!(header("Atoll-Sender", &[""]).unwrap().sender, None, "a server");
        assert_eq!(header("Other", &["?"]), Ok(Headers::default()));
        for (name, values, reason) in [
            ("Atoll-Session", &[""][..], "session"),
            ("Atoll-Session", &["today"], "session"),
            ("Atoll-Session", &[ulid, ulid], "session"),
            ("Atoll-Transports", &["p2p, ws-room"], "transports"),
            ("Atoll-Transports", &[""], "transports"),
            ("Atoll-Sender", &["0x12"], "sender"),
            ("Atoll-Sender", &[&sender, ""], "sender"),
            ("Atoll-Node", &["rooms.1"], "node"),
            ("Atoll-Epoch", &["+1"], "epoch"),
            ("Atoll-Epoch", &[""], "epoch"),
            ("Atoll-Resume-Hash", &["ab"], "resume_hash"),
            ("Atoll-Resumes", &["today"], "resumes"),
            ("Atoll-Sequence", &["1.2"], "sequence"),
            ("Atoll-Sequence", &["0000000000000001.+2"], "sequence"),
            ("Atoll-Sequence", &["0000000000000001."], "sequence"),
            ("Atoll-Part", &["1/2"], "part"),
            ("Atoll-Part", &["0/2"], "part"),
            ("Atoll-Part", &["3/2"], "part"),
            ("Atoll-Part", &["1/4294967296"], "part"),
            ("Atoll-Part", &["1"], "part"),
        ] {
            assert_eq!(header(name, values), Err(MalformedHeader(reason)), "{name} {values:?}");
        }
    }
}
