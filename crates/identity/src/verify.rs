use std::time::{Duration, SystemTime};

use jiff::{Timestamp, civil, tz::TimeZone};
use protocol::Address;

use crate::{
    ChainError, Link,
    chain::parse,
    crypto::{SignatureError, keccak256, parse_signature, personal_digest, recover_signer},
    eip1654::calldata,
};

/// What a chain's times are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How far the clocks of client and server may be apart.
    pub clock_skew: Duration,
    /// How far ahead an ephemeral key may expire. Guests in the field sign for 99 years.
    pub longest_ephemeral: Duration,
    /// Whether a signed fetch is also accepted whose payload was signed all in lower case, metadata
    /// included, as clients did before August 2026 (ADR-44, before its amendment).
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

/// A chain in which all is well as far as can be seen without an Ethereum node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineVerification {
    /// Whose chain it is, once every one of `contract_signatures` is found valid.
    pub owner: Address,
    /// What only the contracts themselves can tell: at most one. Empty for ordinary wallets.
    pub contract_signatures: Vec<ContractSignature>,
}

/// A signature by a contract wallet: valid when `isValidSignature(bytes32,bytes)` of `contract`
/// answers `0x1626ba7e`, for keccak256 of the message or for its EIP-191 digest (EIP-1654).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractSignature {
    /// Which link carries it.
    pub link: usize,
    /// The contract to ask.
    pub contract: Address,
    /// What was signed.
    pub message: String,
    /// The signature: what its bytes mean is the contract's own business.
    pub signature: Vec<u8>,
}

impl ContractSignature {
    /// What the contract may have been given to sign: keccak256 of the message, and its EIP-191
    /// digest. Wallets in the field use either; one is enough.
    pub fn digests(&self) -> [[u8; 32]; 2] {
        let message = self.message.as_bytes();
        [keccak256(message), personal_digest(message)]
    }

    /// The data of the calls to the contract, one for each digest.
    pub fn call_data(&self) -> [Vec<u8>; 2] {
        self.digests().map(|digest| calldata(&digest, &self.signature))
    }

    /// What tells this signature of this message by this contract from any other.
    pub fn fingerprint(&self) -> [u8; 32] {
        let [message, _] = self.digests();
        keccak256(&[&self.contract.as_bytes()[..], &message, &keccak256(&self.signature)].concat())
    }
}

/// Whose chain `json` is, if it is a valid signature of `challenge` by `announced` at `now`.
///
/// Chains of contract wallets are refused with [`ChainError::ContractWallet`].
pub fn verify(
    json: &str,
    announced: Address,
    challenge: &str,
    limits: &Limits,
    now: SystemTime,
) -> Result<Address, ChainError> {
    let examined = verify_offline(json, announced, challenge, limits, now)?;
    match examined.contract_signatures.first() {
        Some(signature) => Err(ChainError::ContractWallet { link: signature.link }),
        None => Ok(examined.owner),
    }
}

/// Like [`verify`], but hands out the signatures of contract wallets instead of refusing them.
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

/// The same of links whose outer shape has been checked, whoever their owner is.
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
    let mut examined = OfflineVerification { owner, contract_signatures: Vec::new() };
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
            examined.contract_signatures.push(ContractSignature {
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
    Ok(examined)
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

/// The payload of an ephemeral link, in three lines.
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

/// Reads ISO 8601 with or without milliseconds and zone; without one it is UTC.
fn parse_time(text: &str) -> Option<SystemTime> {
    let with_zone = text.parse::<Timestamp>().ok();
    let timestamp = with_zone.or_else(|| {
        let local = text.parse::<civil::DateTime>().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(timestamp.into())
}
