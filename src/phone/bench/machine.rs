//! The machine that a figure comes from.

use std::fs;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::results::Machine;

/// This one, now, with the command that makes the run again from its beginning. `nice`: what phones ask for.
#[must_use]
pub fn machine(nice: i32) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let models = read("/proc/cpuinfo");
    let model = models.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Machine {
        processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        kernel_sctp: sys::sctp::supported(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        program: program(),
        phones_nice: granted(nice),
        date: humantime::format_rfc3339_seconds(today()).to_string(),
        command: std::env::args().filter(|word| word != "--resume").map(quoted).collect::<Vec<_>>().join(" "),
    }
}

/// SHA-256 of the running program, in hexadecimal; empty if it cannot be read.
fn program() -> String {
    // Also when a newer build lies at its path.
    let bytes = fs::read("/proc/self/exe").unwrap_or_default();
    if bytes.is_empty() {
        String::new()
    } else {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The nice value that a process of ours has when it has asked for this one. Seen, not concluded from rights, which mean less in a
/// container: Linux gives each thread a nice value of its own, so a thread asks.
fn granted(nice: i32) -> Option<i32> {
    let ask = move || {
        let _ = sys::process::set_nice(nice);
        let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
        // The program's name, in brackets, may have spaces; the 19th field is the 17th after it (proc_pid_stat(5)).
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(16)?.parse().ok()
    };
    std::thread::spawn(ask).join().ok()?
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
