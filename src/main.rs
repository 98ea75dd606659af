//! The command line: the only place that knows it.
//!
//! Owns: what can be asked, the help that explains it, exit statuses. Never does the work.

#![forbid(unsafe_code)]
// They panic when nobody reads any more (`| head`).
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use strowger::config::{Config, exit};
use strowger::{check, log, master, phone, shared, worker};

/// A SIP proxy and registrar whose first transport is SCTP.
#[derive(Parser)]
#[command(name = "strowger", version, after_long_help = MORE, subcommand_required = true, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const MORE: &str = "\
Examples:
  strowger demo
      See it work: a daemon, phones and a few hundred calls on this machine.
  strowger serve
      Serve 127.0.0.1:5060 over UDP, TCP and SCTP (in user space where the kernel has none) with the built-in defaults.
  strowger bench run --transport udp,tcp
      Measure: operations per second, CPU per operation, set-up times. `strowger bench run --help` tells more.
  strowger bench profile --transport udp,tcp --out profile
      Where the CPU of a call goes: system calls, rooms of the house, functions. `strowger bench profile --help` tells more.
  strowger demo --stack user
      The same try-out with SCTP in user space, inside UDP (RFC 6951); kernel: with the kernel's, or not at all.
  strowger check --config /etc/strowger/strowger.toml && systemctl reload strowger
      Look first, then let the running daemon read it (SIGHUP).
  STROWGER_WORKERS=4 STROWGER_LOG__LEVEL=debug strowger serve --config strowger.toml
      Every key of the file is also a variable: STROWGER_, capitals, __ for the dot.
  STROWGER_LISTEN='[{transport=\"sctp\", address=[\"192.0.2.1:5060\", \"198.51.100.1:5060\"]}]' strowger serve
      A list of tables is one variable, written as in TOML.
  strowger status --json
      Ask the running daemon for processes, counters, table fill and flows.

Exit status:
   0  done
   1  the configuration is wrong, or a call of the demo failed, or a measurement
   2  the command line is wrong
  69  status: no daemon answers; bench profile: perf or strace is missing or not permitted
  70  serve: more than 10 processes died within 10 seconds
  71  the system refused a socket, memory, a process or a user

The file config/strowger.toml of the project explains every key with its default, unit and range.";

#[derive(Subcommand)]
enum Command {
    /// Runs the daemon in the foreground (as systemd wants it).
    ///
    /// SIGTERM and SIGINT let running calls' transactions end (drain_s), SIGHUP reads the configuration again.
    Serve(File),
    /// Says what a configuration would serve and what is wrong with it: one line per mistake, exit status 0 or 1.
    Check(File),
    /// Tries everything out on this machine: daemon, phones, calls over every transport and across them.
    ///
    /// Ends by itself; exit status 0 only if no call failed.
    Demo(phone::demo::Options),
    /// Measures this proxy in any configuration, or any other proxy, by calls.
    #[command(subcommand)]
    Bench(phone::bench::Command),
    /// Asks the running daemon: processes, restarts, counters, table fill, flows.
    Status {
        #[command(flatten)]
        file: File,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Counts every slot of shared memory too: each must be live or free.
        #[arg(long)]
        audit: bool,
    },
}

#[derive(clap::Args)]
struct File {
    /// TOML file; without it the built-in defaults serve (everything in memory, loopback only).
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    /// The configuration, or its mistakes on stderr.
    fn load(&self) -> Result<Config, ExitCode> {
        Config::load(self.config.as_deref()).map_err(|mistakes| {
            check::say(&mistakes);
            ExitCode::from(exit::WRONG)
        })
    }
}

fn main() -> ExitCode {
    run(CommandLine::parse().command).unwrap_or_else(|status| status)
}

fn run(command: Command) -> Result<ExitCode, ExitCode> {
    Ok(match command {
        Command::Serve(file) => serve(file.load()?, file.config),
        Command::Check(file) => check::run(file.config.as_deref(), shared::memory_bytes),
        Command::Demo(options) => phone::demo::run(&options),
        Command::Bench(command) => phone::bench::run(&command),
        Command::Status { file, json, audit } => master::status::run(&file.load()?, json, audit),
    })
}

/// The log comes first: from here on nothing waits for whoever reads stderr.
fn serve(config: Config, path: Option<PathBuf>) -> ExitCode {
    if let Err(error) = log::start(config.live.log.level) {
        let _ = writeln!(io::stderr(), "strowger: stderr cannot be written without waiting, the log is lost: {error}");
    }
    // What the sockets say when they are opened is said then.
    check::warnings(&config, true).iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Some(mistake) = check::Room::of_this_machine().refuses(shared::memory_bytes(&config)) {
        tracing::warn!("{mistake}");
    }
    master::serve(config, path, worker::run)
}
