use std::{sync::Arc, time::SystemTime};

use identity::{ChainError, Challenge, Limits, verify};
use protocol::Address;
use tokio::sync::Semaphore;

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

/// Issues challenges and verifies what came back. Cheap to clone.
///
/// A chain takes some 60 µs of a core. They are verified on blocking threads, at most one per core
/// at a time, so that a storm of sign-ins queues up behind itself and not in front of those who
/// are already in.
#[derive(Debug, Clone)]
pub struct Verifier {
    limits: Limits,
    cores: Arc<Semaphore>,
}

impl Verifier {
    /// A verifier that holds chains against these limits.
    pub fn new(limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { limits, cores: Arc::new(Semaphore::new(cores)) }
    }

    /// A challenge for one socket, to be used once.
    pub fn challenge(&self) -> Result<Challenge, Randomness> {
        Ok(Challenge::new(random()?))
    }

    /// Whether `chain_json` is `announced`'s signature of the challenge, which is used up.
    pub async fn verify(
        &self,
        chain_json: String,
        announced: Address,
        challenge: Challenge,
    ) -> Result<(), ChainError> {
        let limits = self.limits;
        // Neither is ever closed or aborted; if it were, nobody would be let in.
        let Ok(_core) = self.cores.acquire().await else { return Err(ChainError::NotLinks) };
        let check = move || verify(&chain_json, announced, challenge.as_str(), &limits, SystemTime::now());
        let result = tokio::task::spawn_blocking(check).await.unwrap_or(Err(ChainError::NotLinks));
        let outcome = if result.is_ok() { "valid" } else { "refused" };
        metrics::counter!("atoll_auth_chains_total", "outcome" => outcome).increment(1);
        result.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_challenge_admits_who_signed_it_and_nobody_else() {
        let wallet = identity::Wallet::from_secret([1; 32]).unwrap();
        let verifier = Verifier::new(Limits::default());
        let (challenge, other) = (verifier.challenge().unwrap(), verifier.challenge().unwrap());
        assert!(challenge != other, "challenges are random");
        let chain = wallet.sign_challenge(challenge.as_str());
        assert_eq!(verifier.verify(chain.clone(), wallet.address(), challenge).await, Ok(()));
        let refused = verifier.verify(chain, wallet.address(), other).await;
        assert_eq!(refused, Err(ChainError::OtherChallenge));
    }
}
