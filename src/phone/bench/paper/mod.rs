//! `strowger bench paper`: the whole matrix of the paper, and what it comes to on one page.
//!
//! Owns: what can be asked for, which of it this machine can, the files in the folder. Never measures: that is `bench`'s.
//!
//! ```text
//! subjects, grid ── what, how long, in which order       course ── one point after the other, kept in results.json
//! summary ── medians, ratios, who counts                 verdict, remarks, words ── what is said of it
//! figures, plot ── SVG       tables ── table.md          report ── report.html       help ── what `--help` adds
//! ```

pub mod course;
pub mod figures;
pub mod grid;
mod help;
pub mod plot;
pub mod remarks;
pub mod report;
pub mod subjects;
pub mod summary;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod words;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::course::{Course, End, Measuring, Refused, Trouble};
use self::grid::{LIFETIMES, Plan};
use self::subjects::Name;
use super::demand::WARM_UP_S;
use super::machine::machine;
use super::measure::measure;
use super::results::Results;
use super::rig::{PHONES_NICE, Rig};
use crate::phone::signals::Signals;

/// What every output of `--quick` says.
pub const SKETCH: &str = "A sketch, nothing to quote: few points, short runs.";

/// Runs of each point, if nothing else is asked for; and then one more where they differ.
const ROUNDS: usize = 2;

/// The nice value that lets the supervisor run whenever it has work.
const MOST_FAVOURED: i32 = -20;

/// What `bench paper` can be told.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(after_long_help = help::more())]
pub struct Options {
    /// Folder for results.json, table.md, the figures and report.html; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A sketch in less than 3 minutes: 100 clients, connections kept and renewed every 50 operations, one round. Its rows are too
    /// short to have the ends of transactions and associations in them
    #[arg(long, conflicts_with_all = ["clients", "large", "workers", "rounds", "idle_s", "warm_up_s", "measure_s"])]
    pub quick: bool,
    /// Goes on with the run that lies in DIR; of a finished one, draws the report again
    #[arg(long)]
    pub resume: bool,
    /// Numbers of clients; the supervisor at nice 0, and SCTP renewed every 500, only with 500, or the middle one
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "100,500,1000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: Vec<u32>,
    /// 10,000 clients, too
    #[arg(long)]
    pub large: bool,
    /// Numbers of workers of the daemon
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=128))]
    pub workers: Vec<u32>,
    /// Runs of each point [default: 2, and a third where the two differ by more than 5 %]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Idle time-out, seconds; the paper had 10 and 120. Rows with renewed connections are measured for three of it, and warm up for
    /// one at least, behind a supervisor for two
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub idle_s: u64,
    /// Least warm-up of every row, seconds; below the default the ends of transactions are not in all rows
    #[arg(long, value_name = "SECONDS", default_value_t = WARM_UP_S, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub warm_up_s: u32,
    /// Window of rows whose connections are kept, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub measure_s: u32,
    /// Only these subjects (ratios need udp)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum)]
    pub only: Vec<Name>,
}

/// What a machine lets us do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Able {
    pub kernel_sctp: bool,
    /// To give a process a better priority.
    pub prefer: bool,
}

impl Options {
    #[must_use]
    pub fn plan(&self, able: Able) -> Plan {
        let asked = |name: &Name| self.only.is_empty() || self.only.contains(name);
        let can = |name: &Name| able.kernel_sctp || *name != Name::SctpKernel;
        let subjects = Name::ALL.into_iter().filter(|name| asked(name) && can(name)).collect();
        // The paper's first: it is what figures show.
        let nices = if able.prefer { vec![MOST_FAVOURED, 0] } else { vec![0] };
        if self.quick {
            return Plan::sketch(subjects, if able.prefer { MOST_FAVOURED } else { 0 });
        }
        let mut clients: Vec<usize> = self.clients.iter().map(|&n| n as usize).collect();
        clients.extend(self.large.then_some(10_000));
        clients.sort_unstable();
        clients.dedup();
        let mut workers: Vec<usize> = self.workers.iter().map(|&n| n as usize).collect();
        workers.sort_unstable();
        workers.dedup();
        Plan {
            subjects,
            clients,
            lifetimes: LIFETIMES.to_vec(),
            workers,
            nices,
            idle_s: self.idle_s,
            warm_up_s: f64::from(self.warm_up_s),
            kept_s: f64::from(self.measure_s),
            rounds: self.rounds.map_or(ROUNDS, |n| n as usize),
            settle: self.rounds.is_none(),
            sketch: false,
        }
    }
}

