//! Medians, ratios, who counts, and how figures are written.

use super::fixture;
use crate::phone::bench::paper::subjects::Name;
use crate::phone::bench::paper::summary::{Measure, Spread, Standing, ratio, row_of, standing};
use crate::phone::bench::paper::{remarks, tables, words};
use crate::phone::bench::results::{Limit, Results, Row};

fn row(results: &mut Results, name: Name) -> &mut Row {
    results.rows.iter_mut().find(|row| row.point.subject.name == name.text() && row.point.clients == 500).unwrap()
}

/// UDP 1000, 3000, 2000 operations; symmetric 1500, 900: in one second of the wall, two of CPU for symmetric, one for UDP.
fn small() -> Results {
    let mut results = fixture::results();
    for (name, operations, cpu_s) in
        [(Name::Udp, vec![1_000, 3_000, 2_000], 1.0), (Name::Symmetric, vec![1_500, 900], 2.0)]
    {
        let row = row(&mut results, name);
        let sample = row.samples[0].clone();
        row.samples.clear();
        for operations in operations {
            row.samples.push(crate::phone::bench::results::Sample { operations, wall_s: 1.0, cpu_s, ..sample.clone() });
        }
    }
    results
}

fn symmetric(results: &Results, measure: Measure) -> Option<f64> {
    ratio(results, row_of(results, Name::Symmetric, 2, 500, Some(50), 0).unwrap(), measure)
}

#[test]
fn the_median_is_the_middle_or_between_the_two_middles() {
    assert_eq!(Spread::of([]), None);
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
}

#[test]
fn a_ratio_is_median_by_udps_median() {
    let results = small();
    assert_eq!(symmetric(&results, Measure::PerSecond), Some(0.6));
    assert_eq!(symmetric(&results, Measure::PerCpuSecond), Some(0.3));
}

#[test]
fn a_row_that_the_phones_limited_once_gives_no_ratio() {
    for name in [Name::Udp, Name::Symmetric] {
        let mut results = small();
        row(&mut results, name).samples[1].limit = Limit::Phones;
        assert_eq!(symmetric(&results, Measure::PerCpuSecond), None, "{name:?}");
        assert_eq!(standing(row(&mut results, name)), Standing::Phones);
    }
}

#[test]
fn a_row_whose_calls_fail_gives_no_ratio() {
    let mut results = small();
    let symmetric_row = row(&mut results, Name::Symmetric);
    // 2400 operations are 1200 calls.
    symmetric_row.samples[0].failed_calls = 12;
    assert_eq!(standing(symmetric_row), Standing::Counts);
    symmetric_row.samples[0].failed_calls = 13;
    assert_eq!(standing(symmetric_row), Standing::Fails);
    assert_eq!(symmetric(&results, Measure::PerSecond), None);
}

#[test]
fn tables_mark_what_does_not_count() {
    let results = fixture::results();
    let page = tables::page(&results);
    let ratios = page.split("## ").find(|part| part.starts_with("Beside UDP: operations per CPU-second")).unwrap();
    let line = ratios.lines().find(|line| line.starts_with("| SCTP user |")).unwrap();
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert_eq!(cells[5..8], ["○", "0.62", "0.62"], "{line}");
    assert!(page.contains("| phones ○ |"));
    let glance = tables::glance(&results);
    let user = glance.rows.iter().find(|cells| cells[0] == "SCTP user").unwrap();
    assert_eq!(user[3], "6 of 9");
    assert!(glance.rows.iter().any(|cells| cells[0].starts_with("The paper") && cells[2] == "0.50–0.78"));
}

#[test]
fn every_line_of_a_table_has_all_columns() {
    for results in [fixture::results(), fixture::sketch(), fixture::filled(&fixture::plan(), 0)] {
        for table in tables::all(&results).into_iter().chain([tables::glance(&results)]) {
            assert!(table.rows.iter().all(|cells| cells.len() == table.head.len()), "{}", table.title);
        }
    }
}

#[test]
fn remarks_tell_what_is_left_out() {
    let told = remarks::all(&fixture::sketch()).join("\n");
    assert!(told.contains("SCTP kernel (this kernel has no SCTP)"), "{told}");
    assert!(told.contains("nice −20 only"), "{told}");
    let mut results = fixture::results();
    results.rows[4].samples.clear();
    let told = remarks::all(&results).join("\n");
    assert!(told.contains("1 of 93 points have no run yet"), "{told}");
    assert!(told.contains("3 do not count, as the phones"), "{told}");
}

#[test]
fn figures_are_written_for_people() {
    let whole = [0.4, 999.0, 1_000.0, 23_410.0, 1_234_567.0, -1_500.0].map(words::whole);
    assert_eq!(whole, ["0", "999", "1,000", "23,410", "1,234,567", "-1,500"]);
    assert_eq!(
        [812.0, 9_994.0, 9_996.0, 23_410.0, 123_456.0].map(words::thousands),
        ["0.81", "9.99", "10.0", "23.4", "123"]
    );
    assert_eq!(
        [40.2, 99.0, 100.0, 3_600.0, 5_400.0, 9_999.0].map(words::time),
        ["40 s", "99 s", "2 min", "60 min", "1 h 30 min", "2 h 47 min"]
    );
}
