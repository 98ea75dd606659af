//! TCP, symmetric, on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use strowger::shared::counters::Counter;
use strowger::shared::flows::{Claim, Limit, State};
use strowger::transport::{Happening, Sockets, Transport};

use crate::rig::{Test, child, joined, pause};
use crate::seat::{Seat, client, config, message, parts, parts_with, to, without_descriptors};
use crate::tests;

pub const TESTS: &[Test] = tests![
    messages_are_cut_across_reads_and_a_ping_is_answered,
    a_dribbled_message_arrives_and_an_unfinished_one_closes,
    lost_framing_hands_up_what_there_is_answers_and_closes,
    a_flood_of_pings_that_nobody_reads_the_answers_of_costs_no_memory,
    a_peer_that_does_not_read_is_closed_and_its_requests_fail,
    the_end_of_a_connection_without_requests_of_ours_is_no_loss,
    an_accepted_connection_is_reused_for_requests_to_its_peer,
    a_request_opens_a_connection_and_waits_for_it,
    a_refused_connection_is_lost_and_its_requests_fail,
    a_response_whose_connection_is_gone_goes_to_the_sent_by_port,
    an_idle_connection_is_closed_and_a_busy_one_is_not,
    limits_refuse_connections,
    a_full_table_of_flows_refuses_connections_and_is_counted,
    without_descriptors_connections_wait_until_there_are_some,
    another_seat_posts_to_the_owner,
    the_timer_process_asks_a_worker_to_open,
    a_dead_workers_connections_are_lost_to_its_successor,
    an_entry_with_nothing_behind_it_keeps_no_message_back,
    many_connections_are_served,
    an_ipv6_peer_is_served_and_called,
    a_taken_address_is_named_with_advice,
];

const LISTEN: &[(Transport, &str)] = &[(Transport::Tcp, "127.0.0.1:0")];

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).unwrap();
    buffer
}

fn messages_are_cut_across_reads_and_a_ping_is_answered() {
    let (mut z, at) = Seat::alone(LISTEN);
    let mut a = connect(at[0]);
    let (one, two) = (message("one", 10), message("two", 300));
    let all = [b"\r\n".as_slice(), &one, b"\r\n\r\n", &two, &one].concat();
    let (first, rest) = all.split_at(one.len() + 50);
    a.write_all(first).unwrap();
    z.until_got(1);
    pause(5);
    a.write_all(rest).unwrap();
    z.until_got(3);
    let got: Vec<_> = z.got.iter().map(|got| got.bytes.clone()).collect();
    assert_eq!(got, [one.clone(), two, one]);
    assert_eq!(read(&mut a, 2), b"\r\n");
    let from = z.got[0].from;
    z.put(from, b"response ", None);
    z.put(from, b"and another", None);
    z.flush();
    assert_eq!(read(&mut a, 20), b"response and another");
    let flow = z.parts.flows.find(from.id).unwrap();
    assert_eq!((flow.received, flow.sent, flow.state), (3, 2, State::Open));
    // A ping alone: nothing waits when it is answered.
    pause(5);
    a.write_all(b"\r\n\r\n").unwrap();
    z.until("a ping", |z| z.parts.flows.find(from.id).unwrap().last > flow.last);
    assert_eq!(read(&mut a, 2), b"\r\n");
    assert_eq!(z.parts.flows.find(from.id).unwrap().queued, 0);
    drop(a);
    z.until("the end", |z| z.count(Counter::ConnectionsClosed) == 1);
    assert!(z.parts.flows.find(from.id).is_none());
}

