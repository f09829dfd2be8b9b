//! Matching subjects with patterns.

/// Whether a pattern matches a subject. In a pattern, a segment `*` matches any one segment, and a final `>`
/// matches one or more (the wildcard rules of NATS).
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for expected in pattern.split('.') {
        match (expected, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (expected, Some(segment)) if expected == segment => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_follow_the_nats_rules() {
        assert!(matches("a.>", "a.b.c"));
        assert!(!matches("a.>", "a"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(!matches("a.*.c", "a.b"));
    }
}
