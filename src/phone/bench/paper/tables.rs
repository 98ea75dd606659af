//! The tables: ratios to UDP, every row, the CPU by process; and the page `table.md`.
//!
//! Owns: what stands in which column. Never decides who counts (see `summary`).

use std::collections::BTreeSet;

use super::remarks;
use super::subjects::Name;
use super::summary::{self, Measure, Standing, ratio, standing};
use super::{verdict, words};
use crate::phone::bench::results::{Limit, Point, Results, Row, Sample};
use crate::phone::bench::show;
use crate::phone::bench::spread::Spread;

/// Text by column and row; the first columns are words, the others figures.
#[derive(Clone, Debug)]
pub struct Table {
    pub title: String,
    /// How to read it.
    pub note: String,
    pub head: Vec<String>,
    /// So many columns from the left are words.
    pub words: usize,
    pub rows: Vec<Vec<String>>,
}

/// Marks of rows that do not count.
pub const PHONES: &str = "○";
pub const FAILS: &str = "†";
pub const OTHERS: &str = "‡";

/// All of them.
#[must_use]
pub fn all(results: &Results) -> Vec<Table> {
    let mut tables: Vec<Table> = Measure::ALL.into_iter().rev().map(|measure| ratios(results, measure)).collect();
    tables.push(every_row(results));
    tables.push(seen_by_the_phones(results));
    tables.push(processes(results));
    tables
}

/// One line for each subject: from the worst to the best ratio. The paper's own beside them.
#[must_use]
pub fn glance(results: &Results) -> Table {
    let range = |of: &[&Row], measure| {
        let ratios = of.iter().filter_map(|row| ratio(results, row, measure));
        Spread::of(ratios.map(|ratio| ratio.median)).map_or_else(|| "\u{2013}".to_owned(), words::range)
    };
    let mut rows = Vec::new();
    for (name, nice) in summary::different(results, |point| (point.subject.name.clone(), point.supervisor_nice)) {
        if name == Name::Udp.text() {
            continue;
        }
        let same = |row: &&Row| (&row.point.subject.name, row.point.supervisor_nice) == (&name, nice);
        let of: Vec<&Row> = results.rows.iter().filter(same).collect();
        let counted = of.iter().filter(|row| ratio(results, row, Measure::PerCpuSecond).is_some()).count();
        let supervised = Name::of(&name).is_some_and(Name::has_supervisor);
        let label = if supervised { format!("{name}, nice {}", words::nice(nice)) } else { name };
        let [seconds, cpu] = Measure::ALL.map(|measure| range(&of, measure));
        rows.push(vec![label, cpu, seconds, format!("{counted} of {}", of.len())]);
    }
    rows.push(vec![PAPER.0.to_owned(), "\u{2013}".to_owned(), PAPER.1.to_owned(), "\u{2013}".to_owned()]);
    Table {
        title: "At a glance".to_owned(),
        note: "As a share of UDP's of the same block of the same round, from the least to the most of all points that count."
            .to_owned(),
        head: ["", "operations per CPU-second", "operations per second", "points that count"].map(str::to_owned).into(),
        words: 1,
        rows,
    }
}

/// What is known of the paper's own figures.
const PAPER: (&str, &str) = ("The paper: OpenSER over TCP after all its mends", "0.50\u{2013}0.78");

/// One line for each kind of row, one column for each number of clients.
fn ratios(results: &Results, measure: Measure) -> Table {
    let clients = summary::different(results, |point| point.clients);
    let key = |point: &Point| (point.subject.name.clone(), point.workers, point.renew_every, point.supervisor_nice);
    let mut rows = Vec::new();
    for line in summary::different(results, key) {
        if line.0 == Name::Udp.text() {
            continue;
        }
        let of: Vec<&Row> = results.rows.iter().filter(|row| key(&row.point) == line).collect();
        let Some(first) = of.first() else { continue };
        let mut cells = labels(&first.point);
        cells.extend(clients.iter().map(|&clients| {
            of.iter()
                .find(|row| row.point.clients == clients)
                .map_or_else(String::new, |row| ratio_cell(results, row, measure))
        }));
        rows.push(cells);
    }
    let mut head: Vec<String> = LABELS.map(str::to_owned).into();
    head.extend(clients.iter().map(|&clients| format!("{} clients", words::whole(clients as f64))));
    Table {
        title: format!("Beside UDP: {}", measure.text()),
        note: format!(
            "{} divided by UDP's of the same round, with as many clients and workers, measured at one end of the same block (some minutes away; every \
             second round runs backwards): the median of the rounds, and from least to most of them; 1 is as good as UDP, more is better. No ratio, here or with UDP: {}. \
             \u{2013}: not measured; empty: not in the matrix.",
            words::capital(measure.text()),
            marks()
        ),
        head,
        words: LABELS.len(),
        rows,
    }
}

