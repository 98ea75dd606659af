//! A child process with its output in a file; ended with the value, by its own pid.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Process {
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` in `folder`, standard output and error going to `folder/name.out`.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Process {
        let output = folder.join(format!("{name}.out"));
        let file = File::create(&output).expect("an output file");
        let error = file.try_clone().expect("the same file twice");
        command.current_dir(folder).stdin(Stdio::null()).stdout(file).stderr(error);
        let child = command.spawn().unwrap_or_else(|e| panic!("{:?} does not start: {e}", command.get_program()));
        Process { child, output }
    }

    /// Takes a child over whose output goes somewhere else.
    pub fn adopt(child: Child, output: PathBuf) -> Process {
        Process { child, output }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// `None`: it still runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Waits for the end; at `limit` the process is killed and the answer is `None`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }

    /// All that it wrote.
    pub fn words(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The end of it, for a message about a failure.
    pub fn last_words(&self) -> String {
        let all = std::fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&all[all.len().saturating_sub(3000)..]).into_owned()
    }

    /// CPU time used so far by this process and all below it, now running.
    pub fn cpu_time(&self) -> Duration {
        let mut pids = vec![self.pid()];
        pids.extend(children(self.pid()));
        pids.iter().map(|pid| cpu_time(*pid)).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
            self.wait(Duration::from_secs(5));
        }
    }
}

/// The children of a process at this moment, in the order of their start.
pub fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|s| s.parse().ok()).collect()
}

/// The state letter of a process (proc(5), stat): R, S, T, Z...
pub fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Inodes of the sockets that this process has open.
pub fn owned_sockets(pid: i32) -> HashSet<u64> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    descriptors
        .flatten()
        .filter_map(|d| std::fs::read_link(d.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// How often a process has waited for something (proc(5), status): each time it then woke.
pub fn voluntary_switches(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no count of switches of {pid}"))
}

/// Nanoseconds on a processor, of all threads (proc(5), schedstat).
fn cpu_time(pid: i32) -> Duration {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanoseconds = threads
        .flatten()
        .filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok())
        .filter_map(|s| s.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()))
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// Memory of this process that lies in RAM and is its own: VmRSS less what it shares, bytes.
pub fn resident_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kb.unwrap_or_else(|| panic!("no RssAnon of {pid}")) * 1024
}
