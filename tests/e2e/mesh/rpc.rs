//! Members of a mesh over RPC, together with members over the archipelago socket.

use std::time::{Duration, Instant};

use protocol::{
    Address, ConnectionString,
    bff::{
        Packet, PeerRoutingTable, PeerStatus, PeerTopicSubscriptionResultElem, PublishToTopicRequest,
        PublishToTopicResult, Request, SubscriptionRequest,
    },
    mesh::{LinkReport, Plan, signal::Content},
    v3::client_packet,
};
use serde_json::{Value, json};
use test_support::{
    Realm,
    rpc_caller::{Caller, sign_in_with},
    wallet,
};

use super::{FAR, Member, candidate, description, mesh_realm, refused};

pub(super) const PUBLISH: &str = "TopicsService.PublishToTopic";

/// A member of a mesh over RPC that answers no signal.
pub(super) struct RpcMember {
    pub(super) caller: Caller,
    pub(super) address: Address,
    pub(super) island: String,
    /// The stream of its mailbox, and the number of the last element.
    pub(super) mailbox: (u32, u32),
}

impl RpcMember {
    pub(super) async fn join(realm: &Realm, x: f32) -> Self {
        let wallet = wallet();
        let mut caller = sign_in_with(realm, &wallet, &["p2p", "ws-room"]).await;
        let topic = format!("{}.*", wallet.address());
        let mailbox = caller.stream("TopicsService.PeerSubscription", &SubscriptionRequest { topic }).await;
        let commands = caller.stream("CommsDirectorService.GetCommsCommands", &()).await;
        caller.heartbeat(x).await;
        let connection = caller.adapter(commands, 0).await.parse().unwrap();
        let ConnectionString::P2p { island, .. } = connection else { panic!("{connection}") };
        Self { caller, address: wallet.address(), island, mailbox: (mailbox, 0) }
    }

    pub(super) fn publication(to: Address, kind: &str, payload: &[u8]) -> PublishToTopicRequest {
        PublishToTopicRequest { topic: format!("{to}.{kind}"), payload: payload.to_vec().into() }
    }

    async fn send(&mut self, to: Address, kind: &str, payload: &[u8]) {
        let request = Self::publication(to, kind, payload);
        assert!(self.caller.request::<PublishToTopicResult>(PUBLISH, &request).await.ok);
    }

    async fn expect_refusal(&mut self, to: Address, kind: &str, payload: &[u8]) -> String {
        self.caller.call_expecting_error(PUBLISH, &Self::publication(to, kind, payload)).await
    }

    /// The next table with a plan of so many members, from the stream `tables` behind the element `last`.
    async fn table(&mut self, tables: u32, last: &mut u32, members: usize) -> (PeerRoutingTable, Plan) {
        loop {
            let table: PeerRoutingTable = self.caller.element(tables, *last).await;
            *last += 1;
            let plan = table.plan.clone().unwrap();
            if plan.members.len() == members {
                return (table, plan);
            }
        }
    }

    /// The next message in the mailbox: its sender, its kind and its payload.
    async fn received(&mut self) -> (String, String, Vec<u8>) {
        let (stream, last) = self.mailbox;
        self.mailbox.1 += 1;
        let element: PeerTopicSubscriptionResultElem = self.caller.element(stream, last).await;
        let kind = element.topic.strip_prefix(&format!("{}.", self.address)).unwrap().to_owned();
        (element.sender, kind, element.payload.to_vec())
    }

    async fn received_json(&mut self) -> (String, String, Value) {
        let (sender, kind, payload) = self.received().await;
        (sender, kind, serde_json::from_slice(&payload).unwrap())
    }
}

