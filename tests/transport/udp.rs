//! UDP on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use strowger::config::Layout;
use strowger::shared::counters::Counter;
use strowger::transport::{Sockets, Transport};

use crate::rig::Test;
use crate::seat::{Seat, client, config, parts, to};
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_batch_is_read_and_answered_with_one_call_each,
    an_ipv6_listener_answers_over_ipv6,
    a_wildcard_answers_from_the_address_it_was_asked_at,
    an_answer_whose_own_address_is_gone_leaves_from_another,
    oversized_and_empty_datagrams_are_dropped_and_counted,
    a_request_that_cannot_leave_is_reported_and_the_rest_is_sent,
    each_worker_reads_a_socket_of_its_own_and_the_timer_process_sends_on_one,
];

fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn a_batch_is_read_and_answered_with_one_call_each() {
    let (mut z, at) = Seat::alone(&[(Transport::Udp, "127.0.0.1:0")]);
    let a = peer("127.0.0.1:0");
    for n in 0..50 {
        a.send_to(format!("message {n}").as_bytes(), at[0]).unwrap();
    }
    z.turn_with(|got, outgoing| {
        let begin = outgoing.begin();
        outgoing.bytes.extend_from_slice(&got.bytes);
        outgoing.finish(begin, got.from, strowger::transport::outgoing::Body::Empty, None);
    });
    assert_eq!((z.got.len(), z.count(Counter::Batches), z.count(Counter::SentUdp)), (50, 1, 50));
    assert_eq!(SocketAddr::from(z.got[0].from.peer), a.local_addr().unwrap());
    let mut buffer = [0; 100];
    for n in 0..50 {
        let length = a.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], *format!("message {n}").as_bytes());
    }
}

fn an_ipv6_listener_answers_over_ipv6() {
    let (mut z, at) = Seat::alone(&[(Transport::Udp, "127.0.0.1:0"), (Transport::Udp, "[::1]:0")]);
    let a = peer("[::1]:0");
    a.send_to(b"hello", at[1]).unwrap();
    z.until_got(1);
    let from = z.got[0].from;
    assert_eq!((from.listener, from.peer.ip()), (1, "::1".parse().unwrap()));
    assert_eq!(z.transports.listener_for(Transport::Udp, from.peer), Some(1));
    z.send(from, b"answer", None);
    let mut buffer = [0; 100];
    assert_eq!(a.recv(&mut buffer).unwrap(), 6);
}

fn a_wildcard_answers_from_the_address_it_was_asked_at() {
    // RFC 3581 §4.
    let (mut z, at) = Seat::alone(&[(Transport::Udp, "0.0.0.0:0"), (Transport::Udp, "[::]:0")]);
    let (a, six) = (peer("127.0.0.1:0"), peer("[::1]:0"));
    let asked: [(&UdpSocket, SocketAddr); 4] = [
        (&a, SocketAddr::new([127, 0, 0, 2].into(), at[0].port())),
        (&a, SocketAddr::new([127, 0, 0, 3].into(), at[0].port())),
        (&six, SocketAddr::new("::1".parse().unwrap(), at[1].port())),
        (&a, SocketAddr::new([127, 0, 0, 2].into(), at[0].port())),
    ];
    for (socket, to) in asked {
        socket.send_to(b"hello", to).unwrap();
    }
    z.until_got(4);
    // All answers in one flush, and with them a request, which may leave from any.
    let froms: Vec<_> = z.got.iter().map(|got| got.from).collect();
    for from in &froms {
        z.put(*from, b"answer", None);
    }
    z.put(to(Transport::Udp, a.local_addr().unwrap()), b"request", client(1));
    z.flush();
    assert!(z.failed().is_empty());
    let mut sources: Vec<_> = [&a, &a, &six, &a].map(|socket| socket.recv_from(&mut [0; 10]).unwrap().1).into();
    let mut expected: Vec<_> = asked.map(|(_, to)| to).into();
    sources.sort();
    expected.sort();
    assert_eq!(sources, expected);
    assert_eq!(a.recv(&mut [0; 10]).unwrap(), 7);
}

