//! Updates the availability of nodes and the crowding conditions of rules, and the size limits that
//! depend on them.

use std::time::Duration;

use crate::{
    settings::Settings,
    world::{RuleChange, World},
};

/// Expires nodes without recent announcements, and updates offers and crowding. If any rule has a
/// crowding condition, all peers are counted once a second.
pub(crate) fn refresh(world: &mut World, settings: &Settings, now: Duration) {
    world.changes.invalidated.crowding = false;
    let offers_changed = world.nodes.expire(settings.transport_timeout, settings.settling, now);
    let World { zones, peers, spatial, .. } = world;
    let present = peers.present().map(|peer| spatial.traits(peer).zone());
    let crowding_changed = zones.update_crowding(present, now);
    if offers_changed {
        world.invalidate(RuleChange::Offers);
    }
    if crowding_changed {
        world.invalidate(RuleChange::Crowding);
    }
    if std::mem::take(&mut world.changes.invalidated.limits) {
        world.mark_all_dirty();
    }
}
