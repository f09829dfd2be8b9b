//! Signatures of contract wallets (EIP-1654), which only the contracts themselves can tell.
//!
//! Whoever signs in chooses which contract is asked, and how often. So questions are few at a time,
//! short, cheap for the node, and kept away from one that does not answer; a hung provider holds up
//! contract wallets alone.

mod backoff;
mod breaker;
mod budget;
mod cache;
mod provider;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use identity::{ContractResponseError, ContractSignature};
use protocol::Address;
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use crate::Network;

use backoff::Backoff;
use breaker::{BreakerPermit, BreakerState, CircuitBreaker, Outcome};
use budget::CallBudget;
use cache::AnswerCache;
use provider::{Provider, ProviderError};

/// How contract wallets are asked.
#[derive(Clone)]
pub struct ContractSettings {
    /// The JSON-RPC API of an Ethereum node, with whatever key it needs.
    pub rpc_url: String,
    /// How long the questions about one chain may take, the wait for a place with them.
    pub deadline: Duration,
    /// How many chains may be asked about at a time; more wait, within their deadline.
    pub max_concurrent_checks: usize,
    /// How many answers are remembered; above, what would be forgotten soonest goes.
    pub cache_entries: usize,
    /// For how long a yes holds.
    pub valid_ttl: Duration,
    /// For how long a no holds.
    pub invalid_ttl: Duration,
    /// After how many failures in a row nothing is asked any more.
    pub failures_to_open: u32,
    /// For how long; then one question is tried.
    pub cool_down: Duration,
    /// How many questions may be asked for the wallets of one network in an hour; 0: no limit. A
    /// question is at most two requests; one whose answer is remembered is not counted.
    pub per_network_per_hour: u32,
    /// How many may be asked in a day, a 24th of them at once; 0: no limit.
    pub per_day: u32,
}

/// Why a contract wallet could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// The provider failed too often lately.
    #[error("the Ethereum provider is not well, come back later")]
    BreakerOpen,
    /// All places were taken for too long.
    #[error("too many contract wallets are signing in, come back later")]
    Busy,
    /// The provider did not answer in time.
    #[error("the Ethereum provider did not answer in time, come back later")]
    Timeout,
    /// The provider failed.
    #[error("the Ethereum provider failed, come back later")]
    Failed,
    /// The provider said that it is asked too often, just now or a moment ago.
    #[error("the Ethereum provider is asked too often, come back later")]
    RateLimited,
    /// Too many questions were asked for wallets of this network.
    #[error("too many contract wallets of this network sign in, come back later")]
    NetworkBudget,
    /// Too many questions were asked today.
    #[error("too many contract wallets sign in today, come back later")]
    DayBudget,
}

/// Asks contract wallets. Cheap to clone.
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
    /// Asks as these settings say.
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

    /// The first of the signatures that is not valid, if one is not; or where it could not be asked,
    /// and why. They are of a client in `network`.
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
                Err(why) => return Err((signature.link, why)),
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
        let known = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key, Instant::now());
        let (answer, outcome) = match known {
            Some(valid) => (Ok(valid), "cached"),
            None => {
                let answer = self.query_provider(signature, network, deadline).await;
                if let Ok(valid) = answer {
                    let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
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
        metrics::counter!("atoll_contract_questions_total", "outcome" => outcome).increment(1);
        answer
    }

    async fn query_provider(
        &self,
        signature: &ContractSignature,
        network: Network,
        deadline: Instant,
    ) -> Result<bool, ContractError> {
        // Whoever would only wait for nothing is told so at once.
        if self.breaker.lock().unwrap_or_else(PoisonError::into_inner).is_open(Instant::now()) {
            return Err(ContractError::BreakerOpen);
        }
        self.check_backoff()?;
        let place =
            time::timeout_at(deadline, self.check_slots.acquire()).await.map_err(|_| ContractError::Busy)?;
        let _place = place.map_err(|_| ContractError::Busy)?;
        // It may have begun during the wait.
        self.check_backoff()?;
        let begun = Instant::now();
        let mut question = ProviderCall::begin(&self.breaker).ok_or(ContractError::BreakerOpen)?;
        // Only what is asked is counted.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(network, begun)?;
        let answer = time::timeout_at(deadline, self.provider.is_valid(signature)).await;
        question.outcome = match answer {
            Ok(Ok(_)) => Outcome::Success,
            // Whoever signs in chooses the contract, and so could keep all others out.
            Ok(Err(ProviderError::Answer(ContractResponseError::Ambiguous(_)))) => Outcome::Inconclusive,
            // It works, and would work as before if it were asked less.
            Ok(Err(ProviderError::RateLimited(_))) => Outcome::Inconclusive,
            // It had little time left when it was asked: that shows nothing.
            Err(_) if begun + self.deadline / 2 > deadline => Outcome::Inconclusive,
            _ => Outcome::Failure,
        };
        match answer {
            Ok(Ok(valid)) => {
                self.backoff.lock().unwrap_or_else(PoisonError::into_inner).on_answered(begun);
                Ok(valid)
            }
            Ok(Err(ProviderError::RateLimited(retry_after))) => {
                let mut backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(pause) = backoff.on_rate_limited(retry_after, begun, Instant::now()) {
                    tracing::warn!(
                        ?pause,
                        "the Ethereum provider is asked too often: it is not asked for a while"
                    );
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
}

impl Inner {
    /// Whether the provider was asked too often a moment ago.
    fn check_backoff(&self) -> Result<(), ContractError> {
        let backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        if backoff.is_active(Instant::now()) { Err(ContractError::RateLimited) } else { Ok(()) }
    }
}

/// Whether the node itself stands at this address, now or some day: no wallet ever does. Precompiled
/// contracts fail in ways of their own when they are called with what they do not know.
fn is_precompile(contract: Address) -> bool {
    contract.as_bytes()[..18] == [0; 18]
}

/// A question under way. It is settled when dropped, even by somebody who does not wait for its
/// answer.
struct ProviderCall<'a> {
    breaker: &'a Mutex<CircuitBreaker>,
    permit: BreakerPermit,
    outcome: Outcome,
}

impl<'a> ProviderCall<'a> {
    fn begin(breaker: &'a Mutex<CircuitBreaker>) -> Option<Self> {
        let pass = with_breaker(breaker, |breaker| breaker.try_acquire(Instant::now()))?;
        Some(Self { breaker, permit: pass, outcome: Outcome::Inconclusive })
    }
}

impl Drop for ProviderCall<'_> {
    fn drop(&mut self) {
        with_breaker(self.breaker, |breaker| breaker.record(&self.permit, self.outcome, Instant::now()));
    }
}

/// Does something with the breaker, and says so where that changes how it stands.
fn with_breaker<T>(breaker: &Mutex<CircuitBreaker>, act: impl FnOnce(&mut CircuitBreaker) -> T) -> T {
    let mut breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
    let before = breaker.breaker_state();
    let done = act(&mut breaker);
    let now = breaker.breaker_state();
    if now != before {
        set_breaker_gauge(now);
        match now {
            BreakerState::Open => tracing::warn!("the Ethereum provider fails: contract wallets are refused"),
            BreakerState::HalfOpen => tracing::info!("the Ethereum provider is tried again"),
            BreakerState::Closed => {
                tracing::info!("the Ethereum provider answers: contract wallets are asked")
            }
        }
    }
    done
}

fn set_breaker_gauge(stand: BreakerState) {
    let level = match stand {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    metrics::gauge!("atoll_contract_breaker").set(level);
}

#[cfg(test)]
mod tests;
