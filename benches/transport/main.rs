//! The bare transport, receive and send with nothing between, beside a plain loop of system calls (`benches/floor/floor.c`):
//!
//!     cargo bench --bench transport                                        # UDP, TCP, SCTP in user space
//!     cargo bench --bench transport -- tcp user                            # only these (udp, tcp, sctp, user)
//!     benches/vm transport                                                 # on a kernel with SCTP: µs are thousands of instructions
//!     VM_ICOUNT=0 benches/vm transport                                     # the same, not counted: only ratios mean something
//!
//! Per transport and stack: CPU per message of the forwarding process (user and system, of the process's CPU clock) in an open loop
//! (a message at a time) and in a closed one (as many as go, 128 in flight). A message is an INVITE of 689 bytes; every one is
//! looked at where it arrives. Both forwarders live at the same time and are measured in turn; medians are printed, and of
//! the ratio the least and the most of the rounds. Ours has to be at most 1.15 times the plain loop's; that is no
//! exit status, the table says it.
//!
//! SCTP in user space has no plain loop beside it; its parts are told: the same packets through the plain UDP loop, the protocol
//! (`parts`), of which the packet log. What is left is our own: flows, placing messages in the arena, copies.
//!
//! Its files: `kind` (the two forwarding processes), `forwarder` (ours), `load`, `ends`, `user` (the load and its transports), `bed` (one
//! forwarder with its load), `parts`, `report`.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(clippy::indexing_slicing, reason = "of its own making")]

mod bed;
mod ends;
mod forwarder;
mod kind;
mod load;
#[allow(dead_code)]
#[path = "../messages/mod.rs"]
mod messages;
mod parts;
#[allow(dead_code)]
#[path = "../support/processors.rs"]
mod processors;
#[path = "../support/program.rs"]
mod program;
mod report;
mod user;

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use strowger::transport::sctp::user::endpoint::Event;

use self::bed::{Bed, Ports, Sample};
use self::ends::Back;
use self::kind::Kind;
use self::load::{Messages, Pace};
use self::report::{Pair, Parts};

/// How much is measured; in an emulated machine less, and slower.
struct Scale {
    rate: f64,
    /// Of SCTP in user space, where the rate above would be more than it can do.
    user_rate: f64,
    open: u64,
    closed: u64,
    rounds: usize,
}

const WINDOW: u64 = 128;

impl Scale {
    fn here() -> Scale {
        let is_set = |name| std::env::var_os(name).is_some();
        let slow = std::env::var("TESTS_SLOW").ok().and_then(|n| n.parse().ok()).unwrap_or(1.0_f64);
        if is_set("VM_ICOUNT") {
            Scale { rate: 2_000.0, user_rate: 500.0, open: 1_000, closed: 4_000, rounds: 3 }
        } else if slow > 1.0 {
            Scale { rate: 400.0, user_rate: 100.0, open: 400, closed: 4_000, rounds: 7 }
        } else {
            Scale { rate: 4_000.0, user_rate: 4_000.0, open: 4_000, closed: 40_000, rounds: 9 }
        }
    }

    fn loads(&self, kind: Kind) -> [(Pace, u64); 2] {
        let rate = if kind == Kind::UserSctp { self.user_rate } else { self.rate };
        [(Pace::Open(rate), self.open), (Pace::Closed(WINDOW), self.closed)]
    }
}

fn main() -> ExitCode {
    program::run("transport", include_str!("main.rs"), |arguments| match arguments {
        [role, kind, ports @ ..] if role == "forward" => forward(kind, ports),
        _ => measure(arguments),
    })
}

/// This process is one of those that are measured.
fn forward(kind: &str, ports: &[String]) -> io::Result<()> {
    let kind = Kind::ALL.into_iter().find(|one| one.word() == kind).ok_or(io::ErrorKind::InvalidInput)?;
    let port = |index: usize| ports.get(index).and_then(|port| port.parse().ok()).unwrap_or(0);
    forwarder::run(kind, port(0), port(1), port(2))
}

fn measure(wanted: &[String]) -> io::Result<()> {
    program::known(wanted, &Kind::ALL.map(Kind::word))?;
    let (scale, floor) = (Scale::here(), kind::floor()?);
    let packets = report::packets(ethernet());
    let is_wanted = |kind: Kind| wanted.is_empty() || wanted.iter().any(|word| word == kind.word());
    report::head(scale.rounds, Messages::invites().len(), packets);
    let rows = [(Kind::Udp, 1), (Kind::Tcp, 1), (Kind::Tcp, 32), (Kind::KernelSctp, 1), (Kind::KernelSctp, 32)];
    let mut pairs = Vec::new();
    for (number, (kind, flows)) in rows.into_iter().enumerate().filter(|(_, (kind, _))| is_wanted(*kind)) {
        if kind == Kind::KernelSctp && !sys::sctp::supported() {
            println!("skipped: {}: this kernel has no SCTP (see tests/vm/vm.sh)", report::name(kind, flows));
            continue;
        }
        pairs.extend(compare(&scale, &floor, kind, flows, 2 * number as u16)?);
    }
    if !pairs.is_empty() {
        report::pairs(&pairs);
    }
    if is_wanted(Kind::UserSctp) {
        report::parts(&user_space(&scale, &floor, 2 * rows.len() as u16)?);
    }
    Ok(())
}

