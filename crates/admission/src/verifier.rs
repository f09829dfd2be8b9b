use std::{sync::Arc, time::SystemTime};

use http::HeaderMap;
use identity::{
    ChainError, Challenge, FetchError, Limits, OfflineVerification, SignedFetch, verify_fetch_offline,
    verify_offline,
};
use protocol::{Address, Close};
use tokio::sync::Semaphore;

use crate::{ContractError, ContractVerifier, Network};

/// The operating system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the operating system")]
pub struct RandomnessError;

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], RandomnessError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| RandomnessError)?;
    Ok(bytes)
}

/// Why a chain does not sign anybody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It is not valid.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The request, or its chain, is not valid.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The contract wallet does not take a signature for its own.
    #[error("link {link}: the contract wallet says that the signature is not valid (EIP-1654)")]
    InvalidContractSignature {
        /// Which link carries it.
        link: usize,
    },
    /// The contract wallet could not be asked.
    #[error("link {link} is signed by a contract wallet: {why}")]
    ContractUnavailable {
        /// Which link carries the signature.
        link: usize,
        /// What went wrong.
        why: ContractError,
    },
}

impl AuthError {
    /// What the close frame says: the same chain may do later if nobody said that it is wrong.
    pub fn close(&self) -> Close {
        match self {
            Self::Chain(_) | Self::Fetch(_) | Self::InvalidContractSignature { .. } => Close::AuthRefused,
            Self::ContractUnavailable { .. } => Close::Full,
        }
    }
}

/// Issues challenges and verifies what came back. Cheap to clone.
///
/// A chain takes some 60 µs of a core. They are verified on blocking threads, at most one per core
/// at a time, so that a storm of sign-ins queues up behind itself and not in front of those who
/// are already in. Contract wallets are asked after that, and hold no thread and no core meanwhile.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// The host of the realm, which challenges name.
    host: Arc<str>,
    limits: Limits,
    cores: Arc<Semaphore>,
    contracts: Option<ContractVerifier>,
}

impl Verifier {
    /// A verifier that holds chains against these limits, and refuses contract wallets.
    pub fn new(limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { host: Arc::default(), limits, cores: Arc::new(Semaphore::new(cores)), contracts: None }
    }

    /// The same, but its challenges name the realm's host, which is given without a port.
    pub fn with_host(self, host: &str) -> Self {
        Self { host: host.into(), ..self }
    }

    /// The same, but it asks contract wallets.
    pub fn with_contracts(self, contracts: ContractVerifier) -> Self {
        Self { contracts: Some(contracts), ..self }
    }

    /// A challenge for one socket, to be used once.
    pub fn challenge(&self) -> Result<Challenge, RandomnessError> {
        Ok(Challenge::new(&self.host, random()?))
    }

    /// Whether `chain_json` is `announced`'s signature of the challenge, which is used up. A client
    /// in `network` sent it.
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

    /// Who in `network` signed a request for `path` with these headers, and for what. `judge` says, before any
    /// contract is asked, whether it would be of use: whether it was seen before, for instance.
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
        let fetch = self.run_blocking(check).await.or_else(|refusal| count_outcome(Err(refusal)))?;
        precheck(&fetch)?;
        count_outcome(self.verify_contracts(&fetch.verification, network).await)?;
        Ok(fetch)
    }

    /// Checks something on a thread that serves no sockets, when there is a core for it.
    async fn run_blocking<T, E>(
        &self,
        check: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, AuthError>
    where
        T: Send + 'static,
        E: Into<AuthError> + Send + 'static,
    {
        // Neither is ever closed or aborted; if it were, nobody would be let in.
        let lost = || AuthError::Chain(ChainError::NotLinks);
        let core = self.cores.clone().acquire_owned().await.map_err(|_| lost())?;
        let checked = tokio::task::spawn_blocking(move || {
            // It is taken until this has ended, also when nobody waits for it any more.
            let _core = core;
            check()
        });
        checked.await.map_err(|_| lost())?.map_err(Into::into)
    }

    /// Asks the contracts that a chain needs.
    async fn verify_contracts(
        &self,
        examined: &OfflineVerification,
        network: Network,
    ) -> Result<(), AuthError> {
        let Some(first) = examined.contract_signatures.first() else { return Ok(()) };
        let Some(contracts) = &self.contracts else {
            return Err(ChainError::ContractWallet { link: first.link }.into());
        };
        match contracts.first_invalid(&examined.contract_signatures, network).await {
            Ok(None) => Ok(()),
            Ok(Some(link)) => Err(AuthError::InvalidContractSignature { link }),
            Err((link, why)) => Err(AuthError::ContractUnavailable { link, why }),
        }
    }
}

fn count_outcome<T>(result: Result<T, AuthError>) -> Result<T, AuthError> {
    let outcome = match &result {
        Ok(_) => "valid",
        Err(AuthError::ContractUnavailable { .. }) => "not asked",
        Err(_) => "refused",
    };
    metrics::counter!("atoll_auth_chains_total", "outcome" => outcome).increment(1);
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
        let refused = verifier.verify(chain, wallet.address(), other, network).await;
        assert_eq!(refused, Err(ChainError::ChallengeMismatch.into()));
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
        for why in [
            ContractError::BreakerOpen,
            ContractError::Busy,
            ContractError::Timeout,
            ContractError::Failed,
            ContractError::RateLimited,
            ContractError::NetworkBudget,
            ContractError::DayBudget,
        ] {
            let refusal = AuthError::ContractUnavailable { link: 9, why };
            assert!(refusal.to_string().len() <= 123, "{refusal}");
            assert!(refusal.close().should_reconnect());
        }
    }
}
