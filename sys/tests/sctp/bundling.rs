//! Many messages in one packet, and what closes a packet that MSG_MORE left open (M29).

use sys::datagram::To;
use sys::sctp::{self, AssociationState};

use super::end::{End, pair};
use crate::rig::{Test, child, joined, pause};
use crate::tests;

pub const TESTS: &[Test] = tests![
    messages_sent_with_more_travel_in_one_packet,
    a_heartbeat_on_demand_sends_what_more_left_open,
    a_plain_send_of_another_process_sends_what_a_dead_one_left_open,
    what_more_left_open_stays_until_something_else_is_owed,
    two_heartbeats_send_whatever_more_left_open,
    closing_in_good_order_sends_what_more_left_open,
    setting_up_an_association_sends_one_message_and_leaves_open_the_others,
];

/// SCTP packets that this machine sent so far.
fn packets() -> u64 {
    let snmp = std::fs::read_to_string("/proc/net/sctp/snmp").unwrap();
    let line = snmp.lines().find(|l| l.starts_with("SctpOutSCTPPacks")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends 20 messages and reads them; returns how many packets that took in both directions.
fn cost_of_twenty(more: bool) -> u64 {
    let (mut a, mut z, at_a, _) = pair();
    pause(500); // what was owed has been acknowledged
    let before = packets();
    let message: &[u8] = &[b'x'; 600];
    a.send_all(To::Association(at_a), more, &[message; 19]);
    a.send_all(To::Association(at_a), false, &[message]);
    for _ in 0..20 {
        assert_eq!(z.message().1, message);
    }
    pause(500);
    packets() - before
}

fn messages_sent_with_more_travel_in_one_packet() {
    let (alone, together) = (cost_of_twenty(false), cost_of_twenty(true));
    println!(
        "20 messages of 600 bytes: {alone} packets one by one, {together} with MSG_MORE, acknowledgements included"
    );
    // Two fit an Ethernet packet (seen: 30 and 17), all fit one of loopback (30 and 5).
    assert!(alone >= 20 && together * 3 <= alone * 2, "{alone} packets alone, {together} together");
}

fn left_open() -> (End, End, u32, u32) {
    let (mut a, mut z, at_a, at_z) = pair();
    pause(500);
    a.send_all(To::Association(at_a), true, &[b"one", b"two"]);
    assert!(z.message_within(300).is_none(), "MSG_MORE holds it back");
    (a, z, at_a, at_z)
}

fn a_heartbeat_on_demand_sends_what_more_left_open() {
    let (a, mut z, at_a, _) = left_open();
    sctp::heartbeat_now(a.fd(), at_a).unwrap();
    assert_eq!(z.message_within(1000).expect("the heartbeat flushed nothing").1, b"one");
    assert_eq!(z.message_within(1000).unwrap().1, b"two");
}

fn a_plain_send_of_another_process_sends_what_a_dead_one_left_open() {
    let (mut a, mut z, at_a, _) = pair();
    pause(500);
    joined(child(|| a.send_all(To::Association(at_a), true, &[b"one", b"two"])));
    assert!(z.message_within(300).is_none());
    a.send(To::Association(at_a), b"three");
    for expected in [&b"one"[..], b"two", b"three"] {
        assert_eq!(z.message_within(1000).unwrap().1, expected);
    }
}

fn what_more_left_open_stays_until_something_else_is_owed() {
    // A packet of the peer that wants an acknowledgement (200 ms at most) takes it along.
    let (_a, mut z, _, at_z) = left_open();
    assert!(z.message_within(1500).is_none(), "nothing is owed");
    z.send(To::Association(at_z), b"wants an acknowledgement");
    assert_eq!(z.message_within(1000).expect("the acknowledgement flushed nothing").1, b"one");
}

fn setting_up_an_association_sends_one_message_and_leaves_open_the_others() {
    let (mut a, mut z) = (End::new(), End::new());
    a.send_all(To::Peer(z.address), true, &[b"one", b"two"]);
    // L05: the first rides with COOKIE ECHO.
    assert_eq!(z.message().1, b"one");
    assert!(z.message_within(1000).is_none(), "MSG_MORE holds back the rest");
    a.send(To::Peer(z.address), b"three");
    assert_eq!(z.message().1, b"two");
    assert_eq!(z.message().1, b"three");
}

/// Opens with `n` messages, then asks for heartbeats until all are there. Returns how many came by themselves, and
/// after each heartbeat.
fn arrivals(n: usize, bytes: usize) -> Vec<usize> {
    let (mut a, mut z, at_a, _) = pair();
    pause(500);
    a.send_all(To::Association(at_a), true, &vec![&vec![b'x'; bytes][..]; n]);
    let mut arrivals = Vec::new();
    loop {
        let mut arrived = 0;
        while z.message_within(300).is_some() {
            arrived += 1;
        }
        arrivals.push(arrived);
        if arrivals.iter().sum::<usize>() == n {
            return arrivals;
        }
        assert!(arrivals.len() < 5, "{n} messages: {arrivals:?}");
        sctp::heartbeat_now(a.fd(), at_a).unwrap();
    }
}

fn two_heartbeats_send_whatever_more_left_open() {
    // From far less than a packet (65,536 bytes on loopback, or 1500) to more than one; the two in the middle fill a packet so well
    // that the heartbeat finds no room beside them.
    for (n, bytes) in [(1, 1000), (30, 1000), (2, 600), (4, 340), (64, 1006), (66, 1000), (100, 1000)] {
        let arrivals = arrivals(n, bytes);
        println!("{n} messages of {bytes} bytes: {arrivals:?}");
        assert!(arrivals.len() <= 3);
    }
}

fn closing_in_good_order_sends_what_more_left_open() {
    let (mut a, mut z, at_a, _) = left_open();
    sctp::shutdown(a.fd(), at_a).unwrap();
    assert_eq!(z.message_within(1000).expect("left behind").1, b"one");
    assert_eq!(z.message_within(1000).expect("left behind").1, b"two");
    a.changed(AssociationState::ShutdownComplete);
}
