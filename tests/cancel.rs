//! Calls that are given up while they ring: CANCEL through the proxy, over every pair of transports (RFC 3261 §9, §16.10),
//! and the branches of a fork that are given up because another one answered (§16.7, step 10).

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::{Running, Scenario, Sipp, names, register};
use support::{Room, left_to_the_host, patience, say, slow, tally_sctp, transports};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CALLS: u64 = 100;

/// A callee that ends by itself after `CALLS` calls and then says how they went.
fn callee(room: &Room, setup: &Setup, scenario: Scenario, transport: Transport) -> (SocketAddr, Running) {
    let address = support::free_port(HOME);
    let sipp = Sipp::new(scenario, transport, setup.address(transport)).from(address).calls(CALLS);
    (address, sipp.limit(patience(90)).start(room))
}

fn caller(setup: &Setup, scenario: Scenario, transport: Transport, phones: &[String]) -> Sipp {
    Sipp::new(scenario, transport, setup.address(transport))
        .users(phones)
        .calls(CALLS)
        .rate(if slow() > 1 { 30 } else { 100 })
        .at_once(if slow() > 1 { 60 } else { 30 })
}

/// The caller gets 200 to its CANCEL and 487 to its INVITE, the callee CANCEL and ACK: all in the scenarios, so that a
/// call in which one is missing fails.
#[test]
fn a_call_given_up_ends_with_487_over_every_pair_of_transports() {
    let room = Room::new("cancel");
    let setup = Setup::on(HOME, &transports());
    let daemon = Daemon::start(&room, &setup);
    for from in transports() {
        for to in transports() {
            let (contact, ringing) = callee(&room, &setup, Scenario::RingingCallee, to);
            let phones = names(&format!("{}-{}-", from.uri_token(), to.uri_token()), 5);
            register(&room, (to, setup.address(to)), &phones, contact, to);
            let gave_up = caller(&setup, Scenario::CancellingCaller, from, &phones).start(&room).finish();
            let was_given_up = ringing.finish();
            say(&format!("{} to {}: {gave_up}; callee: {was_given_up}", from.uri_token(), to.uri_token()));
            gave_up.must_be_whole(CALLS);
            was_given_up.must_be_whole(CALLS);
            if [from, to].contains(&Transport::Sctp) {
                tally_sctp(CALLS);
            }
        }
    }
    assert_eq!(counter(&daemon.status(), "timed_out"), 0);
    daemon.stop();
}

/// The same by hand, because SIPp does not speak SCTP in user space: to and from each transport, and forked to it and each.
#[test]
fn calls_are_cancelled_over_sctp_in_user_space() {
    if left_to_the_host("CANCEL over SCTP in user space") {
        return;
    }
    let room = Room::new("cancel-user-space");
    let setup = Setup::in_user_space(HOME, &Transport::ALL);
    let daemon = Daemon::start(&room, &setup);
    let (udp, tcp, sctp) = (Transport::Udp, Transport::Tcp, Transport::Sctp);
    for (from, to) in [(sctp, udp), (sctp, tcp), (sctp, sctp), (udp, sctp), (tcp, sctp)] {
        let [caller, callee] = [from, to].map(|transport| setup.peer(transport).expect("a peer"));
        let id = format!("{}-{}", from.uri_token(), to.uri_token());
        let hear = |peer, start| hear(peer, start, &id);
        callee.register(&id);
        let invite = caller.request_with("INVITE", &id, &id, &format!("Contact: <sip:a@{}>\r\n", caller.local), "");
        let as_method = |method: &str| invite.replacen("INVITE", method, 1).replace("1 INVITE", &format!("1 {method}"));
        caller.send(invite.as_bytes()).expect("INVITE is sent");
        hear(&caller, "SIP/2.0 100");
        let arrived = hear(&callee, "INVITE");
        callee.send(callee.answer(&arrived, "180 Ringing").as_bytes()).expect("180 is sent");
        hear(&caller, "SIP/2.0 180");
        caller.send(as_method("CANCEL").as_bytes()).expect("CANCEL is sent");
        hear(&caller, "SIP/2.0 200");
        let cancel = hear(&callee, "CANCEL");
        callee.send(callee.answer(&cancel, "200 OK").as_bytes()).expect("200 is sent");
        callee.send(callee.answer(&arrived, "487 Request Terminated").as_bytes()).expect("487 is sent");
        hear(&caller, "SIP/2.0 487");
        caller.send(as_method("ACK").as_bytes()).expect("ACK is sent");
        hear(&callee, "ACK");
    }
    // A fork: one answers, the other one is cancelled.
    for (answers, rings) in [(sctp, udp), (sctp, tcp), (sctp, sctp), (udp, sctp), (tcp, sctp)] {
        let [caller, answers, rings] = [udp, answers, rings].map(|transport| setup.peer(transport).expect("a peer"));
        let id = format!("{}-or-{}", answers.transport.uri_token(), rings.transport.uri_token());
        let hear = |peer, start| hear(peer, start, &id);
        [&answers, &rings].into_iter().for_each(|peer| peer.register(&id));
        let invite = caller.request_with("INVITE", &id, &id, &format!("Contact: <sip:a@{}>\r\n", caller.local), "");
        caller.send(invite.as_bytes()).expect("INVITE is sent");
        let [taken, ringing] = [&answers, &rings].map(|peer| hear(peer, "INVITE"));
        rings.send(rings.answer(&ringing, "180 Ringing").as_bytes()).expect("180 is sent");
        hear(&caller, "SIP/2.0 180");
        answers.send(answers.answer(&taken, "200 OK").as_bytes()).expect("200 is sent");
        hear(&caller, "SIP/2.0 200");
        let cancel = hear(&rings, "CANCEL");
        rings.send(rings.answer(&cancel, "200 OK").as_bytes()).expect("200 is sent");
        rings.send(rings.answer(&ringing, "487 Request Terminated").as_bytes()).expect("487 is sent");
        hear(&rings, "ACK");
    }
    let status = daemon.status();
    assert_eq!((counter(&status, "timed_out"), counter(&status, "associations_lost")), (0, 0));
    daemon.stop();
}

