//! `strowger status`: asks the running daemon and shows its answer to people, or as it came to programs.
//!
//! Owns: the status document (its JSON is an interface: keys are added, never renamed), the question, and the layout.
//! Reads no shared memory: it runs beside the daemon, not in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::config::{Config, exit};
use crate::shared::Phase;
use crate::transport::Transport;
use crate::worker::Duty;

/// What the client sends, with a line end.
pub const QUESTION: &str = "status";
/// The same, and every slot of shared memory is counted: a few milliseconds of the master's time for a full table.
pub const QUESTION_AUDIT: &str = "audit";
/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer taken; a daemon's own is a thousandth of it.
const ANSWER_BYTES: u64 = 64 << 20;

/// What a daemon says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Seconds since it began to serve.
    pub uptime_s: u64,
    /// Of the master.
    pub pid: i32,
    pub phase: Phase,
    pub processes: Vec<Process>,
    /// Since the daemon started, over all processes.
    pub counters: BTreeMap<String, u64>,
    pub tables: BTreeMap<String, Fill>,
    /// The first ones, not more than 1,000; `tables` says how many there are.
    pub flows: Vec<FlowLine>,
    pub listeners: Vec<Listener>,
    /// What the daemon could not have, said at its start too.
    pub warnings: Vec<String>,
    /// Only when it was asked for: by part of shared memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<BTreeMap<String, Audit>>,
}

/// Slots of one part of shared memory: each has an owner or can be taken; `lost` is a leak and must be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    pub live: usize,
    pub free: usize,
    pub lost: usize,
    /// Buckets that were in use at the moment and are not counted.
    pub skipped: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    pub role: Duty,
    pub seat: usize,
    /// 0: it died and its successor is not there yet.
    pub pid: i32,
    /// The effective one, from the kernel.
    pub uid: Option<u32>,
    /// It has come round its loop since it was forked.
    pub ready: bool,
    pub restarts: u32,
    pub up_s: u64,
    /// User and system time, all threads.
    pub cpu_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    pub used: usize,
    pub size: usize,
}

/// A connection or an association.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowLine {
    pub transport: Transport,
    /// More than one for a multi-homed peer.
    pub peers: Vec<String>,
    pub state: String,
    /// TCP, SCTP in user space: the seat that owns it. The kernel's SCTP: the worker that reads its socket, if one alone does.
    pub seat: Option<usize>,
    /// Bytes that wait to be sent or acknowledged; of the kernel's SCTP the room that they take in its send buffer.
    pub queued_bytes: u64,
    pub messages_in: u64,
    /// Of the kernel's SCTP DATA chunks: a message larger than the path MTU is more than one.
    pub messages_out: u64,
    /// SCTP: what else is known of the association.
    pub association: Option<Association>,
}

/// An SCTP association. In user space its owner notes the figures: once a second while messages come and go, and with its timers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Association {
    /// The kernel's id, or in user space our verification tag.
    pub id: u32,
    /// Of the peer, bytes.
    pub window: u32,
    /// Chunks that the peer has not acknowledged yet.
    pub unacknowledged: Option<u32>,
    /// Chunks sent again; in user space packets.
    pub retransmitted: u64,
    pub paths: Vec<Path>,
}

/// One address of the peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    pub address: String,
    /// `active`, `inactive`, `failing`, `unconfirmed`.
    pub state: String,
    /// The one that is sent to while it is active.
    pub primary: bool,
    pub rtt_ms: f64,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// Retransmission timeout and path MTU; not known in user space, whose crate does not tell them.
    pub rto_ms: Option<u32>,
    pub mtu: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    pub name: String,
    pub transport: Transport,
    pub addresses: Vec<SocketAddr>,
    /// SCTP in user space: the UDP address that its packets travel through (RFC 6951).
    pub tunnel: Option<SocketAddr>,
    /// As the kernel granted them, bytes; none where the kernel sizes them itself (TCP).
    pub receive_buffer_bytes: Option<usize>,
    pub send_buffer_bytes: Option<usize>,
}

/// Asks the daemon at `address`; its answer as it came.
///
/// # Errors
/// Nobody listens there, does not let us ask, or does not answer within 3 s.
pub fn ask(address: SocketAddr, question: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it closed the connection without an answer"));
    }
    Ok(answer)
}

/// The command: asks the daemon that `config` describes, prints, and gives the exit status.
#[must_use]
pub fn run(config: &Config, json: bool, audit: bool) -> ExitCode {
    match command(config.admin.address, json, if audit { QUESTION_AUDIT } else { QUESTION }) {
        Ok(text) => {
            // A reader that left early (`| head`) is no mistake.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::from(exit::OK)
        }
        Err(line) => {
            let _ = writeln!(io::stderr(), "strowger: {line}");
            ExitCode::from(exit::UNREACHABLE)
        }
    }
}

