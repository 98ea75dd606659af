//! `strowger bench profile`: where an operation's CPU goes, for each transport: the paper's OProfile tables for today.
//!
//! Owns: the order of a profile. The load is that of `bench run`, twice: once while perf samples (and the kernel counts the CPU time),
//! once while strace counts system calls. The phones are processes of their own and not looked at.
//!
//! ```text
//! measure ── a daemon, phones, calls      tools ── perf and strace, from outside
//!                                           ├─ samples ── blocks of `perf script` ── image, rooms ── address → room of the house
//!                                           └─ calls ── the summary of `strace -c`
//! report ── tables for people, Markdown, JSON
//! ```

pub mod calls;
mod image;
pub mod report;
pub mod rooms;
pub mod samples;
mod tools;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::image::Image;
use self::report::{PerOperation, Profile, Share};
use self::rooms::{Lines, Place};
use self::samples::{Frame, Sample, greatest_first};
use self::tools::{Perf, Strace};
use super::demand::WARM_UP_S;
use super::machine::machine;
use super::measure::{Measured, Progress, Stage, measure_all, reasons};
use super::notes::{Notes, remarks};
use super::options::{Own, Target, positive};
use super::output::Output;
use super::results::{Point, Row};
use super::rig::{PHONES_NICE, Planned, Rig};
use super::run::{Options as AsRun, points, rig};
use super::words::Wire;
use crate::config::exit;
use crate::phone::daemon::family;
use crate::phone::signals::{Interrupted, Signals};

/// What `bench profile` can be told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct Options {
    /// What the phones speak; several are profiled beside each other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "udp,tcp")]
    pub transport: Vec<Wire>,
    /// Callers, and as many callees
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: u32,
    /// Open loop: so many calls a second begin [default: closed loop]
    #[arg(long, value_name = "CALLS/S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Seconds of calls that are looked at, for each tool
    #[arg(long, default_value = "5", value_parser = positive)]
    pub seconds: f64,
    /// Seconds of calls before them; below 34 what the ends of transactions cost is not seen
    #[arg(long, default_value_t = f64::from(WARM_UP_S), value_parser = positive)]
    pub warm_up: f64,
    /// Operations after which a phone goes on over a new connection; it leaves the old one open
    #[arg(long, value_name = "OPERATIONS", value_parser = clap::value_parser!(u64).range(1..))]
    pub renew_every: Option<u64>,
    /// Each call comes over a connection of its own, which the caller closes
    #[arg(long, conflicts_with_all = ["renew_every", "trunks"])]
    pub connection_per_call: bool,
    /// All calls travel over so many connections or associations on each side
    #[arg(long, conflicts_with = "renew_every", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub trunks: Option<u32>,
    /// The domain that the phones are of: this daemon's, or the one that --target registers them for
    #[arg(long, default_value = "example.test")]
    pub domain: String,
    /// Where profile.md and profile.json go; without it only the terminal shows the tables
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub own: Own,
    #[command(flatten)]
    pub target: Target,
}

const MORE: &str = "\
Needs perf and strace (Debian: apt-get install linux-perf strace), and as a rule root: the whole machine is sampled, which only
root may where kernel.perf_event_paranoid is 1 or more. Microseconds are those of a release build (cargo build --release).

An operation is an INVITE or a BYE transaction; a call has one of each. Times are those under perf, which hardly disturbs. strace stops
the proxy at each system call: its counts are those of a slower proxy, which finds more messages each time it looks.

Examples:
  strowger bench profile --transport udp,tcp,sctp-user
      System calls, time by room of the house, hottest functions, for three transports side by side: about five minutes.
  strowger bench profile --transport tcp --rate 1000 --out profile
      The same at a rate that is no strain; also as profile/profile.md and profile/profile.json.
  strowger bench profile --transport tcp --architecture symmetric,supervisor --renew-every 50 --idle-s 10
      What the paper's supervisor costs, and where.
  tests/vm/vm.sh target/release/strowger bench profile --transport udp,tcp,sctp
      With the kernel's SCTP, in the virtual machine (its microseconds mean something only beside each other).
  strowger bench profile --target 127.0.0.1:5060 --target-pid $(cat /run/kamailio.pid) --target-name Kamailio
      Another proxy: its rooms are its shared libraries.

