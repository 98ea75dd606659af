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

/// What became of the processors that this process may run on, since the machine began; in hundredths of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// How many they are.
    pub processors: u32,
    /// What all processes used, and what the machine's host took away: everything but idle and iowait.
    pub all: Duration,
    /// Of it the kernel's interrupts, soft ones too. A kernel with CONFIG_IRQ_TIME_ACCOUNTING counts them to no process.
    pub interrupts: Duration,
}

impl Used {
    /// None: the kernel does not tell.
    #[must_use]
    pub(super) fn now() -> Option<Used> {
        let ours = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok()?;
        Used::of(&fs::read_to_string("/proc/stat").ok()?, |n| ours.is_set(n).unwrap_or(false))
    }

    /// The lines `cpu0` and so on of /proc/stat (proc(5)) whose number is `ours`.
    fn of(stat: &str, ours: impl Fn(usize) -> bool) -> Option<Used> {
        let mut used = Used::default();
        for line in stat.lines() {
            let Some((number, rest)) = line.strip_prefix("cpu").and_then(|line| line.split_once(' ')) else { continue };
            if !number.parse().is_ok_and(&ours) {
                continue;
            }
            let numbers: Vec<u64> = rest.split_ascii_whitespace().flat_map(str::parse).collect();
            // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
            let [user, nice, system, _, _, irq, softirq, steal, ..] = *numbers else { return None };
            used.processors += 1;
            used.all += Duration::from_millis((user + nice + system + irq + softirq + steal) * 10);
            used.interrupts += Duration::from_millis((irq + softirq) * 10);
        }
        (used.processors > 0).then_some(used)
    }

    pub(super) fn since(self, before: Used) -> Used {
        Used {
            processors: self.processors,
            all: self.all.saturating_sub(before.all),
            interrupts: self.interrupts.saturating_sub(before.interrupts),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_processors_that_we_may_run_on_count() {
        let stat = "cpu  99 99 99 99 99 99 99 99 0 0\ncpu0 1 2 3 1000 5 6 7 8 1 0\ncpu1 10 0 0 1000 0 0 0 0 0 0\n\
                    cpu12 100 0 0 0 0 0 0 0 0 0\nintr 5\n";
        let of = |ours: &[usize]| Used::of(stat, |n| ours.contains(&n));
        let ms = Duration::from_millis;
        assert_eq!(of(&[0]), Some(Used { processors: 1, all: ms(270), interrupts: ms(130) }));
        assert_eq!(of(&[0, 12]), Some(Used { processors: 2, all: ms(1_270), interrupts: ms(130) }));
        assert_eq!((of(&[7]), Used::of("cpu0 1 2 3", |_| true)), (None, None));
        assert!(Used::now().is_some());
    }
}