fn ratio_cell(results: &Results, row: &Row, measure: Measure) -> String {
    if let Some(ratio) = ratio(results, row, measure) {
        let (median, range) = (format!("{:.2}", ratio.median), words::range(ratio));
        return if median == range { median } else { format!("{median} ({range})") };
    }
    let udp = summary::reference(&results.rows, &row.point).map_or(Standing::Missing, standing);
    mark(standing(row)).or(mark(udp)).unwrap_or("\u{2013}").to_owned()
}

fn marks() -> String {
    format!(
        "{PHONES}: the phones were the limit; {FAILS}: more than one call in a thousand failed; {OTHERS}: others used more than 10 % of \
         the processors; of operations per second also where UDP waited for something else than a processor"
    )
}

/// None of a row that counts.
fn mark(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Counts => None,
        Standing::Phones => Some(PHONES),
        Standing::Fails => Some(FAILS),
        Standing::Others => Some(OTHERS),
        Standing::Missing => Some("\u{2013}"),
    }
}

const LABELS: [&str; 4] = ["subject", "nice", "workers", "connections"];

fn labels(point: &Point) -> Vec<String> {
    let name = Name::of(&point.subject.name);
    let nice = if name.is_some_and(Name::has_supervisor) { words::nice(point.supervisor_nice) } else { String::new() };
    let connections = name.map_or_else(String::new, |name| words::lifetime(name, point.renew_every));
    vec![point.subject.name.clone(), nice, point.workers.to_string(), connections]
}

fn every_row(results: &Results) -> Table {
    row_by_row(
        results,
        "Every row",
        "Medians, with least and most of all runs in brackets. Others: the most that any process but proxy and phones, or the host, \
         used of the processors.",
        &["operations/s", "operations/CPU-s", "CPU µs/operation", "phones busy", "others", "limit", "runs"],
        work,
    )
}

fn seen_by_the_phones(results: &Results) -> Table {
    row_by_row(
        results,
        "What the phones saw",
        "Set-up time is from INVITE to 200 (medians of all runs); in this closed loop callers wait for their last call before they place the \
         next, so it tells what a slow proxy's clients wait, and nothing of calls at a given rate. Opened: connections or associations, with UDP none. Sent again: \
         messages that the phones repeated, in all runs; so are failed calls.",
        &["set-up p50 ms", "p99 ms", "p99.9 ms", "opened/s", "failed calls", "sent again"],
        seen,
    )
}

fn row_by_row(
    results: &Results,
    title: &str,
    note: &str,
    columns: &[&str],
    cells_of: fn(&Row) -> Vec<String>,
) -> Table {
    let mut head: Vec<String> = LABELS.map(str::to_owned).into();
    head.push("clients".to_owned());
    head.extend(columns.iter().map(|&column| column.to_owned()));
    let rows = results.rows.iter().map(|row| {
        let mut cells = labels(&row.point);
        cells.push(words::whole(row.point.clients as f64));
        match row.samples.is_empty() {
            true => cells.extend(columns.iter().map(|_| "\u{2013}".to_owned())),
            false => cells.extend(cells_of(row)),
        }
        cells
    });
    Table { title: title.to_owned(), note: note.to_owned(), head, words: LABELS.len(), rows: rows.collect() }
}

fn median(row: &Row, what: impl Fn(&Sample) -> f64) -> f64 {
    Spread::over(row, what).map_or(0.0, |spread| spread.median)
}

