//! Does CPU per operation grow with what is merely there? `cargo bench --bench scale [-- udp tcp sctp]`; `benches/vm scale sctp`.
//!
//! The same calls at the same rate, on daemons of their own that take turns: 100 clients; 10,000 clients (as many callees, each with its
//! own socket or connection); 100 clients beside 50,000 idle TCP connections, and beside 1,000,000 bindings. Wanted: less than 10 %
//! more than with 100 clients alone. That is no exit status, the table says it.
//!
//! SCTP (the kernel's) sends heartbeats on each association, from both ends. It is measured without them, too, and the two rows without
//! are divided by each other. The phones' end has its interval from the kernel (`net.sctp.hb_interval`), which is the whole machine's:
//! so these rows are in the virtual machine only.
//!
//! The daemon is asked before and after each round whether all that should be there still is; a row where it is not has no verdict.
//!
//! What a transaction costs after its end (it stays for 32 s) is counted by calling for longer than that before the window opens: then as
//! many end in it as begin. `Meter`, which other benchmarks use for it, would count here that 20,000 connections are closed at the end of
//! a round. Medians; the ratio is that of the rounds that were run one after the other, so that a machine that others use hurts little.
//!
//! A process may have as many open files as `ulimit -Hn` says, which only root may raise (CAP_SYS_RESOURCE). Idle connections are held
//! by as many processes as that takes (this program again), and all daemons of TCP have as many workers.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(dead_code, reason = "parts are shared with other benchmarks, each shows some of the figures")]

#[path = "support/machine.rs"]
mod machine;
#[path = "support/phones.rs"]
mod phones;
#[path = "support/program.rs"]
mod program;
#[path = "support/proxy.rs"]
mod proxy;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use socket2::{Domain, Socket, Type};
use strowger::phone::bench::results::{self, Arrival};
use strowger::phone::bench::rig::Rig;
use strowger::phone::daemon::free_port;
use strowger::transport::Transport;

use crate::machine::Machine;
use crate::phones::{Calls, Lines, NICE, Phones, daemon, spread};
use crate::proxy::{Proxy, WORKERS, domain};

const FEW: usize = 100;
const MANY: usize = 10_000;
const IDLE: usize = 50_000;
const BINDINGS: usize = 1_000_000;
/// Open files of a process beside connections that are merely there.
const BESIDE: usize = 1_000;
/// Longer than a finished transaction stays.
const WARM_UP: Duration = Duration::from_secs(34);
/// Room for all of it, the same in all daemons.
const ROOM: &str = "[limits]\nconnections = 80000\nconnections_per_peer = 80000\nassociations = 80000\n\
                    associations_per_peer = 80000\n[memory]\nflows = 131072\nbindings = 1100000\nmailbox_bytes = 16777216\n\
                    [tcp]\nidle_s = 3600\n[udp]\nreceive_buffer_bytes = 33554432\n";
const NO_HEARTBEATS: &str = "[sctp]\nhbinterval_ms = 3600000\n";
/// Of the sockets that are opened while it stands there, milliseconds: the phones'.
const HEARTBEATS: &str = "/proc/sys/net/sctp/hb_interval";
/// More CPU by this is wanted nowhere.
const AT_MOST: f64 = 1.10;
/// What has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(10);
/// A holder has so long to end.
const END: Duration = Duration::from_secs(2);

/// How much is measured.
struct Scale {
    calls_per_s: f64,
    calls_for: Duration,
    rounds: usize,
}

impl Scale {
    fn of(machine: Machine) -> Scale {
        let seconds = Duration::from_secs;
        match machine {
            Machine::Metal => Scale { calls_per_s: 1_000.0, calls_for: seconds(10), rounds: 5 },
            // Rounds are alike there.
            Machine::Counting | Machine::Emulated => Scale { calls_per_s: 40.0, calls_for: seconds(10), rounds: 2 },
        }
    }
}

fn main() -> ExitCode {
    program::run("scale", include_str!("scale.rs"), |arguments| match arguments {
        [word, proxy, first, count] if word == "hold" => hold(proxy, first, count),
        _ => all(arguments),
    })
}

