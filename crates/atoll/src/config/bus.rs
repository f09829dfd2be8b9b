//! The settings of `[bus]`, validated.

use bus::{Credentials, NatsSettings};
use protocol::subject::{SubjectScheme, SubjectSchemeError};
use reqwest::Url;

use super::{
    roles::{list, seconds},
    settings::Bus,
    urls::is_url,
};

/// The settings of the bus over NATS; `None` for the bus within the process. Adds problems to
/// `problems`, without any password.
pub(super) fn parse(settings: &Bus, problems: &mut Vec<String>) -> Option<NatsSettings> {
    let mut check = |holds: bool, key: &str, value: &str, rule: &str| {
        if !holds {
            problems.push(format!("bus.{key} = {value}: {rule}"));
        }
    };
    let Bus {
        url,
        user,
        password,
        token,
        credentials_file,
        ca_file,
        subjects,
        connect_timeout_s,
        lease_replicas,
    } = settings;
    check(*connect_timeout_s > 0, "connect_timeout_s", "0", "must be at least 1");
    // JetStream has at most five replicas, and an even number survives no more failures than the odd
    // one below it.
    let rule = "must be 0 (automatic), 1, 3 or 5";
    check([0, 1, 3, 5].contains(lease_replicas), "lease_replicas", &lease_replicas.to_string(), rule);
    let servers = list(url);
    let layout: Result<SubjectScheme, SubjectSchemeError> = subjects.parse();
    if let Err(error) = layout {
        check(false, "subjects", subjects, &error.to_string());
    }
    let layout = layout.unwrap_or_default();
    let rule = "needs bus.url: the bus within the process has no other participants";
    check(!servers.is_empty() || layout == SubjectScheme::CommsV3, "subjects", subjects, rule);
    let rule =
        "must be nats://host:port or tls://host:port, or several of them, separated by commas; or empty";
    let valid = servers
        .iter()
        .all(|url| is_url(url, &["nats", "tls"]) && Url::parse(url).is_ok_and(has_only_an_authority));
    check(valid, "url", "(hidden)", rule);
    let paired = user.is_empty() == password.is_empty();
    check(paired, "password", "(hidden)", "must be set with bus.user, and not without it");
    let in_url = url.contains('@');
    let credentials_set =
        [user, token, credentials_file].iter().filter(|way| !way.is_empty()).count() + usize::from(in_url);
    let rule = "set only one of the credentials in bus.url, bus.user, bus.token and bus.credentials_file";
    check(credentials_set <= 1, "user", user, rule);
    let used = !servers.is_empty() || credentials_set == 0 && ca_file.is_empty();
    check(used, "url", "\"\"", "must be set when credentials or bus.ca_file are");
    let credentials = match (&**user, &**token, &**credentials_file) {
        ("", "", "") => Credentials::None,
        ("", "", file) => Credentials::File(file.into()),
        ("", token, _) => Credentials::Token(token.to_owned()),
        (user, ..) => Credentials::User(user.to_owned(), password.clone()),
    };
    (!servers.is_empty()).then(|| NatsSettings {
        servers,
        credentials,
        ca_file: (!ca_file.is_empty()).then(|| ca_file.into()),
        subject_scheme: layout,
        connect_timeout: seconds(*connect_timeout_s),
        pattern_queue: None,
        lease_replicas: (*lease_replicas > 0).then_some(*lease_replicas),
    })
}

/// Replaces secrets with `(hidden)`.
pub(super) fn hide_secrets(settings: &mut Bus) {
    // A user and password come before an `@`.
    let url = settings.url.contains('@').then_some(&mut settings.url);
    let secrets = [&mut settings.password, &mut settings.token].into_iter().chain(url);
    secrets.filter(|secret| !secret.is_empty()).for_each(|secret| *secret = "(hidden)".to_owned());
}

fn has_only_an_authority(url: Url) -> bool {
    ["", "/"].contains(&url.path()) && url.query().is_none() && url.fragment().is_none()
}
