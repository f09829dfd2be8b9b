//! Checks of contract wallets' signatures, with all limits applied.

use std::{sync::Arc, time::Duration};

use identity::{ContractResponseError, ContractSignature};
use parking_lot::Mutex;
use protocol::Address;
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use super::{
    backoff::Backoff,
    breaker::{BreakerPermit, BreakerState, CircuitBreaker, Outcome},
    budget::CallBudget,
    cache::AnswerCache,
    error::ContractError,
    provider::{Provider, ProviderError},
    settings::ContractSettings,
};
use crate::{metrics, network::Network};

/// Checks signatures with contract wallets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContractVerifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: Provider,
    deadline: Duration,
    check_slots: Semaphore,
    cache: Mutex<AnswerCache>,
    breaker: Mutex<CircuitBreaker>,
    backoff: Mutex<Backoff>,
    budget: Mutex<CallBudget>,
}

impl ContractVerifier {
    /// Creates a verifier with these settings.
    pub fn new(settings: ContractSettings) -> Self {
        let cache = AnswerCache::new(settings.cache_entries, settings.valid_ttl, settings.invalid_ttl);
        let breaker = CircuitBreaker::new(settings.failures_to_open, settings.cool_down);
        set_breaker_gauge(breaker.breaker_state());
        Self(Arc::new(Inner {
            provider: Provider::new(settings.rpc_url),
            deadline: settings.deadline,
            check_slots: Semaphore::new(settings.max_concurrent_checks),
            cache: Mutex::new(cache),
            breaker: Mutex::new(breaker),
            backoff: Mutex::new(Backoff::new()),
            budget: Mutex::new(CallBudget::new(settings.per_network_per_hour, settings.per_day)),
        }))
    }

    /// The link of the first signature that is not valid; `None` if all are. The signatures belong to a
    /// client in `network`.
    ///
    /// # Errors
    ///
    /// The link of the first signature that could not be checked, and the reason.
    pub async fn first_invalid(
        &self,
        signatures: &[ContractSignature],
        network: Network,
    ) -> Result<Option<usize>, (usize, ContractError)> {
        let deadline = Instant::now() + self.0.deadline;
        for signature in signatures {
            match self.0.is_valid(signature, network, deadline).await {
                Ok(true) => {}
                Ok(false) => return Ok(Some(signature.link)),
                Err(reason) => return Err((signature.link, reason)),
            }
        }
        Ok(None)
    }
}

impl Inner {
    async fn is_valid(
        &self,
        signature: &ContractSignature,
        network: Network,
        deadline: Instant,
    ) -> Result<bool, ContractError> {
        if is_precompile(signature.contract) {
            return Ok(false);
        }
        let key = signature.fingerprint();
        let known = self.cache.lock().get(&key, Instant::now());
        let (answer, outcome) = match known {
            Some(valid) => (Ok(valid), "cached"),
            None => {
                let answer = self.query_provider(signature, network, deadline).await;
                if let Ok(valid) = answer {
                    let mut cache = self.cache.lock();
                    cache.insert(key, valid, Instant::now());
                }
                let outcome = match answer {
                    Ok(true) => "valid",
                    Ok(false) => "refused",
                    Err(ContractError::BreakerOpen) => "unwell",
                    Err(ContractError::Busy) => "busy",
                    Err(ContractError::Timeout | ContractError::Failed) => "failed",
                    Err(ContractError::RateLimited) => "limited",
                    Err(ContractError::NetworkBudget) => "network_budget",
                    Err(ContractError::DayBudget) => "day_budget",
                };
                (answer, outcome)
            }
        };
        metrics::contract_questions(outcome).increment(1);
        answer
    }

