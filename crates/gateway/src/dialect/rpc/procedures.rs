//! The RPC services that clients can call, with the names of `protocol/decentraland/bff`.

use rpc::{Module, Procedure};

use crate::topics::PublisherKind::{self, Peers, System};

/// A procedure of one of the services. Procedures that differ only in the publishers share a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcedureId {
    GetChallenge,
    Authenticate,
    GetDisconnectionMessage,
    SendHeartbeat,
    GetCommsCommands,
    PublishToTopic,
    /// A procedure that concerns the mesh of the session's island.
    Mesh(MeshProcedure),
    /// Responds with a stream of the messages under a topic.
    SubscribeStream(PublisherKind),
    /// Responds with the id of a new subscription.
    Subscribe(PublisherKind),
    /// Responds with a stream of the messages of an existing subscription.
    OpenStream(PublisherKind),
    /// Cancels a subscription and ends its stream, if it has one.
    Unsubscribe(PublisherKind),
}

/// A procedure of `RoutingService` or `MessagingService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MeshProcedure {
    UpdatePeerStatus,
    GetRoutingTable,
    Publish,
    Read,
}

const fn procedure(name: &'static str, id: ProcedureId) -> Procedure<ProcedureId> {
    Procedure { name, id }
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
pub(crate) static SIGNED_IN_SERVICES: [Module<ProcedureId>; 5] = [
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
            procedure("PeerSubscription", ProcedureId::SubscribeStream(Peers)),
            procedure("SystemSubscription", ProcedureId::SubscribeStream(System)),
            procedure("PublishToTopic", ProcedureId::PublishToTopic),
        ],
    },
    Module {
        name: "CommsService",
        procedures: &[
            procedure("SubscribeToPeerMessages", ProcedureId::Subscribe(Peers)),
            procedure("GetPeerMessages", ProcedureId::OpenStream(Peers)),
            procedure("UnsubscribeToPeerMessages", ProcedureId::Unsubscribe(Peers)),
            procedure("SubscribeToSystemMessages", ProcedureId::Subscribe(System)),
            procedure("GetSystemMessages", ProcedureId::OpenStream(System)),
            procedure("UnsubscribeToSystemMessages", ProcedureId::Unsubscribe(System)),
            procedure("PublishToTopic", ProcedureId::PublishToTopic),
        ],
    },
    Module {
        name: "RoutingService",
        procedures: &[
            procedure("UpdatePeerStatus", ProcedureId::Mesh(MeshProcedure::UpdatePeerStatus)),
            procedure("GetRoutingTable", ProcedureId::Mesh(MeshProcedure::GetRoutingTable)),
        ],
    },
    Module {
        name: "MessagingService",
        procedures: &[
            procedure("Publish", ProcedureId::Mesh(MeshProcedure::Publish)),
            procedure("Read", ProcedureId::Mesh(MeshProcedure::Read)),
        ],
    },
];
