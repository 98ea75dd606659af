//! The tables.

use comfy_table::{CellAlignment, Table, presets};

use crate::bed::Sample;
use crate::kind::Kind;
use crate::load::Pace;

/// Our CPU may be this many times the plain loop's.
const TARGET: f64 = 1.15;

/// Ours and the plain loop under one load, a sample each round.
pub struct Pair {
    pub kind: Kind,
    pub flows: u16,
    pub pace: Pace,
    pub ours: Vec<Sample>,
    pub plain: Vec<Sample>,
}

/// SCTP in user space under one load; microseconds per message, but `udp` per packet with data.
pub struct Parts {
    pub pace: Pace,
    pub whole: Vec<Sample>,
    pub udp: Vec<Sample>,
    /// Packets with data per message and their bytes; then those that only acknowledge.
    pub data: (f64, usize),
    pub back: (f64, usize),
    /// With the log.
    pub protocol: f64,
    pub log: f64,
}

pub fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    middle(samples.iter().map(figure).collect())
}

fn spread(figures: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (figures.clone().fold(f64::INFINITY, f64::min), figures.fold(0.0, f64::max))
}

pub fn name(kind: Kind, flows: u16) -> String {
    let (one, several) = match kind {
        Kind::Udp => return "UDP".into(),
        Kind::UserSctp => return "SCTP, user space".into(),
        Kind::Tcp => ("TCP, 1 connection", "connections"),
        Kind::KernelSctp => ("SCTP, kernel, 1 association", "associations"),
    };
    if flows == 1 {
        one.into()
    } else {
        one.replace("1 ", &format!("{flows} ")).replace(" connection", "").replace(" association", "") + " " + several
    }
}

fn load(pace: Pace) -> String {
    match pace {
        Pace::Open(rate) => format!("{rate}/s"),
        Pace::Closed(window) => format!("{window} in flight"),
    }
}

pub fn packets(ethernet: bool) -> &'static str {
    if ethernet { "packets of 1500 bytes" } else { "packets as large as loopback has them" }
}

pub fn head(rounds: usize, bytes: usize, packets: &str) {
    println!(
        "CPU per message of {bytes} bytes, received and sent, {packets}; medians of {rounds} rounds, ours and the plain loop in turn"
    );
    if std::env::var_os("VM_ICOUNT").is_some() {
        println!("in a virtual machine that counts instructions: 1 µs is 1,000 instructions");
    } else if std::env::var_os("IN_VM").is_some() {
        println!("in a virtual machine: under TCG times are some 15 times those of metal, only ratios mean something");
    }
}

pub fn pairs(pairs: &[Pair]) {
    let mut table = table(&[
        "",
        "load",
        "ours µs",
        "plain µs",
        "ratio",
        "min–max",
        "at most 1.15",
        "ours msg/s",
        "plain msg/s",
        "msg/read",
        "wake-ups/msg",
    ]);
    for pair in pairs {
        let cpu = |samples: &[Sample]| median(samples, |sample| sample.cpu);
        let per_second = |samples: &[Sample]| format!("{:.0}", median(samples, |sample| sample.per_second));
        let batch = |samples: &[Sample]| median(samples, |sample| sample.batch);
        let wakes = |samples: &[Sample]| median(samples, |sample| sample.wakes);
        let ratio = cpu(&pair.ours) / cpu(&pair.plain);
        let (least, most) = spread(pair.ours.iter().zip(&pair.plain).map(|(ours, plain)| ours.cpu / plain.cpu));
        table.add_row([
            name(pair.kind, pair.flows),
            load(pair.pace),
            format!("{:.2}", cpu(&pair.ours)),
            format!("{:.2}", cpu(&pair.plain)),
            format!("{ratio:.3}"),
            format!("{least:.2}–{most:.2}"),
            if ratio <= TARGET { "yes" } else { "MISSED" }.into(),
            per_second(&pair.ours),
            per_second(&pair.plain),
            format!("{:.1}, {:.1}", batch(&pair.ours), batch(&pair.plain)),
            format!("{:.2}, {:.2}", wakes(&pair.ours), wakes(&pair.plain)),
        ]);
    }
    println!("{table}");
}

pub fn parts(parts: &[Parts]) {
    println!("\nSCTP in user space, µs of CPU per message");
    let mut table = table(&[
        "load",
        "whole",
        "min–max",
        "UDP",
        "protocol",
        "packet log",
        "rest",
        "msg/s",
        "msg/read",
        "packets per message (bytes)",
    ]);
    for part in parts {
        let whole = median(&part.whole, |sample| sample.cpu);
        let udp = median(&part.udp, |sample| sample.cpu) * part.data.0;
        let (least, most) = spread(part.whole.iter().map(|sample| sample.cpu));
        table.add_row([
            load(part.pace),
            format!("{whole:.2}"),
            format!("{least:.1}–{most:.1}"),
            format!("{udp:.2}"),
            format!("{:.2}", part.protocol - part.log),
            format!("{:.2}", part.log),
            format!("{:.2}", whole - udp - part.protocol),
            format!("{:.0}", median(&part.whole, |sample| sample.per_second)),
            format!("{:.1}", median(&part.whole, |sample| sample.batch)),
            format!("{:.2} ({}), {:.2} ({}) back", part.data.0, part.data.1, part.back.0, part.back.1),
        ]);
    }
    println!("{table}");
    println!(
        "UDP: the same packets through the plain loop. Protocol: two endpoints against each other in one process, without the"
    );
    println!(
        "packet log: the crate formats a log line of every packet that nobody reads, timed by itself. Rest: flows, arena, copies."
    );
}

fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(titles.iter().copied());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
