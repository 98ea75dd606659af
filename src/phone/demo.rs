//! `strowger demo`: a complete try-out on this machine.
//!
//! Owns: what the person at the terminal reads. It starts the daemon that `serve` runs, registers phones, draws one call, places
//! calls over every pair of transports, and ends the daemon again, whatever happens.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::agent::{Failure, Manner};
use super::daemon::{self, Daemon};
use super::line::Stack;
use super::load::{Load, Order, Pace, Tally};
use super::signals::{Interrupted, Signals};
use crate::transport::Transport;

/// What `demo` can be told.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// Calls for each pair of transports [default: 100, or as many as begin in 2 s]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub calls: Option<u64>,
    /// SCTP by the kernel, or in user space [default: the kernel's, where it has SCTP]
    #[arg(long, value_enum)]
    pub stack: Option<StackName>,
}

/// A `Stack`, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StackName {
    Kernel,
    User,
}

/// Callers, and as many callees, per transport. Each caller has one call at a time.
const PHONES: usize = 10;
const DOMAIN: &str = "example.test";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The daemon has this long to be ready. Generous: a machine may be emulated.
const START: Duration = Duration::from_secs(15);
/// A call that has no answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Without `--calls`: so many for each pair of transports, unless they take longer than this, so that a slow machine is done with all
/// nine pairs within half a minute, too.
const CALLS: u64 = 100;
const LONGEST: Duration = Duration::from_secs(2);
/// So many failed calls in one mixture end the comparison: the demo is there to show, not to wait.
const ENOUGH: u64 = 10;
/// A comfy-table preset: lines above, below the head and at the end, none between rows.
const ROWS: &str = "  ── ══      ──    ";

/// Runs the demo. 0 only when every phone registered, every call was made, and the daemon ended in good order.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match play(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Trouble::Interrupted) => {
            // 128 + SIGINT, as shells have it.
            ExitCode::from(130)
        }
        Err(Trouble::Said(text)) => {
            let _ = writeln!(io::stderr(), "strowger demo: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Why the demo cannot go on.
enum Trouble {
    Interrupted,
    Said(String),
}

impl From<Interrupted> for Trouble {
    fn from(_: Interrupted) -> Trouble {
        Trouble::Interrupted
    }
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Trouble {
        Trouble::Said(e.to_string())
    }
}

/// Writes to standard output; one that is closed (`demo | head`) stops nothing, above all not the end of the daemon.
macro_rules! say {
    ($($text:tt)*) => { let _ = writeln!(io::stdout(), $($text)*); };
}

fn play(options: &Options) -> Result<bool, Trouble> {
    let signals = Signals::block()?;
    let kernel = match options.stack {
        None => sys::sctp::supported(),
        Some(StackName::Kernel) if !sys::sctp::supported() => {
            return Err(Trouble::Said("this kernel has no SCTP (as root: modprobe sctp); try --stack user".to_owned()));
        }
        Some(name) => name == StackName::Kernel,
    };
    let proxy = SocketAddr::new(LOOPBACK, daemon::free_port()?);
    let stack = if kernel { Stack::Kernel } else { Stack::User(daemon::free_port()?) };
    let program = std::env::current_exe()?;
    let mut daemon = Daemon::start(&program, &configuration(proxy, stack))
        .map_err(|e| Trouble::Said(format!("the daemon could not be started ({}): {e}", program.display())))?;
    wait_until_ready(&mut daemon, proxy, &signals)?;
    say!("The daemon (process {}) listens on {proxy}: {}.", daemon.pid(), names(&Transport::ALL, ", "));
    if let Stack::User(port) = stack {
        let why = if sys::sctp::supported() { "As you wish," } else { "This kernel has no SCTP, so" };
        say!("{why} SCTP runs in user space here, inside UDP port {port} (RFC 6951).");
    }

    let mut stage = Stage::set(proxy, stack)?;
    if !register(&mut stage, &daemon)? {
        return Ok(false);
    }
    let mut good = draw_one_call(&mut stage, &signals)?;
    good &= compare(&mut stage, options, &daemon, &signals)?;
    drop(stage);
    if !good {
        let said = daemon.said();
        say!("What the daemon said:\n{}", if said.is_empty() { "nothing" } else { said.trim_end() });
    }
    match daemon.stop() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            say!("The daemon ended with {}.", daemon::describe(status));
            good = false;
        }
        Err(e) => {
            say!("The daemon: {e}.");
            good = false;
        }
    }
    Ok(good)
}