fn work(row: &Row) -> Vec<String> {
    let shown = |spread: Option<Spread>, how: &dyn Fn(Spread) -> String| spread.map_or_else(|| "?".to_owned(), how);
    let with_spread = |spread: Spread| {
        let [median, least, most] = [spread.median, spread.least, spread.most].map(words::whole);
        if row.samples.len() > 1 { format!("{median} ({least}\u{2013}{most})") } else { median }
    };
    let cpu_us = |sample: &Sample| sample.knows_cpu().then(|| sample.cpu_us_per_operation());
    vec![
        shown(Spread::over(row, Sample::operations_per_s), &with_spread),
        shown(Spread::of_known(row, Sample::operations_per_cpu_s), &with_spread),
        shown(Spread::of_known(row, cpu_us), &|spread| format!("{:.1}", spread.median)),
        format!("{:.0} %", median(row, |sample| sample.phones_busy * 100.0)),
        format!("{:.0} %", Spread::over(row, |sample| sample.others * 100.0).map_or(0.0, |spread| spread.most)),
        limit(row),
        row.samples.len().to_string(),
    ]
}

fn seen(row: &Row) -> Vec<String> {
    let sum = |what: fn(&Sample) -> u64| words::whole(row.samples.iter().map(what).sum::<u64>() as f64);
    let ms = |what: fn(&Sample) -> f64| format!("{:.2}", median(row, what) / 1e3);
    vec![
        ms(|sample| sample.set_up.p50_us),
        ms(|sample| sample.set_up.p99_us),
        ms(|sample| sample.set_up.p999_us),
        words::whole(median(row, |sample| sample.connections as f64 / sample.wall_s.max(1e-9))),
        sum(|sample| sample.failed_calls),
        sum(|sample| sample.retransmissions),
    ]
}

/// Who was the limit, with the mark of the ratios.
fn limit(row: &Row) -> String {
    match standing(row) {
        Standing::Counts => show::limit(Limit::Proxy, row.nobody()),
        Standing::Phones => "phones ○".to_owned(),
        Standing::Fails => "calls failed †".to_owned(),
        Standing::Others => "others ‡".to_owned(),
        Standing::Missing => "\u{2013}".to_owned(),
    }
}

/// Where the proxy's CPU went: the operator shows here.
fn processes(results: &Results) -> Table {
    let samples = || results.rows.iter().flat_map(|row| &row.samples);
    let kinds: BTreeSet<&str> = samples().flat_map(|sample| sample.cpu_by_process.keys().map(String::as_str)).collect();
    let rows = results.rows.iter().filter(|row| !row.samples.is_empty()).map(|row| {
        let mut cells = labels(&row.point);
        cells.push(words::whole(row.point.clients as f64));
        cells.extend(kinds.iter().map(|&kind| {
            let of =
                |sample: &Sample| sample.cpu_by_process.get(kind).map(|s| s * 1e6 / sample.operations.max(1) as f64);
            Spread::of(row.samples.iter().filter_map(of))
                .map_or_else(String::new, |spread| format!("{:.1}", spread.median))
        }));
        cells
    });
    let mut head: Vec<String> = LABELS.map(str::to_owned).into();
    head.push("clients".to_owned());
    head.extend(kinds.iter().map(|&kind| kind.to_owned()));
    Table {
        title: "CPU by process".to_owned(),
        note: "Microseconds of CPU per operation, median, for each kind of process of the proxy; all workers together."
            .to_owned(),
        head,
        words: LABELS.len(),
        rows: rows.collect(),
    }
}

impl Table {
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<String> =
            (0..self.head.len()).map(|n| if n < self.words { "---" } else { "---:" }.to_owned()).collect();
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.note);
        text += &line(&self.head);
        text += &line(&rule);
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }
}

/// `table.md`.
#[must_use]
pub fn page(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = "# The paper's experiment\n\n".to_owned();
    if results.sketch {
        text += &format!("**{}**\n\n", super::SKETCH);
    }
    text += &format!(
        "{}, {} processors, Linux {}; strowger {}; {}.\n\n    {}\n\n",
        machine.processor, machine.processors, machine.kernel, machine.version, machine.date, machine.command
    );
    remarks::all(results).iter().for_each(|remark| text += &format!("- {remark}\n"));
    text += "\n## Verdict\n\n";
    verdict::all(results).iter().for_each(|line| text += &format!("- {line}\n"));
    for table in [glance(results)].into_iter().chain(all(results)) {
        text += "\n";
        text += &table.markdown();
    }
    text
}
