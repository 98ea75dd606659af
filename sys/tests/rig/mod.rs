//! Runs tests one after the other, each in a child process of a process that never has a second thread.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::exit;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use sys::process::{Fork, fork};

pub type Test = (&'static str, fn());

/// `("name", name)` for each.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

/// A test that hangs longer is killed. (Emulated machines are slow.)
const SECONDS: u32 = 120;

/// The main function: runs those whose name contains one of the arguments, or all.
pub fn run(tests: &[Test]) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let mut failed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w))) {
        let status = wait(child(|| {
            nix::unistd::alarm::set(SECONDS);
            test();
        }));
        let passed = status == WaitStatus::Exited(pid_of(&status), 0);
        println!("test {name} ... {}", if passed { "ok".into() } else { format!("FAILED: {status:?}") });
        failed += i32::from(!passed);
    }
    exit(if failed == 0 { 0 } else { 101 });
}

/// These where the kernel has SCTP; else none, which is said, and noted for the sum that tests/run prints.
#[allow(dead_code)] // not every program tests SCTP
pub fn with_kernel_sctp(tests: Vec<Test>) -> Vec<Test> {
    if sys::sctp::supported() {
        return tests;
    }
    println!("{} tests skipped: this kernel has no SCTP", tests.len());
    if let Some(file) = std::env::var_os("TESTS_LEFT_OUT") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the file of notes opens");
        let mut note = |name: &str| writeln!(file, "{name}: this kernel has no SCTP").expect("the note is written");
        tests.iter().for_each(|(name, _)| note(name));
    }
    Vec::new()
}

/// Runs `work` in a child process, which then exits with 0 (or 101 when it panics). Returns its process id.
pub fn child(work: impl FnOnce()) -> i32 {
    match fork().expect("fork") {
        Fork::Parent { child } => child,
        Fork::Child => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            exit(if result.is_ok() { 0 } else { 101 });
        }
    }
}

/// How the child ended.
pub fn wait(child: i32) -> WaitStatus {
    waitpid(Pid::from_raw(child), None).expect("waitpid")
}

fn pid_of(status: &WaitStatus) -> Pid {
    status.pid().unwrap_or(Pid::from_raw(0))
}

/// Asserts that the child ended well.
pub fn joined(child: i32) {
    let status = wait(child);
    assert_eq!(status, WaitStatus::Exited(Pid::from_raw(child), 0));
}

/// Waits until it is so.
#[allow(clippy::disallowed_methods)] // a test has a clock
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        pause(1);
    }
}

pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
