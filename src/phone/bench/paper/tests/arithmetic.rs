//! Medians, ratios, who counts, and how figures are written.

use super::fixture;
use crate::phone::bench::paper::subjects::Name;
use crate::phone::bench::paper::summary::{Measure, Standing, ratio, row_of, standing};
use crate::phone::bench::paper::{remarks, report, tables, verdict, words};
use crate::phone::bench::results::{Limit, Results, Row};
use crate::phone::bench::spread::Spread;

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

fn symmetric(results: &Results, measure: Measure) -> Option<Spread> {
    ratio(results, row_of(results, Name::Symmetric, 2, 500, Some(50), 0).unwrap(), measure)
}

#[test]
fn the_median_is_the_middle_or_between_the_two_middles() {
    assert_eq!(Spread::of([]), None);
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
}

#[test]
fn a_ratio_is_the_median_of_the_rounds_ratios() {
    let results = small();
    // 1500 / 1000 and 900 / 3000; for UDP's third round there is nothing yet.
    assert_eq!(symmetric(&results, Measure::PerSecond), Some(Spread { median: 0.9, least: 0.3, most: 1.5 }));
    assert_eq!(symmetric(&results, Measure::PerCpuSecond), Some(Spread { median: 0.45, least: 0.15, most: 0.75 }));
}

#[test]
fn runs_of_one_round_are_divided_by_each_other_also_where_one_failed() {
    let mut results = small();
    // UDP's of rounds 0, 1, 2; of the other's only the second and third came about.
    for (n, sample) in row(&mut results, Name::Symmetric).samples.iter_mut().enumerate() {
        sample.round = Some(n + 1);
    }
    // 1500 / 3000, 900 / 2000.
    assert_eq!(symmetric(&results, Measure::PerSecond), Some(Spread { median: 0.475, least: 0.45, most: 0.5 }));
    // A run of a round that UDP has none of gives nothing.
    row(&mut results, Name::Symmetric).samples[1].round = Some(7);
    assert_eq!(symmetric(&results, Measure::PerSecond), Some(Spread { median: 0.5, least: 0.5, most: 0.5 }));
}

#[test]
fn udp_divides_what_was_measured_beside_it_and_nothing_else() {
    let mut results = small();
    let kept = row_of(&results, Name::Symmetric, 2, 500, None, 0).unwrap().clone();
    let before = ratio(&results, &kept, Measure::PerSecond);
    // That of the rows renewed every 50.
    row(&mut results, Name::Udp).samples.iter_mut().for_each(|sample| sample.operations *= 2);
    assert_eq!(ratio(&results, &kept, Measure::PerSecond), before);
    assert_eq!(symmetric(&results, Measure::PerSecond).unwrap().most, 0.75);
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
    // 1,000 calls; what was good in the other runs does not help.
    symmetric_row.samples[0].operations = 2_000;
    symmetric_row.samples[0].failed_calls = 1;
    assert_eq!(standing(symmetric_row), Standing::Counts);
    symmetric_row.samples[0].failed_calls = 2;
    assert_eq!(standing(symmetric_row), Standing::Fails);
    assert_eq!(symmetric(&results, Measure::PerSecond), None);
}

#[test]
fn a_row_beside_which_others_worked_gives_no_ratio() {
    for name in [Name::Udp, Name::Symmetric] {
        let mut results = small();
        row(&mut results, name).samples[1].others = 0.1;
        assert_eq!(standing(row(&mut results, name)), Standing::Counts);
        row(&mut results, name).samples[1].others = 0.101;
        assert_eq!(symmetric(&results, Measure::PerCpuSecond), None, "{name:?}");
        assert_eq!(standing(row(&mut results, name)), Standing::Others);
        let page = tables::page(&results);
        assert!(page.contains("| 10 % | others ‡ |") && page.contains("| ‡ |"), "{page}");
        let told = remarks::all(&results).join("\n");
        assert!(told.contains("1 do not count, as others used"), "{told}");
    }
}

