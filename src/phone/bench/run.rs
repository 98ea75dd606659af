//! `strowger bench run`: one point, or a few beside each other.
//!
//! Owns: what the person at the terminal asks and reads.

use std::io::{self, Write};
use std::process::ExitCode;

use super::machine::machine;
use super::measure::{Measured, Turn, reasons, run_interleaved};
pub use super::options::Options;
use super::results::{Arrival, OTHERS, Point, Results, Row, Subject};
use super::rig::{Proxy, Rig};
use super::show::{self, Meter};
use super::words::Wire;
use crate::phone::signals::Signals;

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
    remarks(options, &points).iter().for_each(|remark| drop(writeln!(io::stderr(), "{remark}")));
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
        let results = Results { sketch: false, machine: machine(options.phones_nice), rounds, rows: rows.clone() };
        let text = serde_json::to_string_pretty(&results).map_err(|e| Trouble::Said(e.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|e| Trouble::Said(format!("{}: {e}", path.display())))?;
    }
    Ok(!rows.iter().any(Row::fails))
}

pub(super) fn rig(options: &Options) -> io::Result<Rig> {
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
    rig.domain.clone_from(&options.domain);
    rig.nice = options.phones_nice;
    rig.burden_us = options.burden_us;
    Ok(rig)
}

pub(super) fn points(options: &Options) -> Result<Vec<Point>, String> {
    let own = &options.own;
    let renewed = options.renew_every.is_some() || options.connection_per_call;
    if renewed && !options.transport.iter().any(|wire| wire.is_reliable()) {
        return Err("UDP has no connections: --renew-every and --connection-per-call are for tcp, sctp and sctp-user"
            .to_owned());
    }
    if !own.architecture.is_empty() && !options.transport.contains(&Wire::Tcp) {
        return Err("--architecture is TCP's: add --transport tcp".to_owned());
    }
    // Whoever types it wants to see it measured.
    for (asked, option) in [
        (own.descriptor_cache, "--descriptor-cache"),
        (own.priority_queue, "--priority-queue"),
        (own.supervisor_nice != 0, "--supervisor-nice"),
    ] {
        if asked && !own.architecture.iter().any(|architecture| architecture == "supervisor") {
            return Err(format!("{option} is the supervisor's: add supervisor to --architecture"));
        }
    }
    if own.layout.is_some() && !options.transport.contains(&Wire::Sctp) {
        return Err(
            "--layout is that of the kernel's SCTP: add --transport sctp (UDP's: --tables '[udp] ...')".to_owned()
        );
    }
    if own.idle_s.is_some() && !options.transport.iter().any(|wire| wire.is_reliable()) {
        return Err("UDP has no connections: --idle-s is for tcp, sctp and sctp-user".to_owned());
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
                    // UDP stands beside it as it is.
                    renew_every: options.renew_every.filter(|_| wire.is_reliable()),
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

/// What one should know of these points before time is spent on them.
fn remarks(options: &Options, points: &[Point]) -> Vec<String> {
    let mut remarks = Vec::new();
    let renewed = options.renew_every.is_some() || options.connection_per_call;
    if renewed && points.iter().any(|point| Wire::of(&point.subject.transport) == Some(Wire::Udp)) {
        remarks
            .push("UDP has no connections: its row is one without --renew-every and --connection-per-call".to_owned());
    }
    // The configuration's default, and what SCTP has at least.
    let idle_s = |point: &Point| match Wire::of(&point.subject.transport) {
        Some(Wire::Sctp | Wire::SctpUser) => point.idle_s.unwrap_or(300).max(32),
        _ => point.idle_s.unwrap_or(300),
    };
    let renewing = points.iter().filter(|point| point.renew_every.is_some() && options.target.target.is_none());
    // A worker returns a connection after one time-out, the supervisor closes it after another.
    let lives_s = |point: &Point| if is_supervised(point) { 2 * idle_s(point) } else { idle_s(point) };
    let short =
        |point: &&Point| point.measure_s < 3.0 * idle_s(point) as f64 || point.warm_up_s < lives_s(point) as f64;
    let mut times: Vec<(u64, u64)> = renewing.filter(short).map(|point| (idle_s(point), lives_s(point))).collect();
    times.sort_unstable();
    times.dedup();
    for (idle_s, lives_s) in times {
        let whose = if lives_s > idle_s { " behind the supervisor" } else { "" };
        remarks.push(format!(
            "with an idle time-out of {idle_s} s not as many connections end{whose} as begin before {lives_s} s have gone by, so their end \
             is hardly measured: --warm-up {lives_s} --seconds {} would, or a shorter --idle-s",
            3 * idle_s
        ));
    }
    remarks
}

/// By --architecture or --tables.
fn is_supervised(point: &Point) -> bool {
    point.subject.transport == Wire::Tcp.name() && point.subject.tables.contains("architecture = \"supervisor\"")
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
    if options.connection_per_call && wire.is_reliable() {
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
            if sum.failed_calls > 0 {
                line += &format!("; failed: {}", reasons(&sum.failures));
            }
            if matches!(row.point.arrival, Arrival::Open { .. }) {
                line += &format!("; a call began at most {:.1} ms late", sum.behind_us as f64 / 1e3);
            }
            if let Some(note) = all.iter().flat_map(|measured| &measured.notes).next() {
                line += &format!("; {note}");
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn told(words: &str) -> Vec<String> {
        let options = Line::try_parse_from(["run"].into_iter().chain(words.split_whitespace())).unwrap().options;
        remarks(&options, &points(&options).unwrap())
    }

    #[test]
    fn a_warm_up_shorter_than_a_connection_lives_is_told_twice_the_time_out_behind_the_supervisor() {
        let line = "--transport tcp --renew-every 50 --idle-s 10 --seconds 30 --warm-up";
        assert!(told(&format!("{line} 10")).is_empty());
        let supervised = told(&format!("{line} 10 --architecture symmetric,supervisor"));
        assert_eq!(supervised.len(), 1, "{supervised:?}");
        assert!(supervised[0].contains("end behind the supervisor as begin before 20 s"), "{supervised:?}");
        assert!(supervised[0].contains("--warm-up 20 --seconds 30"), "{supervised:?}");
        assert!(told(&format!("{line} 20 --architecture symmetric,supervisor")).is_empty());
        // The example of the help, too.
        assert!(super::super::options::MORE.contains("--idle-s 10 --seconds 30 --warm-up 20"));
    }
}
