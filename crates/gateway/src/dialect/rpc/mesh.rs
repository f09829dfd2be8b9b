//! The calls and messages of the dialect that concern the mesh of the session's island.

use bytes::Bytes;
use protocol::{Address, Message as _, Topic, bff::PublishToTopicResult};
use rpc::ErrorCode;
use tokio::time::Instant;

use super::RpcDialect;
use crate::{
    dialect::ClientRequest,
    mesh::{
        refusal::MeshRefusal,
        topics::{SignalKind, decode_payload},
    },
    session::message::MeshMessage,
    topics::peer_element,
};

impl RpcDialect {
    /// Publishes a signal in the mailbox of another member. It is no topic message: it is forwarded as a signal, or
    /// the call is rejected.
    pub(super) fn publish_signal(
        &mut self,
        number: u32,
        (recipient, kind): (Address, SignalKind),
        payload: Bytes,
        now: Instant,
    ) -> Option<ClientRequest> {
        let length = payload.len();
        let signal = decode_payload(kind, payload).and_then(|(negotiation, content)| {
            self.mesh.signal(&recipient.to_string(), negotiation, content)
        });
        match signal {
            Ok(signal) => {
                let read_at = self.mesh.charge(length, now);
                let response = PublishToTopicResult { ok: true }.encode_to_vec().into();
                self.mesh.begin_forwarding(number, response);
                Some(ClientRequest::MeshSignals { signals: vec![signal], read_at })
            }
            Err(refusal) => {
                refusal.count_signal();
                self.reject_mesh_call(number, refusal);
                None
            }
        }
    }

    /// Answers the call that sent the signals or the report that were handled.
    pub(super) fn end_mesh_call(&mut self, result: Result<(), MeshRefusal>) {
        let Some((number, response)) = self.mesh.end_forwarding() else { return };
        match result {
            Ok(()) => self.connection.respond(number, response),
            Err(refusal) => self.reject_mesh_call(number, refusal),
        }
    }

    fn reject_mesh_call(&mut self, number: u32, refusal: MeshRefusal) {
        let code = match refusal {
            MeshRefusal::NoMember | MeshRefusal::Candidate => ErrorCode::Refused,
            _ => ErrorCode::BadPayload,
        };
        self.reject_call(number, code, &refusal.to_string());
    }

    /// Passes a message about the mesh on to the streams of the client.
    pub(super) fn deliver_mesh_message(&mut self, message: &MeshMessage) {
        match message {
            MeshMessage::Signal(signal) => self.deliver_signal(signal.clone()),
            MeshMessage::Plan(plan) => self.mesh.receive_plan(plan.clone()),
            MeshMessage::IceServers(_) => {}
        }
    }

    /// Passes a signal on to the subscriptions to its topic in the client's mailbox.
    fn deliver_signal(&mut self, signal: Bytes) {
        let Some(message) = self.mesh.receive_signal(signal) else { return };
        let Some(owner) = self.peer else { return };
        let topic: Result<Topic, _> = format!("{owner}.{}", message.kind.as_str()).parse();
        if let Ok(topic) = topic {
            let element = || peer_element(Some(message.sender), &topic, &message.payload);
            self.subscriptions.signal_received(&topic, element);
        }
    }
}
