//! Responses of Ethereum nodes, and of contracts through them: none causes a panic, only the magic word
//! with a success status is a valid signature, and no error that a contract can cause counts as a
//! failure of the node.

#![no_main]

use identity::{ContractResponseError, MAX_CONTRACT_RESPONSE_BYTES, parse_contract_response};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The body: the input itself, or a part of a well-formed response.
fn body(shape: u8, rest: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(rest);
    let code = rest.first_chunk().map_or(0, |&bytes| i64::from(i16::from_le_bytes(bytes)));
    let answer = match shape % 4 {
        0 => return rest.to_vec(),
        1 => json!({"jsonrpc": "2.0", "id": 1, "result": format!("0x{text}")}),
        2 => json!({"error": {"code": code, "message": text}}),
        _ => json!({"result": format!("0x1626ba7e{text}"), "error": null}),
    };
    answer.to_string().into_bytes()
}

fuzz_target!(|data: &[u8]| {
    let Some((&shape, rest)) = data.split_first() else { return };
    let (success, body) = (shape < 128, body(shape, rest));
    let read = parse_contract_response(success, &body);
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match read {
        Ok(true) => {
            let result = answer["result"].as_str().expect("a result");
            let word = format!("0x1626ba7e{:0<56}", "");
            assert!(success && body.len() <= MAX_CONTRACT_RESPONSE_BYTES);
            assert!(result.to_lowercase().starts_with(&word), "{result}");
        }
        Err(ContractResponseError::NodeError(code)) => {
            assert!(!success || (-32_700..=-32_001).contains(&code), "{code}")
        }
        Err(ContractResponseError::Ambiguous(code)) => assert!(success && code != 3),
        Ok(false) | Err(ContractResponseError::RateLimited(_) | ContractResponseError::Malformed) => {}
    }
});