Exit status:
   0  done
   1  more than one call in a thousand failed, or the proxy or a phone did; what was profiled before is shown and written
   2  the command line is wrong
  69  perf or strace is missing or not permitted
 130  interrupted";

/// Why there is no profile.
pub enum Stop {
    /// A tool is missing or not permitted.
    Unavailable(String),
    Usage(String),
    Failed(String),
    Interrupted,
}

/// Runs the command.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let (text, status) = match play(options) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Stop::Unavailable(text)) => (text, exit::UNREACHABLE),
        Err(Stop::Failed(text)) => (text, exit::WRONG),
        Err(Stop::Usage(text)) => (text, exit::USAGE),
        Err(Stop::Interrupted) => return ExitCode::from(130),
    };
    let _ = writeln!(io::stderr(), "strowger bench profile: {text}");
    ExitCode::from(status)
}

fn play(options: &Options) -> Result<(), Stop> {
    let failed = |e: io::Error| Stop::Failed(e.to_string());
    tools::are_here().map_err(Stop::Unavailable)?;
    let asked = options.as_run();
    let points = points(&asked).map_err(Stop::Usage)?;
    let rig = rig(&asked).map_err(failed)?;
    let plan = rig.plan(points).map_err(Stop::Failed)?;
    let signals = Signals::block().map_err(failed)?;
    let lines = Lines::of(&rig.program).map_err(Stop::Failed)?;
    let json = options.out.as_deref().map(json_in).transpose().map_err(Stop::Failed)?;
    remarks(&asked, &plan).iter().for_each(|remark| say(remark));
    let (mut profiles, mut calls_failed) = (Vec::new(), false);
    let ended: Result<(), Stop> = plan.iter().try_for_each(|Planned { point, .. }| {
        let (profile, fails) = profile(point, &rig, &signals, &lines)?;
        profiles.push(profile);
        calls_failed |= fails;
        Ok(())
    });
    // What was profiled stays true, whatever ended the rest.
    if profiles.len() < plan.len() {
        say(&format!("not finished: {} of {} were profiled", profiles.len(), plan.len()));
    }
    if !profiles.is_empty() {
        publish(&profiles, options, json)?;
    }
    match ended {
        Ok(()) if calls_failed => Err(Stop::Failed("more than one call in a thousand failed".to_owned())),
        ended => ended,
    }
}

/// Found to be writable before time is spent.
fn json_in(folder: &Path) -> Result<Output, String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Output::open(&folder.join("profile.json"))
}

impl Options {
    /// The same load, as `bench run` is told.
    fn as_run(&self) -> AsRun {
        AsRun {
            transport: self.transport.clone(),
            clients: vec![self.clients],
            rate: self.rate,
            seconds: self.seconds,
            warm_up: self.warm_up,
            rounds: 1,
            renew_every: self.renew_every,
            connection_per_call: self.connection_per_call,
            trunks: self.trunks,
            phones: 0,
            phones_nice: PHONES_NICE,
            domain: self.domain.clone(),
            json: None,
            own: self.own.clone(),
            target: self.target.clone(),
            burden_us: 0,
        }
    }
}

