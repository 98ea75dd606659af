//! Our daemon and Kamailio beside each other: CPU per operation under the same load, with the same two workers:
//!
//!     cargo bench --bench peers                       # UDP, TCP (Debian: kamailio)
//!     cargo bench --bench peers -- udp paced          # only this transport, only this load (paced, closed, fresh, trunk)
//!     benches/vm peers                                # UDP, TCP, SCTP in a virtual machine that counts instructions
//!
//! Needs Debian's kamailio, kamailio-sctp-modules and sip-tester. Kamailio (`kamailio.cfg`) does what ours does for a call: forwards
//! statefully, puts itself into the dialog, keeps bindings in memory. An operation is one INVITE or BYE transaction. The two take
//! turns, medians are printed, and of the ratio the least and the most. What a transaction costs after its end is counted, too (`Meter`).
//! The column "at most" is what the project wants to reach: no exit status.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(dead_code, reason = "parts are shared with other benchmarks, each shows some of the figures")]

#[path = "../support/fresh.rs"]
mod fresh;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/phones.rs"]
mod phones;
#[path = "../support/proxy.rs"]
mod proxy;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use strowger::phone::load::Pace;
use strowger::transport::Transport;

use crate::fresh::Fresh;
use crate::machine::Machine;
use crate::phones::{Calls, Cost, Meter, Phones, spread};
use crate::proxy::Proxy;

/// One load, and what is asked of ours: at most so many times Kamailio's CPU.
struct Load {
    word: &'static str,
    /// Callers, and as many callees, each with a connection or association.
    pairs: usize,
    pace: Pace,
    target: Option<f64>,
}

const FRESH: &str = "fresh";

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
                transactions: 1_000_000,
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
    let load = |word, pairs, pace, target| Load { word, pairs, pace, target };
    let at_once = |most| load("closed", most, Pace::AtOnce(most), None);
    let paced = |rate, target| load("paced", 1, Pace::PerSecond(rate), Some(target));
    let fresh = |rate| load(FRESH, 1, Pace::PerSecond(rate), Some(0.5));
    let mut loads = match machine {
        Machine::Metal => vec![paced(4_000.0, 0.55), at_once(100), at_once(500), at_once(1_000), fresh(300.0)],
        Machine::Counting | Machine::Emulated => {
            let trunk = (transport == Transport::Sctp).then_some(0.35);
            vec![paced(200.0, 0.45), fresh(50.0), load("trunk", 1, Pace::AtOnce(100), trunk)]
        }
    };
    // UDP has no connections.
    loads.retain(|load| load.word != FRESH || transport != Transport::Udp);
    loads
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo runs benchmarks as tests, too (`cargo test --benches`): there is nothing to see in a debug build.
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> io::Result<()> {
    let machine = Machine::here();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let scale = Scale::of(machine);
    let rate: Option<f64> = arguments.iter().find_map(|argument| argument.parse().ok());
    let named = |words: &[&str], word: &str| {
        let mut of_them = arguments.iter().filter(|argument| words.contains(&argument.as_str())).peekable();
        of_them.peek().is_none() || of_them.any(|argument| argument == word)
    };
    println!("CPU per operation, {}, of ours and of Kamailio, two workers each, {}", machine.unit(), machine.said());
    println!("medians of {} rounds of {} s each, in turn", scale.rounds, scale.calls_for.as_secs());
    let mut table = Table::new();
    let titles =
        ["", "load", "ours", "Kamailio", "ratio", "min–max", "at most", "op/s", "Kamailio's", "late ms", "failed"];
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for transport in Transport::ALL {
        if !named(&["udp", "tcp", "sctp"], transport.uri_token()) {
            continue;
        }
        if transport == Transport::Sctp && !sys::sctp::supported() {
            println!("skipped: SCTP: this kernel has none (benches/vm peers)");
            continue;
        }
        let ours = Proxy::strowger(&proxy::daemon(env!("CARGO_BIN_EXE_strowger")), transport, scale.transactions, "");
        let theirs = Proxy::kamailio(transport, scale.shared_mb)?;
        for mut load in loads(machine, transport) {
            if !named(&["paced", "closed", FRESH, "trunk"], load.word) {
                continue;
            }
            if let (Pace::PerSecond(_), Some(rate)) = (load.pace, rate) {
                load.pace = Pace::PerSecond(rate);
            }
            let rounds = compare(&scale, &ours, &theirs, transport, &load)?;
            eprintln!("{} {}: done", transport.via_token(), load.said());
            table.add_row(row(transport, &load, &rounds));
        }
    }
    println!("{table}");
    Ok(())
}

