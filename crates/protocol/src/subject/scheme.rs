//! The spelling of subjects on the bus: that of comms v3, or that of the deployed archipelago-workers.

use std::{fmt, str::FromStr};

use super::definition::{
    ISLAND_PEER_JOINS, ISLAND_PEER_LEAVES, PEER_CONNECTS, PEER_ISLAND_CHANGES, Subject, SubjectError,
};

/// A spelling of the subjects, and the set of subjects that exist in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SubjectScheme {
    /// The subjects of comms v3, which [`Subject`] parses and prints.
    #[default]
    CommsV3,
    /// The subjects of the services that are deployed as archipelago-workers. Island changes are
    /// `engine.peer.<id>.island_changed`. There are no messages for connects, joins and leaves, and messages
    /// on the subjects that those services know carry no headers.
    ArchipelagoWorkers,
}

/// The error of parsing a [`SubjectScheme`]: no scheme has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be comms-v3 or archipelago-workers")]
pub struct SubjectSchemeError;

/// Matches every `engine.peer.<id>.island_changed`.
const ENGINE_PEER_ISLAND_CHANGES: &str = "engine.peer.*.island_changed";

impl SubjectScheme {
    /// The text of a subject on the bus; `None` if no such message exists in this scheme.
    pub fn format(self, subject: &Subject) -> Option<String> {
        match (self, subject) {
            (Self::CommsV3, subject) => Some(subject.to_string()),
            (Self::ArchipelagoWorkers, Subject::PeerIslandChanged(peer)) => {
                Some(format!("engine.peer.{peer}.island_changed"))
            }
            (
                Self::ArchipelagoWorkers,
                Subject::PeerConnect(_) | Subject::IslandPeerJoin(_) | Subject::IslandPeerLeft(_),
            ) => None,
            (Self::ArchipelagoWorkers, subject) => Some(subject.to_string()),
        }
    }

    /// Parses the text of a subject. Fails for a subject that only another scheme has.
    pub fn parse(self, text: &str) -> Result<Subject, SubjectError> {
        if self == Self::CommsV3 {
            return text.parse();
        }
        if let ["engine", "peer", peer, "island_changed"] = text.split('.').collect::<Vec<_>>()[..] {
            return peer.parse().map(Subject::PeerIslandChanged).map_err(|_| SubjectError);
        }
        let subject: Subject = text.parse()?;
        match self.format(&subject) {
            Some(written) if written == text => Ok(subject),
            _ => Err(SubjectError),
        }
    }

    /// The text of a pattern of [`crate::subject`] on the bus; `None` if no such message exists in this
    /// scheme. Any other pattern is returned unchanged.
    pub fn pattern(self, pattern: &str) -> Option<&str> {
        match (self, pattern) {
            (Self::CommsV3, pattern) => Some(pattern),
            (Self::ArchipelagoWorkers, PEER_ISLAND_CHANGES) => Some(ENGINE_PEER_ISLAND_CHANGES),
            (Self::ArchipelagoWorkers, PEER_CONNECTS | ISLAND_PEER_JOINS | ISLAND_PEER_LEAVES) => None,
            (Self::ArchipelagoWorkers, pattern) => Some(pattern),
        }
    }

    /// Whether messages on this subject carry headers. The subjects that archipelago-workers knows carry none
    /// in [`Self::ArchipelagoWorkers`].
    pub fn has_headers(self, subject: &Subject) -> bool {
        self == Self::CommsV3 || !subject.is_in_archipelago_workers()
    }
}

impl fmt::Display for SubjectScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommsV3 => "comms-v3",
            Self::ArchipelagoWorkers => "archipelago-workers",
        })
    }
}

impl FromStr for SubjectScheme {
    type Err = SubjectSchemeError;

