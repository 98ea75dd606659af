//! `strowger bench`: a proxy measured by calls, this one in any configuration or any other.
//!
//! Owns: how a figure comes about. Phones are processes of their own, so that what they cost is not the proxy's and what the proxy
//! costs can be read from the kernel; the manager starts them, and the daemon where it is ours, and ends all of them.
//!
//! ```text
//! run ── one point or a few beside each other (`options`, `show`)          paper ── the matrix, and a page with figures
//!   └─ measure ── one sample: start, register, warm up, measure, end
//!        ├─ rig ── the proxy: started here, or running already          demand ── what it will need
//!        ├─ crew ── the phone processes, `words` ── what is said to them          time ── what a process of either used
//!        └─ phones ── inside of such a process
//! profile ── where the CPU time goes: perf and strace beside calls of its own
//! results ── what a measurement is asked and what it found          spread ── what several of them come to
//! notes ── what should be known beside a table                      output ── the file for what was found
//! ```

mod configuration;
mod crew;
mod demand;
pub mod machine;
pub mod measure;
mod notes;
mod options;
mod output;
pub mod paper;
pub mod phones;
pub mod profile;
pub mod results;
pub mod rig;
pub mod run;
pub mod show;
pub mod spread;
mod time;
pub mod words;

use std::process::ExitCode;

/// What can be measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Measures one point, or a few beside each other: operations, CPU per operation, set-up times.
    ///
    /// Callers place calls (INVITE/100/180/200/ACK, BYE/200) to their callees through the proxy; phones are processes of their own.
    Run(Box<run::Options>),
    /// The paper's experiment: UDP, SCTP and five kinds of TCP over clients and lifetimes of connections, as one page with figures.
    ///
    /// Hours; --quick takes less than three minutes. Can be broken off and gone on with.
    Paper(Box<paper::Options>),
    /// Says where an operation's CPU goes, for each transport: system calls by kind, time by room of the house, hottest functions.
    ///
    /// Samples with perf, counts with strace; needs both.
    Profile(Box<profile::Options>),
    /// One phone process, spoken to over stdin and stdout.
    #[command(hide = true)]
    Phones,
}

/// Does it.
#[must_use]
pub fn run(command: &Command) -> ExitCode {
    match command {
        Command::Run(options) => run::run(options),
        Command::Profile(options) => profile::run(options),
        Command::Paper(options) => paper::run(options),
        Command::Phones => phones::run(),
    }
}
