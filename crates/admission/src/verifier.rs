//! Challenges, and verification of auth chains and signed requests.

use std::{sync::Arc, time::SystemTime};

use http::HeaderMap;
use identity::{
    ChainError, Challenge, FetchError, Limits, OfflineVerification, SignedFetch, verify_fetch_offline,
    verify_offline,
};
use protocol::{Address, Close};
use tokio::sync::Semaphore;

use crate::{
    contracts::{ContractError, ContractVerifier},
    metrics,
    network::Network,
};

/// The operating system provides no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the operating system")]
pub struct RandomnessError;

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], RandomnessError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| RandomnessError)?;
    Ok(bytes)
}

/// The reason why an auth chain or a signed request is rejected. Its text is sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The auth chain is not valid.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The signed request, or its auth chain, is not valid.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The contract wallet does not accept the signature as its own.
    #[error("link {link}: the contract wallet says that the signature is not valid (EIP-1654)")]
    InvalidContractSignature {
        /// The index of the link that carries the signature.
        link: usize,
    },
    /// The signature could not be checked with the contract wallet.
    #[error("link {link} is signed by a contract wallet: {reason}")]
    ContractUnavailable {
        /// The index of the link that carries the signature.
        link: usize,
        /// The reason.
        reason: ContractError,
    },
}

impl AuthError {
    /// The close code for this error. If a contract wallet could not be asked, the same chain may be accepted
    /// later, so the code lets the client retry.
    pub fn close(&self) -> Close {
        match self {
            Self::Chain(_) | Self::Fetch(_) | Self::InvalidContractSignature { .. } => Close::AuthRefused,
            Self::ContractUnavailable { .. } => Close::Full,
        }
    }
}

/// Issues challenges and verifies auth chains. Cheap to clone.
///
/// Verifying a chain takes about 60 µs of CPU time. It runs on blocking threads, at most one per core at a
/// time, so that a burst of sign-ins queues up without delaying existing sessions. Contract wallets are asked
/// after that, without holding a thread or a core meanwhile.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// The host of the realm, for the text of challenges.
    host: Arc<str>,
    limits: Limits,
    cores: Arc<Semaphore>,
    contracts: Option<ContractVerifier>,
}

impl Verifier {
    /// Creates a verifier that applies `limits` to auth chains and rejects contract wallets.
    pub fn new(limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { host: Arc::default(), limits, cores: Arc::new(Semaphore::new(cores)), contracts: None }
    }

    /// Sets the realm's host, without a port, for the text of challenges.
    pub fn with_host(self, host: &str) -> Self {
        Self { host: host.into(), ..self }
    }

    /// Enables contract wallets: their signatures are checked with `contracts`.
    pub fn with_contracts(self, contracts: ContractVerifier) -> Self {
        Self { contracts: Some(contracts), ..self }
    }

    /// Creates a challenge for one socket. It is for one use.
    pub fn challenge(&self) -> Result<Challenge, RandomnessError> {
        Ok(Challenge::new(&self.host, random()?))
    }

    /// Verifies that `chain_json` is `announced`'s signature of `challenge`, which is used up. A client in
    /// `network` sent it.
    pub async fn verify(
        &self,
        chain_json: String,
        announced: Address,
        challenge: Challenge,
        network: Network,
    ) -> Result<(), AuthError> {
        let limits = self.limits;
        let check =
            move || verify_offline(&chain_json, announced, challenge.as_str(), &limits, SystemTime::now());
        let verified = async { self.verify_contracts(&self.run_blocking(check).await?, network).await };
        count_outcome(verified.await)
    }

    /// Verifies the signature in `headers` of a request for `path` from a client in `network`. Returns the
    /// request's signer, payload, times and metadata. `precheck` runs before any contract is asked, for
    /// instance to reject a request that was seen before.
    pub async fn verify_fetch<E: From<AuthError>>(
        &self,
        method: &'static str,
        path: String,
        headers: HeaderMap,
        network: Network,
        precheck: impl FnOnce(&SignedFetch) -> Result<(), E>,
    ) -> Result<SignedFetch, E> {
        let limits = self.limits;
        let check = move || verify_fetch_offline(method, &path, &headers, &limits, SystemTime::now());
        let fetch = self.run_blocking(check).await.or_else(|error| count_outcome(Err(error)))?;
        precheck(&fetch)?;
        count_outcome(self.verify_contracts(&fetch.verification, network).await)?;
        Ok(fetch)
    }

