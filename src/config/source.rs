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
use super::mistake::shorten;

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

/// A file that was read.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Given<'_> {
    /// Text that no file holds.
    pub(super) fn nameless(text: &str) -> Given<'_> {
        Given { name: "configuration file", text }
    }
}

/// The tree of both. The environment wins.
pub(super) fn tree(file: Option<Given<'_>>, environment: Vec<(String, String)>) -> Result<Map<String, Value>, Mistake> {
    let ours = environment.into_iter().filter(|(name, _)| !of_kubernetes(name)).collect();
    let mut builder = ::config::Config::builder();
    if let Some(file) = file {
        builder = builder.add_source(File::from_str(file.text, FileFormat::Toml));
    }
    let environment = Environment::with_prefix("STROWGER").prefix_separator("_").separator("__").ignore_empty(true);
    let built = builder.add_source(environment.source(Some(ours))).build();
    let kind = built.map_err(|error| not_toml(&error.to_string(), file))?.cache.kind;
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

/// The crate's error is a drawing of several lines; its first line says where, its last one what. The line itself is shown from
/// the file.
fn not_toml(drawing: &str, file: Option<Given<'_>>) -> Mistake {
    let mut lines = drawing.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("not TOML");
    let place = first.strip_prefix("TOML parse error at ").unwrap_or(first);
    let mut line = place.to_string();
    if let Some(last) = lines.next_back() {
        let _ = write!(line, ": {last}");
    }
    let number = place.strip_prefix("line ").and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
    let shown = number.zip(file).and_then(|(number, file)| file.text.lines().nth(number.checked_sub(1)?));
    if let Some(shown) = shown {
        let _ = write!(line, ", in `{}`", shorten(shown.trim()));
    }
    Mistake::new(file.map_or("configuration", |file| file.name), "", line)
}

/// Did this value come from a variable?
pub(super) fn from_environment(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT)
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("STROWGER_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The variable that brought the value of `key`, or a part of it, and what it brought: one with a further `__` in its name makes a
/// table.
pub(super) fn variable_of<'v>(key: &str, value: &'v Value) -> Option<(String, &'v Value)> {
    match &value.kind {
        ValueKind::Table(table) => {
            let parts = table.iter().filter_map(|(name, value)| variable_of(&format!("{key}.{name}"), value));
            parts.min_by(|one, other| one.0.cmp(&other.0))
        }
        _ => from_environment(value).then(|| (variable(key), value)),
    }
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
