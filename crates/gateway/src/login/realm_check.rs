//! Checks that a signed login is meant for this realm, because a proof for one realm must not admit to
//! another.

use serde_json::{Map, Value};

/// The treatment of a signed login with metadata that names another realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RealmCheck {
    /// The login is refused.
    #[default]
    Refuse,
    /// The login is accepted, logged and counted.
    Log,
}

/// The names under which clients know this realm.
#[derive(Debug, Clone, Default)]
pub struct RealmNames {
    /// The name in `/about`, if the realm has one.
    pub name: Option<String>,
    /// The hosts of its public URLs, in lower case, without ports.
    pub hosts: Vec<String>,
    /// Further names and hosts.
    pub aliases: Vec<String>,
}

impl RealmNames {
    /// The field of signed-fetch metadata that names another realm, and its value, if one does.
    ///
    /// `realm.serverName` is compared with the name, and `realm.hostname` (a host, with or without a scheme,
    /// port and path) with the hosts; aliases apply to both. Letter case is ignored, because older clients
    /// sign the metadata in lower case. An absent or empty field passes, as does any `serverName` if the
    /// realm has no name. `origin` is that of the web page, and is never compared.
    pub(crate) fn mismatch<'a>(&self, metadata: &'a Map<String, Value>) -> Option<(&'static str, &'a str)> {
        let realm = metadata.get("realm").and_then(Value::as_object)?;
        realm.iter().find_map(|(key, value)| {
            let value = value.as_str().filter(|value| !value.is_empty())?;
            if key.eq_ignore_ascii_case("serverName") {
                (!self.is_name(value)).then_some(("realm.serverName", value))
            } else if key.eq_ignore_ascii_case("hostname") {
                (!self.is_host(parse_host(value))).then_some(("realm.hostname", value))
            } else {
                None
            }
        })
    }

    fn is_name(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(name)) || self.is_alias(name)
    }

    fn is_host(&self, host: &str) -> bool {
        let is_own = |own: &String| own.eq_ignore_ascii_case(host) || is_loopback(own) && is_loopback(host);
        self.hosts.iter().any(is_own) || self.is_alias(host)
    }

    fn is_alias(&self, text: &str) -> bool {
        self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(text))
    }
}

/// Extracts the host from `host`, `host:port` or `scheme://host:port/path`, without the brackets of IPv6.
fn parse_host(text: &str) -> &str {
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        // More than one colon: an IPv6 address without brackets.
        None if authority.matches(':').count() > 1 => authority,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Whether a host name or address is loopback. A realm on one loopback address is reached under all loopback
/// names.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> RealmNames {
        RealmNames {
            name: Some("Hephaestus".to_owned()),
            hosts: vec!["realm.example".to_owned(), "2001:db8::1".to_owned()],
            aliases: vec!["old.example".to_owned(), "main".to_owned()],
        }
    }

    fn mismatch(names: &RealmNames, realm: Value) -> Option<String> {
        let metadata = json!({ "origin": "https://elsewhere.example", "realm": realm });
        names.mismatch(metadata.as_object().unwrap()).map(|(field, value)| format!("{field}={value}"))
    }

    #[test]
    fn names_of_this_realm_pass() {
        for realm in [
            json!({}),
            json!(null),
            json!("elsewhere"),
            json!({ "serverName": "", "hostname": null }),
            json!({ "serverName": "hephaestus", "hostname": "realm.example" }),
            json!({ "servername": "HEPHAESTUS", "hostname": "https://Realm.Example:8443/one" }),
            json!({ "serverName": "main", "hostname": "old.example:1" }),
            json!({ "hostname": "[2001:db8::1]:5000" }),
            json!({ "hostname": "2001:db8::1" }),
        ] {
            assert_eq!(mismatch(&names(), realm.clone()), None, "{realm}");
        }
    }

    #[test]
    fn names_of_another_realm_are_found() {
        for (realm, expected) in [
            (json!({ "serverName": "zeus" }), "realm.serverName=zeus"),
            (json!({ "servername": "zeus", "hostname": "realm.example" }), "realm.serverName=zeus"),
            (json!({ "hostname": "evil.example" }), "realm.hostname=evil.example"),
            (json!({ "hostname": "realm.example.evil" }), "realm.hostname=realm.example.evil"),
            (
                json!({ "hostname": "https://evil.example/realm.example" }),
                "realm.hostname=https://evil.example/realm.example",
            ),
            (
                json!({ "hostname": "http://realm.example:x@evil" }),
                "realm.hostname=http://realm.example:x@evil",
            ),
            (json!({ "hostname": "127.0.0.1" }), "realm.hostname=127.0.0.1"),
        ] {
            assert_eq!(mismatch(&names(), realm).as_deref(), Some(expected));
        }
    }

    #[test]
    fn server_name_passes_where_the_realm_has_none() {
        let names = RealmNames { name: None, ..names() };
        assert_eq!(mismatch(&names, json!({ "serverName": "zeus" })), None);
        assert!(mismatch(&names, json!({ "hostname": "zeus" })).is_some());
    }

    #[test]
    fn loopback_names_are_one_host() {
        let names = RealmNames { hosts: vec!["127.0.0.1".to_owned()], ..RealmNames::default() };
        for host in ["localhost", "http://localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(mismatch(&names, json!({ "hostname": host })), None, "{host}");
        }
    }
}
