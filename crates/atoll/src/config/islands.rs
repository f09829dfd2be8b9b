//! `[islands]`: the engine and its director.

use std::sync::Arc;

use archipelago::{Clustering, SettingsError, rules::Rules};
use director::ConfiguredNode;
use protocol::{PositionPrecision, timing};

use super::{
    client::Client,
    problems::Problems,
    realm::Realm,
    section::section,
    values::{Choice, Millis, OneOf, Seconds},
};
use crate::version::COMMIT_HASH;

section! {
    /// `[islands]`: the engine and its director
    pub(crate) struct Islands {
        /// The source of islands. `own`: positions and the distances below. `given`: another service, which
        /// publishes `peer.<id>.cluster_change` on the bus. With `given`, the peers of one cluster share an
        /// island as far as they fit, at any distance. A peer without a cluster, or with a cluster of a realm
        /// other than `realm.name`, is in no island. Rules still choose transports and sizes by position;
        /// distances and `exclusive` have no effect.
        clustering: OneOf<Clustering> = OneOf(Clustering::ByDistance),
        /// Two islands merge when any two of their members are within this distance. Above 0, at most 10,000.
        join_distance_m: f32 = 64.0,
        /// Members stay in one island while hops of at most this length connect them. From `join_distance_m`
        /// to 10,000.
        leave_distance_m: f32 = 80.0,
        /// Maximum number of members of an island, 1 to 10,000.
        max_size: u32 = 100,
        /// How far the world extends from the origin, on each axis. Above 0.
        world_bound_m: f32 = 100_000.0,
        /// A peer without a message for this time leaves its island. 1 to 86,400 (1 day).
        silence_s: Seconds = Seconds::of(timing::SILENCE),
        /// Reconnect grace: time for which a peer that disconnected keeps its place in its island, and an
        /// empty island its id. At most 3,600; 0: none.
        return_window_s: Seconds = Seconds::of(timing::RETURN_WINDOW),
        /// A node without an announcement for this time counts as gone. 1 to 3,600.
        transport_timeout_s: Seconds = Seconds::of(timing::NODE_TIMEOUT),
        /// Settling time: how long a change that could alternate must last before it takes effect, such as a
        /// crossed border, another rule or a more preferred transport. At most 3,600. A rule may set another
        /// value.
        settling_s: Seconds = Seconds(3),
        /// Time for which an island stays on its node after a move, unless another move is required. At most
        /// 3,600.
        move_interval_s: Seconds = Seconds::of(timing::MOVE_INTERVAL),
        /// Precision of members' positions in `island_changed`: `exact`, or `parcel` for the centre of the
        /// member's parcel. Empty: as `stats.positions`, which must then be set for directors too.
        peer_positions: OneOf<Option<PositionPrecision>> = OneOf(None),
        /// Prefix of island ids: 1 to 16 letters and digits.
        id_prefix: String = "I".to_owned(),
        /// Interval of flushes: assignments change, and are sent, at most this often.
        #[at_least(1)]
        flush_interval_ms: Millis = Millis(250),
        /// Interval of reports of all islands. Below `stats.report_timeout_s`.
        #[at_least(1)]
        report_interval_ms: Millis = Millis::of(timing::REPORT_INTERVAL),
        /// Interval at which the director announces itself. At most 10, because a director that is silent for 30
        /// s counts as gone.
        #[at_least(1)]
        discovery_interval_s: Seconds = Seconds::of(timing::DISCOVERY_INTERVAL),
    }
}

impl Choice for Clustering {
    const CHOICES: &'static [(&'static str, Self)] = &[("own", Self::ByDistance), ("given", Self::External)];
}

impl Choice for Option<PositionPrecision> {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("exact", Some(PositionPrecision::Exact)), ("parcel", Some(PositionPrecision::Parcel)), ("", None)];
}

impl Islands {
    pub(super) fn validate(&self, client: &Client, problems: &mut Problems) {
        let in_time = self.discovery_interval_s <= Seconds::of(timing::DISCOVERY_INTERVAL);
        let rule = "must be at most 10: a director that is silent for 30 s counts as gone";
        problems.check(in_time, "islands.discovery_interval_s", self.discovery_interval_s.0, rule);
        let bounded = self.world_bound_m.is_finite() && self.world_bound_m > 0.0;
        problems.check(bounded, "islands.world_bound_m", self.world_bound_m, "must be above 0");
        match self.engine(client).validate() {
            // `[client]` reports its own transports.
            Ok(()) | Err(SettingsError::AssumedTransports) => {}
            Err(error) => problems.add(format!("islands.{error}")),
        }
    }

    /// Whether another service decides the islands.
    pub(super) fn has_external_clustering(&self) -> bool {
        self.clustering.0 == Clustering::External
    }

    fn engine(&self, client: &Client) -> archipelago::Settings {
        archipelago::Settings {
            clustering: self.clustering.0,
            join_distance_m: self.join_distance_m,
            leave_distance_m: self.leave_distance_m,
            max_island_size: self.max_size,
            silence: self.silence_s.duration(),
            return_window: self.return_window_s.duration(),
            transport_timeout: self.transport_timeout_s.duration(),
            settling: self.settling_s.duration(),
            move_interval: self.move_interval_s.duration(),
            id_prefix: self.id_prefix.clone(),
            assumed_transports: client.assumed_transports.to_vec(),
        }
    }

    /// The settings of the director. `presence` is the precision of positions that presence shows.
    pub(crate) fn director(
        &self,
        client: &Client,
        realm: &Realm,
        presence: PositionPrecision,
        transports: Vec<ConfiguredNode>,
        rules: Rules,
    ) -> director::Settings {
        director::Settings {
            engine: self.engine(client),
            realm: realm.name(),
            flush_interval: self.flush_interval_ms.duration(),
            report_interval: self.report_interval_ms.duration(),
            discovery_interval: self.discovery_interval_s.duration(),
            position_bound_m: self.world_bound_m,
            positions: self.peer_positions.0.unwrap_or(presence),
            commit_hash: COMMIT_HASH.map(str::to_owned),
            transports,
            rules: Arc::new(rules),
        }
    }
}