/// Measures with the daemon and the phones that this program is. 0: all was measured; 1: not all; 2: something else should have been
/// typed; 130: interrupted. The report is drawn if anything was begun.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    // Blocked before the first child is started: Ctrl-C is for us, and we end them.
    let begun = Signals::block().and_then(|signals| Ok((signals, std::env::current_exe()?)));
    let (signals, program) = match begun {
        Ok(begun) => begun,
        Err(e) => return complain(&e.to_string()),
    };
    let rig = Rig::own(program);
    let ended = play(options, &mut |point, tell| {
        let mut interrupted = Ok(());
        let measured = measure(point, &rig, &mut |progress| {
            tell(progress.left);
            signals.flow(&mut interrupted)
        });
        match interrupted {
            Err(_) => Err(Trouble::Interrupted),
            Ok(()) => measured.map_err(Trouble::Failed),
        }
    });
    match ended {
        Ok(End::Done) => ExitCode::SUCCESS,
        // 128 + SIGINT, as shells have it.
        Ok(End::Interrupted) => ExitCode::from(130),
        Ok(End::Gaps(points)) => complain(&format!("{points} runs could not be made; --resume tries them again")),
        Ok(End::Broken(why)) => complain(&format!("given up: {why}")),
        Err(Refused::Usage(why)) => {
            complain(&why);
            ExitCode::from(2)
        }
        Err(Refused::Failed(why)) => complain(&why),
    }
}

fn complain(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "strowger bench paper: {text}");
    ExitCode::FAILURE
}

fn play(options: &Options, measure: &mut Measuring<'_>) -> Result<End, Refused> {
    let able = Able { kernel_sctp: sys::sctp::supported(), prefer: sys::process::may_be_nice(MOST_FAVOURED) };
    let plan = options.plan(able);
    let fresh = course::empty(&plan, machine(PHONES_NICE));
    if fresh.rows.is_empty() {
        return Err(Refused::Failed("nothing to measure: this kernel has no SCTP (as root: modprobe sctp)".to_owned()));
    }
    let known = remarks::all(&fresh);
    let mut course = Course::begin(&options.out, options.resume, fresh)?;
    let say = |text: &str| drop(writeln!(io::stderr(), "{text}"));
    say(&course.outlook(&plan));
    if plan.sketch {
        say(SKETCH);
    }
    known.iter().filter(|text| text.starts_with("Not in")).for_each(|text| say(text));
    let folder = |e: io::Error| Refused::Failed(format!("{}: {e}", options.out.display()));
    course.save().map_err(folder)?;
    let end = course.run(plan.rounds, plan.settle, measure).map_err(folder)?;
    draw(&options.out, &course.results).map_err(folder)?;
    say(&format!("{}", options.out.join("report.html").display()));
    Ok(end)
}

/// Everything that is made of results: the page, the table, the figures.
///
/// # Errors
/// A file could not be written.
pub fn draw(folder: &Path, results: &Results) -> io::Result<()> {
    let figures = figures::all(results);
    for panel in figures.iter().flat_map(|figure| &figure.panels) {
        fs::write(folder.join(&panel.file), &panel.svg)?;
    }
    fs::write(folder.join("table.md"), tables::page(results))?;
    fs::write(folder.join("report.html"), report::page(results, &figures))
}
