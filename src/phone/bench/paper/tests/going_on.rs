//! A run that is broken off can go on, and only with itself.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::fixture;
use crate::phone::bench::paper::course::{self, Course, End, Refused, Trouble};
use crate::phone::bench::paper::grid::Plan;
use crate::phone::bench::results::{Point, Results, Sample};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("strowger-paper-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fresh() -> Results {
    course::empty(&fixture::plan(), fixture::machine())
}

/// Takes so many samples, then is interrupted.
fn some(samples: usize) -> impl FnMut(&Point, &mut dyn FnMut(Duration)) -> Result<Sample, Trouble> {
    let mut left = samples;
    move |point, _| {
        left = left.checked_sub(1).ok_or(Trouble::Interrupted)?;
        Ok(fixture::taken(point))
    }
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let folder = Folder::new("going-on");
    let mut first = Course::begin(&folder.0, false, fresh()).unwrap();
    assert_eq!(first.run(2, false, &mut some(100)).unwrap(), End::Interrupted);

    let mut second = Course::begin(&folder.0, true, fresh()).unwrap();
    // JSON's decimals may differ in the last digit, so counts are compared.
    let counts = |course: &Course| -> Vec<u64> {
        course.results.rows.iter().flat_map(|row| &row.samples).map(|sample| sample.operations).collect()
    };
    assert_eq!(counts(&second).len(), 100, "kept after every sample");
    assert_eq!(counts(&second), counts(&first));
    let taken = Cell::new(0);
    let end = second.run(2, false, &mut |point: &Point, _| {
        taken.set(taken.get() + 1);
        Ok(fixture::taken(point))
    });
    assert_eq!(end.unwrap(), End::Done);
    assert_eq!(taken.get(), 2 * 77 - 100);
    assert!(second.results.rows.iter().all(|row| row.samples.len() == 2));
}

#[test]
fn what_lies_there_is_not_overwritten() {
    let folder = Folder::new("overwritten");
    let mut course = Course::begin(&folder.0, false, fresh()).unwrap();
    course.run(1, false, &mut some(1)).unwrap();
    let refused = Course::begin(&folder.0, false, fresh()).unwrap_err();
    assert!(matches!(&refused, Refused::Usage(text) if text.contains("--resume")), "{refused}");
}

#[test]
fn another_run_is_refused() {
    let other_plan = |change: fn(&mut Plan)| {
        let mut plan = fixture::plan();
        change(&mut plan);
        course::empty(&plan, fixture::machine())
    };
    let other_machine = |change: fn(&mut Results)| {
        let mut results = fresh();
        change(&mut results);
        results
    };
    let others = [
        ("77 points, this grid 55", other_plan(|plan| plan.clients = vec![100, 500])),
        ("clients", other_plan(|plan| plan.clients = vec![100, 500, 2_000])),
        ("idle time-out", other_plan(|plan| plan.idle_s = 120)),
        ("duration", other_plan(|plan| plan.kept_s = 2.0)),
        ("sketch", other_machine(|results| results.sketch = true)),
        ("another machine", other_machine(|results| results.machine.kernel = "5.10".to_owned())),
        ("another build", other_machine(|results| results.machine.program = "10".repeat(32))),
        ("nice −15, now they would at nice 0", other_machine(|results| results.machine.phones_nice = Some(0))),
        ("unknown nice value", other_machine(|results| results.machine.phones_nice = None)),
        ("version 0.1.0", other_machine(|results| results.machine.version = "0.2.0".to_owned())),
    ];
    let folder = Folder::new("another");
    Course::begin(&folder.0, false, fresh()).unwrap().save().unwrap();
    for (why, other) in others {
        let refused = Course::begin(&folder.0, true, other).unwrap_err();
        assert!(matches!(&refused, Refused::Usage(text) if text.contains(why)), "{refused}");
    }
    let mut later = fresh();
    later.machine.date = "2026-11-23T00:00:00Z".to_owned();
    assert!(Course::begin(&folder.0, true, later).is_ok(), "the date of the first run stays");
}

