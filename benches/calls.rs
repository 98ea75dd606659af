//! Daemon CPU per call at 500 calls/s, for every transport (SCTP: the kernel's where it has one, else in user space):
//! `cargo bench --bench calls`.
//!
//! Caller and callee use the same transport. The CPU is that of all the daemon's processes (master, workers, timer) while the calls
//! run; the phones are this process and are not counted. Each transport is measured several times, in turn, after a warm-up
//! that touches the shared memory for the first time; the median is printed.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]

#[allow(dead_code, reason = "each benchmark shows a part of the figures")]
#[path = "support/bed.rs"]
mod bed;
#[path = "support/program.rs"]
mod program;

use std::io;
use std::process::ExitCode;

use bed::{Bed, spread, turn};
use comfy_table::{CellAlignment, Table, presets};
use strowger::phone::load::Pace;
use strowger::transport::Transport;

const RATE: f64 = 500.0;
const WARM_UP_CALLS: u64 = 2_000;
const CALLS: u64 = 2_500;
const ROUNDS: usize = 5;
const PHONES: usize = 50;

fn main() -> ExitCode {
    program::run("calls", include_str!("calls.rs"), measure)
}

fn measure(words: &[String]) -> io::Result<()> {
    program::known(words, &[])?;
    let pace = Pace::PerSecond(RATE);
    let mut beds: Vec<Bed> = Transport::ALL.into_iter().map(|transport| Bed::new(transport, PHONES, "")).collect();
    let mut rounds = vec![Vec::new(); beds.len()];
    turn(&mut beds, WARM_UP_CALLS, pace, &mut rounds);
    rounds.iter_mut().for_each(Vec::clear);
    for _ in 0..ROUNDS {
        turn(&mut beds, CALLS, pace, &mut rounds);
    }
    let mut table = Table::new();
    let titles = ["transport", "calls", "failed", "CPU µs/call", "min–max", "p50 ms", "p99 ms"];
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for (bed, rounds) in beds.iter().zip(&rounds) {
        let [least, median, most] = spread(rounds, |round| round.cpu_us);
        table.add_row([
            bed.transport.via_token().to_owned(),
            (CALLS * ROUNDS as u64).to_string(),
            bed.failed.to_string(),
            format!("{median:.0}"),
            format!("{least:.0}–{most:.0}"),
            format!("{:.2}", spread(rounds, |round| round.p50_ms)[1]),
            format!("{:.2}", spread(rounds, |round| round.p99_ms)[1]),
        ]);
    }
    println!("Daemon CPU per call at {RATE} calls/s, 2 workers; medians of {ROUNDS} rounds of {CALLS} calls\n{table}");
    beds.into_iter().for_each(Bed::stop);
    Ok(())
}
