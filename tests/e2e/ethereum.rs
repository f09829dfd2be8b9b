//! A fake Ethereum node: it responds to `eth_call` of `isValidSignature(bytes32,bytes)` for wallet
//! contracts, each of which has one owner. It counts calls, and can fail.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use identity::{Link, LinkKind, Wallet};
use protocol::Address;
use secp256k1::{
    Message, PublicKey, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use tokio::net::TcpListener;

/// The API key in the node's URL. It must appear nowhere else.
pub(crate) const API_KEY: &str = "f00dfacef00dface";
const MAGIC: &str = "1626ba7e";

/// The behaviour of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Behaviour {
    Healthy,
    Hung,
    Failing,
    Garbage,
    /// Healthy, but calls of contracts that are not wallets return an error that is not a revert.
    Strict,
    /// It responds with 429, without `Retry-After`.
    RateLimited,
}

/// The node. It listens as long as the test runs.
#[derive(Clone)]
pub(crate) struct Ethereum {
    pub(crate) url: String,
    state: Arc<Chain>,
}

#[derive(Default)]
struct Chain {
    mood: AtomicU8,
    calls: AtomicUsize,
    /// The owner of each contract.
    contracts: Mutex<HashMap<Address, Address>>,
}

impl Ethereum {
    pub(crate) async fn start() -> Self {
        let state = Arc::<Chain>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v3/{API_KEY}", listener.local_addr().unwrap());
        let app = Router::new().route(&format!("/v3/{API_KEY}"), post(answer)).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    pub(crate) fn set_behaviour(&self, mood: Behaviour) {
        self.state.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// The number of calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Creates a wallet contract with a new owner.
    pub(crate) fn deploy(&self) -> ContractWallet {
        let mut owner = [0x5a; 32];
        let mut contracts = self.state.contracts.lock().unwrap();
        owner[..8].copy_from_slice(&(contracts.len() as u64 + 1).to_be_bytes());
        let mut address = [0xc0; 20];
        address[..8].copy_from_slice(&(contracts.len() as u64 + 1).to_be_bytes());
        let wallet = ContractWallet { address: Address::new(address), owner };
        contracts.insert(wallet.address, wallet.owner().address());
        wallet
    }
}

async fn answer(State(chain): State<Arc<Chain>>, Json(question): Json<Value>) -> Response {
    chain.calls.fetch_add(1, Ordering::SeqCst);
    let mood = chain.mood.load(Ordering::SeqCst);
    match mood {
        mood if mood == Behaviour::Hung as u8 => tokio::time::sleep(Duration::from_secs(600)).await,
        mood if mood == Behaviour::Failing as u8 => return StatusCode::BAD_GATEWAY.into_response(),
        mood if mood == Behaviour::RateLimited as u8 => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        mood if mood == Behaviour::Garbage as u8 => return "<html>sign up for more</html>".into_response(),
        _ => {}
    }
    assert_eq!((&question["method"], &question["params"][1]), (&json!("eth_call"), &json!("latest")));
    let contract = question["params"][0]["to"].as_str().unwrap().parse::<Address>().unwrap();
    let data = question["params"][0]["data"].as_str().unwrap().strip_prefix("0x").unwrap();
    let owner = chain.contracts.lock().unwrap().get(&contract).copied();
    let id = &question["id"];
    let outcome = match owner {
        None if mood == Behaviour::Strict as u8 => {
            let error = json!({"code": -32000, "message": "bad elliptic curve pairing size"});
            json!({"jsonrpc": "2.0", "id": id, "error": error})
        }
        None => json!({"jsonrpc": "2.0", "id": id, "result": "0x"}),
        Some(owner) if is_valid_signature(owner, &hex::decode(data).unwrap()) => {
            json!({"jsonrpc": "2.0", "id": id, "result": format!("0x{MAGIC:0<64}")})
        }
        Some(_) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": 3, "message": "execution reverted"}})
        }
    };
    Json(outcome).into_response()
}

/// The contract's computation: whether its owner signed the digest.
fn is_valid_signature(owner: Address, data: &[u8]) -> bool {
    let word = |index: usize| data.get(4 + 32 * index..4 + 32 * (index + 1));
    let number = |index| {
        word(index).map(|word| word.iter().fold(0usize, |number, &byte| number << 8 | usize::from(byte)))
    };
    let recovered = || {
        (data.get(..4)? == hex::decode(MAGIC).unwrap()).then_some(())?;
        let digest: [u8; 32] = word(0)?.try_into().ok()?;
        let offset = 4 + number(1)?;
        assert_eq!(offset, 4 + 64);
        let bytes = data.get(offset + 32..offset + 32 + number(2)?)?;
        let recovery = if *bytes.get(64)? == 27 { RecoveryId::Zero } else { RecoveryId::One };
        let signature = RecoverableSignature::from_compact(&bytes[..64], recovery).ok()?;
        let key: PublicKey = signature.recover_ecdsa(Message::from_digest(digest)).ok()?;
        let hash = Keccak256::digest(&key.serialize_uncompressed()[1..]);
        Some(Address::new(hash[12..].try_into().ok()?))
    };
    recovered() == Some(owner)
}

/// A wallet that is a contract.
#[derive(Clone, Copy)]
pub(crate) struct ContractWallet {
    pub(crate) address: Address,
    owner: [u8; 32],
}

impl ContractWallet {
    /// A key pair that claims to be a contract.
    pub(crate) fn not_deployed(wallet: &Wallet) -> Self {
        Self::at(wallet.address())
    }

