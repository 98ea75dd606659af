//! The test house: real processes, real sockets, real kernels; nothing is imitated.
//!
//! Owns: starting and ending the daemon, Kamailio and SIPp, and reading what they and the kernel count. Each file under
//! `tests/` uses a part of it.
#![allow(dead_code, clippy::disallowed_methods, reason = "each test takes a part; tests may read the clock")]

pub mod callee;
pub mod daemon;
pub mod kamailio;
pub mod kernel;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod sipp;
pub mod tcp_phones;
pub mod tunnel;
pub mod turning;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use strowger::transport::Transport;

/// The domain that proxies under test are registrar for.
pub const DOMAIN: &str = "example.test";

/// How many times slower than metal this machine is: 15 in an emulated one, else 1.
pub fn slow() -> u32 {
    std::env::var("TESTS_SLOW").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// A wait that is long enough here for what takes `seconds` on metal.
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * if slow() > 1 { 4 } else { 1 }
}

/// The transports that this kernel has. The virtual machine is there for SCTP, so it must have it.
pub fn transports() -> Vec<Transport> {
    let sctp = kernel::sctp_is_here();
    assert!(sctp || std::env::var_os("IN_VM").is_none(), "the virtual machine has no SCTP");
    let mut all = vec![Transport::Udp, Transport::Tcp];
    if sctp {
        all.insert(0, Transport::Sctp);
    }
    all
}

/// A line of progress, seen with `--nocapture`.
pub fn say(text: &str) {
    eprintln!("    {text}");
}

/// Says once per test why its SCTP part is left to the virtual machine. True when it is.
#[track_caller]
pub fn left_to_the_vm(what: &str) -> bool {
    left_out(
        !transports().contains(&Transport::Sctp),
        what,
        "this kernel has no SCTP; tests/run does it in the virtual machine",
    )
}

/// Says so when this is not the virtual machine, the only one whose network or kernel a test may change as it likes.
#[track_caller]
pub fn only_in_the_vm(what: &str) -> bool {
    let left = std::env::var_os("IN_VM").is_none();
    left_out(left, what, "changes the machine's network, so only in the virtual machine (tests/run --vm)")
}

/// Says so when this is the virtual machine, and the host has done it, with the same sockets.
#[track_caller]
pub fn left_to_the_host(what: &str) -> bool {
    left_out(std::env::var_os("IN_VM").is_some(), what, "done on the host")
}

/// What is left out is said, and noted with its place for the sum that tests/run prints.
#[track_caller]
fn left_out(left: bool, what: &str, why: &str) -> bool {
    if left {
        let line = format!("{what}: {why}");
        say(&line);
        let place = std::panic::Location::caller();
        note("TESTS_LEFT_OUT", &format!("{}:{}: {line}", place.file(), place.line()));
    }
    left
}

/// Notes that `calls` whole calls went over SCTP on at least one side, for the sum that tests/run prints.
pub fn tally_sctp(calls: u64) {
    note("TESTS_TALLY", &calls.to_string());
}

/// A line for tests/run, in the file that this variable names.
fn note(variable: &str, line: &str) {
    if let Some(file) = std::env::var_os(variable) {
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the file of notes opens");
        writeln!(file, "{line}").expect("the note is written");
    }
}

/// A folder for one test's files; kept (and named) when the test fails.
pub struct Room {
    path: PathBuf,
}

impl Room {
    pub fn new(name: &str) -> Room {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = std::env::var_os("VM_OUT").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("strowger-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test's files");
        Room { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("    what the processes wrote is kept in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A port that is free at this moment on `ip`, on UDP and TCP (and so, as far as tests go, on SCTP); each one is given
/// out once in this process.
pub fn free_port(ip: IpAddr) -> SocketAddr {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let first = 20_000 + std::process::id() % 100 * 100;
    for _ in 0..10_000 {
        let step = LAST.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (first - 20_000 + step) % 10_000;
        let address = SocketAddr::new(ip, u16::try_from(port).expect("below 30,000"));
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on {ip}");
}

/// Asks again and again, a few milliseconds apart, until there is an answer or `limit` is over.
pub fn wait_for<T>(limit: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