fn all(arguments: &[String]) -> io::Result<()> {
    program::known(arguments, &Transport::ALL.map(Transport::uri_token))?;
    let machine = Machine::here();
    let named = |transport: &Transport| arguments.iter().any(|argument| argument == transport.uri_token());
    let mut transports: Vec<Transport> = Transport::ALL.into_iter().filter(named).collect();
    if transports.is_empty() {
        transports = vec![Transport::Udp, Transport::Tcp];
    }
    // Daemon, phones and holders inherit it.
    let files = sys::process::set_open_files(1_000_000)? as usize;
    // Of a worker, or of a phone process, whichever has more.
    let phones = Rig::own(daemon(env!("CARGO_BIN_EXE_strowger"))).phone_processes(MANY);
    let least = 2 * MANY / WORKERS.min(phones) + BESIDE;
    if files < least {
        return Err(io::Error::other(format!(
            "a process may have {files} open files, and {least} are needed: raise `ulimit -Hn` (root may: CAP_SYS_RESOURCE; \
             LimitNOFILE= of systemd, nofile in limits.conf)"
        )));
    }
    transports.into_iter().try_for_each(|transport| measure(transport, machine, files))
}

/// A daemon and its load.
struct Bed {
    name: String,
    proxy: Proxy,
    phones: Phones,
    rounds: Vec<Calls>,
    /// What is merely there; gone with this.
    there: There,
    /// The row that this one is divided by.
    beside: usize,
    /// The phones send heartbeats, as the kernel has it.
    heartbeats: bool,
    /// What was not there any more when it was measured.
    gone: Option<String>,
}

#[derive(Default)]
struct There {
    idle: Vec<Holder>,
    registered: Option<TcpStream>,
    /// Of a table of the daemon's status; at least so much is in use. What the phones of a round add, a few hundred, is in it.
    least: Option<(&'static str, usize)>,
}

impl Bed {
    fn round(&mut self, calls_for: Duration) -> io::Result<Calls> {
        let quiet = if self.heartbeats { None } else { Some(Quiet::begin()?) };
        self.look("before");
        let calls = self.phones.measured(&self.proxy, calls_for);
        self.look("after");
        drop(quiet);
        Ok(calls)
    }

    /// What has gone once stays gone: the first time is told.
    fn look(&mut self, when: &str) {
        let Some((table, least)) = self.there.least else { return };
        let used = match self.proxy.used(table) {
            Ok(used) if used >= least => return,
            Ok(used) => format!("{used} of {least} {table} were there {when} a round"),
            Err(error) => format!("the daemon did not tell {when} a round how many {table} it has: {error}"),
        };
        eprintln!("{}: {used}", self.name);
        self.gone.get_or_insert(used);
    }

    fn failed(&self) -> u64 {
        self.rounds.iter().map(|calls| calls.failed).sum()
    }