fn a_dribbled_message_arrives_and_an_unfinished_one_closes() {
    let (mut z, at) = Seat::alone(LISTEN);
    let mut a = connect(at[0]);
    let one = message("one", 30);
    for byte in &one {
        a.write_all(&[*byte]).unwrap();
        z.turn();
    }
    z.until_got(1);
    assert_eq!(z.got[0].bytes, one);
    // Line ends alone are no half message.
    a.write_all(b"\r\n").unwrap();
    pause(5);
    z.turn();
    z.skew += 3000;
    z.turn();
    assert_eq!(z.count(Counter::ConnectionsClosed), 0);
    a.write_all(&one[..20]).unwrap();
    pause(5);
    z.turn();
    z.skew += 1900;
    z.turn();
    assert_eq!(z.count(Counter::ConnectionsClosed), 0);
    z.skew += 200;
    z.until("closed", |z| z.count(Counter::HalfMessages) == 1);
    assert_eq!(a.read(&mut [0; 10]).unwrap_or(0), 0);
}

fn lost_framing_hands_up_what_there_is_answers_and_closes() {
    // E13.
    let (mut z, at) = Seat::alone(LISTEN);
    // A ping before it (RFC 5626 §4.4.1) has its answer first.
    for ping in ["", "\r\n\r\n"] {
        lose_framing(&mut z, connect(at[0]), ping);
    }
    assert_eq!(z.got.len(), 2);
    // An endless head, and one that only lies still.
    let mut a = connect(at[0]);
    a.write_all(&[b'x'; 70_000]).unwrap();
    z.until("lost", |z| z.count(Counter::FramingLost) == 3);
    z.skew += 5000;
    z.until("closed", |z| z.count(Counter::ConnectionsClosed) == 3);
}

/// Says what is no message behind `ping`, and reads to the end what is answered.
fn lose_framing(z: &mut Seat, mut a: TcpStream, ping: &str) {
    let (closed, lost) = (z.count(Counter::ConnectionsClosed), z.count(Counter::FramingLost));
    a.write_all(format!("{ping}OPTIONS sip:z SIP/2.0\r\nContent-Length: many\r\n\r\nand more").as_bytes()).unwrap();
    for _ in 0..20 {
        z.turn_with(|got, outgoing| {
            assert!(got.close_after);
            let begin = outgoing.begin();
            outgoing.bytes.extend_from_slice(b"SIP/2.0 400 Bad\r\n\r\n");
            outgoing.finish(begin, got.from, strowger::transport::outgoing::Body::Empty, None);
        });
    }
    let mut answer = String::new();
    a.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("{}SIP/2.0 400 Bad\r\n\r\n", &ping[..ping.len() / 2]));
    a.write_all(b"more of the same").unwrap();
    drop(a);
    z.until("closed", |z| z.count(Counter::ConnectionsClosed) == closed + 1);
    assert_eq!(z.count(Counter::FramingLost), lost + 1);
}

fn a_flood_of_pings_that_nobody_reads_the_answers_of_costs_no_memory() {
    let (mut z, at) = Seat::alone(LISTEN);
    let mut a = connect(at[0]);
    let peer = a.local_addr().unwrap().into();
    z.until("accepted", |z| z.count(Counter::ConnectionsAccepted) == 1);
    // Their answers would be half as many bytes, far more than the sockets hold.
    let flood = std::thread::spawn(move || {
        let pings = b"\r\n\r\n".repeat(16 << 10);
        (0..512).for_each(|_| a.write_all(&pings).unwrap());
        a
    });
    z.skew += 20_000;
    while !flood.is_finished() {
        z.turn();
        assert!(z.transports.queued_bytes() <= 2, "{} bytes wait", z.transports.queued_bytes());
    }
    let mut a = flood.join().unwrap();
    let flow = z.parts.flows.find_by_peer(Transport::Tcp, peer).unwrap();
    assert!(flow.last.since(flow.opened) >= 20_000, "keep-alives are no life");
    a.write_all(&message("still here", 0)).unwrap();
    z.until_got(1);
}

