//! An association of two paths, of which one is cut while calls go on (A27): two namespaces, two cables between them; and one that
//! claims a path it does not have (M39). Only in the virtual machine, because it makes and changes network devices.

mod support;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::Socket;
use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, only_in_the_vm, patience, say, tally_sctp, wait_for};
use sys::sctp::Settings;

const FAR: &str = "far";

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Cables 1 and 2: 10.N.0.1 here, 10.N.0.2 in the namespace.
struct Cables;

impl Cables {
    fn lay() -> Cables {
        run(&format!("ip netns add {FAR}"));
        run(&format!("ip -n {FAR} link set lo up"));
        for n in [1, 2] {
            run(&format!("ip link add near{n} type veth peer name far{n}"));
            run(&format!("ip link set far{n} netns {FAR}"));
            run(&format!("ip addr add 10.{n}.0.1/24 dev near{n}"));
            run(&format!("ip -n {FAR} addr add 10.{n}.0.2/24 dev far{n}"));
            run(&format!("ip link set near{n} up"));
            run(&format!("ip -n {FAR} link set far{n} up"));
        }
        Cables
    }

    /// Nothing passes, in either direction, and nobody is told.
    fn cut(&self, n: u32) {
        run(&format!("tc qdisc add dev near{n} root netem loss 100%"));
        run(&format!("ip netns exec {FAR} tc qdisc add dev far{n} root netem loss 100%"));
    }

    fn mend(&self, n: u32) {
        run(&format!("tc qdisc del dev near{n} root"));
        run(&format!("ip netns exec {FAR} tc qdisc del dev far{n} root"));
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        // The far ends go with their namespace, and the near ends with them.
        let _ = Command::new("ip").args(["netns", "del", FAR]).status();
    }
}

/// The paths of the one association.
fn path_lines(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status();
    let flows = status["flows"].as_array().cloned().unwrap_or_default();
    let association = flows.iter().find(|flow| flow["transport"] == "sctp").map(|flow| flow["association"].clone());
    association.and_then(|association| association["paths"].as_array().cloned()).unwrap_or_default()
}

/// (address, state) of each.
fn paths(daemon: &Daemon) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    path_lines(daemon).iter().map(|path| (text(&path["address"]), text(&path["state"]))).collect()
}

/// Packets that the loopback device drops, by what `u32` matches in them.
struct Dropped;

impl Dropped {
    fn first(what: &str) -> Dropped {
        run("tc qdisc add dev lo ingress");
        let dropped = Dropped;
        dropped.also(what);
        dropped
    }

    fn also(&self, what: &str) {
        run(&format!("tc filter add dev lo parent ffff: protocol ip u32 {what} action drop"));
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "ingress"]).status();
    }
}

const CLAIMED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

fn socket(addresses: &[SocketAddr]) -> Socket {
    Socket::from(sys::sctp::one_to_many(addresses, &Settings::default(), false).expect("a socket").0)
}

/// Waits for a MESSAGE.
fn hears(socket: &Socket, limit: Duration) -> bool {
    let found = wait_for(limit, || {
        let mut bytes = [0; 4096];
        std::thread::sleep(Duration::from_millis(20));
        let read = (&*socket).read(&mut bytes).ok()?;
        bytes[..read].starts_with(b"MESSAGE").then_some(())
    });
    found.is_some()
}

/// M39: the kernel takes the addresses that a peer lists in its INIT for its own, and sends there over its association, before
/// anybody has confirmed them. Here one has set up an association so, and a phone is registered at the address that it claims.
struct Lie {
    daemon: Daemon,
    liar: Option<Socket>,
    /// Of the liar, and of who is registered.
    port: u16,
    phone: Peer,
    _room: Room,
}

