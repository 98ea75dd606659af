//! What the daemon's memory is spent on: touched bytes per ringing INVITE, per transaction that only waits for a timer, per binding,
//! per idle connection. Of all its processes together, what they share counted once.
//!
//! The shared mapping is never given back to the kernel, so what things hold is seen by how much more is touched when more of them
//! come. The messages are those of the benchmarks: INVITEs of 700 bytes, a response without a body of 300.

#![allow(clippy::disallowed_methods, reason = "tests may read the clock")]

mod support;

use std::collections::HashSet;
use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::Socket;
use strowger::transport::Transport::{self, Tcp, Udp};
use support::daemon::{Daemon, used};
use support::proxy::Setup;
use support::raw::{Peer, answer};
use support::{DOMAIN, Room, patience, say, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Of each kind, so that what is touched by halves (the last page of an array, in each of 140 buckets) counts little.
const MANY: usize = 20_000;
/// Under way at once; a socket's buffer takes them all.
const BATCH: usize = 32;

/// Small pages: a huge one would be touched whole by the first thing in it.
fn setup(transports: &[Transport]) -> Setup {
    Setup { tables: "[memory]\nhuge_pages = false\n".to_owned(), ..Setup::on(HOME, transports) }
}

/// Bytes in RAM that belong to the daemon's processes and to no file (proc(5), smaps_rollup): of what several of them have
/// touched each counts its share, so the sum counts it once.
fn touched(daemon: &Daemon) -> u64 {
    let pids = [daemon.pid()].into_iter().chain(daemon.children());
    let kilobytes = |pid: i32| -> u64 {
        let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup of a process of ours");
        let value = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
                .unwrap_or_else(|| panic!("no {name}"))
        };
        value("Pss_Anon:") + value("Pss_Shmem:")
    };
    pids.map(kilobytes).sum::<u64>() * 1_024
}

/// How many bytes more `work` makes the daemon touch, for each of `n` things.
fn each(daemon: &Daemon, what: &str, n: usize, work: impl FnOnce()) -> u64 {
    let before = touched(daemon);
    work();
    let bytes = touched(daemon).saturating_sub(before);
    let each = bytes / n as u64;
    say(&format!("{what}: {each} bytes each ({n}: {:.1} MB)", bytes as f64 / 1e6));
    each
}

/// A caller and a registered callee on bare sockets.
struct Phones {
    caller: Peer,
    callee: Peer,
    /// Calls so far.
    calls: usize,
    /// Status and Call-ID of the responses that came: over UDP a failure is repeated until its ACK comes, which is never.
    heard: HashSet<(String, String)>,
}

/// Whole messages without bodies, one after the other, from a stream; a datagram is one.
struct Inbox<'p> {
    peer: &'p Peer,
    text: String,
}

impl Inbox<'_> {
    fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.text.find("\r\n\r\n") {
                let rest = self.text.split_off(end + 4);
                return std::mem::replace(&mut self.text, rest);
            }
            // Should a failure go lost all the same, it is repeated within 4 s (timer G).
            let more = self.peer.receive(patience(6)).expect("the next message");
            // A body is nobody's business here: one datagram, one message.
            match self.peer.transport {
                Udp => return more,
                _ => self.text += &more,
            }
        }
    }
}

impl Phones {
    fn new(setup: &Setup, transport: Transport) -> Phones {
        Phones::between(setup, transport, transport)
    }

    fn between(setup: &Setup, from: Transport, to: Transport) -> Phones {
        // What is not acknowledged here is repeated, thousands at once, and would push the first copies of others out of a small buffer.
        let room = |socket: &Socket| Ok(setsockopt(socket, RcvBufForce, &(64 << 20))?);
        let peer = |transport| Peer::connect_with(transport, setup.address(transport), room).expect("a peer");
        let phones = Phones { caller: peer(from), callee: peer(to), calls: 0, heard: HashSet::new() };
        phones.callee.register("z");
        phones
    }

