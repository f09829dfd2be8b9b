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
    PeerSubscription,
    SystemSubscription,
    PublishToTopic,
    SubscribeToPeerMessages,
    GetPeerMessages,
    UnsubscribeToPeerMessages,
    SubscribeToSystemMessages,
    GetSystemMessages,
    UnsubscribeToSystemMessages,
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
pub(crate) static SIGNED_IN: [Module<Call>; 3] = [
    Module {
        name: "CommsDirectorService",
        procedures: &[
            procedure("SendHeartbeat", Call::SendHeartbeat),
            procedure("GetCommsCommands", Call::GetCommsCommands),
        ],
    },
    Module {
        name: "TopicsService",
        procedures: &[
            procedure("PeerSubscription", Call::PeerSubscription),
            procedure("SystemSubscription", Call::SystemSubscription),
            procedure("PublishToTopic", Call::PublishToTopic),
        ],
    },
    Module {
        name: "CommsService",
        procedures: &[
            procedure("SubscribeToPeerMessages", Call::SubscribeToPeerMessages),
            procedure("GetPeerMessages", Call::GetPeerMessages),
            procedure("UnsubscribeToPeerMessages", Call::UnsubscribeToPeerMessages),
            procedure("SubscribeToSystemMessages", Call::SubscribeToSystemMessages),
            procedure("GetSystemMessages", Call::GetSystemMessages),
            procedure("UnsubscribeToSystemMessages", Call::UnsubscribeToSystemMessages),
            procedure("PublishToTopic", Call::PublishToTopic),
        ],
    },
];