fn a_peer_that_does_not_read_is_closed_and_its_requests_fail() {
    let (mut z, at) = Seat::alone(LISTEN);
    let (mut stalled, mut other) = (connect(at[0]), connect(at[0]));
    stalled.write_all(&message("stalled", 0)).unwrap();
    z.until_got(1);
    other.write_all(&message("other", 0)).unwrap();
    z.until_got(2);
    let (to_stalled, to_other) = (z.got[0].from, z.got[1].from);
    for n in 1..10_000 {
        z.put(to_stalled, &message("x", 20_000), client(n));
        z.put(to_other, b"still here", None);
        z.flush();
        assert_eq!(read(&mut other, 10), b"still here");
        if z.count(Counter::Stalled) == 1 {
            break;
        }
    }
    assert_eq!((z.count(Counter::Stalled), z.lost()), (1, 1));
    let failed = z.failed();
    assert!(failed.len() > 10 && failed.len() < 20, "what waited, 256 kB: {}", failed.len());
    assert!(failed.is_sorted_by_key(|client| client.slot));
    assert!(z.parts.flows.find(to_stalled.id).is_none());
}

fn the_end_of_a_connection_without_requests_of_ours_is_no_loss() {
    let (mut z, at) = Seat::alone(LISTEN);
    let (mut asks, called) = (connect(at[0]), connect(at[0]));
    asks.write_all(&message("asks", 0)).unwrap();
    z.until_got(1);
    z.send(z.got[0].from, b"response", None);
    let called_at = called.local_addr().unwrap();
    z.send(to(Transport::Tcp, called_at), b"request", client(1));
    drop((asks, called));
    z.until("the end", |z| z.count(Counter::ConnectionsClosed) == 2);
    let lost: Vec<_> = z.happenings.iter().filter(|h| matches!(h, Happening::Lost { .. })).collect();
    assert!(matches!(lost[..], [Happening::Lost { peers, .. }] if peers[..] == [called_at.into()]), "{lost:?}");
}

fn an_accepted_connection_is_reused_for_requests_to_its_peer() {
    // A15.
    let (mut z, at) = Seat::alone(LISTEN);
    let mut a = connect(at[0]);
    a.write_all(&message("one", 0)).unwrap();
    z.until_got(1);
    z.send(to(Transport::Tcp, a.local_addr().unwrap()), b"request", client(1));
    assert_eq!(read(&mut a, 7), b"request");
    assert_eq!(z.count(Counter::ConnectionsOpened), 0);
}

fn a_request_opens_a_connection_and_waits_for_it() {
    let (mut z, _) = Seat::alone(LISTEN);
    let a = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = to(Transport::Tcp, a.local_addr().unwrap());
    z.put(hop, b"one ", client(1));
    z.flush();
    z.send(hop, b"two ", client(2));
    let (mut stream, _) = a.accept().unwrap();
    z.until("open", |z| z.count(Counter::ConnectionsOpened) == 1);
    z.send(hop, b"three", client(3));
    assert_eq!(read(&mut stream, 13), b"one two three");
    // Responses come in on it (E09).
    stream.write_all(&message("response", 5)).unwrap();
    z.until_got(1);
    assert_eq!(SocketAddr::from(z.got[0].from.peer), a.local_addr().unwrap());
    assert!(z.happenings.is_empty());
}

