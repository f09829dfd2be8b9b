//! What bots speak with their gateway.

use client::{Dialect, Gateway, RealmError};

/// What `--dialect` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Spoken {
    /// The archipelago socket.
    #[default]
    Archipelago,
    /// dcl-rpc.
    Rpc,
    /// Both, in turn.
    Mixed,
}

/// Where the gateway of each bot is.
#[derive(Debug)]
pub(crate) struct Gateways(Vec<Gateway>);

impl Gateways {
    /// Asks a realm.
    pub(crate) async fn discover(realm: &str, spoken: Spoken) -> Result<Self, RealmError> {
        let dialects: &[Dialect] = match spoken {
            Spoken::Archipelago => &[Dialect::Archipelago],
            Spoken::Rpc => &[Dialect::Rpc],
            Spoken::Mixed => &[Dialect::Archipelago, Dialect::Rpc],
        };
        let mut gateways = Vec::new();
        for &dialect in dialects {
            gateways.push(client::discover(realm, Some(dialect)).await?);
        }
        Ok(Self(gateways))
    }

    pub(crate) fn all(&self) -> &[Gateway] {
        &self.0
    }

    pub(crate) fn of_bot(&self, index: usize) -> &Gateway {
        &self.0[index % self.0.len()]
    }
}
