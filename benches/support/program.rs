//! A benchmark as a program: what it is told, and how it ends.

use std::io;
use std::process::ExitCode;

/// Measures with the command line's arguments; an error is said and exits with 1.
pub fn run(name: &str, measure: impl FnOnce(&[String]) -> io::Result<()>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo runs benchmarks as tests, too (`cargo test --benches`): there is nothing to see in a debug build.
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
