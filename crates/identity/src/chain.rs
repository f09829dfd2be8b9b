//! The links of an auth chain: their JSON form, the structure of a chain, and the reasons for which a chain
//! is refused.

use serde::{Deserialize, Deserializer, Serialize};

/// Upper bound of links in a chain, the SIGNER included.
pub const MAX_LINKS: usize = 10;
/// Upper bound of the JSON text of a chain, in bytes.
pub const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// The role of a link in its chain (`type` in JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinkKind {
    /// The wallet that owns the chain.
    Signer,
    /// A key pair authorizes an ephemeral key.
    EcdsaEphemeral,
    /// A key pair signs the challenge.
    EcdsaSignedEntity,
    /// A contract wallet authorizes an ephemeral key (EIP-1654).
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
    /// The role of the link.
    #[serde(rename = "type")]
    pub kind: LinkKind,
    /// An address, an ephemeral payload of three lines, or the challenge.
    pub payload: String,
    /// `0x` and hex digits, made by the authority before this link. Empty in the first link, where clients
    /// also send `null` or omit the field.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub signature: String,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The reason for which a chain is refused. `link` is the index of a link, from 0. Gateways and room nodes
/// send the text as the reason of a close frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The JSON text exceeds [`MAX_CHAIN_BYTES`].
    #[error("the chain is {bytes} bytes, at most {MAX_CHAIN_BYTES} are taken")]
    TooBig {
        /// Size of the JSON text.
        bytes: usize,
    },
    /// Not a JSON array of links.
    #[error("the chain is not a JSON array of links {{type, payload, signature}}")]
    NotLinks,
    /// One link or none: the chain would contain no signature.
    #[error("the chain has {links} links, it needs at least 2")]
    TooFewLinks {
        /// Number of links in the chain.
        links: usize,
    },
    /// More than [`MAX_LINKS`] links.
    #[error("the chain has {links} links, at most {MAX_LINKS} are taken")]
    TooManyLinks {
        /// Number of links in the chain.
        links: usize,
    },
    /// The first link is not a SIGNER.
    #[error("the first link is not SIGNER")]
    NoSigner,
    /// A link after the first is a SIGNER.
    #[error("link {link} is a second SIGNER")]
    SecondSigner {
        /// Index of the link.
        link: usize,
    },
    /// The kind of a link is not allowed at its index: a signed entity before the end, or an ephemeral key at
    /// the end.
    #[error("link {link} is of a kind that does not belong there")]
    Misplaced {
        /// Index of the link.
        link: usize,
    },
    /// The SIGNER's payload is not an address.
    #[error("the SIGNER's payload is not an address")]
    OwnerNotAddress,
    /// The owner differs from the address that the client announced.
    #[error("the chain belongs to another address than the one announced")]
    OwnerMismatch,
    /// The payload of an ephemeral link does not have its three lines.
    #[error("link {link}: the payload is not a title, an ephemeral address and an expiration on three lines")]
    EphemeralPayload {
        /// Index of the link.
        link: usize,
    },
    /// The ephemeral key has expired.
    #[error("link {link}: the ephemeral key has expired")]
    Expired {
        /// Index of the link.
        link: usize,
    },
    /// The ephemeral key would be valid for longer than [`Limits::longest_ephemeral`](crate::Limits).
    #[error("link {link}: the ephemeral key expires too far in the future")]
    ExpiresTooLate {
        /// Index of the link.
        link: usize,
    },
    /// The last link does not sign this socket's challenge, or this request.
    #[error("the last link does not sign this challenge")]
    ChallengeMismatch,
    /// A link after the first has no signature.
    #[error("link {link} carries no signature")]
    Unsigned {
        /// Index of the link.
        link: usize,
    },
    /// The signature of a key pair is not 65 bytes of `r`, `s`, `v`; that of a contract wallet is not hex.
    #[error("link {link}: the signature is malformed")]
    SignatureMalformed {
        /// Index of the link.
        link: usize,
    },
    /// The signature's `s` is in the upper half of its range (EIP-2).
    #[error("link {link}: the signature's s is in the upper half of its range")]
    SignatureHighS {
        /// Index of the link.
        link: usize,
    },
    /// The authority before the link did not make the signature.
    #[error("link {link} is not signed by the authority before it")]
    SignerMismatch {
        /// Index of the link.
        link: usize,
    },
    /// A second link is signed by a contract wallet. At most one is accepted, because each costs calls to an
    /// Ethereum node.
    #[error("link {link} is the second one signed by a contract wallet (EIP-1654), at most one is taken")]
    SecondContractLink {
        /// Index of the link.
        link: usize,
    },
    /// A contract wallet signed, and the server has no Ethereum provider that could check the signature.
    #[error("link {link} is signed by a contract wallet (EIP-1654), which this server cannot check")]
    ContractWallet {
        /// Index of the link.
        link: usize,
    },
}

/// Parses a chain and checks its structure.
pub(crate) fn parse(json: &str) -> Result<Vec<Link>, ChainError> {
    if json.len() > MAX_CHAIN_BYTES {
        return Err(ChainError::TooBig { bytes: json.len() });
    }
    let links: Vec<Link> = serde_json::from_str(json).map_err(|_| ChainError::NotLinks)?;
    check_structure(&links)?;
    Ok(links)
}

/// Checks the structure of a chain: the number of links, the kind allowed at each index, a signature in each
/// link after the first, and at most one link of a contract wallet.
pub(crate) fn check_structure(links: &[Link]) -> Result<(), ChainError> {
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
