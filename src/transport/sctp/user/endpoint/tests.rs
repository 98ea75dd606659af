//! Two endpoints and a wire between them that may lose, repeat and reorder; the facts that the protocol crate leaves to us.

use std::net::SocketAddr;
use std::time::Duration;

use dcsctp::api::Options;

use super::packet::{self, Packet};
use super::{Endpoint, Event, How, TAG_MARK, bounds};
use crate::timer::Tick;
use crate::transport::Address;

const KEY: [u8; 32] = [7; 32];
const SIP: u16 = 5060;

fn options(port: u16) -> Options {
    Options {
        local_port: port,
        mtu: 1452,
        max_message_size: 65_536,
        max_receiver_window_buffer_size: 1 << 18,
        max_send_buffer_size: 1 << 18,
        per_stream_send_queue_limit: 1 << 18,
        rto_initial: Duration::from_secs(1),
        rto_max: Duration::from_secs(2),
        max_timer_backoff_duration: Some(Duration::from_secs(2)),
        max_retransmissions: Some(5),
        max_init_retransmits: Some(2),
        announced_maximum_incoming_streams: 128,
        announced_maximum_outgoing_streams: 16,
        ..Options::default()
    }
}

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

/// One host: an endpoint and its UDP address.
struct Host {
    endpoint: Endpoint,
    udp: SocketAddr,
    seen: Vec<Event>,
}

impl Host {
    fn new(last: u8, port: u16) -> Host {
        Host { endpoint: Endpoint::new(options(port), &KEY, u64::MAX), udp: address(last, 9899), seen: Vec::new() }
    }

    fn peer(&self, port: u16) -> Address {
        Address::new(self.udp.ip(), port)
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        let bytes = |event: &Event| if let Event::Message { bytes, .. } = event { Some(bytes.clone()) } else { None };
        self.seen.iter().filter_map(bytes).collect()
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|event| wanted(event)).count()
    }
}

/// Hosts, the time, and what befalls packets between them.
struct Wire {
    hosts: Vec<Host>,
    now: Tick,
    /// Of 100 packets so many are lost; a third as many come twice, and as many late.
    loss: u32,
    late: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    random: fastrand::Rng,
    crossed: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Wire {
    fn new(hosts: Vec<Host>) -> Wire {
        // Late in the machine's life: an association's own time begins with it.
        let now = Tick(1_000_000_000);
        Wire { hosts, now, loss: 0, late: Vec::new(), random: fastrand::Rng::with_seed(1), crossed: Vec::new() }
    }

    /// Two hosts, SIP's port on both, and an association that the first has begun: its tag.
    fn pair() -> (Wire, u32) {
        let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
        let tag = wire.connect(0, 1).expect("an association");
        wire.settle();
        assert_eq!(wire.hosts[1].count(|event| matches!(event, Event::Up { .. })), 1);
        (wire, tag)
    }

    fn connect(&mut self, from: usize, to: usize) -> Option<u32> {
        let (peer, remote) = (self.hosts[to].peer(SIP), self.hosts[to].udp);
        self.hosts[from].endpoint.connect(peer, remote, self.now)
    }

    fn send(&mut self, from: usize, to: usize, messages: Vec<Vec<u8>>) -> Vec<usize> {
        let tag = self.hosts[from]
            .endpoint
            .to(self.hosts[to].peer(SIP))
            .unwrap_or_else(|| panic!("no association: {:?} {:?}", self.hosts[0].seen, self.hosts[1].seen.last()));
        self.hosts[from].endpoint.send(tag, messages, self.now).expect("a live association")
    }

    /// Carries packets until none is under way; true: something moved.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        loop {
            let mut under_way = std::mem::take(&mut self.late);
            for host in &mut self.hosts {
                under_way.extend(host.endpoint.packets.drain(..).map(|(to, bytes)| (host.udp, to, bytes)));
            }
            if under_way.is_empty() {
                break;
            }
            moved = true;
            for (from, to, bytes) in under_way {
                let fate = if self.loss == 0 { 100 } else { self.random.u32(0..100) };
                if fate < self.loss {
                    continue;
                }
                if fate < self.loss + self.loss.div_ceil(3) {
                    self.late.push((from, to, bytes.clone()));
                }
                if fate >= 100 - self.loss && self.loss != 0 {
                    self.late.push((from, to, bytes));
                    continue;
                }
                self.crossed.push((from, to, bytes.clone()));
                if let Some(host) = self.hosts.iter_mut().find(|host| host.udp == to) {
                    host.endpoint.receive(from, &bytes, self.now);
                }
            }
            for host in &mut self.hosts {
                host.seen.extend(host.endpoint.events.drain(..));
            }
        }
        moved
    }

    /// What needs no time.
    fn settle(&mut self) {
        while self.carry() {}
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        loop {
            self.settle();
            let next = self.hosts.iter().map(|host| host.endpoint.next_tick()).min().unwrap_or(Tick::NEVER);
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            for host in &mut self.hosts {
                host.endpoint.tick(self.now);
                host.seen.extend(host.endpoint.events.drain(..));
            }
        }
        self.now = end;
    }
}

