//! OpenSER's TCP (`tcp.architecture = "supervisor"`), alone, with a descriptor cache, with a priority queue and with both: calls
//! come through, idle connections are returned and closed and leave nothing behind, and a dead process costs no more than its
//! connections. What two processes alone do to each other is in `tests/transport/supervisor.rs`.

#![allow(clippy::disallowed_methods, reason = "tests measure time")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use strowger::phone::agent::Manner;
use strowger::phone::load::{Load, Order, Pace};
use strowger::transport::Transport;
use support::daemon::{Daemon, counter, processes, used};
use support::proxy::Setup;
use support::{DOMAIN, Room, patience, say, slow, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Callers, and as many callees.
const PHONES: usize = 10;

/// A daemon with a supervisor.
struct House {
    daemon: Daemon,
    toward: SocketAddr,
    room: Room,
}

fn house(name: &str, keys: &str) -> House {
    let room = Room::new(name);
    let tables = format!("[tcp]\narchitecture = \"supervisor\"\n{keys}\n");
    let setup = Setup { tables, ..Setup::on(HOME, &[Transport::Tcp]) };
    let daemon = Daemon::start(&room, &setup);
    let is_ready = |status: Value| {
        let all = status["processes"].as_array().expect("processes").clone();
        (all.len() == 4 && all.iter().all(|process| process["ready"] == true)).then_some(())
    };
    assert!(wait_for(patience(5), || is_ready(daemon.status())).is_some(), "some process does not come up");
    House { daemon, toward: setup.address(Transport::Tcp), room }
}

impl House {
    fn supervisor(&self) -> i32 {
        processes(&self.daemon.status(), "supervisor")[0]
    }

    /// Descriptors that each process has.
    fn descriptors(&self) -> BTreeMap<i32, usize> {
        let count = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.daemon.children().into_iter().map(|pid| (pid, count(pid))).collect()
    }

    /// Waits for the end of every connection; nobody has a descriptor more than before.
    fn is_empty_again(&self, before: &BTreeMap<i32, usize>) {
        let empty = wait_for(patience(10), || {
            let gone = used(&self.daemon.status(), "connections") == 0;
            (gone && self.descriptors() == *before).then_some(())
        });
        let status = self.daemon.status();
        assert!(empty.is_some(), "{} connections; {before:?} {:?}", used(&status, "connections"), self.descriptors());
    }

    fn stop(self) {
        self.daemon.stop();
        drop(self.room);
    }
}

/// Phones with a connection each.
struct Phones {
    load: Load,
    callers: Vec<usize>,
    callees: Vec<usize>,
}

impl Phones {
    fn register(house: &House, name: &str) -> Phones {
        let manner = Manner { t1: Duration::from_millis(500) * slow().min(12), ..Manner::default() };
        let mut load = Load::new(DOMAIN, manner).expect("phones");
        let mut crowd = |kind: &str| -> Vec<usize> {
            let user = |n| format!("{name}-{kind}{n}");
            let mut add = |n| load.add_phone(&user(n), Transport::Tcp, HOME, house.toward).expect("a phone");
            (0..PHONES).map(&mut add).collect()
        };
        let (callers, callees) = (crowd("a"), crowd("z"));
        let everyone: Vec<_> = callers.iter().chain(&callees).copied().collect();
        assert!(load.register(&everyone, 3600).expect("a poll").is_empty(), "phones are not registered");
        Phones { load, callers, callees }
    }

    /// Calls, of which so many fail.
    fn call(&mut self, calls: u64) -> u64 {
        let rate = if slow() > 1 { 20.0 } else { 300.0 };
        let (callers, callees) = (&self.callers, &self.callees);
        let order = Order { calls, longest: Duration::MAX, pace: Pace::PerSecond(rate), callers, callees };
        let tally = self.load.place(&order, &mut |_| ControlFlow::Continue(())).expect("a poll");
        if tally.failed > 0 {
            say(&format!("{} good, {} failed: {:?}", tally.completed, tally.failed, tally.failures));
        }
        assert_eq!(tally.completed + tally.failed, calls);
        tally.failed
    }
}

/// Three times the phones are new ones; the old ones keep their connections and say nothing more.
fn renewed_connections_leave_nothing_behind(name: &str, keys: &str) -> Value {
    let house = house(name, &format!("idle_s = 1\nsupervisor_idle_s = 1\n{keys}"));
    let before = house.descriptors();
    let mut old = Vec::new();
    for generation in ["one", "two", "three"] {
        let mut phones = Phones::register(&house, generation);
        assert_eq!(phones.call(150), 0);
        old.push(phones);
    }
    house.is_empty_again(&before);
    // The phones are still there: nobody but the daemon has closed anything.
    drop(old);
    let status = house.daemon.status();
    let connections = 3 * 2 * PHONES as u64;
    let counts = ["connections_accepted", "idle", "connections_closed"].map(|name| counter(&status, name));
    assert_eq!(counts, [connections; 3]);
    assert!(counter(&status, "connections_returned") >= connections);
    assert_eq!((counter(&status, "supervisor_silent"), counter(&status, "send_failed")), (0, 0));
    let names = [
        "sent_tcp",
        "descriptors_asked",
        "descriptors_kept",
        "idle_scans",
        "connections_assigned",
        "connections_returned",
    ];
    say(&names.map(|name| format!("{name} {}", counter(&status, name))).join(", "));
    house.stop();
    status
}

#[test]
fn calls_come_through_a_supervisor_and_idle_connections_are_closed() {
    let status = renewed_connections_leave_nothing_behind("supervisor", "");
    // Nobody opened a connection, so each message was a question.
    assert_eq!(counter(&status, "descriptors_asked"), counter(&status, "sent_tcp"));
    assert!(counter(&status, "idle_scans") > 100 && counter(&status, "descriptors_kept") == 0);
}

#[test]
fn the_same_with_a_descriptor_cache() {
    let status = renewed_connections_leave_nothing_behind("cache", "descriptor_cache = true");
    // Of two workers and the timer process, once for each connection; a few more where it was not read for long.
    let (asked, sent) = (counter(&status, "descriptors_asked"), counter(&status, "sent_tcp"));
    assert!(asked <= 3 * 3 * 2 * PHONES as u64 && asked + counter(&status, "descriptors_kept") == sent);
}

#[test]
fn the_same_with_a_cache_of_a_few_descriptors() {
    let keys = "descriptor_cache = true\ndescriptor_cache_size = 3\npriority_queue = true";
    let status = renewed_connections_leave_nothing_behind("small-cache", keys);
    assert!(counter(&status, "descriptors_asked") > 3 * 3 * 2 * PHONES as u64);
}

#[test]
fn the_same_with_a_priority_queue() {
    let status = renewed_connections_leave_nothing_behind("queue", "priority_queue = true");
    assert_eq!(counter(&status, "idle_scans"), 0);
}

#[test]
fn the_same_with_both() {
    let status = renewed_connections_leave_nothing_behind("both", "descriptor_cache = true\npriority_queue = true");
    assert_eq!(counter(&status, "idle_scans"), 0);
    assert!(counter(&status, "descriptors_kept") > counter(&status, "descriptors_asked"));
}

#[test]
fn the_supervisor_has_a_seat_a_name_and_a_nice_value() {
    let house = house("names", "supervisor_nice = 7");
    let status = house.daemon.status();
    let roles: Vec<_> = status["processes"].as_array().expect("processes").iter().map(|p| p["role"].clone()).collect();
    assert_eq!(roles, ["worker", "worker", "timer", "supervisor"]);
    let nice = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        // proc(5): the 19th, behind a name that may have blanks.
        stat.rsplit_once(')').expect("a name").1.split_whitespace().nth(16).map(str::to_owned)
    };
    assert_eq!(nice(house.supervisor()).as_deref(), Some("7"));
    assert_ne!(nice(house.daemon.workers()[0]).as_deref(), Some("7"));
    house.stop();
}

