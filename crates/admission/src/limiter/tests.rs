//! The limiter: evictions, exempt permits, rates, and a check of its counts after random operations.

use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;
use tokio::time;

use super::*;

const LIMITS: ConnectionLimits = ConnectionLimits { total: 3, per_network: Some(2), rate: None };

fn network(last: u8) -> Network {
    Network::from_ip(IpAddr::from([10, 0, 0, last]), 64)
}

fn limiter(limits: ConnectionLimits) -> ConnectionLimiter {
    ConnectionLimiter::new("test", limits)
}

#[test]
fn permits_per_network_are_limited() {
    let limiter = limiter(LIMITS);
    let first = limiter.acquire(network(1)).unwrap();
    let _second = limiter.acquire(network(1)).unwrap();
    assert_eq!(limiter.acquire(network(1)).unwrap_err(), AcquireError::NetworkAtCapacity);
    drop(first);
    assert!(limiter.acquire(network(1)).is_ok());
}

#[test]
fn full_limiter_evicts_from_the_largest_network() {
    let limiter = limiter(ConnectionLimits { per_network: None, ..LIMITS });
    let of_two: Vec<_> = (0..2).map(|_| limiter.acquire(network(2)).unwrap()).collect();
    let of_one = limiter.acquire(network(1)).unwrap();
    let newcomer = limiter.acquire(network(3)).unwrap();
    assert!(of_two[0].is_evicted(), "the oldest permit of the largest network");
    assert!(![&of_two[1], &of_one, &newcomer].iter().any(|permit| permit.is_evicted()));
    assert_eq!(limiter.permits_count(), 3);
    // One permit each: the limiter evicts the oldest one.
    let fourth = limiter.acquire(network(4)).unwrap();
    assert!(of_two[1].is_evicted());
    drop((of_two, of_one, newcomer, fourth));
    assert_eq!(limiter.permits_count(), 0);
    assert!(limiter.0.state.lock().networks.is_empty() && limiter.0.state.lock().waiting.is_empty());
}

#[test]
fn busy_permit_is_not_evicted() {
    let limiter = limiter(ConnectionLimits { per_network: None, ..LIMITS });
    let permits: Vec<_> = (0..3).map(|_| limiter.acquire(network(1)).unwrap()).collect();
    permits.iter().for_each(|permit| permit.set_waiting(false));
    assert_eq!(limiter.acquire(network(2)).unwrap_err(), AcquireError::AtCapacity);
    assert_eq!(limiter.acquire_exempt(network(9)).unwrap_err(), AcquireError::AtCapacity);
    permits[1].set_waiting(true);
    let exempt = limiter.acquire_exempt(network(9)).unwrap();
    assert!(permits[1].is_evicted());
    permits[1].set_waiting(true);
    assert_eq!(limiter.acquire(network(2)).unwrap_err(), AcquireError::AtCapacity, "an exempt permit stays");
    drop(exempt);
    assert!(limiter.acquire(network(2)).is_ok());
}

#[test]
fn rate_of_one_network_is_limited() {
    let rate = Some(Rate::per_second(1, 2));
    let limiter = limiter(ConnectionLimits { total: 9, per_network: None, rate });
    assert!((0..2).all(|_| limiter.acquire(network(1)).is_ok()));
    assert_eq!(limiter.acquire(network(1)).unwrap_err(), AcquireError::RateLimited);
    assert!(limiter.acquire(network(2)).is_ok());
}

#[tokio::test]
async fn evicted_completes_at_once_after_the_eviction() {
    let limiter = limiter(ConnectionLimits { total: 1, ..LIMITS });
    let permit = limiter.acquire(network(1)).unwrap();
    let pending = time::timeout(Duration::from_millis(1), permit.evicted()).await;
    assert!(pending.is_err());
    let _other = limiter.acquire(network(2)).unwrap();
    permit.evicted().await;
    permit.evicted().await;
}

#[tokio::test]
async fn closed_limiter_rejects_and_wakes_handshakes() {
    let limiter = limiter(LIMITS);
    let _permit = limiter.acquire(network(1)).unwrap();
    limiter.close();
    limiter.closed().await;
    assert_eq!(limiter.acquire(network(1)).unwrap_err(), AcquireError::Closed);
}

proptest! {
    /// After random acquisitions, drops and changes the counts of the limiter equal those of the live
    /// permits.
    #[test]
    fn counts_equal_the_live_permits(steps in proptest::collection::vec((0u8..4, 0u8..3, any::<u8>()), 1..200)) {
        let limiter = limiter(ConnectionLimits { total: 5, per_network: Some(3), rate: None });
        let mut permits: Vec<(Permit, bool)> = Vec::new();
        for (of, act, pick) in steps {
            match act {
                0 => if let Ok(permit) = limiter.acquire(network(of)) {
                    permits.push((permit, true));
                },
                1 if !permits.is_empty() => drop(permits.swap_remove(pick as usize % permits.len())),
                _ => if let Some((permit, waiting)) = permits.get_mut(pick as usize % 5) {
                    *waiting = !*waiting;
                    permit.set_waiting(*waiting);
                },
            }
            permits.retain(|(permit, _)| !permit.is_evicted());
            prop_assert!(permits.len() <= 5);
            let state = limiter.0.state.lock();
            prop_assert_eq!(state.total, permits.len());
            for (network, held) in &state.networks {
                let live = permits.iter().filter(|(permit, _)| permit.network == *network);
                prop_assert_eq!(held.permits, live.clone().count());
                prop_assert_eq!(held.waiting.len(), live.filter(|(_, waiting)| *waiting).count());
            }
            let ranked = state.networks.values().filter(|held| !held.waiting.is_empty()).count();
            prop_assert_eq!(state.waiting.len(), ranked);
        }
    }
}
