//! `strowger bench`: what a call costs this proxy, or any other.

pub mod profile;
pub mod results;

/// What `bench` can be asked.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Where a call's CPU goes, for each transport: system calls per call, user time by room of the house, hottest functions.
    ///
    /// Samples with perf, counts with strace; needs both.
    Profile(profile::Options),
}

/// Runs the command.
#[must_use]
pub fn run(command: &Command) -> std::process::ExitCode {
    match command {
        Command::Profile(options) => profile::run(options),
    }
}
