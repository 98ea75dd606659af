//! What the samples of a row come to, and what a row is beside UDP's.
//!
//! Owns: median, spread, who counts, ratios. Never draws.

use super::subjects::Name;
use crate::phone::bench::results::{Limit, Point, Results, Row, Sample};
use crate::phone::bench::spread::Spread;

/// What is compared. The paper had the first; the second does not depend on who else uses the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    PerSecond,
    PerCpuSecond,
}

impl Measure {
    pub const ALL: [Measure; 2] = [Measure::PerSecond, Measure::PerCpuSecond];

    /// None: the CPU is unknown.
    #[must_use]
    pub fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Measure::PerSecond => Some(sample.operations_per_s()),
            Measure::PerCpuSecond => sample.operations_per_cpu_s(),
        }
    }

    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Measure::PerSecond => "operations per second",
            Measure::PerCpuSecond => "operations per CPU-second",
        }
    }

    /// As part of a file's name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Measure::PerSecond => "per-second",
            Measure::PerCpuSecond => "per-cpu-second",
        }
    }
}

/// Whether a row may be compared with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The proxy was the limit.
    Counts,
    /// In at least one sample the phones were, so the proxy could have done more.
    Phones,
    /// More than one call in a thousand failed: it is not the same work any more.
    Fails,
    /// In at least one sample others used so much of the processors that the figure is theirs, too.
    Others,
    /// No sample.
    Missing,
}

/// What others may use of the processors, and the row still counts.
const OTHERS_AT_MOST: f64 = 0.1;

#[must_use]
pub fn standing(row: &Row) -> Standing {
    match row.samples.as_slice() {
        [] => Standing::Missing,
        samples if samples.iter().any(|sample| sample.limit != Limit::Proxy) => Standing::Phones,
        _ if row.fails() => Standing::Fails,
        samples if samples.iter().any(|sample| sample.others > OTHERS_AT_MOST) => Standing::Others,
        _ => Standing::Counts,
    }
}

/// UDP's row with the same clients and workers that was measured beside those of this lifetime.
#[must_use]
pub fn reference<'r>(rows: &'r [Row], point: &Point) -> Option<&'r Row> {
    let key = |point: &Point| (point.workers, point.clients, point.renew_every);
    rows.iter().find(|row| row.point.subject.name == Name::Udp.text() && key(&row.point) == key(point))
}

/// Each run divided by UDP's of the same round, so that what the machine did in those minutes is in both. None unless both rows count; nor
/// of operations per second where UDP waited for something else than a processor: then it is the phones' round trips that are compared.
#[must_use]
pub fn ratio(results: &Results, row: &Row, measure: Measure) -> Option<Spread> {
    let udp = reference(&results.rows, &row.point)?;
    if standing(row) != Standing::Counts || standing(udp) != Standing::Counts {
        return None;
    }
    if measure == Measure::PerSecond && udp.nobody().is_some() {
        return None;
    }
    let both = row.rounds().filter_map(|(round, own)| Some((own, udp.of_round(round)?)));
    let rounds = both.filter_map(|(own, of)| Some((measure.of(own)?, measure.of(of)?)));
    Spread::of(rounds.filter(|&(_, of)| of > 0.0).map(|(own, of)| own / of))
}

/// UDP with so many clients, whatever it stood beside.
#[must_use]
pub fn udp(results: &Results, workers: usize, clients: usize) -> Option<Row> {
    let of = |row: &&Row| {
        row.point.subject.name == Name::Udp.text() && (row.point.workers, row.point.clients) == (workers, clients)
    };
    let mut rows = results.rows.iter().filter(of);
    let first = rows.next()?.clone();
    Some(rows.fold(first, |mut all, row| {
        all.samples.extend_from_slice(&row.samples);
        all
    }))
}

/// All different values of something, in the order of the rows.
pub fn different<T: PartialEq>(results: &Results, what: impl Fn(&Point) -> T) -> Vec<T> {
    let mut values = Vec::new();
    for value in results.rows.iter().map(|row| what(&row.point)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// The nice values of the supervisor, most favoured first: the first is the one that figures show, as the paper did.
#[must_use]
pub fn nices(results: &Results) -> Vec<i32> {
    let supervised = |row: &&Row| Name::of(&row.point.subject.name).is_some_and(Name::has_supervisor);
    let mut nices: Vec<i32> = results.rows.iter().filter(supervised).map(|row| row.point.supervisor_nice).collect();
    nices.sort_unstable();
    nices.dedup();
    nices
}

/// The row of a cell of the matrix.
#[must_use]
pub fn row_of(
    results: &Results,
    name: Name,
    workers: usize,
    clients: usize,
    renew: Option<u64>,
    nice: i32,
) -> Option<&Row> {
    let nice = if name.has_supervisor() { nice } else { 0 };
    results.rows.iter().find(|row| {
        let point = &row.point;
        point.subject.name == name.text()
            && (point.workers, point.clients, point.renew_every, point.supervisor_nice)
                == (workers, clients, renew, nice)
    })
}
