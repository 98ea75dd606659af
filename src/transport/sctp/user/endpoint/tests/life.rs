//! An association from its set-up to its end, between peers that mean well.

use super::*;

#[test]
fn messages_leave_on_the_stream_and_in_the_order_that_is_asked_for() {
    let (mut wire, _) = Wire::pair();
    let asked = How { stream: 3, unordered: false, lifetime: None };
    for (how, wanted) in [(How::default(), (0, true)), (asked, (3, false))] {
        wire.hosts[0].endpoint.how = how;
        wire.send(0, 1, vec![b"x".to_vec()]);
        // Behind the common header DATA: type 0, flags (4: unordered), length, TSN, stream.
        let data = wire.hosts[0].endpoint.packets.iter().map(|(_, bytes)| &bytes[12..]).find(|chunk| chunk[0] == 0);
        let data = data.expect("DATA");
        assert_eq!((u16::from_be_bytes([data[8], data[9]]), data[1] & 4 != 0), wanted);
        wire.settle();
    }
    assert_eq!(wire.hosts[1].messages().len(), 2);
}

// 1. Demultiplexing.

#[test]
fn associations_of_one_host_are_told_apart_by_their_ports() {
    let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, 5070), Host::new(3, 5080)]);
    // Both behind one address, as two programs of one machine are; each has a UDP port of its own.
    wire.hosts[1].udp = address(9, 10_001);
    wire.hosts[2].udp = address(9, 10_002);
    wire.connect(1, 0).expect("one");
    wire.connect(2, 0).expect("the other");
    wire.settle();
    assert_eq!(wire.hosts[0].endpoint.len(), 2);
    wire.send(1, 0, vec![b"one".to_vec()]);
    wire.settle();
    for (port, text) in [(5070, "to one"), (5080, "to the other")] {
        let tag = wire.hosts[0].endpoint.to(Address::new(address(9, 0).ip(), port)).expect("known by its port");
        wire.hosts[0].endpoint.send(tag, vec![text.as_bytes().to_vec()], wire.now).expect("it lives");
    }
    wire.settle();
    assert_eq!(wire.hosts[1].messages(), [b"to one"]);
    assert_eq!(wire.hosts[2].messages(), [b"to the other"]);
}

/// RFC 6951 §5.4: the port is learnt from what comes, but only with the right tag.
#[test]
fn a_peer_that_moves_is_followed_and_a_stranger_is_not() {
    let (mut wire, _) = Wire::pair();
    wire.hosts[0].udp = address(1, 40_000);
    wire.send(0, 1, vec![b"from a new port".to_vec()]);
    wire.settle();
    wire.send(1, 0, vec![b"to the new port".to_vec()]);
    wire.settle();
    assert_eq!(wire.hosts[0].messages(), [b"to the new port"]);
    // The same packet under another tag, from elsewhere.
    let data = wire.crossed.iter().rev().find(|(_, to, _)| *to == wire.hosts[1].udp).expect("a packet").2.clone();
    let mut forged = data;
    forged[4] ^= 1;
    packet::mend(&mut forged);
    wire.hosts[1].endpoint.receive(address(66, 666), &forged, wire.now);
    wire.hosts[1].endpoint.packets.clear();
    wire.send(1, 0, vec![b"still there".to_vec()]);
    wire.settle();
    assert_eq!(wire.hosts[0].messages().len(), 2);
}

// 6. A dead peer is known in time.

#[test]
fn a_peer_that_never_answers_is_lost_within_fifteen_seconds() {
    let mut wire = Wire::new(vec![Host::new(1, SIP)]);
    let peer = Address::new(address(2, 0).ip(), SIP);
    let tag = wire.hosts[0].endpoint.connect(peer, address(2, 9899), wire.now).expect("a tag");
    wire.pass(15_000);
    assert_eq!(wire.hosts[0].seen, [Event::Lost { tag, peer }]);
    assert!(wire.hosts[0].endpoint.is_empty());
}

