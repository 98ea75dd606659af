//! An association of two paths, of which one is cut while calls go on (A27): two namespaces, two cables between them. Only in the
//! virtual machine, because it makes network devices.

mod support;

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, only_in_the_vm, patience, say, tally_sctp, wait_for};

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

/// Nothing comes through to this address any more.
struct Deaf;

impl Deaf {
    fn at(ip: &str) -> Deaf {
        run("tc qdisc add dev lo ingress");
        run(&format!("tc filter add dev lo parent ffff: protocol ip u32 match ip dst {ip}/32 action drop"));
        Deaf
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "ingress"]).status();
    }
}

/// M39: the kernel takes the addresses that a peer lists in its INIT for its own, and sends there over its association, before
/// anybody has confirmed them.
#[test]
fn an_address_that_is_only_claimed_gets_nobodys_requests() {
    if only_in_the_vm("a claimed address") {
        return;
    }
    let _deaf = Deaf::at("127.0.0.77");
    let room = Room::new("claimed");
    let home = IpAddr::from([127, 0, 0, 1]);
    let setup = Setup::on(home, &[Transport::Sctp, Transport::Udp]);
    let daemon = Daemon::start(&room, &setup);
    let port = support::free_port(home).port();
    let claimed = SocketAddr::from(([127, 0, 0, 77], port));
    let both = [SocketAddr::new(home, port), claimed];
    let (liar, _) =
        sys::sctp::one_to_many(&both, &sys::sctp::Settings::default(), false).expect("a socket of two addresses");
    let liar = socket2::Socket::from(liar);
    let hello = "OPTIONS sip:example.test SIP/2.0\r\nVia: SIP/2.0/SCTP 127.0.0.1;branch=z9hG4bKliar\r\nMax-Forwards: 70\r\n\
                 From: <sip:l@example.test>;tag=1\r\nTo: <sip:example.test>\r\nCall-ID: liar\r\nCSeq: 1 OPTIONS\r\n\
                 Content-Length: 0\r\n\r\n";
    liar.send_to(hello.as_bytes(), &setup.address(Transport::Sctp).into()).expect("OPTIONS is sent");
    let known = wait_for(patience(5), || (daemon.counter("associations_up") == 1).then_some(()));
    assert!(known.is_some(), "no association");

    let phone = Peer::connect(Transport::Udp, setup.address(Transport::Udp)).expect("a phone");
    let contact = format!("Contact: <sip:v@{claimed};transport=sctp>\r\n");
    phone.send(phone.request_with("REGISTER", "v", "reg-v", &contact, "").as_bytes()).expect("REGISTER is sent");
    assert!(phone.receive_starting("SIP/2.0 200", patience(3)).is_some(), "no 200");
    let heard = |limit: Duration| {
        wait_for(limit, || {
            let mut bytes = [0; 4096];
            std::thread::sleep(Duration::from_millis(20));
            let read = (&liar).read(&mut bytes).ok()?;
            bytes[..read].starts_with(b"MESSAGE").then_some(())
        })
    };
    for (id, wait) in [("early", Duration::ZERO), ("late", Duration::from_secs(6))] {
        std::thread::sleep(wait);
        phone.send(phone.request("MESSAGE", "v", id).as_bytes()).expect("MESSAGE is sent");
        assert!(heard(Duration::from_secs(2)).is_none(), "who only claims an address got its owner's request ({id})");
    }
    assert!(daemon.counter("claimed_address") >= 1);
    daemon.stop();
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