impl Lie {
    fn told(name: &str) -> Lie {
        let room = Room::new(name);
        let home = IpAddr::from([127, 0, 0, 1]);
        let setup = Setup::on(home, &[Transport::Sctp, Transport::Udp]);
        let daemon = Daemon::start(&room, &setup);
        let port = support::free_port(home).port();
        let liar = socket(&[home, CLAIMED].map(|ip| SocketAddr::new(ip, port)));
        let hello = "OPTIONS sip:example.test SIP/2.0\r\nVia: SIP/2.0/SCTP 127.0.0.1;branch=z9hG4bKliar\r\nMax-Forwards: 70\r\n\
                     From: <sip:l@example.test>;tag=1\r\nTo: <sip:example.test>\r\nCall-ID: liar\r\nCSeq: 1 OPTIONS\r\n\
                     Content-Length: 0\r\n\r\n";
        liar.send_to(hello.as_bytes(), &setup.address(Transport::Sctp).into()).expect("OPTIONS is sent");
        let known = wait_for(patience(5), || (daemon.counter("associations_up") == 1).then_some(()));
        assert!(known.is_some(), "no association");
        let phone = Peer::connect(Transport::Udp, setup.address(Transport::Udp)).expect("a phone");
        let contact = format!("Contact: <sip:v@{};transport=sctp>\r\n", SocketAddr::new(CLAIMED, port));
        phone.send(phone.request_with("REGISTER", "v", "reg-v", &contact, "").as_bytes()).expect("REGISTER is sent");
        assert!(phone.receive_starting("SIP/2.0 200", patience(3)).is_some(), "no 200");
        Lie { daemon, liar: Some(liar), port, phone, _room: room }
    }

    fn message(&self, id: &str) {
        self.phone.send(self.phone.request("MESSAGE", "v", id).as_bytes()).expect("MESSAGE is sent");
    }

    /// The liar ends at once.
    fn hush(&mut self) {
        let liar = self.liar.take().expect("it lives");
        liar.set_linger(Some(Duration::ZERO)).expect("no lingering");
    }

    /// The liar's association, when somebody wants the address.
    fn is_aborted(&self) -> bool {
        wait_for(patience(3), || (self.daemon.counter("associations_lost") == 1).then_some(())).is_some()
    }
}

#[test]
fn an_address_that_is_only_claimed_gets_nobodys_requests() {
    if only_in_the_vm("a claimed address") {
        return;
    }
    // Nothing comes through to it any more.
    let _deaf = Dropped::first(&format!("match ip dst {CLAIMED}/32"));
    let lie = Lie::told("claimed");
    for (id, wait) in [("early", Duration::ZERO), ("late", Duration::from_secs(6))] {
        std::thread::sleep(wait);
        assert_eq!(lie.daemon.counter("associations_lost"), 0, "nobody wanted the address, or not for long ({id})");
        lie.message(id);
        let liar = lie.liar.as_ref().expect("it lives");
        assert!(!hears(liar, Duration::from_secs(2)), "who only claims an address got its owner's request ({id})");
    }
    assert!(lie.daemon.counter("claimed_address") >= 1);
    assert!(lie.is_aborted(), "it keeps others from the address's owner");
    lie.daemon.stop();
}

#[test]
fn an_address_that_was_only_claimed_is_reached_at_its_owner() {
    if only_in_the_vm("the owner of a claimed address") {
        return;
    }
    // Who is there hears no HEARTBEAT (the first chunk's type is 4): else it would abort what it knows nothing of.
    let dropped = Dropped::first(&format!("match ip dst {CLAIMED}/32 match u8 0x04 0xff at 32"));
    let mut lie = Lie::told("owner");
    // The liar makes room for the owner, on this one machine, and the daemon does not hear of it.
    dropped.also(&format!("match ip src 127.0.0.1/32 match u8 132 0xff at 9 match u16 {} 0xffff at 20", lie.port));
    lie.hush();
    let owner = socket(&[SocketAddr::new(CLAIMED, lie.port)]);
    lie.message("early");
    assert!(!hears(&owner, Duration::from_secs(1)), "there is an association with this address");
    assert_eq!((lie.daemon.counter("associations_lost"), lie.daemon.counter("associations_up")), (0, 1));
    std::thread::sleep(Duration::from_secs(6));
    lie.message("late");
    assert!(hears(&owner, patience(5)), "the owner of the address does not get what is meant for it");
    assert!(lie.is_aborted());
    lie.daemon.stop();
}

