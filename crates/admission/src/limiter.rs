//! Limits of concurrent connections or handshakes, in total and per network.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    metrics,
    network::Network,
    rate::{Rate, RateLimiter},
};

/// The limits of a [`ConnectionLimiter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Permits in total at a time.
    pub total: usize,
    /// Permits of one network at a time; `None` for no limit.
    pub per_network: Option<usize>,
    /// The rate at which one network may acquire permits; `None` for no limit.
    pub rate: Option<Rate>,
}

/// The reason why no permit was issued. Its text is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// All permits are in use, and none of them may be evicted.
    #[error("too many connections are signing in, come back later")]
    AtCapacity,
    /// The server is about to stop.
    #[error("the server is restarting, come back later")]
    Closed,
    /// This network holds as many permits as one network may.
    #[error("too many connections of this network are signing in, come back later")]
    NetworkAtCapacity,
    /// This network acquired permits too often.
    #[error("this network signs in too often, come back later")]
    RateLimited,
}

/// Issues permits for connections or handshakes. Cheap to clone.
///
/// When all permits are in use, the limiter evicts the oldest waiting permit of the network that holds the
/// most waiting permits. A permit is waiting while its holder waits for its client. So one network can fill
/// the limiter, but cannot keep others out. A permit of a holder that is working for its client
/// ([`Permit::set_waiting`]) is never evicted.
#[derive(Debug, Clone)]
pub struct ConnectionLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The value of the label `limiter` in its metrics.
    name: &'static str,
    limits: ConnectionLimits,
    state: Mutex<State>,
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    total: usize,
    next_id: u64,
    networks: HashMap<Network, NetworkPermits>,
    /// The networks with waiting permits, in ascending order of their number. Among equal numbers the network
    /// with the older permit sorts last. The last network is evicted from first.
    waiting: BTreeSet<(usize, Reverse<u64>, Network)>,
    rates: Option<RateLimiter<Network>>,
}

/// The permits of one network.
#[derive(Debug, Default)]
struct NetworkPermits {
    permits: usize,
    /// The waiting permits by id, oldest first.
    waiting: BTreeMap<u64, Arc<Eviction>>,
}

#[derive(Debug, Default)]
struct Eviction {
    happened: AtomicBool,
    notify: Notify,
}

/// Permission for one connection or handshake. Dropping it returns it to the limiter.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Inner>,
    network: Network,
    /// Counts in the total alone, and is never evicted.
    is_exempt: bool,
    id: u64,
    eviction: Arc<Eviction>,
}

/// Networks with a recorded rate. At the bound, networks with a full bucket are removed, so only networks of
/// the last seconds count.
const MAX_RATED_NETWORKS: usize = 100_000;

impl ConnectionLimiter {
    /// Creates a limiter; `name` is the value of the label `limiter` in its metrics.
    pub fn new(name: &'static str, limits: ConnectionLimits) -> Self {
        let rates = limits.rate.map(|rate| RateLimiter::new(rate, MAX_RATED_NETWORKS));
        let state = State { total: 0, next_id: 0, networks: HashMap::new(), waiting: BTreeSet::new(), rates };
        Self(Arc::new(Inner { name, limits, state: Mutex::new(state), closed: watch::Sender::new(false) }))
    }

    /// Acquires a permit for a client of `network`. The permit starts as waiting for its client.
    ///
    /// # Errors
    ///
    /// See [`AcquireError`]. A rejected call does not count against the rate of the network.
    pub fn acquire(&self, network: Network) -> Result<Permit, AcquireError> {
        let limits = self.0.limits;
        let mut state = self.0.state.lock();
        if *self.0.closed.borrow() {
            return Err(AcquireError::Closed);
        }
        let held = state.networks.get(&network).map_or(0, |held| held.permits);
        if limits.per_network.is_some_and(|limit| held >= limit) {
            return Err(AcquireError::NetworkAtCapacity);
        }
        if state.total >= limits.total && state.waiting.is_empty() {
            return Err(AcquireError::AtCapacity);
        }
        if let Some(rates) = &mut state.rates
            && rates.take(network, Instant::now()).is_err()
        {
            return Err(AcquireError::RateLimited);
        }
        if state.total >= limits.total {
            state.evict();
            metrics::evicted(self.0.name).increment(1);
        }
        let permit = self.issue_permit(&mut state, network, false);
        let eviction = permit.eviction.clone();
        let id = permit.id;
        state.update(network, |held| {
            held.permits += 1;
            held.waiting.insert(id, eviction);
        });
        Ok(permit)
    }