    /// None: its figures are of what they should be.
    fn fault(&self) -> Option<String> {
        let made: u64 = self.rounds.iter().map(|calls| calls.operations / 2).sum();
        let fails = results::fails(made, self.failed());
        self.gone.clone().or(fails.then(|| format!("{} calls failed, {made} did not", self.failed())))
    }
}

/// No heartbeats from the sockets that are opened meanwhile.
struct Quiet {
    before: String,
}

impl Quiet {
    fn begin() -> io::Result<Quiet> {
        let told = |e| io::Error::other(format!("{HEARTBEATS}: {e}"));
        let before = fs::read_to_string(HEARTBEATS).map_err(told)?;
        fs::write(HEARTBEATS, "3600000").map_err(told)?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Err(error) = fs::write(HEARTBEATS, self.before.trim()) {
            eprintln!("{HEARTBEATS} was {} and could not be set again: {error}", self.before.trim());
        }
    }
}

/// One transport's table.
fn measure(transport: Transport, machine: Machine, files: usize) -> io::Result<()> {
    let scale = Scale::of(machine);
    // Each worker accepts its share, which is not quite the same for all.
    let workers = match transport {
        Transport::Tcp => WORKERS.max((IDLE + IDLE / 20).div_ceil(files - BESIDE)),
        _ => WORKERS,
    };
    let program = daemon(env!("CARGO_BIN_EXE_strowger"));
    let bed = |clients: usize, beside: &str, tables: &str, there: fn(&Proxy, usize) -> io::Result<There>| {
        let proxy = Proxy::strowger_with(&program, transport, workers, &(ROOM.to_owned() + tables));
        let arrival = Arrival::Open { calls_per_s: scale.calls_per_s };
        let phones = Phones {
            program: program.clone(),
            transport,
            clients,
            lines: Lines::Own,
            arrival,
            warm_up: WARM_UP,
            nice: NICE,
        };
        let name = format!("{clients} clients{beside}");
        eprintln!("{} {name}: getting ready", transport.via_token());
        let there = there(&proxy, files)?;
        Ok::<_, io::Error>(Bed {
            name,
            there,
            proxy,
            phones,
            rounds: Vec::new(),
            beside: 0,
            heartbeats: true,
            gone: None,
        })
    };
    let alone = |_: &Proxy, _: usize| Ok(There::default());
    let mut beds = vec![bed(FEW, "", "", alone)?, bed(MANY, "", "", alone)?];
    if transport == Transport::Sctp && machine == Machine::Metal {
        println!("left out: SCTP without heartbeats: {HEARTBEATS} is the whole machine's (benches/vm scale sctp)");
    } else if transport == Transport::Sctp {
        let beside = beds.len();
        for clients in [FEW, MANY] {
            let quiet = bed(clients, ", no heartbeats", NO_HEARTBEATS, alone)?;
            beds.push(Bed { beside, heartbeats: false, ..quiet });
        }
    }
    if transport == Transport::Tcp {
        beds.push(bed(FEW, &format!(", {IDLE} idle connections"), "", |proxy, files| {
            let idle = idle_connections(proxy.address, files)?;
            Ok(There { idle, least: Some(("connections", IDLE)), ..There::default() })
        })?);
    }
    if transport != Transport::Sctp {
        // Free on this address, says `free_port`, and on no other.
        let registrar = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let listener = format!("[[listen]]\ntransport = \"tcp\"\naddress = \"{registrar}\"\n");
        let mut with = bed(FEW, &format!(", {BINDINGS} bindings"), &listener, alone)?;
        with.there =
            There { registered: Some(register(registrar)?), least: Some(("bindings", BINDINGS)), ..with.there };
        beds.push(with);
    }
    // The first round touches memory for the first time.
    for round in 0..=scale.rounds {
        for bed in &mut beds {
            let calls = bed.round(scale.calls_for)?;
            let (of, name, unit) = (scale.rounds, &bed.name, machine.unit());
            eprintln!("round {round} of {of}, {name}: {:.1} {unit} per operation, {} failed", calls.cpu, calls.failed);
            bed.rounds.extend((round > 0).then_some(calls));
        }
    }
    println!(
        "\n{}: CPU of the daemon per operation, {}, at {} calls/s, {workers} workers, phones at nice {NICE}, {}\nmedians of {} rounds of {} s",
        transport.via_token(),
        machine.unit(),
        scale.calls_per_s,
        machine.said(),
        scale.rounds,
        scale.calls_for.as_secs()
    );
    println!("{}", table(&beds));
    println!(
        "ratio: beside 100 clients alone (without heartbeats where the row is without), of rounds that were neighbours in time"
    );
    println!(
        "phones busy: the share of a round in which the busiest phone process ran or waited for a processor. again: messages that the"
    );
    println!(
        "phones sent again. late ms: the most that a call began after its time; more than a few, and the phones could do no more."
    );
    for bed in &beds {
        if let Some(fault) = bed.fault() {
            println!("no figure: {}: {fault}", bed.name);
        }
    }
    Ok(())
}

fn table(beds: &[Bed]) -> Table {
    let mut table = Table::new();
    let titles = ["", "CPU", "min–max", "ratio", "at most", "p99 ms", "phones busy", "again", "late ms", "failed"];
    table.load_preset(presets::NOTHING).set_header(titles);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for (nth, bed) in beds.iter().enumerate() {
        let rounds = &bed.rounds;
        let of = |figure: fn(&Calls) -> f64| spread(rounds.iter().map(figure));
        let [least, median, most] = of(|calls| calls.cpu);
        // Of rounds that were neighbours in time.
        let first = &beds[bed.beside];
        let [_, ratio, _] = spread(rounds.iter().zip(&first.rounds).map(|(own, first)| own.cpu / first.cpu));
        let (ratio, verdict) = match (bed.fault().or(first.fault()), ratio) {
            _ if nth == bed.beside => (String::new(), String::new()),
            (Some(_), _) => ("no figure".to_owned(), format!("{AT_MOST:.2} ?")),
            (None, ratio) if ratio <= AT_MOST => (format!("{ratio:.3}"), format!("{AT_MOST:.2} yes")),
            (None, ratio) => (format!("{ratio:.3}"), format!("{AT_MOST:.2} MISSED")),
        };
        table.add_row([
            bed.name.clone(),
            format!("{median:.1}"),
            format!("{least:.1}–{most:.1}"),
            ratio,
            verdict,
            format!("{:.2}", of(|calls| calls.p99.as_secs_f64() * 1e3)[1]),
            format!("{:.0} %", of(|calls| calls.busy * 100.0)[1]),
            rounds.iter().map(|calls| calls.retransmitted).sum::<u64>().to_string(),
            format!("{:.0}", of(|calls| calls.behind.as_secs_f64() * 1e3)[2]),
            bed.failed().to_string(),
        ]);
    }
    table
}

/// A process that holds connections until its stdin ends.
struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < END {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn idle_connections(proxy: SocketAddr, files: usize) -> io::Result<Vec<Holder>> {
    let most = files - BESIDE;
    let start = |first: usize| {
        let count = most.min(IDLE - first);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", &proxy.to_string(), &first.to_string(), &count.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let (holder, mut said) = (Holder { child, stdin }, String::new());
        BufReader::new(stdout).read_line(&mut said)?;
        match said.trim() {
            "ready" => Ok(holder),
            _ => Err(io::Error::other("the idle connections did not come up")),
        }
    };
    (0..IDLE).step_by(most).map(start).collect()
}

/// Connections that carried a ping once; from many addresses, because one has only 28,000 ports.
fn hold(proxy: &str, first: &str, count: &str) -> io::Result<()> {
    let wrong = |_| io::Error::other("hold IP:PORT FIRST COUNT");
    let proxy: SocketAddr = proxy.parse().map_err(|_| io::Error::other("hold IP:PORT FIRST COUNT"))?;
    let (first, count): (usize, usize) = (first.parse().map_err(wrong)?, count.parse().map_err(wrong)?);
    let open = |n: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (n / 5_000) as u8)), 0);
        socket.bind(&from.into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect_timeout(&proxy.into(), PATIENCE)?;
        (&socket).write_all(b"\r\n\r\n")?;
        (&socket).read_exact(&mut [0; 2])?;
        Ok::<_, io::Error>(socket)
    };
    let opened = |n: usize| open(n).map_err(|e| io::Error::other(format!("idle connection {n}: {e}")));
    let held: Vec<Socket> = (first..first + count).map(opened).collect::<io::Result<_>>()?;
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}