/// In a machine of its own loopback gets Ethernet's packets: else SCTP bundles 64 messages into one, as on no network.
fn ethernet() -> bool {
    let mut ip = Command::new("ip");
    ip.args(["link", "set", "lo", "mtu", "1500"]).stderr(Stdio::null());
    std::env::var_os("IN_VM").is_some() && ip.status().is_ok_and(|status| status.success())
}

/// Ours and the plain loop, in turn.
fn compare(scale: &Scale, floor: &Path, kind: Kind, flows: u16, number: u16) -> io::Result<Vec<Pair>> {
    let mut ours = Bed::ours(kind, flows, Ports::of(number))?;
    let mut plain = Bed::plain(floor, kind, flows, Ports::of(number + 1))?;
    for (pace, count) in scale.loads(kind) {
        warm_up(&mut ours, pace, count)?;
        warm_up(&mut plain, pace, count)?;
    }
    scale
        .loads(kind)
        .into_iter()
        .map(|(pace, count)| {
            let (ours, plain) = in_turn(scale, &mut ours, &mut plain, (pace, count), (pace, count))?;
            Ok(Pair { kind, flows, pace, ours, plain })
        })
        .collect()
}

fn in_turn(
    scale: &Scale,
    ours: &mut Bed,
    plain: &mut Bed,
    our_load: (Pace, u64),
    plain_load: (Pace, u64),
) -> io::Result<(Vec<Sample>, Vec<Sample>)> {
    let mut samples = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        samples.0.push(ours.round(our_load.0, our_load.1)?);
        samples.1.push(plain.round(plain_load.0, plain_load.1)?);
    }
    Ok(samples)
}

/// Connections come up, memory is touched.
fn warm_up(bed: &mut Bed, pace: Pace, count: u64) -> io::Result<()> {
    bed.round(pace, count / 2).map(drop)
}

/// SCTP in user space, whole and in parts.
fn user_space(scale: &Scale, floor: &Path, number: u16) -> io::Result<Vec<Parts>> {
    let mut ours = Bed::ours(Kind::UserSctp, 1, Ports::of(number))?;
    scale.loads(Kind::UserSctp).into_iter().try_for_each(|(pace, count)| warm_up(&mut ours, pace, count))?;
    let mut parts = Vec::new();
    for (index, (pace, count)) in scale.loads(Kind::UserSctp).into_iter().enumerate() {
        // First, which packets there are.
        let before = ours.traffic();
        ours.round(pace, count)?;
        let now = ours.traffic();
        // Counted on both sides of the forwarder.
        let packets = |one: (u64, u64), other: (u64, u64)| {
            let packets = (other.0 - one.0) as f64;
            (packets / 2.0 / count as f64, ((other.1 - one.1) as f64 / packets.max(1.0)) as usize)
        };
        let (data, back) = (packets(before.data, now.data), packets(before.back, now.back));
        let train = Back { bytes: back.1, per_message: back.0 / data.0 };
        let mut plain = Bed::packets(floor, Ports::of(number + 1 + index as u16), data.1, train)?;
        let datagrams = |messages: u64| (messages as f64 * data.0) as u64;
        let plain_load = match pace {
            Pace::Open(rate) => (Pace::Open(rate * data.0), datagrams(count)),
            Pace::Closed(window) => (Pace::Closed(datagrams(window)), datagrams(count)),
        };
        warm_up(&mut plain, plain_load.0, plain_load.1)?;
        let (whole, udp) = in_turn(scale, &mut ours, &mut plain, (pace, count), plain_load)?;
        let batch = (report::median(&whole, |sample| sample.batch).round() as usize).clamp(1, load::BATCH);
        let mut messages = Messages::invites();
        let rate = report::median(&whole, |sample| sample.per_second);
        // Each packet is logged where it is received and where it is sent.
        let log = || 2.0 * (data.0 * parts::log_line(data.1) + back.0 * parts::log_line(back.1));
        let rounds = (0..scale.rounds).map(|_| (parts::protocol(&mut messages, count, batch, rate), log()));
        let (protocol, log): (Vec<_>, Vec<_>) = rounds.unzip();
        let (protocol, log) = (report::middle(protocol), report::middle(log));
        parts.push(Parts { pace, whole, udp, data, back, protocol, log });
    }
    Ok(parts)
}
