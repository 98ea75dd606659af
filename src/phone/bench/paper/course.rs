//! The run over the matrix: point after point, kept after each, so that a run that is broken off can go on.
//!
//! Owns: `results.json` in its folder, what is still to do, the time left. Never measures itself.

use std::fmt::{self, Display};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::grid::{Plan, takes, to_do, unsettled};
use super::words;
use crate::phone::bench::measure::{AROUND, reasons};
use crate::phone::bench::results::{Limit, Machine, OTHERS_TOLD, Point, Results, Row, Sample};

/// Why a point has no sample.
#[derive(Debug)]
pub enum Trouble {
    /// The person at the terminal wants the end.
    Interrupted,
    Failed(String),
}

/// Takes one sample of a point, and tells meanwhile how long that will still take.
pub type Measuring<'m> = dyn FnMut(&Point, &mut dyn FnMut(Duration)) -> Result<Sample, Trouble> + 'm;

/// So many failed points one after the other end the run: what is wrong then is wrong for all.
const ENOUGH: usize = 3;

/// Why a run does not begin.
#[derive(Debug)]
pub enum Refused {
    /// Something else should have been typed.
    Usage(String),
    Failed(String),
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// Points that could not be measured.
    Gaps(usize),
    Interrupted,
    /// Too many failed one after the other; the last one's words.
    Broken(String),
}

#[derive(Debug)]
pub struct Course {
    file: PathBuf,
    pub results: Results,
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Refused::Usage(text) | Refused::Failed(text)) = self;
        f.write_str(text)
    }
}

impl Course {
    /// A new one in an empty place, or with `resume` the one that lies there.
    ///
    /// # Errors
    /// There is one and it may not be gone on with: nobody asked, or it is of another grid or machine.
    pub fn begin(folder: &Path, resume: bool, fresh: Results) -> Result<Course, Refused> {
        let file = folder.join("results.json");
        let failed = |path: &Path, what: &dyn Display| Refused::Failed(format!("{}: {what}", path.display()));
        fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Course { file, results: fresh }),
            Err(e) => return Err(failed(&file, &e)),
        };
        if !resume {
            return Err(Refused::Usage(format!(
                "{} is there already: --resume goes on with it, or give another --out",
                file.display()
            )));
        }
        let kept: Results = serde_json::from_str(&text).map_err(|e| failed(&file, &e))?;
        match difference(&kept, &fresh) {
            Some(what) => {
                Err(Refused::Usage(format!("{} is of another run: {what}. Give another --out", file.display())))
            }
            None => Ok(Course { file, results: Results { rounds: fresh.rounds, ..kept } }),
        }
    }

    /// What lies before it.
    #[must_use]
    pub fn outlook(&self, plan: &Plan) -> String {
        let (all, rows) = (self.results.rows.len() * plan.rounds, &self.results.rows);
        let again = if plan.settle { unsettled(rows, plan.rounds).len() } else { 0 };
        let mut text = format!("{} points, {}", self.results.rows.len(), words::times(plan.rounds));
        match to_do(rows, plan.rounds).len() + again {
            0 => text += ": all measured.",
            n if n < all => text += &format!(": {n} of {all} runs to do."),
            _ => text += &format!(": {}.", words::time(plan.estimate().as_secs_f64())),
        }
        if plan.settle {
            text += " Where two runs differ by more than 5 %, a third.";
        }
        text + " Ctrl-C ends it and leaves a report; --resume goes on."
    }

    /// Takes what samples are missing.
    pub fn run(&mut self, rounds: usize, settle: bool, measure: &mut Measuring<'_>) -> io::Result<End> {
        let order = to_do(&self.results.rows, rounds);
        let end = self.pass(&order, measure)?;
        if !settle || end != End::Done {
            return Ok(end);
        }
        let order = unsettled(&self.results.rows, rounds);
        if !order.is_empty() {
            said(&format!("One more run where two differ: {}.", order.len()));
        }
        self.pass(&order, measure)
    }

    fn pass(&mut self, order: &[(usize, usize)], measure: &mut Measuring<'_>) -> io::Result<End> {
        let (mut left, mut gaps, mut in_a_row) = (Left::of(&self.results.rows, order), 0, 0);
        for (n, &(row, round)) in order.iter().enumerate() {
            let Some(Row { point, .. }) = self.results.rows.get(row) else { continue };
            let point = point.clone();
            let mut line = Line::begin((n + 1, order.len()), &left, &point);
            let began = now();
            let taken = measure(&point, &mut |of_this| line.again(of_this));
            left.over(&point, now() - began);
            match taken {
                Ok(sample) => {
                    tell(&sample);
                    in_a_row = 0;
                    let sample = Sample { round: Some(round), ..sample };
                    self.results.rows.get_mut(row).into_iter().for_each(|row| row.samples.push(sample.clone()));
                    self.save()?;
                }
                Err(Trouble::Interrupted) => {
                    said("interrupted");
                    return Ok(End::Interrupted);
                }
                Err(Trouble::Failed(why)) => {
                    said(&format!("not measured: {why}"));
                    (gaps, in_a_row) = (gaps + 1, in_a_row + 1);
                    if in_a_row == ENOUGH {
                        return Ok(End::Broken(why));
                    }
                }
            }
        }
        Ok(if gaps == 0 { End::Done } else { End::Gaps(gaps) })
    }

    /// Whole or not at all: written beside, then renamed.
    pub fn save(&self) -> io::Result<()> {
        let beside = self.file.with_extension("json.new");
        let mut text = serde_json::to_string_pretty(&self.results)?;
        text.push('\n');
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.file)
    }
}

