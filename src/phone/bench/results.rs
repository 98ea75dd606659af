//! What a measurement is asked and what it found: the rows of `results.json`.
//!
//! Owns: the names of the figures and their units; the file is an interface (keys are added, never renamed). Never measures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is measured: a transport, and for our own daemon what its configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// As tables and legends call it: `UDP`, `TCP supervisor`, `TCP supervisor + cache`, `TCP supervisor + cache + queue`,
    /// `TCP single_owner`, `TCP symmetric`, `SCTP kernel`, `SCTP user`; a foreign proxy's begins with its name: `Kamailio UDP`.
    pub name: String,
    /// `udp`, `tcp`, `sctp` (the kernel's) or `sctp-user`: what the phones speak.
    pub transport: String,
    /// Tables of the daemon's configuration, TOML. Empty for a foreign proxy.
    pub tables: String,
}

/// How the calls come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Every caller places its next call when the last one is over.
    Closed,
    /// So many calls a second, whatever becomes of them.
    Open { calls_per_s: f64 },
}

/// One cell of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub subject: Subject,
    /// Callers; there are as many callees.
    pub clients: usize,
    /// Operations after which a phone goes on over a new connection, leaving the old one open. None: never. UDP has no connections:
    /// there it says which rows the point stands beside.
    pub renew_every: Option<u64>,
    pub arrival: Arrival,
    /// Workers of the daemon.
    pub workers: usize,
    /// Nice value of the supervisor process.
    pub supervisor_nice: i32,
    /// The idle time-out, seconds; `None` where nothing idles.
    pub idle_s: Option<u64>,
    pub warm_up_s: f64,
    pub measure_s: f64,
}

/// Who could do no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Not the phones; whether the proxy was, or nobody, `Sample::nobody` says.
    Proxy,
    Phones,
    /// An open loop below what both can do.
    Rate,
}

/// Time from INVITE to 200 as the caller saw it, from the moment the call was due, microseconds: in an open loop without
/// coordinated omission. In a closed one a call is due when the last has ended, so a slow proxy is asked less often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetUp {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// What one run of one point showed, within its measured window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds of the window.
    pub wall_s: f64,
    /// INVITE and BYE transactions completed.
    pub operations: u64,
    pub failed_calls: u64,
    /// Why, in words. Empty in files from before it was kept.
    #[serde(default)]
    pub failures: BTreeMap<String, u64>,
    pub retransmissions: u64,
    /// Connections or associations that the phones opened.
    pub connections: u64,
    /// CPU seconds of all the proxy's processes. 0 with `cpu_unknown`.
    pub cpu_s: f64,
    /// Nobody said which processes are the proxy's. Files from before it was kept have false, and 0 s.
    #[serde(default)]
    pub cpu_unknown: bool,
    /// Of them by kind of process: `master`, `worker`, `timer`, `supervisor`, `owner`; a foreign proxy: by process name.
    pub cpu_by_process: BTreeMap<String, f64>,
    /// The busiest of the proxy's processes, as `phones_busy`. None: nobody said which they are; or a file from before it was kept.
    #[serde(default)]
    pub proxy_busy: Option<f64>,
    /// The busiest phone process: share of the window in which it ran or waited for a processor, 0 to 1.
    pub phones_busy: f64,
    /// CPU seconds of all phone processes.
    pub phones_cpu_s: f64,
    pub limit: Limit,
    pub set_up: SetUp,
    /// What others than proxy and phones used of all processors, 0 to 1; the proxy's own, too, with `cpu_unknown`. More than a little,
    /// and `limit` means nothing: both waited for others. Files from before it was kept have 0.
    #[serde(default)]
    pub others: f64,
    /// What interrupts used of all processors, soft ones too, 0 to 1. Files from before it was kept have 0.
    #[serde(default)]
    pub interrupts: f64,
    /// What nobody used of all processors, 0 to 1. None in files from before it was kept.
    #[serde(default)]
    pub idle: Option<f64>,
    /// Which round it belongs to, from 0. None in files from before it was kept: there it is the place in the row.
    #[serde(default)]
    pub round: Option<usize>,
}

/// More than this share of the processors for others is worth a word.
pub const OTHERS_TOLD: f64 = 0.05;

/// A process that had a processor or waited for one for this share of the window could do no more.
pub const BUSY: f64 = 0.95;

/// More than this share of the processors idle, and no process busy all the time: nobody was the limit.
pub const IDLE: f64 = 0.1;

/// More than this share of failed calls, and it is not the same work any more.
const FAILED: f64 = 0.001;

/// Of so many calls that came to their end and so many that did not.
#[must_use]
pub fn fails(calls: u64, failed: u64) -> bool {
    calls == 0 || failed as f64 > (calls + failed) as f64 * FAILED
}

