//! Our daemon and Kamailio beside each other: CPU per operation under the same load, with the same two workers:
//!
//!     cargo bench --bench peers                       # UDP, TCP (Debian: kamailio)
//!     cargo bench --bench peers -- udp paced          # only this transport, only this load (paced, bursts, closed, fresh, trunk, trunks)
//!     benches/vm peers                                # UDP, TCP, SCTP in a virtual machine that counts instructions
//!
//! Needs Debian's kamailio, kamailio-sctp-modules and sip-tester. Kamailio (`kamailio.cfg`) does what ours does for a call: forwards
//! statefully, puts itself into the dialog, keeps bindings in memory. An operation is one INVITE or BYE transaction. The two take
//! turns, medians are printed, and of the ratio the least and the most. What a transaction costs after its end is counted, too (`Meter`).
//! The column "at most" is what the project wants to reach: no exit status.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(dead_code, reason = "parts are shared with other benchmarks, each shows some of the figures")]

mod bursts;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/phones.rs"]
mod phones;
#[path = "../support/processors.rs"]
mod processors;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::io;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use strowger::phone::bench::results::Arrival;
use strowger::phone::bench::rig::PHONES_NICE;
use strowger::transport::Transport;

use crate::machine::Machine;
use crate::phones::{Calls, Cost, Lines, Meter, NICE, Phones, daemon, spread};
use crate::proxy::Proxy;

/// One load, and what is asked of ours: at most so many times Kamailio's CPU.
struct Load {
    word: &'static str,
    /// Callers, and as many callees.
    clients: usize,
    lines: Lines,
    arrival: Arrival,
    target: Option<f64>,
}

/// Saturated: one trunk on each side, and four.
const TRUNKS: [&str; 2] = ["trunk", "trunks"];

/// What the loads are called on the command line.
const LOADS: [&str; 6] = ["paced", "bursts", "closed", "fresh", TRUNKS[0], TRUNKS[1]];
const TRANSPORTS: [&str; 3] = ["udp", "tcp", "sctp"];

/// Ours over a saturated SCTP trunk may cost so many times what it costs over UDP.
const TRUNK: f64 = 1.1;

/// How much is measured.
struct Scale {
    /// Before anything counts: together longer than a finished transaction stays.
    warm_up: usize,
    rounds: usize,
    calls_for: Duration,
    pause: Duration,
    /// Of our table, and MB of Kamailio's shared memory.
    transactions: usize,
    shared_mb: usize,
}

impl Scale {
    fn of(machine: Machine) -> Scale {
        let seconds = Duration::from_secs;
        match machine {
            Machine::Metal => Scale {
                warm_up: 3,
                rounds: 5,
                calls_for: seconds(6),
                pause: seconds(0),
                // Of 50,000 operations a second, half of the time, each stays for 32 s.
                transactions: 3_000_000,
                shared_mb: 3_072,
            },
            // A pause costs no time there, and rounds are alike.
            Machine::Counting | Machine::Emulated => Scale {
                warm_up: 2,
                rounds: 2,
                calls_for: seconds(2),
                pause: seconds(13),
                transactions: 286_720,
                shared_mb: 384,
            },
        }
    }
}

fn loads(machine: Machine, transport: Transport) -> Vec<Load> {
    let load = |word, clients, lines, arrival, target| Load { word, clients, lines, arrival, target };
    let open = |calls_per_s| Arrival::Open { calls_per_s };
    // Over one connection or association on each side.
    let paced = |rate, target| load("paced", 100, Lines::Trunks(1), open(rate), Some(target));
    // The same, placed by SIPp.
    let bursts = |rate, target| load("bursts", 100, Lines::Trunks(1), open(rate), Some(target));
    let closed = |clients| load("closed", clients, Lines::Own, Arrival::Closed, None);
    let fresh = |rate| load("fresh", 50, Lines::PerCall, open(rate), Some(0.5));
    let mut loads = match machine {
        Machine::Metal => {
            vec![paced(4_000.0, 0.55), bursts(4_000.0, 0.55), closed(100), closed(500), closed(1_000), fresh(300.0)]
        }
        Machine::Counting | Machine::Emulated => vec![paced(200.0, 0.45), fresh(50.0)],
    };
    if machine != Machine::Metal || sys::sctp::supported() {
        let target = (transport == Transport::Sctp).then_some(0.35);
        loads.push(load(TRUNKS[0], 100, Lines::Trunks(1), Arrival::Closed, target));
        loads.push(load(TRUNKS[1], 100, Lines::Trunks(4), Arrival::Closed, target));
    }
    // UDP has no connections.
    loads.retain(|load| load.lines != Lines::PerCall || transport != Transport::Udp);
    loads
}

fn main() -> ExitCode {
    program::run("peers", include_str!("main.rs"), measure)
}