/// What one of them did in a round.
#[derive(Clone, Copy)]
struct Did {
    calls: Calls,
    cost: Cost,
}

/// One of the two, with its phones.
struct Side<'p> {
    proxy: &'p Proxy,
    phones: Phones,
    fresh: Option<Fresh>,
    meter: Meter,
    /// Of the round that has not ended: it lasts until the next one begins.
    open: Option<Calls>,
    did: Vec<Did>,
}

impl<'p> Side<'p> {
    fn new(proxy: &'p Proxy, transport: Transport, load: &Load) -> io::Result<Side<'p>> {
        let mut phones = Phones::new(proxy, transport, load.pairs);
        let fresh = if load.word == FRESH { Some(Fresh::new(proxy.address, transport)?) } else { None };
        // What was done before is gone.
        phones.rest(Duration::from_secs(33));
        let meter = Meter::of(proxy, &mut phones, Duration::from_secs(4));
        Ok(Side { proxy, phones, fresh, meter, open: None, did: Vec::new() })
    }

    fn round(&mut self, scale: &Scale, load: &Load) -> io::Result<()> {
        self.end();
        self.meter.begin(self.proxy);
        self.open = Some(match (&mut self.fresh, load.pace) {
            (Some(fresh), Pace::PerSecond(rate)) => fresh.call(rate, scale.calls_for)?,
            _ => self.phones.call(load.pace, scale.calls_for),
        });
        Ok(())
    }

    fn end(&mut self) {
        if let Some(calls) = self.open.take() {
            self.did.push(Did { calls, cost: self.meter.end(self.proxy, &calls) });
        }
    }
}

/// What ours and Kamailio did, round by round.
fn compare(
    scale: &Scale,
    ours: &Proxy,
    theirs: &Proxy,
    transport: Transport,
    load: &Load,
) -> io::Result<Vec<[Did; 2]>> {
    let mut ours = Side::new(ours, transport, load)?;
    let mut theirs = Side::new(theirs, transport, load)?;
    for _ in 0..scale.warm_up + scale.rounds {
        ours.round(scale, load)?;
        theirs.round(scale, load)?;
        theirs.phones.rest(scale.pause);
    }
    ours.end();
    theirs.phones.rest(scale.calls_for);
    theirs.end();
    let pairs = ours.did.into_iter().zip(theirs.did).map(|(ours, theirs)| [ours, theirs]);
    Ok(pairs.skip(scale.warm_up).collect())
}

impl Load {
    fn said(&self) -> String {
        match self.pace {
            Pace::PerSecond(rate) if self.word == FRESH => format!("{rate} calls/s, a new connection each"),
            Pace::PerSecond(rate) => format!("{rate} calls/s, {} each side", connections(self.pairs)),
            Pace::AtOnce(most) if self.word == "trunk" => {
                format!("trunk: {most} calls at once, {} each side", connections(self.pairs))
            }
            Pace::AtOnce(most) => format!("{most} clients, a call each"),
        }
    }
}

fn connections(pairs: usize) -> String {
    if pairs == 1 { "one connection".into() } else { format!("{pairs} connections") }
}

fn row(transport: Transport, load: &Load, rounds: &[[Did; 2]]) -> Vec<String> {
    let spread_of = |of: &dyn Fn(&[Did; 2]) -> f64| spread(rounds.iter().map(of));
    let [least, ratio, most] = spread_of(&|[ours, theirs]| ours.cost.cpu / theirs.cost.cpu);
    let cpu = |side: usize| format!("{:.1}", spread_of(&|dids| side_of(dids, side).cost.cpu)[1]);
    let per_second = |side: usize| {
        let speed = |did: &Did| did.calls.operations as f64 / did.calls.took.as_secs_f64();
        format!("{:.0}", spread_of(&|dids| speed(side_of(dids, side)))[1])
    };
    let late = |side: usize| spread_of(&|dids| side_of(dids, side).calls.behind.as_secs_f64() * 1e3)[2];
    let failed = |side: usize| rounds.iter().map(|dids| side_of(dids, side).calls.failed).sum::<u64>();
    vec![
        transport.via_token().to_owned(),
        load.said(),
        cpu(0),
        cpu(1),
        format!("{ratio:.2}"),
        format!("{least:.2}–{most:.2}"),
        load.target
            .map(|target| format!("{target} {}", if ratio <= target { "yes" } else { "MISSED" }))
            .unwrap_or_default(),
        per_second(0),
        per_second(1),
        format!("{:.0}, {:.0}", late(0), late(1)),
        format!("{}, {}", failed(0), failed(1)),
    ]
}

fn side_of(dids: &[Did; 2], side: usize) -> &Did {
    if side == 0 { &dids[0] } else { &dids[1] }
}
