use std::{sync::Arc, time::SystemTime};

use http::HeaderMap;
use identity::{ChainError, Challenge, Examined, FetchError, Limits, SignedFetch, examine, examine_fetch};
use protocol::{Address, Close};
use tokio::sync::Semaphore;

use crate::{Contracts, Network, NotAsked};

/// The operating system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the operating system")]
pub struct Randomness;

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], Randomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Randomness)?;
    Ok(bytes)
}

/// Why a chain does not sign anybody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not valid.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The request, or its chain, is not valid.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The contract wallet does not take a signature for its own.
    #[error("link {link}: the contract wallet says that the signature is not valid (EIP-1654)")]
    Contract {
        /// Which link carries it.
        link: usize,
    },
    /// The contract wallet could not be asked.
    #[error("link {link} is signed by a contract wallet: {why}")]
    NotAsked {
        /// Which link carries the signature.
        link: usize,
        /// What went wrong.
        why: NotAsked,
    },
}

impl Refusal {
    /// What the close frame says: the same chain may do later if nobody said that it is wrong.
    pub fn close(&self) -> Close {
        match self {
            Self::Chain(_) | Self::Fetch(_) | Self::Contract { .. } => Close::AuthRefused,
            Self::NotAsked { .. } => Close::Full,
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
    contracts: Option<Contracts>,
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
    pub fn with_contracts(self, contracts: Contracts) -> Self {
        Self { contracts: Some(contracts), ..self }
    }

    /// A challenge for one socket, to be used once.
    pub fn challenge(&self) -> Result<Challenge, Randomness> {
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
    ) -> Result<(), Refusal> {
        let limits = self.limits;
        let check = move || examine(&chain_json, announced, challenge.as_str(), &limits, SystemTime::now());
        let verified = async { self.ask(&self.off_network(check).await?, network).await };
        count(verified.await)
    }

    /// Who in `network` signed a request for `path` with these headers, and for what. `judge` says, before any
    /// contract is asked, whether it would be of use: whether it was seen before, for instance.
    pub async fn verify_fetch<E: From<Refusal>>(
        &self,
        method: &'static str,
        path: String,
        headers: HeaderMap,
        network: Network,
        judge: impl FnOnce(&SignedFetch) -> Result<(), E>,
    ) -> Result<SignedFetch, E> {
        let limits = self.limits;
        let check = move || examine_fetch(method, &path, &headers, &limits, SystemTime::now());
        let fetch = self.off_network(check).await.or_else(|refusal| count(Err(refusal)))?;
        judge(&fetch)?;
        count(self.ask(&fetch.examined, network).await)?;
        Ok(fetch)
    }

    /// Checks something on a thread that serves no sockets, when there is a core for it.
    async fn off_network<T, E>(
        &self,
        check: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
    {
        // Neither is ever closed or aborted; if it were, nobody would be let in.
        let lost = || Refusal::Chain(ChainError::NotLinks);
        let core = self.cores.clone().acquire_owned().await.map_err(|_| lost())?;
        let checked = tokio::task::spawn_blocking(move || {
            // It is taken until this has ended, also when nobody waits for it any more.
            let _core = core;
            check()
        });
        checked.await.map_err(|_| lost())?.map_err(Into::into)
    }

    /// Asks the contracts that a chain needs.
    async fn ask(&self, examined: &Examined, network: Network) -> Result<(), Refusal> {
        let Some(first) = examined.contract_signatures.first() else { return Ok(()) };
        let Some(contracts) = &self.contracts else {
            return Err(ChainError::ContractWallet { link: first.link }.into());
        };
        match contracts.first_invalid(&examined.contract_signatures, network).await {
            Ok(None) => Ok(()),
            Ok(Some(link)) => Err(Refusal::Contract { link }),
            Err((link, why)) => Err(Refusal::NotAsked { link, why }),
        }
    }
}

fn count<T>(result: Result<T, Refusal>) -> Result<T, Refusal> {
    let outcome = match &result {
        Ok(_) => "valid",
        Err(Refusal::NotAsked { .. }) => "not asked",
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
    async fn a_challenge_admits_who_signed_it_and_nobody_else() {
        let wallet = identity::Wallet::from_secret([1; 32]).unwrap();
        let verifier = Verifier::new(Limits::default());
        let (challenge, other) = (verifier.challenge().unwrap(), verifier.challenge().unwrap());
        assert!(challenge != other, "challenges are random");
        let chain = wallet.sign_challenge(challenge.as_str());
        let network = Network::of([127, 0, 0, 1].into(), 64);
        assert_eq!(verifier.verify(chain.clone(), wallet.address(), challenge, network).await, Ok(()));
        let refused = verifier.verify(chain, wallet.address(), other, network).await;
        assert_eq!(refused, Err(ChainError::OtherChallenge.into()));
    }

    #[tokio::test]
    async fn chain_checks_wait_for_a_core_off_the_caller_thread() {
        let verifier = Verifier::new(Limits::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = verifier.cores.clone().acquire_many_owned(u32::try_from(cores).unwrap()).await.unwrap();
        assert_eq!(verifier.cores.available_permits(), 0, "one check per core");
        let check = verifier.off_network(|| Ok::<_, ChainError>(std::thread::current().id()));
        let mut check = std::pin::pin!(check);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut check).await;
        assert!(early.is_err(), "no core is free");
        drop(busy);
        assert_ne!(check.await.unwrap(), std::thread::current().id());
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        for why in [
            NotAsked::Unwell,
            NotAsked::Busy,
            NotAsked::TooSlow,
            NotAsked::Failed,
            NotAsked::Limited,
            NotAsked::NetworkBudget,
            NotAsked::DayBudget,
        ] {
            let refusal = Refusal::NotAsked { link: 9, why };
            assert!(refusal.to_string().len() <= 123, "{refusal}");
            assert!(refusal.close().come_back());
        }
    }
}
