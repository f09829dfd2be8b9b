//! The [`Settings`] of an engine: meaning, unit, bounds and default of each value.

use std::time::Duration;

use protocol::timing;

/// Parameters of the engine. Every value has a default, and bounds that [`Engine::new`] checks.
///
/// [`Engine::new`]: crate::Engine::new
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What decides which peers are grouped. Default: their positions.
    pub clustering: Clustering,
    /// Islands with members at most this far apart merge, if together they fit the size limit. Metres
    /// on the ground, above 0 and at most 10,000. Default 64.
    pub join_distance_m: f32,
    /// An island stays one while its members are connected by hops of at most this length. Metres on
    /// the ground, from the join distance to 10,000. Default 80. The gap between the two distances
    /// (hysteresis) keeps peers at the edge from joining and leaving repeatedly.
    pub leave_distance_m: f32,
    /// The size limit of every island, even if its transport has larger rooms. Peers, 1 to 10,000.
    /// Default 100.
    pub max_island_size: u32,
    /// A peer that sends nothing for this long times out. 100 ms to 1 day. Default 15 s: three times
    /// the interval at which a gateway repeats the heartbeat of an idle client.
    pub silence: Duration,
    /// The return window: how long the island of a departed peer is remembered, and how long an island
    /// that became empty keeps its id. At most 1 hour; zero disables both. Default 10 s.
    pub return_window: Duration,
    /// A node without an announcement for this long is gone. 100 ms to 1 hour. Default 3 s, three times
    /// the interval of announcements.
    pub transport_timeout: Duration,
    /// The settling time: how long a condition that could alternate must hold before it takes effect.
    /// At most 1 hour. Default 3 s.
    pub settling: Duration,
    /// How long an island stays on its node after a move before it moves again for a mere improvement.
    /// At most 1 hour. Default 10 s, the time for which the old room stays open after a move.
    pub move_interval: Duration,
    /// The transports of clients that announce none: `livekit`, `ws-room`, `p2p`, or the protocol of an
    /// external transport. Default LiveKit and WebSocket rooms.
    pub assumed_transports: Vec<String>,
    /// The first part of every island id: 1 to 16 letters and digits. Default `I`. Two engines of one
    /// realm that may start in the same millisecond need different prefixes.
    pub id_prefix: String,
}

/// What decides which peers are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clustering {
    /// The positions of the peers, by the join and the leave distance.
    #[default]
    ByDistance,
    /// The caller, by [`Input::Cluster`](crate::Input::Cluster). Distances and exclusive rules have no
    /// effect; the positions still decide which rules apply.
    External,
}

/// A value of [`Settings`] that is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The join distance is not a number above 0 and at most 10,000 m.
    #[error("join_distance_m must be above 0 and at most 10000")]
    JoinDistance,
    /// The leave distance is below the join distance or above 10,000 m.
    #[error("leave_distance_m must be from join_distance_m to 10000")]
    LeaveDistance,
    /// The size limit is not from 1 to 10,000.
    #[error("max_island_size must be from 1 to 10000")]
    MaxIslandSize,
    /// The timeout of silent peers is not from 100 ms to 1 day.
    #[error("silence must be from 100 ms to 1 day")]
    Silence,
    /// The return window is longer than 1 hour.
    #[error("return_window must be at most 1 hour")]
    ReturnWindow,
    /// The timeout of nodes is not from 100 ms to 1 hour.
    #[error("transport_timeout must be from 100 ms to 1 hour")]
    TransportTimeout,
    /// The settling time is longer than 1 hour.
    #[error("settling must be at most 1 hour")]
    Settling,
    /// The interval between moves is longer than 1 hour.
    #[error("move_interval must be at most 1 hour")]
    MoveInterval,
    /// The prefix of island ids is empty, longer than 16 characters, or not made of letters and digits.
    #[error("id_prefix must be 1 to 16 letters and digits")]
    IdPrefix,
    /// An assumed transport is not a valid protocol name.
    #[error(
        "assumed_transports must be names of a letter, then up to 31 letters, digits and '-', in lower case"
    )]
    AssumedTransports,
}