/// One subject from beginning to end. And: have so many calls failed that it says little?
fn profile(point: &Point, rig: &Rig, signals: &Signals, lines: &Lines) -> Result<(Profile, bool), Stop> {
    let folder = Folder::new().map_err(|e| Stop::Failed(e.to_string()))?;
    let name = &point.subject.name;
    say(&format!("{name}: {} s under perf, after {} s", point.measure_s, point.warm_up_s));
    let (mut image, mut processes) = (Image::default(), Vec::new());
    let start = |pids: &[u32]| {
        image = pids.first().map(|pid| Image::of(*pid, &rig.program)).unwrap_or_default();
        processes = pids.to_vec();
        Perf::start(&folder.0)
    };
    let (measured, perf) = look(point, rig, signals, start, Perf::end)?;
    let place = |address: u64| lines.place(image.linked(address)?);
    let mut times = Times::default();
    perf.samples(&processes, |sample| times.add(sample, &rig.program, place)).map_err(Stop::Unavailable)?;

    say(&format!("{name}: {} s under strace", point.measure_s));
    let (counted, strace) = look(point, rig, signals, |pids| Strace::start(&folder.0, pids), Strace::end)?;
    let summary = strace.summary().map_err(Stop::Unavailable)?;

    let sample = &measured.sample;
    let operations = sample.operations.max(1) as f64;
    let mut profile = Profile {
        subject: Some(point.subject.clone()),
        operations: sample.operations,
        failed_calls: sample.failed_calls + counted.sample.failed_calls,
        operations_per_s: sample.operations_per_s(),
        cpu_us: sample.cpu_us_per_operation(),
        counted_operations_per_s: counted.sample.operations_per_s(),
        system_calls: per_operation(&summary, counted.sample.operations_per_s() * strace.took().as_secs_f64()),
        ..Profile::default()
    };
    let kind = |(name, cpu_s): (&String, &f64)| Share { name: name.clone(), us: cpu_s * 1e6 / operations };
    profile.processes = sample.cpu_by_process.iter().map(kind).collect();
    times.share_out(&mut profile);
    // Strace slows the proxy down, so of those calls only the failures are told.
    let row = |of: &Measured| Row { point: point.clone(), samples: vec![of.sample.clone()] };
    let mut notes = Notes::new(1);
    notes.add(0, &measured);
    notes.lines(&[row(&measured)]).iter().for_each(|line| say(line));
    if counted.sample.failed_calls > 0 {
        say(&format!("{name}: failed under strace: {}", reasons(&counted.sample.failures)));
    }
    let fails = row(&measured).fails() || row(&counted).fails();
    Ok((profile, fails))
}

/// Measures the point while a tool looks at the proxy: from a second before the window to its end.
fn look<T>(
    point: &Point,
    rig: &Rig,
    signals: &Signals,
    mut start: impl FnMut(&[u32]) -> Result<T, String>,
    end: impl Fn(&mut T) -> Result<(), String>,
) -> Result<(Measured, T), Stop> {
    let (mut tool, mut ended, mut trouble, mut interrupted) = (None, false, None, Ok(()));
    let soon = point.measure_s + 2.0;
    let measured = measure_all(point, rig, &mut |progress: &Progress| {
        let due = match progress.stage {
            Stage::Starting | Stage::Registering => false,
            Stage::WarmingUp => progress.left.as_secs_f64() <= soon,
            Stage::Measuring | Stage::Ending => true,
        };
        let step = match (&mut tool, progress.proxy) {
            (None, Some(proxy)) if due => start(&family(proxy)).map(|started| tool = Some(started)),
            (None, None) if due => Err("which process is the proxy? (--target-pid)".to_owned()),
            (Some(tool), _) if progress.stage == Stage::Ending && !ended => {
                ended = true;
                end(tool)
            }
            _ => Ok(()),
        };
        match step {
            Ok(()) => signals.flow(&mut interrupted),
            Err(why) => {
                trouble = Some(why);
                ControlFlow::Break(())
            }
        }
    });
    match (interrupted, trouble) {
        (Err(Interrupted), _) => return Err(Stop::Interrupted),
        (_, Some(why)) => return Err(Stop::Unavailable(why)),
        _ => {}
    }
    let measured = measured.map_err(|e| Stop::Failed(format!("{}: {e}", point.subject.name)))?;
    Ok((measured, tool.ok_or_else(|| Stop::Failed("nothing was measured".to_owned()))?))
}

