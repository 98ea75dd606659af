//! The matrix: which points, for how long, in which order.
//!
//! Owns: the arithmetic of the matrix and of its time. Never measures.

use std::time::Duration;

use super::subjects::Name;
use crate::phone::bench::results::{Arrival, Point, Row};

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
    /// Warm-up and window of a row whose connections are kept.
    pub kept_s: (f64, f64),
    pub rounds: usize,
    pub sketch: bool,
}

/// The paper's three: renewed after 50 operations, after 500, kept.
pub const LIFETIMES: [Option<u64>; 3] = [Some(50), Some(500), None];
/// A row with renewed connections warms up for one idle time-out, and is measured for three: by then as many connections come to
/// their end as are opened.
const IDLE_TIMES: f64 = 3.0;
/// SCTP's autoclose cannot be shorter than 64*T1 (RFC 3261 §18, fact A18): an association must outlive its transactions.
const SCTP_IDLE_S: u64 = 32;
/// The daemon and the phones start, register and end, beside warm-up and window: what that takes until it was seen.
pub const AROUND: Duration = Duration::from_secs(2);

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
            kept_s: (3.0, 5.0),
            rounds: 1,
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
        // UDP knows no connections: one row stands beside all lifetimes. It comes first.
        if !name.has_connections() && Some(&renew_every) != self.lifetimes.first() {
            return;
        }
        let renew_every = renew_every.filter(|_| name.has_connections());
        let idle_s = self.idle_of(name);
        let (warm_up_s, measure_s) = self.times(idle_s.filter(|_| renew_every.is_some()));
        let nices: &[i32] = if name.has_supervisor() { &self.nices } else { &[0] };
        points.extend(nices.iter().map(|&supervisor_nice| Point {
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

    /// A sketch does not wait for associations to be closed: it would take minutes.
    fn times(&self, renewed: Option<u64>) -> (f64, f64) {
        match renewed {
            None => self.kept_s,
            Some(_) if self.sketch => (self.idle_s as f64, self.idle_s as f64 * IDLE_TIMES),
            Some(idle_s) => (idle_s as f64, idle_s as f64 * IDLE_TIMES),
        }
    }

    /// All of it, by what is known before it begins.
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

/// The rows that still want a sample, by index, in the order in which they are taken: round by round over all points, every other
/// round backwards, so that what drifts with time does so for all.
#[must_use]
pub fn to_do(rows: &[Row], rounds: usize) -> Vec<usize> {
    let mut order = Vec::new();
    for round in 0..rounds {
        let missing = (0..rows.len()).filter(|&row| rows.get(row).is_some_and(|row| row.samples.len() <= round));
        match round % 2 {
            0 => order.extend(missing),
            _ => order.extend(missing.rev()),
        }
    }
    order
}
