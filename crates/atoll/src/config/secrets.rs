//! Refuses short secrets, and warns about weak ones, by an upper bound of their entropy.

use std::collections::HashSet;

/// A secret shorter than this can be guessed, and is refused; one with less than 256 bits of entropy
/// causes a warning.
const MIN_SECRET_BYTES: usize = 16;
/// The minimum size of an HS256 key (RFC 7518, 3.2), in bits.
const REQUIRED_BITS: f64 = 256.0;

pub(super) fn is_long(secret: &str) -> bool {
    secret.len() >= MIN_SECRET_BYTES
}

/// Returns a warning if a secret of the setting `key` cannot have 256 bits of entropy, independent of
/// how it was made. A secret that only looks random passes: that cannot be detected.
pub(super) fn entropy_warning(key: &str, secret: &str) -> Option<String> {
    let bits = entropy_bound(secret);
    (bits < REQUIRED_BITS).then(|| {
        format!(
            "{key}: a secret has at most {bits:.0} bits of entropy, and 256 are needed (RFC 7518, 3.2): \
             make one with `openssl rand -hex 32`"
        )
    })
}

/// An upper bound in bits: the length times the bits of one character of the smallest fitting alphabet.
/// A text with few distinct characters counts as one of an alphabet of only these.
fn entropy_bound(secret: &str) -> f64 {
    let distinct = secret.chars().collect::<HashSet<_>>().len();
    let is = |alphabet: fn(char) -> bool| secret.chars().all(alphabet);
    let alphabet = if is(|c| c.is_ascii_hexdigit()) {
        16.0
    } else if is(|c| c.is_ascii_alphanumeric() || "+/-_=".contains(c)) {
        64.0
    } else {
        95.0_f64
    };
    // 64 random characters of an alphabet of 16 have about 15.7 distinct ones.
    let per_character = if distinct >= 12 { alphabet.log2() } else { (distinct.max(1) as f64).log2() };
    secret.chars().count() as f64 * per_character
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_32_random_bytes_pass() {
        for secret in [
            "6c4f5a0b1e2d3c9887766554433221100fedcba90123456789abcdef01234567",
            "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZmdoaWo",
            "x9!kQz@7#pLm$2vB%nR^5tY&8uI*0oP(1aS)4dF_6g",
        ] {
            assert_eq!(entropy_warning("key", secret), None, "{secret}");
        }
    }

    #[test]
    fn short_or_repetitive_secrets_cause_a_warning() {
        for (secret, bits) in
            [("a secret of sixteen", 125), ("0123456789abcdef0123456789abcdef", 128), (&"ab".repeat(64), 128)]
        {
            let warning = entropy_warning("rooms.token_secrets", secret).unwrap();
            assert!(warning.starts_with("rooms.token_secrets: a secret has at most "), "{warning}");
            assert!(warning.contains(&format!("{bits} bits")), "{secret}: {warning}");
            assert!(!warning.contains(secret));
        }
    }
}