fn an_answer_whose_own_address_is_gone_leaves_from_another() {
    let (mut z, _) = Seat::alone(&[(Transport::Udp, "0.0.0.0:0")]);
    let a = peer("127.0.0.1:0");
    let mut from = to(Transport::Udp, a.local_addr().unwrap());
    from.association = z.parts.own_addresses.number("192.0.2.1".parse().unwrap());
    assert_eq!(from.association, 1);
    z.put(from, b"one", None);
    z.put(from, b"two", None);
    z.flush();
    assert_eq!((a.recv(&mut [0; 10]).unwrap(), a.recv(&mut [0; 10]).unwrap()), (3, 3));
    assert_eq!((z.count(Counter::SentUdp), z.count(Counter::SendFailed)), (2, 0));
}

fn oversized_and_empty_datagrams_are_dropped_and_counted() {
    let mut config = config(1, &[(Transport::Udp, "127.0.0.1:0")]);
    config.live.limits.message_bytes = 1000;
    let (mut z, at) = Seat::alone_with(&config);
    let a = peer("127.0.0.1:0");
    for bytes in [&[b'x'; 1001][..], b"", b"\r\n\r\n", b"\0\0\0\0", &[b'y'; 1000]] {
        a.send_to(bytes, at[0]).unwrap();
    }
    z.until_got(2);
    assert_eq!((z.count(Counter::TooLarge), z.count(Counter::KeepAlives)), (1, 2));
    assert_eq!(z.got[1].bytes.len(), 1000);
}

fn a_request_that_cannot_leave_is_reported_and_the_rest_is_sent() {
    let (mut z, _) = Seat::alone(&[(Transport::Udp, "127.0.0.1:0")]);
    let a = peer("127.0.0.1:0");
    let a_address = a.local_addr().unwrap();
    z.put(to(Transport::Udp, a_address), b"one", client(1));
    // Not from a socket on loopback.
    z.put(to(Transport::Udp, "192.0.2.1:5060".parse().unwrap()), b"two", client(2));
    z.put(to(Transport::Udp, a_address), &[0; 65_600], client(3));
    z.put(to(Transport::Udp, a_address), b"four", client(4));
    z.flush();
    assert_eq!(z.failed(), [client(2), client(3)].map(Option::unwrap));
    let mut buffer = [0; 10];
    assert_eq!((a.recv(&mut buffer).unwrap(), a.recv(&mut buffer).unwrap()), (3, 4));
}

fn each_worker_reads_a_socket_of_its_own_and_the_timer_process_sends_on_one() {
    let mut config = config(2, &[(Transport::Udp, "127.0.0.1:0")]);
    config.udp.layout = Layout::PerWorker;
    let sockets = Sockets::open(&config).unwrap();
    let parts = parts(3, 1 << 16);
    let at = sockets.listeners()[0].addresses[0];
    let mut seats: Vec<Seat> = (0..3).map(|seat| Seat::new(&config, &sockets, parts, seat)).collect();
    let peers: Vec<UdpSocket> = (0..64).map(|_| peer("127.0.0.1:0")).collect();
    for peer in &peers {
        (0..2).for_each(|_| assert_eq!(peer.send_to(b"hello", at).unwrap(), 5));
    }
    for _ in 0..100 {
        seats.iter_mut().for_each(Seat::turn);
    }
    let ports = |seat: &Seat| seat.got.iter().map(|got| SocketAddr::from(got.from.peer).port()).collect::<Vec<_>>();
    let (one, two) = (ports(&seats[0]), ports(&seats[1]));
    assert_eq!((one.len() + two.len(), seats[2].got.len()), (128, 0));
    assert!(!one.is_empty() && !two.is_empty() && one.iter().all(|port| !two.contains(port)), "{one:?} {two:?}");
    let to = seats[0].got[0].from;
    let whose = peers.iter().find(|peer| peer.local_addr().unwrap() == SocketAddr::from(to.peer)).unwrap();
    for seat in &mut seats {
        seat.send(to, b"answer", None);
        let mut buffer = [0; 100];
        assert_eq!(whose.recv_from(&mut buffer).unwrap(), (6, at));
    }
}