impl Sample {
    #[must_use]
    pub fn operations_per_s(&self) -> f64 {
        self.operations as f64 / self.wall_s.max(1e-9)
    }

    /// A proxy that was called used some, if only it was looked at.
    #[must_use]
    pub fn knows_cpu(&self) -> bool {
        !self.cpu_unknown && self.cpu_s > 0.0
    }

    /// None: the CPU is unknown.
    #[must_use]
    pub fn operations_per_cpu_s(&self) -> Option<f64> {
        self.knows_cpu().then(|| self.operations as f64 / self.cpu_s)
    }

    /// Did more than one call in a thousand fail, or was there none?
    #[must_use]
    pub fn fails(&self) -> bool {
        // A call is two operations.
        fails(self.operations / 2, self.failed_calls)
    }

    /// 0 unless `knows_cpu`.
    #[must_use]
    pub fn cpu_us_per_operation(&self) -> f64 {
        self.cpu_s * 1e6 / (self.operations.max(1)) as f64
    }

    /// Of one where neither phones nor any process of the proxy did what they could, and processors idled: all waited for something
    /// else than a processor. How much of them. Where there are more processors than processes some always idle. None, too, where nobody said
    /// which processes are the proxy's.
    #[must_use]
    pub fn nobody(&self) -> Option<f64> {
        let waits = self.limit == Limit::Proxy && self.proxy_busy.is_some_and(|busy| busy < BUSY);
        self.idle.filter(|idle| waits && *idle > IDLE)
    }

    /// Did the kernel count interrupts, and with them the receiving half of the network's work, to no process? Then more is missing in
    /// the processes' time than others used, and the interrupts are most of it.
    #[must_use]
    pub fn interrupts_apart(&self) -> bool {
        self.others > OTHERS_TOLD && self.interrupts > self.others / 2.0
    }
}

/// A point and what its runs showed, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub point: Point,
    pub samples: Vec<Sample>,
}

impl Row {
    /// With the number of the round that each was made in.
    pub fn rounds(&self) -> impl Iterator<Item = (usize, &Sample)> {
        self.samples.iter().enumerate().map(|(place, sample)| (sample.round.unwrap_or(place), sample))
    }

    #[must_use]
    pub fn of_round(&self, round: usize) -> Option<&Sample> {
        self.rounds().find(|(of, _)| *of == round).map(|(_, sample)| sample)
    }

    /// Where nobody was the limit: the most that idled of the processors.
    #[must_use]
    pub fn nobody(&self) -> Option<f64> {
        self.samples.iter().filter_map(Sample::nobody).max_by(f64::total_cmp)
    }

    /// Did more than one call in a thousand fail, or was there none, in any of its runs? (A sum would hide one bad run among good ones.)
    #[must_use]
    pub fn fails(&self) -> bool {
        self.samples.is_empty() || self.samples.iter().any(Sample::fails)
    }
}

/// Where and how it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub kernel: String,
    pub kernel_sctp: bool,
    /// Of this program.
    pub version: String,
    /// SHA-256 of its file: one version is built many times.
    #[serde(default)]
    pub program: String,
    /// The nice value that phones were granted. None: nobody looked.
    #[serde(default)]
    pub phones_nice: Option<i32>,
    /// RFC 3339, UTC.
    pub date: String,
    /// The command that makes it again.
    pub command: String,
}

/// The whole of `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Of a reduced grid: nothing to quote.
    pub sketch: bool,
    pub machine: Machine,
    /// Runs of each row that were asked for. 0: not told.
    #[serde(default)]
    pub rounds: usize,
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_cpu_is_no_figure_also_in_files_that_do_not_say_so() {
        let old = r#"{"wall_s": 1.0, "operations": 400, "failed_calls": 0, "retransmissions": 0, "connections": 0,
            "cpu_s": 0.5, "cpu_by_process": {}, "phones_busy": 0.5, "phones_cpu_s": 0.4, "limit": "proxy",
            "set_up": {"p50_us": 1.0, "p99_us": 2.0, "p999_us": 3.0}}"#;
        let known: Sample = serde_json::from_str(old).unwrap();
        assert_eq!((known.cpu_unknown, known.operations_per_cpu_s()), (false, Some(800.0)));
        let not_said = Sample { cpu_s: 0.0, ..known.clone() };
        assert_eq!((not_said.knows_cpu(), not_said.operations_per_cpu_s()), (false, None));
        let said = Sample { cpu_s: 0.0, cpu_unknown: true, ..known };
        assert_eq!((said.knows_cpu(), said.operations_per_cpu_s()), (false, None));
    }
}
