//! The two layouts of the kernel's SCTP beside each other (`sctp.layout`), with whole calls as the work per message:
//! `cargo bench --bench layouts`; where the kernel has no SCTP in the virtual machine: `cargo build --release --bins --benches`, then
//! `tests/vm/vm.sh target/release/deps/layouts-...` (the program that cargo names).
//!
//! 1, 10 and 100 callers, an association each, and as many callees. Two loads: a few calls at once, one after the other, as fast as
//! they go; and an open loop at a rate that is no strain, for CPU and delay. The layouts take turns; medians are printed. The phones
//! are this process: their CPU is not counted, but they share the processors.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]

#[allow(dead_code, reason = "each benchmark shows a part of the figures")]
#[path = "support/bed.rs"]
mod bed;

use std::time::Instant;

use bed::{Bed, Round, spread, turn};
use comfy_table::{CellAlignment, Table, presets};
use strowger::phone::load::Pace;
use strowger::transport::Transport;

const LAYOUTS: [&str; 2] = ["shared", "per_worker"];
const ASSOCIATIONS: [usize; 3] = [1, 10, 100];
/// Or as many as the variable ROUNDS says.
const ROUNDS: usize = 5;
const AT_ONCE: usize = 20;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    if !sys::sctp::supported() {
        println!("This kernel has no SCTP: see the head of benches/layouts.rs for the virtual machine.");
        return;
    }
    let wanted = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let most: usize = wanted.unwrap_or(ROUNDS);
    let mut table = Table::new();
    let titles = [
        "associations",
        "layout",
        "calls/s at once",
        "min–max",
        "CPU µs/call",
        "paced CPU",
        "min–max",
        "p99 ms",
        "failed",
    ];
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let mut head = String::new();
    for associations in ASSOCIATIONS {
        let bed = |layout| Bed::new(Transport::Sctp, associations, &format!("[sctp]\nlayout = \"{layout}\"\n"));
        let mut beds: Vec<Bed> = LAYOUTS.into_iter().map(bed).collect();
        let mut warm = vec![Vec::new(); beds.len()];
        let began = Instant::now();
        turn(&mut beds, 100, Pace::AtOnce(AT_ONCE), &mut warm);
        // As many calls as take about three seconds, at the slower machine's pace too; the rate is a third of what goes.
        let speed = 200.0 / began.elapsed().as_secs_f64();
        let calls = (speed * 3.0) as u64;
        let rate = (speed / 3.0).round();
        let mut fast: Vec<Vec<Round>> = vec![Vec::new(); beds.len()];
        let mut paced = fast.clone();
        for round in 1..=most {
            turn(&mut beds, calls, Pace::AtOnce(AT_ONCE), &mut fast);
            turn(&mut beds, calls / 2, Pace::PerSecond(rate), &mut paced);
            eprintln!("{associations} associations: round {round} of {most}");
        }
        head += &format!("\n{associations}: {calls} calls a round, {} paced at {rate}/s", calls / 2);
        for (((layout, bed), fast), paced) in LAYOUTS.iter().zip(&beds).zip(&fast).zip(&paced) {
            let [least, speed, most] = spread(fast, |round| round.calls_per_s);
            let [least_cpu, cpu, most_cpu] = spread(paced, |round| round.cpu_us);
            table.add_row([
                associations.to_string(),
                (*layout).to_owned(),
                format!("{speed:.0}"),
                format!("{least:.0}–{most:.0}"),
                format!("{:.0}", spread(fast, |round| round.cpu_us)[1]),
                format!("{cpu:.0}"),
                format!("{least_cpu:.0}–{most_cpu:.0}"),
                format!("{:.1}", spread(paced, |round| round.p99_ms)[1]),
                bed.failed.to_string(),
            ]);
        }
        beds.into_iter().for_each(Bed::stop);
    }
    println!("Kernel SCTP, 2 workers, medians of {most} rounds; {AT_ONCE} calls at once, then paced{head}\n{table}");
}
