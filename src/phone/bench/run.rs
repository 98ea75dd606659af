//! `strowger bench run`: one point, or a few beside each other.
//!
//! Owns: what the person at the terminal asks and reads.

use std::io::{self, Write};
use std::process::ExitCode;

use super::configuration;
use super::machine::machine;
use super::measure::{Turn, run_interleaved};
use super::notes::{Notes, remarks};
pub use super::options::Options;
use super::options::Own;
use super::output::Output;
use super::results::{Arrival, Point, Results, Row, Subject};
use super::rig::{Proxy, Rig};
use super::show::{self, Meter};
use super::words::Wire;
use crate::phone::signals::Signals;

/// Workers where neither option nor file says how many.
const WORKERS: u32 = 2;

/// Runs it.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let (text, status) = match play(options) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::FAILURE,
        // 128 + SIGINT, as shells have it.
        Err(Trouble::Interrupted) => return ExitCode::from(130),
        Err(Trouble::Usage(text)) => (text, ExitCode::from(2)),
        Err(Trouble::Said(text)) => (text, ExitCode::FAILURE),
    };
    complain(&text);
    status
}

enum Trouble {
    Usage(String),
    Interrupted,
    Said(String),
}

/// False: calls failed.
fn play(options: &Options) -> Result<bool, Trouble> {
    let said = |e: io::Error| Trouble::Said(e.to_string());
    let signals = Signals::block().map_err(said)?;
    let rig = rig(options).map_err(said)?;
    let plan = rig.plan(points(options).map_err(Trouble::Usage)?).map_err(Trouble::Said)?;
    let json = options.json.as_deref().map(Output::open).transpose().map_err(Trouble::Said)?;
    remarks(options, &plan).iter().for_each(|remark| drop(writeln!(io::stderr(), "{remark}")));
    let points: Vec<Point> = plan.into_iter().map(|planned| planned.point).collect();
    let rounds = options.rounds as usize;
    let (mut meter, mut notes) = (Meter::new(&points, rounds), Notes::new(points.len()));
    let mut rows: Vec<Row> = points.into_iter().map(|point| Row { point, samples: Vec::new() }).collect();
    let mut interrupted = Ok(());
    let ended = run_interleaved(&mut rows, rounds, &rig, &mut |turn: &Turn| {
        meter.show(turn);
        if let Some(measured) = turn.measured {
            notes.add(turn.nth, measured);
        }
        signals.flow(&mut interrupted)
    });
    meter.finish();
    let ended = match interrupted {
        Err(_) => Err(Trouble::Interrupted),
        Ok(()) => ended.map_err(Trouble::Said),
    };
    // What was measured stays true, whatever ended the rest.
    let (taken, all) = (rows.iter().map(|row| row.samples.len()).sum::<usize>(), rows.len() * rounds);
    if taken < all {
        complain(&format!("not finished: {taken} of {all} samples were taken"));
    }
    if taken > 0 {
        publish(&rows, &notes, json, options)?;
    }
    ended?;
    Ok(!rows.iter().any(Row::fails))
}

fn publish(rows: &[Row], notes: &Notes, json: Option<Output>, options: &Options) -> Result<(), Trouble> {
    let _ = writeln!(io::stdout(), "{}", show::table(rows));
    notes.lines(rows).iter().for_each(|line| drop(writeln!(io::stdout(), "{line}")));
    let (machine, rounds) = (machine(options.phones_nice), options.rounds as usize);
    if let Some(granted) = machine.phones_nice {
        let asked = if granted == options.phones_nice {
            String::new()
        } else {
            format!(" (asked for {})", options.phones_nice)
        };
        let _ = writeln!(io::stdout(), "phones at nice {granted}{asked}");
    }
    let Some(json) = json else { return Ok(()) };
    json.write(&Results { sketch: false, machine, rounds, rows: rows.to_vec() }).map_err(Trouble::Said)
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "strowger bench run: {text}");
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
        (own.supervisor_nice.is_some(), "--supervisor-nice"),
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
                    subject: subject(options, wire, architecture)?,
                    clients: clients as usize,
                    // UDP stands beside it as it is.
                    renew_every: options.renew_every.filter(|_| wire.is_reliable()),
                    arrival: options.rate.map_or(Arrival::Closed, |calls_per_s| Arrival::Open { calls_per_s }),
                    workers: own.workers.unwrap_or(WORKERS) as usize,
                    supervisor_nice: own.supervisor_nice.filter(|_| supervisor).unwrap_or(0),
                    idle_s: own.idle_s.filter(|_| wire.is_reliable()),
                    warm_up_s: options.warm_up,
                    measure_s: options.seconds,
                });
            }
        }
    }
    Ok(points)
}

