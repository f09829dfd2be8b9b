//! `[stats]`: presence over HTTP.

use admission::Rate;
use protocol::{PositionPrecision, timing};
use stats::{Access, TokenDigest};

use super::{
    gateway::Gateway,
    islands::Islands,
    problems::Problems,
    realm::Realm,
    secrets,
    section::section,
    values::{Choice, HIDDEN, Millis, OneOf, Seconds, Secret, rate},
};

section! {
    /// `[stats]`: presence over HTTP
    pub(crate) struct Stats {
        /// A peer without a message for this time is not shown.
        #[at_least(1)]
        peer_timeout_s: Seconds = Seconds::of(timing::PRESENCE_TIMEOUT),
        /// A report of islands older than this is not shown.
        #[at_least(1)]
        report_timeout_s: Seconds = Seconds::of(timing::REPORT_TIMEOUT),
        /// Access to `/peers`, `/islands`, `/parcels` and `/events`: `true` (every client), `token` (clients
        /// that send `token`; others get 401), `false` (no client; all get 403). `/core-status` and
        /// `/hot-scenes`, which name no peer, stay public.
        public: OneOf<PresenceAccess> = OneOf(PresenceAccess::Public),
        /// Access token for `public = "token"`, at least 16 characters. Clients send it as `Authorization:
        /// Bearer <token>`, or in the query as `access_token`. It counts as a secret.
        token: Secret = Secret::default(),
        /// Precision of the positions that presence shows: `exact`, or `parcel`. With `parcel` every position
        /// becomes the centre of its parcel, with y 0. The centre of an island becomes that of a parcel too,
        /// and its radius is measured from there to the centres of its members' parcels. The stats role then
        /// stores nothing more precise, and no answer or event of the endpoints above contains it.
        positions: OneOf<PositionPrecision> = OneOf(PositionPrecision::Exact),
        /// Time limit for a request to the content service (`realm.content_url`) for the scenes on some
        /// parcels.
        #[at_least(1)]
        content_timeout_ms: Millis = Millis(2_000),
        /// Minimum time between two requests for the same parcel, empty land included. The last answer is
        /// shown until a newer one arrives.
        #[at_least(1)]
        scene_ttl_s: Seconds = Seconds(300),
        /// Number of parcels for which the scene is cached. On overflow the parcels that have been without a
        /// peer for longest are evicted.
        #[at_least(1)]
        max_scene_parcels: usize = 10_000,
        /// Number of events that the live feed keeps. A reader that is further behind receives a `reset` and
        /// must fetch the state again.
        #[at_least(1)]
        feed_events: usize = 4_096,
        /// Presence requests per second from one network, in the long run. A request above this rate waits
        /// for its turn for at most 2 s; one that would wait longer is answered with 429. 0: no limit.
        requests_per_second_per_network: u32 = 50,
        /// Burst of this rate.
        #[at_least(1)]
        request_burst_per_network: u32 = 100,
        /// Maximum number of readers of the live feed. Further ones are answered with 503.
        #[at_least(1)]
        max_feed_readers: usize = 256,
        /// Maximum number of readers of one network. Further ones are answered with 503.
        #[at_least(1)]
        max_feed_readers_per_network: usize = 64,
        /// Interval at which a reader of the live feed receives a comment while there are no events. A reader
        /// that reads nothing for twice this time plus one second loses its slot.
        #[at_least(1)]
        feed_keep_alive_s: Seconds = Seconds(15),
    }
}

/// Access to the endpoints that name peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PresenceAccess {
    Public,
    Off,
    Token,
}

impl Choice for PresenceAccess {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("true", Self::Public), ("false", Self::Off), ("token", Self::Token)];
}

impl Choice for PositionPrecision {
    const CHOICES: &'static [(&'static str, Self)] = &[("exact", Self::Exact), ("parcel", Self::Parcel)];
}

impl Stats {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let has_token = self.public.0 != PresenceAccess::Token || secrets::is_long(&self.token);
        let rule = "must have at least 16 characters where stats.public is token";
        problems.check(has_token, "stats.token", HIDDEN, rule);
    }

    /// The rate limit of presence requests from one network.
    pub(crate) fn request_rate(&self) -> Option<Rate> {
        rate(self.requests_per_second_per_network, self.request_burst_per_network)
    }

    /// The settings of presence in a process at `http_url`.
    pub(crate) fn settings(
        &self,
        realm: &Realm,
        gateway: &Gateway,
        islands: &Islands,
        http_url: &str,
    ) -> stats::Settings {
        stats::Settings {
            peer_timeout: self.peer_timeout_s.duration(),
            report_timeout: self.report_timeout_s.duration(),
            access: match self.public.0 {
                PresenceAccess::Public => Access::Public,
                PresenceAccess::Off => Access::Off,
                PresenceAccess::Token => Access::Token(TokenDigest::new(&self.token)),
            },
            positions: self.positions.0,
            realm_name: realm.name.clone(),
            // A process with presence alone has another URL than the realm.
            public_url: realm.url(http_url).trim_end_matches('/').to_owned(),
            max_users: gateway.max_sessions,
            max_island_size: islands.max_size,
            content_url: Some(realm.content_url.clone()).filter(|url| !url.is_empty()),
            content_timeout: self.content_timeout_ms.duration(),
            scene_ttl: self.scene_ttl_s.duration(),
            max_scene_parcels: self.max_scene_parcels,
            feed_events: self.feed_events,
            max_feed_readers: self.max_feed_readers,
            max_feed_readers_per_network: self.max_feed_readers_per_network,
            feed_keep_alive: self.feed_keep_alive_s.duration(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::problems;

    #[test]
    fn invalid_presence_access_settings_are_refused() {
        for (toml, problem) in [
            ("[stats]\npublic = \"maybe\"", "stats.public = maybe: must be true, false or token"),
            ("[stats]\npublic = \"token\"", "stats.token = (hidden): must have at least 16 characters"),
            ("[stats]\npublic = \"token\"\ntoken = \"short\"", "stats.token = (hidden): must have at least"),
        ] {
            let problems = problems(toml);
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{problems:?}");
        }
        // A TOML boolean is accepted for `public`.
        assert_eq!(problems("[stats]\npublic = false\npositions = \"city\"").len(), 1);
    }
}
