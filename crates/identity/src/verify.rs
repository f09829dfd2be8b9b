//! Verification of an auth chain: owner, delegations, expirations, signatures and the signed challenge.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, civil, tz::TimeZone};
use protocol::Address;

use crate::{
    ChainError, Link,
    chain::parse,
    crypto::{SignatureError, keccak256, parse_signature, personal_digest, recover_signer},
    eip1654::calldata,
};

/// Limits of the times in a chain, and the forms of a signed fetch that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tolerated difference between the clocks of client and server.
    pub clock_skew: Duration,
    /// Upper bound of the time until an ephemeral key expires. Deployed clients let wallets without an
    /// account sign for 99 years; the default is 100 years of 366 days.
    pub longest_ephemeral: Duration,
    /// Whether to accept also a signed fetch with a payload signed all in lower case, metadata included, as
    /// clients did before August 2026 (ADR-44, before its amendment).
    pub lowercased_fetch: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clock_skew: Duration::from_secs(60),
            longest_ephemeral: Duration::from_secs(100 * 366 * 24 * 60 * 60),
            lowercased_fetch: true,
        }
    }
}

/// The result of [`verify_offline`]: a chain that passed all checks that need no Ethereum node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineVerification {
    /// The owner of the chain, proven once all `contract_signatures` are confirmed.
    pub owner: Address,
    /// Signatures that only their contracts can confirm: at most one. Empty for wallets with a key pair.
    pub contract_signatures: Vec<ContractSignature>,
}

/// A signature by a contract wallet: valid if `isValidSignature(bytes32,bytes)` of `contract` returns
/// `0x1626ba7e` for keccak256 of the message or for its EIP-191 digest (EIP-1654).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractSignature {
    /// Index of the link that carries it, from 0.
    pub link: usize,
    /// Address of the contract to call.
    pub contract: Address,
    /// The signed text.
    pub message: String,
    /// The signature. Only the contract defines the meaning of its bytes.
    pub signature: Vec<u8>,
}

impl ContractSignature {
    /// The digests that the contract may have signed: keccak256 of the message, and its EIP-191 digest.
    /// Deployed wallets use either; one confirmed digest is enough.
    pub fn digests(&self) -> [[u8; 32]; 2] {
        let message = self.message.as_bytes();
        [keccak256(message), personal_digest(message)]
    }

    /// The data of the calls to the contract, one for each digest.
    pub fn call_data(&self) -> [Vec<u8>; 2] {
        self.digests().map(|digest| calldata(&digest, &self.signature))
    }

    /// Identifies this signature of this message by this contract, such as in a cache of results.
    pub fn fingerprint(&self) -> [u8; 32] {
        let [message, _] = self.digests();
        keccak256(&[&self.contract.as_bytes()[..], &message, &keccak256(&self.signature)].concat())
    }
}

/// Verifies that the chain `json` is a valid signature of `challenge` by the address `announced` at the time
/// `now`. Returns the owner, which equals `announced`.
///
/// Chains of contract wallets are refused with [`ChainError::ContractWallet`].
///
/// # Example
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use identity::{ChainError, Challenge, Identity, Limits, Wallet, verify};
///
/// let now = SystemTime::now();
/// // The server creates a challenge for one socket. In production the bytes come from the operating system.
/// let challenge = Challenge::new("realm.example", [7; 16]);
///
/// // The client: its wallet authorizes an ephemeral key for a day, and that key signs the challenge.
/// let wallet = Wallet::from_secret([1; 32])?;
/// let ephemeral = Wallet::from_secret([2; 32])?;
/// let identity = Identity::new(&wallet, ephemeral, now + Duration::from_secs(24 * 60 * 60));
/// let auth_chain_json = identity.sign_challenge(challenge.as_str());
///
/// // The server verifies the chain against the address that the client announced.
/// let limits = Limits::default();
/// let owner = verify(&auth_chain_json, wallet.address(), challenge.as_str(), &limits, now);
/// assert_eq!(owner, Ok(wallet.address()));
///
/// // A chain for another challenge is refused.
/// let replayed = verify(&auth_chain_json, wallet.address(), "dcl-other", &limits, now);
/// assert_eq!(replayed, Err(ChainError::ChallengeMismatch));
/// # Ok::<(), identity::WalletError>(())
/// ```
pub fn verify(
    json: &str,
    announced: Address,
    challenge: &str,
    limits: &Limits,
    now: SystemTime,
) -> Result<Address, ChainError> {
    let verification = verify_offline(json, announced, challenge, limits, now)?;
    match verification.contract_signatures.first() {
        Some(signature) => Err(ChainError::ContractWallet { link: signature.link }),
        None => Ok(verification.owner),
    }
}