/// A contact for each of a million addresses-of-record, over one connection.
fn register(proxy: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let local = stream.local_addr()?;
    let (mut answers, domain) = (Vec::new(), domain(0));
    for first in (0..BINDINGS).step_by(200) {
        let mut requests = String::new();
        for n in first..first + 200 {
            requests += &format!(
                "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{n:x}\r\nMax-Forwards: 70\r\n\
                 From: <sip:user-{n}@{domain}>;tag={n:x}\r\nTo: <sip:user-{n}@{domain}>\r\nCall-ID: {n:032x}@a\r\n\
                 CSeq: 1 REGISTER\r\nContact: <sip:user-{n}@{local};transport=tcp>\r\nExpires: 86400\r\nContent-Length: 0\r\n\r\n"
            );
        }
        stream.write_all(requests.as_bytes())?;
        answers.clear();
        let mut buffer = [0; 65_536];
        while memchr::memmem::find_iter(&answers, b"\r\n\r\n").count() < 200 {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::Error::other(format!("the daemon closed the connection after {first} bindings")));
            }
            answers.extend_from_slice(&buffer[..read]);
        }
        let good = memchr::memmem::find_iter(&answers, b"SIP/2.0 200").count();
        assert_eq!(good, 200, "{}", String::from_utf8_lossy(&answers[..400.min(answers.len())]));
    }
    Ok(stream)
}
