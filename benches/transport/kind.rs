//! What is measured, and the processes that are measured.
//!
//! Owns: the two forwarders as children: ours (this program in another role) and the floor program, compiled with `cc`.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use strowger::transport::Transport;

/// A message from port P goes to port P ^ this.
pub const APART: u16 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
    KernelSctp,
    UserSctp,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Udp, Kind::Tcp, Kind::KernelSctp, Kind::UserSctp];

    pub fn transport(self) -> Transport {
        match self {
            Kind::Udp => Transport::Udp,
            Kind::Tcp => Transport::Tcp,
            Kind::KernelSctp | Kind::UserSctp => Transport::Sctp,
        }
    }

    /// Of the forwarder's role and the floor program.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Udp => "udp",
            Kind::Tcp => "tcp",
            Kind::KernelSctp => "sctp",
            Kind::UserSctp => "user",
        }
    }
}

/// A process that forwards; dropping it ends it.
pub struct Forwarding {
    child: Child,
    says: BufReader<ChildStdout>,
}

/// Messages sent on, receiving calls that brought some, wake-ups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub messages: u64,
    pub batches: u64,
    pub waits: u64,
}

impl Forwarding {
    pub fn ours(kind: Kind, port: u16, encapsulation: u16, peer_encapsulation: u16) -> io::Result<Forwarding> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["forward", kind.word()]);
        command.args([port, encapsulation, peer_encapsulation].map(|port| port.to_string()));
        Forwarding::start(command)
    }

    /// The plain loop, with socket buffers (receive, send) as large as ours.
    pub fn plain(floor: &Path, kind: Kind, port: u16, buffers: (usize, usize)) -> io::Result<Forwarding> {
        let mut command = Command::new(floor);
        command.args([kind.word(), &port.to_string(), &buffers.0.to_string(), &buffers.1.to_string()]);
        Forwarding::start(command)
    }

    fn start(mut command: Command) -> io::Result<Forwarding> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let says = child.stdout.take().map(BufReader::new).ok_or(io::ErrorKind::BrokenPipe)?;
        let mut forwarding = Forwarding { child, says };
        match forwarding.line()?.trim() {
            "ready" => Ok(forwarding),
            other => Err(io::Error::other(format!("{command:?} said {other:?}"))),
        }
    }

    pub fn counts(&mut self) -> io::Result<Counts> {
        self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"?")?;
        let line = self.line()?;
        let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Counts { messages: next(), batches: next(), waits: next() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far, user and system.
    pub fn cpu(&self) -> io::Result<Duration> {
        sys::process::cpu_time_of(self.child.id() as i32)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The floor program; compiled once, and again when its source is newer.
pub fn floor() -> io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor/floor.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("floor");
    let age = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    if age(&program).is_none_or(|made| age(&source).is_some_and(|written| written > made)) {
        let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let status = Command::new(&cc).args(["-O2", "-o"]).arg(&program).arg(&source).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{cc:?} cannot compile {}", source.display())));
        }
    }
    Ok(program)
}