/// Calls go on, and what fails is what was under way; afterwards nothing fails, and nothing is left.
fn survives_the_death_of(name: &str, keys: &str, victims: impl Fn(&House) -> Vec<i32>) {
    let house = house(name, &format!("idle_s = 1\nsupervisor_idle_s = 1\n{keys}"));
    let mut phones = Phones::register(&house, "before");
    assert_eq!(phones.call(50), 0);
    for pid in victims(&house) {
        let daemon = &house.daemon;
        // While calls are under way.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                let took = daemon.kill_and_time_replacement(pid);
                say(&format!("replaced after {took:.1?}"));
            });
            let failed = phones.call(200);
            // At 300 calls/s: those under way, and those of the moment until a phone has its line again (200 ms).
            assert!(failed < 150, "{failed} of 200 calls failed");
        });
        let again = wait_for(patience(10), || {
            phones.load.attend().expect("a poll");
            (used(&house.daemon.status(), "connections") == 2 * PHONES as u64).then_some(())
        });
        assert!(again.is_some(), "the phones have no lines again");
        let all: Vec<_> = phones.callers.iter().chain(&phones.callees).copied().collect();
        assert!(phones.load.register(&all, 3600).expect("a poll").is_empty());
        assert_eq!(phones.call(50), 0);
    }
    drop(phones);
    let gone = wait_for(patience(10), || (used(&house.daemon.status(), "connections") == 0).then_some(()));
    assert!(gone.is_some());
    // A descriptor that a dead process left on its way would stay for ever. What is kept of those that are over goes after 0.5 s.
    std::thread::sleep(Duration::from_millis(1_100));
    let fresh = house.descriptors();
    let mut after = Phones::register(&house, "after");
    assert_eq!(after.call(50), 0);
    drop(after);
    house.is_empty_again(&fresh);
    house.stop();
}

#[test]
fn the_supervisor_may_die() {
    survives_the_death_of("supervisor-dies", "descriptor_cache = true\npriority_queue = true", |house| {
        vec![house.supervisor()]
    });
}

#[test]
fn workers_may_die() {
    survives_the_death_of("worker-dies", "", |house| house.daemon.workers());
}

/// A worker that hangs is the supervisor's least trouble: it goes on with the other, and forgets nothing.
#[test]
fn a_stopped_worker_stops_nobody_else() {
    let house = house("stopped", "");
    let workers = house.daemon.workers();
    let stopped = Pid::from_raw(workers[0]);
    kill(stopped, Signal::SIGSTOP).expect("SIGSTOP");
    // More assignments than its socket holds.
    let crowd: Vec<_> = (0..800).map(|_| std::net::TcpStream::connect(house.toward).expect("a connection")).collect();
    let accepted = wait_for(patience(5), || (used(&house.daemon.status(), "connections") == 800).then_some(()));
    assert!(accepted.is_some());
    kill(stopped, Signal::SIGCONT).expect("SIGCONT");
    let owned = |pid: i32| support::process::owned_sockets(pid).len();
    let shared = wait_for(patience(5), || (workers.iter().all(|pid| owned(*pid) >= 400)).then_some(()));
    assert!(shared.is_some(), "{:?}", workers.iter().map(|pid| owned(*pid)).collect::<Vec<_>>());
    drop(crowd);
    let gone = wait_for(patience(5), || (used(&house.daemon.status(), "connections") == 0).then_some(()));
    assert!(gone.is_some());
    house.stop();
}
