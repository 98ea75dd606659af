//! Does CPU per call grow with what is merely there? `cargo bench --bench scale [-- udp tcp sctp]`.
//!
//! The same calls at the same rate, on daemons of their own that take turns: 100 clients; 10,000 clients (as many callees, each with its
//! own socket or connection); 100 clients beside 50,000 idle TCP connections, and beside 1,000,000 bindings. Wanted: less than 10 %
//! more than with 100 clients alone. SCTP (the kernel's; it sends heartbeats on each association) is measured without heartbeats, too.
//! Medians; the ratio is that of the rounds that were run one after the other, so that a machine that others use hurts little.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]

#[allow(dead_code, reason = "each benchmark shows a part of the figures")]
#[path = "support/bed.rs"]
mod bed;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use bed::{Bed, Round, spread, turn};
use comfy_table::{CellAlignment, Table, presets};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use strowger::phone::daemon::free_port;
use strowger::phone::load::Pace;
use strowger::transport::Transport;

const RATE: f64 = 1_000.0;
const CALLS: u64 = 3_000;
const ROUNDS: usize = 7;
const FEW: usize = 100;
const MANY: usize = 10_000;
const IDLE: usize = 50_000;
const BINDINGS: usize = 1_000_000;
/// Room for all of it, the same in all daemons.
const ROOM: &str = "[limits]\nconnections = 80000\nconnections_per_peer = 80000\nassociations = 80000\n\
                    associations_per_peer = 80000\n[memory]\nflows = 131072\nbindings = 1100000\n[tcp]\nidle_s = 3600\n";
const NO_HEARTBEATS: &str = "[sctp]\nhbinterval_ms = 3600000\n";

fn main() {
    // cargo runs benchmarks as tests, too (`cargo test --benches`): there is nothing to see in a debug build.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let named = |transport: &Transport| std::env::args().any(|argument| argument == transport.uri_token());
    let mut transports: Vec<Transport> = Transport::ALL.into_iter().filter(named).collect();
    if transports.is_empty() {
        transports = vec![Transport::Udp, Transport::Tcp];
    }
    // Each phone and each idle connection is a descriptor here, and one in the daemon, which inherits this.
    let wanted = (IDLE + 4 * MANY + 10_000) as u64;
    let allowed = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok()
        || getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(_, hard)| hard >= wanted);
    assert!(allowed, "{wanted} open files are needed: as root, or after ulimit -n {wanted}");
    for transport in transports {
        measure(transport);
    }
}

/// One transport's table.
fn measure(transport: Transport) {
    let mut names = vec![format!("{FEW} clients"), format!("{MANY} clients")];
    let mut beds = vec![Bed::new(transport, FEW, ROOM), Bed::new(transport, MANY, ROOM)];
    if transport == Transport::Sctp {
        let tables = ROOM.to_owned() + NO_HEARTBEATS;
        names.extend([format!("{FEW} clients, no heartbeats"), format!("{MANY} clients, no heartbeats")]);
        beds.extend([Bed::new(transport, FEW, &tables), Bed::new(transport, MANY, &tables)]);
    }
    // Held open until the end.
    let (_idle, _registered);
    if transport == Transport::Tcp {
        names.push(format!("{FEW} clients, {IDLE} idle connections"));
        let bed = Bed::new(transport, FEW, ROOM);
        _idle = idle_connections(bed.proxy);
        beds.push(bed);
    }
    if transport != Transport::Sctp {
        names.push(format!("{FEW} clients, {BINDINGS} bindings"));
        let registrar = SocketAddr::from(([127, 0, 0, 2], free_port().expect("a free port")));
        let listener = format!("[[listen]]\ntransport = \"tcp\"\naddress = \"{registrar}\"\n");
        let bed = Bed::new(transport, FEW, &(ROOM.to_owned() + &listener));
        _registered = register(registrar);
        beds.push(bed);
    }
    let pace = Pace::PerSecond(RATE);
    let mut rounds = vec![Vec::new(); beds.len()];
    turn(&mut beds, CALLS, pace, &mut rounds);
    rounds.iter_mut().for_each(Vec::clear);
    for _ in 0..ROUNDS {
        turn(&mut beds, CALLS, pace, &mut rounds);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["", "failed", "CPU µs/call", "min–max", "to the first", "p99 ms"]);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for ((name, bed), own) in names.iter().zip(&beds).zip(&rounds) {
        let [least, median, most] = spread(own, |round| round.cpu_us);
        table.add_row([
            name.clone(),
            bed.failed.to_string(),
            format!("{median:.1}"),
            format!("{least:.1}–{most:.1}"),
            format!("{:.3}", ratio(own, &rounds[0])),
            format!("{:.2}", spread(own, |round| round.p99_ms)[1]),
        ]);
    }
    println!(
        "\n{}: daemon CPU per call at {RATE} calls/s, 2 workers; medians of {ROUNDS} rounds of {CALLS} calls\n{table}",
        transport.via_token()
    );
    beds.into_iter().for_each(Bed::stop);
}

/// Median of the ratios of rounds that were neighbours in time.
fn ratio(own: &[Round], first: &[Round]) -> f64 {
    let mut ratios: Vec<f64> = own.iter().zip(first).map(|(own, first)| own.cpu_us / first.cpu_us).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Connections that carried a ping once; from many addresses, because one has only 28,000 ports.
fn idle_connections(proxy: SocketAddr) -> Vec<Socket> {
    let open = |n: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (n / 5_000) as u8)), 0);
        socket.bind(&from.into())?;
        socket.connect(&proxy.into())?;
        (&socket).write_all(b"\r\n\r\n")?;
        (&socket).read_exact(&mut [0; 2])?;
        Ok::<_, std::io::Error>(socket)
    };
    (0..IDLE).map(|n| open(n).unwrap_or_else(|e| panic!("idle connection {n}: {e}"))).collect()
}

/// A contact for each of a million addresses-of-record, over one connection.
fn register(proxy: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).expect("a connection");
    let local = stream.local_addr().expect("its address");
    let mut answers = Vec::new();
    for first in (0..BINDINGS).step_by(200) {
        let mut requests = String::new();
        for n in first..first + 200 {
            requests += &format!(
                "REGISTER sip:example.test SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{n:x}\r\nMax-Forwards: 70\r\n\
                 From: <sip:user-{n}@example.test>;tag={n:x}\r\nTo: <sip:user-{n}@example.test>\r\nCall-ID: {n:032x}@a\r\n\
                 CSeq: 1 REGISTER\r\nContact: <sip:user-{n}@{local};transport=tcp>\r\nExpires: 86400\r\nContent-Length: 0\r\n\r\n"
            );
        }
        stream.write_all(requests.as_bytes()).expect("REGISTERs are sent");
        answers.clear();
        let mut buffer = [0; 65_536];
        while memchr::memmem::find_iter(&answers, b"\r\n\r\n").count() < 200 {
            let read = stream.read(&mut buffer).expect("answers");
            assert!(read > 0, "the daemon closed the connection");
            answers.extend_from_slice(&buffer[..read]);
        }
        let good = memchr::memmem::find_iter(&answers, b"SIP/2.0 200").count();
        assert_eq!(good, 200, "{}", String::from_utf8_lossy(&answers[..400.min(answers.len())]));
    }
    stream
}
