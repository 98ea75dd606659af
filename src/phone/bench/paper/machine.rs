//! What this machine is, and what it lets us do.
//!
//! Owns: reading it. Never changes anything.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::phone::bench::machine::machine;
use crate::phone::bench::results::Machine;

/// With the command that makes the run again from its beginning.
#[must_use]
pub fn this() -> Machine {
    let machine = machine();
    Machine { command: machine.command.replace(" --resume", ""), ..machine }
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
