//! Configuration: loads it, validates it as a whole, and converts it to each role's own settings types.

mod bus;
mod island_names;
mod listener;
mod load;
mod nodes;
mod realm;
mod roles;
mod secrets;
mod settings;
mod transports;
mod urls;

pub(crate) use load::{Sources, environment, load};
pub(crate) use roles::ValidatedSettings;
pub(crate) use settings::Settings;

/// The settings as a TOML file, with secrets hidden.
pub(crate) fn print(settings: &Settings) -> String {
    let mut settings = settings.clone();
    let Settings { bus, rooms, p2p, identity, livekit, stats, .. } = &mut settings;
    bus::hide_secrets(bus);
    let secrets =
        [&mut rooms.token_secrets, &mut p2p.turn_secret, &mut identity.ethereum_rpc_url, &mut stats.token];
    let secrets = secrets.into_iter().chain(livekit.values_mut().map(|livekit| &mut livekit.api_secret));
    secrets.filter(|secret| !secret.is_empty()).for_each(|secret| *secret = "(hidden)".to_owned());
    toml::to_string(&settings).unwrap_or_default()
}
