//! The machine that a figure comes from.

use std::fs;
use std::time::SystemTime;

use super::results::Machine;

/// This one, now.
#[must_use]
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let models = read("/proc/cpuinfo");
    let model = models.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Machine {
        processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        kernel_sctp: sys::sctp::supported(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: humantime::format_rfc3339_seconds(today()).to_string(),
        command: std::env::args().map(quoted).collect::<Vec<_>>().join(" "),
    }
}

/// As a shell reads it.
fn quoted(argument: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=@%+".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument,
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement has a date")]
fn today() -> SystemTime {
    SystemTime::now()
}
