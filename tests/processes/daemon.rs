//! One daemon under test: started, asked, signalled, and ended by its process id.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::master::status::{self, Status};

/// Names the configuration file of the daemon that this program shall be.
pub const CONFIG: &str = "PROCESSES_CONFIG";

pub struct Daemon {
    process: Child,
    directory: PathBuf,
    admin: SocketAddr,
    sip: SocketAddr,
    ended: Option<ExitStatus>,
}

/// How a daemon is started; `Start::new().flaw("dies").begin()`.
pub struct Start {
    lines: String,
    flaw: &'static str,
    stderr: Option<Stdio>,
}

impl Start {
    pub fn new() -> Start {
        Start { lines: String::new(), flaw: "", stderr: None }
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
        let (admin, sip) = (free_port(), free_port());
        let mut daemon = Daemon { process: self.spawn(&directory), directory, admin, sip, ended: None };
        daemon.write_config(&self.lines);
        daemon.process = self.spawn_daemon(&daemon.directory);
        daemon
    }

    /// Starts it and waits until it answers and every process has come round its loop.
    pub fn serving(self) -> Daemon {
        let daemon = self.begin();
        daemon.until(Duration::from_secs(10), |s| s.processes.iter().all(|p| p.pid != 0));
        daemon
    }
}
