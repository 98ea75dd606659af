//! The machine that a figure comes from.

use std::fs;
use std::time::{Duration, SystemTime};

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

/// Processor time that all processes of this machine have used, and that its host took away: `cpu` of /proc/stat but for idle and
/// iowait, in hundredths of a second.
#[must_use]
pub(super) fn used() -> Option<Duration> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let numbers: Vec<u64> = text.lines().next()?.split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
    let [user, nice, system, _, _, irq, softirq, steal, ..] = *numbers else { return None };
    Some(Duration::from_millis((user + nice + system + irq + softirq + steal) * 10))
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
