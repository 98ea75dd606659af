//! An association of two paths, of which one is cut while calls go on (A27): two namespaces, two cables between them. Only in the
//! virtual machine, because it makes network devices.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, patience, say, tally_sctp, wait_for};

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

/// (address, state) of each path of the one association.
fn paths(daemon: &Daemon) -> Vec<(String, String)> {
    let status = daemon.status();
    let flows = status["flows"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let association = flows.iter().find(|flow| flow["transport"] == "sctp").map(|flow| flow["association"].clone());
    let paths = association.and_then(|association| association["paths"].as_array().cloned()).unwrap_or_default();
    paths.iter().map(|path| (text(&path["address"]), text(&path["state"]))).collect()
}

#[test]
fn calls_go_on_while_one_path_is_cut() {
    if std::env::var_os("IN_VM").is_none() {
        say("multi-homing: makes network devices, so only in the virtual machine");
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
    std::thread::sleep(Duration::from_secs(5));
    cables.cut(1);
    let down = wait_for(patience(5), || (counter(&daemon.status(), "paths_down") > 0).then_some(()));
    assert!(down.is_some(), "no path went down: {:?}", paths(&daemon));
    say(&format!("one path is cut: {:?}", paths(&daemon)));
    assert!(paths(&daemon).contains(&("10.1.0.2:5090".to_owned(), "inactive".to_owned())));
    cables.mend(1);
    let up = wait_for(patience(10), || (counter(&daemon.status(), "paths_up") > 0).then_some(()));
    assert!(up.is_some(), "the path does not come up again: {:?}", paths(&daemon));
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
