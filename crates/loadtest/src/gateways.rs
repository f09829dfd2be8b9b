//! The dialects that bots use, and the gateways of the realm for each.

use client::{Dialect, Gateway, RealmError};

/// The value of `--dialect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum DialectFlag {
    /// The archipelago socket.
    #[default]
    Archipelago,
    /// dcl-rpc.
    Rpc,
    /// Both: bots alternate.
    Mixed,
}

/// The URLs of a realm's gateways, by dialect.
#[derive(Debug)]
pub(crate) struct Gateways(Vec<(Dialect, Vec<String>)>);

impl Gateways {
    /// Discovers the realm through all of its gateways. Each has to respond.
    pub(crate) async fn discover(realms: &[String], dialect: DialectFlag) -> Result<Self, RealmError> {
        let dialects: &[Dialect] = match dialect {
            DialectFlag::Archipelago => &[Dialect::Archipelago],
            DialectFlag::Rpc => &[Dialect::Rpc],
            DialectFlag::Mixed => &[Dialect::Archipelago, Dialect::Rpc],
        };
        let mut gateways = Vec::new();
        for &dialect in dialects {
            let mut urls = Vec::new();
            for realm in realms {
                urls.push(client::discover(realm, Some(dialect)).await?.url);
            }
            gateways.push((dialect, urls));
        }
        Ok(Self(gateways))
    }

    /// The URLs of all gateways.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, urls)| urls).map(String::as_str)
    }

    /// The gateways of one bot, in its order of preference. Bots alternate between dialects; bots of
    /// one dialect start at different gateways in turn.
    pub(crate) fn for_bot(&self, index: usize) -> Gateway {
        let (dialect, urls) = &self.0[index % self.0.len()];
        let mut urls = urls.clone();
        let first = index / self.0.len() % urls.len();
        urls.rotate_left(first);
        let url = urls.remove(0);
        Gateway { other_urls: urls, ..Gateway::new(*dialect, url) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bots_spread_over_dialects_and_gateways() {
        let urls = |urls: &[&str]| urls.iter().map(|&url| url.to_owned()).collect::<Vec<_>>();
        let dialect =
            vec![(Dialect::Archipelago, urls(&["a", "b", "c"])), (Dialect::Rpc, urls(&["d", "e", "f"]))];
        let gateways = Gateways(dialect);
        let of_bots: Vec<String> = (0..6)
            .map(|index| gateways.for_bot(index))
            .map(|gateway| gateway.url + &gateway.other_urls.concat())
            .collect();
        assert_eq!(of_bots, ["abc", "def", "bca", "efd", "cab", "fde"]);
    }
}
