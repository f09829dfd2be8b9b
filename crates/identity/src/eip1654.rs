//! What a contract wallet is asked, `isValidSignature(bytes32,bytes)` (EIP-1271, and EIP-1654 before
//! it), and what the answer of an Ethereum node means.

use serde::Deserialize;
use serde_json::Value;

/// Why a node's answer tells nothing of the contract. Holds nothing of what the node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContractResponseError {
    /// The node failed.
    #[error("it answered with JSON-RPC error {0}")]
    NodeError(i64),
    /// The node is asked too often.
    #[error("it answered with JSON-RPC error {0}: it is asked too often")]
    RateLimited(i64),
    /// It may be the contract that caused it: nobody is to be blamed, and nothing is known.
    #[error("it answered with JSON-RPC error {0}, which shows neither whether it nor the contract failed")]
    Ambiguous(i64),
    /// Not JSON-RPC, or no answer to such a call.
    #[error("it did not answer in JSON-RPC")]
    Malformed,
}

/// The selector, and what is answered for a valid signature.
const MAGIC_VALUE: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];
/// A contract may say as much as it likes; what it should say are 32 bytes. Of an answer no more than
/// this needs to be read, and one byte to see that there is more.
pub const MAX_CONTRACT_RESPONSE_BYTES: usize = 16 * 1024;
/// How nodes of the field say that the call itself failed, which is the contract's answer. It need not
/// be complete: what is missing here is unclear, and no fault of the node either.
const EVM_ERROR_MESSAGES: [&str; 12] = [
    "revert",
    "out of gas",
    "invalid opcode",
    "invalid jump",
    "stack ",
    "execution aborted",
    "vm execution",
    "evm error",
    "gas uint64 overflow",
    "return data out of bounds",
    "write protection",
    "max call depth",
];
/// `execution reverted` of the JSON-RPC specification of execution clients.
const REVERTED_CODE: i64 = 3;
/// What only the node causes: no JSON, no request, no such method, an internal error (JSON-RPC 2.0),
/// a resource that is missing or unavailable (EIP-1474).
const NODE_ERROR_CODES: [i64; 6] = [-32700, -32600, -32601, -32603, -32001, -32002];
/// How providers say that they are asked too often, where the HTTP status does not: EIP-1474's "limit
/// exceeded" (Infura and others), the status as a code (Alchemy), and codes of QuickNode and BlockVision.
const RATE_LIMIT_CODES: [i64; 5] = [-32005, 429, -32007, -32012, -32605];

/// The call: the selector, the digest, and the signature behind its offset and its length, padded
/// to words (Solidity's ABI, "use of dynamic types").
pub(crate) fn calldata(digest: &[u8; 32], signature: &[u8]) -> Vec<u8> {
    let word = |number: u64| [[0; 24].as_slice(), &number.to_be_bytes()].concat();
    let mut data = [&MAGIC_VALUE[..], digest, &word(64), &word(signature.len() as u64), signature].concat();
    data.resize(4 + 3 * 32 + signature.len().next_multiple_of(32), 0);
    data
}

#[derive(Deserialize)]
struct RpcResponse {
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    #[serde(default)]
    message: Value,
}

