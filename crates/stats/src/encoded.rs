//! A JSON body that is compressed once and shared by all responses.
//!
//! Compression is an allow-list: only an [`Encoded`] body is ever compressed. A compression layer around all
//! endpoints would compress each response anew, and could compress a response that holds a secret next to
//! text that an attacker chose (BREACH).

use std::io::Write as _;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// A JSON body, plain and compressed, each with a strong entity tag. All responses share its bytes, so a
/// response that is read slowly costs only its connection. The body must hold no secret.
#[derive(Debug)]
pub struct Encoded {
    /// The tag of the plain bytes. The tag of the compressed bytes has a suffix (RFC 9110, 8.8.3: a strong
    /// tag identifies one sequence of bytes).
    digest: String,
    plain: Bytes,
    /// `None` if the compressed body would not be smaller.
    gzip: Option<Bytes>,
}

impl Encoded {
    /// Compresses a body. This takes some 10 ms for each MiB, so it must not run on an async thread.
    pub fn new(json: Vec<u8>) -> Self {
        let digest = Sha256::digest(&json);
        // Half of the digest, 16 bytes, is enough to distinguish bodies.
        let digest = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let gzip = gzip(&json).filter(|gzip| gzip.len() < json.len());
        Self { digest, plain: shared(json), gzip: gzip.map(shared) }
    }

    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The response to a request with these headers: 304 if the client has the body, otherwise the body,
    /// compressed if the client accepts gzip.
    pub fn respond(&self, request: &HeaderMap) -> Response {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request));
        let (body, suffix) = match gzip {
            Some(gzip) => (gzip, "-gzip"),
            None => (&self.plain, ""),
        };
        let encoding = gzip.map(|_| [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        let vary = [(header::VARY, HeaderValue::from_static("accept-encoding"))];
        (vary, self.respond_with(request, suffix, || (encoding, body.clone()))).into_response()
    }

    /// The response with a body that is determined by this one and the URL. It is not compressed.
    pub(crate) fn respond_part<T: IntoResponse>(
        &self,
        request: &HeaderMap,
        body: impl FnOnce() -> T,
    ) -> Response {
        self.respond_with(request, "", body)
    }

    fn respond_with<T: IntoResponse>(
        &self,
        request: &HeaderMap,
        suffix: &str,
        body: impl FnOnce() -> T,
    ) -> Response {
        let tag = format!("\"{}{suffix}\"", self.digest);
        // A cache may store the body, but must revalidate it for each request.
        let headers = |tag| [(header::CACHE_CONTROL, "no-cache".to_owned()), (header::ETAG, tag)];
        if client_has(request, &tag) {
            return (StatusCode::NOT_MODIFIED, headers(tag)).into_response();
        }
        (headers(tag), [(header::CONTENT_TYPE, "application/json")], body()).into_response()
    }
}

/// Drops the spare capacity of the vector, which would otherwise stay allocated as long as the body.
fn shared(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

/// Compresses bytes. Never returns `None`: writing to a vector does not fail.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    // The fastest level, because the body is compressed again after each change.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// The members of a list-valued header, from all lines with this name.
fn members<'a>(request: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Whether the client accepts gzip (RFC 9110, 12.5.3). A member that names gzip has precedence over `*`.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let mut accepted = [None, None];
    for member in members(request, &header::ACCEPT_ENCODING) {
        let (coding, weight) = member.split_once(';').unwrap_or((member, "q=1"));
        let weight = weight.trim().to_lowercase();
        let weight = weight.strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        let index = match coding.trim().to_lowercase().as_str() {
            "gzip" | "x-gzip" => 0,
            "*" => 1,
            _ => continue,
        };
        accepted[index] = Some(weight.is_some_and(|weight| weight > 0.0));
    }
    accepted[0].or(accepted[1]).unwrap_or(false)
}

/// Whether the client has the body with this tag (RFC 9110, 13.1.2, by weak comparison).
fn client_has(request: &HeaderMap, tag: &str) -> bool {
    let mut known = members(request, &header::IF_NONE_MATCH);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn accept_encoding_decides_about_gzip() {
        let accepts = |lines: &[&'static str]| accepts_gzip(&request(header::ACCEPT_ENCODING, lines));
        let yes: [&[&str]; 7] = [
            &["gzip"],
            &["br, GZIP;q=0.1"],
            &["x-gzip"],
            &["*"],
            &["br;q=1", "gzip ; q=1.0"],
            &["*;q=0, gzip"],
            &["deflate, gzip;Q=0.5, identity"],
        ];
        for lines in yes {
            assert!(accepts(lines), "{lines:?}");
        }
        let no: [&[&str]; 7] =
            [&[], &[""], &["identity"], &["gzip;q=0"], &["gzip;q=0, *"], &["br, *;q=0.0"], &["gzip;q=x"]];
        for lines in no {
            assert!(!accepts(lines), "{lines:?}");
        }
    }

    #[test]
    fn if_none_match_decides_about_304() {
        let body = Encoded::new(b"[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]".to_vec());
        assert!(body.gzip.is_some());
        let tag = format!("\"{}\"", body.digest);
        let status = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            let plain = body.respond(&headers).status();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            (plain.as_u16(), body.respond(&headers).status().as_u16())
        };
        assert_eq!(status("\"other\""), (200, 200));
        assert_eq!(status(&tag), (304, 200), "each variant has a tag of its own");
        assert_eq!(status(&tag.replacen("\"", "", 1)), (200, 200));
        let gzip = tag.replace(&body.digest, &format!("{}-gzip", body.digest));
        assert_eq!(status(&format!("\"a\",W/{gzip}")), (200, 304));
        assert_eq!(status(&format!("{tag}, {gzip}")), (304, 304));
        assert_eq!(status("*"), (304, 304));
    }

    #[test]
    fn small_body_is_not_compressed() {
        assert!(Encoded::new(b"[]".to_vec()).gzip.is_none());
    }
}
