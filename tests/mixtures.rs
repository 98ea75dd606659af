//! Calls in every mixture of transports: in over one, out over another.
//! RFC 3261 §16 and §18, RFC 4168; Record-Route doubled where the transport changes (K20, K22).
//!
//! The phones are SIPp's, so SCTP is the kernel's here. The same with SCTP in user space, and phones that speak it: user_space.rs.

mod support;

use std::net::{IpAddr, SocketAddr};

use strowger::transport::Transport;
use support::proxy::{Proxy, Setup};
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, kernel, left_to_the_vm, say, slow, tally_sctp, transports};

const CALLS: u64 = 300;
/// Phones per callee.
const PHONES: u32 = 10;

/// Caller's and callee's transport.
type Mixture = (Transport, Transport);

fn every_mixture() -> Vec<Mixture> {
    let to_each = |caller| transports().into_iter().map(move |callee| (caller, callee));
    transports().into_iter().flat_map(to_each).collect()
}

/// REGISTER first, then `CALLS` calls in each of `mixtures`.
fn call_in_mixtures(room: &Room, setup: &Setup, mixtures: &[Mixture], toward: impl Fn(Transport) -> SocketAddr) {
    let ip = setup.listen[0].1[0].ip();
    let callees: Vec<_> = transports()
        .iter()
        .map(|transport| {
            let contact = support::free_port(ip);
            let callee = Sipp::new(Scenario::Callee, *transport, toward(*transport))
                .from(contact)
                .limit(support::patience(400))
                .start(room);
            let phones = names(&format!("{}-", transport.uri_token()), PHONES);
            register(room, (*transport, toward(*transport)), &phones, contact, *transport);
            (*transport, phones, callee)
        })
        .collect();
    for (caller, callee) in mixtures.iter().copied() {
        let phones = callees.iter().find_map(|(transport, phones, _)| (*transport == callee).then_some(phones));
        let report = Sipp::new(Scenario::Caller, caller, toward(caller))
            .users(phones.expect("a callee"))
            .calls(CALLS)
            .rate(if slow() > 1 { 60 } else { 150 })
            .at_once(if slow() > 1 { 60 } else { 30 })
            .start(room)
            .finish();
        say(&format!("{} to {} ({ip}): {report}", caller.uri_token(), callee.uri_token()));
        report.must_be_whole(CALLS);
        if [caller, callee].contains(&Transport::Sctp) {
            tally_sctp(CALLS);
        }
    }
}

fn every_mixture_works_on(ip: &str) {
    let ip: IpAddr = ip.parse().expect("an address");
    let room = Room::new("mixtures");
    let setup = Setup::on(ip, &transports());
    let proxy = Proxy::start(&room, &setup);
    let before = kernel::sctp_counters();
    call_in_mixtures(&room, &setup, &every_mixture(), |transport| setup.address(transport));
    if transports().contains(&Transport::Sctp) {
        // A08: SIP over SCTP goes unordered. Three mixtures have an SCTP caller, to which the proxy sends 100, 180, 200, 200
        // a call, and three an SCTP callee, which it sends INVITE, ACK, BYE. SIPp sends unordered too, so nothing is ordered.
        let after = kernel::sctp_counters();
        let unordered = kernel::grown(&before, &after, "SctpOutUnorderChunks");
        let ordered = kernel::grown(&before, &after, "SctpOutOrderChunks");
        say(&format!("{unordered} unordered and {ordered} ordered DATA chunks"));
        assert!(unordered >= 3 * CALLS * (4 + 3), "only {unordered} unordered DATA chunks");
        assert_eq!(ordered, 0, "somebody sends ordered");
    }
    proxy.stop();
}

#[test]
fn no_call_fails_in_any_mixture_over_ipv4() {
    every_mixture_works_on("127.0.0.1");
}

#[test]
fn no_call_fails_in_any_mixture_over_ipv6() {
    every_mixture_works_on("::1");
}

#[test]
fn no_call_fails_on_an_sctp_listener_of_two_addresses() {
    if left_to_the_vm("two addresses") {
        return;
    }
    let room = Room::new("two-addresses");
    let first = support::free_port(IpAddr::from([127, 0, 0, 1]));
    let second = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), first.port());
    let beside = Setup::on(IpAddr::from([127, 0, 0, 1]), &[Transport::Udp, Transport::Tcp]);
    let mut setup = Setup { listen: vec![(Transport::Sctp, vec![first, second])], ..Setup::default() };
    setup.listen.extend(beside.listen);
    let proxy = Proxy::start(&room, &setup);
    let bound = kernel::sctp_bound_addresses(first.port());
    assert!(["127.0.0.1", "127.0.0.2"].iter().all(|a| bound.iter().any(|b| b == a)), "bound to {bound:?}");
    // The second address changes nothing for those who do not call it; of mixtures without SCTP no address is new.
    let of_sctp = |(caller, callee): &Mixture| [caller, callee].contains(&&Transport::Sctp);
    let to_first: Vec<_> = every_mixture().into_iter().filter(of_sctp).collect();
    let to_second = transports().into_iter().map(|callee| (Transport::Sctp, callee)).collect();
    for (at, mixtures) in [(first, to_first), (second, to_second)] {
        say(&format!("SCTP phones call {at}"));
        let toward = |transport| if transport == Transport::Sctp { at } else { setup.address(transport) };
        call_in_mixtures(&room, &setup, &mixtures, toward);
    }
    proxy.stop();
}
