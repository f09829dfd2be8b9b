//! A JSON body that is encoded once for all its readers.
//!
//! Compression is an allow-list: only what is made into an [`Encoded`] is ever compressed. A layer around
//! all endpoints would compress each response anew, and could compress one that holds a secret beside text
//! that somebody else chose (BREACH).

use std::io::Write as _;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// A JSON body, plain and compressed, each with a strong entity tag. All responses share its bytes, so that
/// one that is not read costs its connection alone. It must hold nothing that is secret.
#[derive(Debug)]
pub struct Encoded {
    /// Of the plain bytes; that of the compressed ones has a suffix (RFC 9110, 8.8.3: a strong tag names one
    /// sequence of bytes).
    digest: String,
    plain: Bytes,
    /// `None`: it would not be smaller.
    gzip: Option<Bytes>,
}

impl Encoded {
    /// Compresses a body. That takes some 10 ms for each MiB, so it has no place on an async thread.
    pub fn new(json: Vec<u8>) -> Self {
        let digest = Sha256::digest(&json);
        // Half of it tells bodies apart as well.
        let digest = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let gzip = gzip(&json).filter(|gzip| gzip.len() < json.len());
        Self { digest, plain: shared(json), gzip: gzip.map(shared) }
    }

    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The answer to a request with these headers: 304 where the client has the body, else the body,
    /// compressed where the client takes that.
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

    /// The same for a body that follows from this one and the URL, uncompressed.
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
        // A cache may keep it, but asks each time whether it still holds.
        let headers = |tag| [(header::CACHE_CONTROL, "no-cache".to_owned()), (header::ETAG, tag)];
        if client_has(request, &tag) {
            return (StatusCode::NOT_MODIFIED, headers(tag)).into_response();
        }
        (headers(tag), [(header::CONTENT_TYPE, "application/json")], body()).into_response()
    }
}

/// Without the spare capacity of the vector, which all readers would keep.
fn shared(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

/// `None` never happens: writing to a vector does not fail.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    // The fastest level: it is done again as soon as something changes.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// The members of a list-valued header, over all its lines.
fn members<'a>(request: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Whether the client takes gzip (RFC 9110, 12.5.3). What names gzip is stronger than `*`.
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
