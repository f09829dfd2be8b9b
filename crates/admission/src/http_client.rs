//! An HTTP client that is built at its first request.

use std::{fmt, sync::OnceLock};

use reqwest::{Client, ClientBuilder};

/// An HTTP client for the one service at a URL, built at its first request.
///
/// Plain HTTP needs no certificates, so it works on a machine without any. Where HTTPS finds none, each
/// request fails with the reason, and the process keeps running.
pub struct HttpClient {
    is_tls: bool,
    configure: fn(ClientBuilder) -> ClientBuilder,
    client: OnceLock<Client>,
}

impl HttpClient {
    /// Creates a client for a service at `url` (`http://…` or `https://…`). `configure` sets the options of
    /// the builder.
    pub fn new(url: &str, configure: fn(ClientBuilder) -> ClientBuilder) -> Self {
        let is_tls = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        Self { is_tls, configure, client: OnceLock::new() }
    }

    /// The client, built on first use.
    ///
    /// # Errors
    ///
    /// The reason why the client cannot be built, for instance a missing certificate store. The next call
    /// tries again.
    pub fn get(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let builder = (self.configure)(Client::builder());
        // For plain HTTP the builder gets an empty list of certificates, so it does not load those of the
        // system.
        let builder = if self.is_tls { builder } else { builder.tls_certs_only([]) };
        let client = builder.build()?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("is_tls", &self.is_tls).finish_non_exhaustive()
    }
}
