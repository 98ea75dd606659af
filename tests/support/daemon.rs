//! The daemon: its configuration, its start and end, its processes, and what it says of itself.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use strowger::transport::Transport;

use super::process::{Process, children};
use super::proxy::Setup;
use super::{DOMAIN, Room, free_port, patience, wait_for};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_strowger");

pub struct Daemon {
    process: Process,
    file: PathBuf,
    admin: SocketAddr,
    workers: usize,
}

impl Daemon {
    /// Starts it and waits until `status` answers and every process is there.
    pub fn start(room: &Room, setup: &Setup) -> Daemon {
        let written = configure(room, setup);
        let process = Process::start(serve(&written.file), room.path(), "strowger");
        Daemon::adopt(process, written)
    }

    /// For a caller that started `serve` itself, with a standard error of its own.
    pub fn adopt(process: Process, written: Written) -> Daemon {
        Daemon { process, file: written.file, admin: written.admin, workers: written.workers }.ready()
    }

    fn ready(mut self) -> Daemon {
        let up = wait_for(patience(10), || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            let status = self.ask("status")?;
            (processes(&status, "worker").len() == self.workers).then_some(true)
        });
        assert_eq!(up, Some(true), "the daemon does not come up: {}", self.process.last_words());
        self
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The lines of its log.
    pub fn log(&self) -> Vec<String> {
        self.process.words().lines().map(str::to_owned).collect()
    }

