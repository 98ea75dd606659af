//! The daemon beside the floor under it: what receiving and sending alone cost (`floor.c`, a plain loop of system calls), in the same
//! minute, at the same rate of messages of the same size:
//!
//!     cargo bench --bench floor                       # UDP, TCP; where the kernel has it SCTP
//!     cargo bench --bench floor -- tcp 2000           # only this transport, only this rate (calls/s)
//!     benches/vm floor                                # in a virtual machine with SCTP that counts instructions: µs are thousands of them
//!
//! An operation is one INVITE or BYE transaction. A call is two: six messages in, seven out, so an operation stands for 3.25 forwards.
//! The daemon has calls at R a second, the floor 6.5 × R messages a second, evenly spaced, each in and out again. They take turns; medians
//! are printed, and of the ratio the least and the most of the rounds. That the ratio is at most 1.5 (instructions: 1.8) is no exit
//! status, the table says it; nor is what SCTP with an association for each client costs more than UDP, which stands below.
//!
//! The daemon has two workers, and its CPU is that of all its processes: also what the timer process uses when nothing happens.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(clippy::indexing_slicing, reason = "of its own making")]
#![allow(dead_code, reason = "parts are shared with other benchmarks, each shows some of the figures")]

#[path = "../transport/ends.rs"]
mod ends;
#[path = "../transport/kind.rs"]
mod kind;
#[path = "../transport/load.rs"]
mod load;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../messages/mod.rs"]
mod messages;
#[path = "../support/phones.rs"]
mod phones;
#[path = "../support/processors.rs"]
mod processors;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/proxy.rs"]
mod proxy;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use strowger::phone::bench::results::Arrival;

use crate::ends::{Sctp, Tcp, Udp};
use crate::kind::{APART, Forwarding, Kind};
use crate::load::{Load, Messages, PLACE};
use crate::machine::Machine;
use crate::phones::{Calls, Cost, Lines, Meter, NICE, Phones, daemon, spread};
use crate::proxy::Proxy;

/// Forwards that an operation stands for.
const FORWARDS: f64 = 3.25;
/// The mean of the phones' messages: 448 in, 440 out (counted with strace).
const BYTES: usize = 450;

/// SCTP's extra CPU over UDP may be this many times the floors' difference.
const EXTRA: f64 = 1.2;

/// How much is measured. A round is the daemon's, then the floor's, then a pause.
struct Scale {
    rates: &'static [f64],
    /// Before anything counts: together longer than a finished transaction stays.
    warm_up: usize,
    rounds: usize,
    calls_for: Duration,
    pause: Duration,
    /// The ratio may be this much.
    target: f64,
}

impl Scale {
    fn of(machine: Machine) -> Scale {
        let seconds = Duration::from_secs;
        match machine {
            Machine::Metal => Scale {
                rates: &[500.0, 2_000.0, 4_000.0],
                warm_up: 4,
                rounds: 5,
                calls_for: seconds(4),
                pause: seconds(0),
                target: 1.5,
            },
            // A pause costs no time there, and rounds are alike.
            Machine::Counting => {
                Scale { rates: &[200.0], warm_up: 2, rounds: 3, calls_for: seconds(2), pause: seconds(13), target: 1.8 }
            }
            Machine::Emulated => {
                Scale { rates: &[40.0], warm_up: 4, rounds: 7, calls_for: seconds(5), pause: seconds(0), target: 1.8 }
            }
        }
    }
}

fn main() -> ExitCode {
    program::run("floor", include_str!("main.rs"), measure)
}

