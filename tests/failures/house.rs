//! A daemon whose next hops are the tests' callees, and a caller over UDP who takes the time.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use strowger::transport::Transport;

use crate::support::daemon::Daemon;
use crate::support::proxy::Setup;
use crate::support::raw::Peer;
use crate::support::{DOMAIN, Room, kernel, left_to_the_vm, only_in_the_vm, patience, say, wait_for};

pub const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where those live whom the network fails.
pub const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
/// A failure reaches the caller, or the next target, so soon after its notification.
const AT_ONCE: Duration = Duration::from_millis(500);

pub struct House {
    pub daemon: Daemon,
    pub proxy: SocketAddr,
    caller: Caller,
    _room: Room,
}

/// Its thread notes every response, and when it came.
struct Caller {
    socket: Arc<Peer>,
    heard: Arc<Mutex<Vec<(String, Instant)>>>,
    end: Arc<AtomicBool>,
    ear: Option<JoinHandle<()>>,
}

impl Caller {
    fn new(proxy: SocketAddr) -> Caller {
        let socket = Arc::new(Peer::connect(Transport::Udp, proxy).expect("a caller"));
        let (heard, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (listening, list, over) = (Arc::clone(&socket), Arc::clone(&heard), Arc::clone(&end));
        let ear = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Some(text) = listening.receive(Duration::from_millis(100)) {
                    list.lock().expect("nobody panicked with it").push((text, Instant::now()));
                }
            }
        });
        Caller { socket, heard, end, ear: Some(ear) }
    }

    /// The final response to the request with this Call-ID, if it is there.
    fn end_of(&self, id: &str) -> Option<(String, Instant)> {
        let call = format!("Call-ID: {id}@a\r\n");
        let heard = self.heard.lock().expect("nobody panicked with it");
        heard.iter().find(|(text, _)| !text.starts_with("SIP/2.0 1") && text.contains(&call)).cloned()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(ear) = self.ear.take() {
            let _ = ear.join();
        }
    }
}

impl House {
    /// `domains`: each with the SCTP addresses that serve it, in the order to be tried. `sctp`: further keys of that table.
    pub fn new(name: &str, domains: &[(&str, &[SocketAddr])], sctp: &str) -> Option<House> {
        if left_to_the_vm(name) {
            return None;
        }
        let room = Room::new(name);
        let mut tables = String::new();
        for (domain, targets) in domains {
            let targets: Vec<_> = targets.iter().map(|target| format!("\"sctp:{target}\"")).collect();
            let _ = write!(tables, "[[next_hop]]\ndomain = \"{domain}\"\ntargets = [{}]\n", targets.join(", "));
        }
        let _ = write!(tables, "[sctp]\n{sctp}\n");
        let setup = Setup { tables, ..Setup::on(HOME, &[Transport::Sctp, Transport::Udp]) };
        let daemon = Daemon::start(&room, &setup);
        let caller = Caller::new(setup.address(Transport::Udp));
        Some(House { daemon, proxy: setup.address(Transport::Sctp), caller, _room: room })
    }

    /// Sends a request for this domain; `id` tells it from the others.
    pub fn call(&self, method: &str, domain: &str, id: &str) -> Instant {
        self.call_with(method, domain, id, "")
    }

    pub fn call_with(&self, method: &str, domain: &str, id: &str, body: &str) -> Instant {
        let text = self.caller.socket.request_with(method, "z", id, "", body).replacen(DOMAIN, domain, 1);
        let now = Instant::now();
        self.caller.socket.send(text.as_bytes()).expect("it is sent");
        now
    }

    /// The status code of the final response to that request, and when it came. A failed INVITE is acknowledged.
    pub fn ends(&self, method: &str, domain: &str, id: &str, limit: Duration) -> (String, Instant) {
        let end = wait_for(limit, || self.caller.end_of(id));
        let (text, when) = end.unwrap_or_else(|| panic!("{id} has no end: {}", self.daemon.status()["counters"]));
        let code = text.split(' ').nth(1).unwrap_or_default().to_owned();
        if method == "INVITE" && !code.starts_with('2') {
            self.call("ACK", domain, id);
        }
        (code, when)
    }

    /// Has it had its final response?
    pub fn has_ended(&self, id: &str) -> bool {
        self.caller.end_of(id).is_some()
    }

    /// The request fails with 500 (a lone 503 goes no further, C10) at once after `since`.
    pub fn fails_at_once(&self, method: &str, domain: &str, id: &str, since: Instant) {
        let (code, end) = self.ends(method, domain, id, patience(5));
        at_once(&format!("{method} {id}: {code}"), since, end);
        assert_eq!(code, "500", "{id}");
    }

    pub fn count(&self, name: &str) -> u64 {
        self.daemon.counter(name)
    }

    /// Waits until a counter has come so far.
    pub fn until(&self, name: &str, at_least: u64) {
        let there = wait_for(patience(3), || (self.count(name) >= at_least).then_some(()));
        assert!(there.is_some(), "{name} is {}, not {at_least}", self.count(name));
    }

    pub fn end(self) {
        assert_eq!(self.count("restarts"), 0, "a process died");
        self.daemon.stop();
    }
}

pub fn at_once(what: &str, since: Instant, end: Instant) {
    let after = end.saturating_duration_since(since);
    say(&format!("{what} after {:.0} ms", after.as_secs_f64() * 1000.0));
    assert!(after <= AT_ONCE, "{what} came only after {after:?}");
}

/// Waits until the kernel has counted one more of these (RFC 3873), and says when that was.
pub fn when_counted(name: &str, before: u64, limit: Duration) -> Instant {
    let counted = wait_for(limit, || (counted(name) > before).then(Instant::now));
    counted.unwrap_or_else(|| panic!("no {name} within {limit:?}"))
}

pub fn counted(name: &str) -> u64 {
    kernel::sctp_counters().get(name).copied().unwrap_or_else(|| panic!("no counter {name}"))
}

/// As long as it lives, the network drops what an address sends (`src`) or is sent (`dst`).
pub struct Silence;

impl Silence {
    /// True where these tests may have their way with the loopback device.
    pub fn is_possible(what: &str) -> bool {
        !only_in_the_vm(what)
    }

    pub fn of(ip: IpAddr, directions: &[&str]) -> Silence {
        tc("qdisc add dev lo ingress");
        for direction in directions {
            tc(&format!("filter add dev lo parent ffff: protocol ip u32 match ip {direction} {ip}/32 action drop"));
        }
        Silence
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "ingress"]).status();
    }
}

/// As long as it lives, every packet takes so long.
pub struct Distance;

impl Distance {
    pub fn of(delay: &str) -> Distance {
        tc(&format!("qdisc add dev lo root netem delay {delay}"));
        Distance
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "root"]).status();
    }
}

fn tc(arguments: &str) {
    let output = Command::new("tc").args(arguments.split_whitespace()).output().expect("tc");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
