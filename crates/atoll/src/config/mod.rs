//! Configuration: read, checked as a whole, and handed to each role in its own types.

mod load;
mod roles;
mod settings;

pub(crate) use load::{Sources, load};
pub(crate) use roles::Parsed;
pub(crate) use settings::Settings;

/// The settings as a TOML file, with secrets hidden.
pub(crate) fn print(settings: &Settings) -> String {
    let mut settings = settings.clone();
    if !settings.rooms.token_secrets.is_empty() {
        settings.rooms.token_secrets = "(hidden)".to_owned();
    }
    toml::to_string(&settings).unwrap_or_default()
}
