//! Loads the settings from, in ascending priority: built-in defaults, `atoll.toml`,
//! `ATOLL__SECTION__KEY`, flags.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
};

use archipelago::rules::Rules;
use config::{Config, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use protocol::{NodeName, TokenError};

use super::{
    cross_checks,
    problems::Problems,
    settings::{NODE_PLACEHOLDER, Settings},
    values::HIDDEN,
};

/// The sources of settings besides the defaults.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `--config`; without it, `atoll.toml` if it exists.
    pub(crate) file: Option<PathBuf>,
    /// The environment variables of this program.
    pub(crate) environment: HashMap<String, String>,
    /// The keys that flags set, and their values.
    pub(crate) flags: Vec<(&'static str, String)>,
}

const DEFAULT_FILE: &str = "atoll.toml";
/// The prefix of this program's environment variables, in upper or lower case.
const ENVIRONMENT_PREFIX: &str = "ATOLL_";

/// The environment variables of this program, or the names of those that are not UTF-8. Variables of
/// other programs may hold any bytes, and are ignored.
pub(crate) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<HashMap<String, String>, Problems> {
    let mut ours = HashMap::new();
    let mut problems = Problems::default();
    for (name, value) in variables {
        let readable = name.to_string_lossy().into_owned();
        if !readable
            .get(..ENVIRONMENT_PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX))
        {
            continue;
        }
        // The message does not repeat the value: it may be a secret.
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(ours.insert(name, value)),
            (Ok(_), Err(_)) => problems.add(format!("the environment variable {readable} is not UTF-8")),
            (Err(_), _) => {
                problems.add(format!("the name of the environment variable {readable} is not UTF-8"))
            }
        }
    }
    if problems.is_empty() { Ok(ours) } else { Err(problems) }
}

/// One value that a source set, and the source.
struct Setting {
    value: Value,
    origin: String,
}

/// A valid configuration.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) settings: Settings,
    /// The file of owner rules and the rules in it, if there is one.
    pub(crate) rules: Option<(PathBuf, Rules)>,
}

/// The configuration, or all problems of it.
pub(crate) fn load(sources: Sources) -> Result<Configuration, Problems> {
    let mut problems = Problems::default();
    let settings = merge(collect(sources)?, &mut problems)?;
    settings.validate(&mut problems);
    cross_checks::check(&settings, &mut problems);
    let rules = settings.rules.load(&mut problems);
    if problems.is_empty() { Ok(Configuration { settings, rules }) } else { Err(problems) }
}

/// The defaults with the values that the sources set. Reports values that their types refuse, and uses the
/// defaults of these.
fn merge(values: BTreeMap<String, Setting>, problems: &mut Problems) -> Result<Settings, Problems> {
    let defaults = Config::try_from(&Settings::default())?;
    let known = KnownSettings::new();
    let mut builder = Config::builder().add_source(defaults.clone());
    for (key, Setting { value, origin }) in values {
        if let Some(Err(error)) = parse_node_name(&key) {
            problems.add(format!("{key}: the name of a node {error} (in {origin})"));
            continue;
        }
        if let ValueKind::Table(_) = value.kind {
            // An empty table sets nothing. But a node's empty table is kept, so that its missing
            // settings are reported.
            if without_node_name(&key).ends_with(NODE_PLACEHOLDER) {
                builder = builder.set_override(&key, value)?;
            }
            continue;
        }
        let Some(is_secret) = known.is_secret(&key) else {
            problems.add(format!("{key}: no such setting (in {origin}){}", known.suggestion(&key)));
            continue;
        };
        // Each value is tried alone over the defaults, so that each bad value is found and named.
        let alone = Config::builder()
            .add_source(defaults.clone())
            .set_override(&key, value.clone())?
            .build()?
            .try_deserialize::<Settings>();
        match alone {
            Ok(_) => builder = builder.set_override(&key, value)?,
            Err(error) => match refusal(&error) {
                Some(refusal) => {
                    refusal.lines().for_each(|refusal| problems.add(format!("{key} = {refusal}")));
                }
                None => {
                    let expected = error.to_string();
                    let expected = expected.split(" for key").next().unwrap_or_default();
                    let value = if is_secret { HIDDEN.to_owned() } else { value.to_string() };
                    problems.add(format!("{key} = {value}: {expected} (in {origin})"));
                }
            },
        }
    }
    Ok(builder.build()?.try_deserialize()?)
}

