//! Kamailio as a neighbour: the next hop, and the previous hop. 100 calls each way over
//! every transport that this kernel has; over SCTP it is another implementation's stack use that meets ours.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use strowger::transport::Transport;
use support::kamailio::Kamailio;
use support::proxy::{Proxy, Setup};
use support::sipp::{Report, Scenario, Sipp, names, register};
use support::{Room, say, slow, tally_sctp, transports};

const CALLS: u64 = 100;
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A domain that is Kamailio's alone.
const FAR: &str = "far.test";

fn callers(room: &Room, transport: Transport, setup: &Setup, domain: &str, phones: &[String]) -> Report {
    Sipp::new(Scenario::Caller, transport, setup.address(transport))
        .domain(domain)
        .users(phones)
        .calls(CALLS)
        .rate(if slow() > 1 { 30 } else { 100 })
        .at_once(20)
        .start(room)
        .finish()
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
        let callee = Sipp::new(Scenario::Callee, transport, far.address(transport)).start(&room);
        let phones = names("k", 5);
        register(&room, (transport, far.address(transport)), &phones, callee.local, transport);
        let report = callers(&room, transport, &near, FAR, &phones);
        say(&format!("to Kamailio over {}: {report}", transport.uri_token()));
        report.must_be_whole(CALLS);
        if transport == Transport::Sctp {
            tally_sctp(CALLS);
        }
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
        let callee = Sipp::new(Scenario::Callee, transport, near.address(transport)).start(&room);
        let phones = names("p", 5);
        register(&room, (transport, near.address(transport)), &phones, callee.local, transport);
        let report = callers(&room, transport, &far, support::DOMAIN, &phones);
        say(&format!("from Kamailio over {}: {report}", transport.uri_token()));
        report.must_be_whole(CALLS);
        if transport == Transport::Sctp {
            tally_sctp(CALLS);
        }
        drop(callee);
        kamailio.stop();
        proxy.stop();
    }
}
