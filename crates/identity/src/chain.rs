use serde::{Deserialize, Deserializer, Serialize};

/// The most links a chain may have.
pub const MAX_LINKS: usize = 10;
/// The largest JSON text of a chain, in bytes.
pub const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// What a link says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinkKind {
    /// The wallet that owns the chain.
    Signer,
    /// A key pair vouches for a short-lived key.
    EcdsaEphemeral,
    /// A key pair signs the challenge.
    EcdsaSignedEntity,
    /// A contract wallet vouches for a short-lived key (EIP-1654).
    #[serde(rename = "ECDSA_EIP_1654_EPHEMERAL")]
    Eip1654Ephemeral,
    /// A contract wallet signs the challenge (EIP-1654).
    #[serde(rename = "ECDSA_EIP_1654_SIGNED_ENTITY")]
    Eip1654SignedEntity,
}

impl LinkKind {
    pub(crate) fn is_ephemeral(self) -> bool {
        matches!(self, Self::EcdsaEphemeral | Self::Eip1654Ephemeral)
    }

    pub(crate) fn is_signed_entity(self) -> bool {
        matches!(self, Self::EcdsaSignedEntity | Self::Eip1654SignedEntity)
    }

    pub(crate) fn is_contract(self) -> bool {
        matches!(self, Self::Eip1654Ephemeral | Self::Eip1654SignedEntity)
    }
}

/// One link of an auth chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it says.
    #[serde(rename = "type")]
    pub kind: LinkKind,
    /// An address, an ephemeral payload of three lines, or the challenge.
    pub payload: String,
    /// `0x` and hex, by the authority before this link; empty in the first, where clients also send
    /// `null` or no field.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub signature: String,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Why a chain is refused. `link` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Over [`MAX_CHAIN_BYTES`].
    #[error("the chain is {bytes} bytes, at most {MAX_CHAIN_BYTES} are taken")]
    TooBig {
        /// Its size.
        bytes: usize,
    },
    /// Not a JSON array of links.
    #[error("the chain is not a JSON array of links {{type, payload, signature}}")]
    NotLinks,
    /// One link or none: nothing would be signed.
    #[error("the chain has {links} links, it needs at least 2")]
    TooFewLinks {
        /// How many it has.
        links: usize,
    },
    /// Over [`MAX_LINKS`].
    #[error("the chain has {links} links, at most {MAX_LINKS} are taken")]
    TooManyLinks {
        /// How many it has.
        links: usize,
    },
    /// The first link is not a SIGNER.
    #[error("the first link is not SIGNER")]
    NoSigner,
    /// A SIGNER stands after the first link.
    #[error("link {link} is a second SIGNER")]
    SecondSigner {
        /// Where it stands.
        link: usize,
    },
    /// A link of a kind that does not belong at its place.
    #[error("link {link} is of a kind that does not belong there")]
    Misplaced {
        /// Where it stands.
        link: usize,
    },
    /// The SIGNER's payload is not an address.
    #[error("the SIGNER's payload is not an address")]
    OwnerNotAddress,
    /// The owner is not who the session said it was.
    #[error("the chain belongs to another address than the one announced")]
    OtherOwner,
    /// An ephemeral payload is not its three lines.
    #[error("link {link}: the payload is not a title, an ephemeral address and an expiration on three lines")]
    EphemeralPayload {
        /// Where it stands.
        link: usize,
    },
    /// The ephemeral key's time is over.
    #[error("link {link}: the ephemeral key has expired")]
    Expired {
        /// Where it stands.
        link: usize,
    },
    /// The ephemeral key would be good for longer than is allowed.
    #[error("link {link}: the ephemeral key expires too far in the future")]
    ExpiresTooLate {
        /// Where it stands.
        link: usize,
    },
    /// The last link signs something else than this socket's challenge.
    #[error("the last link does not sign this challenge")]
    OtherChallenge,
    /// A signature is missing where one is needed.
    #[error("link {link} carries no signature")]
    Unsigned {
        /// Where it stands.
        link: usize,
    },
    /// A signature's bytes are not `r`, `s`, `v`.
    #[error("link {link}: the signature is malformed")]
    SignatureMalformed {
        /// Where it stands.
        link: usize,
    },
    /// A signature's `s` is in the upper half (EIP-2).
    #[error("link {link}: the signature's s is in the upper half of its range")]
    SignatureHighS {
        /// Where it stands.
        link: usize,
    },
    /// A signature is not by the authority before the link.
    #[error("link {link} is not signed by the authority before it")]
    OtherSigner {
        /// Where it stands.
        link: usize,
    },
    /// A second link is signed by a contract wallet: each costs questions to an Ethereum node.
    #[error("link {link} is the second one signed by a contract wallet (EIP-1654), at most one is taken")]
    SecondContractLink {
        /// Where it stands.
        link: usize,
    },
    /// A contract wallet signed, and no provider is there to check it.
    #[error("link {link} is signed by a contract wallet (EIP-1654), which this server cannot check")]
    ContractWallet {
        /// Where it stands.
        link: usize,
    },
}

/// Reads a chain and checks its outer shape.
pub(crate) fn parse(json: &str) -> Result<Vec<Link>, ChainError> {
    if json.len() > MAX_CHAIN_BYTES {
        return Err(ChainError::TooBig { bytes: json.len() });
    }
    let links: Vec<Link> = serde_json::from_str(json).map_err(|_| ChainError::NotLinks)?;
    check(&links)?;
    Ok(links)
}

/// Checks the outer shape of a chain: how many links, and which kind stands where.
pub(crate) fn check(links: &[Link]) -> Result<(), ChainError> {
    if links.len() > MAX_LINKS {
        return Err(ChainError::TooManyLinks { links: links.len() });
    }
    match links.first() {
        Some(first) if first.kind == LinkKind::Signer => {}
        Some(_) => return Err(ChainError::NoSigner),
        None => return Err(ChainError::TooFewLinks { links: 0 }),
    }
    if links.len() < 2 {
        return Err(ChainError::TooFewLinks { links: links.len() });
    }
    let last = links.len() - 1;
    for (index, link) in links.iter().enumerate().skip(1) {
        let belongs = if index == last { link.kind.is_signed_entity() } else { link.kind.is_ephemeral() };
        match link.kind {
            LinkKind::Signer => return Err(ChainError::SecondSigner { link: index }),
            _ if !belongs => return Err(ChainError::Misplaced { link: index }),
            _ if link.signature.is_empty() => return Err(ChainError::Unsigned { link: index }),
            _ => {}
        }
    }
    let mut contracts = links.iter().enumerate().filter(|(_, link)| link.kind.is_contract());
    match contracts.nth(1) {
        Some((link, _)) => Err(ChainError::SecondContractLink { link }),
        None => Ok(()),
    }
}