#[test]
fn a_peer_that_falls_silent_is_lost_within_fifteen_seconds_of_data() {
    let (mut wire, tag) = Wire::pair();
    wire.hosts.truncate(1);
    let peer = Address::new(address(2, 0).ip(), SIP);
    wire.hosts[0].endpoint.send(tag, vec![b"anybody there?".to_vec()], wire.now).expect("it lives");
    wire.pass(15_000);
    assert_eq!(wire.hosts[0].seen.last(), Some(&Event::Lost { tag, peer }));
}

// 7. The clock: `Wire` begins late, so every test would see timers of long ago. 8. The order of events.

#[test]
fn an_association_is_up_before_its_first_message() {
    let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
    wire.connect(0, 1).expect("an association");
    wire.send(0, 1, vec![b"with the COOKIE ECHO".to_vec()]);
    wire.settle();
    let seen = &wire.hosts[1].seen;
    assert!(matches!(seen[..], [Event::Up { .. }, Event::Message { .. }]), "{seen:?}");
}

#[test]
fn a_restart_is_told_once_and_the_association_goes_on() {
    let (mut wire, _) = Wire::pair();
    wire.hosts[0] = Host::new(1, SIP);
    let tag = wire.connect(0, 1).expect("again");
    wire.send(0, 1, vec![b"after".to_vec()]);
    wire.settle();
    let seen = &wire.hosts[1].seen[1..];
    let [Event::Restarted { was, tag: now }, Event::Message { tag: of, .. }] = seen else { panic!("{seen:?}") };
    assert!(was != now && now == of && wire.hosts[1].endpoint.len() == 1);
    wire.send(1, 0, vec![b"back".to_vec()]);
    wire.settle();
    assert_eq!(wire.hosts[0].messages(), [b"back"]);
    assert_eq!(
        wire.hosts[0].count(|event| *event == Event::Up { tag, peer: Address::new(address(2, 0).ip(), SIP) }),
        1
    );
}

/// RFC 9260 §5.2.4, case A: their loss was told, so nobody may get them any more.
#[test]
fn what_waits_when_the_peer_restarts_does_not_come_to_it() {
    let (mut wire, _) = Wire::pair();
    wire.loss = 100;
    // More than the window takes at once: some is under way, one message is half sent, the others wait.
    assert!(wire.send(1, 0, numbered(20, 10_000)).is_empty());
    wire.pass(500);
    wire.hosts[0] = Host::new(1, SIP);
    wire.loss = 0;
    wire.connect(0, 1).expect("again");
    wire.send(0, 1, vec![b"after".to_vec()]);
    wire.pass(10_000);
    assert_eq!((wire.hosts[0].messages().len(), wire.hosts[1].messages()), (0, vec![b"after".to_vec()]));
    assert_eq!(wire.hosts[1].count(|event| matches!(event, Event::Restarted { .. })), 1);
    let tag = wire.hosts[1].endpoint.to(wire.hosts[0].peer(SIP)).expect("it goes on");
    assert_eq!(wire.hosts[1].endpoint.queued(tag), 0);
    // In both directions, and to its end.
    wire.send(1, 0, numbered(3, 10_000));
    wire.pass(1_000);
    assert_eq!(sorted(wire.hosts[0].messages()), numbered(3, 10_000));
    wire.hosts[1].endpoint.shut_down(tag, wire.now);
    wire.pass(1_000);
    assert!(wire.hosts.iter().all(|host| host.endpoint.is_empty()));
}

/// RFC 9260 §5.2.1.
#[test]
fn two_that_begin_at_once_have_one_association() {
    let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
    wire.connect(0, 1).expect("one");
    wire.connect(1, 0).expect("the other");
    wire.send(0, 1, vec![b"from one".to_vec()]);
    wire.send(1, 0, vec![b"from the other".to_vec()]);
    wire.pass(5_000);
    for (host, text) in [(0, &b"from the other"[..]), (1, b"from one")] {
        assert_eq!(wire.hosts[host].endpoint.len(), 1);
        assert_eq!(wire.hosts[host].count(|event| matches!(event, Event::Up { .. })), 1, "{:?}", wire.hosts[host].seen);
        assert_eq!(wire.hosts[host].messages(), [text]);
    }
}

