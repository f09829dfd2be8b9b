use std::sync::Arc;

use protocol::IslandId;

const START_DIGITS: usize = 8;
const BASE: u64 = 36;
/// By how much clocks of directors may differ.
const DAY_MS: u64 = 86_400_000;
/// Of the largest number.
const MOST_DIGITS: usize = 13;

/// The number of an island among all that one engine took over and then opened, from 1: its age, and
/// all that has to be kept of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Serial(pub(crate) u64);

impl Serial {
    /// No island.
    pub(crate) const NONE: Self = Self(0);
}

/// Names islands: a prefix, the engine's start time in base 36, a number in base 36. The start
/// time keeps the names of two runs apart, the number those within a run. Islands that were taken over
/// keep their names, whatever those are, and have the first numbers.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    head: String,
    next: u64,
    adopted: Arc<Adopted>,
}

/// Names that others gave.
#[derive(Debug, Default)]
struct Adopted {
    /// The oldest first: the name of number 1, of number 2, and so on.
    names: Vec<IslandId>,
    /// The numbers, in the order of the names' spelling.
    by_spelling: Vec<Serial>,
}

impl Ids {
    /// Names of an engine that started `started_ms` milliseconds after the Unix epoch. `prefix` has
    /// been checked to be a few letters and digits.
    pub(crate) fn new(prefix: &str, started_ms: u64) -> Self {
        let mut head = prefix.to_owned();
        let digits = base36(started_ms % BASE.pow(START_DIGITS as u32));
        head.extend(std::iter::repeat_n('0', START_DIGITS - digits.len()));
        head.push_str(&digits);
        Self { head, next: 1, adopted: Arc::default() }
    }

    /// Names of an engine that goes on with islands which have one already, in any order, each once.
    /// It started when it says, or later, if one of these names is of an engine that started then or
    /// later still: so none is given twice.
    pub(crate) fn resume(prefix: &str, started_ms: u64, mut names: Vec<IslandId>) -> Self {
        // A name that says it is of some far future is nobody's whose names could be given again.
        let farthest_ms = started_ms.saturating_add(DAY_MS);
        let starts = names.iter().filter_map(|name| start_and_number(prefix, name)).map(|(start, _)| start);
        let latest_ms = starts.filter(|start| *start <= farthest_ms);
        let started_ms = latest_ms.max().map_or(started_ms, |latest_ms| started_ms.max(latest_ms + 1));
        names.sort_by_cached_key(|name| (Age::of(prefix, name), name.clone()));
        let next = 1 + names.len() as u64;
        let mut by_spelling: Vec<Serial> = (1..next).map(Serial).collect();
        by_spelling.sort_unstable_by_key(|serial| &names[serial.0 as usize - 1]);
        Self { next, adopted: Arc::new(Adopted { names, by_spelling }), ..Self::new(prefix, started_ms) }
    }

    /// A number that no island had before.
    pub(crate) fn mint(&mut self) -> Serial {
        let serial = Serial(self.next);
        self.next += 1;
        serial
    }

    /// The number that the next island will have.
    pub(crate) fn upcoming(&self) -> u64 {
        self.next
    }

    /// The id of the island with this number.
    pub(crate) fn text(&self, serial: Serial) -> IslandId {
        if let Some(name) = self.adopted(serial) {
            return name.clone();
        }
        self.spell(serial)
            .parse()
            .expect("a prefix of at most 16 letters and digits, 8 digits, and at most 13 digits")
    }

    fn spell(&self, serial: Serial) -> String {
        let mut id = String::with_capacity(self.head.len() + MOST_DIGITS);
        id.push_str(&self.head);
        write_base36(serial.0, &mut id);
        id
    }

    /// The number of the island with this id, if this engine took it over or could have named it so.
    pub(crate) fn serial(&self, id: &str) -> Option<Serial> {
        // Nothing has to be allocated to look for an id.
        let Adopted { names, by_spelling } = &*self.adopted;
        let spelling = |serial: &Serial| names[serial.0 as usize - 1].as_str().cmp(id);
        match by_spelling.binary_search_by(spelling) {
            Ok(place) => Some(by_spelling[place]),
            Err(_) => self.own(id),
        }
    }

    /// Whether this is the id of the island with this number.
    pub(crate) fn is(&self, serial: Serial, id: &str) -> bool {
        match self.adopted(serial) {
            Some(name) => name.as_str() == id,
            None => self.own(id) == Some(serial),
        }
    }

    fn own(&self, id: &str) -> Option<Serial> {
        let serial = Serial(number(id.strip_prefix(&self.head)?)?);
        self.adopted(serial).is_none().then_some(serial)
    }