/// The message of a type of a setting that refuses a value; `None`: the value could not be read as text or
/// as a number.
fn refusal(error: &ConfigError) -> Option<&str> {
    match error {
        ConfigError::At { error, .. } => refusal(error),
        ConfigError::Message(refusal) => Some(refusal),
        _ => None,
    }
}

/// All values that the sources set. A later source overrides an earlier one.
fn collect(sources: Sources) -> Result<BTreeMap<String, Setting>, Problems> {
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    let mut add = |values: BTreeMap<String, Value>, origin: &dyn Fn(&str) -> String| {
        for (key, value) in values {
            let origin = origin(&key);
            settings.insert(match_known_spelling(key, &settings), Setting { value, origin });
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

/// The keys of all settings, as the reference documentation has them, and whether they are secrets.
struct KnownSettings(BTreeMap<String, bool>);

impl KnownSettings {
    fn new() -> Self {
        let specimen = Settings::specimen();
        let keys = specimen.tables().into_iter().flat_map(|(table, section)| {
            section.fields().iter().map(move |field| (format!("{table}.{}", field.name), field.is_secret))
        });
        Self(keys.collect())
    }

    /// Whether this setting is a secret; `None`: there is no such setting.
    fn is_secret(&self, key: &str) -> Option<bool> {
        self.0.get(&without_node_name(key)).copied()
    }

    /// A hint at the known key of the same name in another section, if there is one.
    fn suggestion(&self, key: &str) -> String {
        let name = key.rsplit('.').next().unwrap_or_default();
        let similar = self.0.keys().find(|known| known.rsplit('.').next() == Some(name));
        similar.map(|similar| format!("; did you mean {similar}?")).unwrap_or_default()
    }
}

/// A key as the reference documentation has it: in tables with one entry per node, without the node's
/// name.
fn without_node_name(key: &str) -> String {
    let segments: Vec<&str> = key.split('.').collect();
    match segments[..] {
        [table @ ("livekit" | "external"), _] => format!("{table}.{NODE_PLACEHOLDER}"),
        [table @ ("livekit" | "external"), _, name] => format!("{table}.{NODE_PLACEHOLDER}.{name}"),
        _ => key.to_owned(),
    }
}

/// The name of the node that the key belongs to, if it belongs to one.
fn parse_node_name(key: &str) -> Option<Result<NodeName, TokenError>> {
    (without_node_name(key) != key).then(|| key.split('.').nth(1).unwrap_or_default().parse())
}

/// Environment variables have neither lower-case letters nor `-`. If such a key matches a node that an
/// earlier source named, the earlier spelling is used.
fn match_known_spelling(key: String, settings: &BTreeMap<String, Setting>) -> String {
    let fold = |key: &str| key.to_lowercase().replace('-', "_");
    let generic_key = without_node_name(&key);
    if generic_key == key || settings.contains_key(&key) {
        return key;
    }
    let table = |key: &str| key.split('.').take(2).map(str::to_owned).collect::<Vec<_>>().join(".");
    let (meant, mut known) =
        (table(&key), settings.keys().filter(|key| without_node_name(key) != **key).map(|key| table(key)));
    match known.find(|known| fold(known) == fold(&meant)) {
        Some(known) => key.replacen(&meant, &known, 1),
        None => key,
    }
}

/// Converts tables to dotted keys; an empty table is kept.
fn flatten(map: Map<String, Value>) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in map {
        match value.kind {
            ValueKind::Table(table) if !table.is_empty() => {
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

#[cfg(test)]
mod tests;
