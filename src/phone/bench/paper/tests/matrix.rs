//! Which points there are, for how long, in which order.

use std::path::PathBuf;

use clap::Parser;

use super::fixture;
use crate::phone::bench::paper::grid::{AROUND, Plan, takes, to_do};
use crate::phone::bench::paper::subjects::Name;
use crate::phone::bench::paper::{Able, Options};
use crate::phone::bench::results::{Point, Results};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

const ABLE: Able = Able { kernel_sctp: true, prefer: true };

fn options(words: &str) -> Options {
    Line::try_parse_from(format!("paper --out x {words}").split_whitespace()).unwrap().options
}

fn points(words: &str, able: Able) -> Vec<Point> {
    options(words).plan(able).points()
}

fn of(points: &[Point], name: Name) -> Vec<&Point> {
    points.iter().filter(|point| point.subject.name == name.text()).collect()
}

#[test]
fn the_whole_matrix_has_93_points() {
    let points = points("", ABLE);
    assert_eq!(of(&points, Name::Udp).len(), 3, "UDP knows no connections: one lifetime");
    for name in [Name::Supervisor, Name::SupervisorCache, Name::SupervisorCacheQueue] {
        assert_eq!(of(&points, name).len(), 18, "{name:?}: at nice -20 and at 0");
    }
    for name in [Name::SingleOwner, Name::Symmetric, Name::SctpKernel, Name::SctpUser] {
        assert_eq!(of(&points, name).len(), 9, "{name:?}");
    }
    assert_eq!(points.len(), 93);
}

#[test]
fn what_the_machine_cannot_is_left_out() {
    assert_eq!(points("", Able { kernel_sctp: false, ..ABLE }).len(), 84);
    let points = points("", Able { prefer: false, ..ABLE });
    assert_eq!(points.len(), 66);
    assert!(points.iter().all(|point| point.supervisor_nice == 0));
}

#[test]
fn clients_workers_and_subjects_are_as_asked() {
    assert_eq!(points("--large", ABLE).len(), 124);
    let many = points("--workers 24,2,32,24 --only udp,symmetric --clients 500", ABLE);
    assert_eq!(many.len(), 3 * (1 + 3));
    assert_eq!(many.iter().map(|point| point.workers).max(), Some(32));
    assert!(Line::try_parse_from(["paper", "--out", "x", "--quick", "--rounds", "2"]).is_err(), "a sketch is a sketch");
    assert_eq!(options("--resume").out, PathBuf::from("x"));
}

#[test]
fn renewed_rows_warm_up_for_one_idle_time_out_and_are_measured_for_three() {
    for idle_s in [10, 120] {
        for point in points(&format!("--idle-s {idle_s}"), ABLE) {
            let (warm_up_s, measure_s) = match (point.renew_every, point.idle_s) {
                (Some(_), Some(idle_s)) => (idle_s as f64, 3.0 * idle_s as f64),
                _ => (6.0, 10.0),
            };
            assert_eq!((point.warm_up_s, point.measure_s), (warm_up_s, measure_s), "{point:?}");
        }
    }
}

/// A18: an SCTP association may not be closed before 64*T1.
#[test]
fn associations_idle_for_32_s_at_least() {
    let idle = |words: &str, name| of(&points(words, ABLE), name).first().unwrap().idle_s;
    assert_eq!(idle("", Name::SctpKernel), Some(32));
    assert_eq!(idle("--idle-s 120", Name::SctpUser), Some(120));
    assert_eq!(idle("", Name::Symmetric), Some(10));
    assert_eq!(idle("", Name::Udp), None);
}

#[test]
fn a_sketch_takes_less_than_three_minutes() {
    let plan = options("--quick").plan(ABLE);
    assert!(plan.sketch);
    assert_eq!(plan.points().len(), 15);
    assert!(plan.estimate().as_secs() < 165, "{:?}: too near to 180 s", plan.estimate());
    let points = plan.points();
    assert!(points.iter().all(|point| point.clients == 100), "one client count");
    assert!(of(&points, Name::Symmetric).iter().any(|point| point.renew_every == Some(50)));
    assert!(of(&points, Name::Symmetric).iter().any(|point| point.renew_every.is_none()));
}

#[test]
fn the_estimate_counts_every_run_and_what_surrounds_it() {
    let plan = Plan { rounds: 3, ..fixture::plan() };
    let once: f64 = plan.points().iter().map(|point| takes(point).as_secs_f64() + AROUND.as_secs_f64()).sum();
    assert!((plan.estimate().as_secs_f64() - 3.0 * once).abs() < 1e-6);
}

#[test]
fn rounds_are_interleaved_and_every_other_one_goes_backwards() {
    let mut results: Results = fixture::filled(&fixture::plan(), 0);
    results.rows.truncate(3);
    assert_eq!(to_do(&results.rows, 3), [0, 1, 2, 2, 1, 0, 0, 1, 2]);
    let sample = fixture::sample(&results.rows[0].point, 1.0);
    results.rows[0].samples.push(sample.clone());
    results.rows[1].samples = vec![sample.clone(), sample];
    assert_eq!(to_do(&results.rows, 2), [2, 2, 0], "only what is missing");
    assert_eq!(to_do(&results.rows, 1), [2]);
}
