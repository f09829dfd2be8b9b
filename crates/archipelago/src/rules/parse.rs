//! Parses and validates a rules file (TOML). Errors name line and column.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

use protocol::{MediaGrants, NodeName, Voice};
use toml::Spanned;

use super::{
    area::{Area, Shape},
    conditions::CountRange,
    file::{
        RawArea, RawChoices, RawCircle, RawCount, RawDefault, RawParcels, RawRectangle, RawRule, RulesFile,
    },
    rule::{Distances, MAX_LINKS, Rule, Rules, TransportChoice},
};
use crate::{
    ids::{AreaIndex, TableIndex},
    point::MAX_COORDINATE_M,
    settings,
    transport::TransportKind,
};

/// Why a rules file was rejected, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct RulesError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The error at that place.
    pub reason: String,
}

/// Maximum number of rules in a file.
const MAX_RULES: usize = 65_000;
const MAX_NAME_CHARS: usize = 64;

impl Rules {
    /// Parses a rules file. A file with any error is rejected as a whole.
    ///
    /// # Errors
    ///
    /// The first error found: the TOML is malformed, a key is unknown, or a value is out of bounds.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let reject = |(span, reason): SpannedReason| {
            let (line, column) = line_and_column(text, span.start);
            RulesError { line, column, reason }
        };
        let file: RulesFile = toml::from_str(text)
            .map_err(|error| reject((error.span().unwrap_or_default(), error.message().trim().to_owned())))?;
        RulesReader::default().read(file).map_err(reject)
    }
}

/// An error and the bytes of the file that it is about.
type SpannedReason = (Range<usize>, String);

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The parcels of each scene.
type Scenes = BTreeMap<String, Vec<ParcelRange>>;

fn parcels(raw: &RawParcels) -> Result<Vec<ParcelRange>, SpannedReason> {
    let range = |raw: &Spanned<String>| {
        let text = raw.get_ref();
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        parcel(from).zip(parcel(to)).map(|(from, to)| ParcelRange { from, to }).ok_or_else(|| {
            let reason = format!(
                "`{text}` is not a parcel: expected \"3,-4\", or \"3,-4..5,6\" for a rectangle of parcels"
            );
            (raw.span(), reason)
        })
    };
    raw.iter().map(range).collect()
}

fn parcel(text: &str) -> Option<[i32; 2]> {
    const MAX_PARCEL: i32 = (MAX_COORDINATE_M / 16.0) as i32;
    let (x, z) = text.split_once(',')?;
    let coordinate = |text: &str| text.trim().parse().ok().filter(|n: &i32| n.abs() <= MAX_PARCEL);
    Some([coordinate(x)?, coordinate(z)?])
}

#[derive(Debug, Clone, Copy)]
struct ParcelRange {
    from: [i32; 2],
    to: [i32; 2],
}

/// Validates the rules of a file one after the other.
#[derive(std::default::Default)]
struct RulesReader {
    areas: Vec<Area>,
    /// By shapes, the index in `areas`, so that equal shapes are one area.
    area_by_shapes: HashMap<String, AreaIndex>,
    rule_by_name: HashMap<String, usize>,
}

impl RulesReader {
    fn read(mut self, file: RulesFile) -> Result<Rules, SpannedReason> {
        if file.rule.len() > MAX_RULES {
            let span = file.rule[MAX_RULES].name.span();
            return Err((span, format!("there are more than {MAX_RULES} rules")));
        }
        let mut scenes = Scenes::new();
        for (name, raw) in &file.scenes {
            scenes.insert(name.clone(), parcels(raw)?);
        }
        let mut rules = Vec::with_capacity(file.rule.len());
        for raw in file.rule {
            rules.push(self.rule(raw, &scenes)?);
        }
        let mut rules = Rules { rules, areas: self.areas, ..Rules::default() };
        if let Some(RawDefault { transports, voice: raw_voice, video }) = file.default {
            let voice = raw_voice.map_or(Ok(Voice::default()), voice)?;
            rules.default_transports = transports.map(choices).transpose()?;
            rules.default_media = MediaGrants { voice, video };
        }
        Ok(rules)
    }