    fn from_str(text: &str) -> Result<Self, SubjectSchemeError> {
        let schemes = [Self::CommsV3, Self::ArchipelagoWorkers];
        schemes.into_iter().find(|scheme| scheme.to_string() == text).ok_or(SubjectSchemeError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Address,
        subject::{definition::tests::examples, matches},
    };

    /// Any subject, with the pattern of `crate::subject` that matches it.
    fn subject() -> impl Strategy<Value = (Subject, &'static str)> {
        let ids = (any::<[u8; 20]>(), "[a-zA-Z0-9]{1,12}", "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3}");
        (ids, any::<prop::sample::Index>()).prop_filter_map(
            "a topic may be reserved",
            |((address, id, topic), index)| {
                let examples = examples(Address::new(address), &id, &topic)?;
                Some(index.get(&examples).clone())
            },
        )
    }

    proptest! {
        #[test]
        fn subject_round_trips_and_matches_its_pattern(
            (subject, pattern) in subject(),
            (other, _) in subject(),
        ) {
            for layout in [SubjectScheme::CommsV3, SubjectScheme::ArchipelagoWorkers] {
                let (written, pattern) = (layout.format(&subject), layout.pattern(pattern));
                prop_assert_eq!(written.is_some(), pattern.is_some());
                let (Some(written), Some(pattern)) = (written, pattern) else { continue };
                prop_assert_eq!(layout.parse(&written), Ok(subject.clone()));
                prop_assert!(matches(pattern, &written));
                if layout.format(&other).as_ref() == Some(&written) {
                    prop_assert_eq!(&subject, &other);
                }
            }
        }

        #[test]
        fn scheme_never_misreads_a_subject_of_the_other((subject, _) in subject()) {
            let layouts = [SubjectScheme::CommsV3, SubjectScheme::ArchipelagoWorkers];
            for (ours, theirs) in [(layouts[0], layouts[1]), (layouts[1], layouts[0])] {
                let Some(written) = ours.format(&subject) else { continue };
                match theirs.parse(&written) {
                    Ok(read) => prop_assert_eq!(&read, &subject),
                    Err(SubjectError) => prop_assert_ne!(theirs.format(&subject), Some(written)),
                }
            }
        }
    }

    #[test]
    fn archipelago_workers_subjects_have_their_exact_text() {
        let peer = Address::new([0xab; 20]);
        let written = |subject| SubjectScheme::ArchipelagoWorkers.format(&subject);
        let id = "ab".repeat(20);
        for (subject, expected) in [
            (Subject::PeerHeartbeat(peer), format!("peer.0x{id}.heartbeat")),
            (Subject::PeerDisconnect(peer), format!("peer.0x{id}.disconnect")),
            (Subject::PeerIslandChanged(peer), format!("engine.peer.0x{id}.island_changed")),
            (Subject::EngineIslands, "engine.islands".to_owned()),
            (Subject::EngineDiscovery, "engine.discovery".to_owned()),
        ] {
            assert!(!SubjectScheme::ArchipelagoWorkers.has_headers(&subject));
            assert_eq!(written(subject), Some(expected));
        }
        assert_eq!(written(Subject::PeerConnect(peer)), None);
        let ours = format!("peer.0x{id}.island_changed");
        assert_eq!(SubjectScheme::ArchipelagoWorkers.parse(&ours), Err(SubjectError));
        assert_eq!(SubjectScheme::CommsV3.parse(&format!("engine.{ours}")), Err(SubjectError));
    }

    #[test]
    fn scheme_names_round_trip() {
        for (name, layout) in
            [("comms-v3", SubjectScheme::CommsV3), ("archipelago-workers", SubjectScheme::ArchipelagoWorkers)]
        {
            assert_eq!((name.parse(), layout.to_string()), (Ok(layout), name.to_owned()));
        }
        for unknown in ["", "comms-v2", "Comms-V3", "archipelago"] {
            assert_eq!(unknown.parse::<SubjectScheme>(), Err(SubjectSchemeError));
        }
    }
}
