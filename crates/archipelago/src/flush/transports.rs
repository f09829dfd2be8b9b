use std::time::Duration;

use crate::{engine::Engine, peers::PeerState};

/// Counts out silent nodes, and follows what the others offer and how crowded it is. The latter looks
/// at everybody, once a second, if any rule asks.
pub(crate) fn refresh(engine: &mut Engine, now: Duration) {
    let offer = engine.registry.expire(engine.settings.transport_timeout, engine.settings.settling, now);
    let Engine { zones, peers, spatial: ground, .. } = engine;
    let count = |by_zone: &mut [u32]| {
        let present = peers.known().filter(|&peer| peers[peer].state == PeerState::Present);
        present.for_each(|peer| by_zone[ground.traits(peer).zone() as usize] += 1);
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
