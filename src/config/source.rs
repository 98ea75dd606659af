//! Where settings come from: a TOML file and the environment, laid over each other by the `config` crate.
//!
//! Owns: the names of environment variables. `STROWGER_` and the key in capitals, `__` for the dot: `STROWGER_WORKERS`,
//! `STROWGER_SCTP__AUTOCLOSE_S`. A value is written as in TOML, text without quotes; a list of texts may be written with
//! commas; a list of tables is one variable: `STROWGER_LISTEN='[{transport="udp", address="127.0.0.1:5060"}]'`.
//! Never judges a value.

use std::fmt::Write as _;
use std::path::Path;

use ::config::{Environment, File, FileFormat, Map, Value, ValueKind};

use super::Mistake;

/// What a value's origin says when it came from the environment (`config::Environment`).
const ENVIRONMENT: &str = "the environment";

/// Reads the file.
pub(super) fn text(path: &Path) -> Result<String, Mistake> {
    std::fs::read_to_string(path)
        .map_err(|error| Mistake::new(path.display().to_string(), "", format!("cannot be read: {error}")))
}

/// Our variables of this process. What is not Unicode comes along with replacement characters, and fails as a value.
pub(super) fn environment() -> Vec<(String, String)> {
    let lossy = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

/// The tree of both. The environment wins.
pub(super) fn tree(text: Option<&str>, environment: Vec<(String, String)>) -> Result<Map<String, Value>, Mistake> {
    let ours = environment.into_iter().filter(|(name, _)| !of_kubernetes(name)).collect();
    let mut builder = ::config::Config::builder();
    if let Some(text) = text {
        builder = builder.add_source(File::from_str(text, FileFormat::Toml));
    }
    let environment = Environment::with_prefix("STROWGER").prefix_separator("_").separator("__").ignore_empty(true);
    let built = builder.add_source(environment.source(Some(ours))).build();
    let kind = built.map_err(|error| not_toml(&error))?.cache.kind;
    match kind {
        ValueKind::Table(table) => Ok(table),
        _ => Ok(Map::new()),
    }
}

/// A service called `strowger` puts STROWGER_SERVICE_HOST, STROWGER_PORT_5060_TCP and their like into every container of its
/// Kubernetes name space. None of our keys looks like them.
fn of_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// The crate's error is a drawing of several lines; its first line says where, its last one what.
fn not_toml(error: &::config::ConfigError) -> Mistake {
    let drawing = error.to_string();
    let mut lines = drawing.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = lines.next().unwrap_or("not TOML").to_string();
    if let Some(last) = lines.next_back() {
        let _ = write!(line, ": {last}");
    }
    Mistake::new("configuration file", "", line)
}

/// Did this value come from a variable?
pub(super) fn from_environment(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT)
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("STROWGER_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Gives a variable's text the type it has as TOML; texts stay as they are.
pub(super) fn typed(value: Value) -> Value {
    let ValueKind::String(text) = &value.kind else { return value };
    if !from_environment(&value) {
        return value;
    }
    let toml = File::from_str(&format!("value = {text}"), FileFormat::Toml);
    let parsed = ::config::Config::builder().add_source(toml).build();
    match parsed.map(|parsed| parsed.cache.kind) {
        Ok(ValueKind::Table(mut table)) => table.remove("value").unwrap_or(value),
        _ => value,
    }
}
