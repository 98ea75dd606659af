//! The daemon's processes: real forks, real signals.
//!
//! The master forks, so it needs a process of one thread, which libtest's are not: this program has its own main.
//! Without the variable `PROCESSES_CONFIG` it runs the tests one after the other; with it, it is the daemon that they
//! start, whose children do nothing but what a child owes its master. The tests speak of master and children only;
//! calls have their own.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Names and tests.
macro_rules! tests {
    ($($name:ident,)+) => { pub const ALL: &[(&str, fn())] = &[$((stringify!($name), $name),)+]; };
}

mod cases;
mod child;
mod daemon;
mod shipped;

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match std::env::var_os(daemon::CONFIG) {
        Some(path) => child::daemon(PathBuf::from(path)),
        None => run_tests(),
    }
}

/// Those whose name contains one of the words on the command line; as libtest would.
fn run_tests() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, test) in cases::ALL.iter().chain(shipped::ALL).filter(|(name, _)| chosen(name)) {
        let began = Instant::now();
        match catch_unwind(test) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
        let word = if failed.last() == Some(&name) { "FAILED" } else { "ok" };
        println!("test {name} ... {word} ({:.1} s)", began.elapsed().as_secs_f64());
    }
    println!("\ntest result: {passed} passed; {} failed", failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}
