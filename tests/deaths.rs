//! A worker is killed every two seconds, for ten or thirty seconds, under load. It is replaced within
//! 100 ms each time, locks that died with it are put right, and nothing of shared memory is lost.
//!
//! Lost may be what the dead worker held at that instant: messages it had read and not yet sent on. Over TCP the connections
//! of that worker end, and nothing else: every caller has a connection of its own, and whose it was is read from /proc while
//! the worker is stopped, just before it dies.

#![allow(clippy::disallowed_methods, reason = "tests measure time")]

mod support;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::process::{owned_sockets, state};
use support::proxy::Setup;
use support::sipp::{Scenario, Sipp, names, register};
use support::tcp_phones::{self, Call, Callee, End, Row};
use support::{Room, kernel, left_to_the_host, left_to_the_vm, patience, say, slow, tally_sctp, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const KILLS: u32 = 14;

/// Calls go on for a second after the last successor came.
fn seconds(kills: u32) -> u32 {
    2 * kills + 4
}

/// From second 2 on a worker dies every 2 s, each in its turn. `just_before` sees each of them.
fn kill_workers(daemon: &Daemon, kills: u32, mut just_before: impl FnMut(i32)) {
    let start = Instant::now();
    let mut took = Vec::new();
    for nth in 0..kills {
        let due = start + Duration::from_secs(2 + 2 * u64::from(nth));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let workers = daemon.workers();
        let victim = workers[nth as usize % workers.len()];
        just_before(victim);
        took.push(daemon.kill_and_time_replacement(victim));
    }
    took.sort();
    let slowest = took[took.len() - 1];
    say(&format!(
        "{kills} workers killed, replaced after {:.1?} (median), {slowest:.1?} (slowest)",
        took[took.len() / 2]
    ));
    // Seen: 4 ms on metal, 30 ms in the emulated machine, with its measuring.
    assert!(slowest <= Duration::from_millis(100), "a worker was replaced only after {slowest:?}");
}

/// Nothing of shared memory is lost, and the house still works as on its first day.
fn inspect(daemon: Daemon, kills: u32, room: &Room, transport: Transport, toward: SocketAddr) {
    let status = daemon.status();
    say(&format!(
        "locks recovered {}, slots ended {}, restarts {}",
        counter(&status, "locks_recovered"),
        counter(&status, "slots_ended"),
        counter(&status, "restarts")
    ));
    assert_eq!(counter(&status, "restarts"), u64::from(kills));
    audit(&daemon);
    let callee = Sipp::new(Scenario::Callee, transport, toward).start(room);
    register(room, (transport, toward), &names("after", 1), callee.local, transport);
    let after = Sipp::new(Scenario::Caller, transport, toward).users(&names("after", 1)).calls(20).start(room).finish();
    after.must_be_whole(20);
    drop(callee);
    daemon.stop();
}

/// Calls from SIPp without retransmissions, so that a lost message is a lost call. Every call is accounted for.
fn kill_workers_under_messages(transport: Transport, kills: u32, tables: &str) {
    let room = Room::new("deaths");
    let setup = Setup { tables: tables.to_owned(), ..Setup::on(HOME, &[transport]) };
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(transport);
    let rate = if slow() > 1 { 20 } else { 200 };
    let limit = patience(30) + Duration::from_secs(60);
    let callee =
        Sipp::new(Scenario::Callee, transport, toward).without_retransmissions().ring_ms(0).limit(limit).start(&room);
    let phones = names("d", 20);
    register(&room, (transport, toward), &phones, callee.local, transport);
    let calls = u64::from(rate * seconds(kills));
    let caller = Sipp::new(Scenario::Caller, transport, toward)
        .users(&phones)
        .without_retransmissions()
        .calls(calls)
        .rate(rate)
        .at_once(4000)
        .limit(limit)
        .start(&room);
    std::thread::sleep(Duration::from_millis(1500));
    let before = kernel::sctp_counters();
    kill_workers(&daemon, kills, |_| ());
    let report = caller.finish();
    let after = kernel::sctp_counters();
    let owners = sctp_owners(&daemon);
    drop(callee);
    say(&format!("{}: {report}", transport.uri_token()));
    assert_eq!(report.good + report.failed, calls, "calls are missing: {}", report.complaints());
    // What a worker held at its death: at these rates a message, or the two that follow from one. Seen: 0 of 6,400 on metal,
    // 1 of 640 in the emulated machine.
    assert!(report.failed <= 2 * u64::from(kills), "{report}: more than two for each death\n{}", report.complaints());
    if transport == Transport::Sctp {
        tally_sctp(report.good);
        // M31: the master holds the socket, so no association ends with a worker, and none had to be made again.
        assert_eq!(kernel::grown(&before, &after, "SctpActiveEstabs"), 0, "associations were made again");
        // Without tables: the default layout, one socket for all.
        let of_a_worker = |seat: &Option<u64>| seat.is_some_and(|seat| seat < 2);
        assert!(!owners.is_empty() && owners.iter().all(|seat| of_a_worker(seat) != tables.is_empty()), "{owners:?}");
    }
    inspect(daemon, kills, &room, transport, toward);
}

/// The seat that `status` gives each association.
fn sctp_owners(daemon: &Daemon) -> Vec<Option<u64>> {
    let status = daemon.status();
    let flows = status["flows"].as_array().cloned().unwrap_or_default();
    flows.iter().filter(|flow| flow["transport"] == "sctp").map(|flow| flow["seat"].as_u64()).collect()
}

/// What a worker owned when it died.
struct Death {
    stopped: Instant,
    dead: Instant,
    /// Ports of the callers whose connections were its own.
    callers: HashSet<u16>,
    /// The connection to the callee was its own.
    callee: bool,
}

impl Death {
    /// Stops the worker, so that what it owns stays as it is until it is killed.
    fn of(victim: i32, listener: SocketAddr, callee: SocketAddr) -> Death {
        let stopped = Instant::now();
        kill(Pid::from_raw(victim), Signal::SIGSTOP).expect("SIGSTOP");
        assert!(wait_for(patience(2), || (state(victim) == Some('T')).then_some(())).is_some(), "it does not stop");
        let own = owned_sockets(victim);
        let connections: Vec<_> = kernel::tcp_connections().into_iter().filter(|c| own.contains(&c.inode)).collect();
        Death {
            stopped,
            dead: Instant::now(),
            callers: connections.iter().filter(|c| c.local == listener.port()).map(|c| c.remote).collect(),
            callee: connections.iter().any(|c| c.remote == callee.port()),
        }
    }

    /// May this call have ended with this worker?
    fn ends(&self, call: &Call) -> bool {
        call.overlaps(self.stopped, self.dead) && (self.callee || self.callers.contains(&call.port))
    }
}

/// A connection for each call; the callee takes its calls over `callee_transport`.
fn kill_workers_under_connections(callee_transport: Transport) {
    let room = Room::new("deaths");
    let setup = Setup::on(HOME, &[Transport::Tcp, Transport::Udp]);
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(Transport::Tcp);
    let rate = if slow() > 1 { 10 } else { 50 };
    let contact = support::free_port(HOME);
    // Over UDP SIPp, because it repeats what goes lost.
    let limit = patience(30) + Duration::from_secs(60);
    let (over_udp, over_tcp) = if callee_transport == Transport::Udp {
        let callee =
            Sipp::new(Scenario::Callee, Transport::Udp, setup.address(Transport::Udp)).from(contact).ring_ms(0);
        (Some(callee.limit(limit).start(&room)), None)
    } else {
        (None, Some(Callee::open(contact)))
    };
    let phones = names("d", 20);
    register(&room, (Transport::Tcp, toward), &phones, contact, callee_transport);
    let calls = u64::from(rate * seconds(KILLS));
    let talk = Duration::from_millis(if slow() > 1 { 200 } else { 100 });
    let callers = tcp_phones::place(Row { toward, calls, rate, talk, patience: patience(10) }, &phones);
    let mut deaths = Vec::new();
    kill_workers(&daemon, KILLS, |victim| deaths.push(Death::of(victim, toward, contact)));
    let calls_over = callers.join().expect("the callers");
    drop((over_udp, over_tcp));
    let failed: Vec<_> = calls_over.iter().filter(|call| call.end != End::Good).collect();
    let open = calls_over.iter().filter(|call| deaths.iter().any(|death| death.ends(call))).count();
    say(&format!(
        "tcp to {}: {} of {calls} calls over, {} failed, {open} were under way on what dead workers owned",
        callee_transport.uri_token(),
        calls_over.len(),
        failed.len()
    ));
    assert_eq!(calls_over.len() as u64, calls);
    // Some call hangs on a connection at every moment, so the deaths must have been felt: else the test sees nothing.
    assert!(!failed.is_empty() && failed.len() <= open, "{} failed of {open} under way", failed.len());
    for call in failed {
        let death = deaths.iter().find(|death| death.ends(call));
        let death = death.unwrap_or_else(|| panic!("a call failed that no dead worker owned: {call:?}"));
        // Its connection ends with the worker; a caller is never left waiting on one that lives without an owner.
        let owned = death.callers.contains(&call.port);
        assert!(!owned || call.end == End::Closed, "its connection was the dead worker's: {call:?}");
    }
    inspect(daemon, KILLS, &room, Transport::Tcp, toward);
}

/// Every slot and every text is either in the life of a transaction or free.
fn audit(daemon: &Daemon) {
    let status = daemon.audit();
    let parts = status["audit"].as_object().unwrap_or_else(|| panic!("no audit in {status}"));
    assert!(parts.len() >= 3, "{parts:?}");
    for (part, audit) in parts {
        say(&format!("audit of {part}: {audit}"));
        // Skipped: held by somebody while it was counted. Nothing is, after the calls.
        assert_eq!((audit["lost"].as_u64(), audit["skipped"].as_u64()), (Some(0), Some(0)), "{part}");
    }
}

#[test]
fn workers_die_under_calls_over_udp() {
    if left_to_the_host("deaths over UDP") {
        return;
    }
    kill_workers_under_messages(Transport::Udp, KILLS, "");
}

#[test]
fn workers_die_under_calls_over_sctp() {
    if left_to_the_vm("deaths over SCTP") {
        return;
    }
    kill_workers_under_messages(Transport::Sctp, KILLS, "");
}

/// A worker's socket, and what waits in it, is there for its successor.
#[test]
fn workers_with_sockets_of_their_own_die_under_calls_over_sctp() {
    if left_to_the_vm("deaths over SCTP, a socket for each worker") {
        return;
    }
    kill_workers_under_messages(Transport::Sctp, 3, "[sctp]\nlayout = \"per_worker\"\n");
}

/// What goes lost between worker and callee is repeated there, so that only the callers' own connections matter.
#[test]
fn connections_end_with_their_worker_and_nothing_else_does() {
    if left_to_the_host("deaths over TCP") {
        return;
    }
    kill_workers_under_connections(Transport::Udp);
}

/// The one connection to the callee has an owner too.
#[test]
fn connections_to_a_callee_end_with_their_worker() {
    if left_to_the_host("deaths over TCP to the callee") {
        return;
    }
    kill_workers_under_connections(Transport::Tcp);
}
