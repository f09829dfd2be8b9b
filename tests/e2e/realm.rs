//! The realm's `/about`, and the signed login to its fixed room.

mod about;
mod logins;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, http::StatusCode, routing::get};
use identity::{Headers, Identity, Wallet, fetch_headers, fetch_payload};
use protocol::{Close, ConnectionString, rfc5::ws_packet::Message};
use serde_json::{Value, json};
use test_support::{
    Cluster, Realm, TEST_TIMEOUT, eventually, free_address,
    signed_login::{METADATA, login_request, signed},
    wallet,
    wire::{Wire, enter, next_update, sign_in},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::ethereum::{ContractWallet, Ethereum};

const PLAZA: [(&str, &str); 2] = [("REALM__FIXED_ROOM", "plaza"), ("REALM__FIXED_ADAPTER", "signed-login")];

/// A realm that sends all clients to one room. Returns when the room can be entered.
async fn plaza(settings: &[(&str, &str)]) -> Realm {
    let realm = Realm::start(&[&PLAZA, settings].concat());
    eventually("ready", async || realm.get("/health/ready").await.status() == 200).await;
    eventually("the room is there", async || log_in(&realm, &wallet()).await.0 == 200).await;
    realm
}

async fn post(realm: &Realm, headers: &Headers) -> (u16, Value) {
    post_with(realm, headers, String::new()).await
}

async fn post_with(realm: &Realm, headers: &Headers, body: String) -> (u16, Value) {
    let response = login_request(realm, headers).body(body).send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    (response.status().as_u16(), response.json().await.unwrap())
}

/// A signed login in the form of clients before August 2026, which signed the payload all in lower case.
fn lowercased(wallet: &Wallet, metadata: &str, at: SystemTime) -> Headers {
    let timestamp = protocol::unix_ms(at);
    let payload = fetch_payload("POST", "/signed-login", timestamp, metadata).to_lowercase();
    let links: Vec<identity::Link> = serde_json::from_str(&wallet.sign_challenge(&payload)).unwrap();
    fetch_headers(&links, timestamp, metadata)
}

async fn log_in(realm: &Realm, wallet: &Wallet) -> (u16, Value) {
    post(realm, &signed(wallet, METADATA, SystemTime::now())).await
}

/// The URL of the room that a login grants.
fn room(realm: &Realm, (status, answer): (u16, Value)) -> String {
    assert_eq!(status, 200, "{answer}");
    let connection: ConnectionString = answer["fixedAdapter"].as_str().unwrap().parse().unwrap();
    let url = connection.room_url().unwrap();
    assert!(url.starts_with(&format!("{}/rooms/plaza?access_token=", realm.ws)), "{url}");
    url
}

async fn refused(realm: &Realm, headers: &Headers) -> (u16, String) {
    let (status, answer) = post(realm, headers).await;
    (status, answer["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}
