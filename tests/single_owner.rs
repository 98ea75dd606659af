//! `tcp.architecture = "single_owner"` through the real daemon: one process has every TCP connection, workers do the work. No call
//! fails in any mixture; nobody stands still for a peer that stalls; when the owner or a worker dies, what could be kept is kept.

#![allow(clippy::disallowed_methods, reason = "tests measure time")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use strowger::phone::agent::Manner;
use strowger::phone::load::{Load, Order, Pace, Tally};
use strowger::transport::Transport::{self, Tcp, Udp};
use support::daemon::{Daemon, counter, processes};
use support::process::owned_sockets;
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::names;
use support::tcp_phones::{self, Callee, End, Row};
use support::{DOMAIN, Room, kernel, patience, say, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn house(room: &Room, tables: &str) -> (Daemon, Setup) {
    let tables = format!("[tcp]\narchitecture = \"single_owner\"\n{tables}");
    let setup = Setup { tables, ..Setup::on(HOME, &[Udp, Tcp]) };
    (Daemon::start(room, &setup), setup)
}

fn owner(daemon: &Daemon) -> i32 {
    let owners = wait_for(patience(3), || {
        let owners = processes(&daemon.status(), "owner");
        (owners.len() == 1).then_some(owners)
    });
    owners.expect("one owner")[0]
}

/// Five phones over one transport that call five over another.
struct Street {
    load: Load,
    callers: Vec<usize>,
    callees: Vec<usize>,
}

impl Street {
    fn new(setup: &Setup, from: Transport, to: Transport) -> Street {
        let mut load = Load::new(DOMAIN, Manner::default()).expect("phones");
        let mut crowd = |side: &str, transport: Transport| -> Vec<usize> {
            let user = |n| format!("{side}{n}-{}-{}", from.uri_token(), to.uri_token());
            let add = |n| load.add_phone(&user(n), transport, HOME, setup.address(transport)).expect("a phone");
            (0..5).map(add).collect()
        };
        let (callers, callees) = (crowd("a", from), crowd("z", to));
        let everyone: Vec<_> = callers.iter().chain(&callees).copied().collect();
        assert!(load.register(&everyone, 3600).expect("a poll").is_empty(), "phones are not registered");
        Street { load, callers, callees }
    }

    fn place(&mut self, calls: u64, pace: Pace) -> Tally {
        let order = Order { calls, longest: Duration::MAX, pace, callers: &self.callers, callees: &self.callees };
        self.load.place(&order, &mut |_| ControlFlow::Continue(())).expect("a poll")
    }

    #[track_caller]
    fn must_call(&mut self, calls: u64, pace: Pace) {
        let tally = self.place(calls, pace);
        assert_eq!((tally.completed, tally.failed), (calls, 0), "{:?}", tally.failures);
    }
}

#[test]
fn no_call_fails_in_any_mixture_and_the_owner_has_every_connection() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "");
    let mut streets: Vec<_> =
        [(Tcp, Tcp), (Tcp, Udp), (Udp, Tcp)].map(|(from, to)| Street::new(&setup, from, to)).into();
    for street in &mut streets {
        street.must_call(400, Pace::AtOnce(20));
        street.must_call(100, Pace::PerSecond(200.0));
        // One at a time: should a process not be woken, each step waits for the loop's own turn, half a second.
        let tally = street.place(40, Pace::AtOnce(1));
        assert!(tally.failed == 0 && tally.took < patience(4), "40 calls in {:?}: {:?}", tally.took, tally.failures);
    }
    let mine: Vec<_> = daemon.workers().into_iter().map(|pid| (pid, owned_sockets(pid))).collect();
    let all = kernel::tcp_connections();
    let port = setup.address(Tcp).port();
    let ours: Vec<_> = all.iter().filter(|c| c.local == port && c.remote != 0).collect();
    assert!(ours.len() >= 20, "{} connections", ours.len());
    let its = owned_sockets(owner(&daemon));
    assert!(ours.iter().all(|c| its.contains(&c.inode)), "all are the owner's");
    assert!(ours.iter().all(|c| mine.iter().all(|(_, own)| !own.contains(&c.inode))), "and no worker's");
    let status = daemon.status();
    assert_eq!(["mailbox_full", "send_failed", "stalled"].map(|name| counter(&status, name)), [0; 3]);
    daemon.stop();
}

/// A callee over TCP and callers with a connection for each call.
fn row(setup: &Setup, calls: u64, rate: u32) -> Row {
    let talk = Duration::from_millis(20);
    Row { toward: setup.address(Tcp), calls, rate, talk, patience: patience(5) }
}

