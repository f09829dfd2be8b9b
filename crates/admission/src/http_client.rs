use std::{fmt, sync::OnceLock};

use reqwest::{Client, ClientBuilder};

/// An HTTP client for the one service at a URL, built at its first request.
///
/// Plain HTTP needs no certificates, so that it works on a machine without any. Where HTTPS finds none,
/// each request fails with the reason, and the process lives on.
pub struct HttpClient {
    is_tls: bool,
    configure: fn(ClientBuilder) -> ClientBuilder,
    client: OnceLock<Client>,
}

impl HttpClient {
    /// A client for a service at `url` (`http://…` or `https://…`), with these options.
    pub fn new(url: &str, configure: fn(ClientBuilder) -> ClientBuilder) -> Self {
        let is_tls = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        Self { is_tls, configure, client: OnceLock::new() }
    }

    /// The client. The error says why there is none, and is tried again with the next request.
    pub fn get(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let builder = (self.configure)(Client::builder());
        // Without certificates to look for, the builder does not ask the system for them.
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