    fn adopted(&self, serial: Serial) -> Option<&IslandId> {
        let index = usize::try_from(serial.0).ok()?.checked_sub(1)?;
        self.adopted.names.get(index)
    }
}

/// How old an island is, as far as its id tells: less is older.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// Of another prefix, so that it cannot be told where the start time begins. Of one prefix and
    /// start the longer id is the later.
    Foreign(usize),
    Known(u64, u64),
}

impl Age {
    fn of(prefix: &str, id: &IslandId) -> Self {
        match start_and_number(prefix, id) {
            Some((start_ms, number)) => Self::Known(start_ms, number),
            None => Self::Foreign(id.as_str().len()),
        }
    }
}

/// When the engine started that gave this id with this prefix, and the island's number there.
fn start_and_number(prefix: &str, id: &IslandId) -> Option<(u64, u64)> {
    let (start, digits) = id.as_str().strip_prefix(prefix)?.split_at_checked(START_DIGITS)?;
    Some((digits_of(start)?, number(digits)?))
}

/// A number from 1 in the one spelling that is printed: no sign, no leading zero, no capitals.
fn number(text: &str) -> Option<u64> {
    if text.starts_with('0') { None } else { digits_of(text) }
}

fn digits_of(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'z'));
    if plain { u64::from_str_radix(text, BASE as u32).ok() } else { None }
}

fn base36(number: u64) -> String {
    let mut text = String::new();
    write_base36(number, &mut text);
    text
}

fn write_base36(mut number: u64, text: &mut String) {
    let mut digits = ['0'; MOST_DIGITS];
    let mut first = MOST_DIGITS;
    loop {
        first -= 1;
        digits[first] = char::from_digit((number % BASE) as u32, BASE as u32).unwrap_or('0');
        number /= BASE;
        if number == 0 {
            return text.extend(&digits[first..]);
        }
    }
}

/// The ids of islands asked for lately: neighbours change places, so that the same few are asked for
/// again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdCache(Vec<Option<(Serial, IslandId)>>);

const CACHED: usize = 4_096;

impl IdCache {
    pub(crate) fn text(&mut self, ids: &Ids, serial: Serial) -> IslandId {
        self.0.resize(CACHED, None);
        let entry = &mut self.0[serial.0 as usize % CACHED];
        match entry {
            Some((known, id)) if *known == serial => id.clone(),
            _ => entry.insert((serial, ids.text(serial))).1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_prefix_start_and_number() {
        let mut ids = Ids::new("I", 1_700_000_000_000);
        assert_eq!(ids.mint(), Serial(1));
        assert_eq!(ids.text(Serial(1)).as_str(), "Iloyw3v281");
        assert_eq!(ids.text(Serial(36)).as_str(), "Iloyw3v2810");
        assert_eq!(Ids::new("I", 7).text(Serial(35)).as_str(), "I00000007z");
    }

    #[test]
    fn an_id_is_read_back_and_others_are_not() {
        let ids = Ids::new("I", 7);
        assert_eq!(ids.serial("I00000007z"), Some(Serial(35)));
        for other in
            ["", "I00000007", "I000000070", "I00000007+1", "I0000000701", "I00000007Z", "I00000008z", "plaza"]
        {
            assert_eq!(ids.serial(other), None, "{other}");
            assert!(!ids.is(Serial(35), other), "{other}");
        }
        assert!(ids.is(Serial(35), "I00000007z"));
    }

    fn ids(texts: &[&str]) -> Vec<IslandId> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn names_that_are_taken_over_are_kept_in_the_order_of_their_age() {
        let names = ids(&["I000000095", "I00000007z", "plaza", "I0000000710", "I000000093"]);
        let mut ids = Ids::resume("I", 100, names);
        let oldest_first = ["plaza", "I00000007z", "I0000000710", "I000000093", "I000000095"];
        for (name, serial) in oldest_first.into_iter().zip((1..).map(Serial)) {
            assert_eq!((ids.text(serial).as_str(), ids.serial(name)), (name, Some(serial)));
            assert!(ids.is(serial, name) && !ids.is(Serial(serial.0 + 1), name));
        }
        assert_eq!(ids.mint(), Serial(6));
        assert_eq!(ids.text(Serial(6)).as_str(), "I0000002s6");
        assert_eq!(ids.serial("I0000002s6"), Some(Serial(6)));
        // This engine never opened a fifth: that number is of one taken over.
        assert_eq!(ids.serial("I0000002s5"), None);
    }

    #[test]
    fn no_name_is_given_that_an_engine_with_a_later_start_may_have_given() {
        let ids = Ids::resume("I", 7, ids(&["I000000091"]));
        assert_eq!(ids.text(Serial(2)).as_str(), "I0000000a2");
    }
}