fn subject(options: &Options, wire: Wire, architecture: Option<&str>) -> Result<Subject, String> {
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
    // What the name says, as TOML.
    let mut named = String::new();
    if let Some(architecture) = architecture {
        name += &format!(" {architecture}");
        named += &format!("tcp.architecture = {architecture:?}\n");
        if architecture == "supervisor" {
            for (on, key, word) in
                [(own.descriptor_cache, "descriptor_cache", "cache"), (own.priority_queue, "priority_queue", "queue")]
            {
                if on {
                    named += &format!("tcp.{key} = true\n");
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
    if let Some(layout) = own.layout.as_ref().filter(|_| wire == Wire::Sctp) {
        named += &format!("sctp.layout = {layout:?}\n");
        name += &format!(" {layout}");
    }
    let typed = format!("{named}{}", numbers(own, wire, architecture));
    let tables = match &own.tables {
        None => typed,
        Some(tables) => {
            let all = configuration::over(&typed, tables).map_err(|e| format!("--tables: {e}"))?;
            if configuration::over(&all, &named)? != all {
                let named = named.trim_end().replace('\n', ", ");
                return Err(format!("--tables says otherwise than other options, which say {named}"));
            }
            all
        }
    };
    Ok(Subject { name, transport: wire.name().to_owned(), tables })
}

/// What else was typed, as TOML: a point has it, too, but only here it is over the file.
fn numbers(own: &Own, wire: Wire, architecture: Option<&str>) -> String {
    let mut text = own.workers.map_or_else(String::new, |workers| format!("workers = {workers}\n"));
    if let Some(nice) = own.supervisor_nice.filter(|_| architecture == Some("supervisor")) {
        text += &format!("tcp.supervisor_nice = {nice}\n");
    }
    if let Some(seconds) = own.idle_s {
        text += &match wire {
            Wire::Udp => String::new(),
            // The supervisor's is the same, as in the paper.
            Wire::Tcp => format!("tcp.idle_s = {seconds}\ntcp.supervisor_idle_s = {seconds}\n"),
            Wire::Sctp | Wire::SctpUser => format!("sctp.autoclose_s = {}\n", seconds.max(configuration::LEAST_IDLE_S)),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::options::typed;
    use super::super::rig::Planned;
    use super::*;
    use crate::config::{Architecture, Config};

    /// The only point, and the configuration that the daemon will read.
    fn planned(words: &str, more: &[&str]) -> (Point, Config) {
        let options = typed(words, more);
        let mut plan = rig(&options).unwrap().plan(points(&options).unwrap()).unwrap();
        assert_eq!(plan.len(), 1);
        let Planned { point, read } = plan.remove(0);
        (point, read.unwrap())
    }

    #[test]
    fn options_win_over_the_file_and_a_point_says_what_is_read() {
        let path = std::env::temp_dir().join(format!("strowger-run-{}.toml", std::process::id()));
        let file = "workers = 7\n[tcp]\narchitecture = \"supervisor\"\nidle_s = 20\nsupervisor_idle_s = 5\n\
                    supervisor_nice = 3\nconnect_timeout_ms = 100\n";
        std::fs::write(&path, file).unwrap();
        let config = ["--config", path.to_str().unwrap()];
        let of = |words: &str, more: &[&str]| {
            let (point, read) = planned(words, &[&config[..], more].concat());
            assert_eq!(point.workers, read.workers);
            assert_eq!(read.tcp.connect_timeout_ms, 100, "what no option says is the file's");
            (point.workers, point.idle_s, read.tcp.supervisor_idle_s, point.supervisor_nice)
        };
        assert_eq!(of("--transport tcp", &[]), (7, Some(20), 5, 3));
        let typed = "--transport tcp --workers 3 --idle-s 10 --architecture supervisor --supervisor-nice -4";
        assert_eq!(of(typed, &[]), (3, Some(10), 10, -4));
        let tables = ["--tables", "workers = 4\ntcp.idle_s = 30"];
        assert_eq!(of(typed, &tables), (4, Some(30), 10, -4), "tables are over everything");
        assert_eq!(of("--transport udp --workers 3", &[]), (3, None, 5, 0));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn without_file_and_options_a_point_has_the_defaults() {
        let (point, read) = planned("--transport tcp --architecture supervisor", &[]);
        assert_eq!((point.workers, point.idle_s, point.supervisor_nice), (2, Some(300), 0));
        assert_eq!(read.tcp.supervisor_idle_s, 10);
        assert_eq!(planned("--transport sctp-user", &[]).0.idle_s, Some(300));
        assert_eq!(planned("--transport sctp-user --idle-s 10", &[]).0.idle_s, Some(32));
        assert_eq!(planned("--transport udp", &[]).0.idle_s, None);
    }

    #[test]
    fn the_supervisor_has_the_same_idle_time_out_unless_its_own_is_given() {
        let times = |more: &[&str]| {
            let tcp = planned("--transport tcp --architecture supervisor --idle-s 10", more).1.tcp;
            (tcp.idle_s, tcp.supervisor_idle_s)
        };
        assert_eq!(times(&[]), (10, 10));
        assert_eq!(times(&["--tables", "[tcp]\nsupervisor_idle_s = 3\n"]), (10, 3));
    }

    #[test]
    fn tables_in_any_form_join_what_options_say() {
        for tables in [
            "tcp.connect_timeout_ms = 100",
            "[tcp]\nconnect_timeout_ms = 100\n",
            "[tcp] # x\nconnect_timeout_ms = 100",
            "[ tcp ]\nconnect_timeout_ms = 100",
            "tcp = { connect_timeout_ms = 100 }",
            "tcp = { connect_timeout_ms = 100, architecture = 'supervisor' }",
        ] {
            let (_, read) =
                planned("--transport tcp --architecture supervisor --descriptor-cache", &["--tables", tables]);
            let tcp = read.tcp;
            assert_eq!((tcp.architecture, tcp.connect_timeout_ms), (Architecture::Supervisor, 100), "{tables}");
            assert!(tcp.descriptor_cache && !tcp.priority_queue, "{tables}");
        }
    }

    #[test]
    fn tables_that_say_otherwise_than_the_name_or_are_no_toml_are_refused() {
        let refused = |words: &str, tables: &str| points(&typed(words, &["--tables", tables])).unwrap_err();
        let supervisor = "--transport tcp --architecture supervisor";
        let otherwise = refused(supervisor, "tcp.architecture = 'symmetric'");
        assert!(otherwise.ends_with("which say tcp.architecture = \"supervisor\""), "{otherwise}");
        let cache = refused(&format!("{supervisor} --descriptor-cache"), "[tcp]\ndescriptor_cache = false");
        assert!(cache.ends_with("tcp.architecture = \"supervisor\", tcp.descriptor_cache = true"), "{cache}");
        assert!(refused("--transport tcp", "[tcp\n").starts_with("--tables: TOML parse error"));
    }
}
