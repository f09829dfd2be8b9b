//! The sign-in as a sans-IO state machine: client packets in, challenges and close codes out.

use std::sync::Arc;

use identity::{Challenge, ResumeSecret};
use protocol::{
    Address, AddressError, Close, ResumeHash, is_protocol_name,
    v3::{
        ChallengeRequestMessage, ChallengeResponseMessage, ClientPacket, ServerPacket, client_packet,
        server_packet,
    },
};

use crate::metrics;

/// A request to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignInRequest {
    pub(crate) address: Address,
    /// The transports that the client can join, separated by commas; `None` if it listed none, or an invalid
    /// list.
    pub(crate) transports: Option<Arc<str>>,
    /// Whether the client announced Atoll's protocol extensions. Others are sent none.
    pub(crate) extensions: bool,
    /// The hash of the resumption secret that the client presented.
    pub(crate) presented_hash: Option<ResumeHash>,
}

impl SignInRequest {
    /// Reads the request from its message. Fails if the address is invalid.
    fn from_message(request: &ChallengeRequestMessage) -> Result<Self, AddressError> {
        let secret = request.resume_secret.as_deref();
        Ok(Self {
            address: request.address.parse()?,
            transports: parse_transports(&request.transports),
            extensions: secret.is_some() || !request.transports.is_empty(),
            presented_hash: secret.and_then(ResumeSecret::from_bytes).map(|secret| secret.hash()),
        })
    }
}

#[cfg(test)]
impl SignInRequest {
    /// A request of a client that announced no extensions.
    pub(crate) fn without_extensions(address: Address) -> Self {
        Self { address, transports: None, extensions: false, presented_hash: None }
    }
}

/// State of a sign-in.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// The client has not requested a challenge yet.
    AwaitRequest,
    /// The challenge was sent and awaits its signature. No second challenge is sent.
    AwaitSignature { request: SignInRequest, challenge: Challenge },
}

/// The action that a packet requires.
#[derive(Debug)]
pub(crate) enum Step {
    /// Do nothing: the packet has an unknown type, perhaps of a later protocol version.
    Ignore,
    /// Send a challenge for this request, and replace the state by that of [`Handshake::challenge`].
    Challenge(SignInRequest),
    /// Verify this auth chain. The challenge is consumed.
    Verify { request: SignInRequest, challenge: Challenge, auth_chain_json: String },
}

/// Upper bound of the transports that a client may list.
const MAX_TRANSPORTS: usize = 8;

impl Handshake {
    /// Processes a packet. Returns the next state and the required action, or the close code and reason of a
    /// rejection.
    pub(crate) fn receive(self, packet: ClientPacket) -> Result<(Self, Step), (Close, String)> {
        use client_packet::Message::{ChallengeRequest, SignedChallenge};
        match (self, packet.message) {
            (state, None) => Ok((state, Step::Ignore)),
            (Self::AwaitRequest, Some(ChallengeRequest(request))) => {
                let request = SignInRequest::from_message(&request)
                    .map_err(|error| (Close::AuthRefused, error.to_string()))?;
                Ok((Self::AwaitRequest, Step::Challenge(request)))
            }
            (Self::AwaitSignature { request, challenge }, Some(SignedChallenge(signed))) => {
                let auth_chain_json = signed.auth_chain_json;
                Ok((Self::AwaitRequest, Step::Verify { request, challenge, auth_chain_json }))
            }
            _ => Err((Close::OutOfOrder, Close::OutOfOrder.reason().to_owned())),
        }
    }

    /// The state that awaits the signature of `challenge`, and the packet that carries it. `connected`
    /// becomes `already_connected` in the packet.
    pub(crate) fn challenge(
        request: SignInRequest,
        challenge: Challenge,
        connected: bool,
    ) -> (Self, ServerPacket) {
        let response = ChallengeResponseMessage {
            challenge_to_sign: challenge.as_str().to_owned(),
            already_connected: connected,
        };
        let message = Some(server_packet::Message::ChallengeResponse(response));
        (Self::AwaitSignature { request, challenge }, ServerPacket { message })
    }
}

/// Parses the list of transports that a client can join. A list that is invalid or too long counts as absent:
/// the client can still sign in.
fn parse_transports(names: &[String]) -> Option<Arc<str>> {
    if names.is_empty() {
        return None;
    }
    if names.len() > MAX_TRANSPORTS || !names.iter().all(|name| is_protocol_name(name)) {
        metrics::transports_refused().increment(1);
        return None;
    }
    Some(names.join(",").into())
}

