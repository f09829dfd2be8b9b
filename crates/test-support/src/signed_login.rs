//! Requests for the signed login of a realm.

use std::time::SystemTime;

use identity::{Headers, Wallet};

use crate::Realm;

/// Metadata of a signed login that realms accept.
pub const METADATA: &str =
    r#"{"intent":"dcl:explorer:comms-handshake","signer":"dcl:explorer","isGuest":false}"#;

/// A signed login that is not sent yet.
pub fn login_request(realm: &Realm, headers: &Headers) -> reqwest::RequestBuilder {
    let request = reqwest::Client::new().post(format!("{}/signed-login", realm.http));
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// The headers of a signed login with this metadata, signed at this time.
pub fn signed(wallet: &Wallet, metadata: &str, at: SystemTime) -> Headers {
    wallet.sign_fetch("POST", "/signed-login", metadata, at)
}
