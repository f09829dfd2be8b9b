use protocol::IslandId;

const START_DIGITS: usize = 8;
const BASE: u64 = 36;
/// Of the largest number.
const MOST_DIGITS: usize = 13;

/// The number of an island among all that one engine ever opened, from 1: its age, and all that
/// has to be kept of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Serial(pub(crate) u64);

impl Serial {
    /// No island.
    pub(crate) const NONE: Self = Self(0);
}

/// Names islands: a prefix, the engine's start time in base 36, a number in base 36. The start
/// time keeps the names of two runs apart, the number those within a run.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    head: String,
    next: u64,
}

impl Ids {
    /// Names of an engine that started `started_ms` milliseconds after the Unix epoch. `prefix` has
    /// been checked to be a few letters and digits.
    pub(crate) fn new(prefix: &str, started_ms: u64) -> Self {
        let mut head = prefix.to_owned();
        let digits = base36(started_ms % BASE.pow(START_DIGITS as u32));
        head.extend(std::iter::repeat_n('0', START_DIGITS - digits.len()));
        head.push_str(&digits);
        Self { head, next: 1 }
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

    /// The number of the island with this id, if this engine could have named it so.
    pub(crate) fn serial(&self, id: &str) -> Option<Serial> {
        let digits = id.strip_prefix(&self.head)?;
        let number = u64::from_str_radix(digits, BASE as u32).ok()?;
        // Only the one spelling that is printed: no sign, no leading zero, no capitals.
        (base36(number) == digits).then_some(Serial(number))
    }
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
        for other in ["", "I00000007", "I00000007+1", "I0000000701", "I00000007Z", "I00000008z", "plaza"] {
            assert_eq!(ids.serial(other), None, "{other}");
        }
    }
}