// The rest of an association's life.

#[test]
fn either_end_can_shut_down_or_abort() {
    for end in [0, 1] {
        for in_order in [true, false] {
            let (mut wire, _) = Wire::pair();
            let other = 1 - end;
            let tag = wire.hosts[end].endpoint.to(wire.hosts[other].peer(SIP)).expect("an association");
            let now = wire.now;
            if in_order {
                wire.hosts[end].endpoint.shut_down(tag, now);
            } else {
                wire.hosts[end].endpoint.abort(tag, now);
            }
            wire.settle();
            assert!(wire.hosts.iter().all(|host| host.endpoint.is_empty()));
            let last = wire.hosts[other].seen.last();
            assert!(matches!((in_order, last), (true, Some(Event::Closed { .. })) | (false, Some(Event::Lost { .. }))));
            assert_eq!(wire.hosts[end].count(|event| matches!(event, Event::Closed { .. })), usize::from(in_order));
        }
    }
}

/// Every DATA is answered with SHUTDOWN, and T2 begins anew (§9.2): T5 ends it.
#[test]
fn a_peer_that_goes_on_sending_does_not_keep_a_shutdown_open() {
    let (mut wire, _) = Wire::pair();
    let peer = wire.hosts[0].peer(SIP);
    let tag = wire.hosts[1].endpoint.to(peer).expect("an association");
    wire.hosts[1].endpoint.shut_down(tag, wire.now);
    for n in 0..19 {
        let chunks = [data(&wire, n, 0)];
        assert_eq!(ask(&mut wire, &chunks).1, 0);
        wire.now = wire.now + 500;
        wire.hosts[1].endpoint.tick(wire.now);
        assert_eq!(wire.hosts[1].endpoint.len(), 1, "after {n} packets");
    }
    wire.now = wire.now + 500;
    wire.hosts[1].endpoint.tick(wire.now);
    assert!(wire.hosts[1].endpoint.is_empty());
    assert_eq!(wire.hosts[1].endpoint.events.back(), Some(&Event::Lost { tag, peer }));
    let (_, last) = wire.hosts[1].endpoint.packets.last().expect("ABORT");
    assert!(Packet::read(last).is_some_and(|packet| packet.has(packet::ABORT)));
}

#[test]
fn an_idle_association_is_shut_down() {
    let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
    wire.hosts[0].endpoint.idle_ms = 200_000;
    wire.connect(0, 1).expect("an association");
    wire.pass(150_000);
    wire.send(0, 1, vec![b"not idle".to_vec()]);
    wire.pass(199_000);
    assert_eq!(wire.hosts[0].endpoint.len(), 1);
    wire.pass(2_000);
    assert_eq!(wire.hosts[0].endpoint.len(), 0);
    assert!(matches!(wire.hosts[1].seen.last(), Some(Event::Closed { .. })));
}

/// The successor of a dead process has no association, only the tag that it noted.
#[test]
fn an_association_can_be_ended_by_who_knows_its_tag() {
    let (mut wire, tag) = Wire::pair();
    let abort = abort_packet(SIP, SIP, tag);
    wire.hosts[1].endpoint.receive(address(1, 9899), &abort, wire.now);
    assert!(matches!(wire.hosts[1].endpoint.events.pop_front(), Some(Event::Lost { .. })));
}

#[test]
fn nothing_is_lost_where_much_is_lost() {
    for seed in 0..20 {
        let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
        (wire.loss, wire.random) = (6, fastrand::Rng::with_seed(seed));
        wire.connect(0, 1).expect("an association");
        for turn in 0..50 {
            let batch = (0..10).map(|n| format!("{:>700}", turn * 10 + n).into_bytes()).collect();
            assert!(wire.send(0, 1, batch).is_empty());
            wire.pass(200);
        }
        wire.pass(20_000);
        assert_eq!(sorted(wire.hosts[1].messages()), numbered(500, 700), "seed {seed}");
        assert_eq!(wire.hosts[1].count(|event| matches!(event, Event::Up { .. })), 1);
    }
}