    fn rule(&mut self, raw: RawRule, scenes: &Scenes) -> Result<Rule, SpannedReason> {
        let name = self.name(raw.name)?;
        if let Some(exclusive) = &raw.exclusive
            && raw.area.is_none()
        {
            return Err((exclusive.span(), "only a rule with an area can set exclusive".to_owned()));
        }
        let area = match raw.area {
            Some(area) => Some(self.area(area, scenes)?),
            None => None,
        };
        let counts_members = raw.people.is_some();
        let rule = Rule {
            name,
            area,
            exclusive: area.is_some() && raw.exclusive.is_none_or(Spanned::into_inner),
            people: raw.people.map_or(Ok(CountRange::ANY), count)?,
            crowding: raw.crowding.map(count).transpose()?,
            hours: raw.hours,
            transports: raw.transports.map(choices).transpose()?,
            voice: raw.voice.map(voice).transpose()?,
            video: raw.video,
            max_links: raw.max_links.map(max_links).transpose()?,
            relay: raw.relay,
            island_size: raw.island_size.map(size).transpose()?,
            distances: distances(raw.join_distance_m, raw.leave_distance_m, counts_members)?,
            settling: raw.settling_s.map(settling).transpose()?,
        };
        Ok(rule)
    }

    fn name(&mut self, name: Spanned<String>) -> Result<String, SpannedReason> {
        let span = name.span();
        let name = name.into_inner();
        let length = name.chars().count();
        if !(1..=MAX_NAME_CHARS).contains(&length) || name.chars().any(char::is_control) {
            let reason =
                format!("a rule's name has 1 to {MAX_NAME_CHARS} characters and no control characters");
            return Err((span, reason));
        }
        let number = self.rule_by_name.len() + 1;
        if let Some(other) = self.rule_by_name.insert(name.clone(), number) {
            return Err((span, format!("rule {other} already has the name `{name}`")));
        }
        Ok(name)
    }

    fn area(&mut self, raw: Spanned<RawArea>, scenes: &Scenes) -> Result<AreaIndex, SpannedReason> {
        let span = raw.span();
        let raw = raw.into_inner();
        let reject = |reason: String| Err((span.clone(), reason));
        let area = match raw {
            RawArea { scene: Some(scene), parcels: None, rectangle: None, circle: None } => {
                let Some(parcels) = scenes.get(&scene) else {
                    return reject(format!("unknown scene `{scene}`: it is not in [scenes]"));
                };
                Area { label: format!("scene {scene}"), shapes: shapes(parcels) }
            }
            RawArea { scene: None, parcels: Some(raw), rectangle: None, circle: None } => {
                let parcels = parcels(&raw)?;
                Area { label: label_of(&parcels), shapes: shapes(&parcels) }
            }
            RawArea {
                scene: None,
                parcels: None,
                rectangle: Some(RawRectangle { from, to }),
                circle: None,
            } => {
                if !from.iter().zip(&to).all(|(from, to)| from < to) || !is_within_world(&[from, to]) {
                    return reject(
                        "a rectangle has the least x and z in from and the greatest in to, in metres".into(),
                    );
                }
                let label = format!("rectangle {},{} to {},{}", from[0], from[1], to[0], to[1]);
                Area { label, shapes: vec![Shape::Rectangle { from, to }] }
            }
            RawArea {
                scene: None,
                parcels: None,
                rectangle: None,
                circle: Some(RawCircle { center, radius_m }),
            } => {
                if !is_within_world(&[center, [radius_m, 0.0]]) || radius_m <= 0.0 {
                    return reject("a circle has a center x and z and a radius above 0, in metres".into());
                }
                let label = format!("circle of {radius_m} m around {},{}", center[0], center[1]);
                Area { label, shapes: vec![Shape::Circle { center, radius_m }] }
            }
            _ => {
                return reject("an area is one of scene, parcels, rectangle and circle".into());
            }
        };
        if area.shapes.is_empty() {
            return reject(format!("{} has no parcels", area.label));
        }
        let next = AreaIndex::new(self.areas.len());
        let index = *self.area_by_shapes.entry(format!("{:?}", area.shapes)).or_insert(next);
        if index == next {
            self.areas.push(area);
        }
        Ok(index)
    }
}

fn shapes(parcels: &[ParcelRange]) -> Vec<Shape> {
    parcels.iter().map(|&ParcelRange { from, to }| Shape::parcels(from, to)).collect()
}

fn label_of(parcels: &[ParcelRange]) -> String {
    match parcels {
        [ParcelRange { from: [x, z], to }] if to == &[*x, *z] => format!("parcel {x},{z}"),
        [ParcelRange { from: [x, z], to: [to_x, to_z] }] => format!("parcels {x},{z} to {to_x},{to_z}"),
        [ParcelRange { from: [x, z], .. }, rest @ ..] => format!("parcels {x},{z} and {} more", rest.len()),
        [] => "an area".to_owned(),
    }
}