#[test]
fn a_row_in_which_processors_idle_counts_and_says_that_nobody_was_the_limit() {
    let mut results = small();
    let before = symmetric(&results, Measure::PerCpuSecond);
    row(&mut results, Name::Symmetric).samples[1].idle = Some(0.1);
    assert!(!tables::page(&results).contains("nobody") && !remarks::all(&results).join("\n").contains("idled"));
    row(&mut results, Name::Symmetric).samples[1].idle = Some(0.37);
    assert_eq!((symmetric(&results, Measure::PerCpuSecond), before.is_some()), (before, true));
    let page = tables::page(&results);
    assert!(page.contains("| nobody (37 % of the processors idle) |"), "{page}");
    let told = remarks::all(&results).join("\n");
    assert!(told.contains("In 1 of 77 points more than 10 % of the processors idled (up to 37 %)"), "{told}");
    // Of a proxy whose processes nobody knows it is not said: one of them may have been busy all the time.
    let known = row(&mut results, Name::Symmetric).samples[1].proxy_busy.take();
    assert!(!tables::page(&results).contains("nobody"));
    row(&mut results, Name::Symmetric).samples[1].proxy_busy = known;
    // Where the phones were the limit, they were.
    row(&mut results, Name::Symmetric).samples[1].limit = Limit::Phones;
    assert!(!tables::page(&results).contains("nobody"));
}

#[test]
fn a_goal_is_met_only_by_points_that_count() {
    let mut results = fixture::results();
    row(&mut results, Name::Symmetric).samples[0].limit = Limit::Phones;
    let told = verdict::all(&results);
    assert!(
        told[0].ends_with("(2 of 3 points count); the goal of 0.85 is met by those that count; 1 of 3 do not."),
        "{told:?}"
    );
}

#[test]
fn the_verdict_is_of_each_lifetime_and_of_the_worst_point_that_counts() {
    let mut results = fixture::results();
    let told = verdict::all(&results);
    assert_eq!(told.len(), 9, "{told:?}");
    assert_eq!(
        told[0],
        "TCP symmetric, renewed every 50: 0.88 of UDP's operations per CPU-second (3 of 3 points count); the goal of 0.85 is met."
    );
    assert!(
        told[6].starts_with("SCTP user, renewed every 50: 0.62 ") && told[6].ends_with("(2 of 3 points count)."),
        "{told:?}"
    );
    for sample in &mut row(&mut results, Name::Symmetric).samples {
        sample.operations = sample.operations * 8 / 10;
    }
    let told = verdict::all(&results);
    assert!(told[0].contains(": 0.70–0.88 of") && told[0].ends_with("the goal of 0.85 is missed."), "{told:?}");
    assert!(told[2].ends_with("is met."), "{told:?}");
    assert!(verdict::all(&fixture::filled(&fixture::plan(), 0))[0].ends_with("no verdict, as 0 of 3 points count."));
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
    assert_eq!(user[3], "5 of 7");
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
    assert!(told.contains("what the ends of transactions cost"), "{told}");
    let mut results = fixture::results();
    assert!(!remarks::all(&results).join("\n").contains("transactions"), "34 s are enough");
    results.rows[4].samples.clear();
    let told = remarks::all(&results).join("\n");
    assert!(told.contains("1 of 77 points have no run yet."), "{told}");
    let mut few = results.clone();
    few.rows[5].samples.pop();
    let both = remarks::all(&few).join("\n");
    assert!(both.contains("1 of 77 points have no run yet, and 1 have fewer than 3."), "{both}");
    assert!(told.contains("2 do not count, as the phones"), "{told}");
}

#[test]
fn runs_that_are_missing_and_third_runs_are_told_apart() {
    let told = |rounds| remarks::all(&Results { rounds, ..fixture::results() }).join("\n");
    assert!(told(4).contains("77 of 77 points have fewer than 4 runs"), "{}", told(4));
    assert!(!told(3).contains("runs") && !told(3).contains("one run more"), "{}", told(3));
    let mut results = Results { rounds: 3, ..fixture::results() };
    let sample = results.rows[4].samples[0].clone();
    results.rows[4].samples.push(sample);
    let told = remarks::all(&results).join("\n");
    assert!(told.contains("1 of 77 points have one run more") && !told.contains("Not finished"), "{told}");
}

#[test]
fn the_page_says_at_which_nice_value_the_phones_ran() {
    let mut results = fixture::results();
    assert!(report::page(&results, &[]).contains("they ran at nice −15;"));
    results.machine.phones_nice = Some(0);
    assert!(report::page(&results, &[]).contains("they ran at nice 0;"));
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
