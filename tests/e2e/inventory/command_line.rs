//! The command line: commands, flags, defaults, help texts, settings.

use test_support::golden;

use super::printed;

/// The help of a command and of all its subcommands, in the order of the help.
fn help(command: &[&str], found: &mut Vec<(String, String)>) {
    let text = printed(&[command, &["--help"]].concat());
    // A list of subcommands begins with `Commands:` and ends with an empty line.
    let listed =
        text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<String> =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned)).collect();
    found.push(([&["atoll"], command].concat().join(" "), text.clone()));
    for name in names.iter().filter(|name| !name.is_empty() && *name != "help") {
        help(&[command, &[&**name]].concat(), found);
    }
}

fn all_help() -> Vec<(String, String)> {
    let mut found = Vec::new();
    help(&[], &mut found);
    found
}

/// The parts `[default: …]` and `[possible values: …]` of a help text.
fn bracketed(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let stated = text.split('[').skip(1).filter_map(|part| part.split_once(']'));
    stated.filter(|(inside, _)| inside.contains(": ")).map(|(inside, _)| format!("[{inside}]")).collect()
}

/// A help text without its prose: the usage, flags, arguments, values and defaults.
fn structure(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut section = "";
    // The name of an entry, and all text that belongs to it.
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if line.starts_with("Usage: ") {
            lines.push(line.to_owned());
        } else if !line.starts_with(' ') && line.ends_with(':') {
            section = line;
            entries.push((line.to_owned(), String::new()));
        } else if !section.is_empty() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            let is_value = trimmed.starts_with("- ") && trimmed.contains(':');
            let is_entry = match section {
                "Options:" => trimmed.starts_with('-') && indent <= 6,
                _ => indent == 2,
            };
            if is_value {
                let value = trimmed.split(':').next().unwrap_or_default();
                entries.push((format!("    {value}"), String::new()));
            } else if is_entry && !trimmed.is_empty() {
                // Two spaces separate the name from its text.
                let (name, prose) = trimmed.split_once("  ").unwrap_or((trimmed, ""));
                entries.push((format!("  {name}"), prose.to_owned()));
            } else if let Some((_, prose)) = entries.last_mut() {
                prose.push(' ');
                prose.push_str(trimmed);
            }
        }
    }
    for (name, prose) in entries {
        lines.push([&[name][..], &bracketed(&prose)].concat().join(" "));
    }
    lines.join("\n") + "\n"
}

#[test]
fn help_has_these_commands_and_flags() {
    let sections = all_help().into_iter().map(|(name, text)| format!("# {name}\n{}\n", structure(&text)));
    golden::check("help-flags.txt", &sections.collect::<String>());
}

#[test]
fn help_has_this_text() {
    let sections = all_help().into_iter().map(|(name, text)| format!("# {name} --help\n{text}\n"));
    golden::check("help-text.txt", &sections.collect::<String>());
}

#[test]
fn config_has_these_keys_and_defaults() {
    golden::check("config.toml", &printed(&["config"]));
}

#[test]
fn config_has_these_keys_for_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("atoll.toml");
    // The tables of which there is one for each node, with no more than the settings that have no default.
    let nodes = "[livekit.one]\nurl = \"wss://livekit.example\"\napi_key = \"key\"\napi_secret = \"secret\"\n\
                 [external.other]\ntemplate = \"other:wss://other.example/{island}?as={address}\"\n";
    std::fs::write(&file, nodes).unwrap();
    let text = printed(&["config", "--config", file.to_str().unwrap()]);
    let begins = |line: &&str| line.starts_with("[livekit.") || line.starts_with("[external.");
    // Each table ends with an empty line.
    let mut tables = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside = begins(&line) || inside && !line.is_empty();
        if inside {
            tables += &format!("{line}\n");
        }
    }
    golden::check("config-nodes.toml", &tables);
}
