//! The [`Settings`] of a mesh: meaning, unit, bounds and default of each value.

use std::time::Duration;

/// Parameters of a mesh. Every value has a default, and bounds that [`Mesh::new`] checks.
///
/// [`Mesh::new`]: crate::Mesh::new
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The number of links that each member should hold. 1 to `max_links`. Default 4. The mesh may exceed it, up to
    /// `max_links`, to stay connected without any one member and to keep paths short.
    pub target_links: usize,
    /// The greatest number of links of a member. 2 to 64. Default 6, which browsers hold without trouble. A ring is
    /// the only mesh of members with two links each, so at 2 paths are long and links are not chosen by distance.
    pub max_links: usize,
    /// Whether members forward messages of others. Default true. If not, every two members need a link of their own,
    /// and a mesh holds at most `max_links + 1` members.
    pub relay: bool,
    /// How many other members a sender may serve through its gateway. Default 16. Members without a path beyond this
    /// number count as having no usable fallback; 0: there is no fallback.
    pub max_fallback: usize,
    /// The share of deliveries that may need the fallback. 0 to 1. Default 0.2.
    pub max_fallback_share: f64,
    /// How long a new member has until its links must be up. At most 1 minute. Default 12 s: three attempts, of which
    /// each times out after 3.5 s, and time for signalling.
    pub formation: Duration,
    /// The shortest pause before a failed link is tried again. 1 s to 5 minutes. Default 10 s. It doubles with each
    /// further failure, up to 5 minutes.
    pub retry_after: Duration,
    /// How long inputs are collected before they become one plan. At most 1 s. Default 100 ms.
    pub debounce: Duration,
    /// A member without a report for this long is silent. 1 s to 1 hour. Default 15 s.
    pub silence: Duration,
}

/// The longest pause before a failed link is tried again.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A value of [`Settings`] that is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The greatest number of links is not from 2 to 64.
    #[error("max_links must be from 2 to 64")]
    MaxLinks,
    /// The number of links is not from 1 to the greatest number.
    #[error("target_links must be from 1 to max_links")]
    TargetLinks,
    /// The share of deliveries is not from 0 to 1.
    #[error("max_fallback_share must be from 0 to 1")]
    MaxFallbackShare,
    /// The time for formation is longer than 1 minute.
    #[error("formation must be at most 1 minute")]
    Formation,
    /// The pause is not from 1 s to 5 minutes.
    #[error("retry_after must be from 1 s to 5 minutes")]
    RetryAfter,
    /// Inputs are collected for longer than 1 s.
    #[error("debounce must be at most 1 s")]
    Debounce,
    /// The timeout of reports is not from 1 s to 1 hour.
    #[error("silence must be from 1 s to 1 hour")]
    Silence,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            target_links: 4,
            max_links: 6,
            relay: true,
            max_fallback: 16,
            max_fallback_share: 0.2,
            formation: Duration::from_secs(12),
            retry_after: Duration::from_secs(10),
            debounce: Duration::from_millis(100),
            silence: Duration::from_secs(15),
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
        let second = Duration::from_secs(1);
        let checks = [
            ((2..=64).contains(&self.max_links), SettingsError::MaxLinks),
            ((1..=self.max_links).contains(&self.target_links), SettingsError::TargetLinks),
            ((0.0..=1.0).contains(&self.max_fallback_share), SettingsError::MaxFallbackShare),
            (self.formation <= 60 * second, SettingsError::Formation),
            ((second..=MAX_RETRY_AFTER).contains(&self.retry_after), SettingsError::RetryAfter),
            (self.debounce <= second, SettingsError::Debounce),
            ((second..=3_600 * second).contains(&self.silence), SettingsError::Silence),
        ];
        checks.into_iter().try_for_each(|(holds, error)| if holds { Ok(()) } else { Err(error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_settings_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn out_of_bounds_setting_is_named() {
        let error = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().err()
        };
        assert_eq!(error(|s| s.max_links = 1), Some(SettingsError::MaxLinks));
        assert_eq!(error(|s| s.target_links = 7), Some(SettingsError::TargetLinks));
        assert_eq!(error(|s| s.target_links = 0), Some(SettingsError::TargetLinks));
        assert_eq!(error(|s| s.max_fallback_share = f64::NAN), Some(SettingsError::MaxFallbackShare));
        assert_eq!(error(|s| s.formation = Duration::from_secs(61)), Some(SettingsError::Formation));
        assert_eq!(error(|s| s.retry_after = Duration::ZERO), Some(SettingsError::RetryAfter));
        assert_eq!(error(|s| s.debounce = Duration::from_secs(2)), Some(SettingsError::Debounce));
        assert_eq!(error(|s| s.silence = Duration::ZERO), Some(SettingsError::Silence));
    }
}
