//! Ids of islands: how they are generated, restored after a takeover of leadership, and parsed.

use std::{num::NonZeroU64, sync::Arc};

use protocol::IslandId;

const START_DIGITS: usize = 8;
const BASE: u64 = 36;
/// A start time in an id is trusted up to this much in the future: the greatest assumed difference
/// between the clocks of two directors.
const MAX_CLOCK_SKEW_MS: u64 = 86_400_000;
/// The number of base-36 digits of the largest `u64`.
const MAX_NUMBER_DIGITS: usize = 13;

/// The number of an island among all that one engine restored or created, from 1. It is the age of the
/// island, and the only part of its id that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Serial(NonZeroU64);

impl Serial {
    /// The serial with this number; `None` for 0.
    pub(crate) fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The first serials, this many.
    pub(crate) fn first(count: usize) -> impl Iterator<Item = Self> {
        (1..=count as u64).filter_map(Self::new)
    }

    pub(crate) fn number(self) -> u64 {
        self.0.get()
    }

    /// The position of a restored island with this serial among all restored islands.
    fn position(self) -> usize {
        usize::try_from(self.number() - 1).unwrap_or(usize::MAX)
    }
}

/// Generates island ids: a prefix, the start time of the engine in base 36, and the serial in base 36.
/// The start time keeps the ids of two runs apart, the serial those of one run. Restored islands keep
/// their ids in any form, and get the first serials.
#[derive(Debug, Clone)]
pub(crate) struct IslandIds {
    /// The id prefix and the start time: the first part of every id that this engine generates.
    prefix: String,
    next: Serial,
    restored: Arc<RestoredIds>,
}

/// Ids that earlier engines generated.
#[derive(Debug, Default)]
struct RestoredIds {
    /// The ids by serial, from 1 on; the oldest island first.
    ids: Vec<IslandId>,
    /// The serials, sorted by the text of their ids.
    by_text: Vec<Serial>,
}

impl IslandIds {
    /// Ids of an engine that started `started_ms` milliseconds after the Unix epoch. `prefix` must have
    /// been validated: 1 to 16 letters and digits.
    pub(crate) fn new(prefix: &str, started_ms: u64) -> Self {
        let mut start = prefix.to_owned();
        let digits = to_base36(started_ms % BASE.pow(START_DIGITS as u32));
        start.extend(std::iter::repeat_n('0', START_DIGITS - digits.len()));
        start.push_str(&digits);
        Self { prefix: start, next: Serial(NonZeroU64::MIN), restored: Arc::default() }
    }

    /// Ids of an engine that restores islands with these ids, which are distinct and in any order. If
    /// one of the ids has the same or a later start time, up to a day ahead, the engine takes a start
    /// time after it, so that no id is generated twice.
    pub(crate) fn resume(prefix: &str, started_ms: u64, mut ids: Vec<IslandId>) -> Self {
        // An id with a start time more than a day ahead is ignored: it cannot collide with an id that
        // this engine generates.
        let farthest_ms = started_ms.saturating_add(MAX_CLOCK_SKEW_MS);
        let starts = ids.iter().filter_map(|id| parse_id(prefix, id)).map(|(start, _)| start);
        let latest_ms = starts.filter(|start| *start <= farthest_ms);
        let started_ms = latest_ms.max().map_or(started_ms, |latest_ms| started_ms.max(latest_ms + 1));
        ids.sort_by_cached_key(|id| (Age::parse(prefix, id), id.clone()));
        let mut by_text: Vec<Serial> = Serial::first(ids.len()).collect();
        by_text.sort_unstable_by_key(|serial| &ids[serial.position()]);
        let next = NonZeroU64::MIN.saturating_add(ids.len() as u64);
        let restored = Arc::new(RestoredIds { ids, by_text });
        Self { next: Serial(next), restored, ..Self::new(prefix, started_ms) }
    }

    /// The serials of the restored islands, the oldest first.
    pub(crate) fn restored(&self) -> impl Iterator<Item = Serial> + use<> {
        Serial::first(self.restored.ids.len())
    }

    /// Returns the next unused serial.
    pub(crate) fn allocate(&mut self) -> Serial {
        let serial = self.next;
        self.next = Serial(serial.0.saturating_add(1));
        serial
    }

    /// The serial of the next island.
    pub(crate) fn peek_next(&self) -> Serial {
        self.next
    }

    /// The id of the island with this serial.
    pub(crate) fn island_id(&self, serial: Serial) -> IslandId {
        if let Some(id) = self.restored_id(serial) {
            return id.clone();
        }
        self.format_id(serial)
            .parse()
            .expect("a prefix of at most 16 letters and digits, 8 digits, and at most 13 digits")
    }

    fn format_id(&self, serial: Serial) -> String {
        let mut id = String::with_capacity(self.prefix.len() + MAX_NUMBER_DIGITS);
        id.push_str(&self.prefix);
        write_base36(serial.number(), &mut id);
        id
    }

    /// The serial of the island with this id, if this engine restored it or could have generated the
    /// id.
    pub(crate) fn serial(&self, id: &str) -> Option<Serial> {
        // The lookup allocates nothing.
        let RestoredIds { ids, by_text } = &*self.restored;
        let compare = |serial: &Serial| ids[serial.position()].as_str().cmp(id);
        match by_text.binary_search_by(compare) {
            Ok(index) => Some(by_text[index]),
            Err(_) => self.parse_own(id),
        }
    }

