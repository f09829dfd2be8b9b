//! Pages in Chromium as clients.

use std::time::{Duration, SystemTime};

use client::{Address, Dialect, Event, Explorer, Handle, Identity, Position, Settings, Wallet};
use serde_json::{Value, json};
use test_support::{BrowserPage, Realm, TEST_TIMEOUT, network_namespace, wallet};
use tokio::time::{sleep, timeout};

use crate::mesh::mesh_realm;

const PROTOS: [&str; 3] = [
    "decentraland/common/vectors.proto",
    "atoll/mesh.proto",
    "decentraland/kernel/comms/v3/archipelago.proto",
];

/// A member of a mesh on the SDK.
struct SdkMember {
    explorer: Explorer,
    handle: Handle,
    address: Address,
}

impl SdkMember {
    async fn join(realm: &Realm, owner: &Wallet) -> Self {
        let gateway = client::discover(&realm.http, Some(Dialect::Archipelago)).await.unwrap();
        let mut settings = Settings::new(gateway);
        settings.transports = vec!["p2p".to_owned(), "ws-room".to_owned()];
        settings.udp_addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let address = owner.address();
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        let explorer = Explorer::start(settings, Identity::new(owner, wallet(), tomorrow));
        let handle = explorer.handle();
        handle.heartbeat(Position::new(0.0, 0.0, 0.0), None).await;
        Self { explorer, handle, address }
    }

    /// Waits for a message of this sender.
    async fn receive(&mut self, from: Address) -> String {
        let message = async {
            loop {
                match self.explorer.next().await.expect("the client continues") {
                    Event::Message { sender: Some(sender), body, .. } if sender == from => return body,
                    _ => {}
                }
            }
        };
        let body = timeout(TEST_TIMEOUT, message).await.expect("a message in time");
        String::from_utf8(body.to_vec()).unwrap()
    }
}

/// Signs the page in.
async fn sign_in(page: &mut BrowserPage, realm: &Realm, wallet: &Wallet) {
    let address = wallet.address().to_string();
    let challenge = page.call("connect", &[realm.socket().into(), address.clone().into()]).await;
    let auth_chain = wallet.sign_challenge(challenge.as_str().unwrap());
    assert_eq!(page.call("authenticate", &[auth_chain.into(), 1.into()]).await, address);
}

/// Waits for a state of the page.
async fn page_state(page: &mut BrowserPage, accept: impl Fn(&Value) -> bool) -> Value {
    let mut state = Value::Null;
    let accepted = async {
        loop {
            state = page.call("state", &[]).await;
            if accept(&state) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let is_accepted = timeout(TEST_TIMEOUT, accepted).await.is_ok();
    assert!(is_accepted, "{state:#}");
    state
}

/// In a mesh of three, the page makes the offer to one member, and answers that of the other: the higher address offers.
#[tokio::test(flavor = "multi_thread")]
async fn page_is_a_member_of_a_mesh() {
    if !network_namespace::enter("browser::page_is_a_member_of_a_mesh") {
        return;
    }
    let (realm, _folder) = mesh_realm(&[]);
    let mut wallets = [wallet(), wallet(), wallet()];
    wallets.sort_by_key(Wallet::address);
    let [low, own, high] = wallets;
    let mut page = BrowserPage::open("mesh_member.js", &PROTOS);
    sign_in(&mut page, &realm, &own).await;
    let mut members = [SdkMember::join(&realm, &low).await, SdkMember::join(&realm, &high).await];
    // Its links are up, and the plan routes its messages over them.
    let is_routed = |state: &Value| state["routed"].as_array().is_some_and(|routed| routed.len() == 2);
    let state = page_state(&mut page, is_routed).await;
    assert!(state["connection"].as_str().unwrap().starts_with("p2p:"), "{state}");
    // More than one if an attempt took too long.
    let [offered, answered] = ["offered", "answered"].map(|count| state[count].as_u64().unwrap());
    assert!(offered >= 1 && answered >= 1, "{state}");
    for (number, (label, unreliable)) in [("data", false), ("lossy", true)].into_iter().enumerate() {
        page.call("publish", &[format!("from the page {number}").into(), label.into()]).await;
        for member in &mut members {
            assert_eq!(member.receive(own.address()).await, format!("from the page {number}"));
        }
        for member in &members {
            member.handle.send(format!("to the page {number}").into(), unreliable).await;
        }
        let expected = members.each_ref().map(|member| {
            json!({ "from": member.address.to_string(), "text": format!("to the page {number}"), "label": label })
        });
        page_state(&mut page, |state| {
            let received = state["received"].as_array();
            received.is_some_and(|received| expected.iter().all(|message| received.contains(message)))
        })
        .await;
    }
}
