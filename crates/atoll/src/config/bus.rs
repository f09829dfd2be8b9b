//! `[bus]`: the bus that connects the roles.

use std::ops::Deref;

use bus::{Credentials, NatsSettings};
use protocol::subject::SubjectScheme;
use reqwest::Url;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    problems::Problems,
    section::section,
    urls::is_url,
    values::{HIDDEN, Seconds, Secret, SettingType, Text, parts},
};

section! {
    /// `[bus]`: the bus that connects the roles
    pub(crate) struct Bus {
        /// NATS servers of one cluster, separated by commas: `nats://host:port` or `tls://host:port`.
        /// `user:password@` or `token@` before a host are credentials; the URL then counts as a secret.
        /// Empty: the bus is within the process.
         url: BusUrl = BusUrl::default(),
        /// The user, if the URL does not contain it. Use only one of the four kinds of credentials: in the
        /// URL, `user`, `token` or `credentials_file`.
        user: String = String::new(),
        /// The user's password. It counts as a secret.
        password: Secret = Secret::default(),
        /// A token, instead of a user. It counts as a secret.
        token: Secret = Secret::default(),
        /// A file with a JWT and the seed of its key, instead of a user.
        credentials_file: String = String::new(),
        /// Certificates of trusted authorities, PEM. Empty: those of the system.
        ca_file: String = String::new(),
        /// Subject scheme: `comms-v3`, or `archipelago-workers` to run beside the services of that name,
        /// which know neither sessions nor headers. The latter needs `url`.
        subjects: Text<SubjectScheme> = Text::new(SubjectScheme::CommsV3),
        /// Time limit for the first connection; if it fails, the process does not start. A connection that is
        /// lost later is retried without limit.
        #[at_least(1)]
        connect_timeout_s: Seconds = Seconds(5),
        /// Number of servers of a NATS cluster that store the lease of the leading director (the JetStream
        /// stream `KV_atoll-leases`): 1, 3 or 5. 0: three if the cluster has three or more servers with
        /// JetStream, otherwise one. A director leads while a majority of the replicas runs; without a
        /// majority, none does. The leading director adds missing replicas to an existing stream within about
        /// 10 s, also after the cluster has grown. Replicas are never removed.
        lease_replicas: usize = 0,
    }
}

impl Bus {
    /// Reports problems, without any password.
    pub(super) fn validate(&self, problems: &mut Problems) {
        let Self { url, user, password, token, credentials_file, ca_file, subjects, lease_replicas, .. } =
            self;
        // JetStream has at most five replicas, and an even number survives no more failures than the odd
        // one below it.
        let rule = "must be 0 (automatic), 1, 3 or 5";
        problems.check([0, 1, 3, 5].contains(lease_replicas), "bus.lease_replicas", lease_replicas, rule);
        let rule = "needs bus.url: the bus within the process has no other participants";
        let alone = **subjects == SubjectScheme::CommsV3;
        problems.check(url.is_shared() || alone, "bus.subjects", subjects.text(), rule);
        let rule =
            "must be nats://host:port or tls://host:port, or several of them, separated by commas; or empty";
        let valid = parts(url)
            .all(|url| is_url(url, &["nats", "tls"]) && Url::parse(url).is_ok_and(has_only_an_authority));
        problems.check(valid, "bus.url", HIDDEN, rule);
        let paired = user.is_empty() == password.is_empty();
        problems.check(paired, "bus.password", HIDDEN, "must be set with bus.user, and not without it");
        let ways = [!user.is_empty(), !token.is_empty(), !credentials_file.is_empty(), url.has_credentials()];
        let credentials_set = ways.into_iter().filter(|set| *set).count();
        let rule = "set only one of the credentials in bus.url, bus.user, bus.token and bus.credentials_file";
        problems.check(credentials_set <= 1, "bus.user", user, rule);
        let used = url.is_shared() || credentials_set == 0 && ca_file.is_empty();
        problems.check(used, "bus.url", "\"\"", "must be set when credentials or bus.ca_file are");
    }

    /// The settings of the bus over NATS; `None` for the bus within the process.
    pub(crate) fn settings(&self) -> Option<NatsSettings> {
        let credentials = match (&*self.user, &*self.token, &*self.credentials_file) {
            ("", "", "") => Credentials::None,
            ("", "", file) => Credentials::File(file.into()),
            ("", token, _) => Credentials::Token(token.to_owned()),
            (user, ..) => Credentials::User(user.to_owned(), self.password.to_string()),
        };
        self.url.is_shared().then(|| NatsSettings {
            servers: parts(&self.url).map(str::to_owned).collect(),
            credentials,
            ca_file: (!self.ca_file.is_empty()).then(|| self.ca_file.as_str().into()),
            subject_scheme: *self.subjects,
            connect_timeout: self.connect_timeout_s.duration(),
            pattern_queue: None,
            lease_replicas: (self.lease_replicas > 0).then_some(self.lease_replicas),
        })
    }
}

fn has_only_an_authority(url: Url) -> bool {
    ["", "/"].contains(&url.path()) && url.query().is_none() && url.fragment().is_none()
}

/// The URLs of the NATS servers, separated by commas. In messages it is always hidden.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct BusUrl(String);

impl BusUrl {
    /// Whether the bus is over NATS.
    pub(super) fn is_shared(&self) -> bool {
        parts(self).next().is_some()
    }

    /// A user and password come before an `@`.
    fn has_credentials(&self) -> bool {
        self.contains('@')
    }
}

impl Deref for BusUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl SettingType for BusUrl {
    const IS_SECRET: bool = true;
}

impl std::fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.has_credentials() { HIDDEN } else { self })
    }
}

impl Serialize for BusUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.has_credentials() { HIDDEN } else { self })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::problems;

    #[test]
    fn unsupported_lease_replicas_are_refused() {
        for count in [2, 4, 7] {
            let problems = problems(&format!("[bus]\nlease_replicas = {count}"));
            assert_eq!(problems, [format!("bus.lease_replicas = {count}: must be 0 (automatic), 1, 3 or 5")]);
        }
    }
}
