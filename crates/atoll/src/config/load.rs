//! Built-in defaults, then `atoll.toml`, then `ATOLL__SECTION__KEY`, then flags.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use protocol::{NodeName, TokenError};

use super::{Settings, roles::ValidatedSettings};

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
/// The environment variables of this program begin with this, in capitals or not.
const ENVIRONMENT_PREFIX: &str = "ATOLL_";

/// The environment variables of this program, or the names of those that are not UTF-8. Variables of other programs may
/// hold any bytes, and are passed over.
pub(crate) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<HashMap<String, String>, Problems> {
    let mut ours = HashMap::new();
    let mut problems = Vec::new();
    for (name, value) in variables {
        let readable = name.to_string_lossy().into_owned();
        if !readable
            .get(..ENVIRONMENT_PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX))
        {
            continue;
        }
        // The value is not repeated: it may be a secret.
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(ours.insert(name, value)),
            (Ok(_), Err(_)) => problems.push(format!("the environment variable {readable} is not UTF-8")),
            (Err(_), _) => {
                problems.push(format!("the name of the environment variable {readable} is not UTF-8"))
            }
        }
    }
    if problems.is_empty() { Ok(ours) } else { Err(Problems(problems)) }
}

/// One value that somebody set.
struct Setting {
    value: Value,
    origin: String,
}

/// The settings in force, checked, or all that is wrong with them.
pub(crate) fn load(sources: Sources) -> Result<(Settings, ValidatedSettings), Problems> {
    let defaults = Config::try_from(&Settings::default())?;
    let specimen = flatten(Config::try_from(&Settings::example())?.collect()?);
    let known: BTreeMap<String, Value> =
        specimen.into_iter().map(|(key, value)| (without_node_name(&key), value)).collect();
    let mut problems = Vec::new();
    let mut builder = Config::builder().add_source(defaults.clone());
    for (key, Setting { value, origin }) in collect(sources)? {
        if let Some(Err(error)) = parse_node_name(&key) {
            problems.push(format!("{key}: the name of a node {error} (in {origin})"));
            continue;
        }
        if let ValueKind::Table(_) = value.kind {
            // Nothing is set in it, and a node without settings is one that lacks some.
            if without_node_name(&key).ends_with(NODE_PLACEHOLDER) {
                builder = builder.set_override(&key, value)?;
            }
            continue;
        }
        if !known.contains_key(&without_node_name(&key)) {
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
                let value = if is_secret(&key) { "(hidden)".to_owned() } else { value.to_string() };
                problems.push(format!("{key} = {value}: {expected} (in {origin})"));
            }
        }
    }
    let settings: Settings = builder.build()?.try_deserialize()?;
    match ValidatedSettings::new(&settings, &mut problems) {
        Some(parsed) if problems.is_empty() => Ok((settings, parsed)),
        _ => Err(Problems(problems)),
    }
}

/// What somebody set, the strongest source last to speak.
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

/// Stands for the name of a node.
const NODE_PLACEHOLDER: &str = "<node>";

/// A key as the reference has it: in tables of which there is one a node, without the node's name.
fn without_node_name(key: &str) -> String {
    let segments: Vec<&str> = key.split('.').collect();
    match segments[..] {
        [table @ ("livekit" | "external"), _] => format!("{table}.{NODE_PLACEHOLDER}"),
        [table @ ("livekit" | "external"), _, name] => format!("{table}.{NODE_PLACEHOLDER}.{name}"),
        _ => key.to_owned(),
    }
}

/// The node whose setting it is, if it is one's.
fn parse_node_name(key: &str) -> Option<Result<NodeName, TokenError>> {
    (without_node_name(key) != key).then(|| key.split('.').nth(1).unwrap_or_default().parse())
}

/// The environment knows neither small letters nor `-`: if a node is meant that was named before, it
/// is called as it was.
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

fn is_secret(key: &str) -> bool {
    // The URL of an Ethereum node holds the key to it, and that of the bus may hold a password.
    const SECRETS: [&str; 5] =
        ["identity.ethereum_rpc_url", "bus.url", "bus.password", "bus.token", "stats.token"];
    key.ends_with("secret") || key.ends_with("secrets") || SECRETS.contains(&key)
}

/// Tables as dotted keys; an empty table stays.
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

/// The known key of the same name in another section, if there is one.
fn suggestion(key: &str, known: &BTreeMap<String, Value>) -> String {
    let name = key.rsplit('.').next().unwrap_or_default();
    let similar = known.keys().find(|known| known.rsplit('.').next() == Some(name));
    similar.map(|similar| format!("; did you mean {similar}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