fn configuration(proxy: SocketAddr, stack: Stack) -> String {
    let mut text = format!("domains = [\"{DOMAIN}\"]\ndrain_s = 1\n\n[admin]\naddress = \"off\"\n");
    for transport in Transport::ALL {
        text += &format!("\n[[listen]]\ntransport = \"{}\"\naddress = \"{proxy}\"\n", transport.uri_token());
        text += &match stack {
            Stack::User(port) if transport == Transport::Sctp => {
                format!("stack = \"user\"\nencapsulation_port = {port}\n")
            }
            _ => String::new(),
        };
    }
    text
}

fn wait_until_ready(daemon: &mut Daemon, proxy: SocketAddr, signals: &Signals) -> Result<(), Trouble> {
    let began = now();
    let complaint = loop {
        signals.check()?;
        if let Some(status) = daemon.ended() {
            break format!("the daemon did not start: it ended with {}", daemon::describe(status));
        }
        if daemon::is_there(proxy, Duration::from_millis(100))? {
            return Ok(());
        }
        if now() - began > START {
            break format!("the daemon started but does not answer on {proxy} over UDP after {} s", START.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = daemon.said();
    let said = if said.trim().is_empty() { "nothing" } else { said.trim_end() };
    Err(Trouble::Said(format!(
        "{complaint}. It said:\n{said}\nWhat to do: if an address is in use, try again (the demo picks another port); if memory is \
         short, free some; else run `strowger serve` by itself and read what it says."
    )))
}

/// All phones of the demo.
struct Stage {
    load: Load,
    everyone: Vec<usize>,
    callers: BTreeMap<Transport, Vec<usize>>,
    callees: BTreeMap<Transport, Vec<usize>>,
    alice: usize,
    bob: usize,
}

impl Stage {
    fn set(proxy: SocketAddr, stack: Stack) -> io::Result<Stage> {
        let mut load = Load::new(DOMAIN, Manner { patience: PATIENCE, ..Manner::default() })?;
        load.speak(stack);
        let (first, second) = DRAWN;
        let mut add = |user: &str, transport| load.add_phone(user, transport, LOOPBACK, proxy);
        let (alice, bob) = (add("alice", first)?, add("bob", second)?);
        let (mut callers, mut callees) = (BTreeMap::new(), BTreeMap::new());
        for transport in Transport::ALL {
            let mut crowd = |what: &str| -> io::Result<Vec<usize>> {
                (1..=PHONES).map(|n| add(&format!("{what}-{}-{n}", transport.uri_token()), transport)).collect()
            };
            callers.insert(transport, crowd("caller")?);
            callees.insert(transport, crowd("callee")?);
        }
        let everyone =
            [alice, bob].into_iter().chain(callers.values().chain(callees.values()).flatten().copied()).collect();
        Ok(Stage { load, everyone, callers, callees, alice, bob })
    }
}

/// The call that is drawn crosses transports.
const DRAWN: (Transport, Transport) = (Transport::Udp, Transport::Sctp);

fn register(stage: &mut Stage, daemon: &Daemon) -> Result<bool, Trouble> {
    let began = now();
    let failures = stage.load.register(&stage.everyone, 3600)?;
    if failures.is_empty() {
        let ms = (now() - began).as_secs_f64() * 1e3;
        say!("{} phones registered for {DOMAIN} in {ms:.0} ms.", stage.everyone.len());
        return Ok(true);
    }
    say!("Not every phone could register: {}.", reasons(&failures));
    say!("What the daemon said:\n{}", daemon.said().trim_end());
    Ok(false)
}

fn draw_one_call(stage: &mut Stage, signals: &Signals) -> Result<bool, Trouble> {
    let (from, to) = DRAWN;
    stage.load.watch(stage.alice, stage.bob);
    let order = Order {
        calls: 1,
        longest: Duration::MAX,
        pace: Pace::AtOnce(1),
        callers: &[stage.alice],
        callees: &[stage.bob],
    };
    let mut interrupted = Ok(());
    let tally = stage.load.place(&order, &mut |_| signals.flow(&mut interrupted))?;
    interrupted?;
    let heads = [format!("alice ({})", from.via_token()), "strowger".to_owned(), format!("bob ({})", to.via_token())];
    if let Some(ladder) = stage.load.ladder() {
        say!("\nOne call, as its two phones saw it:\n\n{}", ladder.draw([&heads[0], &heads[1], &heads[2]]));
    }
    if tally.failed > 0 {
        say!("This call failed: {}.", reasons(&tally.failures));
    }
    Ok(tally.failed == 0)
}

/// Calls over every ordered pair of transports, as a table.
fn compare(stage: &mut Stage, options: &Options, daemon: &Daemon, signals: &Signals) -> Result<bool, Trouble> {
    let pairs: Vec<(Transport, Transport)> =
        Transport::ALL.into_iter().flat_map(|from| Transport::ALL.into_iter().map(move |to| (from, to))).collect();
    let mut table = Table::new();
    table.load_preset(ROWS).set_header([
        "caller → callee",
        "calls",
        "failed",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "CPU µs/call",
    ]);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let (calls, longest) = options.calls.map_or((CALLS, LONGEST), |calls| (calls, Duration::MAX));
    let bar = bar(calls * pairs.len() as u64);
    let (mut failures, mut placed, began) = (BTreeMap::<Failure, u64>::new(), 0, now());
    let mut retransmitted = 0;
    for &(from, to) in &pairs {
        let mixture = format!("{} → {}", from.via_token(), to.via_token());
        bar.set_message(mixture.clone());
        let (Some(callers), Some(callees)) = (stage.callers.get(&from), stage.callees.get(&to)) else { continue };
        let order = Order { calls, longest, pace: Pace::AtOnce(PHONES), callers, callees };
        let mut interrupted = Ok(());
        let before = daemon.cpu();
        let tally = stage.load.place(&order, &mut |tally: &Tally| {
            bar.set_position(placed + tally.over());
            match tally.failed < ENOUGH {
                true => signals.flow(&mut interrupted),
                false => ControlFlow::Break(()),
            }
        })?;
        interrupted?;
        let cpu = daemon.cpu().saturating_sub(before);
        placed += tally.over();
        retransmitted += tally.retransmitted;
        tally.failures.iter().for_each(|(&why, n)| *failures.entry(why).or_default() += n);
        let ms = |quantile| format!("{:.2}", tally.set_up.value_at_quantile(quantile) as f64 / 1e3);
        let row = [
            mixture,
            tally.placed.to_string(),
            tally.failed.to_string(),
            format!("{:.0}", tally.rate()),
            ms(0.5),
            ms(0.99),
            format!("{:.0}", cpu.as_secs_f64() * 1e6 / tally.placed.max(1) as f64),
        ];
        if bar.is_hidden() {
            let _ = writeln!(io::stderr(), "{}: {} calls, {} failed, {} calls/s", row[0], row[1], row[2], row[3]);
        }
        table.add_row(row);
        if tally.failed >= ENOUGH {
            break;
        }
    }
    bar.finish_and_clear();
    say!("{table}");
    say!(
        "{PHONES} phones call, one call at a time each. p50 and p99: set-up time, INVITE to 200 at the caller.\n\
         CPU: of all the daemon's processes. The phones share this machine's processors with it."
    );
    let took = (now() - began).as_secs_f64();
    let failed: u64 = failures.values().sum();
    match failed {
        0 => say_end(placed, took, "none failed"),
        _ => say_end(placed, took, &format!("{failed} failed: {}", reasons(&failures))),
    }
    if placed < calls * pairs.len() as u64 && failed < ENOUGH {
        say!("Some mixtures had less than {calls} calls, as many as began in {} s.", LONGEST.as_secs());
    }
    if retransmitted > 0 {
        say!("{retransmitted} messages were sent again by the phones.");
    }
    Ok(failed == 0)
}

fn say_end(placed: u64, took: f64, how: &str) {
    say!("{placed} calls in {took:.1} s, {how}.");
}

/// On standard error, and only where somebody looks.
fn bar(calls: u64) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(calls), target);
    if let Ok(style) = ProgressStyle::with_template("{msg:12} {bar:40} {pos}/{len} calls") {
        bar.set_style(style);
    }
    bar
}

fn names(transports: &[Transport], between: &str) -> String {
    transports.iter().map(|t| t.via_token()).collect::<Vec<_>>().join(between)
}

fn reasons(failures: &BTreeMap<Failure, u64>) -> String {
    failures.iter().map(|(why, n)| format!("{n} × {why}")).collect::<Vec<_>>().join(", ")
}

#[allow(clippy::disallowed_methods, reason = "the demo is outside the message path")]
fn now() -> Instant {
    Instant::now()
}
