//! `strowger bench run`: one point, or a few beside each other.
//!
//! Owns: what the person at the terminal asks and reads.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::machine::machine;
use super::measure::{Measured, Turn, reasons, run_interleaved};
use super::results::{Arrival, Point, Results, Row, Subject};
use super::rig::{Proxy, Rig};
use super::show::{self, Meter};
use super::words::Wire;
use crate::phone::signals::Signals;

/// What `bench run` can be told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct Options {
    /// What the phones speak; several are measured beside each other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "udp")]
    pub transport: Vec<Wire>,
    /// Callers, and as many callees; several are measured beside each other
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: Vec<u32>,
    /// Open loop: so many calls a second begin, whatever becomes of them [default: closed loop]
    #[arg(long, value_name = "CALLS/S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Seconds of the measured window
    #[arg(long, default_value = "10", value_parser = positive)]
    pub seconds: f64,
    /// Seconds of calls before it
    #[arg(long, default_value = "6", value_parser = not_negative)]
    pub warm_up: f64,
    /// How often everything is measured
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Operations after which a phone goes on over a new connection; it leaves the old one open
    #[arg(long, value_name = "OPERATIONS", value_parser = clap::value_parser!(u64).range(1..))]
    pub renew_every: Option<u64>,
    /// Each call comes over a connection of its own, which the caller closes
    #[arg(long, conflicts_with_all = ["renew_every", "trunks"])]
    pub connection_per_call: bool,
    /// All calls travel over so many connections or associations on each side
    #[arg(long, conflicts_with = "renew_every", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub trunks: Option<u32>,
    /// Phone processes [default: one per processor, at most 4]
    #[arg(long, default_value = "0", hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub phones: u32,
    /// Writes everything to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub own: Own,
    #[command(flatten)]
    pub target: Target,
    /// For tests: processor time that the phones waste for each message, microseconds
    #[arg(long, default_value = "0", hide = true)]
    pub burden_us: u64,
}

/// Of this daemon.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "This daemon (started and ended by the measurement)")]
pub struct Own {
    /// Its configuration; what the measurement needs and the file does not say is generated
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// More of its configuration, TOML, over everything else
    #[arg(long, value_name = "TOML")]
    pub tables: Option<String>,
    /// Worker processes
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub workers: u32,
    /// TCP: symmetric, single_owner, supervisor; several are measured beside each other
    #[arg(long, value_delimiter = ',')]
    pub architecture: Vec<String>,
    /// TCP supervisor: each worker keeps descriptors
    #[arg(long)]
    pub descriptor_cache: bool,
    /// TCP supervisor: idle connections in the order of their deadlines
    #[arg(long)]
    pub priority_queue: bool,
    /// TCP supervisor: its nice value
    #[arg(long, default_value = "0", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub supervisor_nice: i32,
    /// Seconds until an idle connection is closed (SCTP: 32 at least)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_s: Option<u64>,
    /// The kernel's SCTP: shared or per_worker
    #[arg(long)]
    pub layout: Option<String>,
}

/// Of another proxy.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Any other proxy (running already)")]
pub struct Target {
    /// Where it listens, over every transport that is measured
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["config", "tables", "architecture", "layout", "idle_s"])]
    pub target: Option<SocketAddr>,
    /// Its process: the CPU of this one and of all its descendants is measured. Without it nothing is said about CPU
    #[arg(long, value_name = "PID", requires = "target")]
    pub target_pid: Option<u32>,
    /// What the table calls it
    #[arg(long, value_name = "NAME", default_value = "target", requires = "target", hide_default_value = true)]
    pub target_name: String,
    /// The domain that it registers our phones for
    #[arg(long, default_value = "example.test")]
    pub domain: String,
    /// Its UDP port for SCTP in user space (RFC 6951)
    #[arg(long, default_value = "9899", requires = "target", hide_default_value = true)]
    pub encapsulation_port: u16,
}

const MORE: &str = "\
An operation is an INVITE or a BYE transaction; a call has one of each. CPU is that of all processes of the proxy, from the kernel.
Each phone has its own socket, connection or association. Only what happens within the window counts. A row of a closed loop says
what the proxy can do only where `limit` is proxy: phones means that the phone processes were busy all the time.