/// A candidate with a public address.
fn public_candidate() -> Value {
    json!({ "candidate": format!("candidate:{}", candidate("203.0.113.7", "host")), "sdpMid": "0" })
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_and_socket_members_exchange_signals() {
    let (realm, _folder) = mesh_realm(&[("P2P__ALLOW_PRIVATE", "false")]);
    let (mut one, mut two) = (RpcMember::join(&realm, 0.0).await, Member::join(&realm, 5.0).await);
    assert_eq!(one.island, two.island);
    let initiates = two.plan(2).await.links[0].initiate;

    let offer = json!({ "type": "offer", "sdp": description(), "negotiation": 7 });
    one.send(two.address, "offer", offer.to_string().as_bytes()).await;
    let signal = two.signal().await;
    assert_eq!((&signal.island_id, &signal.peer), (&two.island, &one.address.to_string()));
    assert_eq!(signal.negotiation, 7);
    let Some(Content::Offer(sdp)) = signal.content else { panic!("{:?}", signal.content) };
    assert!(sdp.contains("203.0.113.7") && !sdp.contains("127.0.0.1"), "{sdp}");
    let answer = json!({ "type": "answer", "sdp": "v=0\r\n" });
    one.send(two.address, "answer", answer.to_string().as_bytes()).await;
    let signal = two.signal().await;
    assert_eq!((signal.negotiation, signal.content), (0, Some(Content::Answer("v=0\r\n".into()))));
    let message = json!({ "candidate": public_candidate(), "initiator": true });
    one.send(two.address, "candidate", message.to_string().as_bytes()).await;
    let Some(Content::Candidate(init)) = two.signal().await.content else { panic!("no candidate") };
    assert_eq!(serde_json::from_str::<Value>(&init).unwrap(), public_candidate());
    one.send(two.address, "fallback", &[0xff, 7]).await;
    assert_eq!(two.signal().await.content, Some(Content::Fallback(vec![0xff, 7].into())));

    let sender = two.address.to_string();
    let island = two.island.clone();
    two.send(one.address, &island, Content::Offer("v=0\r\n".into())).await;
    let expected = json!({ "type": "offer", "sdp": "v=0\r\n", "negotiation": 7 });
    assert_eq!(one.received_json().await, (sender.clone(), "offer".into(), expected));
    two.send(one.address, &island, Content::Answer("v=0\r\n".into())).await;
    let expected = json!({ "type": "answer", "sdp": "v=0\r\n", "negotiation": 7 });
    assert_eq!(one.received_json().await, (sender.clone(), "answer".into(), expected));
    two.send(one.address, &island, Content::Candidate(public_candidate().to_string())).await;
    let expected = json!({ "candidate": public_candidate(), "initiator": initiates, "negotiation": 7 });
    assert_eq!(one.received_json().await, (sender.clone(), "candidate".into(), expected));
    two.send(one.address, &island, Content::Fallback(vec![1, 2].into())).await;
    assert_eq!(one.received().await, (sender, "fallback".into(), vec![1, 2]));
    assert_eq!(realm.count("atoll_gateway_topic_messages_total").await, 0.0, "signals are no topic messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_signals_that_must_not_pass_are_refused() {
    let (realm, _folder) = mesh_realm(&[("P2P__ALLOW_PRIVATE", "false")]);
    let (mut one, mut two) = (RpcMember::join(&realm, 0.0).await, RpcMember::join(&realm, 5.0).await);
    let mut outsider = RpcMember::join(&realm, FAR).await;
    let answer = json!({ "type": "answer", "sdp": "v=0\r\n" }).to_string();
    let no_member = "the sender or the recipient is not a member of this p2p island";
    for (from, to) in [(&mut one, outsider.address), (&mut outsider, two.address)] {
        assert_eq!(from.expect_refusal(to, "answer", answer.as_bytes()).await, no_member);
    }
    let mut guest = sign_in_with(&realm, &wallet(), &["ws-room"]).await;
    let request = RpcMember::publication(one.address, "answer", answer.as_bytes());
    assert_eq!(guest.call_expecting_error(PUBLISH, &request).await, no_member);
    for (kind, payload) in
        [("offer", answer.as_str()), ("answer", "v=0"), ("candidate", "{}"), ("candidate", "[")]
    {
        let refusal = one.expect_refusal(two.address, kind, payload.as_bytes()).await;
        assert!(refusal.starts_with("the payload is not the JSON"), "{refusal}");
    }
    let private = json!({ "candidate": format!("candidate:{}", candidate("::1", "host")) });
    let message = json!({ "candidate": private, "initiator": true }).to_string();
    let refusal = one.expect_refusal(two.address, "candidate", message.as_bytes()).await;
    assert_eq!(refusal, "the candidate must not pass");
    let refusal = one.expect_refusal(two.address, "fallback", &[0; 17_000]).await;
    assert_eq!(refusal, "longer than 16384 bytes");
    // No other client can subscribe to the mailbox.
    let topic = format!("{}.answer", two.address);
    let procedure = "TopicsService.PeerSubscription";
    let refusal = one.caller.call_expecting_error(procedure, &SubscriptionRequest { topic }).await;
    assert_eq!(refusal, "this mailbox is another's");
    let everything = SubscriptionRequest { topic: "*.answer".to_owned() };
    let everything = one.caller.stream(procedure, &everything).await;
    one.caller.acknowledge(everything, 0, false).await;
    // Only this one passes.
    one.send(two.address, "answer", answer.as_bytes()).await;
    let (sender, kind, payload) = two.received().await;
    assert_eq!((sender, kind), (one.address.to_string(), "answer".to_owned()));
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap()["sdp"], "v=0\r\n");
    assert!(one.caller.wire.is_quiet_for(Duration::from_millis(300)).await);
    for (reason, count) in [("candidate", 1.0), ("no-member", 3.0), ("too-long", 1.0), ("malformed", 4.0)] {
        assert_eq!(realm.count(&refused(reason)).await, count, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_rpc_signals_is_throttled() {
    const SIGNALS: u32 = 300;
    let (realm, _folder) = mesh_realm(&[]);
    let (mut one, mut two) = (RpcMember::join(&realm, 0.0).await, Member::join(&realm, 5.0).await);
    let began = Instant::now();
    let mut calls = Vec::new();
    for number in 0..SIGNALS {
        let offer = serde_json::json!({ "type": "offer", "sdp": "v=0\r\n", "negotiation": number + 1 });
        let request = RpcMember::publication(two.address, "offer", offer.to_string().as_bytes());
        calls.push(one.caller.call(PUBLISH, &request).await);
    }
    for number in 0..SIGNALS {
        let signal = two.signal().await;
        assert!(matches!(signal.content, Some(Content::Offer(_))), "{signal:?}");
        assert_eq!(signal.negotiation, number + 1);
    }
    for call in calls {
        assert!(one.caller.response::<PublishToTopicResult>(call).await.ok);
    }
    // 100 pass at once, the others at 100 a second. The rate limit of frames, 20 a second, does not apply.
    let took = began.elapsed();
    assert!((Duration::from_millis(1_800)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_client_without_p2p_is_in_no_mesh() {
    let (realm, _folder) = mesh_realm(&[]);
    let _member = RpcMember::join(&realm, 0.0).await;
    for transports in [&[][..], &["ws-room"]] {
        let mut caller = sign_in_with(&realm, &wallet(), transports).await;
        let commands = caller.stream("CommsDirectorService.GetCommsCommands", &()).await;
        caller.heartbeat(1.0).await;
        let connection = caller.adapter(commands, 0).await;
        assert!(connection.starts_with("ws-room:"), "{connection}");
    }
}

/// A report in which all links of the plan are up.
fn full_report(plan: &Plan) -> LinkReport {
    LinkReport {
        island_id: plan.island_id.clone(),
        version: plan.version,
        connected_to: plan.links.iter().map(|link| link.alias).collect(),
        alias: plan.alias,
        highest_alias: plan.members.iter().map(|member| member.alias).max().unwrap(),
        ..LinkReport::default()
    }
}

fn status(island: &str, connected_to: &[Address]) -> PeerStatus {
    PeerStatus {
        room: island.to_owned(),
        connected_to: connected_to.iter().map(Address::to_string).collect(),
        ..PeerStatus::default()
    }
}

pub(super) const UPDATE: &str = "RoutingService.UpdatePeerStatus";
pub(super) const TABLES: &str = "RoutingService.GetRoutingTable";

#[tokio::test(flavor = "multi_thread")]
async fn reported_links_of_an_rpc_member_count() {
    let (realm, _folder) = mesh_realm(&[("ISLANDS__MOVE_INTERVAL_S", "1")]);
    let mut one = RpcMember::join(&realm, 0.0).await;
    let mut last = 0;
    let tables = one.caller.stream(TABLES, &()).await;
    let again = one.caller.call_expecting_error(TABLES, &()).await;
    assert_eq!(again, "a stream of this procedure is open");
    let mut two = Member::join(&realm, 5.0).await;
    let (table, plan) = one.table(tables, &mut last, 2).await;
    assert_eq!((&plan.island_id, &*table.ice_servers), (&one.island, ""));
    let refusal = one.caller.call_expecting_error(UPDATE, &status("I-other", &[])).await;
    assert_eq!(refusal, "the room is not the island of the newest plan");
    let foreign = LinkReport { island_id: "I-other".to_owned(), ..LinkReport::default() };
    let foreign = PeerStatus { report: Some(foreign), ..PeerStatus::default() };
    let refusal = one.caller.call_expecting_error(UPDATE, &foreign).await;
    assert_eq!(refusal, "the sender or the recipient is not a member of this p2p island");

    let of_two = two.plan(2).await;
    // Without reports that arrive, the mesh fails after 15 s.
    let began = Instant::now();
    let mut with_report = false;
    while began.elapsed() < Duration::from_secs(18) {
        let report = with_report.then(|| full_report(&plan));
        let connected_to = if with_report { &[][..] } else { &[two.address] };
        with_report = !with_report;
        one.caller.request::<()>(UPDATE, &PeerStatus { report, ..status(&one.island, connected_to) }).await;
        two.wire.send_packet(client_packet::Message::MeshLinks(full_report(&of_two))).await;
        two.wire.heartbeat(5.0).await;
        one.caller.heartbeat(0.0).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(realm.count("atoll_director_mesh_failures_total").await, 0.0);
    // Both sides reported the link, so there is a route over it.
    one.caller.acknowledge(tables, last, true).await;
    let tables = one.caller.stream(TABLES, &()).await;
    let (table, plan) = one.table(tables, &mut 0, 2).await;
    assert_eq!(table.paths.len(), 1, "{plan:?}");
    assert_eq!(table.paths[0].peers, [two.address.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messaging_service_carries_fallback_messages() {
    let (realm, _folder) = mesh_realm(&[]);
    let (mut one, mut two) = (RpcMember::join(&realm, 0.0).await, RpcMember::join(&realm, 5.0).await);
    let mut socket = Member::join(&realm, 2.0).await;
    let read = one.caller.stream("MessagingService.Read", &()).await;
    let request = |peers: &[String]| {
        let packet = Some(Packet { source: "forged".to_owned(), payload: b"packet".to_vec().into() });
        Request { peers: peers.to_vec(), packet, reason: 2 }
    };
    let (to_one, to_socket) = (one.address.to_string(), socket.address.to_string());
    let publish = "MessagingService.Publish";
    two.caller.request::<()>(publish, &request(&[to_one.clone(), to_socket.clone()])).await;
    let received: Packet = one.caller.element(read, 0).await;
    assert_eq!((received.source, &received.payload[..]), (two.address.to_string(), &b"packet"[..]));
    let expected = (two.address.to_string(), "fallback".to_owned(), b"packet".to_vec());
    assert_eq!(one.received().await, expected, "in the mailbox, too");
    assert_eq!(socket.signal().await.content, Some(Content::Fallback(b"packet".to_vec().into())));
    let island = socket.island.clone();
    socket.send(one.address, &island, Content::Fallback(b"other".to_vec().into())).await;
    let received: Packet = one.caller.element(read, 1).await;
    assert_eq!((received.source, &received.payload[..]), (to_socket, &b"other"[..]));
    // The members among the recipients receive it, although the call fails.
    let stranger = wallet().address().to_string();
    let refusal = two.caller.call_expecting_error(publish, &request(&[stranger, to_one.clone()])).await;
    assert_eq!(refusal, "the sender or the recipient is not a member of this p2p island");
    assert_eq!(one.caller.element::<Packet>(read, 2).await.source, two.address.to_string());
    for peers in [vec![], vec![to_one; 17]] {
        let refusal = two.caller.call_expecting_error(publish, &request(&peers)).await;
        assert_eq!(refusal, "a message has 1 to 16 recipients");
    }
    assert_eq!(realm.count("atoll_gateway_mesh_signals_total{kind=\"fallback\"}").await, 4.0);
}
