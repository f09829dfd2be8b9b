use std::time::Duration;

use protocol::ConnectionString;
use serde::Deserialize;

/// Why a realm's socket was not found.
#[derive(Debug, thiserror::Error)]
pub enum RealmError {
    /// `/about` did not answer, or not with the JSON that it should.
    #[error("{url}: {source}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The realm offers something else than an archipelago socket.
    #[error("the realm's adapter is {0:?}, which is no archipelago socket")]
    OtherAdapter(String),
}

#[derive(Deserialize)]
struct About {
    comms: Comms,
}

#[derive(Deserialize)]
struct Comms {
    adapter: String,
}

/// Asks a realm (`http://host:port`) where its archipelago socket is, as explorers do (ADR-110).
pub async fn discover(realm: &str) -> Result<String, RealmError> {
    let url = format!("{}/about", realm.trim_end_matches('/'));
    let about: About = async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        client.get(&url).send().await?.json().await
    }
    .await
    .map_err(|source| RealmError::Unreachable { url, source })?;
    match about.comms.adapter.parse() {
        Ok(ConnectionString::Archipelago { url }) => Ok(url),
        _ => Err(RealmError::OtherAdapter(about.comms.adapter)),
    }
}
