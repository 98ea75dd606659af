//! The guard: what an operation costs the daemon, in instructions, against the figures that are committed (`figures.txt`). `run` beside
//! this file starts it, in a virtual machine that counts them; there they repeat within 0.5 %.
//!
//! Pairs of phones call at a rate that is no strain, over UDP, TCP and the kernel's SCTP. An operation is one
//! INVITE or BYE transaction.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(dead_code, reason = "parts are shared with other benchmarks, each shows some of the figures")]

#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/phones.rs"]
mod phones;
#[path = "../support/proxy.rs"]
mod proxy;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;
use std::{fs, io};

use strowger::phone::bench::results::Arrival;
use strowger::phone::bench::rig::PHONES_NICE;
use strowger::transport::Transport;

use crate::machine::Machine;
use crate::phones::{Lines, Meter, Phones};
use crate::proxy::Proxy;

/// Which worker a TCP connection belongs to is chance: with many of them the share of messages that pass a mailbox is much the same.
const PAIRS: [usize; 3] = [10, 100, 10];
const RATE: f64 = 200.0;
const CALLS_FOR: Duration = Duration::from_secs(3);
/// Longer than a finished transaction stays (32 s). It costs no time: the machine skips what it sleeps.
const PAUSE: Duration = Duration::from_secs(33);
/// More than this many times the committed figure is refused; less than its inverse is worth new figures.
const WORSE: f64 = 1.10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [daemon, figures, wanted @ ..] = &arguments[..] else {
        // cargo runs benchmarks as tests, too.
        println!("guard: benches/guard/run starts it");
        return ExitCode::SUCCESS;
    };
    match guard(Path::new(daemon), Path::new(figures), wanted) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guard: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False: something costs too much. `wanted`: transports; all if none is named.
fn guard(daemon: &Path, figures: &Path, wanted: &[String]) -> io::Result<bool> {
    if Machine::here() != Machine::Counting {
        return Err(io::Error::other("not in a machine that counts instructions: benches/guard/run"));
    }
    let committed = Figures::of(&fs::read_to_string(figures).unwrap_or_default());
    let seen = Figures {
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        compiler: std::env::var("GUARD_COMPILER").unwrap_or_default(),
        costs: [0, 1, 2].map(|index| {
            let (transport, pairs) = (Transport::ALL[index], PAIRS[index]);
            let wanted = wanted.is_empty() || wanted.iter().any(|word| word == transport.uri_token());
            wanted.then(|| cost(daemon, transport, pairs))
        }),
    };
    if let Some(folder) = std::env::var_os("VM_OUT") {
        fs::write(Path::new(&folder).join("figures.txt"), seen.written())?;
    }
    Ok(seen.judge(&committed))
}

/// Thousands of instructions per operation.
fn cost(daemon: &Path, transport: Transport, pairs: usize) -> f64 {
    let proxy = Proxy::strowger(daemon, transport, 20_000, "");
    let arrival = Arrival::Open { calls_per_s: RATE };
    let phones = Phones {
        program: daemon.to_owned(),
        transport,
        clients: pairs,
        lines: Lines::Own,
        arrival,
        warm_up: Duration::ZERO,
        // As the committed figures were counted.
        nice: PHONES_NICE,
    };
    let mut meter = Meter::of(&proxy, Duration::from_secs(4));
    // Memory is touched for the first time.
    phones.call(&proxy, &mut meter, CALLS_FOR);
    sleep(PAUSE);
    let calls = phones.call(&proxy, &mut meter, CALLS_FOR);
    sleep(PAUSE);
    let cost = meter.end(&proxy, &calls);
    assert_eq!(calls.failed, 0, "calls over {} failed", transport.via_token());
    cost.cpu
}

#[derive(Debug, Default, PartialEq)]
struct Figures {
    kernel: String,
    compiler: String,
    /// By `Transport::ALL`.
    costs: [Option<f64>; 3],
}

impl Figures {
    fn of(text: &str) -> Figures {
        let value = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.filter(|(first, _)| *first == name).map(|(_, rest)| rest.trim().to_owned()).next_back()
        };
        Figures {
            kernel: value("kernel").unwrap_or_default(),
            compiler: value("compiler").unwrap_or_default(),
            costs: Transport::ALL.map(|transport| value(transport.uri_token())?.parse().ok()),
        }
    }

    fn written(&self) -> String {
        let mut text = format!(
            "# Thousands of instructions per operation (INVITE or BYE transaction) of the release daemon: .ci/run refuses what is\n\
             # more than 10 % above. Written by benches/guard/run --renew.\nkernel {}\ncompiler {}\n",
            self.kernel, self.compiler
        );
        for (transport, cost) in Transport::ALL.into_iter().zip(self.costs) {
            let _ = writeln!(text, "{} {:.1}", transport.uri_token(), cost.unwrap_or(f64::NAN));
        }
        text
    }

    /// Says how these compare with the committed ones; false: something costs too much.
    fn judge(&self, committed: &Figures) -> bool {
        let (mut good, mut gained) = (true, false);
        for (index, transport) in Transport::ALL.into_iter().enumerate() {
            let name = transport.via_token();
            let Some(now) = self.costs.get(index).copied().flatten() else { continue };
            let Some(then) = committed.costs.get(index).copied().flatten() else {
                println!("guard: {name}: {now:.1} thousand instructions per operation; no figure is committed");
                good = false;
                continue;
            };
            let change = (now / then - 1.0) * 100.0;
            let word = if now > then * WORSE { "  WORSE" } else { "" };
            println!(
                "guard: {name}: {now:.1} thousand instructions per operation, committed {then:.1}, {change:+.1} %{word}"
            );
            good &= now <= then * WORSE;
            gained |= now < then / WORSE;
        }
        if !good {
            println!(
                "guard: more than 10 % worse. Find what costs so much: `benches/vm floor udp` says how far it is from the least"
            );
            println!(
                "guard: there can be, `perf record -e cpu-clock` on the workers where it goes. If it has to be, write the"
            );
            println!("guard: figures anew with `benches/guard/run --renew` and say in the commit what they pay for.");
            if (&self.kernel, &self.compiler) != (&committed.kernel, &committed.compiler) {
                println!(
                    "guard: this is kernel {} and {}; the figures are from {} and {}: that may be the reason.",
                    self.kernel, self.compiler, committed.kernel, committed.compiler
                );
            }
        } else if gained {
            println!(
                "guard: more than 10 % better: keep it with `benches/guard/run --renew`, or it can be lost unseen."
            );
        }
        good
    }
}