Examples:
  strowger bench run --transport udp,tcp,sctp-user
      Three transports beside each other, 100 clients each, closed loop, three rounds: about 2.5 minutes.
  strowger bench run --transport tcp --rate 4000 --clients 500
      4,000 calls a second: CPU per operation, and set-up times from the moment when each call was due.
  strowger bench run --transport tcp --architecture symmetric,supervisor --renew-every 50 --idle-s 10 --seconds 30 --warm-up 10
      Two architectures, connections renewed. A callee registers its new connection first; these REGISTERs are no operations.
  strowger bench run --transport sctp --trunks 2 --clients 1000
      All calls over two associations on each side, as between proxies.
  strowger bench run --target 127.0.0.1:5060 --target-pid $(cat /run/kamailio.pid) --target-name Kamailio
      Another proxy, which must take REGISTERs for example.test (or --domain) from this machine without a password.

Exit status:
   0  measured
   1  more than one call in a thousand failed, or it could not be measured; stderr says which
   2  the command line is wrong
 130  interrupted (128 and the signal, as shells have it)";

/// More than this share of failed calls is a failed measurement.
const FAILED: f64 = 0.001;

/// What others may use of the processors before it is said.
const OTHERS: f64 = 0.05;

/// Runs it.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match play(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Trouble::Usage(text)) => {
            let _ = writeln!(io::stderr(), "strowger bench run: {text}");
            ExitCode::from(2)
        }
        Err(Trouble::Interrupted) => ExitCode::from(130),
        Err(Trouble::Said(text)) => {
            let _ = writeln!(io::stderr(), "strowger bench run: {text}");
            ExitCode::FAILURE
        }
    }
}

enum Trouble {
    Usage(String),
    Interrupted,
    Said(String),
}