fn measure(arguments: &[String]) -> io::Result<()> {
    program::known(arguments, &[TRANSPORTS.as_slice(), &LOADS].concat())?;
    let machine = Machine::here();
    // For Kamailio: a file for each connection.
    sys::process::set_open_files(1_000_000)?;
    let scale = Scale::of(machine);
    let program = daemon(env!("CARGO_BIN_EXE_strowger"));
    let rate: Option<f64> = arguments.iter().find_map(|argument| argument.parse().ok());
    let named = |words: &[&str], word: &str| {
        let mut of_them = arguments.iter().filter(|argument| words.contains(&argument.as_str())).peekable();
        of_them.peek().is_none() || of_them.any(|argument| argument == word)
    };
    println!("CPU per operation, {}, of ours and of Kamailio, two workers each, {}", machine.unit(), machine.said());
    println!(
        "medians of {} rounds of {} s each, in turn; phones at nice {NICE}{}; at a given rate: {}",
        scale.rounds,
        scale.calls_for.as_secs(),
        if machine == Machine::Metal { String::new() } else { format!(", all calls at once: {PHONES_NICE}") },
        processors::said()
    );
    let mut table = Table::new();
    let titles = [
        "",
        "load",
        "ours",
        "Kamailio",
        "ratio",
        "min–max",
        "at most",
        "op/s",
        "Kamailio's",
        "phones busy",
        "again",
        "late ms",
        "failed",
    ];
    let mut trunks = Vec::new();
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for transport in Transport::ALL {
        if !named(&TRANSPORTS, transport.uri_token()) {
            continue;
        }
        if transport == Transport::Sctp && !sys::sctp::supported() {
            println!("skipped: SCTP: this kernel has none (benches/vm peers)");
            continue;
        }
        let ours = Proxy::strowger(&program, transport, scale.transactions, "");
        let theirs = Proxy::kamailio(transport, scale.shared_mb)?;
        for mut load in loads(machine, transport) {
            if !named(&LOADS, load.word) {
                continue;
            }
            if let (Arrival::Open { calls_per_s }, Some(rate)) = (&mut load.arrival, rate) {
                *calls_per_s = rate;
            }
            let phones = Phones {
                program: program.clone(),
                transport,
                clients: load.clients,
                lines: load.lines,
                arrival: load.arrival,
                warm_up: Duration::ZERO,
                nice: load.nice(machine),
            };
            // At a given rate; a closed loop uses all there is.
            let proxies = [ours.pids(), theirs.pids()].concat();
            match load.arrival {
                Arrival::Open { .. } => processors::apart(&proxies),
                Arrival::Closed => processors::together(&proxies),
            }
            let rounds = compare(&scale, &ours, &theirs, &|proxy, meter| match load.of_sipp() {
                Some(calls_per_s) => bursts::call(transport, calls_per_s, proxy, meter, scale.calls_for),
                None => phones.call(proxy, meter, scale.calls_for),
            });
            let fault = fault(&load, &rounds);
            if TRUNKS.contains(&load.word) && fault.is_none() {
                trunks.push((load.word, transport, spread(rounds.iter().map(|[ours, _]| ours.cost.cpu))[1]));
            }
            let row = row(transport, &load, &rounds, fault.is_none());
            // A long run that does not come to its end has told something.
            eprintln!("{} {}: ours {}, Kamailio {}, ratio {}", row[0], row[1], row[2], row[3], row[4]);
            fault.into_iter().for_each(|fault| println!("no figure: {} {}: {fault}", row[0], row[1]));
            table.add_row(row);
        }
    }
    println!("{table}");
    println!(
        "phones busy: the share of a round in which the busiest phone process ran or waited for a processor; near 100 % the phones were the"
    );
    println!(
        "limit. of SIPp only how long it ran. again: messages that the phones sent again. Of ours, then of Kamailio."
    );
    for word in TRUNKS {
        let of = |wanted| trunks.iter().find(|(of, over, _)| (*of, *over) == (word, wanted)).map(|(_, _, cpu)| cpu);
        let (Some(udp), Some(sctp)) = (of(Transport::Udp), of(Transport::Sctp)) else { continue };
        let ratio = sctp / udp;
        println!(
            "SCTP's saturated {word} beside UDP's: {sctp:.1} / {udp:.1} {} of ours, ratio {ratio:.2}, at most {TRUNK} {}",
            machine.unit(),
            if ratio <= TRUNK { "yes" } else { "MISSED" }
        );
    }
    Ok(())
}

/// What one of them did in a round.
#[derive(Clone, Copy)]
struct Did {
    calls: Calls,
    cost: Cost,
}

/// One of the two.
struct Side<'p> {
    proxy: &'p Proxy,
    meter: Meter,
    /// Of the round that has not ended: it lasts until the next one begins.
    open: Option<Calls>,
    did: Vec<Did>,
}

