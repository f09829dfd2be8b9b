//! `[realm]`: the content of `/about`, and where clients connect.

use std::str::FromStr;

use gateway::{RealmCheck, RealmNames};
use protocol::{ConnectionString, RoomName};

use super::{
    problems::{Problems, quoted},
    room_names::{STATUS, STATUS_PROBLEM},
    section::section,
    urls::{self, PUBLIC_BASE_RULE, is_public_base, is_url},
    values::{CommaList, Optional},
};

section! {
    /// `[realm]`: the content of `/about`
    pub(crate) struct Realm {
        /// Name of the realm. Empty: the realm has no name.
        name: String = String::new(),
        /// URL at which clients reach the realm: its address in `/hot-scenes`; its host is part of each
        /// challenge. Empty: `server.public_url` of the process that answers, which differs from the realm's
        /// URL if the stats role runs apart.
        public_url: String = String::new(),
        /// Further names and hosts of the realm, separated by commas. A signed login may name them as its
        /// realm.
        aliases: CommaList<String> = CommaList::empty(),
        /// Id of the Ethereum network; 1 is the main net.
        network_id: u64 = 1,
        /// URNs of scenes that run everywhere, separated by commas.
        global_scenes: CommaList<String> = CommaList::empty(),
        /// URNs of the scenes of this realm, separated by commas.
        scenes: CommaList<String> = CommaList::empty(),
        /// URL of the content service. The gateway requests its `/status` every 5 seconds; the realm is
        /// unhealthy until the first success and after two failures in a row. The service also names the
        /// scenes in `/hot-scenes`. Empty: none.
        content_url: String = String::new(),
        /// URL of the lambdas service, which is checked in the same way. Empty: none.
        lambdas_url: String = String::new(),
        /// Connection string that all clients are sent instead of the archipelago socket: `offline:offline`,
        /// `ws-room:wss://host/rooms/x`, `signed-login:https://host/path`. `signed-login` alone selects the
        /// realm's own signed login, at `server.public_url`, which grants entry to `fixed_room`. Empty: none.
        fixed_adapter: Optional<Adapter> = Optional::none(),
        /// Room to which `POST /signed-login` grants entry (a name as in `rooms.open`, `name.dcl.eth` for
        /// instance; not a name that an island can have), on the first room node of the process. A gateway
        /// without the rooms role sends clients to a process of room nodes that has the same setting; of
        /// several such processes, to the first one by the name of its node. Empty: signed logins are
        /// answered with 404.
        fixed_room: Optional<RoomName> = Optional::none(),
        /// Whether a signed login that declares itself a guest is accepted. With `false`, `isGuest` in the
        /// metadata must be absent, `false` or `null`. This is no protection: a guest has a key pair like any
        /// other wallet and need not declare itself.
        guests: bool = true,
    }
}

/// The value of `realm.fixed_adapter` for the realm's own signed login.
const SIGNED_LOGIN: &str = "signed-login";

/// The connection string for all clients.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Adapter {
    /// The realm's own signed login.
    SignedLogin,
    Fixed(ConnectionString),
}

impl FromStr for Adapter {
    type Err = <ConnectionString as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == SIGNED_LOGIN { Ok(Self::SignedLogin) } else { text.parse().map(Self::Fixed) }
    }
}