fn play(options: &Options) -> Result<bool, Trouble> {
    let said = |e: io::Error| Trouble::Said(e.to_string());
    let signals = Signals::block().map_err(said)?;
    let rig = rig(options).map_err(said)?;
    let points = points(options).map_err(Trouble::Usage)?;
    let rounds = options.rounds as usize;
    let mut meter = Meter::new(&points, rounds);
    let (mut interrupted, mut notes) = (Ok(()), Notes::new(points.len()));
    let rows = run_interleaved(&points, rounds, &rig, &mut |turn: &Turn| {
        meter.show(turn);
        if let Some(measured) = turn.measured {
            notes.add(turn, measured);
        }
        signals.flow(&mut interrupted)
    });
    meter.finish();
    if interrupted.is_err() {
        return Err(Trouble::Interrupted);
    }
    let rows = rows.map_err(Trouble::Said)?;
    let _ = writeln!(io::stdout(), "{}", show::table(&rows));
    notes.lines(&rows).iter().for_each(|line| drop(writeln!(io::stdout(), "{line}")));
    if let Some(path) = &options.json {
        let results = Results { sketch: false, machine: machine(), rows: rows.clone() };
        let text = serde_json::to_string_pretty(&results).map_err(|e| Trouble::Said(e.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|e| Trouble::Said(format!("{}: {e}", path.display())))?;
    }
    Ok(rows.iter().all(|row| !failed(row)))
}

fn failed(row: &Row) -> bool {
    let calls: u64 = row.samples.iter().map(|sample| sample.operations / 2).sum();
    let failed: u64 = row.samples.iter().map(|sample| sample.failed_calls).sum();
    calls == 0 || failed as f64 > FAILED * calls as f64
}

fn rig(options: &Options) -> io::Result<Rig> {
    let mut rig = Rig::own(std::env::current_exe()?);
    if let Some(address) = options.target.target {
        let (pid, encapsulation_port) = (options.target.target_pid, options.target.encapsulation_port);
        rig.proxy = Proxy::Foreign { address, encapsulation_port, pid };
    } else {
        rig.proxy = Proxy::Own { file: options.own.config.clone() };
    }
    rig.processes = options.phones as usize;
    rig.trunks = options.trunks;
    rig.connection_per_call = options.connection_per_call;
    rig.domain.clone_from(&options.target.domain);
    rig.burden_us = options.burden_us;
    Ok(rig)
}

fn points(options: &Options) -> Result<Vec<Point>, String> {
    let own = &options.own;
    let renewed = options.renew_every.is_some() || options.connection_per_call;
    if renewed && options.transport.contains(&Wire::Udp) {
        return Err("UDP has no connections: --renew-every and --connection-per-call are for tcp, sctp and sctp-user"
            .to_owned());
    }
    if !own.architecture.is_empty() && !options.transport.contains(&Wire::Tcp) {
        return Err("--architecture is TCP's: add --transport tcp".to_owned());
    }
    let mut points = Vec::new();
    for &clients in &options.clients {
        for &wire in &options.transport {
            let architectures: Vec<Option<&str>> = match wire {
                Wire::Tcp if !own.architecture.is_empty() => {
                    own.architecture.iter().map(|a| Some(a.as_str())).collect()
                }
                _ => vec![None],
            };
            for architecture in architectures {
                let supervisor = architecture == Some("supervisor");
                points.push(Point {
                    subject: subject(options, wire, architecture),
                    clients: clients as usize,
                    renew_every: options.renew_every,
                    arrival: options.rate.map_or(Arrival::Closed, |calls_per_s| Arrival::Open { calls_per_s }),
                    workers: own.workers as usize,
                    supervisor_nice: if supervisor { own.supervisor_nice } else { 0 },
                    idle_s: own.idle_s.filter(|_| wire.is_reliable()),
                    warm_up_s: options.warm_up,
                    measure_s: options.seconds,
                });
            }
        }
    }
    Ok(points)
}

fn subject(options: &Options, wire: Wire, architecture: Option<&str>) -> Subject {
    let own = &options.own;
    let mut name = match wire {
        Wire::Udp => "UDP",
        Wire::Tcp => "TCP",
        Wire::Sctp => "SCTP kernel",
        Wire::SctpUser => "SCTP user",
    }
    .to_owned();
    if options.target.target.is_some() {
        name = format!("{} {name}", options.target.target_name);
    }
    let mut tcp = String::new();
    if let Some(architecture) = architecture {
        name += &format!(" {architecture}");
        tcp += &format!("architecture = {architecture:?}\n");
        if architecture == "supervisor" {
            for (on, key, word) in
                [(own.descriptor_cache, "descriptor_cache", "cache"), (own.priority_queue, "priority_queue", "queue")]
            {
                if on {
                    tcp += &format!("{key} = true\n");
                    name += &format!(" + {word}");
                }
            }
        }
    }
    if let Some(trunks) = options.trunks {
        name += &format!(", {trunks} trunk{}", if trunks == 1 { "" } else { "s" });
    }
    if options.connection_per_call {
        name += ", a connection per call";
    }
    let mut tables = own.tables.clone().unwrap_or_default();
    let mut over = |name: &str, keys: &str| {
        if !keys.is_empty() {
            tables = super::configuration::with(&tables, name, keys);
        }
    };
    over("tcp", &tcp);
    if let Some(layout) = own.layout.as_ref().filter(|_| wire == Wire::Sctp) {
        over("sctp", &format!("layout = {layout:?}\n"));
        name += &format!(" {layout}");
    }
    Subject { name, transport: wire.name().to_owned(), tables }
}

/// What the table does not say, one line for a row.
struct Notes {
    rows: Vec<Vec<Measured>>,
}

impl Notes {
    fn new(points: usize) -> Notes {
        Notes { rows: vec![Vec::new(); points] }
    }

    fn add(&mut self, turn: &Turn, measured: &Measured) {
        if let Some(row) = self.rows.get_mut(turn.nth) {
            // The set-up times are in the sample already.
            let figures = super::words::Figures { set_up: Vec::new(), ..measured.figures.clone() };
            row.push(Measured { figures, ..measured.clone() });
        }
    }

    fn lines(&self, rows: &[Row]) -> Vec<String> {
        let mut lines = Vec::new();
        for (row, all) in rows.iter().zip(&self.rows) {
            let name = show::name(&row.point);
            let mut sum = super::words::Figures::default();
            all.iter().for_each(|measured| sum.add(&measured.figures));
            let mut line = format!("{name}: {} INVITE, {} BYE", sum.invites, sum.byes);
            if row.point.renew_every.is_some() {
                line += &format!(
                    "; {} connections opened, {} closed by the proxy, {} REGISTERs for callees' new ones (no operations)",
                    sum.connections, sum.closed_by_proxy, sum.registrations
                );
            }
            let unfinished: u64 = all.iter().map(|measured| measured.unfinished).sum();
            if unfinished > 0 {
                line += &format!("; {unfinished} calls had not ended 3 s after the window");
            }
            if sum.failed_calls > 0 {
                line += &format!("; failed: {}", reasons(&sum.failures));
            }
            if matches!(row.point.arrival, Arrival::Open { .. }) {
                line += &format!("; a call began at most {:.1} ms late", sum.behind_us as f64 / 1e3);
            }
            if all.iter().any(|measured| measured.cpu_unknown) {
                line += "; CPU unknown without --target-pid";
            }
            let others = all.iter().map(|measured| measured.others).fold(0.0, f64::max);
            if others > OTHERS && all.iter().all(|measured| !measured.cpu_unknown) {
                line += &format!("; others used up to {:.0} % of the processors meanwhile", others * 100.0);
            }
            lines.push(line);
        }
        lines
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0).ok_or_else(|| "a number above 0".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0).ok_or_else(|| "a number, 0 or more".to_owned())
}