fn callee(setup: &Setup, users: &[String]) -> Callee {
    let callee = Callee::open(support::free_port(HOME));
    let peer = Peer::connect(Tcp, setup.address(Tcp)).expect("a registering peer");
    for user in users {
        let contact = format!("Contact: <sip:{user}@{};transport=tcp>\r\nExpires: 600\r\n", callee.local);
        let request = peer.request_with("REGISTER", user, &format!("reg-{user}"), &contact, "");
        peer.send(request.as_bytes()).expect("REGISTER is sent");
        assert!(peer.receive_starting("SIP/2.0 200", patience(3)).is_some(), "{user} is not registered");
    }
    callee
}

#[test]
fn a_connection_for_each_call() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "");
    let users = names("n", 5);
    let callee = callee(&setup, &users);
    let calls = tcp_phones::place(row(&setup, 300, 150), &users).join().expect("the callers");
    let bad: Vec<_> = calls.iter().filter(|call| call.end != End::Good).collect();
    assert!(calls.len() == 300 && bad.is_empty(), "{bad:?}");
    assert!(daemon.counter("connections_accepted") >= 300);
    drop(callee);
    daemon.stop();
}

/// What was read by a dead worker is worked on by its successor, and no connection ends with it.
#[test]
fn workers_die_and_no_connection_ends() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "");
    let users = names("w", 5);
    let callee = callee(&setup, &users);
    let calls = tcp_phones::place(row(&setup, 400, 100), &users);
    let deaths = 6;
    for nth in 0..deaths {
        std::thread::sleep(Duration::from_millis(500));
        let workers = daemon.workers();
        daemon.kill_and_time_replacement(workers[nth % workers.len()]);
    }
    let calls = calls.join().expect("the callers");
    let bad: Vec<_> = calls.iter().filter(|call| call.end != End::Good).collect();
    say(&format!("{} calls, {deaths} deaths, {} failed", calls.len(), bad.len()));
    // What a worker had decided and not yet posted when it died.
    assert!(bad.len() <= 2 * deaths && bad.iter().all(|call| call.end != End::Closed), "{bad:?}");
    let status = daemon.status();
    assert_eq!(["restarts", "poisonous", "mailbox_full"].map(|name| counter(&status, name)), [deaths as u64, 0, 0]);
    drop(callee);
    daemon.stop();
}

#[test]
fn the_owner_dies_and_its_successor_serves() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "");
    let ringing = Peer::connect(Tcp, setup.address(Tcp)).expect("a callee");
    ringing.register("ringing");
    let caller = Peer::connect(Udp, setup.address(Udp)).expect("a caller");
    caller.send(caller.request("INVITE", "ringing", "ringing").as_bytes()).expect("INVITE");
    let invite = ringing.receive_starting("INVITE", patience(3)).expect("INVITE");
    ringing.send(ringing.answer(&invite, "180 Ringing").as_bytes()).expect("180");
    assert!(caller.receive_starting("SIP/2.0 180", patience(3)).is_some());
    let died = Instant::now();
    let took = daemon.kill_and_time_replacement(owner(&daemon));
    // A19: what waits on a connection that ended with the owner fails at once.
    let answer = caller.receive_starting("SIP/2.0 5", patience(3));
    say(&format!("replaced after {took:.1?}, the call refused after {:.1?}: {answer:?}", died.elapsed()));
    assert!(answer.is_some() && died.elapsed() < patience(1), "{answer:?}");
    assert!(ringing.is_closed_within(patience(1)), "its connections end with it");
    for (from, to) in [(Tcp, Tcp), (Udp, Tcp)] {
        Street::new(&setup, from, to).must_call(100, Pace::AtOnce(10));
    }
    let status = daemon.status();
    assert_eq!(["restarts", "mailbox_full"].map(|name| counter(&status, name)), [1, 0]);
    daemon.stop();
}

#[test]
fn a_peer_that_stops_reading_is_closed_and_delays_nobody() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "[limits]\nconnection_queue_bytes = 65536\n");
    let mut street = Street::new(&setup, Tcp, Tcp);
    let stalled = Peer::connect_with(Tcp, setup.address(Tcp), |socket| socket.set_recv_buffer_size(4096));
    let stalled = stalled.expect("a peer that will stall");
    stalled.register("stalled");
    let sender = Peer::connect(Udp, setup.address(Udp)).expect("a sender");
    let body = "x".repeat(1_000);
    let mut sent = 0;
    while daemon.counter("stalled") == 0 {
        assert!(sent < 20_000, "it never stalled");
        for _ in 0..100 {
            let id = format!("stall-{sent}");
            let text = sender.request_with("MESSAGE", "stalled", &id, "Content-Type: text/plain\r\n", &body);
            sender.send(text.as_bytes()).expect("MESSAGE");
            sent += 1;
        }
        street.must_call(10, Pace::AtOnce(10));
    }
    let status = daemon.status();
    assert_eq!(["stalled", "connections_closed", "mailbox_full"].map(|name| counter(&status, name)), [1, 1, 0]);
    drop(stalled);
    street.must_call(100, Pace::AtOnce(10));
    daemon.stop();
}

