//! `strowger bench profile`: where a call's CPU goes, for each transport: the paper's OProfile tables for today.
//!
//! Owns: the order of a profile. First samples (`tools::Perf`) while many calls are placed at full speed, and the daemon's CPU time for
//! the same calls; then counts of system calls (`tools::Strace`) over fewer calls. Never profiles the phones: they are this process.
//!
//! ```text
//! stage ── a daemon, phones, calls        tools ── perf and strace, from outside
//!                                           ├─ samples ── lines of `perf script` ── rooms ── address → room of the house
//!                                           └─ calls ── the summary of `strace -c`
//! report ── tables for people, Markdown, JSON
//! ```

pub mod calls;
pub mod report;
pub mod rooms;
pub mod samples;
mod stage;
mod tools;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::report::{PerCall, Profile, Share};
use self::rooms::{Lines, Place};
use self::samples::{Sample, greatest_first};
use self::stage::{Stage, Status};
use super::results::Subject;
use crate::config::exit;

/// What `bench profile` can be told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Options {
    /// What to profile [default: all that this machine has]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub transport: Vec<Transported>,
    /// Calls that are sampled, for each transport
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub calls: u64,
    /// Calls whose system calls are counted: strace makes the daemon many times slower
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub counted_calls: u64,
    /// Callers, and as many callees; each caller calls again as soon as its last call is over
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    pub clients: u64,
    /// Workers of the daemon
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=128))]
    pub workers: u64,
    /// More of the daemon's configuration: a file of TOML tables
    #[arg(long, value_name = "FILE")]
    pub tables: Option<PathBuf>,
    /// Where profile.md and profile.json go; without it only the terminal shows the tables
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Needs perf and strace (Debian: apt-get install linux-perf strace), and as a rule root: the kernel's part of the time is seen only
where kernel.perf_event_paranoid is 1 or less. Microseconds are those of a release build (cargo build --release).

Examples:
  strowger bench profile
      All transports, 20,000 calls each: system calls per call, time by room of the house, hottest functions.
  strowger bench profile --transport udp,tcp --out profile
      Two transports side by side; profile/profile.md and profile/profile.json.
  tests/vm/vm.sh target/release/strowger bench profile --transport udp,tcp,sctp --calls 2000 --counted-calls 500
      With the kernel's SCTP, in the virtual machine (its microseconds mean something only beside each other).

Exit status: 0 done, 1 a daemon or phone failed, 69 perf or strace is missing or not permitted.";

/// What a call goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transported {
    Udp,
    Tcp,
    /// The kernel's
    Sctp,
    SctpUser,
}

impl Transported {
    fn subject(self, tables: &str) -> Subject {
        let (name, transport) = match self {
            Transported::Udp => ("UDP", "udp"),
            Transported::Tcp => ("TCP", "tcp"),
            Transported::Sctp => ("SCTP kernel", "sctp"),
            Transported::SctpUser => ("SCTP user", "sctp-user"),
        };
        Subject { name: name.to_owned(), transport: transport.to_owned(), tables: tables.to_owned() }
    }

    fn all_here() -> Vec<Transported> {
        let mut all = vec![Transported::Udp, Transported::Tcp, Transported::Sctp, Transported::SctpUser];
        all.retain(|one| *one != Transported::Sctp || sys::sctp::supported());
        all
    }
}

/// Why there is no profile.
pub enum Stop {
    /// A tool is missing or not permitted.
    Unavailable(String),
    Failed(String),
}

/// Runs the command.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let (text, status) = match profiles(options).and_then(|profiles| publish(&profiles, options)) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Stop::Unavailable(text)) => (text, exit::UNREACHABLE),
        Err(Stop::Failed(text)) => (text, exit::WRONG),
    };
    let _ = writeln!(io::stderr(), "strowger bench profile: {text}");
    ExitCode::from(status)
}

fn profiles(options: &Options) -> Result<Vec<Profile>, Stop> {
    tools::are_here().map_err(Stop::Unavailable)?;
    let tables = match &options.tables {
        Some(file) => fs::read_to_string(file).map_err(|e| Stop::Failed(format!("{}: {e}", file.display())))?,
        None => String::new(),
    };
    let program = std::env::current_exe().map_err(|e| Stop::Failed(e.to_string()))?;
    say("reading the line tables of this program");
    let lines = Lines::of(&program).map_err(Stop::Failed)?;
    let transports = if options.transport.is_empty() { Transported::all_here() } else { options.transport.clone() };
    transports.into_iter().map(|transport| profile(&transport.subject(&tables), options, &lines)).collect()
}

