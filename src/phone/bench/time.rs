//! Time of a process: how long it ran, and how long it wanted to.
//!
//! Owns: what the kernel keeps for each process. Whoever ran or waited for a processor all the time could do no more.

use std::fs;
use std::time::Duration;

/// Since a process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    /// All its threads, also those that have ended (`clock_getcpuclockid(3)`).
    pub run: Duration,
    /// Its threads were ready to run, and had no processor.
    pub waited: Duration,
}

impl Time {
    /// None: there is no such process.
    pub(super) fn of(pid: u32) -> Option<Time> {
        let run = sys::process::cpu_time_of(i32::try_from(pid).ok()?).ok()?;
        Some(Time { run, waited: waited(pid) })
    }

    pub(super) fn since(self, before: Time) -> Time {
        Time { run: self.run.saturating_sub(before.run), waited: self.waited.saturating_sub(before.waited) }
    }

    /// The share of `wall_s` seconds in which it ran or waited for a processor, at most 1.
    pub(super) fn busy(self, wall_s: f64) -> f64 {
        ((self.run + self.waited).as_secs_f64() / wall_s.max(1e-9)).min(1.0)
    }
}

/// The second number of schedstat (proc(5)), of all threads. 0 where the kernel does not keep it.
fn waited(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |text: String| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    let waited = threads.filter_map(|thread| of(fs::read_to_string(thread.path().join("schedstat")).ok()?));
    Duration::from_nanos(waited.sum())
}
