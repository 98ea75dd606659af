//! SCTP in user space meets the kernel's, inside UDP (RFC 6951): calls, large messages, ends and restarts from either side, loss, a
//! crowd. It sets the kernel's encapsulation ports for the whole machine, so only in the virtual machine.

mod support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, patience, say, tally_sctp, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The kernel's own tunnel port; the daemon has another.
const KERNEL: u16 = 9899;

/// A daemon in user space, and a kernel that reaches it.
struct House {
    room: Room,
    setup: Setup,
    daemon: Daemon,
    _ports: Ports,
}

/// The kernel's encapsulation ports, for as long as this lives: with them set, all SCTP of the machine goes through UDP.
struct Ports;

impl Ports {
    fn set(peer: u16) -> Ports {
        sysctl("udp_port", KERNEL);
        sysctl("encap_port", peer);
        Ports
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        sysctl("encap_port", 0);
        sysctl("udp_port", 0);
    }
}

impl House {
    fn new(name: &str) -> Option<House> {
        if std::env::var_os("IN_VM").is_none() {
            say(&format!("{name}: changes the kernel's SCTP, so only in the virtual machine"));
            return None;
        }
        let room = Room::new(name);
        let setup = Setup {
            next_hop_tunnel: Some(KERNEL),
            next_hop: vec![("kernel.test".to_owned(), Transport::Sctp, support::free_port(HOME))],
            ..Setup::in_user_space(HOME, &[Transport::Sctp, Transport::Udp])
        };
        let ports = Ports::set(setup.tunnel.expect("a tunnel"));
        let daemon = Daemon::start(&room, &setup);
        Some(House { room, setup, daemon, _ports: ports })
    }

    fn toward(&self) -> SocketAddr {
        self.setup.address(Transport::Sctp)
    }

    fn peer(&self) -> Peer {
        Peer::connect(Transport::Sctp, self.toward()).expect("the kernel sets an association up")
    }

    fn count(&self, name: &str) -> u64 {
        counter(&self.daemon.status(), name)
    }

    fn until(&self, name: &str, at_least: u64) {
        let there = wait_for(patience(5), || (self.count(name) >= at_least).then_some(()));
        assert!(there.is_some(), "{name} is {}, not {at_least}", self.count(name));
    }

    /// `calls` calls by SIPp over each of these pairs.
    fn call(&self, pairs: &[(Transport, Transport)], calls: u64) {
        for (from, to) in pairs.iter().copied() {
            let toward = |transport| self.setup.address(transport);
            let limit = patience(60);
            let callee = Sipp::new(Scenario::Callee, to, toward(to)).limit(limit).start(&self.room);
            let phones = names(&format!("{}-{}-", from.uri_token(), to.uri_token()), 5);
            register(&self.room, (to, toward(to)), &phones, callee.local, to);
            let caller =
                Sipp::new(Scenario::Caller, from, toward(from)).users(&phones).calls(calls).rate(30).at_once(60);
            let report = caller.limit(limit).start(&self.room).finish();
            say(&format!("{} to {}, kernel and user space: {report}", from.uri_token(), to.uri_token()));
            report.must_be_whole(calls);
            tally_sctp(calls);
        }
    }
}

fn sysctl(name: &str, value: u16) {
    fs::write(format!("/proc/sys/net/sctp/{name}"), value.to_string())
        .unwrap_or_else(|e| panic!("net.sctp.{name}: {e}"));
}

fn tc(arguments: &str) {
    let output = Command::new("tc").args(arguments.split_whitespace()).output().expect("tc");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn calls_cross_between_kernel_and_user_space() {
    let Some(house) = House::new("encapsulated-calls") else { return };
    let (sctp, udp) = (Transport::Sctp, Transport::Udp);
    house.call(&[(sctp, udp), (udp, sctp), (sctp, sctp)], 100);
    assert_eq!((house.count("associations_lost"), house.count("sctp_damaged")), (0, 0));
    house.daemon.stop();
}

/// The kernel's SCTP reaches one next hop inside UDP (M37) and everybody else plainly, at the same time.
#[test]
fn the_kernels_sctp_goes_inside_udp_where_the_configuration_says_so() {
    if std::env::var_os("IN_VM").is_none() {
        return say("encapsulated-next-hop: changes the kernel's SCTP, so only in the virtual machine");
    }
    let room = Room::new("encapsulated-next-hop");
    let (sctp, udp) = (Transport::Sctp, Transport::Udp);
    let far = Setup::in_user_space(HOME, &[sctp, udp]);
    let there = Daemon::start(&room, &far);
    let phones = names("tunnel", 5);
    let callee = Sipp::new(Scenario::Callee, udp, far.address(udp)).start(&room);
    register(&room, (udp, far.address(udp)), &phones, callee.local, udp);
    let plain = support::free_port(HOME);
    let _answering = Sipp::new(Scenario::Callee, sctp, plain).from(plain).start(&room);
    for layout in ["shared", "per_worker"] {
        let hop = format!("[[next_hop]]\ndomain = \"plain.test\"\ntargets = [\"sctp:{plain}\"]\n");
        let near = Setup {
            kernel_tunnel: Some(KERNEL),
            domain: "near.test".to_owned(),
            next_hop: vec![(support::DOMAIN.to_owned(), sctp, far.address(sctp))],
            next_hop_tunnel: far.tunnel,
            tables: format!("{hop}[sctp]\nlayout = \"{layout}\"\n"),
            ..Setup::on(HOME, &[sctp, udp])
        };
        // The daemon opens the kernel's port by itself.
        sysctl("udp_port", 0);
        let daemon = Daemon::start(&room, &near);
        let of_there = |name| counter(&there.status(), name);
        let (up, packets) = (of_there("associations_up"), of_there("sctp_packets"));
        for domain in [support::DOMAIN, "plain.test"] {
            let caller = Sipp::new(Scenario::Caller, udp, near.address(udp)).domain(domain).users(&phones).calls(50);
            let report = caller.rate(20).limit(patience(60)).start(&room).finish();
            say(&format!("{layout}: to {domain}: {report}"));
            report.must_be_whole(50);
            tally_sctp(50);
        }
        let (up, packets) = (of_there("associations_up") - up, of_there("sctp_packets") - packets);
        assert!(up == 1 && packets > 100, "{up} associations, {packets} packets inside UDP");
        daemon.stop();
    }
    sysctl("udp_port", 0);
    drop(callee);
    there.stop();
}

/// Over SCTP on both sides: a 180 that UDP loses is lost.
#[test]
fn calls_survive_three_percent_loss() {
    let Some(house) = House::new("loss") else { return };
    tc("qdisc add dev lo root netem loss 3% duplicate 1% reorder 5% delay 2ms");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        house.call(&[(Transport::Sctp, Transport::Sctp)], 100)
    }));
    tc("qdisc del dev lo root");
    result.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    house.daemon.stop();
}

