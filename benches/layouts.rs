//! The two layouts of the kernel's SCTP beside each other (`sctp.layout`), with whole calls as the work per message:
//! `cargo bench --bench layouts`; where the kernel has no SCTP in the virtual machine: `VM_ICOUNT=0 benches/vm layouts`, on two processors.
//!
//! 1, 2, 10 and 100 callers, an association each, and as many callees. Two loads: a few calls at once, one after the other, as fast as
//! they go; and an open loop at a rate that is no strain. Which worker the kernel gives an association is drawn from its port, so each
//! round opens daemons and phones anew, the layouts one after the other and in the other order next time; what counts is the ratio of
//! the two within a round. Medians are printed, with the quarters beside them. The phones are this process: their CPU is not counted,
//! but they share the processors.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]

#[allow(dead_code, reason = "each benchmark shows a part of the figures")]
#[path = "support/bed.rs"]
mod bed;
#[path = "support/program.rs"]
mod program;

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use bed::{Bed, Round, turn};
use comfy_table::{CellAlignment, Table, presets};
use strowger::phone::bench::spread::Spread;
use strowger::phone::load::Pace;
use strowger::transport::Transport;

/// The second is compared with the first.
const LAYOUTS: [&str; 2] = ["shared", "per_worker"];
const ASSOCIATIONS: [usize; 4] = [1, 2, 10, 100];
/// Or as many as the variable ROUNDS says.
const ROUNDS: usize = 9;
const AT_ONCE: usize = 20;

/// What one layout showed in one round.
#[derive(Clone, Copy, Default)]
struct Shown {
    fast: Round,
    paced: Round,
    failed: u64,
}

fn main() -> ExitCode {
    program::run("layouts", include_str!("layouts.rs"), measure)
}

fn measure(words: &[String]) -> io::Result<()> {
    program::known(words, &[])?;
    if !sys::sctp::supported() {
        return Err(io::Error::other("this kernel has no SCTP; --help tells of the virtual machine"));
    }
    let wanted = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = wanted.unwrap_or(ROUNDS);
    let mut table = Table::new();
    let titles = ["associations", "", "calls/s at once", "CPU µs/call", "paced CPU", "p99 ms", "failed"];
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for associations in ASSOCIATIONS {
        let mut shown: Vec<[Shown; 2]> = Vec::new();
        let mut speed = None;
        for round in 0..rounds {
            let mut pair = [Shown::default(); 2];
            for turn in 0..2 {
                let at = (round + turn) % 2;
                pair[at] = show(LAYOUTS[at], associations, &mut speed);
            }
            shown.push(pair);
            eprintln!("{associations} associations: round {} of {rounds}", round + 1);
        }
        let figures: [fn(&Shown) -> f64; 4] =
            [|one| one.fast.calls_per_s, |one| one.fast.cpu_us, |one| one.paced.cpu_us, |one| one.paced.p99_ms];
        for (at, layout) in LAYOUTS.into_iter().enumerate() {
            let cell = |of: &fn(&Shown) -> f64| said(shown.iter().map(|pair| of(&pair[at])), 0);
            let failed: u64 = shown.iter().map(|pair| pair[at].failed).sum();
            let row = [associations.to_string(), layout.to_owned()].into_iter();
            table.add_row(row.chain(figures.iter().map(cell)).chain([failed.to_string()]));
        }
        let ratio = |of: &fn(&Shown) -> f64| said(shown.iter().map(|[first, second]| of(second) / of(first)), 2);
        let row = [associations.to_string(), "ratio".to_owned()].into_iter();
        table.add_row(row.chain(figures.iter().map(ratio)));
    }
    println!(
        "Kernel SCTP, 2 workers, {rounds} rounds with new associations each: medians and quarters.\n\
         {AT_ONCE} calls at once, then paced at a third of that rate; ratio: {} to {} within a round.\n{table}",
        LAYOUTS[1], LAYOUTS[0]
    );
    Ok(())
}

/// `speed`: calls per second, as the first warm-up showed them; all rounds of a size take the same number of calls.
fn show(layout: &str, associations: usize, speed: &mut Option<f64>) -> Shown {
    let bed = Bed::new(Transport::Sctp, associations, &format!("[sctp]\nlayout = \"{layout}\"\n"));
    let mut beds = [bed];
    let mut one = |calls: u64, pace| {
        let mut shown = [Vec::new()];
        turn(&mut beds, calls, pace, &mut shown);
        shown[0].pop().unwrap_or_default()
    };
    let began = Instant::now();
    one(100, Pace::AtOnce(AT_ONCE));
    let speed = *speed.get_or_insert_with(|| 100.0 / began.elapsed().as_secs_f64());
    let fast = one((speed * 3.0) as u64, Pace::AtOnce(AT_ONCE));
    let paced = one(speed as u64, Pace::PerSecond((speed / 3.0).round()));
    let [bed] = beds;
    let failed = bed.failed;
    bed.stop();
    Shown { fast, paced, failed }
}

/// The median, and a quarter of the figures below and above.
fn said(figures: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let [low, high] = [1, 3].map(|quarter| figures[(figures.len() - 1) * quarter / 4]);
    let middle = Spread::of(figures.iter().copied()).map_or(f64::NAN, |spread| spread.median);
    format!("{middle:.digits$} ({low:.digits$}–{high:.digits$})")
}