    /// A request with fields as long as usual ones, and as many more bytes of body as make it `bytes` long.
    fn request(&self, method: &str, call: usize, bytes: usize) -> String {
        let (via, local) = (self.caller.transport.via_token(), self.caller.local);
        let contact = match method {
            "INVITE" => format!("Contact: <sip:alice@{local}>\r\nUser-Agent: a bare socket 1.0\r\n"),
            _ => String::new(),
        };
        let with = |body: &str| {
            format!(
                "{method} sip:z@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/{via} {local};rport;branch=z9hG4bK-5242-{call:016x}\r\n\
                 Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@{DOMAIN}>;tag={call:016x}\r\nTo: <sip:z@{DOMAIN}>\r\n\
                 Call-ID: {call:032x}@127.0.0.1\r\nCSeq: 1 {method}\r\n{contact}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let head = with("").len();
        // The length of a body of three digits takes two more bytes than that of none.
        let request = if bytes > head { with(&"b".repeat(bytes - head - 2)) } else { with("") };
        assert!(bytes <= head || request.len() == bytes, "{}: not {bytes} bytes", request.len());
        request
    }

    /// `n` requests, each answered `statuses`; returns them as the callee got them.
    fn call(&mut self, n: usize, method: &str, bytes: usize, statuses: &[(&str, &str)]) -> Vec<String> {
        let first = self.calls;
        self.calls += n;
        let (mut got, mut came) = (Vec::with_capacity(n), 0);
        let mut callee = Inbox { peer: &self.callee, text: String::new() };
        let mut caller = Inbox { peer: &self.caller, text: String::new() };
        for batch in (first..first + n).collect::<Vec<_>>().chunks(BATCH) {
            for call in batch {
                self.caller.send(self.request(method, *call, bytes).as_bytes()).expect("a request is sent");
            }
            for _ in batch {
                let mut request = callee.next();
                // The proxy's own, to the failure before.
                while request.starts_with("ACK") {
                    request = callee.next();
                }
                assert!(request.starts_with(method), "{request}");
                for (status, headers) in statuses {
                    self.callee.send(answer(&request, status, headers).as_bytes()).expect("an answer is sent");
                }
                got.push(request);
            }
            came += hear(&mut caller, &mut self.heard, batch.len() * statuses.len());
        }
        assert_eq!(came, n * statuses.len());
        got
    }

    /// The callee's last word to requests that ring.
    fn answer(&mut self, requests: &[String], status: &str) {
        let mut caller = Inbox { peer: &self.caller, text: String::new() };
        for batch in requests.chunks(BATCH) {
            for request in batch {
                self.callee.send(answer(request, status, "").as_bytes()).expect("an answer is sent");
            }
            hear(&mut caller, &mut self.heard, batch.len());
        }
    }
}

/// Waits for so many responses that were not `heard` before, 100 Trying not counted.
fn hear(caller: &mut Inbox<'_>, heard: &mut HashSet<(String, String)>, responses: usize) -> usize {
    let mut new = 0;
    while new < responses {
        let response = caller.next();
        let line = |start: &str| response.lines().find(|line| line.starts_with(start)).map(str::to_owned);
        let (Some(status), Some(call)) = (line("SIP/2.0 "), line("Call-ID: ")) else { panic!("{response}") };
        new += usize::from(!status.starts_with("SIP/2.0 100") && heard.insert((status, call)));
    }
    new
}

#[test]
fn an_invite_that_rings_holds_4_kb_and_one_that_was_answered_hardly_anything() {
    let room = Room::new("ringing");
    let setup = setup(&[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let mut phones = Phones::new(&setup, Udp);
    // 180s of some 700 bytes, too.
    let padding = format!("Contact: <sip:z@127.0.0.1:5060>\r\nX-Padding: {}\r\n", "p".repeat(200));
    let ring = |phones: &mut Phones, n| phones.call(n, "INVITE", 700, &[("180 Ringing", &padding)]);
    let length = answer(&ring(&mut phones, 1)[0], "180 Ringing", &padding).len();
    assert!((690..=760).contains(&length), "{length}");
    ring(&mut phones, 2_000);

    let mut ringing = Vec::new();
    let held = each(&daemon, "ringing INVITE, all of it", MANY, || ringing = ring(&mut phones, MANY));
    assert!(used(&daemon.status(), "transactions") > MANY as u64);
    assert!(held <= 4_096, "{held} bytes");

    // New calls use what the answered ones gave back, and need more only for what those still hold: their server transaction, which
    // waits for timer L, and their client transaction, which waits for timer M.
    let answered = each(&daemon, "answering them", MANY, || phones.answer(&ringing, "200 OK"));
    let held = each(&daemon, "INVITE that waits for timers L and M, both transactions", MANY, || {
        ring(&mut phones, MANY);
    });
    assert!(answered < 20, "{answered} bytes");
    assert!(held <= 2 * 512, "{held} bytes");
    daemon.stop();
}

#[test]
fn a_request_that_waits_for_timer_j_holds_its_answer_and_little_more() {
    let room = Room::new("timer-j");
    let setup = setup(&[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let mut phones = Phones::new(&setup, Udp);
    phones.call(1_000, "BYE", 0, &[("200 OK", "")]);
    let both = each(&daemon, "BYE, waiting for timers J and K", MANY / 2, || {
        phones.call(MANY / 2, "BYE", 0, &[("200 OK", "")]);
    });
    // Timer K is over: the client transactions of the next ones take the places of those.
    sleep(Duration::from_millis(5_500));
    let held = each(&daemon, "BYE, waiting for timer J alone", MANY / 2, || {
        phones.call(MANY / 2, "BYE", 0, &[("200 OK", "")]);
    });
    assert!(used(&daemon.status(), "transactions") > MANY as u64, "some ended before they were counted");
    assert!(both <= 2 * 512 && held <= 512, "{both} and {held} bytes");
    daemon.stop();
}

#[test]
fn a_failure_that_waits_for_its_ack_over_tcp_holds_no_text() {
    let room = Room::new("timer-h");
    let setup = setup(&[Tcp]);
    let daemon = Daemon::start(&room, &setup);
    let mut phones = Phones::new(&setup, Tcp);
    phones.call(1_000, "INVITE", 0, &[("486 Busy Here", "")]);
    let held = each(&daemon, "failed INVITE that waits for timer H", MANY, || {
        phones.call(MANY, "INVITE", 0, &[("486 Busy Here", "")]);
    });
    assert!(used(&daemon.status(), "transactions") > MANY as u64);
    assert!(held <= 512, "{held} bytes");
    daemon.stop();
}

/// Over UDP the failure itself is kept, for it is repeated. The callee has TCP, where timer D is over at once.
#[test]
fn a_failure_that_waits_for_its_ack_over_udp_holds_its_answer() {
    let room = Room::new("timer-h-udp");
    // One worker, so that no mailbox is touched; no Record-Route, so that the answer has its 300 bytes.
    let top = "record_route = false\n".to_owned();
    let setup = Setup { workers: 1, top, ..setup(&[Udp, Tcp]) };
    let daemon = Daemon::start(&room, &setup);
    let mut phones = Phones::between(&setup, Udp, Tcp);
    let busy = [("486 Busy Here", "")];
    phones.call(1_000, "INVITE", 0, &busy);
    // Twice as many as elsewhere: the last page of an array is 4 % of MANY here.
    let held = each(&daemon, "failed INVITE that waits for timer H over UDP", 2 * MANY, || {
        phones.call(2 * MANY, "INVITE", 0, &busy);
    });
    assert!(used(&daemon.status(), "transactions") > 2 * MANY as u64, "some ended before they were counted");
    assert!(held <= 512, "{held} bytes");
    daemon.stop();
}

#[test]
fn a_binding_holds_400_bytes() {
    const BINDINGS: usize = 80_000;
    let room = Room::new("bindings");
    let setup = setup(&[Tcp]);
    let daemon = Daemon::start(&room, &setup);
    // Over TCP, so that no transaction stays (timer J is 0).
    let phone = Peer::connect(Tcp, setup.address(Tcp)).expect("a peer");
    let register = |numbers: std::ops::Range<usize>| {
        let mut inbox = Inbox { peer: &phone, text: String::new() };
        for batch in numbers.collect::<Vec<_>>().chunks(100) {
            let requests: Vec<String> = batch.iter().map(|n| registration(&phone, *n)).collect();
            phone.send(requests.concat().as_bytes()).expect("REGISTERs are sent");
            for _ in batch {
                let response = inbox.next();
                assert!(response.starts_with("SIP/2.0 200"), "{response}");
            }
        }
    };
    register(0..2_000);
    let held = each(&daemon, "binding", BINDINGS, || register(2_000..2_000 + BINDINGS));
    assert_eq!(used(&daemon.status(), "bindings"), 2_000 + BINDINGS as u64);
    assert!(held <= 400, "{held} bytes");
    daemon.stop();
}

/// One contact with an instance, as phones register (RFC 5626 §4.1): 110 bytes of URI and parameters, a Call-ID of 42.
fn registration(phone: &Peer, n: usize) -> String {
    let local = phone.local;
    format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{n:x}\r\nMax-Forwards: 70\r\n\
         From: <sip:user-{n}@{DOMAIN}>;tag={n:x}\r\nTo: <sip:user-{n}@{DOMAIN}>\r\nCall-ID: {n:032x}@127.0.0.1\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:user-{n}@{local};transport=tcp>;\
         +sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{n:012x}>\"\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn an_idle_connection_holds_less_than_1_kb_of_ours() {
    const CONNECTIONS: usize = 9_000;
    let room = Room::new("idle");
    let mut setup = setup(&[Tcp]);
    setup.tables += "[limits]\nconnections = 12000\nconnections_per_peer = 12000\n";
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("as many open files as we may have");
    let wanted = CONNECTIONS as u64 + 500;
    assert!(most >= wanted, "{most} open files are allowed (ulimit -Hn), this test needs {wanted}");
    let daemon = Daemon::start(&room, &setup);
    let one = |at: SocketAddr| {
        let mut connection = TcpStream::connect(at).expect("a connection");
        connection.set_read_timeout(Some(patience(3))).expect("a time-out");
        // RFC 5626 §4.4.1: it has been used once, and has fallen silent.
        connection.write_all(b"\r\n\r\n").expect("a ping is sent");
        let mut pong = [0; 2];
        connection.read_exact(&mut pong).expect("a pong");
        connection
    };
    let mut connections: Vec<TcpStream> = (0..8).map(|_| one(setup.address(Tcp))).collect();
    let held = each(&daemon, "idle connection", CONNECTIONS, || {
        connections.extend((0..CONNECTIONS).map(|_| one(setup.address(Tcp))));
        // The status is asked over TCP, too, but is none of these.
        let all =
            wait_for(patience(3), || (used(&daemon.status(), "connections") == connections.len() as u64).then_some(()));
        assert!(all.is_some(), "{}", daemon.status()["tables"]);
    });
    assert!(held <= 1_024, "{held} bytes");
    drop(connections);
    daemon.stop();
}
