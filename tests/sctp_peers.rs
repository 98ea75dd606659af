//! SIPp as an RFC 4168 peer in each of its ways to use SCTP: one association for all calls (`-t s1`), an association per call
//! (`-t sn`), and associations of two addresses each (`-multihome`). Kamailio, the other peer of its own kind, is in kamailio.rs.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::Daemon;
use support::proxy::Setup;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, free_port, left_to_the_vm, patience, say, slow, tally_sctp, wait_for};

const CALLS: u64 = 1_000;
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A daemon and a callee of which phones are registered. The daemon listens on two addresses, so that two-homed peers have two paths.
struct House {
    room: Room,
    daemon: Daemon,
    toward: SocketAddr,
}

impl House {
    fn new(name: &str) -> Option<House> {
        if left_to_the_vm(name) {
            return None;
        }
        let room = Room::new(name);
        let first = free_port(HOME);
        let listen = vec![(Transport::Sctp, vec![first, SocketAddr::new(SECOND, first.port())])];
        let daemon = Daemon::start(&room, &Setup { listen, ..Setup::default() });
        Some(House { room, daemon, toward: first })
    }

    /// 1,000 calls, caller and callee as `each` makes them. `meanwhile` runs while calls go on. Answers how many associations
    /// came up for the calls.
    fn call(&self, each: impl Fn(Sipp) -> Sipp, meanwhile: impl FnOnce(&Daemon, [SocketAddr; 2])) -> u64 {
        let limit = patience(60);
        let sipp = |scenario| each(Sipp::new(scenario, Transport::Sctp, self.toward)).limit(limit);
        let callee = sipp(Scenario::Callee).start(&self.room);
        let phones = names("p", 10);
        register(&self.room, (Transport::Sctp, self.toward), &phones, callee.local, Transport::Sctp);
        let before = self.daemon.counter("associations_up");
        let (rate, at_once) = if slow() > 1 { (150, 60) } else { (150, 50) };
        let caller = sipp(Scenario::Caller).users(&phones).calls(CALLS).rate(rate).at_once(at_once).start(&self.room);
        meanwhile(&self.daemon, [caller.local, callee.local]);
        let report = caller.finish();
        say(&report.to_string());
        report.must_be_whole(CALLS);
        tally_sctp(CALLS);
        let associations = self.daemon.counter("associations_up") - before;
        say(&format!("{associations} associations"));
        associations
    }

    fn end(self) {
        let lost = ["associations_lost", "association_failed", "associations_refused", "send_failed"];
        let lost = lost.map(|name| self.daemon.counter(name));
        assert_eq!(lost, [0; 4], "associations lost, failed, refused; messages not sent");
        self.daemon.stop();
    }
}

#[test]
fn a_thousand_calls_share_one_association() {
    let Some(house) = House::new("one association") else { return };
    // The caller's, and ours to the callee.
    assert_eq!(house.call(|sipp| sipp, |_, _| ()), 2);
    house.end();
}

#[test]
fn a_thousand_calls_have_an_association_each() {
    let Some(house) = House::new("an association per call") else { return };
    assert_eq!(house.call(Sipp::socket_per_call, |_, _| ()), CALLS + 1);
    house.end();
}

/// Both paths of the associations with these peers, as `status --json` tells them: (address, state).
fn paths(daemon: &Daemon, peer: SocketAddr) -> Vec<(String, String)> {
    let status = daemon.status_by_command().unwrap_or_default();
    let flows = status["flows"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = flows.iter().map(|flow| flow["association"]["paths"].as_array().cloned().unwrap_or_default());
    let mut all = all.map(|paths| paths.iter().map(|path| (text(&path["address"]), text(&path["state"]))).collect());
    let its_own = |paths: &Vec<(String, String)>| paths.iter().any(|path| path.0 == peer.to_string());
    let mut found: Vec<_> = all.find(its_own).unwrap_or_default();
    found.sort();
    found
}

#[test]
fn a_thousand_calls_have_two_homed_peers_at_both_ends() {
    let Some(house) = House::new("two-homed") else { return };
    let meanwhile = |daemon: &Daemon, peers: [SocketAddr; 2]| {
        for peer in peers {
            let homes = [HOME, SECOND].map(|ip| (SocketAddr::new(ip, peer.port()).to_string(), "active".to_owned()));
            let both = wait_for(patience(5), || (paths(daemon, peer) == homes).then_some(()));
            assert!(both.is_some(), "not two paths to {peer}: {:?}", paths(daemon, peer));
        }
    };
    assert_eq!(house.call(|sipp| sipp.multihome(SECOND), meanwhile), 2);
    house.end();
}
