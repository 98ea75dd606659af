//! `strowger bench paper`: the whole matrix of the paper, and what it comes to on one page.
//!
//! Owns: what can be asked for, which of it this machine can, the files in the folder. Never measures: that is `bench`'s.
//!
//! ```text
//! subjects, grid ── what, how long, in which order       course ── one point after the other, kept in results.json
//! summary ── medians, ratios, who counts                 figures, plot ── SVG        tables ── table.md        report ── report.html
//! ```

pub mod course;
pub mod figures;
pub mod grid;
pub mod machine;
pub mod plot;
pub mod remarks;
pub mod report;
pub mod subjects;
pub mod summary;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod words;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::course::{Course, End, Measuring, Taken, Trouble};
use self::grid::{LIFETIMES, Plan};
use self::subjects::Name;
use super::measure::measure_all;
use super::results::Results;
use super::rig::Rig;
use crate::phone::signals::Signals;

/// What every output of `--quick` says.
pub const SKETCH: &str = "A sketch, nothing to quote: few points, short runs.";

/// The nice value that lets the supervisor run whenever it has work.
const MOST_FAVOURED: i32 = -20;

/// What `bench paper` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Folder for results.json, table.md, the figures and report.html; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A sketch in less than 3 minutes: 100 clients, connections kept and renewed every 50 operations, one round
    #[arg(long, conflicts_with_all = ["clients", "large", "workers", "rounds", "idle_s", "warm_up_s", "measure_s"])]
    pub quick: bool,
    /// Goes on with the run that lies in DIR; of a finished one, draws the report again
    #[arg(long)]
    pub resume: bool,
    /// Numbers of clients
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
    /// Runs of each point
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Idle time-out, seconds; the paper had 10 and 120. Rows with renewed connections are measured for three of it
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub idle_s: u64,
    /// Warm-up of rows whose connections are kept, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub warm_up_s: u32,
    /// Window of rows whose connections are kept, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub measure_s: u32,
    /// Only these subjects (ratios need udp)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum)]
    pub only: Vec<Name>,
}

/// What a machine lets us do.
#[derive(Clone, Copy, Debug)]
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
            kept_s: (f64::from(self.warm_up_s), f64::from(self.measure_s)),
            rounds: self.rounds as usize,
            sketch: false,
        }
    }
}

/// Measures with the daemon and the phones that this program is. 0: all was measured; 1: not all; 130: interrupted. The report is
/// drawn in any case.
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
        let measured = measure_all(point, &rig, &mut |progress| {
            tell(progress.left);
            signals.flow(&mut interrupted)
        });
        match interrupted {
            Err(_) => Err(Trouble::Interrupted),
            Ok(()) => measured.map(|of| Taken { sample: of.sample, others: of.others }).map_err(Trouble::Failed),
        }
    });
    match ended {
        Ok(End::Done) => ExitCode::SUCCESS,
        // 128 + SIGINT, as shells have it.
        Ok(End::Interrupted) => ExitCode::from(130),
        Ok(End::Gaps(points)) => complain(&format!("{points} runs could not be made; --resume tries them again")),
        Ok(End::Broken(why)) => complain(&format!("given up: {why}")),
        Err(why) => complain(&why),
    }
}

fn complain(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "strowger bench paper: {text}");
    ExitCode::FAILURE
}

fn play(options: &Options, measure: &mut Measuring<'_>) -> Result<End, String> {
    let able = Able { kernel_sctp: sys::sctp::supported(), prefer: sys::process::may_be_nice(MOST_FAVOURED) };
    let plan = options.plan(able);
    let fresh = course::empty(&plan, machine::this());
    if fresh.rows.is_empty() {
        return Err("nothing to measure: this kernel has no SCTP (as root: modprobe sctp)".to_owned());
    }
    let mut course = Course::begin(&options.out, options.resume, fresh)?;
    let say = |text: &str| drop(writeln!(io::stderr(), "{text}"));
    say(&course.outlook(&plan));
    if plan.sketch {
        say(SKETCH);
    }
    remarks::all(&course::empty(&plan, machine::this()))
        .iter()
        .filter(|text| text.starts_with("Not in"))
        .for_each(|text| say(text));
    let folder = |e: io::Error| format!("{}: {e}", options.out.display());
    course.save().map_err(folder)?;
    let end = course.run(plan.rounds, measure).map_err(folder)?;
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