impl<'p> Side<'p> {
    fn new(proxy: &'p Proxy) -> Side<'p> {
        Side { proxy, meter: Meter::of(proxy, Duration::from_secs(4)), open: None, did: Vec::new() }
    }

    fn round(&mut self, calls: &dyn Fn(&Proxy, &mut Meter) -> Calls) {
        self.end();
        self.open = Some(calls(self.proxy, &mut self.meter));
    }

    fn end(&mut self) {
        if let Some(calls) = self.open.take() {
            self.did.push(Did { calls, cost: self.meter.end(self.proxy, &calls) });
        }
    }
}

/// What ours and Kamailio did, round by round.
fn compare(scale: &Scale, ours: &Proxy, theirs: &Proxy, calls: &dyn Fn(&Proxy, &mut Meter) -> Calls) -> Vec<[Did; 2]> {
    // What was done before is gone.
    sleep(Duration::from_secs(33));
    let (mut ours, mut theirs) = (Side::new(ours), Side::new(theirs));
    for _ in 0..scale.warm_up + scale.rounds {
        ours.round(calls);
        theirs.round(calls);
        sleep(scale.pause);
    }
    ours.end();
    sleep(scale.calls_for);
    theirs.end();
    let pairs = ours.did.into_iter().zip(theirs.did).map(|(ours, theirs)| [ours, theirs]);
    pairs.skip(scale.warm_up).collect()
}

impl Load {
    /// Calls per second, if SIPp places them.
    fn of_sipp(&self) -> Option<f64> {
        match self.arrival {
            Arrival::Open { calls_per_s } if self.word == "bursts" => Some(calls_per_s),
            _ => None,
        }
    }

    /// Where there is one processor for all, phones that call as fast as they can would be the limit if they had to wait for it.
    fn nice(&self, machine: Machine) -> i32 {
        match (machine, self.arrival) {
            (Machine::Counting | Machine::Emulated, Arrival::Closed) => PHONES_NICE,
            _ => NICE,
        }
    }

    fn said(&self) -> String {
        match (self.arrival, self.lines) {
            (Arrival::Open { calls_per_s }, Lines::PerCall) => format!("{calls_per_s} calls/s, a connection for each"),
            (Arrival::Open { calls_per_s }, _) if self.of_sipp().is_some() => format!("{calls_per_s} calls/s, SIPp's"),
            (Arrival::Open { calls_per_s }, _) => format!("{calls_per_s} calls/s, one connection"),
            (Arrival::Closed, Lines::Trunks(1)) => format!("{} calls at once, one connection", self.clients),
            (Arrival::Closed, Lines::Trunks(n)) => format!("{} calls at once, {n} connections", self.clients),
            (Arrival::Closed, _) => format!("{} clients", self.clients),
        }
    }
}

/// Why the two are not to be compared: the first thing that was wrong with one of them in a round.
fn fault(load: &Load, rounds: &[[Did; 2]]) -> Option<String> {
    let sides = rounds.iter().flat_map(|dids| ["ours", "Kamailio"].into_iter().zip(dids));
    sides.filter_map(|(who, did)| Some(format!("{who}: {}", did.calls.fault(load.arrival)?))).next()
}

fn row(transport: Transport, load: &Load, rounds: &[[Did; 2]], counts: bool) -> Vec<String> {
    let spread_of = |of: &dyn Fn(&[Did; 2]) -> f64| spread(rounds.iter().map(of));
    let [least, ratio, most] = spread_of(&|[ours, theirs]| ours.cost.cpu / theirs.cost.cpu);
    let cpu = |side: usize| format!("{:.1}", spread_of(&|dids| side_of(dids, side).cost.cpu)[1]);
    let per_second = |side: usize| {
        let speed = |did: &Did| did.calls.operations as f64 / did.calls.took.as_secs_f64();
        format!("{:.0}", spread_of(&|dids| speed(side_of(dids, side)))[1])
    };
    let late = |side: usize| spread_of(&|dids| side_of(dids, side).calls.behind.as_secs_f64() * 1e3)[2];
    let sum = |of: fn(&Did) -> u64, side: usize| rounds.iter().map(|dids| of(side_of(dids, side))).sum::<u64>();
    let failed = |side: usize| sum(|did| did.calls.failed, side);
    let again = |side: usize| sum(|did| did.calls.retransmitted, side);
    let busy = |side: usize| 100.0 * spread_of(&|dids| side_of(dids, side).calls.busy)[1];
    vec![
        transport.via_token().to_owned(),
        load.said(),
        cpu(0),
        cpu(1),
        if counts { format!("{ratio:.2}") } else { "no figure".to_owned() },
        if counts { format!("{least:.2}–{most:.2}") } else { String::new() },
        match load.target {
            None => String::new(),
            Some(target) if !counts => format!("{target} ?"),
            Some(target) if ratio <= target => format!("{target} yes"),
            Some(target) => format!("{target} MISSED"),
        },
        per_second(0),
        per_second(1),
        format!("{:.0}, {:.0} %", busy(0), busy(1)),
        format!("{}, {}", again(0), again(1)),
        if load.of_sipp().is_some() { "–".to_owned() } else { format!("{:.0}, {:.0}", late(0), late(1)) },
        format!("{}, {}", failed(0), failed(1)),
    ]
}

fn side_of(dids: &[Did; 2], side: usize) -> &Did {
    if side == 0 { &dids[0] } else { &dids[1] }
}
