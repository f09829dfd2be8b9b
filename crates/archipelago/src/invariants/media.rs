//! Follows the grants of each island, as outputs report them.

use std::collections::{HashMap, HashSet};

use protocol::{IslandId, MediaGrants};

use super::violation::Violation;
use crate::event::Output;

/// The grants of each island after the last flush.
#[derive(Debug, Clone, Default)]
pub(super) struct MediaRecord {
    media: HashMap<IslandId, MediaGrants>,
}

impl MediaRecord {
    /// Forgets the grants: another engine takes over, which does not know them.
    pub(super) fn clear(&mut self) {
        self.media.clear();
    }

    /// Checks that the outputs of a flush report each change of the grants of these islands once, and no other,
    /// and that assignments contain the grants after it. `islands` are those after the flush.
    pub(super) fn check(
        &mut self,
        islands: impl Iterator<Item = (IslandId, MediaGrants)>,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        let islands: HashMap<IslandId, MediaGrants> = islands.collect();
        let mut changed = HashSet::new();
        for output in outputs {
            let (island, consistent) = match output {
                Output::MediaChanged { island, media } => {
                    let before = self.media.insert(island.clone(), *media);
                    let is_first = changed.insert(island);
                    (island, is_first && before.is_some_and(|before| before != *media))
                }
                Output::Assigned { island, .. } => {
                    (&island.id, islands.get(&island.id) == Some(&island.media))
                }
                Output::Closed { island } => {
                    self.media.remove(island);
                    continue;
                }
                _ => continue,
            };
            if !consistent {
                return Err(Violation::MediaMismatch(island.clone()));
            }
        }
        for (island, media) in islands {
            if *self.media.entry(island.clone()).or_insert(media) != media {
                return Err(Violation::MediaMismatch(island));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::{Address, Voice};

    use super::*;
    use crate::event::AssignedIsland;

    const VOICE: MediaGrants = MediaGrants { voice: Voice::Everyone, video: false };
    const VIDEO: MediaGrants = MediaGrants { voice: Voice::Everyone, video: true };

    fn id() -> IslandId {
        "I1".parse().unwrap()
    }

    fn changed(media: MediaGrants) -> Output {
        Output::MediaChanged { island: id(), media }
    }

    fn assigned(media: MediaGrants) -> Output {
        let island = AssignedIsland {
            id: id(),
            node: "n".parse().unwrap(),
            node_url: Arc::default(),
            rule: None,
            media,
            members: Vec::new(),
        };
        Output::Assigned { peer: Address::new([1; 20]), session: None, island: island.into(), from: None }
    }

    /// Whether a flush with these outputs after which the island has these grants is consistent.
    fn holds(record: &mut MediaRecord, media: MediaGrants, outputs: &[Output]) -> bool {
        record.check([(id(), media)].into_iter(), outputs).is_ok()
    }

    #[test]
    fn every_change_of_grants_must_be_reported_once() {
        let mut record = MediaRecord::default();
        assert!(holds(&mut record, VOICE, &[assigned(VOICE)]), "a new island");
        assert!(!holds(&mut record.clone(), VIDEO, &[]), "not reported");
        assert!(!holds(&mut record.clone(), VOICE, &[changed(VOICE)]), "no change");
        assert!(!holds(&mut record.clone(), VIDEO, &[changed(VIDEO), changed(VIDEO)]), "twice");
        assert!(!holds(&mut record.clone(), VOICE, &[changed(VIDEO)]), "other grants");
        assert!(!holds(&mut record.clone(), VIDEO, &[changed(VIDEO), assigned(VOICE)]), "an old token");
        assert!(holds(&mut record, VIDEO, &[changed(VIDEO), assigned(VIDEO)]));
        assert!(holds(&mut record, VIDEO, &[]));
        record.clear();
        assert!(holds(&mut record.clone(), VOICE, &[]), "another engine");
        assert!(!holds(&mut record, VOICE, &[changed(VOICE)]), "the engine does not know of a change");
    }
}