#[test]
fn a_point_that_fails_is_left_out_and_three_in_a_row_end_the_run() {
    let folder = Folder::new("fails");
    let mut course = Course::begin(&folder.0, false, fresh()).unwrap();
    let mut n = 0;
    let end = course.run(1, false, &mut |point: &Point, _| {
        n += 1;
        if n == 2 { Err(Trouble::Failed("no port".to_owned())) } else { Ok(fixture::taken(point)) }
    });
    assert_eq!(end.unwrap(), End::Gaps(1));
    assert!(course.results.rows[1].samples.is_empty());
    assert_eq!(course.results.rows[2].samples[0].round, Some(0));

    let mut n = 0;
    let end = course.run(2, false, &mut |_: &Point, _| {
        n += 1;
        Err(Trouble::Failed("no memory".to_owned()))
    });
    assert_eq!((end.unwrap(), n), (End::Broken("no memory".to_owned()), 3));
}

#[test]
fn rows_whose_two_runs_differ_take_a_third_and_udp_beside_them() {
    let folder = Folder::new("third");
    let mut course = Course::begin(&folder.0, false, fresh()).unwrap();
    let mut order = Vec::new();
    let differs =
        |point: &Point| point.subject.name == "TCP symmetric" && point.clients == 100 && point.renew_every == Some(50);
    let end = course.run(2, true, &mut |point: &Point, _| {
        order.push((point.subject.name.clone(), point.clients, point.renew_every));
        let first = order.len() <= 77;
        Ok(fixture::sample(point, if differs(point) && first { 1.06 } else { 1.0 }))
    });
    assert_eq!(end.unwrap(), End::Done);
    let third = &order[2 * 77..];
    assert_eq!(*third, ["UDP", "TCP symmetric"].map(|name| (name.to_owned(), 100, Some(50))));
    assert!(
        course
            .results
            .rows
            .iter()
            .all(|row| row.samples.len() == if differs(&row.point) { 3 } else { 2 } || row.point.subject.name == "UDP")
    );

    // Broken off between the two.
    let udp = course.results.rows.iter_mut().find(|row| row.samples.len() == 3).unwrap();
    assert_eq!(udp.point.subject.name, "UDP");
    udp.samples.pop();
    let mut again = Vec::new();
    let end = course.run(2, true, &mut |point: &Point, _| {
        again.push(point.subject.name.clone());
        Ok(fixture::taken(point))
    });
    assert_eq!((end.unwrap(), again), (End::Done, vec!["UDP".to_owned()]));
}

#[test]
fn a_file_from_before_rounds_and_idle_processors_were_kept_is_read_and_gone_on_with() {
    let folder = Folder::new("older");
    let mut course = Course::begin(&folder.0, false, fresh()).unwrap();
    course.run(1, false, &mut some(77)).unwrap();
    let file = folder.0.join("results.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for row in json["rows"].as_array_mut().unwrap() {
        for sample in row["samples"].as_array_mut().unwrap() {
            ["others", "idle", "round"]
                .iter()
                .for_each(|key| drop(sample.as_object_mut().unwrap().remove(*key).unwrap()));
        }
    }
    fs::write(&file, json.to_string()).unwrap();

    let mut course = Course::begin(&folder.0, true, fresh()).unwrap();
    let rounds = |course: &Course| {
        course.results.rows[0].samples.iter().map(|sample| (sample.round, sample.idle)).collect::<Vec<_>>()
    };
    assert_eq!(rounds(&course), [(None, None)]);
    assert_eq!(course.run(2, false, &mut some(77)).unwrap(), End::Done);
    assert_eq!(rounds(&course), [(None, None), (Some(1), Some(0.03))]);
}

#[test]
fn how_many_runs_were_asked_for_is_that_of_the_last_time() {
    let folder = Folder::new("rounds");
    Course::begin(&folder.0, false, fresh()).unwrap().save().unwrap();
    let more = Course::begin(&folder.0, true, Results { rounds: 5, ..fresh() }).unwrap();
    assert_eq!(more.results.rounds, 5);
}