/// What goes to standard output, or what to say on standard error.
///
/// # Errors
/// One line that says what to do.
fn command(admin: Option<SocketAddr>, json: bool, question: &str) -> Result<String, String> {
    let address = admin.ok_or("no admin listener is configured: set admin.address")?;
    let answer = ask(address, question).map_err(|error| {
        format!(
            "no daemon answers on {address} ({error}): start it with `strowger serve`, \
             or name its configuration with `--config FILE`; its [[allow]] must list this host under `admin`"
        )
    })?;
    if json {
        return Ok(answer);
    }
    serde_json::from_str::<Status>(&answer)
        .map(|status| render(&status))
        .map_err(|error| format!("what answers on {address} is no strowger of this version ({error})"))
}

/// For people.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    let phase = match status.phase {
        Phase::Running => "running",
        Phase::Draining => "draining: no new calls",
        Phase::Closing => "closing",
    };
    let up = duration(status.uptime_s);
    let _ = writeln!(text, "strowger {}, {phase}, up {up}, master process {}", status.version, status.pid);
    for warning in &status.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    section(&mut text, "Processes", processes(&status.processes));
    section(&mut text, "Listeners", listeners(&status.listeners));
    section(&mut text, "Tables", tables(&status.tables));
    section(&mut text, "Audit", audit(status.audit.as_ref()));
    section(&mut text, "Flows", flows(&status.flows));
    section(&mut text, "SCTP paths", paths(&status.flows));
    section(&mut text, "Counters (what is 0 is left out)", counters(&status.counters));
    text
}

/// A table without rows is left out.
fn section(text: &mut String, title: &str, table: Table) {
    if table.row_count() > 0 {
        let _ = writeln!(text, "\n{title}");
        for line in table.lines() {
            let _ = writeln!(text, "  {}", line.trim_end());
        }
    }
}

/// `columns`: a heading that begins with `>` is of a column of figures.
fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.trim_start_matches('>')));
    for (column, name) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn audit(parts: Option<&BTreeMap<String, Audit>>) -> Table {
    let mut table = table(&["part", ">live", ">free", ">lost", ">buckets skipped"]);
    for (part, Audit { live, free, lost, skipped }) in parts.into_iter().flatten() {
        table.add_row([part.clone(), live.to_string(), free.to_string(), lost.to_string(), skipped.to_string()]);
    }
    table
}

fn processes(processes: &[Process]) -> Table {
    let mut table = table(&["role", ">seat", ">pid", ">uid", ">restarts", ">up", ">cpu s"]);
    for process in processes {
        table.add_row([
            process.role.name().to_owned(),
            process.seat.to_string(),
            if process.pid == 0 { "none".to_owned() } else { process.pid.to_string() },
            or_dash(process.uid),
            process.restarts.to_string(),
            duration(process.up_s),
            or_dash(process.cpu_ms.map(|ms| format!("{}.{:02}", ms / 1000, ms % 1000 / 10))),
        ]);
    }
    table
}

fn listeners(listeners: &[Listener]) -> Table {
    let mut table = table(&["name", "transport", "addresses", ">receive buffer", ">send buffer"]);
    for listener in listeners {
        let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
        let tunnel = listener.tunnel.map(|tunnel| format!(" in UDP {tunnel}")).unwrap_or_default();
        table.add_row([
            listener.name.clone(),
            listener.transport.uri_token().to_owned(),
            addresses.join(" ") + &tunnel,
            or_dash(listener.receive_buffer_bytes),
            or_dash(listener.send_buffer_bytes),
        ]);
    }
    table
}

fn tables(tables: &BTreeMap<String, Fill>) -> Table {
    let mut table = table(&["table", ">used", ">size", ">full"]);
    for (name, fill) in tables {
        let percent = fill.used.saturating_mul(100).checked_div(fill.size).unwrap_or(0);
        table.add_row([name.clone(), fill.used.to_string(), fill.size.to_string(), format!("{percent} %")]);
    }
    table
}

fn flows(flows: &[FlowLine]) -> Table {
    let head = [
        "transport",
        "peer",
        "state",
        ">seat",
        ">queued",
        ">in",
        ">out",
        ">association",
        ">window",
        ">unacked",
        ">sent again",
    ];
    let mut table = table(&head);
    for flow in flows {
        let association = flow.association.as_ref();
        table.add_row([
            flow.transport.uri_token().to_owned(),
            flow.peers.join(" "),
            flow.state.clone(),
            or_dash(flow.seat),
            flow.queued_bytes.to_string(),
            flow.messages_in.to_string(),
            flow.messages_out.to_string(),
            or_dash(association.map(|association| association.id)),
            or_dash(association.map(|association| association.window)),
            or_dash(association.and_then(|association| association.unacknowledged)),
            or_dash(association.map(|association| association.retransmitted)),
        ]);
    }
    table
}

