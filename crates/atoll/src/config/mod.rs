//! Configuration: read, checked as a whole, and handed to each role in its own types.

mod load;
mod nodes;
mod roles;
mod settings;
mod transports;

pub(crate) use load::{Sources, load};
pub(crate) use roles::Parsed;
pub(crate) use settings::Settings;

/// The settings as a TOML file, with secrets hidden.
pub(crate) fn print(settings: &Settings) -> String {
    let mut settings = settings.clone();
    let secrets = [&mut settings.rooms.token_secrets, &mut settings.p2p.turn_secret]
        .into_iter()
        .chain(settings.livekit.values_mut().map(|livekit| &mut livekit.api_secret));
    secrets.filter(|secret| !secret.is_empty()).for_each(|secret| *secret = "(hidden)".to_owned());
    toml::to_string(&settings).unwrap_or_default()
}