fn a_refused_connection_is_lost_and_its_requests_fail() {
    let (mut z, _) = Seat::alone(LISTEN);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    z.put(to(Transport::Tcp, gone), b"one", client(1));
    z.put(to(Transport::Tcp, gone), b"two", client(2));
    z.flush();
    z.until("lost", |z| z.lost() == 1);
    assert_eq!(z.failed(), [client(1), client(2)].map(Option::unwrap));
    assert!(z.happenings.iter().any(|h| matches!(h, Happening::Lost { peers, .. } if peers[..] == [gone.into()])));
    assert_eq!(z.parts.flows.live(Transport::Tcp), 0);
    // Nobody answers at all: the time-out counts.
    let deaf = sys::tcp::listen("127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
    let deaf_at = sys::local_address(&deaf).unwrap();
    let second = Duration::from_secs(1);
    let _backlog: Vec<_> = (0..8).map_while(|_| TcpStream::connect_timeout(&deaf_at, second).ok()).collect();
    z.send(to(Transport::Tcp, deaf_at), b"three", client(3));
    z.skew += 1500;
    z.until("lost", |z| z.failed().len() == 3);
}

fn a_response_whose_connection_is_gone_goes_to_the_sent_by_port() {
    // E08.
    let (mut z, at) = Seat::alone(LISTEN);
    let sent_by = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut a = connect(at[0]);
    a.write_all(&message("one", 0)).unwrap();
    z.until_got(1);
    let mut from = z.got[0].from;
    from.fallback_port = sent_by.local_addr().unwrap().port();
    drop(a);
    z.until("gone", |z| z.count(Counter::ConnectionsClosed) == 1);
    z.send(from, b"response", None);
    let (mut stream, _) = sent_by.accept().unwrap();
    z.until("open", |z| z.count(Counter::ConnectionsOpened) == 1);
    assert_eq!(read(&mut stream, 8), b"response");
}

fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let (mut z, at) = Seat::alone(LISTEN);
    let (mut idle, mut busy) = (connect(at[0]), connect(at[0]));
    idle.write_all(&message("idle", 0)).unwrap();
    z.until_got(1);
    for round in 0..4 {
        busy.write_all(&message("busy", 0)).unwrap();
        z.until_got(2 + round);
        z.skew += 20_000;
    }
    z.until("idle", |z| z.count(Counter::Idle) == 1);
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0);
    assert!(z.parts.flows.find(z.got[1].from.id).is_some());
    let next = z.transports.next_tick();
    assert!(next > z.now() && next.since(z.now()) <= 60_000, "{next:?}");
}

fn limits_refuse_connections() {
    let mut config = config(1, LISTEN);
    config.live.limits.connections_per_peer = 3;
    let (mut z, at) = Seat::alone_with(&config);
    let mut streams: Vec<_> = (0..5).map(|_| connect(at[0])).collect();
    z.until("refused", |z| z.count(Counter::ConnectionsRefused) == 2);
    assert_eq!(z.count(Counter::ConnectionsAccepted), 3);
    let ended = streams
        .split_off(3)
        .iter_mut()
        .map(|stream| stream.read(&mut [0; 1]).unwrap_or(0))
        .filter(|read| *read == 0)
        .count();
    assert_eq!(ended, 2);
}

/// Two workers and a timer process in one.
fn house() -> (Seat, Seat, Seat, SocketAddr) {
    let config = config(2, LISTEN);
    let sockets = Sockets::open(&config).unwrap();
    let at = sockets.listeners()[0].addresses[0];
    let parts = parts(3, 1 << 20);
    let [one, two, timer] = [0, 1, 2].map(|seat| Seat::new(&config, &sockets, parts, seat));
    (one, two, timer, at)
}

/// Connects until this seat accepts.
fn connect_to(seat: &mut Seat, other: &mut Seat, at: SocketAddr) -> TcpStream {
    loop {
        let mut stream = connect(at);
        stream.write_all(&message("hello", 0)).unwrap();
        let before = (seat.got.len(), other.got.len());
        while (seat.got.len(), other.got.len()) == before {
            seat.turn();
            other.turn();
        }
        if seat.got.len() > before.0 {
            return stream;
        }
    }
}

fn a_full_table_of_flows_refuses_connections_and_is_counted() {
    let config = config(1, LISTEN);
    let sockets = Sockets::open(&config).unwrap();
    let at = sockets.listeners()[0].addresses[0];
    let mut z = Seat::new(&config, &sockets, parts_with(2, 1 << 16, 16), 0);
    let all: Vec<_> = (0..19).map(|_| connect(at)).collect();
    z.until("connections", |z| z.count(Counter::ConnectionsAccepted) + z.count(Counter::ConnectionsRefused) == 19);
    assert_eq!((z.count(Counter::ConnectionsRefused), z.count(Counter::FlowsFull)), (3, 3));
    // Nor can one be opened.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    z.send(to(Transport::Tcp, listener.local_addr().unwrap()), b"x", client(1));
    assert_eq!((z.failed().len(), z.count(Counter::FlowsFull)), (1, 4));
    assert_eq!(z.count(Counter::SendFailed), 1);
    drop(all);
}

