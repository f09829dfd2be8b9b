//! The sign-in, as a state machine: packets in, answers and ends out.

use std::sync::Arc;

use identity::{Challenge, ResumeSecret};
use protocol::{
    Address, AddressError, Close, ResumeHash, is_protocol_name,
    v3::{
        ChallengeRequestMessage, ChallengeResponseMessage, ClientPacket, ServerPacket, client_packet,
        server_packet,
    },
};

/// Who asks to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignInRequest {
    pub(crate) address: Address,
    /// What its client can join, separated by commas; none when it did not say, or said what cannot
    /// be read.
    pub(crate) transports: Option<Arc<str>>,
    /// Whether its client announced extensions of this project: only then it is sent any.
    pub(crate) extensions: bool,
    /// The hash of the resumption secret that its client presented.
    pub(crate) presented_hash: Option<ResumeHash>,
}

impl SignInRequest {
    /// Reads a request to sign in.
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
    /// A client that announced no extensions.
    pub(crate) fn without_extensions(address: Address) -> Self {
        Self { address, transports: None, extensions: false, presented_hash: None }
    }
}

/// Where a sign-in stands.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// Nothing was said yet.
    AwaitRequest,
    /// This challenge was sent, and no other will be.
    AwaitSignature { request: SignInRequest, challenge: Challenge },
}

/// What to do about a packet.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: a packet from the future.
    Ignore,
    /// Somebody asks to sign in: send it a challenge, then come back with [`Handshake::challenge`].
    Challenge(SignInRequest),
    /// See whether this chain is valid; the challenge is used up.
    Verify { request: SignInRequest, challenge: Challenge, auth_chain_json: String },
}

/// What a client may say that it can join.
const MAX_TRANSPORTS: usize = 8;

impl Handshake {
    /// Takes in a packet.
    pub(crate) fn receive(self, packet: ClientPacket) -> Result<(Self, Step), (Close, String)> {
        use client_packet::Message::{ChallengeRequest, SignedChallenge};
        match (self, packet.message) {
            (state, None) => Ok((state, Step::Ignore)),
            (Self::AwaitRequest, Some(ChallengeRequest(request))) => {
                let applicant = SignInRequest::from_message(&request)
                    .map_err(|error| (Close::AuthRefused, error.to_string()))?;
                Ok((Self::AwaitRequest, Step::Challenge(applicant)))
            }
            (Self::AwaitSignature { request: applicant, challenge }, Some(SignedChallenge(signed))) => {
                let auth_chain_json = signed.auth_chain_json;
                Ok((Self::AwaitRequest, Step::Verify { request: applicant, challenge, auth_chain_json }))
            }
            _ => Err((Close::OutOfOrder, Close::OutOfOrder.reason().to_owned())),
        }
    }

    /// The state after `challenge` was made for `applicant`, and the packet that carries it.
    pub(crate) fn challenge(
        applicant: SignInRequest,
        challenge: Challenge,
        connected: bool,
    ) -> (Self, ServerPacket) {
        let response = ChallengeResponseMessage {
            challenge_to_sign: challenge.as_str().to_owned(),
            already_connected: connected,
        };
        let message = Some(server_packet::Message::ChallengeResponse(response));
        (Self::AwaitSignature { request: applicant, challenge }, ServerPacket { message })
    }
}

/// What a client says that it can join. What cannot be read, or is too much, counts as nothing
/// said: it can still sign in.
fn parse_transports(names: &[String]) -> Option<Arc<str>> {
    if names.is_empty() {
        return None;
    }
    if names.len() > MAX_TRANSPORTS || !names.iter().all(|name| is_protocol_name(name)) {
        metrics::counter!("atoll_gateway_transports_refused_total").increment(1);
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
        let applicant = SignInRequest::without_extensions(Address::new([1; 20]));
        Handshake::challenge(applicant, Challenge::new("", [7; 16]), false).0
    }

    #[test]
    fn sign_in_request_is_challenged_then_verified() {
        let address = Address::new([0xab; 20]);
        let upper = address.to_string().to_uppercase().replace("0X", "0x");
        let (_, step) = Handshake::AwaitRequest.receive(request(&upper)).unwrap();
        assert!(
            matches!(step, Step::Challenge(applicant) if applicant == SignInRequest::without_extensions(address))
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
            let Step::Challenge(applicant) = step else { panic!("{step:?}") };
            applicant.transports
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
            let applicant =
                SignInRequest::from_message(&ChallengeRequestMessage { address, transports, resume_secret })
                    .unwrap();
            (applicant.extensions, applicant.presented_hash)
        };
        assert_eq!(read(&[], None), (false, None));
        assert_eq!(read(&["ws-room"], None), (true, None));
        assert_eq!(read(&[], Some(&[])), (true, None), "it has no secret yet");
        assert_eq!(read(&[], Some(&[7; 17])), (true, None), "of no gateway");
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
