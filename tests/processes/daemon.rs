//! One daemon under test: started, asked, signalled, and ended by its process id.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::master::status::{self, Status};

use crate::child::FLAW;

/// Names the configuration file of the daemon that this program shall be.
pub const CONFIG: &str = "PROCESSES_CONFIG";

/// The daemon as it is shipped.
pub const STROWGER: &str = env!("CARGO_BIN_EXE_strowger");

pub struct Daemon {
    process: Child,
    directory: PathBuf,
    admin: SocketAddr,
    sip: SocketAddr,
}

/// How a daemon is started; `Start::new().flaw("dies").begin()`.
pub struct Start {
    /// The program `strowger` itself, not the children of this one.
    strowger: bool,
    lines: String,
    flaw: &'static str,
    stderr: Option<Stdio>,
    environment: Vec<(&'static str, OsString)>,
}

impl Start {
    pub fn new() -> Start {
        Start { strowger: false, lines: String::new(), flaw: "", stderr: None, environment: Vec::new() }
    }

    /// With the real worker.
    pub fn strowger() -> Start {
        Start { strowger: true, ..Start::new() }
    }

    /// Top-level keys.
    pub fn with(mut self, lines: &str) -> Start {
        self.lines.push_str(lines);
        self.lines.push('\n');
        self
    }

    pub fn flaw(mut self, flaw: &'static str) -> Start {
        self.flaw = flaw;
        self
    }

    pub fn environment(mut self, name: &'static str, value: impl Into<OsString>) -> Start {
        self.environment.push((name, value.into()));
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Start {
        self.stderr = Some(stderr.into());
        self
    }

    /// Starts it without waiting for anything.
    pub fn begin(self) -> Daemon {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("strowger-processes-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (admin, sip) = (free_tcp(), free_udp());
        let config = directory.join("strowger.toml");
        fs::write(&config, text(admin, sip, &self.lines)).unwrap();
        // Several processes write it: each line at its end.
        let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
        let mut command = if self.strowger {
            let mut command = Command::new(STROWGER);
            command.arg("serve").arg("--config").arg(&config);
            command
        } else {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(CONFIG, &config).env(FLAW, self.flaw);
            command
        };
        let process = command
            .envs(self.environment)
            .stdin(Stdio::null())
            .stderr(self.stderr.unwrap_or_else(|| log.into()))
            // A group of its own, so that a signal to the group meets the daemon only.
            .process_group(0)
            .spawn();
        Daemon { process: process.unwrap(), directory, admin, sip }
    }

    /// Starts it and waits until every process has come round its loop.
    pub fn serving(self) -> Daemon {
        let daemon = self.begin();
        daemon.until(|status| status.processes.iter().all(|process| process.ready));
        daemon
    }
}

fn text(admin: SocketAddr, sip: SocketAddr, lines: &str) -> String {
    format!(
        "workers = 2\n{lines}\n[admin]\naddress = \"{admin}\"\n\
         [[listen]]\ntransport = \"udp\"\naddress = \"{sip}\"\n\
         [memory]\ntransactions = 4096\nbindings = 1024\nflows = 256\n"
    )
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Daemon {
    pub fn master(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn sip(&self) -> SocketAddr {
        self.sip
    }

    /// Writes the configuration file anew, without telling the daemon.
    pub fn configure(&self, lines: &str) {
        fs::write(self.config(), text(self.admin, self.sip, lines)).unwrap();
    }

    pub fn spoil_the_configuration(&self) {
        fs::write(self.config(), "workers = [[[").unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("strowger.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    pub fn ask(&self) -> io::Result<Status> {
        Ok(serde_json::from_str(&status::ask(self.admin)?)?)
    }

    pub fn status(&self) -> Status {
        self.ask().expect("the daemon answers")
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.status().counters.get(name).copied().expect("there is such a counter")
    }

    pub fn pids(&self) -> Vec<i32> {
        self.status().processes.iter().map(|process| process.pid).collect()
    }

    /// Waits for what must come, at most 10 s.
    pub fn until(&self, wanted: impl Fn(&Status) -> bool) {
        wait(Duration::from_secs(10), || self.ask().is_ok_and(|status| wanted(&status)))
            .unwrap_or_else(|| panic!("it never came; log:\n{}", self.log()));
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.master()), signal).unwrap();
    }

    /// To the whole group, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        kill(Pid::from_raw(-self.master()), signal).unwrap();
    }

    /// Its exit status and how long it took; at most `limit`.
    pub fn ends_within(&mut self, limit: Duration) -> (Option<i32>, Duration) {
        let mut status = None;
        let took = wait(limit, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        let took = took.unwrap_or_else(|| panic!("still there after {limit:?}; log:\n{}", self.log()));
        (status.and_then(|status| status.code()), took)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Kills the process with SIGKILL.
pub fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Is it gone? One that only waits for its parent to reap it is.
pub fn is_gone(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// How long it took until `done`; nothing after `limit`.
pub fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    loop {
        if done() {
            return Some(began.elapsed());
        }
        if began.elapsed() > limit {
            return None;
        }
        sleep(Duration::from_millis(1));
    }
}