/// What belongs to one path; what only the whole association has stands in the row of its flow.
fn paths(flows: &[FlowLine]) -> Table {
    let mut table = table(&[">association", "path", "state", ">rtt ms", ">rto ms", ">cwnd", ">mtu"]);
    for association in flows.iter().filter_map(|flow| flow.association.as_ref()) {
        for path in &association.paths {
            table.add_row([
                association.id.to_string(),
                path.address.clone(),
                path.state.clone() + if path.primary { ", primary" } else { "" },
                format!("{:.1}", path.rtt_ms),
                or_dash(path.rto_ms),
                path.cwnd.to_string(),
                or_dash(path.mtu),
            ]);
        }
    }
    table
}

fn counters(counters: &BTreeMap<String, u64>) -> Table {
    let mut table = table(&["counter", ">count"]);
    for (name, count) in counters.iter().filter(|(_, count)| **count != 0) {
        table.add_row([name.clone(), count.to_string()]);
    }
    table
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m {}s", seconds % 60),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            uptime_s: 3_723,
            pid: 100,
            phase: Phase::Running,
            processes: vec![Process {
                role: Duty::Worker,
                seat: 0,
                pid: 101,
                uid: Some(65_534),
                ready: true,
                restarts: 2,
                up_s: 61,
                cpu_ms: Some(1_234),
            }],
            counters: [("invites".to_owned(), 7), ("timed_out".to_owned(), 0)].into(),
            tables: [("transactions".to_owned(), Fill { used: 1, size: 4 })].into(),
            flows: Vec::new(),
            listeners: Vec::new(),
            audit: None,
            warnings: vec!["only 1024 open files".to_owned()],
        }
    }

    #[test]
    fn the_document_comes_back_as_it_was_written() {
        let text = serde_json::to_string(&status()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
        assert!(text.contains(r#""phase":"running""#) && text.contains(r#""role":"worker""#), "{text}");
    }

    #[test]
    fn people_see_what_is_there_and_nothing_empty() {
        let text = render(&status());
        assert!(
            text.starts_with("strowger 0.1.0, running, up 1h 2m, master process 100\nwarning: only 1024 open files\n")
        );
        assert!(
            text.contains("Processes") && text.contains("1.23") && text.contains("1m 1s") && text.contains("65534")
        );
        assert!(text.contains("25 %") && text.contains("invites"));
        assert!(!text.contains("Flows") && !text.contains("Listeners") && !text.contains("timed_out"), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "no blanks at the ends of lines");
    }

    #[test]
    fn people_see_all_that_is_known_of_an_association() {
        let path = Path {
            address: "192.0.2.1:5060".to_owned(),
            state: "active".to_owned(),
            primary: false,
            rtt_ms: 12.5,
            cwnd: 4_380,
            rto_ms: None,
            mtu: Some(1_500),
        };
        let association = Association {
            id: 7,
            window: 65_001,
            unacknowledged: Some(3),
            retransmitted: 11,
            paths: vec![
                Path { primary: true, ..path.clone() },
                Path { address: "198.51.100.1:5060".to_owned(), rto_ms: Some(501), ..path },
            ],
        };
        let flow = FlowLine {
            transport: Transport::Sctp,
            peers: vec!["192.0.2.1:5060".to_owned()],
            state: "open".to_owned(),
            seat: None,
            queued_bytes: 2_048,
            messages_in: 21,
            messages_out: 22,
            association: Some(association),
        };
        let text = render(&Status { flows: vec![flow], ..status() });
        let line = |start: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(words).find(|line| line.starts_with(start)).unwrap_or_default()
        };
        assert_eq!(line("sctp"), "sctp 192.0.2.1:5060 open - 2048 21 22 7 65001 3 11");
        assert_eq!(line("7 192.0.2.1:5060"), "7 192.0.2.1:5060 active, primary 12.5 - 4380 1500", "{text}");
        assert_eq!(line("7 198.51.100.1:5060"), "7 198.51.100.1:5060 active 12.5 501 4380 1500", "{text}");
        assert_eq!(text.matches("65001").count(), 1, "the association's own figures stand once: {text}");
    }

    #[test]
    fn no_daemon_means_a_line_that_says_what_to_do() {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let line = command(Some(free), false, QUESTION).unwrap_err();
        assert!(line.contains("strowger serve") && line.contains(&free.to_string()), "{line}");
        assert!(command(None, false, QUESTION).unwrap_err().contains("admin.address"));
    }
}