/// Like [`verify`], but returns the signatures of contract wallets instead of refusing them.
pub fn verify_offline(
    json: &str,
    announced: Address,
    challenge: &str,
    limits: &Limits,
    now: SystemTime,
) -> Result<OfflineVerification, ChainError> {
    let links = parse(json)?;
    if parse_owner(&links)? != announced {
        return Err(ChainError::OwnerMismatch);
    }
    verify_links_offline(&links, challenge, limits, now)
}

fn parse_owner(links: &[Link]) -> Result<Address, ChainError> {
    let signer = links.first().ok_or(ChainError::NoSigner)?;
    signer.payload.parse().map_err(|_| ChainError::OwnerNotAddress)
}

/// Like [`verify_offline`], for links that passed [`check_structure`](crate::chain::check_structure), and for
/// any owner.
pub(crate) fn verify_links_offline(
    links: &[Link],
    signed: &str,
    limits: &Limits,
    now: SystemTime,
) -> Result<OfflineVerification, ChainError> {
    let owner = parse_owner(links)?;
    if links.last().is_some_and(|last| last.payload != signed) {
        return Err(ChainError::ChallengeMismatch);
    }
    let mut verification = OfflineVerification { owner, contract_signatures: Vec::new() };
    let mut authority = owner;
    for (index, link) in links.iter().enumerate().skip(1) {
        let mut message = link.payload.clone();
        let mut delegate = authority;
        if link.kind.is_ephemeral() {
            message.retain(|c| c != '\r');
            let ephemeral = Ephemeral::parse(&message).ok_or(ChainError::EphemeralPayload { link: index })?;
            ephemeral.check(index, limits, now)?;
            delegate = ephemeral.address;
        }
        if link.kind.is_contract() {
            let digits = link.signature.strip_prefix("0x");
            let signature = digits.and_then(|digits| hex::decode(digits).ok());
            let signature = signature.ok_or(ChainError::SignatureMalformed { link: index })?;
            let contract = authority;
            verification.contract_signatures.push(ContractSignature {
                link: index,
                contract,
                message,
                signature,
            });
        } else {
            check_signature(index, link, &message, authority)?;
        }
        authority = delegate;
    }
    Ok(verification)
}

fn check_signature(index: usize, link: &Link, message: &str, authority: Address) -> Result<(), ChainError> {
    let signature = parse_signature(&link.signature).map_err(|error| match error {
        SignatureError::Malformed => ChainError::SignatureMalformed { link: index },
        SignatureError::HighS => ChainError::SignatureHighS { link: index },
    })?;
    if recover_signer(message.as_bytes(), &signature) == Some(authority) {
        Ok(())
    } else {
        Err(ChainError::SignerMismatch { link: index })
    }
}

/// The parsed payload of an ephemeral link: a title, the address and the expiration, on three lines.
struct Ephemeral {
    address: Address,
    expiration: SystemTime,
}

impl Ephemeral {
    fn parse(message: &str) -> Option<Self> {
        let mut lines = message.split('\n');
        let _title = lines.next()?;
        let address = lines.next()?.strip_prefix("Ephemeral address: ")?.trim().parse().ok()?;
        let expiration = parse_time(lines.next()?.strip_prefix("Expiration: ")?.trim())?;
        lines.next().is_none().then_some(Self { address, expiration })
    }

    fn check(&self, link: usize, limits: &Limits, now: SystemTime) -> Result<(), ChainError> {
        if self.expiration + limits.clock_skew < now {
            return Err(ChainError::Expired { link });
        }
        if self.expiration > now + limits.longest_ephemeral + limits.clock_skew {
            return Err(ChainError::ExpiresTooLate { link });
        }
        Ok(())
    }
}

/// Parses ISO 8601 with or without fractions of a second and zone. A time without a zone is UTC.
fn parse_time(text: &str) -> Option<SystemTime> {
    let with_zone = text.parse::<Timestamp>().ok();
    let timestamp = with_zone.or_else(|| {
        let local = text.parse::<civil::DateTime>().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(timestamp.into())
}
