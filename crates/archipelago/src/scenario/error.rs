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

/// The result of a step; the error is the reason.
pub(super) type StepResult = Result<(), String>;

/// Fails with a reason unless the condition holds.
pub(super) fn ensure(condition: bool, reason: impl FnOnce() -> String) -> StepResult {
    if condition { Ok(()) } else { Err(reason()) }
}
