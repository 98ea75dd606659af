//! A benchmark as a program: what it is told, and how it ends.

use std::io;
use std::process::ExitCode;

/// Measures with the command line's words; an error is said and exits with 1. `--help` prints the head of `source`, the benchmark's own
/// text; any other option is refused with 2, for a benchmark that runs for an hour should do so only when it was meant.
pub fn run(name: &str, source: &str, measure: impl FnOnce(&[String]) -> io::Result<()>) -> ExitCode {
    let (options, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    for option in options {
        match &option[..] {
            // What cargo itself says.
            "--bench" => {}
            // cargo runs benchmarks as tests, too (`cargo test --benches`): there is nothing to see in a debug build.
            "--test" => return ExitCode::SUCCESS,
            "--help" | "-h" => {
                source
                    .lines()
                    .map_while(|line| line.strip_prefix("//!"))
                    .for_each(|line| println!("{}", line.strip_prefix(' ').unwrap_or(line)));
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("{name}: there is no option {option}; --help tells what there is");
                return ExitCode::from(2);
            }
        }
    }
    match measure(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// That each word is one of these, or a number: a benchmark that passes over a word measures something else than was asked for.
pub fn known(words: &[String], these: &[&str]) -> io::Result<()> {
    match words.iter().find(|word| word.parse::<f64>().is_err() && !these.contains(&word.as_str())) {
        None => Ok(()),
        Some(word) if these.is_empty() => {
            Err(io::Error::other(format!("{word}: it takes no arguments; --help tells what it does")))
        }
        Some(word) => {
            Err(io::Error::other(format!("there is no {word} here, but {}; --help tells more", these.join(", "))))
        }
    }
}
