//! Built-in defaults, then `atoll.toml`, then `ATOLL__SECTION__KEY`, then flags.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::{Settings, roles::Parsed};

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub(crate) struct Problems(pub(crate) Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s)", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}

impl From<ConfigError> for Problems {
    fn from(error: ConfigError) -> Self {
        Self(vec![error.to_string()])
    }
}

/// Where settings come from besides the defaults.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `--config`; without it, `atoll.toml` where there is one.
    pub(crate) file: Option<PathBuf>,
    /// The environment's variables.
    pub(crate) environment: HashMap<String, String>,
    /// Keys that flags set, and their values.
    pub(crate) flags: Vec<(&'static str, String)>,
}

const DEFAULT_FILE: &str = "atoll.toml";

/// One value that somebody set.
struct Setting {
    value: Value,
    origin: String,
}

/// The settings in force, checked, or all that is wrong with them.
pub(crate) fn load(sources: Sources) -> Result<(Settings, Parsed), Problems> {
    let defaults = Config::try_from(&Settings::default())?;
    let known = flatten(defaults.collect()?);
    let mut problems = Vec::new();
    let mut builder = Config::builder().add_source(defaults.clone());
    for (key, Setting { value, origin }) in collect(sources)? {
        if !known.contains_key(&key) {
            problems.push(format!("{key}: no such setting (in {origin}){}", suggestion(&key, &known)));
            continue;
        }
        // On its own over the defaults, so that each bad value is found and named.
        let alone = Config::builder()
            .add_source(defaults.clone())
            .set_override(&key, value.clone())?
            .build()?
            .try_deserialize::<Settings>();
        match alone {
            Ok(_) => builder = builder.set_override(&key, value)?,
            Err(error) => {
                let expected = error.to_string();
                let expected = expected.split(" for key").next().unwrap_or_default();
                problems.push(format!("{key} = {value}: {expected} (in {origin})"));
            }
        }
    }
    let settings: Settings = builder.build()?.try_deserialize()?;
    match Parsed::new(&settings, &mut problems) {
        Some(parsed) if problems.is_empty() => Ok((settings, parsed)),
        _ => Err(Problems(problems)),
    }
}

/// What somebody set, the strongest source last to speak.
fn collect(sources: Sources) -> Result<BTreeMap<String, Setting>, Problems> {
    let mut settings = BTreeMap::new();
    let mut add = |values: BTreeMap<String, Value>, origin: &dyn Fn(&str) -> String| {
        for (key, value) in values {
            let origin = origin(&key);
            settings.insert(key, Setting { value, origin });
        }
    };
    let path = sources.file.clone().or_else(|| Path::new(DEFAULT_FILE).exists().then(|| DEFAULT_FILE.into()));
    if let Some(path) = path {
        let file = File::new(&path.to_string_lossy(), FileFormat::Toml).required(true);
        add(flatten(file.collect()?), &|_| path.display().to_string());
    }
    let environment = Environment::with_prefix("ATOLL")
        .prefix_separator("__")
        .separator("__")
        .source(Some(sources.environment));
    add(flatten(environment.collect()?), &|key| {
        format!("the environment, ATOLL__{}", key.replace('.', "__").to_uppercase())
    });
    let flags = sources.flags.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value)));
    add(flags.collect(), &|_| "the command line".to_owned());
    Ok(settings)
}

/// Tables as dotted keys.
fn flatten(map: Map<String, Value>) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in map {
        match value.kind {
            ValueKind::Table(table) => {
                flat.extend(
                    flatten(table).into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)),
                );
            }
            _ => {
                flat.insert(key, value);
            }
        }
    }
    flat
}

/// The known key of the same name in another section, if there is one.
fn suggestion(key: &str, known: &BTreeMap<String, Value>) -> String {
    let name = key.rsplit('.').next().unwrap_or_default();
    let similar = known.keys().find(|known| known.rsplit('.').next() == Some(name));
    similar.map(|similar| format!("; did you mean {similar}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn problems(toml: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let environment =
            environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let sources = Sources { file: Some(file.path().into()), environment, flags: Vec::new() };
        let Problems(problems) = load(sources).unwrap_err();
        let path = file.path().display().to_string();
        problems.into_iter().map(|problem| problem.replace(&path, "FILE")).collect()
    }

    fn load_with(environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Settings {
        let environment =
            environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let flags = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
        load(Sources { file: None, environment, flags }).unwrap().0
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(load_with(&[], &[]).server.listen, "127.0.0.1:5000");
    }

    #[test]
    fn flags_are_stronger_than_the_environment() {
        let environment = [("ATOLL__SERVER__LISTEN", "127.0.0.1:1"), ("ATOLL__ROOMS__MAX_USERS", "7")];
        let settings = load_with(&environment, &[("server.listen", "127.0.0.1:2")]);
        assert_eq!((settings.server.listen.as_str(), settings.rooms.max_users), ("127.0.0.1:2", 7));
        // A secret that looks like a number stays what it is.
        let secret = [("ATOLL__ROOMS__TOKEN_SECRETS", "0123456789012345")];
        assert_eq!(load_with(&secret, &[]).rooms.token_secrets, "0123456789012345");
    }

    #[test]
    fn all_problems_are_named_at_once_with_key_value_and_place() {
        let toml = "[rooms]\nmax_users = \"many\"\njoin_distance_m = 1\n[colour]\nsky = 1\n[gateway]\nmax_sessions = 0";
        let environment = [("ATOLL__ISLANDS__LEAVE_DISTANCE_M", "10"), ("ATOLL__LOG__FORMAT", "xml")];
        let problems = problems(toml, &environment);
        for part in [
            "colour.sky: no such setting (in FILE)",
            "rooms.join_distance_m: no such setting (in FILE); did you mean islands.join_distance_m?",
            "rooms.max_users = many: invalid type: string \"many\", expected an integer (in FILE)",
            "gateway.max_sessions = 0: must be at least 1",
            "islands.leave_distance_m",
            "log.format = xml: must be pretty or json",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(part)),
                "{part:?} not in {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 6, "{problems:#?}");
    }

    #[test]
    fn the_reference_names_every_setting_and_its_default() {
        let reference = include_str!("../../../../docs/configuration.md");
        let toml = super::super::print(&Settings::default());
        let mut section = "";
        for line in toml.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if let Some((key, value)) = line.split_once(" = ") {
                let heading = format!("## `[{section}]`");
                let (_, table) = reference.split_once(&heading).expect(&heading);
                let table = table.split("\n## ").next().unwrap_or_default();
                assert!(table.contains(&format!("| `{key}` | `{value}` |")), "{section}.{key} = {value}");
            }
        }
    }

    #[test]
    fn a_wildcard_needs_a_public_url() {
        let problems = problems("[server]\nlisten = \"0.0.0.0:5000\"", &[]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("server.public_url"), "{problems:?}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_line() {
        let problems = problems("[server]\nlisten = ", &[]);
        assert!(problems[0].contains("line 2"), "{problems:?}");
    }
}