#[cfg(test)]
mod tests {
    use protocol::v3::{Heartbeat, SignedChallengeMessage};

    use super::*;

    fn packet(message: client_packet::Message) -> ClientPacket {
        ClientPacket { message: Some(message) }
    }

    fn request(address: &str) -> ClientPacket {
        request_with(address, &[])
    }

    fn request_with(address: &str, transports: &[&str]) -> ClientPacket {
        let transports = transports.iter().map(|&name| name.to_owned()).collect();
        let address = address.to_owned();
        let request = ChallengeRequestMessage { address, transports, resume_secret: None };
        packet(client_packet::Message::ChallengeRequest(request))
    }

    fn signed() -> ClientPacket {
        let auth_chain_json = "[]".to_owned();
        packet(client_packet::Message::SignedChallenge(SignedChallengeMessage { auth_chain_json }))
    }

    fn challenged() -> Handshake {
        let request = SignInRequest::without_extensions(Address::new([1; 20]));
        Handshake::challenge(request, Challenge::new("", [7; 16]), false).0
    }

    #[test]
    fn sign_in_request_is_challenged_then_verified() {
        let address = Address::new([0xab; 20]);
        let upper = address.to_string().to_uppercase().replace("0X", "0x");
        let (_, step) = Handshake::AwaitRequest.receive(request(&upper)).unwrap();
        assert!(
            matches!(step, Step::Challenge(request) if request == SignInRequest::without_extensions(address))
        );
        let (state, step) = challenged().receive(signed()).unwrap();
        assert!(matches!(step, Step::Verify { auth_chain_json, .. } if auth_chain_json == "[]"));
        let again = state.receive(signed()).unwrap_err();
        assert_eq!(again.0, Close::OutOfOrder, "a challenge is used once");
    }

    #[test]
    fn valid_transports_are_kept() {
        let kept = |transports: &[&str]| {
            let request = request_with(&Address::new([1; 20]).to_string(), transports);
            let (_, step) = Handshake::AwaitRequest.receive(request).unwrap();
            let Step::Challenge(request) = step else { panic!("{step:?}") };
            request.transports
        };
        assert_eq!(kept(&["p2p", "ws-room"]).as_deref(), Some("p2p,ws-room"));
        assert_eq!(kept(&["x"; 8]).as_deref(), Some("x,x,x,x,x,x,x,x"));
        for unread in [&[][..], &["x"; 9], &["p2p", "ws,room"], &["P2P"], &[""], &["ws-room\r\nX: y"]] {
            assert_eq!(kept(unread), None, "{unread:?}");
        }
    }

    #[test]
    fn extensions_are_announced_by_either_field() {
        let read = |transports: &[&str], resume_secret: Option<&[u8]>| {
            let transports = transports.iter().map(|&name| name.to_owned()).collect();
            let address = Address::new([1; 20]).to_string();
            let resume_secret = resume_secret.map(<[u8]>::to_vec);
            let request =
                SignInRequest::from_message(&ChallengeRequestMessage { address, transports, resume_secret })
                    .unwrap();
            (request.extensions, request.presented_hash)
        };
        assert_eq!(read(&[], None), (false, None));
        assert_eq!(read(&["ws-room"], None), (true, None));
        assert_eq!(read(&[], Some(&[])), (true, None), "the client has no secret yet");
        assert_eq!(read(&[], Some(&[7; 17])), (true, None), "no gateway issues 17 bytes");
        assert_eq!(read(&[], Some(&[7; 16])), (true, Some(ResumeSecret::new([7; 16]).hash())));
    }

    #[test]
    fn out_of_order_packet_ends_handshake_unknown_is_ignored() {
        let heartbeat = || packet(client_packet::Message::Heartbeat(Heartbeat::default()));
        for (state, packet) in [
            (Handshake::AwaitRequest, signed()),
            (Handshake::AwaitRequest, heartbeat()),
            (challenged(), heartbeat()),
            (challenged(), request("0x0000000000000000000000000000000000000001")),
        ] {
            assert_eq!(state.receive(packet).unwrap_err().0, Close::OutOfOrder);
        }
        assert_eq!(Handshake::AwaitRequest.receive(request("me")).unwrap_err().0, Close::AuthRefused);
        let (state, step) = challenged().receive(ClientPacket { message: None }).unwrap();
        assert!(matches!((state, step), (Handshake::AwaitSignature { .. }, Step::Ignore)));
    }
}