/// One subject from beginning to end.
///
/// # Errors
/// A tool is not permitted; the daemon or a phone failed.
pub fn profile(subject: &Subject, options: &Options, lines: &Lines) -> Result<Profile, Stop> {
    let folder = Folder::new().map_err(|e| Stop::Failed(e.to_string()))?;
    let (clients, workers) = (options.clients as usize, options.workers as usize);
    let mut stage = Stage::new(subject, clients, workers).map_err(Stop::Failed)?;
    // What is touched for the first time costs the kernel a page each.
    say(&format!("{}: {} calls to warm up, then {} under perf", subject.name, options.calls / 4, options.calls));
    stage.place(options.calls / 4).map_err(Stop::Failed)?;

    let (before, pids) = (stage.status().map_err(Stop::Failed)?, stage.pids());
    let perf = tools::Perf::start(&folder.0, &pids).map_err(Stop::Unavailable)?;
    let cpu = stage.cpu();
    let tally = stage.place(options.calls).map_err(Stop::Failed)?;
    let cpu = stage.cpu().saturating_sub(cpu);
    let samples = perf.stop().map_err(Stop::Unavailable)?;
    let after = stage.status().map_err(Stop::Failed)?;

    say(&format!("{}: {} calls under strace", subject.name, options.counted_calls));
    let strace = tools::Strace::start(&folder.0, &pids).map_err(Stop::Unavailable)?;
    let counted = stage.place(options.counted_calls).map_err(Stop::Failed)?;
    let summary = strace.stop().map_err(Stop::Unavailable)?;
    let last = stage.status().map_err(Stop::Failed)?;

    let completed = tally.completed.max(1) as f64;
    let mut profile = Profile {
        subject: subject.clone(),
        calls: tally.completed,
        failed_calls: tally.failed + counted.failed,
        calls_per_s: tally.rate(),
        cpu_us: cpu.as_secs_f64() * 1e6 / completed,
        messages_per_wake_up: ratio(&before, &after),
        counted_calls: counted.completed,
        counted_messages_per_wake_up: ratio(&after, &last),
        system_calls: per_call(&summary, counted.completed),
        ..Profile::default()
    };
    let base = stage.base().ok_or_else(|| Stop::Failed("where the daemon's program lies is not known".to_owned()))?;
    share_out(&mut profile, &samples, &after.kinds, |address| lines.place(address.checked_sub(base)?));
    stage.stop();
    if profile.failed_calls > 0 {
        say(&format!("{}: {} calls failed", subject.name, profile.failed_calls));
    }
    Ok(profile)
}

fn ratio(before: &Status, after: &Status) -> f64 {
    (after.messages - before.messages) as f64 / (after.wake_ups - before.wake_ups).max(1) as f64
}

fn per_call(summary: &str, calls: u64) -> Vec<PerCall> {
    let calls = calls.max(1) as f64;
    let row = |counted: calls::Counted| PerCall {
        name: counted.name,
        calls: counted.calls as f64 / calls,
        errors: counted.errors as f64 / calls,
    };
    let mut rows: Vec<PerCall> = calls::read(summary).into_iter().map(row).collect();
    rows.sort_by(|a, z| z.calls.total_cmp(&a.calls));
    rows
}

/// Gives each part its share of the CPU time by its share of the samples.
fn share_out(
    profile: &mut Profile,
    samples: &str,
    kinds: &BTreeMap<u32, String>,
    place: impl Fn(u64) -> Option<Place>,
) {
    let [mut processes, mut rooms, mut functions, mut kernel] = [const { BTreeMap::new() }; 4];
    let (mut all, mut in_kernel) = (0_u64, 0_u64);
    let mut known: HashMap<u64, Place> = HashMap::new();
    let program = std::env::current_exe().unwrap_or_default();
    for sample in samples.lines().filter_map(Sample::read) {
        profile.samples += 1;
        all += sample.period;
        let kind = kinds.get(&sample.pid).cloned().unwrap_or_else(|| "thread".to_owned());
        *processes.entry(kind).or_default() += sample.period;
        if sample.is_kernel() {
            in_kernel += sample.period;
            *kernel.entry(sample.symbol.to_owned()).or_default() += sample.period;
            continue;
        }
        let ours = Path::new(sample.file) == program;
        let found = known.entry(sample.address).or_insert_with(|| {
            let found = if ours { place(sample.address) } else { None };
            found.unwrap_or_else(|| elsewhere(&sample))
        });
        *rooms.entry(found.room.clone()).or_default() += sample.period;
        *functions.entry(found.function.clone()).or_default() += sample.period;
    }
    let cpu = profile.cpu_us;
    let us = |period: u64| cpu * period as f64 / all.max(1) as f64;
    let shares = |sums: BTreeMap<String, u64>| -> Vec<Share> {
        greatest_first(sums).into_iter().map(|(name, period)| Share { name, us: us(period) }).collect()
    };
    (profile.kernel_us, profile.user_us) = (us(in_kernel), us(all - in_kernel));
    profile.processes = shares(processes);
    profile.rooms = shares(rooms);
    profile.functions = shares(functions);
    profile.kernel = shares(kernel);
}

/// Code of no line table of ours: a shared library's, the kernel's page of clock functions.
fn elsewhere(sample: &Sample<'_>) -> Place {
    let file = sample.file.rsplit('/').next().unwrap_or_default();
    let room = match file {
        "[vdso]" => "vdso",
        name if name.starts_with("libc.") || name.starts_with("libc-") || name.starts_with("ld-") => "libc",
        name => name.split(".so").next().unwrap_or(name),
    };
    Place { room: room.to_owned(), function: format!("{room}::{}", sample.symbol) }
}

fn publish(profiles: &[Profile], options: &Options) -> Result<(), Stop> {
    let failed = |e: io::Error| Stop::Failed(e.to_string());
    let _ = io::stdout().write_all(report::text(profiles, report::Form::Terminal).as_bytes());
    if let Some(folder) = &options.out {
        fs::create_dir_all(folder).map_err(failed)?;
        fs::write(folder.join("profile.md"), report::text(profiles, report::Form::Markdown)).map_err(failed)?;
        let json = serde_json::to_string_pretty(profiles).map_err(|e| Stop::Failed(e.to_string()))?;
        fs::write(folder.join("profile.json"), json + "\n").map_err(failed)?;
        say(&format!("written: {0}/profile.md and {0}/profile.json", folder.display()));
    }
    Ok(())
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A folder for what the tools write, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("strowger-profile-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