fn without_descriptors_connections_wait_until_there_are_some() {
    let (mut z, at) = Seat::alone(LISTEN);
    let mut a = connect(at[0]);
    a.write_all(&message("hello", 0)).unwrap();
    without_descriptors(|| z.until("an error", |z| z.count(Counter::SocketErrors) == 1));
    assert_eq!(z.count(Counter::ConnectionsAccepted), 0);
    z.skew += 100;
    z.until_got(1);
    assert_eq!((z.count(Counter::ConnectionsAccepted), z.count(Counter::SocketErrors)), (1, 1));
}

fn another_seat_posts_to_the_owner() {
    let (mut one, mut two, mut timer, at) = house();
    let mut a = connect_to(&mut one, &mut two, at);
    let from = one.got.last().unwrap().from;
    // By connection, by address, and from the timer process.
    two.put(from, b"response ", None);
    two.put(to(Transport::Tcp, a.local_addr().unwrap()), b"request ", client(1));
    two.flush();
    one.turn();
    timer.send(to(Transport::Tcp, a.local_addr().unwrap()), b"repeated", client(2));
    one.turn();
    assert_eq!(read(&mut a, 25), b"response request repeated");
    assert_eq!(one.count(Counter::Posted), 3);
    // A full mailbox is a failed request, and nobody waits.
    for n in 0..100 {
        two.put(to(Transport::Tcp, a.local_addr().unwrap()), &message("x", 20_000), client(n));
    }
    two.flush();
    assert!(two.failed().len() > 40, "{}", two.failed().len());
}

fn the_timer_process_asks_a_worker_to_open() {
    let (mut one, mut two, mut timer, _) = house();
    let a = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = to(Transport::Tcp, a.local_addr().unwrap());
    timer.put(hop, b"one ", client(1));
    timer.put(hop, b"two ", client(2));
    timer.flush();
    for _ in 0..10 {
        one.turn();
        two.turn();
    }
    two.send(hop, b"three ", None);
    one.send(hop, b"four", None);
    for _ in 0..10 {
        one.turn();
        two.turn();
    }
    let (mut stream, _) = a.accept().unwrap();
    let text = String::from_utf8(read(&mut stream, 18)).unwrap();
    assert!(text.starts_with("one two ") && text.contains("three ") && text.contains("four"), "{text}");
    assert_eq!(one.count(Counter::ConnectionsOpened), 1);
}

fn a_dead_workers_connections_are_lost_to_its_successor() {
    let config = config(2, LISTEN);
    let sockets = Sockets::open(&config).unwrap();
    let parts = parts(3, 1 << 20);
    let a = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = to(Transport::Tcp, a.local_addr().unwrap());
    let answered = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = child(|| {
        let mut seat = Seat::new(&config, &sockets, parts, 0);
        seat.send(hop, b"from the dead", client(1));
        // Only a response went over this one: its end is nobody's loss.
        seat.send(to(Transport::Tcp, answered.local_addr().unwrap()), b"response", None);
        seat.until("open", |seat| seat.count(Counter::ConnectionsOpened) == 2);
    });
    joined(dead);
    let (mut stream, _) = a.accept().unwrap();
    assert_eq!(read(&mut stream, 13), b"from the dead");
    // While nobody sits there, another worker posts to it.
    let mut other = Seat::new(&config, &sockets, parts, 1);
    for n in 2..5 {
        other.send(hop, b"posted to the dead", client(n));
    }
    let mut successor = Seat::new(&config, &sockets, parts, 0);
    successor.transports.adopt(&mut successor.inbox);
    successor.happenings.append(&mut successor.inbox.happenings);
    assert_eq!(successor.lost(), 1);
    for _ in 0..10 {
        successor.turn();
    }
    let (mut stream, _) = a.accept().unwrap();
    assert_eq!(read(&mut stream, 3 * 18), b"posted to the dead".repeat(3));
    // Each left over another connection than the one that was lost: it must not fail with that.
    let moved = |h: &Happening| if let Happening::Moved { client } = h { Some(*client) } else { None };
    let moved: Vec<_> = successor.happenings.iter().filter_map(moved).collect();
    assert_eq!(moved, [2, 3, 4].map(|n| client(n).unwrap()));
    assert_eq!(parts.flows.live(Transport::Tcp), 1);
}

