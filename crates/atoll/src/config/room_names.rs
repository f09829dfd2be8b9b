//! The names that no configured room may have: `status`, and those that the director can give to islands:
//! the prefix, eight digits of base 36, and a number. The rooms of islands are entered with a token only.

/// The last segment of `/rooms/status`, which is not a room.
pub(super) const STATUS: &str = "status";
/// The reason why no room may have the name [`STATUS`].
pub(super) const STATUS_PROBLEM: &str = "/rooms/status is not a room: it lists the rooms";

/// The minimum of digits in a name.
const MIN_DIGITS: usize = 9;

/// Whether an island can have this name.
pub(super) fn can_be_island(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|digits| digits.len() >= MIN_DIGITS && is_base36(digits))
}

/// Whether an island's name can be this one, or begin with it where a `*` follows.
pub(super) fn can_match_island(pattern: &str, prefix: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => prefix.starts_with(start) || start.strip_prefix(prefix).is_some_and(is_base36),
        None => can_be_island(pattern, prefix),
    }
}

fn is_base36(digits: &str) -> bool {
    digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn island_names_and_matching_patterns_are_recognized() {
        let island = archipelago_id();
        assert!(can_be_island(&island, "I") && !can_be_island(&island, "J"));
        assert!(!can_be_island("Island", "I") && !can_be_island("I1", "I"));
        for pattern in ["*", "I*", &format!("{}*", &island[..4]), &island] {
            assert!(can_match_island(pattern, "I"), "{pattern}");
        }
        for pattern in ["lobby", "test-*", "Inn-*", "I", "Isle*x"] {
            assert!(!can_match_island(pattern, "I"), "{pattern}");
        }
        assert!(can_match_island("isl*", "island") && !can_match_island("isl*", "I"));
    }

    /// The id of the first island of an engine.
    fn archipelago_id() -> String {
        let mut engine =
            archipelago::Engine::new(archipelago::Settings::default(), 1_800_000_000_000).unwrap();
        let peer = protocol::Address::new([1; 20]);
        let position = protocol::Position::new(0.0, 0.0, 0.0);
        let heartbeat = archipelago::Input::Heartbeat(archipelago::Heartbeat::new(peer, position));
        engine.handle(heartbeat, std::time::Duration::ZERO);
        let mut outputs = Vec::new();
        engine.flush(std::time::Duration::ZERO, &mut outputs);
        let opened = outputs.into_iter().find_map(|output| match output {
            archipelago::Output::Opened { island } => Some(island.to_string()),
            _ => None,
        });
        opened.unwrap()
    }
}
