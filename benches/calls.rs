//! Daemon CPU per call at 500 calls/s, for every transport (SCTP: the kernel's where it has one, else in user space):
//! `cargo bench --bench calls`.
//!
//! Caller and callee use the same transport. The CPU is that of all the daemon's processes (master, workers, timer) while the calls
//! run; the phones are this process and are not counted. Each transport is measured several times, in turn, after a warm-up
//! that touches the shared memory for the first time; the median is printed.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use strowger::phone::agent::Manner;
use strowger::phone::daemon::{Daemon, free_port, is_there};
use strowger::phone::load::{Load, Order, Pace};
use strowger::transport::Transport;

const RATE: f64 = 500.0;
const WARM_UP_CALLS: u64 = 2_000;
const CALLS: u64 = 2_500;
const ROUNDS: usize = 5;
const PHONES: usize = 50;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One daemon with one transport, and its phones.
struct Bed {
    transport: Transport,
    daemon: Daemon,
    load: Load,
    callers: Vec<usize>,
    callees: Vec<usize>,
    /// CPU per call in µs, p50 and p99 of the set-up time in µs; a round each.
    rounds: Vec<[f64; 3]>,
    failed: u64,
}

impl Bed {
    fn new(transport: Transport) -> Bed {
        let proxy = SocketAddr::new(LOOPBACK, free_port().expect("a free port"));
        // UDP is always listened on: it tells when the daemon is ready.
        let listen = |token| format!("[[listen]]\ntransport = \"{token}\"\naddress = \"{proxy}\"\n");
        let mut text =
            "workers = 2\ndomains = [\"example.test\"]\n[admin]\naddress = \"off\"\n".to_owned() + &listen("udp");
        if transport != Transport::Udp {
            text += &listen(transport.uri_token());
        }
        let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_strowger")), &text).expect("the daemon");
        let began = Instant::now();
        while !is_there(proxy, Duration::from_millis(50)).expect("a probe") {
            assert!(began.elapsed() < Duration::from_secs(20), "the daemon is not ready: {}", daemon.said());
        }
        let mut load = Load::new("example.test", Manner::default()).expect("phones");
        let mut crowd = |what: &str| -> Vec<usize> {
            let add = |n| load.add_phone(&format!("{what}-{n}"), transport, LOOPBACK, proxy).expect("a phone");
            (0..PHONES).map(add).collect()
        };
        let (callers, callees) = (crowd("caller"), crowd("callee"));
        let everyone: Vec<usize> = callers.iter().chain(&callees).copied().collect();
        let refused = load.register(&everyone, 3_600).expect("registrations");
        assert!(refused.is_empty(), "{refused:?}");
        let mut bed = Bed { transport, daemon, load, callers, callees, rounds: Vec::new(), failed: 0 };
        bed.round(WARM_UP_CALLS, &mut || ());
        bed.rounds.clear();
        bed
    }

    fn round(&mut self, calls: u64, meanwhile: &mut dyn FnMut()) {
        let (callers, callees) = (&self.callers[..], &self.callees[..]);
        let order = Order { calls, longest: Duration::MAX, pace: Pace::PerSecond(RATE), callers, callees };
        let before = self.daemon.cpu();
        let tally = self.load.place(&order, &mut |_| {
            meanwhile();
            ControlFlow::Continue(())
        });
        let tally = tally.expect("calls");
        let cpu = self.daemon.cpu().saturating_sub(before);
        self.failed += tally.failed;
        let at = |quantile| tally.set_up.value_at_quantile(quantile) as f64;
        self.rounds.push([cpu.as_secs_f64() * 1e6 / tally.placed as f64, at(0.5), at(0.99)]);
    }

    fn median(&self, which: usize) -> f64 {
        let mut figures: Vec<f64> = self.rounds.iter().map(|round| round[which]).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn spread(&self, which: usize) -> (f64, f64) {
        let figures = self.rounds.iter().map(|round| round[which]);
        (figures.clone().fold(f64::INFINITY, f64::min), figures.fold(0.0, f64::max))
    }
}

fn main() {
    // cargo runs benchmarks as tests, too (`cargo test --benches`): there is nothing to see in a debug build.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mut beds: Vec<Bed> = Transport::ALL.into_iter().map(Bed::new).collect();
    for _ in 0..ROUNDS {
        for at in 0..beds.len() {
            let (before, rest) = beds.split_at_mut(at);
            let Some((bed, after)) = rest.split_first_mut() else { continue };
            // The others' phones go on answering heartbeats meanwhile.
            bed.round(CALLS, &mut || {
                before.iter_mut().chain(after.iter_mut()).for_each(|other| other.load.attend().expect("a poll"));
            });
        }
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "transport",
        "calls",
        "failed",
        "CPU µs/call",
        "min–max",
        "p50 ms",
        "p99 ms",
    ]);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for bed in &beds {
        let (least, most) = bed.spread(0);
        table.add_row([
            bed.transport.via_token().to_owned(),
            (CALLS * ROUNDS as u64).to_string(),
            bed.failed.to_string(),
            format!("{:.0}", bed.median(0)),
            format!("{least:.0}–{most:.0}"),
            format!("{:.2}", bed.median(1) / 1e3),
            format!("{:.2}", bed.median(2) / 1e3),
        ]);
    }
    println!("Daemon CPU per call at {RATE} calls/s, 2 workers; medians of {ROUNDS} rounds of {CALLS} calls\n{table}");
    for bed in beds {
        let _ = bed.daemon.stop();
    }
}
