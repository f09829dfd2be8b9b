//! The order in which the gateways of a realm are tried.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Gateway, backoff::MAX_RETRY_AFTER};

/// The gateways of a realm, tried in turn.
#[derive(Debug)]
pub(crate) struct GatewayRotation {
    gateways: Vec<GatewayEntry>,
    current: usize,
}

#[derive(Debug)]
struct GatewayEntry {
    url: String,
    /// The end of the gateway's last `Retry-After`.
    not_before: Option<Instant>,
}

impl GatewayRotation {
    /// Begins at the first gateway.
    pub(crate) fn new(gateway: &Gateway) -> Self {
        let urls = [&gateway.url].into_iter().chain(&gateway.other_urls);
        Self {
            gateways: urls.map(|url| GatewayEntry { url: url.clone(), not_before: None }).collect(),
            current: 0,
        }
    }

    /// The URL of the current gateway.
    pub(crate) fn url(&self) -> &str {
        &self.gateways[self.current].url
    }

    /// Moves on after the current gateway failed, perhaps with a `Retry-After`. Selects the other gateway
    /// that may be tried soonest, or the same one if there is no other. Returns the time to wait because of
    /// the `Retry-After` of the selected gateway.
    pub(crate) fn advance(&mut self, retry_after: Option<Duration>, now: Instant) -> Option<Duration> {
        self.gateways[self.current].not_before = retry_after.map(|after| now + after.min(MAX_RETRY_AFTER));
        let count = self.gateways.len();
        let wait_of = |index: usize| {
            let until = self.gateways[index].not_before?;
            Some(until.saturating_duration_since(now)).filter(|left| !left.is_zero())
        };
        let others = (1..count).map(|step| (self.current + step) % count);
        // `min_by_key` returns the first of equal gateways.
        self.current = others.min_by_key(|&index| wait_of(index)).unwrap_or(self.current);
        wait_of(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dialect;

    const SECOND: Duration = Duration::from_secs(1);

    fn rotation(urls: &[&str]) -> GatewayRotation {
        let mut urls = urls.iter().map(|&url| url.to_owned());
        let (dialect, url) = (Dialect::default(), urls.next().unwrap());
        GatewayRotation::new(&Gateway { dialect, url, other_urls: urls.collect() })
    }

    #[test]
    fn rotation_visits_every_gateway_in_turn() {
        let (mut rotation, now) = (rotation(&["a", "b", "c"]), Instant::now());
        let mut tried = String::new();
        for _ in 0..7 {
            tried.push_str(rotation.url());
            assert_eq!(rotation.advance(None, now), None);
        }
        assert_eq!(tried, "abcabca");
    }

    #[test]
    fn gateway_with_retry_after_is_skipped_while_others_remain() {
        let (mut rotation, now) = (rotation(&["a", "b", "c"]), Instant::now());
        assert_eq!(rotation.advance(Some(9 * SECOND), now), None);
        assert_eq!(rotation.url(), "b");
        rotation.advance(None, now);
        rotation.advance(None, now + SECOND);
        assert_eq!(rotation.url(), "b", "after c");
        assert_eq!(rotation.advance(Some(4 * SECOND), now + SECOND), None);
        assert_eq!(rotation.advance(Some(20 * SECOND), now + 2 * SECOND), Some(3 * SECOND));
        assert_eq!(rotation.url(), "b", "it may be tried before the others");
        assert_eq!(rotation.advance(None, now + 10 * SECOND), None);
        assert_eq!(rotation.url(), "a", "its retry-after has passed");
    }

    #[test]
    fn only_gateway_is_retried_after_its_retry_after() {
        let (mut rotation, now) = (rotation(&["a"]), Instant::now());
        assert_eq!(rotation.advance(Some(SECOND), now), Some(SECOND));
        assert_eq!(rotation.advance(Some(Duration::MAX), now), Some(MAX_RETRY_AFTER));
        assert_eq!((rotation.advance(None, now), rotation.url()), (None, "a"));
    }
}