/// What makes two runs two: their samples must not be mixed.
#[must_use]
pub fn difference(kept: &Results, fresh: &Results) -> Option<String> {
    let points = |results: &Results| results.rows.iter().map(|row| row.point.clone()).collect::<Vec<_>>();
    let (of_kept, of_fresh) = (points(kept), points(fresh));
    if kept.sketch != fresh.sketch {
        return Some("one is a sketch, the other is not".to_owned());
    }
    if of_kept.len() != of_fresh.len() {
        return Some(format!("it has {} points, this grid {}", of_kept.len(), of_fresh.len()));
    }
    if let Some((was, is)) = of_kept.iter().zip(&of_fresh).find(|(was, is)| was != is) {
        return Some(match (words::point(was), words::point(is)) {
            (was, is) if was != is => format!("it has \"{was}\" where this grid has \"{is}\""),
            (was, _) => format!("\"{was}\" has another duration, idle time-out or configuration"),
        });
    }
    let same = |what: fn(&Machine) -> String| what(&kept.machine) == what(&fresh.machine);
    let machine = same(|m| format!("{} {} {} {}", m.processor, m.processors, m.kernel, m.kernel_sctp));
    let nice =
        |machine: &Machine| machine.phones_nice.map_or_else(|| "an unknown nice value".to_owned(), words::at_nice);
    Some(match () {
        () if !machine => "it was made on another machine or kernel".to_owned(),
        () if !same(|m| m.version.clone()) => format!("it was made by version {}", kept.machine.version),
        () if !same(|m| m.program.clone()) => "it was made by another build of this program".to_owned(),
        () if kept.machine.phones_nice != fresh.machine.phones_nice => {
            format!("its phones ran at {}, now they would at {}", nice(&kept.machine), nice(&fresh.machine))
        }
        () => return None,
    })
}

/// The time that is left, told from the points still to do and from what starting and ending took so far.
struct Left {
    planned: Duration,
    points: u32,
    around: Duration,
    measured: u32,
}

impl Left {
    fn of(rows: &[Row], order: &[(usize, usize)]) -> Left {
        let planned = order.iter().filter_map(|&(row, _)| rows.get(row)).map(|row| takes(&row.point)).sum();
        Left { planned, points: u32::try_from(order.len()).unwrap_or(u32::MAX), around: Duration::ZERO, measured: 0 }
    }

    fn over(&mut self, point: &Point, took: Duration) {
        self.planned = self.planned.saturating_sub(takes(point));
        self.points = self.points.saturating_sub(1);
        self.around += took.saturating_sub(takes(point));
        self.measured += 1;
    }

    fn seconds(&self) -> f64 {
        let around = self.around.checked_div(self.measured).unwrap_or(AROUND);
        (self.planned + around * self.points).as_secs_f64()
    }
}

/// What stands on the terminal while a point is measured.
struct Line {
    count: (usize, usize),
    point: String,
    /// Of all points after this one, seconds.
    after: f64,
    shown: String,
    terminal: bool,
}

impl Line {
    fn begin(count: (usize, usize), left: &Left, point: &Point) -> Line {
        let after = left.seconds() - takes(point).as_secs_f64();
        let (terminal, point) = (io::stderr().is_terminal(), words::point(point));
        let mut line = Line { count, point, after, shown: String::new(), terminal };
        line.show(left.seconds());
        line
    }

    /// Only where somebody looks, and something has changed.
    fn again(&mut self, of_this: Duration) {
        if self.terminal {
            self.show(self.after + of_this.as_secs_f64());
        }
    }

    fn show(&mut self, seconds: f64) {
        let (n, of) = self.count;
        let width = of.to_string().len();
        let text = format!("[{n:width$}/{of}, {} left] {}: ", words::time(seconds), self.point);
        if text != self.shown {
            let begin = if self.shown.is_empty() { "" } else { "\r\x1b[K" };
            let mut stderr = io::stderr();
            let _ = write!(stderr, "{begin}{text}");
            let _ = stderr.flush();
            self.shown = text;
        }
    }
}

fn tell(sample: &Sample) {
    let mut text = format!(
        "{} operations/s, {} per CPU-second",
        words::whole(sample.operations_per_s()),
        sample.operations_per_cpu_s().map_or_else(|| "?".to_owned(), words::whole)
    );
    if sample.limit == Limit::Phones {
        text += " (the phones were the limit)";
    }
    if let Some(idle) = sample.nobody() {
        text += &format!(" ({:.0} % of the processors idle)", idle * 100.0);
    }
    if sample.others > OTHERS_TOLD {
        let whose = if sample.interrupts_apart() { ", mostly in interrupts" } else { "" };
        text += &format!(" (others used {:.0} % of the processors{whose})", sample.others * 100.0);
    }
    if sample.failed_calls > 0 {
        let why = reasons(&sample.failures);
        text += &format!(", {} calls failed: {why}", words::whole(sample.failed_calls as f64));
    }
    said(&text);
}

fn said(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The rows of a run that has not begun.
#[must_use]
pub fn empty(plan: &Plan, machine: Machine) -> Results {
    let rows = plan.points().into_iter().map(|point| Row { point, samples: Vec::new() }).collect();
    Results { sketch: plan.sketch, machine, rounds: plan.rounds, rows }
}

#[allow(clippy::disallowed_methods, reason = "a measurement is outside the message path")]
fn now() -> Instant {
    Instant::now()
}