    /// Whether `id` is the id of the island with this serial.
    pub(crate) fn matches(&self, serial: Serial, id: &str) -> bool {
        match self.restored_id(serial) {
            Some(restored) => restored.as_str() == id,
            None => self.parse_own(id) == Some(serial),
        }
    }

    fn parse_own(&self, id: &str) -> Option<Serial> {
        let serial = Serial::new(parse_number(id.strip_prefix(&self.prefix)?)?)?;
        self.restored_id(serial).is_none().then_some(serial)
    }

    fn restored_id(&self, serial: Serial) -> Option<&IslandId> {
        self.restored.ids.get(serial.position())
    }
}

/// The age of an island, as far as its id shows it: less is older.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// An id with another prefix, in which the position of the start time is unknown. Among ids with
    /// the same prefix and start time the longer is the later.
    Foreign(usize),
    /// The start time of the engine in milliseconds since the Unix epoch, and the serial.
    Known(u64, u64),
}

impl Age {
    fn parse(prefix: &str, id: &IslandId) -> Self {
        match parse_id(prefix, id) {
            Some((start_ms, number)) => Self::Known(start_ms, number),
            None => Self::Foreign(id.as_str().len()),
        }
    }
}

/// The start time of the engine that generated this id with this prefix, and the serial of the island.
fn parse_id(prefix: &str, id: &IslandId) -> Option<(u64, u64)> {
    let (start, digits) = id.as_str().strip_prefix(prefix)?.split_at_checked(START_DIGITS)?;
    Some((parse_base36(start)?, parse_number(digits)?))
}

/// A number from 1 in its canonical form: no sign, no leading zero, no capitals.
fn parse_number(text: &str) -> Option<u64> {
    if text.starts_with('0') { None } else { parse_base36(text) }
}

fn parse_base36(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'z'));
    if plain { u64::from_str_radix(text, BASE as u32).ok() } else { None }
}

fn to_base36(number: u64) -> String {
    let mut text = String::new();
    write_base36(number, &mut text);
    text
}

fn write_base36(mut number: u64, text: &mut String) {
    let mut digits = ['0'; MAX_NUMBER_DIGITS];
    let mut first = MAX_NUMBER_DIGITS;
    loop {
        first -= 1;
        digits[first] = char::from_digit((number % BASE) as u32, BASE as u32).unwrap_or('0');
        number /= BASE;
        if number == 0 {
            return text.extend(&digits[first..]);
        }
    }
}

/// A direct-mapped cache of recently used ids: peers move between the same few islands, so the same ids
/// are needed again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdCache(Vec<Option<(Serial, IslandId)>>);

const CACHE_SLOTS: usize = 4_096;

impl IdCache {
    pub(crate) fn island_id(&mut self, ids: &IslandIds, serial: Serial) -> IslandId {
        self.0.resize(CACHE_SLOTS, None);
        let entry = &mut self.0[serial.number() as usize % CACHE_SLOTS];
        match entry {
            Some((known, id)) if *known == serial => id.clone(),
            _ => entry.insert((serial, ids.island_id(serial))).1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(number: u64) -> Serial {
        Serial::new(number).unwrap()
    }

    #[test]
    fn id_is_prefix_start_time_and_number() {
        let mut ids = IslandIds::new("I", 1_700_000_000_000);
        assert_eq!(ids.allocate(), serial(1));
        assert_eq!(ids.island_id(serial(1)).as_str(), "Iloyw3v281");
        assert_eq!(ids.island_id(serial(36)).as_str(), "Iloyw3v2810");
        assert_eq!(IslandIds::new("I", 7).island_id(serial(35)).as_str(), "I00000007z");
    }

    #[test]
    fn serial_parses_own_ids_only() {
        let ids = IslandIds::new("I", 7);
        assert_eq!(ids.serial("I00000007z"), Some(serial(35)));
        for other in
            ["", "I00000007", "I000000070", "I00000007+1", "I0000000701", "I00000007Z", "I00000008z", "plaza"]
        {
            assert_eq!(ids.serial(other), None, "{other}");
            assert!(!ids.matches(serial(35), other), "{other}");
        }
        assert!(ids.matches(serial(35), "I00000007z"));
    }

    fn ids(texts: &[&str]) -> Vec<IslandId> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn resume_orders_restored_ids_by_age() {
        let names = ids(&["I000000095", "I00000007z", "plaza", "I0000000710", "I000000093"]);
        let mut ids = IslandIds::resume("I", 100, names);
        let oldest_first = ["plaza", "I00000007z", "I0000000710", "I000000093", "I000000095"];
        for (name, island) in oldest_first.into_iter().zip((1..).map(serial)) {
            assert_eq!((ids.island_id(island).as_str(), ids.serial(name)), (name, Some(island)));
            assert!(ids.matches(island, name) && !ids.matches(serial(island.number() + 1), name));
        }
        assert_eq!(ids.allocate(), serial(6));
        assert_eq!(ids.island_id(serial(6)).as_str(), "I0000002s6");
        assert_eq!(ids.serial("I0000002s6"), Some(serial(6)));
        // This engine never created a fifth island: that serial belongs to a restored one.
        assert_eq!(ids.serial("I0000002s5"), None);
    }

    #[test]
    fn resume_skips_ids_of_a_later_engine_start() {
        let ids = IslandIds::resume("I", 7, ids(&["I000000091"]));
        assert_eq!(ids.island_id(serial(2)).as_str(), "I0000000a2");
    }
}
