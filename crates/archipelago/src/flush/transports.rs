//! Updates the availability of nodes and the crowding conditions of rules, and the size limits that
//! depend on them.

use std::time::Duration;

use crate::{engine::Engine, peers::PeerState};

/// Expires nodes without recent announcements, and updates offers and crowding. If any rule has a
/// crowding condition, all peers are counted once a second.
pub(crate) fn refresh(engine: &mut Engine, now: Duration) {
    let offer = engine.registry.expire(engine.settings.transport_timeout, engine.settings.settling, now);
    let Engine { zones, peers, spatial, .. } = engine;
    let count = |by_zone: &mut [u32]| {
        let present = peers.known().filter(|&peer| peers[peer].state == PeerState::Present);
        present.for_each(|peer| by_zone[spatial.traits(peer).zone() as usize] += 1);
    };
    let crowding = zones.update_crowding(count, now);
    engine.crowding_changed = crowding;
    if offer || crowding {
        engine.reevaluate_all = true;
        engine.zones.recompute_limits(&engine.registry);
    }
    if crowding {
        for zone in 0..engine.zones.count() {
            engine.spatial.distances.set(zone, engine.zones.distances(zone));
        }
    }
    if engine.zones.take_limits_changed() || crowding {
        let islands: Vec<u32> = engine.islands.populated().collect();
        islands.into_iter().for_each(|island| engine.mark_dirty(island));
    }
}
