use rustls::crypto::{CryptoProvider, ring};

/// Has a provider for TLS where the program has not chosen one: without, whoever speaks TLS panics.
pub(crate) fn install_default_provider() {
    if CryptoProvider::get_default().is_none() {
        // Whoever was faster has done it.
        let _ = ring::default_provider().install_default();
    }
}
