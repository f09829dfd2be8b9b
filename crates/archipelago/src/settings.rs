use std::time::Duration;

/// How the engine decides. Every value has a default, and bounds that [`Engine::new`] checks.
///
/// [`Engine::new`]: crate::Engine::new
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Who says who is together. Default their places.
    pub clustering: Clustering,
    /// Islands with members this near to each other merge, if together they fit the limit.
    /// Metres on the ground, above 0 and at most 10,000. Default 64.
    pub join_distance_m: f32,
    /// Members stay together while they are connected through hops of at most this length.
    /// Metres on the ground, from the join distance to 10,000. Default 80. The room between the two
    /// distances is what keeps people at the edge from coming and going.
    pub leave_distance_m: f32,
    /// No island is ever larger than this, whatever its transport could hold. Peers, 1 to 10,000.
    /// Default 100.
    pub max_island_size: u32,
    /// A peer that is not heard for this long is gone. 100 ms to 1 day. Default 15 s, which is
    /// three of the repetitions by which a gateway vouches for a quiet client.
    pub silence: Duration,
    /// How long the place of a peer that left is remembered, and the id of an island that its
    /// leaving emptied is kept. At most 1 hour; zero remembers nothing. Default 10 s.
    pub return_window: Duration,
    /// A node that does not announce itself for this long is gone. 100 ms to 1 hour. Default 3 s,
    /// three times the interval of announcements.
    pub transport_timeout: Duration,
    /// How long a decision that could flap must hold before it counts. At most 1 hour. Default 3 s.
    pub settling: Duration,
    /// How long an island stays where it was moved to before it is moved again for anything less
    /// than having to. At most 1 hour. Default 10 s, for which rooms are held open after a move.
    pub move_interval: Duration,
    /// What clients can join that say nothing of it: `livekit`, `ws-room`, `p2p`, or the protocol of
    /// an external transport. Default LiveKit and WebSocket rooms.
    pub assumed_transports: Vec<String>,
    /// What island ids begin with: 1 to 16 letters and digits. Default `I`. Two engines of one
    /// realm that may start in the same millisecond need two prefixes.
    pub id_prefix: String,
}

/// Who says who is together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clustering {
    /// Their places, by the distances.
    #[default]
    ByDistance,
    /// Somebody else, by [`Input::Cluster`](crate::Input::Cluster). Distances mean nothing, and no
    /// rule keeps people to themselves; where they stand still says which rules are about them.
    External,
}

/// Why an engine cannot work with some [`InvalidSettings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The join distance is not a length the engine can work with.
    #[error("join_distance_m must be above 0 and at most 10000")]
    JoinDistance,
    /// The leave distance is below the join distance, or too large.
    #[error("leave_distance_m must be from join_distance_m to 10000")]
    LeaveDistance,
    /// The size limit is out of bounds.
    #[error("max_island_size must be from 1 to 10000")]
    MaxIslandSize,
    /// The silence is out of bounds.
    #[error("silence must be from 100 ms to 1 day")]
    Silence,
    /// The return window is out of bounds.
    #[error("return_window must be at most 1 hour")]
    ReturnWindow,
    /// The transport timeout is out of bounds.
    #[error("transport_timeout must be from 100 ms to 1 hour")]
    TransportTimeout,
    /// The settling time is out of bounds.
    #[error("settling must be at most 1 hour")]
    Settling,
    /// The interval of moves is out of bounds.
    #[error("move_interval must be at most 1 hour")]
    MoveInterval,
    /// The prefix of island ids is empty, too long, or not made of letters and digits.
    #[error("id_prefix must be 1 to 16 letters and digits")]
    IdPrefix,
    /// Something that clients are assumed to join is no name of a protocol.
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
            silence: Duration::from_secs(15),
            return_window: Duration::from_secs(10),
            transport_timeout: Duration::from_secs(3),
            settling: Duration::from_secs(3),
            move_interval: Duration::from_secs(10),
            assumed_transports: vec!["livekit".to_owned(), "ws-room".to_owned()],
            id_prefix: "I".into(),
        }
    }
}

impl Settings {
    /// Whether every value is within its bounds.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let join = self.join_distance_m;
        let assumed = self.assumed_transports.iter().all(|name| protocol::is_protocol_name(name));
        // Comparisons with NaN are false, so that it fails here as it should.
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
