//! What a reader must know of a run before believing it.
//!
//! Owns: sentences about what was left out and what does not count. Told by the results alone, so that they are the same whenever the
//! page is drawn.

use super::subjects::Name;
use super::summary::{Standing, nices, standing};
use super::words;
use crate::phone::bench::demand::WARM_UP_S;
use crate::phone::bench::results::{IDLE, Results, Row, Sample};

#[must_use]
pub fn all(results: &Results) -> Vec<String> {
    let all = [
        left_out(results),
        ends(results),
        gaps(results),
        again(results),
        not_counted(results),
        interrupts(results),
        nobody(results),
        priority(results),
        idle(results),
    ];
    all.into_iter().flatten().collect()
}

fn left_out(results: &Results) -> Option<String> {
    let missing = |name: &Name| !results.rows.iter().any(|row| row.point.subject.name == name.text());
    let names: Vec<Name> = Name::ALL.into_iter().filter(missing).collect();
    let told = names.iter().map(|name| match name {
        Name::SctpKernel if !results.machine.kernel_sctp => format!("{} (this kernel has no SCTP)", name.text()),
        _ => name.text().to_owned(),
    });
    let told = told.collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("Not in this run: {told}."))
}

/// Of a sketch, and of a run that was told to.
fn ends(results: &Results) -> Option<String> {
    let short = results.rows.iter().map(|row| row.point.warm_up_s).fold(f64::INFINITY, f64::min);
    (short < f64::from(WARM_UP_S)).then(|| {
        format!(
            "Not in every row: what the ends of transactions cost. They stay for 32 s; the shortest warm-up was {short:.0} s, where \
             {WARM_UP_S} s would be long enough."
        )
    })
}

fn again(results: &Results) -> Option<String> {
    let rows = results.rows.iter().filter(|row| results.rounds > 0 && row.samples.len() > results.rounds).count();
    let of = results.rows.len();
    (rows > 0)
        .then(|| format!("{rows} of {of} points have one run more than the others: theirs differed by more than 5 %, or those of a row \
                          that is divided by them did."))
}

fn gaps(results: &Results) -> Option<String> {
    let most = match results.rounds {
        0 => results.rows.iter().map(|row| row.samples.len()).max().unwrap_or(0),
        rounds => rounds,
    };
    let count = |what: &dyn Fn(&Row) -> bool| results.rows.iter().filter(|row| what(row)).count();
    let (none, fewer) = (count(&|row| row.samples.is_empty()), count(&|row| row.samples.len() < most));
    match (none, fewer) {
        (0, 0) => None,
        (0, fewer) => {
            Some(format!("Not finished: {fewer} of {} points have fewer than {most} runs.", results.rows.len()))
        }
        (none, fewer) if none == fewer => {
            Some(format!("Not finished: {none} of {} points have no run yet.", results.rows.len()))
        }
        (none, fewer) => Some(format!(
            "Not finished: {none} of {} points have no run yet, and {} have fewer than {most}.",
            results.rows.len(),
            fewer - none
        )),
    }
}

fn not_counted(results: &Results) -> Option<String> {
    let of = |what| results.rows.iter().filter(|row| standing(row) == what).count();
    let (phones, fails, others) = (of(Standing::Phones), of(Standing::Fails), of(Standing::Others));
    let mut told = Vec::new();
    if phones > 0 {
        told.push(format!("{phones} do not count, as the phones were the limit"));
    }
    if fails > 0 {
        told.push(format!("{fails} do not count, as more than one call in a thousand failed"));
    }
    if others > 0 {
        told.push(format!("{others} do not count, as others used more than 10 % of the processors"));
    }
    let total = results.rows.len();
    (!told.is_empty()).then(|| format!("Of {total} points {}.", told.join("; ")))
}

/// Then ratios mean little, whether the rows count or not: what is missing is not the same over all transports.
fn interrupts(results: &Results) -> Option<String> {
    let apart = |row: &&Row| row.samples.iter().any(Sample::interrupts_apart);
    let (apart, total) = (results.rows.iter().filter(apart).count(), results.rows.len());
    (apart > 0).then(|| {
        format!(
            "In {apart} of {total} points most of what others seem to have used were interrupts: this kernel keeps their time apart \
             (CONFIG_IRQ_TIME_ACCOUNTING), so the receiving half of the network's work is in no process's CPU. Boot it with \
             tsc=noirqtime to have it there."
        )
    })
}

/// They count: a proxy that waits for itself while processors idle is what the paper was about.
fn nobody(results: &Results) -> Option<String> {
    let counting = results.rows.iter().filter(|row| standing(row) == Standing::Counts);
    let idle: Vec<f64> = counting.filter_map(Row::nobody).collect();
    let most = idle.iter().copied().max_by(f64::total_cmp)?;
    Some(format!(
        "In {} of {} points more than {:.0} % of the processors idled (up to {:.0} %), although the phones were not the limit, nor any process of the \
         proxy: it waited for something else than a processor, as workers do for a supervisor. They count.",
        idle.len(),
        results.rows.len(),
        IDLE * 100.0,
        most * 100.0
    ))
}

fn priority(results: &Results) -> Option<String> {
    match nices(results).as_slice() {
        [only] if *only == 0 => {
            Some("The supervisor ran at nice 0 only: a better priority takes CAP_SYS_NICE (root).".to_owned())
        }
        [only] => Some(format!("The supervisor ran at nice {} only.", words::nice(*only))),
        _ => None,
    }
}

fn idle(results: &Results) -> Option<String> {
    let of = |sctp: bool| {
        let wanted = |row: &&Row| Name::of(&row.point.subject.name).is_some_and(|name| name.is_sctp() == sctp);
        results.rows.iter().filter(wanted).find_map(|row| row.point.idle_s)
    };
    let (tcp, sctp) = (of(false), of(true));
    let mut told = tcp.map(|tcp| format!("Idle TCP connections were closed after {tcp} s")).unwrap_or_default();
    if let Some(sctp) = sctp.filter(|sctp| Some(*sctp) != tcp) {
        told += if told.is_empty() { "Idle" } else { ", idle" };
        told += &format!(" SCTP associations after {sctp} s, as they may not be closed before 64*T1");
        if results.sketch {
            told += "; a sketch is too short to see that";
        }
    }
    (!told.is_empty()).then(|| format!("{told}."))
}
