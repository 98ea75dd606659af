//! Which points there are, for how long, in which order.

use std::path::PathBuf;

use clap::Parser;

use super::fixture;
use crate::config::{Architecture, Config, Layout, Stack};
use crate::phone::bench::configuration::{Configuration, Machine, Ports};
use crate::phone::bench::measure::AROUND;
use crate::phone::bench::paper::grid::{Plan, takes, to_do};
use crate::phone::bench::paper::subjects::Name;
use crate::phone::bench::paper::{Able, Options, help};
use crate::phone::bench::results::{Point, Results};
use crate::phone::bench::words::Wire;

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
fn the_whole_matrix_has_77_points() {
    let points = points("", ABLE);
    assert_eq!(of(&points, Name::Udp).len(), 9, "beside each lifetime");
    for name in [Name::Supervisor, Name::SupervisorCache, Name::SupervisorCacheQueue] {
        let of = of(&points, name);
        let plain: Vec<usize> =
            of.iter().filter(|point| point.supervisor_nice == 0).map(|point| point.clients).collect();
        assert_eq!((of.len(), plain), (12, vec![500; 3]), "{name:?}: at nice 0 with 500 clients only");
    }
    for name in [Name::SingleOwner, Name::Symmetric] {
        assert_eq!(of(&points, name).len(), 9, "{name:?}");
    }
    for name in [Name::SctpKernel, Name::SctpUser] {
        let of = of(&points, name);
        let seldom: Vec<usize> =
            of.iter().filter(|point| point.renew_every == Some(500)).map(|point| point.clients).collect();
        assert_eq!((of.len(), seldom), (7, vec![500]), "{name:?}");
    }
    assert_eq!(points.len(), 77);
    for (words, most) in [("--clients 100,500", 500), ("--clients 10,20,40", 20), ("--large", 500)] {
        let all = self::points(words, ABLE);
        let plain = all.iter().filter(|point| point.supervisor_nice == 0 && point.subject.name == "TCP supervisor");
        assert!(plain.map(|point| point.clients).all(|clients| clients == most), "{words}");
    }
}

#[test]
fn udp_comes_first_of_its_lifetime_and_once_if_it_is_alone() {
    let with_others = points("", ABLE);
    let mut udp = None;
    for point in &with_others {
        let block = (point.workers, point.clients, point.renew_every);
        if point.subject.name == "UDP" {
            udp = Some(block);
        }
        assert_eq!(udp, Some(block), "{point:?}");
    }
    let alone: Vec<_> = points("--only udp", ABLE).iter().map(|point| (point.clients, point.renew_every)).collect();
    assert_eq!(alone, [(100, None), (500, None), (1_000, None)]);
}

#[test]
fn the_layout_of_the_kernels_sctp_is_said() {
    let points = points("", ABLE);
    assert!(of(&points, Name::SctpKernel).iter().all(|point| point.subject.tables.contains("layout = \"shared\"")));
}