fn per_operation(summary: &str, operations: f64) -> Vec<PerOperation> {
    let operations = operations.max(1.0);
    let row = |counted: calls::Counted| PerOperation {
        name: counted.name,
        calls: counted.calls as f64 / operations,
        errors: counted.errors as f64 / operations,
    };
    let mut rows: Vec<PerOperation> = calls::read(summary).into_iter().map(row).collect();
    rows.sort_by(|a, z| z.calls.total_cmp(&a.calls));
    rows
}

/// Nanoseconds of samples, by what they are told as.
#[derive(Default)]
struct Times {
    samples: u64,
    all: u64,
    in_kernel: u64,
    rooms: BTreeMap<String, u64>,
    functions: BTreeMap<String, u64>,
    ways_in: BTreeMap<String, u64>,
    kernel: BTreeMap<String, u64>,
    /// Places found already, by address.
    known: HashMap<u64, Place>,
}

impl Times {
    fn add(&mut self, sample: &Sample<'_>, program: &Path, place: impl Fn(u64) -> Option<Place>) {
        let mut sums = Vec::with_capacity(2);
        self.samples += 1;
        self.all += sample.period;
        if sample.is_kernel() {
            self.in_kernel += sample.period;
            sums.push((&mut self.ways_in, sample.way_in().to_owned()));
            sums.push((&mut self.kernel, sample.kernel_function()));
        } else {
            let found = self.known.entry(sample.at.address).or_insert_with(|| {
                let ours = Path::new(sample.at.file) == program;
                let found = if ours { place(sample.at.address) } else { None };
                found.unwrap_or_else(|| elsewhere(&sample.at))
            });
            sums.push((&mut self.rooms, found.room.clone()));
            sums.push((&mut self.functions, found.function.clone()));
        }
        for (sums, name) in sums {
            *sums.entry(name).or_default() += sample.period;
        }
    }

    /// Gives each part its share of the CPU time by its share of the samples.
    fn share_out(self, profile: &mut Profile) {
        let cpu = profile.cpu_us;
        let us = |period: u64| cpu * period as f64 / self.all.max(1) as f64;
        let shares = |sums: BTreeMap<String, u64>| -> Vec<Share> {
            greatest_first(sums).into_iter().map(|(name, period)| Share { name, us: us(period) }).collect()
        };
        profile.samples = self.samples;
        (profile.kernel_us, profile.user_us) = (us(self.in_kernel), us(self.all - self.in_kernel));
        profile.rooms = shares(self.rooms);
        profile.functions = shares(self.functions);
        profile.ways_in = shares(self.ways_in);
        profile.kernel = shares(self.kernel);
    }
}

/// Code of no line table of ours: a shared library's, the kernel's page of clock functions.
fn elsewhere(frame: &Frame<'_>) -> Place {
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    let room = match file {
        "[vdso]" => "vdso",
        name if name.starts_with("libc.") || name.starts_with("libc-") || name.starts_with("ld-") => "libc",
        name => name.split(".so").next().unwrap_or(name),
    };
    let symbol = frame.symbol.split("@@").next().unwrap_or_default();
    Place { room: room.to_owned(), function: format!("{room}::{symbol}") }
}

fn publish(profiles: &[Profile], options: &Options, json: Option<Output>) -> Result<(), Stop> {
    let failed = |e: io::Error| Stop::Failed(e.to_string());
    let _ = io::stdout().write_all(report::text(profiles, report::Form::Terminal).as_bytes());
    let (Some(folder), Some(json)) = (&options.out, json) else { return Ok(()) };
    let machine = machine(PHONES_NICE);
    let markdown = report::text(profiles, report::Form::Markdown);
    let head = format!(
        "{}, {} processors, Linux {}: `{}`\n\n",
        machine.processor, machine.processors, machine.kernel, machine.command
    );
    fs::write(folder.join("profile.md"), head + &markdown).map_err(failed)?;
    json.write(&report::Profiles { machine, profiles: profiles.to_vec() }).map_err(Stop::Failed)?;
    say(&format!("written: {0}/profile.md and {0}/profile.json", folder.display()));
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
