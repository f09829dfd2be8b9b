//! Checks of the URLs in settings.

use reqwest::Url;

/// Whether `text` is a URL with one of these schemes and a host. A port of 0 is refused, and so are white
/// space and missing or surplus slashes, which the parser would ignore.
pub(super) fn is_url(text: &str, schemes: &[&str]) -> bool {
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with(['/', '\\']));
    let usable = |url: Url| url.has_host() && url.port() != Some(0) && schemes.contains(&url.scheme());
    plain && Url::parse(text).is_ok_and(usable)
}

/// The rule of [`is_public_base`], for error messages.
pub(super) const PUBLIC_BASE_RULE: &str = "must be http://host:port or https://host, with or without a path; no wildcard address, white space, user, \
     query or fragment";

/// Whether `text` can be sent to clients as an HTTP base URL, to which paths are appended.
pub(super) fn is_public_base(text: &str) -> bool {
    let bare = |url: Url| {
        let has_user = !url.username().is_empty() || url.password().is_some();
        let is_wildcard = host(url.as_str()).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        !has_user && !is_wildcard && url.query().is_none() && url.fragment().is_none()
    };
    is_url(text, &["http", "https"]) && Url::parse(text).is_ok_and(bare)
}

/// The host of a URL, in lower case, without port and brackets. Empty if there is none.
pub(super) fn host(url: &str) -> String {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_base_must_be_reachable_by_clients() {
        for url in ["http://h", "https://h/", "http://127.0.0.1:5000", "https://[::1]:1/realms/one/"] {
            assert!(is_public_base(url), "{url}");
        }
        for url in [
            "",
            "h",
            "h:80",
            "https://",
            "http://",
            "http:///path",
            "http:/h",
            "http:\\\\h",
            "http://:80",
            "ws://h",
            "http://h ",
            " http://h",
            "http://h/a b",
            "http://h\t",
            "http://user@h",
            "http://user:word@h",
            "http://h?x",
            "http://h#x",
            "http://h:0",
            "http://h:65536",
            "http://0.0.0.0:5000",
            "http://[::]:5000",
            "http://[",
            "file:///etc",
            "http//h",
            "http://h:x",
        ] {
            assert!(!is_public_base(url), "{url}");
        }
    }

    #[test]
    fn host_is_without_port_and_brackets() {
        assert_eq!(host("https://Realm.Example:8443/one"), "realm.example");
        assert_eq!(host("http://[2001:db8::1]:5000"), "2001:db8::1");
        assert_eq!(host("nothing"), "");
    }
}
