//! Removes the URLs of other servers from the signalling messages of a LiveKit server: a client that followed
//! one would bypass the proxy.

use bytes::Buf;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use serde_json::Value;

/// A message of the server that is neither protobuf nor JSON as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of the LiveKit server cannot be decoded")]
pub(super) struct Malformed;

/// A field that holds URLs of other servers, by field numbers and by names.
struct UrlField {
    /// The field of `SignalResponse` that holds the message, and its name in JSON.
    message: (u32, &'static str),
    /// The field to remove, and its names in JSON.
    field: (u32, &'static [&'static str]),
}

/// `JoinResponse.alternative_url` and `LeaveRequest.regions` of `livekit_rtc.proto`.
const URL_FIELDS: [UrlField; 2] = [
    UrlField { message: (1, "join"), field: (7, &["alternativeUrl", "alternative_url"]) },
    UrlField { message: (8, "leave"), field: (4, &["regions"]) },
];

/// An encoded `SignalResponse` without the URLs of other servers. Unknown fields are kept, so that newer servers
/// and clients understand each other.
pub(super) fn strip_protobuf(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut stripped = Vec::with_capacity(message.len());
    for_each_field(message, |field| {
        let url_field = URL_FIELDS.iter().find(|url_field| url_field.message.0 == field.number);
        match (url_field, field.length_delimited) {
            (Some(url_field), Some(inner)) => {
                let mut kept = Vec::with_capacity(inner.len());
                for_each_field(inner, |field| {
                    if field.number != url_field.field.0 {
                        kept.extend_from_slice(field.encoded);
                    }
                    Ok(())
                })?;
                encode_key(field.number, WireType::LengthDelimited, &mut stripped);
                encode_varint(kept.len() as u64, &mut stripped);
                stripped.extend_from_slice(&kept);
            }
            _ => stripped.extend_from_slice(field.encoded),
        }
        Ok(())
    })?;
    Ok(stripped)
}

/// The same for the JSON encoding, which a server uses towards clients that send JSON.
pub(super) fn strip_json(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut response: Value = serde_json::from_slice(message).map_err(|_| Malformed)?;
    for UrlField { message: (_, message), field: (_, names) } in &URL_FIELDS {
        if let Some(inner) = response.get_mut(message).and_then(Value::as_object_mut) {
            inner.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    serde_json::to_vec(&response).map_err(|_| Malformed)
}

/// A field of an encoded message.
struct Field<'a> {
    number: u32,
    /// The whole field with its key.
    encoded: &'a [u8],
    /// Its value, if it has a length: a message, a string or bytes.
    length_delimited: Option<&'a [u8]>,
}

fn for_each_field(
    message: &[u8],
    mut visit: impl FnMut(Field<'_>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut rest = message;
    while rest.has_remaining() {
        let begin = rest;
        let (number, wire_type) = decode_key(&mut rest).map_err(|_| Malformed)?;
        let mut value = rest;
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).map_err(|_| Malformed)?;
        let length_delimited = if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut value).map_err(|_| Malformed)?;
            // `skip_field` has checked that the value has this length.
            usize::try_from(length).ok().and_then(|length| value.get(..length))
        } else {
            None
        };
        let encoded = &begin[..begin.len() - rest.len()];
        visit(Field { number, encoded, length_delimited })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A field with a length.
    fn field(number: u32, value: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut encoded);
        encode_varint(value.len() as u64, &mut encoded);
        encoded.extend_from_slice(value);
        encoded
    }

    fn number(number: u32, value: u64) -> Vec<u8> {
        let mut encoded = Vec::new();
        encode_key(number, WireType::Varint, &mut encoded);
        encode_varint(value, &mut encoded);
        encoded
    }

    #[test]
    fn urls_are_removed_and_other_fields_are_kept() {
        let unknown = field(999, b"new");
        let join = [field(1, b"room"), field(7, b"wss://other"), number(900, 5), unknown.clone()].concat();
        let kept = [field(1, b"room"), number(900, 5), unknown.clone()].concat();
        let message = [field(1, &join), unknown.clone()].concat();
        assert_eq!(strip_protobuf(&message), Ok([field(1, &kept), unknown.clone()].concat()));

        let leave = [number(2, 3), number(3, 1), field(4, b"regions"), unknown.clone()].concat();
        let kept = [number(2, 3), number(3, 1), unknown].concat();
        assert_eq!(strip_protobuf(&field(8, &leave)), Ok(field(8, &kept)));
    }

    #[test]
    fn other_messages_are_unchanged() {
        // Field 7 of another message, and no field at all.
        for message in [field(5, &field(7, b"text")), number(18, 7), Vec::new(), field(1, b"")] {
            assert_eq!(strip_protobuf(&message), Ok(message));
        }
    }

    #[test]
    fn malformed_message_is_an_error() {
        let long = field(1, &field(7, b"wss://other"));
        for message in [&long[..long.len() - 1], &[0xff; 11], &[0x0a, 0x05, 0x01], &field(8, &[0x22, 0x09])] {
            assert_eq!(strip_protobuf(message), Err(Malformed), "{message:?}");
        }
        assert_eq!(strip_json(b"{"), Err(Malformed));
    }

    #[test]
    fn urls_are_removed_from_json() {
        let message = json!({
            "join": {"room": {"name": "I1"}, "alternativeUrl": "wss://other", "new": 1},
            "leave": {"reason": "X", "regions": {"regions": [{"url": "wss://other"}]}},
            "other": {"regions": 1},
        });
        let kept = json!({
            "join": {"room": {"name": "I1"}, "new": 1},
            "leave": {"reason": "X"},
            "other": {"regions": 1},
        });
        let stripped = strip_json(message.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&stripped).unwrap(), kept);
        // The names in the definition are accepted by decoders of JSON as well.
        let stripped = strip_json(br#"{"join":{"alternative_url":"wss://other"}}"#).unwrap();
        assert_eq!(stripped, br#"{"join":{}}"#);
    }
}