    async fn query_provider(
        &self,
        signature: &ContractSignature,
        network: Network,
        deadline: Instant,
    ) -> Result<bool, ContractError> {
        // While the breaker is open, the call fails at once instead of waiting for a slot.
        if self.breaker.lock().is_open(Instant::now()) {
            return Err(ContractError::BreakerOpen);
        }
        self.check_backoff()?;
        let slot =
            time::timeout_at(deadline, self.check_slots.acquire()).await.map_err(|_| ContractError::Busy)?;
        let _slot = slot.map_err(|_| ContractError::Busy)?;
        // The pause may have begun during the wait.
        self.check_backoff()?;
        let started_at = Instant::now();
        let mut call = ProviderCall::begin(&self.breaker).ok_or(ContractError::BreakerOpen)?;
        // Only signatures that are really checked count against the budget.
        self.budget.lock().take(network, started_at)?;
        let answer = time::timeout_at(deadline, self.provider.is_valid(signature)).await;
        call.outcome = match answer {
            Ok(Ok(_)) => Outcome::Success,
            // The client chooses the contract. If an unclear answer counted as a failure, a malicious
            // contract could open the breaker for all others.
            Ok(Err(ProviderError::Answer(ContractResponseError::Ambiguous(_)))) => Outcome::Inconclusive,
            // A rate-limited provider works; it only needs fewer calls. The backoff reduces them.
            Ok(Err(ProviderError::RateLimited(_))) => Outcome::Inconclusive,
            // More than half of the deadline had passed before the call began, so a timeout shows nothing
            // about the provider.
            Err(_) if started_at + self.deadline / 2 > deadline => Outcome::Inconclusive,
            _ => Outcome::Failure,
        };
        match answer {
            Ok(Ok(valid)) => {
                self.backoff.lock().on_answered(started_at);
                Ok(valid)
            }
            Ok(Err(ProviderError::RateLimited(retry_after))) => {
                let mut backoff = self.backoff.lock();
                if let Some(pause) = backoff.on_rate_limited(retry_after, started_at, Instant::now()) {
                    tracing::warn!(?pause, "the Ethereum provider is called too often: calls are paused");
                }
                Err(ContractError::RateLimited)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the Ethereum provider failed");
                Err(ContractError::Failed)
            }
            Err(_) => Err(ContractError::Timeout),
        }
    }

    /// Returns an error while calls are paused because the provider was called too often.
    fn check_backoff(&self) -> Result<(), ContractError> {
        let backoff = self.backoff.lock();
        if backoff.is_active(Instant::now()) { Err(ContractError::RateLimited) } else { Ok(()) }
    }
}

/// Whether the address belongs to a precompiled contract, now or in a future version of Ethereum; no wallet
/// has such an address. Precompiled contracts fail in various ways when they are called with input that they
/// do not know.
fn is_precompile(contract: Address) -> bool {
    contract.as_bytes()[..18] == [0; 18]
}

/// A call to the provider. Its outcome is recorded in the breaker on drop, so that a cancelled call is
/// recorded too.
struct ProviderCall<'a> {
    breaker: &'a Mutex<CircuitBreaker>,
    permit: BreakerPermit,
    outcome: Outcome,
}

impl<'a> ProviderCall<'a> {
    fn begin(breaker: &'a Mutex<CircuitBreaker>) -> Option<Self> {
        let permit = with_breaker(breaker, |breaker| breaker.try_acquire(Instant::now()))?;
        Some(Self { breaker, permit, outcome: Outcome::Inconclusive })
    }
}

impl Drop for ProviderCall<'_> {
    fn drop(&mut self) {
        with_breaker(self.breaker, |breaker| breaker.record(&self.permit, self.outcome, Instant::now()));
    }
}

/// Runs `act` on the breaker, and logs and publishes the new state if it changed.
fn with_breaker<T>(breaker: &Mutex<CircuitBreaker>, act: impl FnOnce(&mut CircuitBreaker) -> T) -> T {
    let mut breaker = breaker.lock();
    let old_state = breaker.breaker_state();
    let result = act(&mut breaker);
    let now = breaker.breaker_state();
    if now != old_state {
        set_breaker_gauge(now);
        match now {
            BreakerState::Open => {
                tracing::warn!("the Ethereum provider fails: contract wallets are rejected")
            }
            BreakerState::HalfOpen => tracing::info!("the Ethereum provider is tried again"),
            BreakerState::Closed => {
                tracing::info!("the Ethereum provider answers: contract wallets are accepted")
            }
        }
    }
    result
}

fn set_breaker_gauge(state: BreakerState) {
    let level = match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    metrics::contract_breaker().set(level);
}

#[cfg(test)]
mod tests;
