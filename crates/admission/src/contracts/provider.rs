//! Calls of contract wallets' `isValidSignature(bytes32,bytes)` through an Ethereum node's JSON-RPC API.

use std::{fmt, time::Duration};

use identity::{
    ContractResponseError, ContractSignature, MAX_CONTRACT_RESPONSE_BYTES, parse_contract_response,
};
use protocol::Address;
use reqwest::{StatusCode, header, redirect};
use serde_json::json;

use crate::http_client::HttpClient;

/// The Ethereum node. Its URL often contains an API key, and is never printed.
pub(crate) struct Provider {
    client: HttpClient,
    url: String,
}

/// The reason why a call has no answer. Contains neither text from the provider nor its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error("it cannot be reached, or the connection broke")]
    Unreachable,
    #[error("no HTTPS client can be made: this machine has no certificates to trust")]
    NoClient,
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("it is asked too often")]
    RateLimited(Option<Duration>),
    #[error(transparent)]
    Answer(ContractResponseError),
}

/// Gas limit of a call, because the client chooses the contract. Wallets need some ten thousand, with
/// passkeys a few hundred thousand.
const MAX_GAS: u64 = 10_000_000;

impl Provider {
    /// Creates a provider for the node at this URL.
    pub(crate) fn new(url: String) -> Self {
        // Redirects are not followed: their target would receive the API key.
        let client = HttpClient::new(&url, |builder| builder.redirect(redirect::Policy::none()));
        Self { client, url }
    }

    /// Whether the contract accepts the signature as its own.
    pub(crate) async fn is_valid(&self, signature: &ContractSignature) -> Result<bool, ProviderError> {
        for data in signature.call_data() {
            if self.call(signature.contract, &data).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn call(&self, contract: Address, data: &[u8]) -> Result<bool, ProviderError> {
        let call = json!({
            "to": contract,
            "data": format!("0x{}", hex::encode(data)),
            "gas": format!("{MAX_GAS:#x}"),
        });
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]});
        let unreachable = |_| ProviderError::Unreachable;
        let client = self.client.get().map_err(|error| {
            tracing::warn!(error = %error.without_url(), "no client for the Ethereum node");
            ProviderError::NoClient
        })?;
        let mut response = client.post(&self.url).json(&request).send().await.map_err(unreachable)?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_CONTRACT_RESPONSE_BYTES {
                break;
            }
        }
        parse_contract_response(status.is_success(), &body).map_err(|error| match error {
            _ if status == StatusCode::TOO_MANY_REQUESTS => ProviderError::RateLimited(retry_after),
            ContractResponseError::RateLimited(_) => ProviderError::RateLimited(retry_after),
            ContractResponseError::Malformed if !status.is_success() => {
                ProviderError::Status(status.as_u16())
            }
            error => ProviderError::Answer(error),
        })
    }
}

/// The pause that the node requests in seconds (`Retry-After`). A date, which HTTP also allows, is ignored:
/// it would depend on two clocks.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider(..)")
    }
}
