//! Kamailio as a neighbour: the next hop, and the previous hop, over every transport that this kernel has. Over SCTP, where another
//! program's use of the kernel's stack meets ours (RFC 4168), 1,000 calls each way; else 100.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use strowger::transport::Transport;
use support::kamailio::Kamailio;
use support::proxy::{Proxy, Setup};
use support::sipp::{Report, Scenario, Sipp, names, register};
use support::{Room, kernel, say, slow, tally_sctp, transports};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A domain that is Kamailio's alone.
const FAR: &str = "far.test";

fn calls(transport: Transport) -> u64 {
    if transport == Transport::Sctp { 1_000 } else { 100 }
}

/// The calls, none of which may fail.
fn call(room: &Room, transport: Transport, setup: &Setup, domain: &str, phones: &[String]) -> Report {
    let before = kernel::sctp_counters();
    let calls = calls(transport);
    let report = Sipp::new(Scenario::Caller, transport, setup.address(transport))
        .domain(domain)
        .users(phones)
        .calls(calls)
        .rate(100)
        .at_once(if slow() > 1 { 60 } else { 20 })
        .limit(support::patience(60))
        .start(room)
        .finish();
    report.must_be_whole(calls);
    if transport == Transport::Sctp {
        let after = kernel::sctp_counters();
        let chunks = ["SctpOutUnorderChunks", "SctpOutOrderChunks"].map(|name| kernel::grown(&before, &after, name));
        let [unordered, ordered] = chunks;
        say(&format!("{unordered} unordered and {ordered} ordered DATA chunks"));
        // Each of three hops is SCTP: INVITE, 180, 200, ACK, BYE, 200. A 100 comes only where nothing else is as early.
        assert!(unordered + ordered >= calls * 3 * 6, "some messages did not go over SCTP");
        tally_sctp(calls);
    }
    report
}

#[test]
fn calls_go_to_kamailio_as_the_next_hop() {
    for transport in transports() {
        let room = Room::new("next-hop");
        let far = Setup::on(HOME, &[transport]);
        let kamailio = Kamailio::start(&room, &far);
        let near = Setup {
            next_hop: vec![(FAR.to_owned(), transport, far.address(transport))],
            ..Setup::on(HOME, &[transport])
        };
        let proxy = Proxy::start(&room, &near);
        let callee =
            Sipp::new(Scenario::Callee, transport, far.address(transport)).limit(support::patience(80)).start(&room);
        let phones = names("k", 5);
        register(&room, (transport, far.address(transport)), &phones, callee.local, transport);
        let report = call(&room, transport, &near, FAR, &phones);
        say(&format!("to Kamailio over {}: {report}", transport.uri_token()));
        drop(callee);
        proxy.stop();
        kamailio.stop();
    }
}

#[test]
fn calls_come_from_kamailio_as_the_previous_hop() {
    for transport in transports() {
        let room = Room::new("previous-hop");
        let near = Setup::on(HOME, &[transport]);
        let proxy = Proxy::start(&room, &near);
        let far = Setup {
            next_hop: vec![(support::DOMAIN.to_owned(), transport, near.address(transport))],
            ..Setup::on(HOME, &[transport])
        };
        let kamailio = Kamailio::start(&room, &far);
        let callee =
            Sipp::new(Scenario::Callee, transport, near.address(transport)).limit(support::patience(80)).start(&room);
        let phones = names("p", 5);
        register(&room, (transport, near.address(transport)), &phones, callee.local, transport);
        let report = call(&room, transport, &far, support::DOMAIN, &phones);
        say(&format!("from Kamailio over {}: {report}", transport.uri_token()));
        drop(callee);
        kamailio.stop();
        proxy.stop();
    }
}