pub(crate) const MAX_DISTANCE_M: f32 = 10_000.0;
pub(crate) const MAX_ISLAND_SIZE: u32 = 10_000;
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
const MAX_PREFIX_CHARS: usize = 16;

impl Default for Settings {
    fn default() -> Self {
        Self {
            clustering: Clustering::default(),
            join_distance_m: 64.0,
            leave_distance_m: 80.0,
            max_island_size: 100,
            silence: timing::SILENCE,
            return_window: timing::RETURN_WINDOW,
            transport_timeout: timing::NODE_TIMEOUT,
            settling: Duration::from_secs(3),
            move_interval: timing::MOVE_INTERVAL,
            assumed_transports: vec!["livekit".to_owned(), "ws-room".to_owned()],
            id_prefix: "I".into(),
        }
    }
}

impl Settings {
    /// Checks that every value is within its bounds.
    ///
    /// # Errors
    ///
    /// The first value that is not.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let join = self.join_distance_m;
        let assumed = self.assumed_transports.iter().all(|name| protocol::is_protocol_name(name));
        // A comparison with NaN is false, so NaN is rejected.
        let checks = [
            (join > 0.0 && join <= MAX_DISTANCE_M, SettingsError::JoinDistance),
            ((join..=MAX_DISTANCE_M).contains(&self.leave_distance_m), SettingsError::LeaveDistance),
            ((1..=MAX_ISLAND_SIZE).contains(&self.max_island_size), SettingsError::MaxIslandSize),
            ((MIN_TIMEOUT..=24 * HOUR).contains(&self.silence), SettingsError::Silence),
            (self.return_window <= HOUR, SettingsError::ReturnWindow),
            ((MIN_TIMEOUT..=HOUR).contains(&self.transport_timeout), SettingsError::TransportTimeout),
            (self.settling <= HOUR, SettingsError::Settling),
            (self.move_interval <= HOUR, SettingsError::MoveInterval),
            (is_prefix(&self.id_prefix), SettingsError::IdPrefix),
            (assumed, SettingsError::AssumedTransports),
        ];
        checks.into_iter().try_for_each(|(holds, error)| if holds { Ok(()) } else { Err(error) })
    }
}

fn is_prefix(text: &str) -> bool {
    (1..=MAX_PREFIX_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Settings)) -> Option<SettingsError> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().err()
    }

    #[test]
    fn default_settings_are_valid() {
        assert_eq!(error(|_| {}), None);
    }

    #[test]
    fn out_of_bounds_setting_is_named() {
        assert_eq!(error(|s| s.join_distance_m = f32::NAN), Some(SettingsError::JoinDistance));
        assert_eq!(error(|s| s.join_distance_m = 0.0), Some(SettingsError::JoinDistance));
        assert_eq!(error(|s| s.leave_distance_m = 63.9), Some(SettingsError::LeaveDistance));
        assert_eq!(error(|s| s.leave_distance_m = f32::INFINITY), Some(SettingsError::LeaveDistance));
        assert_eq!(error(|s| s.max_island_size = 0), Some(SettingsError::MaxIslandSize));
        assert_eq!(error(|s| s.silence = Duration::ZERO), Some(SettingsError::Silence));
        assert_eq!(error(|s| s.return_window = HOUR * 2), Some(SettingsError::ReturnWindow));
        assert_eq!(error(|s| s.transport_timeout = Duration::ZERO), Some(SettingsError::TransportTimeout));
        assert_eq!(error(|s| s.settling = HOUR * 2), Some(SettingsError::Settling));
        assert_eq!(error(|s| s.move_interval = HOUR * 2), Some(SettingsError::MoveInterval));
        assert_eq!(error(|s| s.id_prefix = String::new()), Some(SettingsError::IdPrefix));
        assert_eq!(error(|s| s.id_prefix = "a.b".into()), Some(SettingsError::IdPrefix));
        let names = vec!["p2p".into(), "ws room".into()];
        assert_eq!(error(|s| s.assumed_transports = names), Some(SettingsError::AssumedTransports));
    }
}