#[test]
fn messages_of_20_and_60_kilobytes_pass_both_ways() {
    let Some(house) = House::new("large") else { return };
    let (caller, callee) = (house.peer(), house.peer());
    callee.register("large");
    for bytes in [20_000, 60_000] {
        let body = "x".repeat(bytes);
        let text = caller.request_with("MESSAGE", "large", &format!("l{bytes}"), "Content-Type: text/plain\r\n", &body);
        caller.send(text.as_bytes()).expect("the kernel takes it");
        let arrived = callee.receive_starting("MESSAGE", patience(5)).expect("it arrives");
        assert!(arrived.ends_with(&body), "{bytes} became {}", arrived.len());
        callee.send(callee.answer(&arrived, "200 OK").as_bytes()).expect("200 is sent");
        assert!(caller.receive_starting("SIP/2.0 200", patience(5)).is_some(), "no 200");
    }
    house.daemon.stop();
}

/// SHUTDOWN and ABORT, from the kernel's side and from ours.
#[test]
fn either_side_may_end_an_association() {
    let Some(house) = House::new("ends") else { return };
    let peer = house.peer();
    peer.register("ends");
    drop(peer);
    house.until("associations_closed", 1);

    let peer = house.peer();
    peer.register("aborts");
    peer.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(peer);
    house.until("associations_lost", 1);

    // A worker's death: its successor aborts what it had.
    let peers: Vec<Peer> = (0..4).map(|_| house.peer()).collect();
    peers.iter().enumerate().for_each(|(n, peer)| peer.register(&format!("dies{n}")));
    for worker in house.daemon.workers() {
        house.daemon.kill_and_time_replacement(worker);
    }
    for peer in &peers {
        assert!(peer.is_closed_within(patience(3)), "an association lives on without its owner");
    }

    let last = house.peer();
    last.register("last");
    house.daemon.stop();
    assert!(last.is_closed_within(patience(3)), "the daemon ended without a word");
}

/// A daemon that comes back on the same ports is, to the kernel, a peer that restarted (RFC 9260 §5.2.4).
#[test]
fn a_restarted_daemon_is_a_restarted_peer() {
    let Some(house) = House::new("restart") else { return };
    let listening = house.setup.next_hop[0].2;
    let callee = Sipp::new(Scenario::Callee, Transport::Sctp, house.toward()).from(listening).start(&house.room);
    let call = |setup: &Setup| {
        let toward = setup.address(Transport::Udp);
        let phones = names("restart", 1);
        let caller = Sipp::new(Scenario::Caller, Transport::Udp, toward).domain("kernel.test").users(&phones).calls(20);
        caller.rate(20).start(&house.room).finish().must_be_whole(20);
    };
    call(&house.setup);
    for pid in house.daemon.children().into_iter().chain([house.daemon.pid()]) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    std::thread::sleep(patience(1) / 2);
    let again = Daemon::start(&house.room, &house.setup);
    call(&house.setup);
    drop(callee);
    again.stop();
}

#[test]
fn two_hundred_kernel_peers_are_served() {
    let Some(house) = House::new("crowd") else { return };
    let peers: Vec<Peer> = (0..200).map(|_| house.peer()).collect();
    for (n, peer) in peers.iter().enumerate() {
        peer.send(peer.request("OPTIONS", "", &format!("crowd{n}")).as_bytes()).expect("OPTIONS is sent");
    }
    for peer in &peers {
        assert!(peer.receive_starting("SIP/2.0 200", patience(5)).is_some(), "no 200");
    }
    assert_eq!(house.count("associations_up"), 200);
    drop(peers);
    house.until("associations_closed", 200);
    house.daemon.stop();
}
