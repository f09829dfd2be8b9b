//! The settings of `[realm]` that decide where clients connect, validated.

use protocol::{ConnectionString, RoomName};

use super::{
    Settings,
    island_names::can_be_island,
    urls::{PUBLIC_BASE_RULE, is_public_base, is_url},
};

/// The validated part of `[realm]`.
#[derive(Debug, Clone)]
pub(crate) struct ValidatedRealm {
    adapter: Adapter,
    /// The room that a signed login grants.
    pub(crate) room: Option<RoomName>,
}

#[derive(Debug, Clone)]
enum Adapter {
    /// Clients use the archipelago socket.
    Archipelago,
    /// The realm's own signed login.
    SignedLogin,
    Fixed(ConnectionString),
}

/// The last segment of `/rooms/status`, which is not a room.
pub(super) const STATUS: &str = "status";
/// The reason why no room may have the name [`STATUS`].
pub(super) const STATUS_PROBLEM: &str = "/rooms/status is not a room: it lists the rooms";

/// The value of `realm.fixed_adapter` for the realm's own signed login.
const SIGNED_LOGIN: &str = "signed-login";

impl ValidatedRealm {
    /// Validates the settings. Adds problems to `problems`.
    pub(crate) fn new(settings: &Settings, problems: &mut Vec<String>) -> Self {
        let realm = &settings.realm;
        if !realm.public_url.is_empty() && !is_public_base(&realm.public_url) {
            problems.push(format!("realm.public_url = {:?}: {PUBLIC_BASE_RULE}", realm.public_url));
        }
        for (key, url) in [("content_url", &realm.content_url), ("lambdas_url", &realm.lambdas_url)] {
            if !url.is_empty() && !is_url(url, &["http", "https"]) {
                problems
                    .push(format!("realm.{key} = {url:?}: must be http://host:port or https://host/path"));
            }
        }
        let room = (!realm.fixed_room.is_empty()).then(|| realm.fixed_room.parse::<RoomName>());
        let room = room.and_then(|parsed| {
            let problem = match &parsed {
                Ok(room) if can_be_island(room.as_str(), &settings.islands.id_prefix) => {
                    Some("an island can have this name".to_owned())
                }
                Ok(room) if room.as_str() == STATUS => Some(STATUS_PROBLEM.to_owned()),
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            problems
                .extend(problem.map(|problem| format!("realm.fixed_room = {}: {problem}", realm.fixed_room)));
            parsed.ok()
        });
        let adapter = match realm.fixed_adapter.as_str() {
            "" => Adapter::Archipelago,
            SIGNED_LOGIN => {
                if realm.fixed_room.is_empty() {
                    let rule = "needs realm.fixed_room, the room that it grants";
                    problems.push(format!("realm.fixed_adapter = {SIGNED_LOGIN}: {rule}"));
                }
                Adapter::SignedLogin
            }
            text => match text.parse() {
                Ok(connection) => {
                    problems.extend(
                        url_problem(&connection)
                            .map(|rule| format!("realm.fixed_adapter = {text:?}: {rule}")),
                    );
                    Adapter::Fixed(connection)
                }
                Err(error) => {
                    problems.push(format!("realm.fixed_adapter = {text}: {error}"));
                    Adapter::Archipelago
                }
            },
        };
        Self { adapter, room }
    }

    /// The connection string for all clients of a realm at `http_url`, if it is fixed.
    pub(super) fn fixed_adapter(&self, http_url: &str) -> Option<ConnectionString> {
        match &self.adapter {
            Adapter::Archipelago => None,
            Adapter::SignedLogin => {
                Some(ConnectionString::SignedLogin { url: format!("{http_url}/{SIGNED_LOGIN}") })
            }
            Adapter::Fixed(connection) => Some(connection.clone()),
        }
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
    use super::*;

    fn parse(change: impl FnOnce(&mut Settings)) -> (ValidatedRealm, Vec<String>) {
        let (mut settings, mut problems) = (Settings::default(), Vec::new());
        change(&mut settings);
        let parsed = ValidatedRealm::new(&settings, &mut problems);
        (parsed, problems)
    }

    fn adapter(text: &str) -> (Option<String>, Vec<String>) {
        let (parsed, problems) = parse(|settings| settings.realm.fixed_adapter = text.to_owned());
        (parsed.fixed_adapter("https://host/realm").map(|adapter| adapter.to_string()), problems)
    }

    #[test]
    fn fixed_adapters_are_connection_strings() {
        assert_eq!(adapter(""), (None, vec![]));
        for text in
            ["offline:offline", "ws-room:wss://host/rooms/name.dcl.eth", "signed-login:https://host/path"]
        {
            assert_eq!(adapter(text), (Some(text.to_owned()), vec![]));
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
            let (_, problems) = adapter(text);
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{problems:?}");
        }
    }

    #[test]
    fn own_signed_login_is_at_the_public_url() {
        let (parsed, problems) = parse(|settings| {
            settings.realm.fixed_adapter = "signed-login".to_owned();
            settings.realm.fixed_room = "plaza".to_owned();
        });
        assert!(problems.is_empty(), "{problems:?}");
        let adapter = parsed.fixed_adapter("https://host/realm").unwrap();
        assert_eq!(adapter.to_string(), "signed-login:https://host/realm/signed-login");
        assert_eq!(parsed.room.unwrap().as_str(), "plaza");
    }

    #[test]
    fn fixed_room_cannot_have_an_island_name() {
        let room = |name: &str| parse(|settings| settings.realm.fixed_room = name.to_owned()).1;
        for name in
            ["plaza", "Inn", "I-1", "Imperial-Palace", "I0mabc12", "name.dcl.eth", "world-name.dcl.eth"]
        {
            assert_eq!(room(name), Vec::<String>::new(), "{name}");
        }
        for name in ["a b", "a/b", "a..b", ".eth", "status", "I0mabc12z1", "Iabcdefghi"] {
            assert_eq!(room(name).len(), 1, "{name}");
        }
    }

    #[test]
    fn service_settings_must_be_urls() {
        let (_, problems) = parse(|settings| {
            settings.realm.content_url = "peer.example/content".to_owned();
            settings.realm.lambdas_url = "https://peer.example/lambdas".to_owned();
        });
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("realm.content_url = \"peer.example/content\": must be"),
            "{problems:?}"
        );
    }
}
