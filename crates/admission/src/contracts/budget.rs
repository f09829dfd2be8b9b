//! Budgets of signature checks per network and per day.

use std::time::Duration;

use tokio::time::Instant;

use super::error::ContractError;
use crate::{
    network::Network,
    rate::{Rate, RateLimiter},
};

const HOUR: Duration = Duration::from_secs(60 * 60);
const HOURS_PER_DAY: u32 = 24;
/// Networks with a recorded budget, 80 bytes each. At the bound, networks with a full budget are removed.
const MAX_NETWORKS: usize = 10_000;

/// Limits the number of checks. Providers bill each call, and clients choose how many there are.
#[derive(Debug)]
pub(crate) struct CallBudget {
    /// `None`: no limit.
    per_network: Option<RateLimiter<Network>>,
    total: Option<RateLimiter<()>>,
}

impl CallBudget {
    /// Creates a budget of `per_network_per_hour` checks for each network and `per_day` in total; 0: no
    /// limit.
    ///
    /// Both are token buckets. A network may use all checks of its hour at once. In total, a 24th of the
    /// day's checks may be used at once, so that a flood takes no more than that from the rest of the day:
    /// checks are available again as soon as the flood ends.
    pub(crate) fn new(per_network_per_hour: u32, per_day: u32) -> Self {
        let limit = |count: u32| (count > 0).then_some(count);
        Self {
            per_network: limit(per_network_per_hour)
                .map(|count| RateLimiter::new(Rate::every(HOUR, count, count), MAX_NETWORKS)),
            total: limit(per_day).map(|count| {
                RateLimiter::new(Rate::every(HOUR * HOURS_PER_DAY, count, count / HOURS_PER_DAY), 1)
            }),
        }
    }

    /// Counts one check for a wallet of `network`, unless a budget is used up.
    pub(crate) fn take(&mut self, network: Network, now: Instant) -> Result<(), ContractError> {
        if let Some(per_network) = &mut self.per_network {
            per_network.take(network, now).map_err(|_| ContractError::NetworkBudget)?;
        }
        match &mut self.total {
            Some(total) => total.take((), now).map_err(|_| ContractError::DayBudget),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(last: u8) -> Network {
        Network::from_ip(IpAddr::from([10, 0, 0, last]), 64)
    }

    #[test]
    fn network_budget_does_not_affect_other_networks() {
        let (mut budget, now) = (CallBudget::new(3, 0), Instant::now());
        for _ in 0..3 {
            assert_eq!(budget.take(network(1), now), Ok(()));
        }
        assert_eq!(budget.take(network(1), now), Err(ContractError::NetworkBudget));
        assert_eq!(budget.take(network(2), now), Ok(()));
        assert_eq!(budget.take(network(1), now + HOUR / 3), Ok(()));
        assert_eq!(budget.take(network(1), now + HOUR / 3), Err(ContractError::NetworkBudget));
    }

    #[test]
    fn all_networks_share_the_day_budget() {
        let (mut budget, now) = (CallBudget::new(0, 48), Instant::now());
        // In each minute of a day, every network checks as often as it can.
        let minutes = (0..24 * 60).map(|minute| now + Duration::from_secs(60 * minute));
        let asked: usize =
            minutes.map(|now| (0..20).filter(|&last| budget.take(network(last), now).is_ok()).count()).sum();
        assert!((48..=50).contains(&asked), "{asked}: the day's budget, and an hour's part at once");
        assert_eq!(budget.take(network(1), now), Err(ContractError::DayBudget));
    }

    #[test]
    fn zero_is_no_limit() {
        let (mut budget, now) = (CallBudget::new(0, 0), Instant::now());
        assert!((0..10_000).all(|_| budget.take(network(1), now).is_ok()));
    }
}
