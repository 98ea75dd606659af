//! The two tools that look into the daemon from outside: perf(1) for samples, strace(1) for counts.
//!
//! Owns: starting them on running processes, knowing when they look, ending them, and what they printed. `perf` samples the
//! processors' time (`cpu-clock`: hardware counters are not there on every machine, and seldom in virtual ones), the whole
//! machine's, so the daemon hardly notices: following processes, perf would set its timer anew at each switch between them, which in a
//! virtual machine is dear (UDP, 100 clients: 40 µs per operation for 21). `strace` stops the daemon at each call, so its times mean
//! nothing and only its counts are used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::samples::{FIELDS, Sample, read_all};

/// Samples a second and processor. No divisor of a timer's rate, so that the samples do not march in step with one.
const RATE: &str = "1997";
/// Until a tool looks, and until it has written what it saw. Generous: a machine may be emulated.
const START: Duration = Duration::from_secs(120);
const END: Duration = Duration::from_secs(120);
/// Until it is looked again.
const PAUSE: Duration = Duration::from_millis(5);

#[allow(clippy::disallowed_methods, reason = "a benchmark is outside the message path")]
fn now() -> Instant {
    Instant::now()
}

/// Are both tools here? What to install, else.
///
/// # Errors
/// Which are missing, for people.
pub fn are_here() -> Result<(), String> {
    let here = |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    let tools = [("perf", "linux-perf"), ("strace", "strace")];
    let missing: Vec<_> = tools.into_iter().filter(|(tool, _)| !here(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |pick: fn((&'static str, &'static str)) -> &'static str, with: &str| {
        missing.iter().map(|tool| pick(*tool)).collect::<Vec<_>>().join(with)
    };
    let (names, packages) = (list(|(name, _)| name, " and "), list(|(_, package)| package, " "));
    Err(format!("no {names} here. On Debian: apt-get install {packages}"))
}

/// A tool at work.
struct Tool {
    child: Child,
    /// What it says to people.
    said: PathBuf,
}

impl Tool {
    fn start(command: &mut Command, said: PathBuf) -> Result<Tool, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut begin = || -> io::Result<Child> {
            let file = File::create(&said)?;
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()
        };
        let child = begin().map_err(|e| format!("{name} does not start: {e}"))?;
        Ok(Tool { child, said })
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).trim().to_owned()
    }

    /// Asks until it looks.
    fn ready(&mut self, mut is_ready: impl FnMut(&str) -> bool) -> Result<(), String> {
        let began = now();
        loop {
            let said = self.said();
            if is_ready(&said) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended ({status}) and said: {said}"));
            }
            if now() - began > START {
                return Err(format!("it did not begin within {} s and said: {said}", START.as_secs()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// It has been told to end: lets it write what it saw.
    fn end(&mut self) -> Result<(), String> {
        let began = now();
        while self.child.try_wait().map_err(|e| e.to_string())?.is_none() {
            if now() - began > END {
                return Err(format!("it did not end and said: {}", self.said()));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn listed(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// `perf record` of all processors.
pub struct Perf {
    tool: Tool,
    folder: PathBuf,
    control: File,
}

impl Perf {
    /// Returns when it samples.
    ///
    /// # Errors
    /// It is not permitted (perf_event_paranoid), or did not begin.
    pub fn start(folder: &Path) -> Result<Perf, String> {
        let [control, ack] = ["control", "ack"].map(|name| folder.join(name));
        for fifo in [&control, &ack] {
            let _ = fs::remove_file(fifo);
            mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| format!("mkfifo {}: {e}", fifo.display()))?;
        }
        // Open for both, so that neither open nor write waits for a perf that may never come.
        let open =
            |fifo: &Path| OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(fifo);
        let mut ways = open(&control).and_then(|control| Ok((control, open(&ack)?))).map_err(|e| e.to_string())?;
        let mut command = Command::new("perf");
        command.args(["record", "-e", "cpu-clock", "-F", RATE, "-D", "-1", "-a", "-g", "-o"]).arg(data(folder));
        command.arg("--control").arg(format!("fifo:{},{}", control.display(), ack.display()));
        let mut tool = Tool::start(&mut command, folder.join("perf.said"))?;
        ways.0.write_all(b"enable\n").map_err(|e| e.to_string())?;
        let begun = tool.ready(|_| match ways.1.read(&mut [0; 16]) {
            Ok(read) => read > 0,
            Err(e) => e.kind() != ErrorKind::WouldBlock,
        });
        begun.map_err(|why| format!("perf cannot sample the processors: {why}"))?;
        Ok(Perf { tool, folder: folder.to_owned(), control: ways.0 })
    }

    /// Samples no more.
    ///
    /// # Errors
    /// Perf's own words.
    pub fn end(&mut self) -> Result<(), String> {
        // Not by a signal: SIGINT and SIGTERM are blocked here, and so in our children.
        self.control.write_all(b"stop\n").map_err(|e| e.to_string())?;
        self.tool.end().map_err(|why| format!("perf: {why}"))
    }

    /// Shows `see` the samples of these processes.
    ///
    /// # Errors
    /// Perf's own words.
    pub fn samples(&self, pids: &[u32], mut see: impl FnMut(&Sample<'_>)) -> Result<(), String> {
        let said = self.folder.join("script.said");
        let mut command = Command::new("perf");
        // Inlined functions are `rooms`'s; perf would ask another program for each.
        command.args(["script", "--no-inline", "-F", FIELDS, "--pid", &listed(pids), "-i"]).arg(data(&self.folder));
        let failed = |e: io::Error| format!("perf script: {e}");
        let errors = File::create(&said).map_err(failed)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn().map_err(failed)?;
        let mut seen = 0_u64;
        let read = child.stdout.take().map_or(Ok(()), |output| {
            read_all(BufReader::new(output), |sample| {
                seen += 1;
                see(sample);
            })
        });
        child.wait().and(read).map_err(failed)?;
        match seen {
            0 => Err(format!("perf has no samples: {}", fs::read_to_string(said).unwrap_or_default().trim())),
            _ => Ok(()),
        }
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("perf.data")
}

/// `strace -c` on these processes.
pub struct Strace {
    tool: Tool,
    summary: PathBuf,
    began: Instant,
    took: Duration,
}

impl Strace {
    /// Returns when it has all of them.
    ///
    /// # Errors
    /// It is not permitted (ptrace_scope, a container without ptrace), or did not begin.
    pub fn start(folder: &Path, pids: &[u32]) -> Result<Strace, String> {
        let summary = folder.join("strace.summary");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&summary);
        for pid in pids {
            command.arg("-p").arg(pid.to_string());
        }
        let mut tool = Tool::start(&mut command, folder.join("strace.said"))?;
        // One line for each process; further ones for its threads.
        let attached = |said: &str| pids.iter().all(|pid| said.contains(&format!("Process {pid} attached")));
        tool.ready(attached).map_err(|why| format!("strace cannot follow the daemon: {why}"))?;
        Ok(Strace { tool, summary, began: now(), took: Duration::ZERO })
    }

    /// Counts no more.
    ///
    /// # Errors
    /// Strace's own words.
    pub fn end(&mut self) -> Result<(), String> {
        self.took = now() - self.began;
        // Not waited for yet, so the id is still its own. SIGINT and SIGTERM are blocked here, and so in our children.
        if let Ok(pid) = i32::try_from(self.tool.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
        self.tool.end().map_err(|why| format!("strace: {why}"))
    }

    /// How long it counted.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// What it counted (`calls::read`).
    ///
    /// # Errors
    /// Strace's own words.
    pub fn summary(&self) -> Result<String, String> {
        fs::read_to_string(&self.summary).map_err(|e| format!("strace has no summary ({e}): {}", self.tool.said()))
    }
}
