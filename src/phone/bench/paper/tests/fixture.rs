//! Results by hand, with figures that could be: for the drawing only. No measurement.

use std::collections::BTreeMap;

use crate::phone::bench::paper::course;
use crate::phone::bench::paper::grid::{LIFETIMES, Plan};
use crate::phone::bench::paper::subjects::Name;
use crate::phone::bench::results::{Limit, Machine, Point, Results, Sample, SetUp};

pub fn machine() -> Machine {
    Machine {
        processor: "Fixture <i> & Co. 2.6 GHz".to_owned(),
        processors: 2,
        kernel: "6.1.0".to_owned(),
        kernel_sctp: true,
        version: "0.1.0".to_owned(),
        program: "0f".repeat(32),
        phones_nice: Some(-15),
        date: "2026-11-22T23:00:00Z".to_owned(),
        command: "strowger bench paper --out x".to_owned(),
    }
}

pub fn plan() -> Plan {
    Plan {
        subjects: Name::ALL.to_vec(),
        clients: vec![100, 500, 1_000],
        lifetimes: LIFETIMES.to_vec(),
        workers: vec![2],
        nices: vec![-20, 0],
        idle_s: 10,
        warm_up_s: 34.0,
        kept_s: 10.0,
        rounds: 3,
        settle: false,
        sketch: false,
    }
}

/// Three samples of every point; `SCTP user` with 100 clients is limited by the phones.
pub fn results() -> Results {
    filled(&plan(), 3)
}

pub fn sketch() -> Results {
    let plan = Plan::sketch(Name::ALL.into_iter().filter(|&name| name != Name::SctpKernel).collect(), -20);
    let mut results = filled(&plan, 1);
    results.machine.kernel_sctp = false;
    results
}

pub fn filled(plan: &Plan, samples: usize) -> Results {
    let mut results = course::empty(plan, machine());
    for row in &mut results.rows {
        row.samples = (0..samples).map(|n| sample(&row.point, 1.0 + 0.06 * (n as f64 - 1.0))).collect();
    }
    results
}

pub fn sample(point: &Point, luck: f64) -> Sample {
    let name = Name::of(&point.subject.name).unwrap();
    let share = match (name, point.renew_every) {
        (Name::Udp, _) => 1.0,
        (Name::Supervisor, Some(50)) => 0.12,
        (Name::Supervisor, _) => 0.24,
        (Name::SupervisorCache, Some(50)) => 0.3,
        (Name::SupervisorCache, _) => 0.6,
        (Name::SupervisorCacheQueue, Some(50)) => 0.5,
        (Name::SupervisorCacheQueue, _) => 0.7,
        (Name::SingleOwner, _) => 0.72,
        (Name::Symmetric, Some(50)) => 0.88,
        (Name::Symmetric, _) => 0.95,
        (Name::SctpKernel, _) => 0.97,
        (Name::SctpUser, _) => 0.62,
    };
    let nice = if name.has_supervisor() && point.supervisor_nice == 0 { 0.7 } else { 1.0 };
    let rate = 24_500.0 * share * nice * luck * (1.0 - point.clients as f64 / 20_000.0);
    let wall_s = point.measure_s;
    let cpu_s = wall_s * 1.31;
    let phones = name == Name::SctpUser && point.clients == 100;
    let mut cpu = BTreeMap::from([("worker".to_owned(), cpu_s * 0.9), ("timer".to_owned(), cpu_s * 0.1)]);
    if name.has_supervisor() {
        cpu.insert("supervisor".to_owned(), cpu_s * 0.3);
    }
    Sample {
        wall_s,
        operations: (rate * wall_s) as u64,
        failed_calls: 0,
        failures: BTreeMap::new(),
        retransmissions: if name == Name::Udp { 17 } else { 0 },
        connections: (rate * wall_s / 25.0) as u64,
        cpu_s,
        cpu_unknown: false,
        cpu_by_process: cpu,
        phones_busy: if phones { 0.98 } else { 0.71 },
        phones_cpu_s: wall_s * 0.6,
        limit: if phones { Limit::Phones } else { Limit::Proxy },
        set_up: SetUp { p50_us: 2_100.0, p99_us: 9_800.0, p999_us: 21_000.0 },
        proxy_busy: Some(0.9),
        others: 0.02,
        interrupts: 0.0,
        idle: Some(0.03),
        round: None,
    }
}

pub fn taken(point: &Point) -> Sample {
    sample(point, 1.0)
}
