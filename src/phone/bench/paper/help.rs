//! What `bench paper --help` says below its options.
//!
//! Owns: the examples. How long they take is computed from their plans, so that it stays true.

use std::path::PathBuf;

use super::grid::Plan;
use super::subjects::Name;
use super::{Able, MOST_FAVOURED, Options, words};
use crate::phone::bench::demand::WARM_UP_S;
use crate::phone::bench::rig::PHONES_NICE;

/// As if nothing but `--out` was typed.
pub(super) fn usual() -> Options {
    Options {
        out: PathBuf::from("DIR"),
        quick: false,
        resume: false,
        clients: vec![100, 500, 1_000],
        large: false,
        workers: vec![2],
        rounds: None,
        idle_s: 10,
        warm_up_s: WARM_UP_S,
        measure_s: 10,
        only: Vec::new(),
    }
}

/// Of the five kinds of TCP those that answer the most.
fn narrow() -> Options {
    let only = vec![Name::Udp, Name::Supervisor, Name::SupervisorCacheQueue, Name::Symmetric];
    Options { clients: vec![500], rounds: Some(1), only, ..usual() }
}

/// More workers than most machines have processors.
pub(super) fn many_workers() -> Options {
    Options { workers: vec![24, 32], ..narrow() }
}

/// The paper's other idle time-out.
pub(super) fn long_idle() -> Options {
    Options { idle_s: 120, ..narrow() }
}

/// A command goes on in the next line: as one it would be wrapped anywhere.
const BREAK: char = '\\';

pub(super) fn more() -> String {
    let as_root = |kernel_sctp| Able { kernel_sctp, prefer: true };
    let takes = |plan: &Plan| words::time(plan.estimate().as_secs_f64());
    let rounds = |able: Able| {
        let of = |rounds| takes(&Plan { rounds, ..usual().plan(able) });
        format!("{} (a third round of everything would make it {})", of(2), of(3))
    };
    let of = |options: &Options| takes(&options.plan(as_root(true)));
    format!(
        "\
How long it takes: {with} on a kernel with SCTP, {without} without. --quick: {quick}. Every row warms up for {WARM_UP_S} s at least, until \
as many transactions end as begin. UDP is measured beside each lifetime, and a ratio is of two runs of the same round. A row does not \
count if the phones were the limit, more than one call in a thousand failed, or others used more than 10 % of the processors: let \
nothing else run.

As root there is more: the supervisor runs at nice {most} as well as at 0, and the phones at {phones} instead of 0, so that they do not \
wait for processors. Results say at which value the phones ran, and --resume goes on only at the same, on the same machine and kernel, \
with the same build of this program.

Examples:
  strowger bench paper --quick --out DIR
      A sketch, nothing to quote.
  strowger bench paper --out DIR
      The matrix. Ctrl-C ends it and leaves a report of what there is.
  strowger bench paper --resume --out DIR
      Goes on; all other options as they were.
  benches/vm paper --quick --out DIR
      From the sources, where this kernel has no SCTP: in a virtual machine that has it. Its rates mean something only beside each other.
  strowger bench paper --workers 24,32 --clients 500 --rounds 1 --out DIR {BREAK}
    --only udp,supervisor,supervisor-cache-queue,symmetric
      More workers than most machines have processors: {workers}.
  strowger bench paper --idle-s 120 --clients 500 --rounds 1 --out DIR {BREAK}
    --only udp,supervisor,supervisor-cache-queue,symmetric
      The paper's other idle time-out: {idle}.

Exit status:
   0  all was measured
   1  some of it could not be (the lines say what and why); --resume tries again
   2  the command line is wrong, or does not fit what lies in DIR
 130  interrupted (128 and the signal, as shells have it)",
        with = rounds(as_root(true)),
        without = rounds(as_root(false)),
        quick = takes(&Options { quick: true, ..usual() }.plan(as_root(true))),
        workers = of(&many_workers()),
        idle = of(&long_idle()),
        most = words::nice(MOST_FAVOURED),
        phones = words::nice(PHONES_NICE),
    )
}