fn an_entry_with_nothing_behind_it_keeps_no_message_back() {
    let (mut z, _) = Seat::alone(LISTEN);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let limit = Limit { total: 100, per_peer: 50 };
    let claimed = z.parts.flows.claim(Transport::Tcp, at.into(), 0, 0, limit, z.now());
    assert!(matches!(claimed, Claim::Mine(_)), "{claimed:?}");
    z.send(to(Transport::Tcp, at), b"request", client(1));
    z.until("open", |z| z.count(Counter::ConnectionsOpened) == 1);
    assert_eq!(read(&mut listener.accept().unwrap().0, 7), b"request");
    assert!(z.failed().is_empty() && z.parts.flows.live(Transport::Tcp) == 1, "{:?}", z.happenings);
}

fn many_connections_are_served() {
    let (mut z, at) = Seat::alone(LISTEN);
    let mut all: Vec<_> = (0..300).map(|_| connect(at[0])).collect();
    z.until("accepted", |z| z.count(Counter::ConnectionsAccepted) == 300);
    for (n, stream) in all.iter_mut().enumerate() {
        stream.write_all(&message(&format!("{n}"), n)).unwrap();
    }
    for _ in 0..300 {
        z.turn_with(|got, outgoing| {
            let begin = outgoing.begin();
            outgoing.bytes.extend_from_slice(&got.bytes);
            outgoing.finish(begin, got.from, strowger::transport::outgoing::Body::Empty, None);
        });
        if z.got.len() == 300 {
            break;
        }
    }
    for (n, stream) in all.iter_mut().enumerate() {
        let message = message(&format!("{n}"), n);
        assert_eq!(read(stream, message.len()), message);
    }
    let now = z.now();
    z.transports.close_all(&mut z.inbox, now);
    assert_eq!(z.parts.flows.live(Transport::Tcp), 0);
}

fn an_ipv6_peer_is_served_and_called() {
    let (mut z, at) = Seat::alone(&[(Transport::Tcp, "127.0.0.1:0"), (Transport::Tcp, "[::1]:0")]);
    let mut a = connect(at[1]);
    a.write_all(&message("six", 0)).unwrap();
    z.until_got(1);
    assert_eq!(z.got[0].from.listener, 1);
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let mut hop = to(Transport::Tcp, listener.local_addr().unwrap());
    hop.listener = z.transports.listener_for(Transport::Tcp, hop.peer).unwrap();
    assert_eq!(hop.listener, 1);
    z.send(hop, b"request", client(1));
    z.until("open", |z| z.count(Counter::ConnectionsOpened) == 1);
    assert_eq!(read(&mut listener.accept().unwrap().0, 7), b"request");
}

fn a_taken_address_is_named_with_advice() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _holder = TcpListener::bind(&taken).unwrap();
    let error = Sockets::open(&config(2, &[(Transport::Tcp, &taken)])).err().unwrap().to_string();
    assert!(error.contains("\"Tcp\"") && error.contains(&taken) && error.contains("choose another port"), "{error}");
}