fn hear(peer: &Peer, start: &str, id: &str) -> String {
    peer.receive_starting(start, patience(3)).unwrap_or_else(|| panic!("{id}: no {start}"))
}

/// One phone number, two phones: both ring, one is answered, the other is told to stop. Over each transport for both.
#[test]
fn of_two_phones_that_ring_one_is_answered_and_the_other_cancelled() {
    let room = Room::new("fork");
    let setup = Setup::on(HOME, &transports());
    let daemon = Daemon::start(&room, &setup);
    for answered in transports() {
        for cancelled in transports() {
            let (contact, answers) = callee(&room, &setup, Scenario::Callee, answered);
            let (other, rings) = callee(&room, &setup, Scenario::RingingCallee, cancelled);
            let phones = names(&format!("{}-{}-", answered.uri_token(), cancelled.uri_token()), 5);
            register(&room, (answered, setup.address(answered)), &phones, contact, answered);
            register(&room, (cancelled, setup.address(cancelled)), &phones, other, cancelled);
            let called = caller(&setup, Scenario::Caller, Transport::Udp, &phones).start(&room).finish();
            let (answers, rings) = (answers.finish(), rings.finish());
            say(&format!(
                "{} answers, {} rings: {called}; answered: {answers}; cancelled: {rings}",
                answered.uri_token(),
                cancelled.uri_token()
            ));
            called.must_be_whole(CALLS);
            answers.must_be_whole(CALLS);
            rings.must_be_whole(CALLS);
            if [answered, cancelled].contains(&Transport::Sctp) {
                tally_sctp(CALLS);
            }
        }
    }
    assert_eq!(counter(&daemon.status(), "timed_out"), 0);
    daemon.stop();
}

/// RFC 3261 §9.1: CANCEL is a transaction of its own, which its own 200 ends (§17.1.2.2), long before the INVITE's 487.
#[test]
fn a_cancel_that_was_answered_is_not_repeated() {
    let room = Room::new("answered-cancel");
    let setup = Setup::on(HOME, &[Transport::Udp]);
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(Transport::Udp);
    let callee = Peer::connect(Transport::Udp, toward).expect("a callee");
    callee.register("slow");
    let caller = Peer::connect(Transport::Udp, toward).expect("a caller");
    let contact = format!("Contact: <sip:a@{}>\r\n", caller.local);
    let invite = caller.request_with("INVITE", "slow", "slow", &contact, "");
    caller.send(invite.as_bytes()).expect("INVITE is sent");
    let arrived = callee.receive_starting("INVITE", patience(3)).expect("the INVITE");
    callee.send(callee.answer(&arrived, "180 Ringing").as_bytes()).expect("180 is sent");
    assert!(caller.receive_starting("SIP/2.0 180", patience(3)).is_some(), "no 180");
    caller.send(invite.replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL").as_bytes()).expect("CANCEL");
    let cancel = callee.receive_starting("CANCEL", patience(3)).expect("the CANCEL");
    callee.send(callee.answer(&cancel, "200 OK").as_bytes()).expect("200 is sent");
    // Timer E would repeat it after 0.5 s and 1.5 s.
    assert_eq!(callee.receive_starting("CANCEL", Duration::from_secs(2)), None, "an answered CANCEL is repeated");
    callee.send(callee.answer(&arrived, "487 Request Terminated").as_bytes()).expect("487 is sent");
    assert!(caller.receive_starting("SIP/2.0 487", patience(3)).is_some(), "no 487");
    assert_eq!(daemon.counter("foreign_branch"), 0);
    daemon.stop();
}