fn is_within_world(corners: &[[f64; 2]]) -> bool {
    // Comparisons with NaN are false.
    corners.iter().flatten().all(|metres| metres.abs() <= f64::from(MAX_COORDINATE_M))
}

fn count(raw: Spanned<RawCount>) -> Result<CountRange, SpannedReason> {
    let span = raw.span();
    let RawCount { min, max } = raw.into_inner();
    if min <= max {
        Ok(CountRange { min, max })
    } else {
        Err((span, format!("min {min} is above max {max}")))
    }
}

fn choices(raw: RawChoices) -> Result<Vec<TransportChoice>, SpannedReason> {
    let span = raw.span();
    let choices: Vec<TransportChoice> = raw.into_inner().into_iter().map(choice).collect::<Result<_, _>>()?;
    if choices.is_empty() {
        return Err((span, "at least one transport is required".to_owned()));
    }
    Ok(choices)
}

fn choice(raw: Spanned<toml::Value>) -> Result<TransportChoice, SpannedReason> {
    let reject = |reason: String| (raw.span(), reason);
    if let Some(text) = raw.get_ref().as_str() {
        let kind: Result<TransportKind, ()> = text.parse();
        return kind.map(TransportChoice::Kind).map_err(|()| {
            reject(format!(
                "`{text}` is not a kind of transport (ws-room, livekit, p2p, external); \
                 a node is written {{ node = \"{text}\" }}"
            ))
        });
    }
    let table = raw.get_ref().as_table().filter(|table| table.len() == 1);
    let Some(node) = table.and_then(|table| table.get("node")?.as_str()) else {
        return Err(reject("a transport is a kind, such as \"ws-room\", or { node = \"name\" }".to_owned()));
    };
    let name: Result<NodeName, _> = node.parse();
    name.map(TransportChoice::Node).map_err(|error| reject(format!("`{node}`: {error}")))
}

fn voice(raw: Spanned<String>) -> Result<Voice, SpannedReason> {
    let voice: Result<Voice, _> = raw.get_ref().parse();
    voice.map_err(|error| (raw.span(), format!("`{}` is not a value of voice: {error}", raw.get_ref())))
}

fn max_links(raw: Spanned<u32>) -> Result<u32, SpannedReason> {
    let span = raw.span();
    let links = raw.into_inner();
    if (2..=MAX_LINKS).contains(&links) {
        return Ok(links);
    }
    Err((span, format!("max_links must be 2 to {MAX_LINKS}")))
}

fn size(raw: Spanned<u32>) -> Result<u32, SpannedReason> {
    let span = raw.span();
    let size = raw.into_inner();
    if (1..=settings::MAX_ISLAND_SIZE).contains(&size) {
        return Ok(size);
    }
    Err((span, format!("island_size must be 1 to {}", settings::MAX_ISLAND_SIZE)))
}

fn distances(
    join: Option<Spanned<f32>>,
    leave: Option<Spanned<f32>>,
    counts_members: bool,
) -> Result<Option<Distances>, SpannedReason> {
    let (join, leave) = match (join, leave) {
        (None, None) => return Ok(None),
        (Some(join), Some(leave)) => (join, leave),
        (Some(one), None) | (None, Some(one)) => {
            return Err((one.span(), "join_distance_m and leave_distance_m must be set together".to_owned()));
        }
    };
    if counts_members {
        let reason = "a rule with people cannot set distances, because distances decide how many members an \
                      island has: use crowding, or a separate rule";
        return Err((join.span(), reason.to_owned()));
    }
    let (join_span, leave_span) = (join.span(), leave.span());
    let distances = Distances { join_m: join.into_inner(), leave_m: leave.into_inner() };
    if !(distances.join_m > 0.0 && distances.join_m <= settings::MAX_DISTANCE_M) {
        return Err((join_span, format!("must be above 0 and at most {}", settings::MAX_DISTANCE_M)));
    }
    if !(distances.join_m..=settings::MAX_DISTANCE_M).contains(&distances.leave_m) {
        let reason = format!("must be from join_distance_m to {}", settings::MAX_DISTANCE_M);
        return Err((leave_span, reason));
    }
    Ok(Some(distances))
}

fn settling(raw: Spanned<f64>) -> Result<Duration, SpannedReason> {
    let span = raw.span();
    let seconds = Duration::try_from_secs_f64(raw.into_inner()).ok();
    seconds
        .filter(|&time| time <= settings::HOUR)
        .ok_or_else(|| (span, "must be 0 to 3600 seconds".to_owned()))
}
