//! Reads and merges the sources, and says exactly what is wrong and where.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::Config;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's text is not a configuration.
    #[error("configuration {path}, line {line}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, with the key.
        message: String,
    },
    /// A variable or a flag has a key or a value that cannot be.
    #[error("{origin}: {message}")]
    Override {
        /// The variable's name or the flag.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// Values that are possible alone but not together.
    #[error("configuration: {0}")]
    Together(String),
}

/// Where settings come from besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file; none when it was not named and the default one does not exist.
    pub file: Option<PathBuf>,
    /// The environment's variables.
    pub env: Vec<(String, String)>,
    /// `key=value` from `--set`.
    pub set: Vec<String>,
}

const ENV_PREFIX: &str = "CRN_AGENT_";
/// Variables with the prefix that are not settings.
const ENV_OTHER: [&str; 2] = ["CRN_AGENT_CONFIG", "CRN_AGENT_SOCKET"];

/// Loads the configuration.
///
/// # Errors
/// [`ConfigError`], which names the file and line, the variable or the flag.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut table = match &sources.file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            })?;
            parse_file(path, &text)?
        }
        None => toml::Table::new(),
    };
    for (name, value) in &sources.env {
        let Some(key) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if ENV_OTHER.contains(&name.as_str()) {
            continue;
        }
        let key = key.to_ascii_lowercase().replace("__", ".");
        override_key(&mut table, &key, value, name)?;
    }
    for pair in &sources.set {
        let origin = format!("--set {pair}");
        let (key, value) = pair.split_once('=').ok_or_else(|| ConfigError::Override {
            origin: origin.clone(),
            message: "it must be key=value".into(),
        })?;
        override_key(&mut table, key.trim(), value.trim(), &origin)?;
    }
    let config = Config::deserialize(table).map_err(|e| ConfigError::Together(e.to_string()))?;
    together(&config)?;
    Ok(config)
}

fn parse_file(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    let refuse = |e: &toml::de::Error| {
        let at = e.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        // Errors of values carry no key: the line has it.
        let key = text
            .lines()
            .nth(line - 1)
            .and_then(|l| l.split_once('='))
            .map(|(k, _)| k.trim());
        let message = match key {
            Some(key) if !e.message().contains(key) => format!("{key}: {}", e.message()),
            _ => e.message().to_owned(),
        };
        ConfigError::File {
            path: path.to_owned(),
            line,
            message: message.replace('\n', " "),
        }
    };
    // The text alone must already be a configuration: only then do errors have lines.
    toml::from_str::<Config>(text).map_err(|e| refuse(&e))?;
    toml::from_str(text).map_err(|e| refuse(&e))
}

/// Sets one dotted key and checks that the whole is still a configuration.
fn override_key(
    table: &mut toml::Table,
    key: &str,
    value: &str,
    origin: &str,
) -> Result<(), ConfigError> {
    let wrong = |message: String| ConfigError::Override {
        origin: origin.to_owned(),
        message,
    };
    let mut path: Vec<&str> = key.split('.').collect();
    let Some(last) = path.pop().filter(|last| !last.is_empty()) else {
        return Err(wrong("the key is empty".into()));
    };
    // As TOML where it is TOML (numbers, booleans, lists), else as a plain string.
    let parsed = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| (t.len() == 1).then(|| t.remove("v")).flatten());
    let plain = toml::Value::String(value.to_owned());
    let mut complaint = String::new();
    for candidate in parsed.into_iter().chain([plain]) {
        let mut attempt = table.clone();
        let mut at = &mut attempt;
        for part in &path {
            let entry = at.entry(*part).or_insert_with(|| toml::Table::new().into());
            let toml::Value::Table(inner) = entry else {
                return Err(wrong(format!("{part} is not a section")));
            };
            at = inner;
        }
        at.insert(last.to_owned(), candidate);
        match Config::deserialize(attempt.clone()) {
            Ok(_) => {
                *table = attempt;
                return Ok(());
            }
            Err(e) if complaint.is_empty() => complaint = e.message().replace('\n', " "),
            Err(_) => {}
        }
    }
    Err(wrong(format!("{key}: {complaint}")))
}

fn together(config: &Config) -> Result<(), ConfigError> {
    let refuse = |message: &str| Err(ConfigError::Together(message.to_owned()));
    if config.state_dir == config.run_dir {
        return refuse("state_dir and run_dir must be two directories");
    }
    let q = &config.qemu;
    if q.uid_base < 1000 {
        return refuse("qemu.uid_base must not be a system user (below 1000)");
    }
    if q.uid_count == 0 || q.uid_base.checked_add(q.uid_count).is_none() {
        return refuse("qemu.uid_base and qemu.uid_count do not make a range of users");
    }
    if u64::from(q.uid_count) < config.limits.instances {
        return refuse("qemu.uid_count is smaller than limits.instances: each needs a user");
    }
    for image in &config.images.catalogue {
        // A file of this host needs neither.
        let local = image.url.starts_with("file://") || image.url.starts_with('/');
        if !local && image.sums.is_none() == image.digest.is_none() {
            let name = &image.name;
            return refuse(&format!(
                "image {name}: exactly one of sums and digest is needed"
            ));
        }
    }
    Ok(())
}
