//! The API key of a LiveKit server.

use std::fmt;

/// The API key and secret of a LiveKit server.
#[derive(Clone)]
pub struct Keys {
    pub(crate) api_key: String,
    pub(crate) api_secret: String,
}

impl Keys {
    /// A key and its secret, as in the server's configuration.
    pub fn new(api_key: impl Into<String>, api_secret: impl Into<String>) -> Self {
        Self { api_key: api_key.into(), api_secret: api_secret.into() }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is left out.
        f.debug_struct("Keys").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}
