//! The calls and messages of the dialect that concern the mesh of the session's island.

use bytes::Bytes;
use protocol::{Address, Message, Topic, bff::PublishToTopicResult, mesh::Signal};
use tokio::time::Instant;

use super::{RpcDialect, mesh_session::MeshCallError, procedures::MeshProcedure};
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
        let response = PublishToTopicResult { ok: true };
        let request = signal.and_then(|signal| self.forward(number, vec![signal], length, &response, now));
        request.map_err(|refusal| self.refuse(number, refusal)).ok()
    }

    pub(super) fn handle_mesh_call(
        &mut self,
        number: u32,
        procedure: MeshProcedure,
        payload: Bytes,
        now: Instant,
    ) -> Option<ClientRequest> {
        let result = match procedure {
            MeshProcedure::UpdatePeerStatus => {
                let status = self.decode_argument(number, payload)?;
                self.mesh.report(status).map(|report| {
                    self.mesh.begin_forwarding(number, Bytes::new());
                    Some(ClientRequest::MeshLinks(report))
                })
            }
            MeshProcedure::Publish => {
                let length = payload.len();
                let request = self.decode_argument(number, payload)?;
                let signals = self.mesh.fallbacks(request);
                signals.and_then(|signals| Ok(Some(self.forward(number, signals, length, &(), now)?)))
            }
            MeshProcedure::GetRoutingTable => self.mesh.open_tables(number).map(|()| None),
            MeshProcedure::Read => self.mesh.open_fallbacks(number).map(|()| None),
        };
        match (result, procedure) {
            (Ok(request), MeshProcedure::UpdatePeerStatus | MeshProcedure::Publish) => request,
            (Ok(_), MeshProcedure::GetRoutingTable | MeshProcedure::Read) => {
                self.connection.open_stream(number);
                None
            }
            (Err(error), _) => {
                if let MeshCallError::Refused(refusal) = error {
                    refusal.count_signal();
                }
                self.reject_mesh_call(number, &error);
                None
            }
        }
    }

    /// Forwards the signals of a call, each of about `length` bytes. The call is answered with `response` once they are
    /// forwarded.
    fn forward(
        &mut self,
        number: u32,
        signals: Vec<Signal>,
        length: usize,
        response: &impl Message,
        now: Instant,
    ) -> Result<ClientRequest, MeshRefusal> {
        let read_at = self.mesh.charge(&signals, length, now)?;
        self.mesh.begin_forwarding(number, response.encode_to_vec().into());
        Ok(ClientRequest::MeshSignals { signals, read_at })
    }

    fn refuse(&mut self, number: u32, refusal: MeshRefusal) {
        refusal.count_signal();
        self.reject_mesh_call(number, &refusal.into());
    }

    /// Answers the call that sent the signals or the report that were handled.
    pub(super) fn end_mesh_call(&mut self, result: Result<(), MeshRefusal>) {
        let Some((number, response)) = self.mesh.end_forwarding() else { return };
        match result {
            Ok(()) => self.connection.respond(number, response),
            Err(refusal) => self.reject_mesh_call(number, &refusal.into()),
        }
    }

    fn reject_mesh_call(&mut self, number: u32, error: &MeshCallError) {
        self.reject_call(number, error.code(), &error.to_string());
    }

    /// Passes a message about the mesh on to the streams of the client.
    pub(super) fn deliver_mesh_message(&mut self, message: &MeshMessage) {
        match message {
            MeshMessage::Signal(signal) => self.deliver_signal(signal.clone()),
            MeshMessage::Plan(plan) => self.mesh.receive_plan(plan.clone()),
            MeshMessage::IceServers(servers) => self.mesh.receive_ice_servers(servers),
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
