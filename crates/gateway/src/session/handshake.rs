//! The sign-in as a sans-IO state machine: requests in, challenges and close codes out.

use std::sync::Arc;

use identity::{Challenge, ResumeSecret};
use protocol::{Address, AddressError, Close, ResumeHash, is_protocol_name, v3::ChallengeRequestMessage};

use crate::{dialect::ClientRequest, metrics};

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

/// The action that a request requires.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send a challenge for this request, and await its signature.
    Challenge(SignInRequest),
    /// Verify this auth chain. The challenge is consumed.
    Verify { request: SignInRequest, challenge: Challenge, auth_chain_json: String },
}

/// Upper bound of the transports that a client may list.
const MAX_TRANSPORTS: usize = 8;

impl Handshake {
    /// Processes a request. Returns the required action, or the close code and reason of a rejection.
    pub(crate) fn receive(self, request: ClientRequest) -> Result<Step, (Close, String)> {
        match (self, request) {
            (Self::AwaitRequest, ClientRequest::Challenge(request)) => {
                let request = SignInRequest::from_message(&request)
                    .map_err(|error| (Close::AuthRefused, error.to_string()))?;
                Ok(Step::Challenge(request))
            }
            (
                Self::AwaitSignature { request, challenge },
                ClientRequest::Authenticate { auth_chain_json },
            ) => Ok(Step::Verify { request, challenge, auth_chain_json }),
            _ => Err((Close::OutOfOrder, Close::OutOfOrder.reason().to_owned())),
        }
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
    use protocol::v3::Heartbeat;

    use super::*;

    fn request(address: &str) -> ClientRequest {
        request_with(address, &[])
    }

    fn request_with(address: &str, transports: &[&str]) -> ClientRequest {
        let transports = transports.iter().map(|&name| name.to_owned()).collect();
        let address = address.to_owned();
        ClientRequest::Challenge(ChallengeRequestMessage { address, transports, resume_secret: None })
    }

    fn signed() -> ClientRequest {
        ClientRequest::Authenticate { auth_chain_json: "[]".to_owned() }
    }

    fn challenged() -> Handshake {
        let request = SignInRequest::without_extensions(Address::new([1; 20]));
        Handshake::AwaitSignature { request, challenge: Challenge::new("", [7; 16]) }
    }

    #[test]
    fn sign_in_request_is_challenged_then_verified() {
        let address = Address::new([0xab; 20]);
        let upper = address.to_string().to_uppercase().replace("0X", "0x");
        let step = Handshake::AwaitRequest.receive(request(&upper)).unwrap();
        assert!(
            matches!(step, Step::Challenge(request) if request == SignInRequest::without_extensions(address))
        );
        let step = challenged().receive(signed()).unwrap();
        assert!(matches!(step, Step::Verify { auth_chain_json, .. } if auth_chain_json == "[]"));
    }

    #[test]
    fn valid_transports_are_kept() {
        let kept = |transports: &[&str]| {
            let request = request_with(&Address::new([1; 20]).to_string(), transports);
            let step = Handshake::AwaitRequest.receive(request).unwrap();
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
    fn out_of_order_request_ends_handshake() {
        let heartbeat = || ClientRequest::Heartbeat(Heartbeat::default());
        for (state, request) in [
            (Handshake::AwaitRequest, signed()),
            (Handshake::AwaitRequest, heartbeat()),
            (challenged(), heartbeat()),
            (challenged(), request("0x0000000000000000000000000000000000000001")),
        ] {
            assert_eq!(state.receive(request).unwrap_err().0, Close::OutOfOrder);
        }
        assert_eq!(Handshake::AwaitRequest.receive(request("me")).unwrap_err().0, Close::AuthRefused);
    }
}
