//! The matrix: which points, for how long, in which order.
//!
//! Owns: the arithmetic of the matrix and of its time. Never measures.

use std::time::Duration;

use super::subjects::Name;
use super::summary;
use crate::phone::bench::measure::AROUND;
use crate::phone::bench::results::{Arrival, Point, Row, Sample};
use crate::phone::bench::spread::Spread;

/// What was asked for, with everything decided that depends on the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub subjects: Vec<Name>,
    pub clients: Vec<usize>,
    /// Operations per connection, for the subjects that have connections.
    pub lifetimes: Vec<Option<u64>>,
    pub workers: Vec<usize>,
    /// Of the supervisor. The first is the one that the figures show.
    pub nices: Vec<i32>,
    pub idle_s: u64,
    /// Warm-up of every row, if its connections do not ask for more.
    pub warm_up_s: f64,
    /// Window of a row whose connections are kept, or that has none.
    pub kept_s: f64,
    pub rounds: usize,
    /// One more run where two differ too much.
    pub settle: bool,
    pub sketch: bool,
}

/// The paper's three: renewed after 50 operations, after 500, kept.
pub const LIFETIMES: [Option<u64>; 3] = [Some(50), Some(500), None];
/// A row with renewed connections is measured for so many idle time-outs, and warms up for as long as a connection lives without
/// traffic: by then as many come to their end as are opened.
const IDLE_TIMES: f64 = 3.0;
/// Behind a supervisor it lives two: a worker returns it after one, the supervisor closes it after another.
const SUPERVISED_TIMES: f64 = 2.0;
/// The paper had 100, 500 and 1,000 clients.
const MIDDLE: usize = 500;
/// Runs of one row that differ by more than this want another.
const DIFFER: f64 = 0.05;
/// SCTP's autoclose cannot be shorter than 64*T1 (RFC 3261 §18, fact A18): an association must outlive its transactions.
const SCTP_IDLE_S: u64 = 32;

impl Plan {
    /// Less than three minutes on two processors, nothing to quote.
    #[must_use]
    pub fn sketch(subjects: Vec<Name>, nice: i32) -> Plan {
        Plan {
            subjects,
            clients: vec![100],
            lifetimes: vec![Some(50), None],
            workers: vec![2],
            nices: vec![nice],
            idle_s: 2,
            warm_up_s: 3.0,
            kept_s: 5.0,
            rounds: 1,
            settle: false,
            sketch: true,
        }
    }

    /// All points, those to be compared beside each other: what the machine does meanwhile hits all of them alike.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for &workers in &self.workers {
            for &clients in &self.clients {
                for &renew_every in &self.lifetimes {
                    for &name in &self.subjects {
                        self.of(name, workers, clients, renew_every, &mut points);
                    }
                }
            }
        }
        points
    }

    fn of(&self, name: Name, workers: usize, clients: usize, renew_every: Option<u64>, points: &mut Vec<Point>) {
        // UDP knows no connections, but is measured with each lifetime, so that what it divides was measured in the same block.
        // Alone it divides nothing.
        let alone = !self.subjects.iter().any(|name| name.has_connections());
        if alone && renew_every.is_some() {
            return;
        }
        // What costs much and tells little is done with one number of clients.
        let here = Some(clients) == self.middle();
        if name.is_sctp() && renew_every.is_some() && renew_every == self.seldom() && !here {
            return;
        }
        let idle_s = self.idle_of(name);
        let (warm_up_s, measure_s) = self.times(name, idle_s.filter(|_| renew_every.is_some()));
        let most = if here { self.nices.len() } else { 1 };
        let nices: &[i32] = if name.has_supervisor() { &self.nices } else { &[0] };
        points.extend(nices.iter().take(most).map(|&supervisor_nice| Point {
            subject: name.subject(self.idle_s),
            clients,
            renew_every,
            arrival: Arrival::Closed,
            workers,
            supervisor_nice,
            idle_s,
            warm_up_s,
            measure_s,
        }));
    }

    fn idle_of(&self, name: Name) -> Option<u64> {
        match name {
            Name::Udp => None,
            _ if name.is_sctp() => Some(self.idle_s.max(SCTP_IDLE_S)),
            _ => Some(self.idle_s),
        }
    }

    /// Of the numbers of clients the one that has all rows: the paper's middle one, or ours.
    fn middle(&self) -> Option<usize> {
        let ours = self.clients.get(self.clients.len() / 2);
        self.clients.iter().find(|&&clients| clients == MIDDLE).or(ours).copied()
    }

    /// The lifetime of connections renewed least often, where there are two: for SCTP, whose windows are long, it lies between the
    /// others.
    fn seldom(&self) -> Option<u64> {
        let renewed = || self.lifetimes.iter().flatten().copied();
        renewed().max().filter(|_| renewed().count() > 1)
    }

    /// A sketch does not wait for associations to be closed: it would take minutes.
    fn times(&self, name: Name, renewed: Option<u64>) -> (f64, f64) {
        let lives = if name.has_supervisor() { SUPERVISED_TIMES } else { 1.0 };
        match renewed.map(|idle_s| idle_s as f64) {
            None => (self.warm_up_s, self.kept_s),
            Some(_) if self.sketch => (self.idle_s as f64, self.idle_s as f64 * IDLE_TIMES),
            Some(idle_s) => (self.warm_up_s.max(idle_s * lives), idle_s * IDLE_TIMES),
        }
    }

    /// All of it, by what is known before it begins: not who wants one more run.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        self.points().iter().map(|point| takes(point) + AROUND).sum::<Duration>()
            * u32::try_from(self.rounds).unwrap_or(1)
    }
}

/// Warm-up and window.
#[must_use]
pub fn takes(point: &Point) -> Duration {
    Duration::from_secs_f64((point.warm_up_s + point.measure_s).max(0.0))
}

/// The rows that still want a sample, by index, each with its round, in the order in which they are taken: round by round over all
/// points, every other round backwards, so that what drifts with time does so for all.
#[must_use]
pub fn to_do(rows: &[Row], rounds: usize) -> Vec<(usize, usize)> {
    let mut order = Vec::new();
    for round in 0..rounds {
        let wants = |row: &usize| rows.get(*row).is_some_and(|row| row.of_round(round).is_none());
        let missing = (0..rows.len()).filter(wants).map(|row| (row, round));
        match round % 2 {
            0 => order.extend(missing),
            _ => order.extend(missing.rev()),
        }
    }
    order
}

/// The rows that want one more run than `rounds`, as two of theirs differ too much; and UDP's beside them, for ratios are of one round.
/// With that round.
#[must_use]
pub fn unsettled(rows: &[Row], rounds: usize) -> Vec<(usize, usize)> {
    let asks = |row: &Row| row.samples.len() > rounds || (row.samples.len() == rounds && differs(row));
    let divides = |udp: &Row| {
        rows.iter().any(|row| asks(row) && summary::reference(rows, &row.point).is_some_and(|of| of.point == udp.point))
    };
    let wants = |row: &Row| row.samples.len() == rounds && (asks(row) || divides(row));
    (0..rows.len()).filter(|&row| rows.get(row).is_some_and(wants)).map(|row| (row, rounds)).collect()
}

fn differs(row: &Row) -> bool {
    let spread = Spread::of_known(row, Sample::operations_per_cpu_s);
    spread.is_some_and(|spread| spread.most > spread.least * (1.0 + DIFFER))
}
