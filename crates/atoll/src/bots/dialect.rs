//! What bots speak with their gateways, and where those are.

use client::{Dialect, Gateway, RealmError};

/// What `--dialect` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum DialectFlag {
    /// The archipelago socket.
    #[default]
    Archipelago,
    /// dcl-rpc.
    Rpc,
    /// Both, in turn.
    Mixed,
}

/// The gateways of a realm, by what is spoken there.
#[derive(Debug)]
pub(crate) struct Gateways(Vec<(Dialect, Vec<String>)>);

impl Gateways {
    /// Asks a realm, at all of its gateways: each has to answer.
    pub(crate) async fn discover(realms: &[String], spoken: DialectFlag) -> Result<Self, RealmError> {
        let dialects: &[Dialect] = match spoken {
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

    /// Where all of them are.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, urls)| urls).map(String::as_str)
    }

    /// Those of a bot: they take turns in what they speak, and of those who speak alike in which gateway
    /// they go to first.
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
        let spoken =
            vec![(Dialect::Archipelago, urls(&["a", "b", "c"])), (Dialect::Rpc, urls(&["d", "e", "f"]))];
        let gateways = Gateways(spoken);
        let of_bots: Vec<String> = (0..6)
            .map(|index| gateways.for_bot(index))
            .map(|gateway| gateway.url + &gateway.other_urls.concat())
            .collect();
        assert_eq!(of_bots, ["abc", "def", "bca", "efd", "cab", "fde"]);
    }
}