    /// Acquires a permit that counts in the total alone and is never evicted: for a trusted proxy, which
    /// carries the connections of many clients.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Closed`], and [`AcquireError::AtCapacity`] when no permit can be evicted.
    pub fn acquire_exempt(&self, network: Network) -> Result<Permit, AcquireError> {
        let mut state = self.0.state.lock();
        if *self.0.closed.borrow() {
            return Err(AcquireError::Closed);
        }
        if state.total >= self.0.limits.total && !state.evict() {
            return Err(AcquireError::AtCapacity);
        }
        Ok(self.issue_permit(&mut state, network, true))
    }

    fn issue_permit(&self, state: &mut State, network: Network, is_exempt: bool) -> Permit {
        let id = state.next_id;
        state.next_id += 1;
        state.total += 1;
        Permit { limiter: self.0.clone(), network, is_exempt, id, eviction: Arc::default() }
    }

    /// Closes the limiter: it issues no more permits.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Waits until the limiter is closed, so that running handshakes can end with a reason.
    pub async fn closed(&self) {
        // The sender lives as long as this limiter.
        let _ = self.0.closed.subscribe().wait_for(|&closed| closed).await;
    }

    /// The number of permits in use.
    pub fn permits_count(&self) -> usize {
        self.0.state.lock().total
    }
}

impl Permit {
    /// The network that acquired the permit.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Completes when the permit has been evicted. The holder must then end its connection.
    pub async fn evicted(&self) {
        while !self.eviction.happened.load(Ordering::Acquire) {
            self.eviction.notify.notified().await;
        }
    }

    /// Sets whether the holder waits for its client, so that the permit may be evicted.
    pub fn set_waiting(&self, waiting: bool) {
        let mut state = self.limiter.state.lock();
        if self.is_exempt || self.is_evicted() {
            return;
        }
        let (id, eviction) = (self.id, &self.eviction);
        state.update(self.network, |held| match waiting {
            true => drop(held.waiting.insert(id, eviction.clone())),
            false => drop(held.waiting.remove(&id)),
        });
    }

    fn is_evicted(&self) -> bool {
        self.eviction.happened.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        if self.is_evicted() {
            return;
        }
        state.total -= 1;
        let id = self.id;
        if !self.is_exempt {
            state.update(self.network, |held| {
                held.permits -= 1;
                held.waiting.remove(&id);
            });
        }
    }
}

impl State {
    /// Evicts the oldest waiting permit of the network that has the most of them. Returns whether there was
    /// one.
    fn evict(&mut self) -> bool {
        let Some(&(_, Reverse(oldest), network)) = self.waiting.last() else { return false };
        let mut evicted = None;
        self.update(network, |held| {
            evicted = held.waiting.remove(&oldest);
            held.permits -= 1;
        });
        self.total -= 1;
        if let Some(evicted) = evicted {
            // Under the lock: the permit's `drop` takes the same lock, sees the eviction, and does not
            // subtract it a second time.
            evicted.happened.store(true, Ordering::Release);
            evicted.notify.notify_one();
        }
        true
    }

    /// Changes the permits of a network and keeps the order of the networks consistent.
    fn update(&mut self, network: Network, change: impl FnOnce(&mut NetworkPermits)) {
        let held = self.networks.entry(network).or_default();
        if let Some(rank) = held.rank(network) {
            self.waiting.remove(&rank);
        }
        change(held);
        if let Some(rank) = held.rank(network) {
            self.waiting.insert(rank);
        }
        if held.permits == 0 {
            self.networks.remove(&network);
        }
    }
}

impl NetworkPermits {
    fn rank(&self, network: Network) -> Option<(usize, Reverse<u64>, Network)> {
        self.waiting.keys().next().map(|&oldest| (self.waiting.len(), Reverse(oldest), network))
    }
}

#[cfg(test)]
mod tests;