#[test]
fn calls_go_on_while_one_path_is_cut() {
    if only_in_the_vm("multi-homing") {
        return;
    }
    let cables = Cables::lay();
    let room = Room::new("multihoming");
    let udp = support::free_port(IpAddr::from([127, 0, 0, 1]));
    let here = [1, 2].map(|n| SocketAddr::from(([10, n, 0, 1], udp.port())));
    let setup =
        Setup { listen: vec![(Transport::Sctp, here.to_vec()), (Transport::Udp, vec![udp])], ..Setup::default() };
    let daemon = Daemon::start(&room, &setup);
    let there = SocketAddr::from(([10, 1, 0, 2], 5090));
    let limit = patience(60);
    let callee = Sipp::new(Scenario::Callee, Transport::Sctp, here[0])
        .from(there)
        .inside(FAR)
        .multihome(IpAddr::from([10, 2, 0, 2]))
        .ring_ms(0)
        .limit(limit)
        .start(&room);
    let phones = names("m", 5);
    register(&room, (Transport::Udp, udp), &phones, there, Transport::Sctp);
    let (calls, rate) = (600, 20);
    let caller = Sipp::new(Scenario::Caller, Transport::Udp, udp).users(&phones).calls(calls).rate(rate).at_once(400);
    let caller = caller.limit(limit).start(&room);
    let both =
        wait_for(patience(3), || (paths(&daemon).iter().filter(|path| path.1 == "active").count() == 2).then_some(()));
    assert!(both.is_some(), "not two paths: {:?}\n{}", paths(&daemon), daemon.status());
    let primary: Vec<_> = path_lines(&daemon).into_iter().filter(|path| path["primary"] == true).collect();
    assert!(primary.len() == 1 && primary[0]["address"] == "10.1.0.2:5090", "{primary:?}");
    std::thread::sleep(Duration::from_secs(5));
    cables.cut(1);
    let down = wait_for(patience(5), || (counter(&daemon.status(), "paths_down") > 0).then_some(()));
    assert!(down.is_some(), "no path went down: {:?}", paths(&daemon));
    say(&format!("one path is cut: {:?}", paths(&daemon)));
    assert!(paths(&daemon).contains(&("10.1.0.2:5090".to_owned(), "inactive".to_owned())));
    let is_logged = |words| {
        wait_for(patience(2), || daemon.has_logged(&["10.1.0.2:5090", words]).then_some(()))
            .unwrap_or_else(|| panic!("not logged: {words}\n{}", daemon.last_words()));
    };
    is_logged("SCTP path is down");
    assert!(!daemon.has_logged(&["SCTP path is up again"]), "{}", daemon.last_words());
    cables.mend(1);
    let up = wait_for(patience(10), || (counter(&daemon.status(), "paths_up") > 0).then_some(()));
    assert!(up.is_some(), "the path does not come up again: {:?}", paths(&daemon));
    is_logged("SCTP path is up again");
    let report = caller.finish();
    say(&format!("with one path cut and mended: {report}"));
    // The gap is what the unluckiest call waited more than the others: until the kernel sent its message again over the other path.
    let gap = report.percentile(1.0) - report.percentile(0.5);
    say(&format!("gap: {gap:.0} ms"));
    report.must_be_whole(calls);
    tally_sctp(calls);
    // One RTO (sctp.srto_initial_ms is 1000) and the machine's own slowness.
    assert!(gap < 3_000.0, "a gap of {gap} ms");
    drop(callee);
    daemon.stop();
}
