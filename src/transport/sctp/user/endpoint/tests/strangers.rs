//! Packets from whoever sends them: INITs, forged cookies, what is out of the blue.

use super::*;

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
