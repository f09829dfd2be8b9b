//! The RPC services that clients can call, with the names of `protocol/decentraland/bff`.

use rpc::{Module, Procedure};

/// A procedure of one of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcedureId {
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

const fn procedure(name: &'static str, which: ProcedureId) -> Procedure<ProcedureId> {
    Procedure { name, id: which }
}

/// The only service before the sign-in.
pub(crate) static AUTHENTICATION_SERVICE: Module<ProcedureId> = Module {
    name: "BffAuthenticationService",
    procedures: &[
        procedure("GetChallenge", ProcedureId::GetChallenge),
        procedure("Authenticate", ProcedureId::Authenticate),
        procedure("GetDisconnectionMessage", ProcedureId::GetDisconnectionMessage),
    ],
};

/// The services after the sign-in.
pub(crate) static SIGNED_IN_SERVICES: [Module<ProcedureId>; 3] = [
    Module {
        name: "CommsDirectorService",
        procedures: &[
            procedure("SendHeartbeat", ProcedureId::SendHeartbeat),
            procedure("GetCommsCommands", ProcedureId::GetCommsCommands),
        ],
    },
    Module {
        name: "TopicsService",
        procedures: &[
            procedure("PeerSubscription", ProcedureId::PeerSubscription),
            procedure("SystemSubscription", ProcedureId::SystemSubscription),
            procedure("PublishToTopic", ProcedureId::PublishToTopic),
        ],
    },
    Module {
        name: "CommsService",
        procedures: &[
            procedure("SubscribeToPeerMessages", ProcedureId::SubscribeToPeerMessages),
            procedure("GetPeerMessages", ProcedureId::GetPeerMessages),
            procedure("UnsubscribeToPeerMessages", ProcedureId::UnsubscribeToPeerMessages),
            procedure("SubscribeToSystemMessages", ProcedureId::SubscribeToSystemMessages),
            procedure("GetSystemMessages", ProcedureId::GetSystemMessages),
            procedure("UnsubscribeToSystemMessages", ProcedureId::UnsubscribeToSystemMessages),
            procedure("PublishToTopic", ProcedureId::PublishToTopic),
        ],
    },
];
