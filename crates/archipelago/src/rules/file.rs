//! The form of a rules file (TOML), before its values are validated.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Spanned;

use super::conditions::{DAY_MINUTES, Hours};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RulesFile {
    #[serde(default)]
    pub(super) scenes: BTreeMap<String, RawParcels>,
    pub(super) default: Option<RawDefault>,
    #[serde(default)]
    pub(super) rule: Vec<RawRule>,
}

/// Each value is a kind, or a table that names a node; with spans for error messages.
pub(super) type RawChoices = Spanned<Vec<Spanned<toml::Value>>>;
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDefault {
    pub(super) transports: Option<RawChoices>,
    pub(super) voice: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) video: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) name: Spanned<String>,
    pub(super) area: Option<Spanned<RawArea>>,
    pub(super) exclusive: Option<Spanned<bool>>,
    pub(super) people: Option<Spanned<RawCount>>,
    pub(super) crowding: Option<Spanned<RawCount>>,
    pub(super) hours: Option<Hours>,
    pub(super) transports: Option<RawChoices>,
    pub(super) voice: Option<Spanned<String>>,
    pub(super) video: Option<bool>,
    pub(super) max_links: Option<Spanned<u32>>,
    pub(super) relay: Option<bool>,
    pub(super) island_size: Option<Spanned<u32>>,
    pub(super) join_distance_m: Option<Spanned<f32>>,
    pub(super) leave_distance_m: Option<Spanned<f32>>,
    pub(super) settling_s: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCount {
    #[serde(default)]
    pub(super) min: u32,
    #[serde(default = "unbounded")]
    pub(super) max: u32,
}

fn unbounded() -> u32 {
    u32::MAX
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawArea {
    pub(super) scene: Option<String>,
    pub(super) parcels: Option<RawParcels>,
    pub(super) rectangle: Option<RawRectangle>,
    pub(super) circle: Option<RawCircle>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRectangle {
    pub(super) from: [f64; 2],
    pub(super) to: [f64; 2],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCircle {
    pub(super) center: [f64; 2],
    pub(super) radius_m: f64,
}

/// Parcels, with spans for error messages: `"3,-4"`, or `"3,-4..5,6"` for a rectangle of parcels.
pub(super) type RawParcels = Vec<Spanned<String>>;

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let minute = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            let minute = hours.checked_mul(60)?.checked_add(minutes)?;
            (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
        };
        let hours = text.split_once('-').and_then(|(from, to)| {
            let (from, to) = (minute(from)?, minute(to)?);
            (from != to && from < DAY_MINUTES).then_some(Self { from, to })
        });
        hours.ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is not a part of a day: expected UTC times such as \"09:00-17:30\" or \"22:00-06:00\""
            ))
        })
    }
}
