//! Why a scenario failed.

/// The step at which a scenario failed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ScenarioError {
    /// Line, from 1.
    pub line: usize,
    /// The error in the line, the expectation that was not met, or the invariant that was violated.
    pub reason: String,
}