/// Whether a contract takes a signature for its own, by the body of a node's answer and whether it had
/// a status of success. Whoever signs in chooses the contract, so that only what no contract can cause
/// is a fault of the node. What only the contract can have caused is its answer; of the rest of the
/// errors nobody knows: nodes have dozens of them under one code.
pub fn parse_contract_response(success: bool, body: &[u8]) -> Result<bool, ContractResponseError> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ContractResponseError::Malformed);
    }
    if body.len() > MAX_CONTRACT_RESPONSE_BYTES {
        return if success { Ok(false) } else { Err(ContractResponseError::Malformed) };
    }
    let answer: RpcResponse = serde_json::from_slice(body).map_err(|_| ContractResponseError::Malformed)?;
    match answer {
        RpcResponse { error: Some(RpcError { code, message }), .. } => {
            let message = message.as_str().unwrap_or_default().to_lowercase();
            if code == REVERTED_CODE || EVM_ERROR_MESSAGES.iter().any(|said| message.contains(said)) {
                Ok(false)
            } else if RATE_LIMIT_CODES.contains(&code) {
                Err(ContractResponseError::RateLimited(code))
            } else if success && !NODE_ERROR_CODES.contains(&code) {
                Err(ContractResponseError::Ambiguous(code))
            } else {
                Err(ContractResponseError::NodeError(code))
            }
        }
        RpcResponse { result: Some(result), .. } if success => {
            let digits = result.strip_prefix("0x").ok_or(ContractResponseError::Malformed)?;
            let bytes = hex::decode(digits).map_err(|_| ContractResponseError::Malformed)?;
            // The whole word: some contracts say back what they are asked, and the question begins
            // with the same four bytes. Nothing at all: there is no contract, or none that knows it.
            let word = bytes.get(..32).and_then(|word| word.strip_prefix(&MAGIC_VALUE));
            Ok(word.is_some_and(|padding| padding.iter().all(|&byte| byte == 0)))
        }
        _ => Err(ContractResponseError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calldata_follows_the_solidity_abi() {
        let data = hex::encode(calldata(&[0xab; 32], &[0xcd; 33]));
        let expected = [
            "1626ba7e",
            &"ab".repeat(32),
            "0000000000000000000000000000000000000000000000000000000000000040",
            "0000000000000000000000000000000000000000000000000000000000000021",
            &"cd".repeat(33),
            &"00".repeat(31),
        ];
        assert_eq!(data, expected.concat());
        assert_eq!(calldata(&[0; 32], &[]).len(), 4 + 3 * 32);
        assert_eq!(calldata(&[0; 32], &[0; 64]).len(), 4 + 5 * 32);
    }

    fn word(first: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": 1, "result": format!("0x{first:0<64}")})
    }

    fn error(code: i64, message: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}})
    }

    #[test]
    fn only_the_magic_value_is_a_valid_signature() {
        let said = |answer: &Value| parse_contract_response(true, answer.to_string().as_bytes());
        assert_eq!(said(&word("1626ba7e")), Ok(true));
        assert_eq!(said(&word("ffffffff")), Ok(false));
        assert_eq!(said(&word("0000000000000001626ba7e")), Ok(false));
        assert_eq!(said(&json!({"result": "0x1626ba7e"})), Ok(false), "not a word");
        let echo = format!("0x{}", hex::encode(calldata(&[0xab; 32], &[0xcd; 65])));
        assert_eq!(said(&json!({"result": echo})), Ok(false), "as the precompile at address 4 would");
        assert_eq!(said(&json!({"result": "0x"})), Ok(false), "no contract");
    }

    #[test]
    fn contract_failures_are_answers_node_failures_are_errors() {
        let said = |answer: &Value| parse_contract_response(true, answer.to_string().as_bytes());
        for answer in [
            error(3, "execution reverted: not the owner"),
            error(-32000, "execution reverted"),
            error(-32015, "VM execution error."),
            error(-32603, "Error: VM Exception while processing transaction: reverted"),
            error(-32000, "out of gas"),
            error(-32000, "stack underflow (0 <=> 1)"),
            error(-32003, "EVM error: InvalidFEOpcode"),
            error(-32000, "gas uint64 overflow"),
            json!({"result": format!("0x{}", "0".repeat(MAX_CONTRACT_RESPONSE_BYTES))}),
        ] {
            assert_eq!(said(&answer), Ok(false), "{answer}");
        }
        for code in NODE_ERROR_CODES {
            let answer = error(code, "internal error");
            assert_eq!(said(&answer), Err(ContractResponseError::NodeError(code)));
        }
        for (code, message) in [
            (-32000, "bad elliptic curve pairing size"),
            (-32000, "invalid input length"),
            (-32000, "header not found"),
            (-32602, "invalid argument 0"),
            (1, ""),
        ] {
            assert_eq!(said(&error(code, message)), Err(ContractResponseError::Ambiguous(code)), "{message}");
        }
        for noise in [
            json!({}),
            json!({"result": "1626ba7e"}),
            json!({"result": "0xno"}),
            json!([word("1626ba7e")["result"]]),
        ] {
            assert_eq!(said(&noise), Err(ContractResponseError::Malformed), "{noise}");
        }
        let page = format!("<html>{}", " ".repeat(MAX_CONTRACT_RESPONSE_BYTES));
        assert_eq!(parse_contract_response(true, page.as_bytes()), Err(ContractResponseError::Malformed));
        // A yes with an error's status is none; a revert is one with any.
        let failed = |answer: &Value| parse_contract_response(false, answer.to_string().as_bytes());
        assert_eq!(failed(&word("1626ba7e")), Err(ContractResponseError::Malformed));
        assert_eq!(failed(&error(3, "execution reverted")), Ok(false));
        assert_eq!(
            failed(&error(-32000, "too many requests")),
            Err(ContractResponseError::NodeError(-32000))
        );
    }

    #[test]
    fn rate_limit_response_is_not_a_node_failure() {
        for (code, message) in [
            (-32005, "daily request count exceeded, request rate limited"),
            (429, "Your app has exceeded its compute units per second capacity."),
            (-32007, "15/second request limit reached"),
            (-32012, "credits limited to 6000/sec"),
            (-32605, "Rate Limit"),
        ] {
            let answer = error(code, message).to_string();
            for success in [true, false] {
                let read = parse_contract_response(success, answer.as_bytes());
                assert_eq!(read, Err(ContractResponseError::RateLimited(code)), "{message}");
            }
        }
        let reverted = error(3, "execution reverted: too many requests").to_string();
        assert_eq!(parse_contract_response(true, reverted.as_bytes()), Ok(false), "the contract's words");
    }
}
