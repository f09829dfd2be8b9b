//! Configurations for tests.

use std::io::Write as _;

use super::{
    load::{Sources, load},
    problems::Problems,
    settings::Settings,
};

/// The result of loading a configuration file with this text, and the file's path.
fn load_text(toml: &str, environment: &[(&str, &str)]) -> (Result<Settings, Problems>, String) {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let sources = Sources { file: Some(file.path().into()), environment, flags: Vec::new() };
    (load(sources).map(|loaded| loaded.settings), file.path().display().to_string())
}

/// The settings of a valid configuration file.
pub(super) fn settings(toml: &str) -> Settings {
    settings_with(toml, &[])
}

/// The settings of a valid configuration file and environment variables.
pub(super) fn settings_with(toml: &str, environment: &[(&str, &str)]) -> Settings {
    load_text(toml, environment).0.unwrap()
}

/// The problems of a configuration file.
pub(super) fn problems(toml: &str) -> Vec<String> {
    problems_with(toml, &[])
}

/// The problems of a configuration file and environment variables, with `FILE` for the path of the file.
pub(super) fn problems_with(toml: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let (loaded, path) = load_text(toml, environment);
    loaded.unwrap_err().list().iter().map(|problem| problem.replace(&path, "FILE")).collect()
}