fn measure(arguments: &[String]) -> io::Result<()> {
    program::known(arguments, &Kind::ALL.map(Kind::word))?;
    let (machine, floor) = (Machine::here(), kind::floor()?);
    let scale = Scale::of(machine);
    let asked: Vec<f64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let rates = if asked.is_empty() { scale.rates.to_vec() } else { asked };
    let words: Vec<_> = arguments.iter().filter(|word| Kind::ALL.iter().any(|kind| kind.word() == *word)).collect();
    println!(
        "CPU of the daemon per operation beside {FORWARDS} forwards of {BYTES} bytes by a plain loop, {}",
        machine.said()
    );
    println!(
        "medians of {} rounds of {} s each, in turn; phones at nice {NICE}; {}",
        scale.rounds,
        scale.calls_for.as_secs(),
        processors::said()
    );
    let mut table = Table::new();
    let mut seen = Vec::new();
    let titles = [
        "",
        "calls/s",
        "ours µs",
        "floor µs",
        "ratio",
        "min–max",
        "at most",
        "sleeps/op",
        "floor's",
        "late ms",
        "failed",
    ];
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for (kind, pairs) in [(Kind::Udp, &[50][..]), (Kind::Tcp, &[1, 50]), (Kind::KernelSctp, &[1, 4, 100])] {
        let wanted = words.is_empty() || words.iter().any(|word| *word == kind.word());
        if wanted && kind == Kind::KernelSctp && !sys::sctp::supported() {
            println!("skipped: SCTP: this kernel has none (benches/vm floor)");
        } else if wanted {
            transport(&scale, &floor, kind, pairs, &rates, &mut table, &mut seen)?;
        }
    }
    println!("{table}");
    extra(&seen).iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// What a row came to, µs per operation.
#[derive(Clone, Copy, Debug)]
struct Seen {
    kind: Kind,
    pairs: u16,
    rate: f64,
    ours: f64,
    floor: f64,
}

/// SCTP with an association for each client beside UDP at the same rate: what ours pays more, divided by what the floor pays more. It may be
/// `EXTRA` times as much.
fn extra(seen: &[Seen]) -> Vec<String> {
    let own = seen.iter().filter(|row| row.kind == Kind::KernelSctp && row.pairs > 4);
    let line = |sctp: &Seen| {
        let udp = seen.iter().find(|row| row.kind == Kind::Udp && row.rate == sctp.rate)?;
        let (ours, floor) = (sctp.ours - udp.ours, sctp.floor - udp.floor);
        let judged = match ours / floor {
            _ if floor <= 0.0 => "no ratio".to_owned(),
            ratio => format!("ratio {ratio:.2}, at most {EXTRA} {}", if ratio <= EXTRA { "yes" } else { "MISSED" }),
        };
        Some(format!(
            "SCTP, an association for each client, over UDP at {} calls/s: ours {ours:+.1} µs, floor {floor:+.1} µs, {judged}",
            sctp.rate
        ))
    };
    own.filter_map(line).collect()
}

/// All rows of one transport, with one daemon.
fn transport(
    scale: &Scale,
    floor: &Path,
    kind: Kind,
    pairs: &[u16],
    rates: &[f64],
    table: &mut Table,
    seen: &mut Vec<Seen>,
) -> io::Result<()> {
    let program = daemon(env!("CARGO_BIN_EXE_strowger"));
    let ours = Proxy::strowger(&program, kind.transport(), 286_720, "");
    let mut meter = Meter::of(&ours, Duration::from_secs(4));
    let mut first = port_base();
    for &pairs in pairs {
        // UDP has no connections.
        let flows = if kind == Kind::Udp { 1 } else { pairs };
        let mut plain = Plain::new(floor, kind, flows, first)?;
        first += flows;
        processors::apart(&[ours.pids(), vec![plain.forwarding.pid()]].concat());
        let phones = |rate| Phones {
            program: program.clone(),
            transport: kind.transport(),
            // So many calls at once, whatever carries them.
            clients: usize::from(pairs).max(50),
            lines: if pairs < 50 { Lines::Trunks(pairs.into()) } else { Lines::Own },
            arrival: Arrival::Open { calls_per_s: rate },
            warm_up: Duration::ZERO,
            nice: NICE,
        };
        for &rate in rates {
            let mut rounds = Vec::new();
            for _ in 0..scale.warm_up + scale.rounds {
                let calls = phones(rate).call(&ours, &mut meter, scale.calls_for);
                let forward = plain.round(2.0 * FORWARDS * rate, scale.calls_for)?;
                sleep(scale.pause);
                rounds.push(Round { calls, cost: meter.end(&ours, &calls), forward });
            }
            let measured = rounds.split_off(scale.warm_up);
            let ours = spread(measured.iter().map(|round| round.cost.cpu))[1];
            let floor = FORWARDS * spread(measured.iter().map(|round| round.forward.cpu))[1];
            let wrong = measured.iter().find_map(|round| round.calls.fault(Arrival::Open { calls_per_s: rate }));
            if wrong.is_none() {
                seen.push(Seen { kind, pairs, rate, ours, floor });
            }
            let row = row(scale, &name(kind, pairs), rate, &measured, wrong.is_none());
            // A long run that does not come to its end has told something.
            eprintln!("{} at {rate} calls/s: ours {}, floor {}, ratio {}", row[0], row[2], row[3], row[4]);
            wrong.into_iter().for_each(|wrong| println!("no figure: {} at {rate} calls/s: {wrong}", row[0]));
            table.add_row(row);
        }
    }
    Ok(())
}

struct Round {
    calls: Calls,
    cost: Cost,
    forward: Forward,
}

/// As little of an INVITE as TCP's framing needs, and a body.
fn message() -> Vec<u8> {
    let head = |body: usize| {
        format!(
            "INVITE sip:z@strowger.example.test SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.101:5060;branch=z9hG4bK74bf9aa21c55;rport\r\n\
             From: <sip:a@example.test>;tag=9fxced76sl\r\nTo: <sip:z@example.test>\r\n\
             Call-ID: {PLACE}@192.0.2.101\r\nCSeq: 1 INVITE\r\nContent-Length: {body:04}\r\n\r\n"
        )
    };
    let mut message = head(BYTES - head(0).len()).into_bytes();
    message.resize(BYTES, b'x');
    message
}

/// The plain loop with its load.
struct Plain {
    forwarding: Forwarding,
    load: Load,
}

/// Per message.
#[derive(Clone, Copy, Debug)]
struct Forward {
    cpu: f64,
    sleeps: f64,
}

/// Bit 10 is clear, so that the far side's ports (^ `APART`) are others; most likely others than another run's at the same time.
fn port_base() -> u16 {
    20_480 + 2 * APART * (std::process::id() % 5) as u16
}

impl Plain {
    /// Side `a` has the ports from `first` on.
    fn new(floor: &Path, kind: Kind, flows: u16, first: u16) -> io::Result<Plain> {
        let port = port_base() + 1000;
        // As large as the daemon's own.
        let config =
            strowger::config::Config::from_text("").map_err(|mistakes| io::Error::other(format!("{mistakes:?}")))?;
        let buffers = match kind {
            Kind::Udp | Kind::UserSctp => (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes),
            Kind::KernelSctp => (config.sctp.socket_rcvbuf_bytes, config.sctp.socket_sndbuf_bytes),
            Kind::Tcp => (0, 0),
        };
        let forwarding = Forwarding::plain(floor, kind, port, buffers)?;
        let load = Load::new(Messages::new(message()), |epoll| {
            Ok(match kind {
                Kind::Udp | Kind::UserSctp => Box::new(Udp::open(epoll, first, port, None)?),
                Kind::Tcp => Box::new(Tcp::open(epoll, first, port, flows, BYTES)?),
                Kind::KernelSctp => Box::new(Sctp::open(epoll, first, port, flows)?),
            })
        })?;
        let mut plain = Plain { forwarding, load };
        // Every connection comes up.
        plain.load.run(load::Pace::Open(500.0), 4 * u64::from(flows))?;
        Ok(plain)
    }

    fn round(&mut self, rate: f64, how_long: Duration) -> io::Result<Forward> {
        let count = (rate * how_long.as_secs_f64()) as u64;
        let (counts, cpu) = (self.forwarding.counts()?, self.forwarding.cpu()?);
        self.load.run(load::Pace::Open(rate), count)?;
        sleep(Duration::from_millis(5));
        let (cpu, now) = (self.forwarding.cpu()?.saturating_sub(cpu), self.forwarding.counts()?);
        if now.messages - counts.messages != count {
            return Err(io::Error::other(format!("{count} messages arrived, not {}", now.messages - counts.messages)));
        }
        let per_message = |figure: f64| figure / count as f64;
        Ok(Forward {
            cpu: per_message(cpu.as_secs_f64() * 1e6),
            sleeps: per_message((now.waits - counts.waits) as f64),
        })
    }
}

fn name(kind: Kind, pairs: u16) -> String {
    let (what, one) = match kind {
        Kind::Udp | Kind::UserSctp => return "UDP".into(),
        Kind::Tcp => ("TCP", "connection"),
        Kind::KernelSctp => ("SCTP", "association"),
    };
    format!("{what}, {pairs} {one}{} each side", if pairs == 1 { "" } else { "s" })
}

fn row(scale: &Scale, name: &str, rate: f64, rounds: &[Round], counts: bool) -> Vec<String> {
    let spread = |of: fn(&Round) -> f64| spread(rounds.iter().map(of));
    let [least, ratio, most] = spread(|round| round.cost.cpu / (FORWARDS * round.forward.cpu));
    vec![
        name.to_owned(),
        format!("{rate}"),
        format!("{:.1}", spread(|round| round.cost.cpu)[1]),
        format!("{:.1}", FORWARDS * spread(|round| round.forward.cpu)[1]),
        if counts { format!("{ratio:.2}") } else { "no figure".to_owned() },
        if counts { format!("{least:.2}–{most:.2}") } else { String::new() },
        match counts {
            true if ratio <= scale.target => format!("{:.1} yes", scale.target),
            true => format!("{:.1} MISSED", scale.target),
            false => format!("{:.1} ?", scale.target),
        },
        format!("{:.2}", spread(|round| round.cost.sleeps)[1]),
        format!("{:.2}", FORWARDS * spread(|round| round.forward.sleeps)[1]),
        format!("{:.0}", spread(|round| round.calls.behind.as_secs_f64() * 1e3)[2]),
        rounds.iter().map(|round| round.calls.failed).sum::<u64>().to_string(),
    ]
}
