//! The version of this build.

/// The commit of this build, if the build set it.
pub(crate) const COMMIT_HASH: Option<&str> = option_env!("COMMIT_HASH");
