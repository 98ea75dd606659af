//! What this machine is, and what it lets us do.
//!
//! Owns: reading it from /proc. Never changes anything.

use std::fs;
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};

use crate::phone::bench::results::Machine;

#[must_use]
#[allow(clippy::disallowed_methods, reason = "a measurement is outside the message path")]
pub fn this() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
    let mut arguments = std::env::args();
    arguments.next();
    let arguments: Vec<String> = arguments.filter(|argument| argument != "--resume").collect();
    Machine {
        processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        kernel_sctp: sys::sctp::supported(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command: format!("strowger {}", arguments.join(" ")),
    }
}

/// Whether a process that we start may have nice -20: CAP_SYS_NICE, or RLIMIT_NICE of 40 (20 less the nice value).
#[must_use]
pub fn may_prefer() -> bool {
    const CAP_SYS_NICE: u64 = 1 << 23;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let limit = getrlimit(Resource::RLIMIT_NICE).map_or(0, |(soft, _)| soft);
    effective.is_some_and(|set| set & CAP_SYS_NICE != 0) || limit >= 40
}
