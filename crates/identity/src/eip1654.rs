//! The call `isValidSignature(bytes32,bytes)` to a contract wallet (EIP-1271, and EIP-1654 before it):
//! encodes it and interprets the response of an Ethereum node.

use serde::Deserialize;
use serde_json::Value;

/// The reason for which a node's response does not show whether the contract accepts the signature. It
/// carries at most the error code, and no text that the node sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContractResponseError {
    /// The node failed, with this JSON-RPC error code.
    #[error("it answered with JSON-RPC error {0}")]
    NodeError(i64),
    /// The node rejected the call by its rate limit, with this JSON-RPC error code.
    #[error("it answered with JSON-RPC error {0}: its rate limit is exceeded")]
    RateLimited(i64),
    /// Either the node or the contract may have caused this JSON-RPC error: it counts as a failure of
    /// neither, and the signature is not verified.
    #[error("it answered with JSON-RPC error {0}, which shows neither whether it nor the contract failed")]
    Ambiguous(i64),
    /// The body is not JSON-RPC, or not a response to such a call.
    #[error("it did not answer in JSON-RPC")]
    Malformed,
}

/// The magic value of EIP-1271: the selector of the function, and its return value for a valid signature.
const MAGIC_VALUE: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];
/// Upper bound of the response body that is interpreted. A contract controls the length of its return value,
/// of which 32 bytes are expected. A caller needs to read this many bytes and one more, which shows that the
/// body exceeds the bound.
pub const MAX_CONTRACT_RESPONSE_BYTES: usize = 16 * 1024;
/// Parts of the error messages, in lower case, by which deployed nodes report that execution of the call
/// failed. That is the contract's result. The list need not be complete: an error with neither a listed
/// message nor a listed code is [`ContractResponseError::Ambiguous`], which does not count as a node failure
/// either.
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
/// Code of `execution reverted` in the JSON-RPC specification of execution clients.
const REVERTED_CODE: i64 = 3;
/// Error codes that only the node can cause: parse error, invalid request, method not found, internal error
/// (JSON-RPC 2.0), resource not found or unavailable (EIP-1474).
const NODE_ERROR_CODES: [i64; 6] = [-32700, -32600, -32601, -32603, -32001, -32002];
/// Error codes by which providers report their rate limit where the HTTP status does not: EIP-1474's "limit
/// exceeded" (Infura and others), the HTTP status as a code (Alchemy), and codes of QuickNode and
/// BlockVision.
const RATE_LIMIT_CODES: [i64; 5] = [-32005, 429, -32007, -32012, -32605];

/// Encodes the call: the selector, the digest, the offset of the signature, its length, and the signature
/// padded to units of 32 bytes (Solidity's ABI, "use of dynamic types").
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

/// Interprets the body of a node's response: whether the contract accepts the signature. `success`: the HTTP
/// status reported success.
///
/// The client that signs in chooses the contract, so only an error that no contract can cause counts as a
/// failure of the node. An error that only the contract can cause is its result: the signature is invalid.
/// Without `success` every other error is a failure of the node. With it, all other errors are ambiguous,
/// because nodes report dozens of causes under one code.
///
/// A body over [`MAX_CONTRACT_RESPONSE_BYTES`] that begins like JSON is an invalid signature if `success`,
/// because the contract chose its length.
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
            if code == REVERTED_CODE || EVM_ERROR_MESSAGES.iter().any(|text| message.contains(text)) {
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
            // All 32 bytes are compared, because some contracts return their call data, which begins with the
            // same four bytes. An empty result: no contract has this address, or the contract lacks the
            // function.
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
        let parse = |answer: &Value| parse_contract_response(true, answer.to_string().as_bytes());
        assert_eq!(parse(&word("1626ba7e")), Ok(true));
        assert_eq!(parse(&word("ffffffff")), Ok(false));
        assert_eq!(parse(&word("0000000000000001626ba7e")), Ok(false));
        assert_eq!(parse(&json!({"result": "0x1626ba7e"})), Ok(false), "shorter than 32 bytes");
        let echo = format!("0x{}", hex::encode(calldata(&[0xab; 32], &[0xcd; 65])));
        assert_eq!(
            parse(&json!({"result": echo})),
            Ok(false),
            "the precompile at address 4 returns its input"
        );
        assert_eq!(parse(&json!({"result": "0x"})), Ok(false), "no contract has this address");
    }

    #[test]
    fn contract_failures_are_answers_node_failures_are_errors() {
        let parse = |answer: &Value| parse_contract_response(true, answer.to_string().as_bytes());
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
            assert_eq!(parse(&answer), Ok(false), "{answer}");
        }
        for code in NODE_ERROR_CODES {
            let answer = error(code, "internal error");
            assert_eq!(parse(&answer), Err(ContractResponseError::NodeError(code)));
        }
        for (code, message) in [
            (-32000, "bad elliptic curve pairing size"),
            (-32000, "invalid input length"),
            (-32000, "header not found"),
            (-32602, "invalid argument 0"),
            (1, ""),
        ] {
            assert_eq!(
                parse(&error(code, message)),
                Err(ContractResponseError::Ambiguous(code)),
                "{message}"
            );
        }
        for noise in [
            json!({}),
            json!({"result": "1626ba7e"}),
            json!({"result": "0xno"}),
            json!([word("1626ba7e")["result"]]),
        ] {
            assert_eq!(parse(&noise), Err(ContractResponseError::Malformed), "{noise}");
        }
        let page = format!("<html>{}", " ".repeat(MAX_CONTRACT_RESPONSE_BYTES));
        assert_eq!(parse_contract_response(true, page.as_bytes()), Err(ContractResponseError::Malformed));
        // With an HTTP error status, a valid result is not accepted, but a revert still is the contract's
        // result.
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
        assert_eq!(
            parse_contract_response(true, reverted.as_bytes()),
            Ok(false),
            "the contract chose the text"
        );
    }
}