#[test]
fn every_subject_is_configured_as_its_name_says() {
    const PORTS: Ports = Ports { sip: 5070, admin: 5071, encapsulation: 5072 };
    const MACHINE: Machine = Machine { processors: 2, memory: 16 << 30, files: 20_000 };
    let of_name = |point: &Point| {
        let name = point.subject.name.as_str();
        let architecture = match name.split_whitespace().nth(1) {
            Some("supervisor") => Architecture::Supervisor,
            Some("single_owner") => Architecture::SingleOwner,
            _ => Architecture::Symmetric,
        };
        (architecture, name.contains("+ cache"), name.contains("+ queue"))
    };
    let of = |read: &Config| (read.tcp.architecture, read.tcp.descriptor_cache, read.tcp.priority_queue);
    let points = points("--idle-s 40", ABLE);
    for point in &points {
        let name = &point.subject.name;
        let alone = Config::from_text(&point.subject.tables).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(of(&alone), of_name(point), "{name}");
        // And as a daemon is told all of it.
        let wire = Wire::of(&point.subject.transport).unwrap();
        let made = Configuration::make(point, wire, "a.test", None, PORTS, MACHINE).unwrap();
        let read = made.read.as_ref().unwrap_or_else(|| panic!("{name}: {}", made.text));
        assert_eq!(of(read), of_name(point), "{name}");
        let mut filled = point.clone();
        made.fill(&mut filled, wire);
        assert_eq!(&filled, point, "what is measured is what the table says");
        match wire {
            Wire::Udp => {}
            Wire::Tcp if point.supervisor_nice == 0 => assert_eq!(read.tcp.idle_s, 40, "{name}"),
            Wire::Tcp => assert_eq!((read.tcp.idle_s, read.tcp.supervisor_idle_s), (40, 40), "{name}"),
            Wire::Sctp => assert_eq!((read.sctp.layout, read.listen[1].stack), (Layout::Shared, Stack::Kernel)),
            Wire::SctpUser => assert_eq!(read.listen[1].stack, Stack::User),
        }
    }
    // The names say different things.
    let mut kinds: Vec<_> = points.iter().map(|point| format!("{:?}", of_name(point))).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

#[test]
fn what_the_machine_cannot_is_left_out() {
    assert_eq!(points("", Able { kernel_sctp: false, ..ABLE }).len(), 70);
    let points = points("", Able { prefer: false, ..ABLE });
    assert_eq!(points.len(), 68);
    assert!(points.iter().all(|point| point.supervisor_nice == 0));
}

#[test]
fn clients_workers_and_subjects_are_as_asked() {
    assert_eq!(points("--large", ABLE).len(), 77 + 22);
    let many = points("--workers 24,2,32,24 --only udp,symmetric --clients 500", ABLE);
    assert_eq!(many.len(), 3 * (3 + 3));
    assert_eq!(many.iter().map(|point| point.workers).max(), Some(32));
    assert!(Line::try_parse_from(["paper", "--out", "x", "--quick", "--rounds", "2"]).is_err(), "a sketch is a sketch");
    assert_eq!(options("--resume").out, PathBuf::from("x"));
}

#[test]
fn every_row_warms_up_until_transactions_end_and_renewed_ones_until_connections_do() {
    for idle_s in [10, 120] {
        for point in points(&format!("--idle-s {idle_s}"), ABLE) {
            let lives = if point.subject.name.starts_with("TCP supervisor") { 2.0 } else { 1.0 };
            let (warm_up_s, measure_s) = match (point.renew_every, point.idle_s) {
                (Some(_), Some(idle_s)) => (34.0_f64.max(lives * idle_s as f64), 3.0 * idle_s as f64),
                _ => (34.0, 10.0),
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
    assert_eq!(plan.points().len(), 16);
    assert!(plan.estimate().as_secs() < 165, "{:?}: too near to 180 s", plan.estimate());
    let points = plan.points();
    assert!(points.iter().all(|point| point.clients == 100), "one client count");
    assert!(of(&points, Name::Symmetric).iter().any(|point| point.renew_every == Some(50)));
    assert!(of(&points, Name::Symmetric).iter().any(|point| point.renew_every.is_none()));
}

#[test]
fn the_help_reckons_with_what_is_the_default() {
    assert_eq!(Options { out: PathBuf::from("x"), ..help::usual() }, options(""));
    let more = help::more();
    let narrow = "--only udp,supervisor,supervisor-cache-queue,symmetric";
    for (words, of) in [("--workers 24,32", help::many_workers()), ("--idle-s 120", help::long_idle())] {
        let words = format!("{words} --clients 500 --rounds 1");
        assert!(more.contains(&format!("strowger bench paper {words} --out DIR \\\n    {narrow}\n")), "{more}");
        assert_eq!(Options { out: PathBuf::from("x"), ..of }, options(&format!("{words} {narrow}")));
    }
}

#[test]
fn two_rounds_take_about_two_hours_without_the_kernels_sctp() {
    let hours = |able| options("").plan(able).estimate().as_secs_f64() / 3_600.0;
    assert!((1.75..2.5).contains(&hours(Able { kernel_sctp: false, ..ABLE })));
    assert!(hours(ABLE) < 3.0);
    let asked = options("").plan(ABLE);
    assert_eq!((asked.rounds, asked.settle), (2, true));
    let told = options("--rounds 2").plan(ABLE);
    assert_eq!((told.rounds, told.settle), (2, false));
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
    let order =
        |results: &Results, rounds| to_do(&results.rows, rounds).into_iter().map(|(row, _)| row).collect::<Vec<_>>();
    assert_eq!(order(&results, 3), [0, 1, 2, 2, 1, 0, 0, 1, 2]);
    let sample = fixture::sample(&results.rows[0].point, 1.0);
    results.rows[0].samples.push(sample.clone());
    results.rows[1].samples = vec![sample.clone(), sample];
    assert_eq!(order(&results, 2), [2, 2, 0], "only what is missing");
    assert_eq!(to_do(&results.rows, 1), [(2, 0)]);
    // The first run failed, the second did not.
    results.rows[0].samples[0].round = Some(1);
    assert_eq!(to_do(&results.rows, 2), [(0, 0), (2, 0), (2, 1)], "what was made in the second round is of the second");
}
