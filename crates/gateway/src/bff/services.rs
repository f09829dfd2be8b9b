//! The services that clients find, under the names of `protocol/decentraland/bff`.

use rpc::{Module, Procedure};

/// A procedure of some service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    GetChallenge,
    Authenticate,
    GetDisconnectionMessage,
    SendHeartbeat,
    GetCommsCommands,
}

const fn procedure(name: &'static str, which: Call) -> Procedure<Call> {
    Procedure { name, which }
}

/// The only service there is before somebody has signed in.
pub(crate) static AUTHENTICATION: Module<Call> = Module {
    name: "BffAuthenticationService",
    procedures: &[
        procedure("GetChallenge", Call::GetChallenge),
        procedure("Authenticate", Call::Authenticate),
        procedure("GetDisconnectionMessage", Call::GetDisconnectionMessage),
    ],
};

/// The services for those who have.
pub(crate) static SIGNED_IN: [Module<Call>; 1] = [Module {
    name: "CommsDirectorService",
    procedures: &[
        procedure("SendHeartbeat", Call::SendHeartbeat),
        procedure("GetCommsCommands", Call::GetCommsCommands),
    ],
}];