    /// A contract wallet at an address without a contract.
    pub(crate) fn at(address: Address) -> Self {
        Self { address, owner: [9; 32] }
    }

    pub(crate) fn owner(&self) -> Wallet {
        Wallet::from_secret(self.owner).unwrap()
    }

    /// The auth chain of two links: the contract's owner signs the digest of the text without a prefix.
    pub(crate) fn sign(&self, text: &str) -> String {
        let secret = SecretKey::from_secret_bytes(self.owner).unwrap();
        let digest: [u8; 32] = Keccak256::digest(text).into();
        let signature = RecoverableSignature::sign_ecdsa_recoverable(Message::from_digest(digest), &secret);
        let (recovery, rs) = signature.serialize_compact();
        let signature = format!("0x{}{:02x}", hex::encode(rs), recovery.to_u8() + 27);
        let entity = Link { kind: LinkKind::Eip1654SignedEntity, payload: text.to_owned(), signature };
        serde_json::to_string(&[self.signer(), entity]).unwrap()
    }

    /// A delegation to a short-lived key, by `owner` with the personal digest.
    pub(crate) fn delegate(&self, owner: &Wallet) -> Delegation {
        let ephemeral = test_support::wallet();
        let address = ephemeral.address();
        let payload =
            format!("Decentraland Login\nEphemeral address: {address}\nExpiration: 2099-01-01T00:00:00Z");
        let signature = owner.sign(&payload);
        let link = Link { kind: LinkKind::Eip1654Ephemeral, payload, signature };
        Delegation { links: [self.signer(), link], ephemeral }
    }

    fn signer(&self) -> Link {
        let payload = self.address.to_string();
        Link { kind: LinkKind::Signer, payload, signature: String::new() }
    }
}

/// An ephemeral key that a contract wallet authorized.
pub(crate) struct Delegation {
    links: [Link; 2],
    ephemeral: Wallet,
}

impl Delegation {
    /// The auth chain of three links.
    pub(crate) fn sign(&self, text: &str) -> String {
        let signature = self.ephemeral.sign(text);
        let entity = Link { kind: LinkKind::EcdsaSignedEntity, payload: text.to_owned(), signature };
        let [signer, delegation] = self.links.clone();
        serde_json::to_string(&[signer, delegation, entity]).unwrap()
    }
}