    /// Has one line of its log all of `words`?
    pub fn has_logged(&self, words: &[&str]) -> bool {
        self.log().iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    pub fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    /// The status document, asked as `strowger status` asks it, but without the start of a process.
    pub fn status(&self) -> Value {
        wait_for(patience(3), || self.ask("status")).unwrap_or_else(|| panic!("no status: {}", self.last_words()))
    }

    /// The status document with every slot of shared memory counted.
    pub fn audit(&self) -> Value {
        wait_for(patience(3), || self.ask("audit")).unwrap_or_else(|| panic!("no audit: {}", self.last_words()))
    }

    fn ask(&self, question: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(patience(3))).ok()?;
        stream.write_all(format!("{question}\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// What the command `strowger status --json` prints.
    pub fn status_by_command(&self) -> Option<Value> {
        let mut command = Command::new(PROGRAM);
        plain_environment(&mut command);
        let output = command.args(["status", "--json", "--config"]).arg(&self.file).output().ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// A counter by its name, over all processes.
    pub fn counter(&self, name: &str) -> u64 {
        counter(&self.status(), name)
    }

    /// Pids of the workers, by seat.
    pub fn workers(&self) -> Vec<i32> {
        processes(&self.status(), "worker")
    }

    /// Every process below the master at this moment, without asking it.
    pub fn children(&self) -> Vec<i32> {
        children(self.pid())
    }

    /// Kills one process and says how long it took until another one had been forked in its place: on the clock, less the
    /// moments in which this machine ran not even us, who ask every half millisecond.
    pub fn kill_and_time_replacement(&self, pid: i32) -> Duration {
        /// A look at /proc takes 2 ms in an emulated machine.
        const STARVED: Duration = Duration::from_millis(5);
        let before = self.children();
        assert!(before.contains(&pid), "{pid} is no child of the daemon");
        let limit = patience(3);
        let start = std::time::Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("SIGKILL");
        let (mut looked, mut starved) = (start, Duration::ZERO);
        loop {
            let replaced = self.children().iter().any(|now| !before.contains(now));
            let gap = looked.elapsed();
            looked += gap;
            starved += gap.saturating_sub(STARVED);
            if replaced {
                return (looked - start).saturating_sub(starved);
            }
            assert!(looked - start < limit, "{pid} was not replaced within {limit:?}: {}", self.last_words());
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGTERM; it must drain and end with status 0, leaving no process behind.
    pub fn stop(mut self) {
        let left = self.children();
        self.signal(Signal::SIGTERM);
        let status = self.process.wait(patience(15));
        assert!(status.is_some_and(|s| s.success()), "end of the daemon: {status:?}\n{}", self.last_words());
        let gone = wait_for(patience(2), || left.iter().all(|pid| !is_alive(*pid)).then_some(()));
        assert!(gone.is_some(), "some of {left:?} outlived the master");
    }
}

/// `strowger serve` on this file, without any setting from the environment.
pub fn serve(file: &std::path::Path) -> Command {
    let mut command = Command::new(PROGRAM);
    plain_environment(&mut command);
    command.args(["serve", "--config"]).arg(file);
    command
}

pub fn plain_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STROWGER") {
            command.env_remove(name);
        }
    }
}

/// A configuration file, and what of it the test must know.
pub struct Written {
    pub file: PathBuf,
    pub admin: SocketAddr,
    pub workers: usize,
}

/// Writes the configuration.
pub fn configure(room: &Room, setup: &Setup) -> Written {
    let workers = if setup.workers == 0 { 2 } else { setup.workers };
    let admin = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let domain = if setup.domain.is_empty() { DOMAIN } else { &setup.domain };
    let mut text = format!("workers = {workers}\ndomains = [\"{domain}\"]\n{}\n", setup.top);
    for (transport, addresses) in &setup.listen {
        let list: Vec<_> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let address = if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) };
        let _ = write!(text, "[[listen]]\ntransport = \"{}\"\naddress = {address}\n", transport.uri_token());
        if *transport == Transport::Sctp {
            match setup.tunnel {
                Some(port) => drop(write!(text, "stack = \"user\"\nencapsulation_port = {port}\n")),
                None => text.push_str("stack = \"kernel\"\n"),
            }
            if let Some(port) = setup.kernel_tunnel {
                let _ = writeln!(text, "encapsulation_port = {port}");
            }
        }
    }
    for (domain, transport, address) in &setup.next_hop {
        let target = format!("{}:{address}", transport.uri_token());
        let _ = write!(text, "[[next_hop]]\ndomain = \"{domain}\"\ntargets = [\"{target}\"]\n");
        if let Some(port) = setup.next_hop_tunnel {
            let _ = writeln!(text, "encapsulation_port = {port}");
        }
    }
    let _ = write!(text, "[admin]\naddress = \"{admin}\"\n{}\n", setup.tables);
    Written { file: room.write(&format!("strowger-{}.toml", admin.port()), &text), admin, workers }
}

/// Pids of the processes whose role begins so, in the order of the status document: every object in it that has a `pid`
/// that is not 0 and says the role in any of its texts.
pub fn processes(status: &Value, role: &str) -> Vec<i32> {
    fn walk(value: &Value, role: &str, found: &mut Vec<i32>) {
        match value {
            Value::Object(map) => {
                let pid = map.get("pid").and_then(Value::as_i64).and_then(|p| i32::try_from(p).ok());
                if let Some(pid) = pid.filter(|p| *p != 0)
                    && map.values().any(|v| v.as_str().is_some_and(|s| s.starts_with(role)))
                {
                    found.push(pid);
                }
                map.values().for_each(|v| walk(v, role, found));
            }
            Value::Array(list) => list.iter().for_each(|v| walk(v, role, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(status, role, &mut found);
    found
}

/// `counters.NAME` of a status document.
pub fn counter(status: &Value, name: &str) -> u64 {
    let value = &status["counters"][name];
    value.as_u64().unwrap_or_else(|| panic!("no counter {name} in {}", status["counters"]))
}

/// Messages read from sockets, whatever became of them.
pub fn messages_in(status: &Value) -> u64 {
    ["received_udp", "received_tcp", "received_sctp"].iter().map(|name| counter(status, name)).sum()
}

/// Entries in use of one table of a status document.
pub fn used(status: &Value, table: &str) -> u64 {
    let value = &status["tables"][table]["used"];
    value.as_u64().unwrap_or_else(|| panic!("no table {table} in {}", status["tables"]))
}

/// Runs or waits to be reaped, but is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