fn numbered(count: u32, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("{n:>bytes$}").into_bytes()).collect()
}

fn sorted(mut messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    messages.sort();
    messages
}

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

/// An INIT as a peer at `port` writes it.
fn init(port: u16) -> Vec<u8> {
    let mut stranger = Endpoint::new(options(port), &KEY, u64::MAX);
    stranger.connect(Address::new(address(1, 0).ip(), SIP), address(1, 9899), Tick(0)).expect("an INIT");
    stranger.packets.remove(0).1
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

// 2. Stateless INIT.

#[test]
fn ten_thousand_inits_leave_nothing() {
    let mut host = Host::new(1, SIP);
    let template = init(5070);
    for n in 0..10_000_u32 {
        let mut bytes = template.clone();
        bytes[16..20].copy_from_slice(&(n + 1).to_be_bytes());
        packet::mend(&mut bytes);
        host.endpoint.receive(SocketAddr::from(([198, 51, (n >> 8) as u8, n as u8], 9899)), &bytes, Tick(u64::from(n)));
        assert_eq!(host.endpoint.packets.len(), 1, "one INIT ACK");
        host.endpoint.packets.clear();
    }
    assert!(host.endpoint.is_empty() && host.endpoint.events.is_empty());
    assert_eq!(host.endpoint.next_tick(), Tick::NEVER);
}

// 3. Sealed cookies.

/// An endpoint, its peer's COOKIE ECHO, and where that came from.
fn cookie_echo() -> (Wire, SocketAddr, Vec<u8>) {
    let (wire, _) = Wire::pair();
    let is_echo = |bytes: &[u8]| Packet::read(bytes).is_some_and(|p| p.has(packet::COOKIE_ECHO));
    let (from, _, bytes) = wire.crossed.iter().find(|(_, _, bytes)| is_echo(bytes)).expect("a COOKIE ECHO").clone();
    // As if it had never come: the other end with the same key and no memory.
    let mut fresh = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
    fresh.now = wire.now;
    (fresh, from, bytes)
}

#[test]
fn a_cookie_is_taken_from_who_got_it_and_from_nobody_else() {
    let (mut wire, from, bytes) = cookie_echo();
    wire.hosts[1].endpoint.receive(address(66, 9899), &bytes, wire.now);
    assert_eq!((wire.hosts[1].endpoint.len(), wire.hosts[1].endpoint.counts.forged_cookies), (0, 1));
    wire.hosts[1].endpoint.receive(from, &bytes, wire.now);
    assert_eq!(wire.hosts[1].endpoint.len(), 1);
}

#[test]
fn no_byte_of_a_cookie_can_be_changed() {
    let (mut wire, from, bytes) = cookie_echo();
    let end = 12 + usize::from(packet::u16_at(&bytes, 14).expect("a length"));
    let tag_and_cookie: Vec<usize> = (4..8).chain(16..end).collect();
    for at in &tag_and_cookie {
        let mut forged = bytes.clone();
        forged[*at] ^= 0x10;
        packet::mend(&mut forged);
        wire.hosts[1].endpoint.receive(from, &forged, wire.now);
        assert!(wire.hosts[1].endpoint.is_empty(), "byte {at}");
    }
    assert_eq!(wire.hosts[1].endpoint.counts.forged_cookies, tag_and_cookie.len() as u64);
}

#[test]
fn a_cookie_of_another_key_is_forged() {
    let (wire, from, bytes) = cookie_echo();
    let mut other = Endpoint::new(options(SIP), &[8; 32], u64::MAX);
    other.receive(from, &bytes, wire.now);
    assert_eq!((other.len(), other.counts.forged_cookies), (0, 1));
}

#[test]
fn a_cookie_lives_a_minute_and_then_the_peer_is_told() {
    let (mut wire, from, bytes) = cookie_echo();
    let host = &mut wire.hosts[1].endpoint;
    host.receive(from, &bytes, wire.now + 60_500);
    assert_eq!((host.len(), host.counts.stale_cookies), (0, 1));
    let (to, answer) = host.packets.remove(0);
    let answer = Packet::read(&answer).expect("a packet");
    assert!(to == from && answer.is_intact());
    let error = answer.first().expect("a chunk");
    assert_eq!(error.kind, packet::ERROR);
    // §3.3.10.3: cause 3, length 8, microseconds beyond its life.
    assert_eq!(error.value, [&[0, 3, 0, 8][..], &500_000_u32.to_be_bytes()].concat());
    host.receive(from, &bytes, wire.now + 59_000);
    assert_eq!(host.len(), 1);
}

// 4. Out of the blue (RFC 9260 §8.4).

/// What a host answers to a packet of one chunk under a tag it does not know.
fn answer_to(kind: u8, flags: u8, tag: u32, value: &[u8]) -> Option<(u8, u8, u32)> {
    let mut host = Host::new(1, SIP);
    host.endpoint.receive(address(2, 9899), &packet::build(5070, SIP, tag, kind, flags, value), Tick(5));
    assert!(host.endpoint.is_empty());
    let (_, bytes) = host.endpoint.packets.pop()?;
    let answer = Packet::read(&bytes).expect("a packet");
    assert!(answer.is_intact() && (answer.source, answer.destination) == (SIP, 5070));
    answer.first().map(|chunk| (chunk.kind, chunk.flags, answer.tag))
}

#[test]
fn what_is_out_of_the_blue_gets_what_the_rfc_says() {
    let abort = Some((packet::ABORT, packet::REFLECTED, 99));
    assert_eq!(answer_to(0, 3, 99, &[0; 16]), abort, "DATA");
    assert_eq!(answer_to(4, 0, 99, &[0; 8]), abort, "HEARTBEAT");
    assert_eq!(answer_to(packet::INIT, 0, 99, &[1; 16]), None, "an INIT under a tag");
    assert_eq!(answer_to(packet::SHUTDOWN_ACK, 0, 99, &[]), Some((packet::SHUTDOWN_COMPLETE, packet::REFLECTED, 99)));
    assert_eq!(answer_to(packet::ABORT, 0, 99, &[]), None);
    assert_eq!(answer_to(packet::SHUTDOWN_COMPLETE, 0, 99, &[]), None);
    assert_eq!(answer_to(packet::COOKIE_ACK, 0, 99, &[]), None);
    assert_eq!(answer_to(packet::ERROR, 0, 99, &[0, 3, 0, 8, 0, 0, 0, 1]), None, "stale cookie");
    assert_eq!(answer_to(packet::ERROR, 0, 99, &[0, 6, 0, 4]), abort, "another error");
    assert_eq!(answer_to(0, 3, 0, &[0; 16]), None, "tag 0 is INIT's");
}

#[test]
fn a_damaged_packet_is_counted_and_dropped() {
    let (mut wire, from, mut bytes) = cookie_echo();
    bytes[30] ^= 1;
    for damaged in [&bytes[..], &bytes[..11], b"", &[0; 12], b"INVITE sip:bob@example.test SIP/2.0\r\n\r\n"] {
        wire.hosts[1].endpoint.receive(from, damaged, wire.now);
    }
    assert_eq!(wire.hosts[1].endpoint.counts.damaged, 5);
    assert!(wire.hosts[1].endpoint.packets.is_empty());
}

// 5. Randomness.

#[test]
fn tags_do_not_follow_from_a_seed_somebody_knows() {
    let tag = || {
        fastrand::seed(1);
        let mut endpoint = Endpoint::new(options(SIP), &KEY, u64::MAX);
        endpoint.connect(Address::new(address(2, 0).ip(), SIP), address(2, 9899), Tick(0)).expect("a tag")
    };
    let (one, other) = (tag(), tag());
    assert_ne!(one, other);
    assert!(one & TAG_MARK != 0 && other & TAG_MARK != 0);
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

// 9. Limits.

#[test]
fn a_message_of_sixty_kilobytes_comes_whole() {
    let (mut wire, _) = Wire::pair();
    let messages = vec![vec![b'x'; 60_000], vec![b'y'; 20_000]];
    assert!(wire.send(0, 1, messages.clone()).is_empty());
    wire.pass(2_000);
    assert_eq!(sorted(wire.hosts[1].messages()), messages);
}

#[test]
fn what_has_no_room_is_named() {
    let (mut wire, tag) = Wire::pair();
    wire.hosts.truncate(1);
    let endpoint = &mut wire.hosts[0].endpoint;
    let failed = endpoint.send(tag, numbered(1000, 1000), wire.now).expect("it lives");
    // 256 kB wait, the window and the congestion window took some more.
    assert!((600..=750).contains(&failed.len()), "{}", failed.len());
    assert_eq!(failed.last(), Some(&999));
    assert_eq!(endpoint.send(tag, vec![vec![], vec![0; 70_000]], wire.now), Ok(vec![0, 1]), "empty, and too large");
}

#[test]
fn what_outlived_its_time_is_given_up_and_the_next_one_comes() {
    for (lifetime, comes) in [(None, 2), (Some(Duration::from_millis(300)), 1)] {
        let (mut wire, tag) = Wire::pair();
        wire.hosts[0].endpoint.how = How { lifetime, ..How::default() };
        wire.loss = 100;
        wire.send(0, 1, vec![b"late".to_vec()]);
        wire.pass(1_500);
        wire.loss = 0;
        wire.send(0, 1, vec![b"new".to_vec()]);
        wire.pass(5_000);
        let got = wire.hosts[1].messages();
        assert!(got.contains(&b"new".to_vec()) && got.len() == comes, "lifetime {lifetime:?}: {got:?}");
        // Nobody is told, and the association goes on.
        assert!(!wire.hosts[0].seen.iter().any(|event| matches!(event, Event::Lost { .. })));
        assert_eq!(wire.hosts[0].endpoint.queued(tag), 0);
    }
}

#[test]
fn messages_of_one_turn_share_packets() {
    let (mut wire, _) = Wire::pair();
    let before = wire.crossed.len();
    wire.send(0, 1, numbered(20, 100));
    let sent = wire.hosts[0].endpoint.packets.len();
    assert!(sent <= 2, "{sent} packets for 20 messages of 100 bytes");
    wire.settle();
    assert_eq!(wire.hosts[1].messages().len(), 20);
    assert!(wire.crossed.len() > before);
}

/// Gives the second host of a pair a packet of these chunks, as from the first: how many packets it answers, and how many were refused.
fn ask(wire: &mut Wire, chunks: &[Vec<u8>]) -> (usize, u64) {
    let (from, now) = (wire.hosts[0].udp, wire.now);
    let host = &mut wire.hosts[1].endpoint;
    let tag = host.to(Address::new(from.ip(), SIP)).expect("an association");
    let mut bytes = packet::build(SIP, SIP, tag, 0, 0, &[]);
    bytes.truncate(packet::HEADER);
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    packet::mend(&mut bytes);
    (host.counts, host.packets) = (super::Counts::default(), Vec::new());
    host.receive(from, &bytes, now);
    let heard: Vec<_> = host.events.drain(..).collect();
    let answer = (host.packets.len(), host.counts.damaged);
    wire.hosts[1].seen.extend(heard);
    answer
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    packet::build(0, 0, 0, kind, flags, value).split_off(packet::HEADER)
}

#[test]
fn one_packet_brings_sixteen_answers_at_most() {
    let (mut wire, _) = Wire::pair();
    let heartbeat = chunk(4, 0, &[0, 1, 0, 4]);
    let unknown = chunk(0xff, 0, &[]);
    let without_data = chunk(0, 7, &[0; 12]);
    for chunk in [heartbeat, unknown, without_data] {
        assert_eq!(
            ask(&mut wire, &vec![chunk.clone(); bounds::MOST_CONTROLS]),
            (bounds::MOST_CONTROLS, 0),
            "{chunk:?}"
        );
        assert_eq!(ask(&mut wire, &vec![chunk; bounds::MOST_CONTROLS + 1]), (0, 1));
    }
}

#[test]
fn a_packet_of_very_many_messages_is_heard() {
    let (mut wire, _) = Wire::pair();
    let chunks: Vec<_> = (0..1_000).map(|n| data(&wire, n, 0)).collect();
    assert_eq!(ask(&mut wire, &chunks).1, 0);
    assert_eq!(wire.hosts[1].messages().len(), 1_000);
}

/// The `n`th message of the first host of a pair, which has sent none: DATA, unordered and whole.
fn data(wire: &Wire, n: u32, stream: u16) -> Vec<u8> {
    // Its first TSN: of its INIT (§3.3.2).
    let init = &wire.crossed[0].2;
    let tsn = packet::u32_at(init, 28).expect("a TSN").wrapping_add(n);
    chunk(0, 7, &[&tsn.to_be_bytes()[..], &stream.to_be_bytes(), &[0; 6], b"data"].concat())
}

/// The protocol would keep something for each.
#[test]
fn streams_that_were_not_announced_are_not_heard_of() {
    let (mut wire, _) = Wire::pair();
    let announced = options(SIP).announced_maximum_incoming_streams;
    let chunks = [data(&wire, 0, announced - 1)];
    assert_eq!(ask(&mut wire, &chunks).1, 0);
    let chunks = [data(&wire, 1, 0), data(&wire, 2, announced)];
    assert_eq!(ask(&mut wire, &chunks).1, 1);
    let skipped = |kind, entry: usize, streams: &[u16]| {
        let mut value = vec![0; 4];
        for stream in streams {
            value.extend_from_slice(&stream.to_be_bytes());
            value.resize(value.len() + entry - 2, 0);
        }
        [chunk(kind, 0, &value)]
    };
    assert_eq!(ask(&mut wire, &skipped(192, 4, &[0, announced - 1])).1, 0);
    for (kind, entry) in [(192, 4), (194, 8)] {
        assert_eq!(ask(&mut wire, &skipped(kind, entry, &[0, announced])).1, 1);
    }
    assert_eq!(wire.hosts[1].messages().len(), 1);
}

#[test]
fn a_re_config_has_two_parameters_at_most() {
    let (mut wire, _) = Wire::pair();
    // Requests to reset all of our streams; each is answered in the same packet.
    let request = [0, 14, 0, 8, 0, 0, 0, 1];
    assert_eq!(ask(&mut wire, &[chunk(130, 0, &request.repeat(2))]), (1, 0));
    assert_eq!(ask(&mut wire, &[chunk(130, 0, &request.repeat(3))]), (0, 1));
    // One whose length is a lie has no end.
    assert_eq!(ask(&mut wire, &[chunk(130, 0, &[0; 64])]), (0, 1));
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
    let abort = super::abort_packet(SIP, SIP, tag);
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
