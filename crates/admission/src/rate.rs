use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// How often something may be done from one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; at least 1.
    pub per_second: u32,
    /// At once, by who has not done it for a while; at least 1.
    pub burst: u32,
}

/// Counts what is done from each network: an IPv4 address, or the 64 bits of an IPv6 address that
/// one customer is given. A token bucket each.
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    burst: Duration,
    max: usize,
    /// When each network's bucket is full again: it is forgotten then.
    full_at: HashMap<IpAddr, Instant>,
}

/// It was done too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooOften {
    /// From this network.
    #[error("too many people of this address are signing in, come back later")]
    PerIp,
    /// From so many networks that no other can be counted.
    #[error("too many people are signing in, come back later")]
    Total,
}

impl RateLimiter {
    /// Counts at most `max` networks at a time.
    pub fn new(rate: Rate, max: usize) -> Self {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        Self { interval, burst: interval.saturating_mul(rate.burst.max(1)), max, full_at: HashMap::new() }
    }

    /// Counts one more from `ip`, unless that is too many.
    pub fn take(&mut self, ip: IpAddr, now: Instant) -> Result<(), TooOften> {
        let network = network(ip);
        if self.full_at.len() >= self.max && !self.full_at.contains_key(&network) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= self.max {
                return Err(TooOften::Total);
            }
        }
        let full_at = self.full_at.get(&network).map_or(now, |&full_at| full_at.max(now)) + self.interval;
        if full_at > now + self.burst {
            return Err(TooOften::PerIp);
        }
        self.full_at.insert(network, full_at);
        Ok(())
    }
}

/// The part of an address that its owner cannot choose.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() >> 64 << 64).to_be_bytes()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(max: usize) -> (RateLimiter, Instant) {
        (RateLimiter::new(Rate { per_second: 10, burst: 3 }, max), Instant::now())
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (mut limiter, now) = limiter(9);
        let later = |milliseconds| now + Duration::from_millis(milliseconds);
        for _ in 0..3 {
            assert_eq!(limiter.take(v4(1), now), Ok(()));
        }
        assert_eq!(limiter.take(v4(1), later(99)), Err(TooOften::PerIp));
        assert_eq!(limiter.take(v4(2), now), Ok(()), "another's");
        assert_eq!(limiter.take(v4(1), later(100)), Ok(()));
        assert_eq!(limiter.take(v4(1), later(100)), Err(TooOften::PerIp));
        let after = (0..9).filter(|_| limiter.take(v4(1), later(60_000)).is_ok()).count();
        assert_eq!(after, 3, "no more than a burst is saved up");
    }

    #[test]
    fn a_customer_of_many_addresses_is_one() {
        let (mut limiter, now) = limiter(9);
        let mut take = |ip: &str| limiter.take(ip.parse().unwrap(), now);
        assert_eq!([1, 2, 3].map(|host| take(&format!("2001:db8::{host}"))), [Ok(()); 3]);
        assert_eq!(take("2001:db8::4"), Err(TooOften::PerIp));
        assert_eq!(take("2001:db8:0:1::4"), Ok(()));
        assert_eq!([1, 2, 3, 4].map(|host| take(&format!("::ffff:10.0.0.{host}"))), [Ok(()); 4]);
    }

    #[test]
    fn at_the_bound_who_is_counted_already_goes_on_and_who_has_rested_makes_place() {
        let (mut limiter, now) = limiter(2);
        assert_eq!([1, 2].map(|last| limiter.take(v4(last), now)), [Ok(()); 2]);
        assert_eq!(limiter.take(v4(3), now), Err(TooOften::Total));
        assert_eq!(limiter.take(v4(2), now), Ok(()));
        assert_eq!(limiter.take(v4(3), now + Duration::from_millis(100)), Ok(()));
        assert_eq!(limiter.full_at.len(), 2);
    }
}
