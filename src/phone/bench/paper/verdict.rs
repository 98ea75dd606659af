//! The questions that the run was made for, each answered in a line.
//!
//! Owns: the goal for TCP. Never decides who counts (see `summary`).

use super::subjects::Name;
use super::summary::{self, Measure, ratio};
use super::words;
use crate::phone::bench::results::{Results, Row};
use crate::phone::bench::spread::Spread;

/// The least that TCP `symmetric` shall reach of UDP, by CPU, with each lifetime; OpenSER reached 0.50 to 0.78.
const GOAL: f64 = 0.85;

/// A line for each lifetime of TCP `symmetric` and of both kinds of SCTP, as far as they were in the matrix.
#[must_use]
pub fn all(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for name in [Name::Symmetric, Name::SctpKernel, Name::SctpUser] {
        for renew_every in summary::different(results, |point| point.renew_every) {
            let is = |row: &&Row| row.point.subject.name == name.text() && row.point.renew_every == renew_every;
            let rows: Vec<&Row> = results.rows.iter().filter(is).collect();
            if !rows.is_empty() {
                let what = format!("{}, {}", name.text(), words::lifetime(name, renew_every));
                lines.push(line(results, &rows, &what, (name == Name::Symmetric).then_some(GOAL)));
            }
        }
    }
    if lines.is_empty() {
        lines.push("None: neither TCP symmetric nor SCTP was in this run.".to_owned());
    }
    lines
}

fn line(results: &Results, rows: &[&Row], what: &str, goal: Option<f64>) -> String {
    let ratios: Vec<f64> =
        rows.iter().filter_map(|row| ratio(results, row, Measure::PerCpuSecond)).map(|ratio| ratio.median).collect();
    let (counting, all) = (ratios.len(), rows.len());
    let counted = format!("{counting} of {all} points count");
    let Some(spread) = Spread::of(ratios) else { return format!("{what}: no verdict, as {counted}.") };
    let goal = match goal {
        None => String::new(),
        Some(goal) if spread.least >= goal && counting == all => format!("; the goal of {goal} is met"),
        Some(goal) if spread.least >= goal => {
            format!("; the goal of {goal} is met by those that count; {} of {all} do not", all - counting)
        }
        Some(goal) => format!("; the goal of {goal} is missed"),
    };
    format!("{what}: {} of UDP's operations per CPU-second ({counted}){goal}.", words::range(spread))
}