/// Bytes of memory that these processes have for themselves.
fn private_bytes(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
            line.unwrap_or(0_u64)
        };
        1024 * (line("Private_Dirty:") + line("Private_Clean:"))
    };
    pids.iter().map(of).sum()
}

/// OPTIONS to the proxy itself, one behind the other as fast as the connection takes them.
fn flood(toward: SocketAddr, requests: usize, nth: usize) -> usize {
    let mut stream = TcpStream::connect(toward).expect("a connection");
    stream.set_read_timeout(Some(patience(5))).expect("a time-out");
    let (local, mut writer) = (stream.local_addr().expect("an address"), stream.try_clone().expect("a second handle"));
    let sender = std::thread::spawn(move || {
        for n in 0..requests {
            let text = format!(
                "OPTIONS sip:{toward} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK-{nth}-{n}\r\nMax-Forwards: 70\r\n\
                 From: <sip:f@{DOMAIN}>;tag=f\r\nTo: <sip:{toward}>\r\nCall-ID: {nth}-{n}\r\nCSeq: 1 OPTIONS\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            writer.write_all(text.as_bytes()).expect("OPTIONS");
        }
    });
    let (mut answers, mut buffer, mut text) = (0, [0; 65_536], Vec::new());
    while answers < requests {
        let Ok(n @ 1..) = stream.read(&mut buffer) else { break };
        text.extend_from_slice(&buffer[..n]);
        while let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            assert!(text.starts_with(b"SIP/2.0 200 "), "{}", text.escape_ascii());
            text.drain(..end + 4);
            answers += 1;
        }
    }
    sender.join().expect("the sender");
    answers
}

/// With mailboxes as small as they may be, so that they are full all the time.
#[test]
fn a_flood_is_answered_whole_and_costs_no_memory() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "[memory]\nmailbox_bytes = 131072\n");
    let toward = setup.address(Tcp);
    assert_eq!(flood(toward, 100, 9), 100);
    let pids = daemon.children();
    let before = private_bytes(&pids);
    let floods: Vec<_> = (0..4).map(|nth| std::thread::spawn(move || flood(toward, 4_000, nth))).collect();
    let mut most = 0;
    while !floods.iter().all(std::thread::JoinHandle::is_finished) {
        most = most.max(private_bytes(&pids));
        std::thread::sleep(Duration::from_millis(20));
    }
    let answers: usize = floods.into_iter().map(|flood| flood.join().expect("a flood")).sum();
    let status = daemon.status();
    let [received, full] = ["received_tcp", "mailbox_full"].map(|name| counter(&status, name));
    say(&format!("{answers} answers, {received} received, {full} not posted; {before} bytes before, {most} at most"));
    assert_eq!((answers as u64 + full, received), (16_000, 16_100));
    assert_eq!(full, 0, "a peer that reads is never dropped");
    // Arenas and buffers that the first hundred did not touch: 64 kB each.
    assert!(most < before + (8 << 20), "{before} bytes before the flood, {most} in it");
    daemon.stop();
}

#[test]
fn connections_end_when_they_are_idle_or_speak_no_sip() {
    let room = Room::new("single-owner");
    let (daemon, setup) = house(&room, "idle_s = 1\n");
    let toward = setup.address(Tcp);
    let (idle, bad) = (Peer::connect(Tcp, toward).expect("a peer"), Peer::connect(Tcp, toward).expect("a peer"));
    idle.send(b"\r\n\r\n").expect("a keep-alive");
    assert_eq!(idle.receive(patience(2)).as_deref(), Some("\r\n"));
    // E13: the answer is a worker's, and comes before the end.
    let text = bad.request("OPTIONS", "", "bad").replace("Content-Length: 0", "Content-Length: none");
    bad.send(text.as_bytes()).expect("what is no SIP");
    let answer = bad.receive(patience(2)).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 400 "), "{answer}");
    assert!(bad.receive(patience(2)).is_none() && bad.is_closed_within(patience(1)));
    assert!(idle.is_closed_within(patience(3)));
    let status = daemon.status();
    assert_eq!(["idle", "framing_lost"].map(|name| counter(&status, name)), [1, 1]);
    daemon.stop();
}