impl Realm {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let url = &self.public_url;
        let usable = url.is_empty() || is_public_base(url);
        problems.check(usable, "realm.public_url", quoted(url), PUBLIC_BASE_RULE);
        for (key, url) in [("realm.content_url", &self.content_url), ("realm.lambdas_url", &self.lambdas_url)]
        {
            let usable = url.is_empty() || is_url(url, &["http", "https"]);
            problems.check(usable, key, quoted(url), "must be http://host:port or https://host/path");
        }
        if let Some(room) = &*self.fixed_room {
            problems.check(room.as_str() != STATUS, "realm.fixed_room", room, STATUS_PROBLEM);
        }
        match &*self.fixed_adapter {
            None => {}
            Some(Adapter::SignedLogin) => {
                let rule = "needs realm.fixed_room, the room that it grants";
                problems.check(self.fixed_room.is_some(), "realm.fixed_adapter", SIGNED_LOGIN, rule);
            }
            Some(Adapter::Fixed(connection)) => {
                if let Some(rule) = url_problem(connection) {
                    problems.check(false, "realm.fixed_adapter", quoted(self.fixed_adapter.text()), rule);
                }
            }
        }
    }

    /// The realm's name, if it has one.
    pub(crate) fn name(&self) -> Option<String> {
        (!self.name.is_empty()).then(|| self.name.clone())
    }

    /// The URL at which clients reach the realm, for a process at `http_url`.
    pub(super) fn url<'a>(&'a self, http_url: &'a str) -> &'a str {
        if self.public_url.is_empty() { http_url } else { &self.public_url }
    }

    /// The host in challenges: the realm's, or else that of this process, at `http_url`.
    pub(crate) fn challenge_host(&self, http_url: &str) -> String {
        urls::host(self.url(http_url))
    }

    /// The settings of the realm in a gateway at `http_url`.
    pub(super) fn settings(&self, check: RealmCheck, http_url: &str) -> gateway::Realm {
        gateway::Realm {
            network_id: self.network_id,
            global_scenes: self.global_scenes.to_vec(),
            scenes: self.scenes.to_vec(),
            content_url: self.content_url.clone(),
            lambdas_url: self.lambdas_url.clone(),
            fixed_adapter: self.fixed_adapter(http_url),
            guests: self.guests,
            names: RealmNames {
                name: self.name(),
                hosts: [http_url, &self.public_url]
                    .map(urls::host)
                    .into_iter()
                    .filter(|host| !host.is_empty())
                    .collect(),
                aliases: self.aliases.to_vec(),
            },
            check,
        }
    }

    /// The connection string for all clients of a realm at `http_url`, if it is fixed.
    fn fixed_adapter(&self, http_url: &str) -> Option<ConnectionString> {
        Some(match self.fixed_adapter.as_ref()? {
            Adapter::SignedLogin => {
                ConnectionString::SignedLogin { url: format!("{http_url}/{SIGNED_LOGIN}") }
            }
            Adapter::Fixed(connection) => connection.clone(),
        })
    }
}

/// The problem of a connection string's URL, if there is one.
fn url_problem(connection: &ConnectionString) -> Option<String> {
    let (url, schemes): (&str, [&str; 2]) = match connection {
        ConnectionString::LiveKit { url, .. }
        | ConnectionString::WsRoom { url, .. }
        | ConnectionString::Archipelago { url } => (url, ["ws", "wss"]),
        ConnectionString::SignedLogin { url } => (url, ["http", "https"]),
        ConnectionString::P2p { .. } | ConnectionString::Offline | ConnectionString::External { .. } => {
            return None;
        }
    };
    let [plain, tls] = schemes;
    (!is_url(url, &schemes)).then(|| format!("{url:?} must be a URL that begins with {plain}:// or {tls}://"))
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{problems, settings};

    fn accepted(adapter: &str) -> Option<String> {
        let settings = settings(&format!("[realm]\nfixed_adapter = {adapter:?}\nfixed_room = \"plaza\""));
        settings.realm.fixed_adapter("https://host/realm").map(|adapter| adapter.to_string())
    }

    #[test]
    fn fixed_adapters_are_connection_strings() {
        assert_eq!(accepted(""), None);
        for text in
            ["offline:offline", "ws-room:wss://host/rooms/name.dcl.eth", "signed-login:https://host/path"]
        {
            assert_eq!(accepted(text).as_deref(), Some(text));
        }
        for (text, problem) in [
            ("offline", "realm.fixed_adapter = offline: a connection string is a protocol"),
            (
                "livekit:wss://host",
                "realm.fixed_adapter = livekit:wss://host: livekit: access_token is missing",
            ),
            ("signed-login", "realm.fixed_adapter = signed-login: needs realm.fixed_room"),
            (
                "signed-login:https://",
                r#"realm.fixed_adapter = "signed-login:https://": "https://" must be a URL that begins with"#,
            ),
            ("ws-room:http://host/rooms/x", r#"realm.fixed_adapter = "ws-room:http://host/rooms/x": "http"#),
            (
                "livekit:wss:// ?access_token=x",
                r#"realm.fixed_adapter = "livekit:wss:// ?access_token=x": "wss"#,
            ),
        ] {
            let problems = problems(&format!("[realm]\nfixed_adapter = {text:?}"));
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{problems:?}");
        }
    }

    #[test]
    fn own_signed_login_is_at_the_public_url() {
        assert_eq!(accepted("signed-login").unwrap(), "signed-login:https://host/realm/signed-login");
    }

    #[test]
    fn service_settings_must_be_urls() {
        let problems = problems(
            "[realm]\ncontent_url = \"peer.example/content\"\nlambdas_url = \"https://peer.example/lambdas\"",
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("realm.content_url = \"peer.example/content\": must be"),
            "{problems:?}"
        );
    }
}
