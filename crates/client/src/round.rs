//! Which gateway of a realm is tried next.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Gateway, pause::LONGEST_ASKED_FOR};

/// The gateways of a realm, one after the other, again and again.
#[derive(Debug)]
pub(crate) struct Round {
    doors: Vec<Door>,
    present: usize,
}

#[derive(Debug)]
struct Door {
    url: String,
    /// Until then it asked not to be tried again.
    shut_until: Option<Instant>,
}

impl Round {
    /// Begins at the first.
    pub(crate) fn new(gateway: &Gateway) -> Self {
        let urls = [&gateway.url].into_iter().chain(&gateway.others);
        Self { doors: urls.map(|url| Door { url: url.clone(), shut_until: None }).collect(), present: 0 }
    }

    /// Where the present one is.
    pub(crate) fn url(&self) -> &str {
        &self.doors[self.present].url
    }

    /// The present one did not work, or does not any more, and maybe asked to be left alone for a while.
    /// Goes on to whichever of the others may be tried soonest, and without others stays; gives how long
    /// the one that is next has asked to be left alone from now.
    pub(crate) fn advance(&mut self, retry_after: Option<Duration>, now: Instant) -> Option<Duration> {
        self.doors[self.present].shut_until = retry_after.map(|after| now + after.min(LONGEST_ASKED_FOR));
        let count = self.doors.len();
        let shut_for = |door: usize| {
            let until = self.doors[door].shut_until?;
            Some(until.saturating_duration_since(now)).filter(|left| !left.is_zero())
        };
        let others = (1..count).map(|step| (self.present + step) % count);
        // Of equals the first.
        self.present = others.min_by_key(|&door| shut_for(door)).unwrap_or(self.present);
        shut_for(self.present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dialect;

    const SECOND: Duration = Duration::from_secs(1);

    fn round(urls: &[&str]) -> Round {
        let mut urls = urls.iter().map(|&url| url.to_owned());
        let (dialect, url) = (Dialect::default(), urls.next().unwrap());
        Round::new(&Gateway { dialect, url, others: urls.collect() })
    }

    #[test]
    fn every_gateway_has_its_turn() {
        let (mut round, now) = (round(&["a", "b", "c"]), Instant::now());
        let mut tried = String::new();
        for _ in 0..7 {
            tried.push_str(round.url());
            assert_eq!(round.advance(None, now), None);
        }
        assert_eq!(tried, "abcabca");
    }

    #[test]
    fn one_that_asked_to_be_left_alone_is_passed_over_while_there_are_others() {
        let (mut round, now) = (round(&["a", "b", "c"]), Instant::now());
        assert_eq!(round.advance(Some(9 * SECOND), now), None);
        assert_eq!(round.url(), "b");
        round.advance(None, now);
        round.advance(None, now + SECOND);
        assert_eq!(round.url(), "b", "after c");
        assert_eq!(round.advance(Some(4 * SECOND), now + SECOND), None);
        assert_eq!(round.advance(Some(20 * SECOND), now + 2 * SECOND), Some(3 * SECOND));
        assert_eq!(round.url(), "b", "it is open before the others");
        assert_eq!(round.advance(None, now + 10 * SECOND), None);
        assert_eq!(round.url(), "a", "its time is over");
    }

    #[test]
    fn the_only_one_is_tried_again_when_it_said() {
        let (mut round, now) = (round(&["a"]), Instant::now());
        assert_eq!(round.advance(Some(SECOND), now), Some(SECOND));
        assert_eq!(round.advance(Some(Duration::MAX), now), Some(LONGEST_ASKED_FOR));
        assert_eq!((round.advance(None, now), round.url()), (None, "a"));
    }
}