    /// Runs a check on a blocking thread as soon as a core is free.
    async fn run_blocking<T, E>(
        &self,
        check: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, AuthError>
    where
        T: Send + 'static,
        E: Into<AuthError> + Send + 'static,
    {
        // The semaphore is never closed and the task is never aborted. If either happened, the sign-in would
        // be rejected.
        let unavailable = || AuthError::Chain(ChainError::NotLinks);
        let core = self.cores.clone().acquire_owned().await.map_err(|_| unavailable())?;
        let checked = tokio::task::spawn_blocking(move || {
            // The core stays taken until the check has ended, even if the caller was cancelled.
            let _core = core;
            check()
        });
        checked.await.map_err(|_| unavailable())?.map_err(Into::into)
    }

    /// Checks the signatures of contract wallets in a verified chain.
    async fn verify_contracts(
        &self,
        verification: &OfflineVerification,
        network: Network,
    ) -> Result<(), AuthError> {
        let Some(first) = verification.contract_signatures.first() else { return Ok(()) };
        let Some(contracts) = &self.contracts else {
            return Err(ChainError::ContractWallet { link: first.link }.into());
        };
        match contracts.first_invalid(&verification.contract_signatures, network).await {
            Ok(None) => Ok(()),
            Ok(Some(link)) => Err(AuthError::InvalidContractSignature { link }),
            Err((link, reason)) => Err(AuthError::ContractUnavailable { link, reason }),
        }
    }
}

fn count_outcome<T>(result: Result<T, AuthError>) -> Result<T, AuthError> {
    let outcome = match &result {
        Ok(_) => "valid",
        Err(AuthError::ContractUnavailable { .. }) => "not asked",
        Err(_) => "refused",
    };
    metrics::auth_chains(outcome).increment(1);
    result
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn challenge_admits_only_its_own_signature() {
        let wallet = identity::Wallet::from_secret([1; 32]).unwrap();
        let verifier = Verifier::new(Limits::default());
        let (challenge, other) = (verifier.challenge().unwrap(), verifier.challenge().unwrap());
        assert!(challenge != other, "challenges are random");
        let chain = wallet.sign_challenge(challenge.as_str());
        let network = Network::from_ip([127, 0, 0, 1].into(), 64);
        assert_eq!(verifier.verify(chain.clone(), wallet.address(), challenge, network).await, Ok(()));
        let rejected = verifier.verify(chain, wallet.address(), other, network).await;
        assert_eq!(rejected, Err(ChainError::ChallengeMismatch.into()));
    }

    #[tokio::test]
    async fn chain_checks_wait_for_a_core_off_the_caller_thread() {
        let verifier = Verifier::new(Limits::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = verifier.cores.clone().acquire_many_owned(u32::try_from(cores).unwrap()).await.unwrap();
        assert_eq!(verifier.cores.available_permits(), 0, "one check per core");
        let check = verifier.run_blocking(|| Ok::<_, ChainError>(std::thread::current().id()));
        let mut check = std::pin::pin!(check);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut check).await;
        assert!(early.is_err(), "no core is free");
        drop(busy);
        assert_ne!(check.await.unwrap(), std::thread::current().id());
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        for reason in [
            ContractError::BreakerOpen,
            ContractError::Busy,
            ContractError::Timeout,
            ContractError::Failed,
            ContractError::RateLimited,
            ContractError::NetworkBudget,
            ContractError::DayBudget,
        ] {
            let error = AuthError::ContractUnavailable { link: 9, reason };
            assert!(error.to_string().len() <= 123, "{error}");
            assert!(error.close().should_reconnect());
        }
    }
}
