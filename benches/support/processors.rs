//! Which processors a measurement's two sides run on.
//!
//! Owns: keeping what is measured and its load apart. Left alone, the scheduler puts a sender beside its reader or not as it likes, and a
//! reader that is woken on another processor costs its sender an interrupt, in a virtual machine more than all else that a message needs:
//! seen here, the same loop at 3 and at 15 µs per message. Apart, both sides that are compared pay it.

use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Puts these processes on the first half of the processors, and this one, with what it starts from now on, on the others. Where there is
/// one processor it does nothing.
pub fn apart(measured: &[u32]) {
    let [first, others] = halves();
    place(measured, first);
    place(&[std::process::id()], others);
}

/// All on all of them again.
pub fn together(measured: &[u32]) {
    place(measured, all());
    place(&[std::process::id()], all());
}

/// What a table says of it.
#[must_use]
pub fn said() -> &'static str {
    if all().len() < 2 { "one processor" } else { "proxy and load on processors of their own" }
}

/// Those that we were given.
fn all() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| {
        let ours = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        (0..CpuSet::count()).filter(|processor| ours.is_set(*processor).unwrap_or(false)).collect()
    })
}

fn halves() -> [&'static [usize]; 2] {
    let all = all();
    match all.len() {
        0 | 1 => [all, all],
        many => <[_; 2]>::from(all.split_at(many / 2)),
    }
}

fn place(processes: &[u32], on: &[usize]) {
    let mut set = CpuSet::new();
    for processor in on {
        let _ = set.set(*processor);
    }
    for process in processes {
        // One that has just ended is nobody's.
        let _ = sched_setaffinity(Pid::from_raw(process.cast_signed()), &set);
    }
}
