//! UDP batches and TCP listeners, over loopback.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use sys::datagram::{Arena, Item, Receiver, Sender, To};
use sys::{local_address, tcp, udp};

fn socket(address: &str) -> (OwnedFd, SocketAddr) {
    let (fd, granted) = udp::bind(address.parse().unwrap(), false, 100_000, 100_000).unwrap();
    assert!(granted.receive >= 100_000 && granted.send >= 100_000, "{granted:?}");
    let bound = local_address(&fd).unwrap();
    (fd, bound)
}

/// Loopback delivers before the send returns, so one look is enough.
fn batches_arrive_whole(address: &str) {
    let ((a, a_address), (z, z_address)) = (socket(address), socket(address));
    let messages: Vec<[String; 2]> = (0..40).map(|i| [format!("head {i} "), "b".repeat(i)]).collect();
    let (mut sender, mut receiver) = (Sender::new(16), Receiver::new(16));
    let (sent, error) = sender.send(a.as_fd(), messages.len(), false, |i| Item {
        to: To::Peer(z_address),
        pieces: [messages[i][0].as_bytes(), messages[i][1].as_bytes()],
        sctp: None,
    });
    assert_eq!((sent, error.map(|e| e.to_string())), (40, None));

    let mut arena = Arena::new(24, 4096).unwrap();
    let mut seen = 0;
    for expected in [16, 16, 8, 0] {
        // From slot 8 on: 16 are left.
        let n = receiver.receive(z.as_fd(), &mut arena, 8, usize::MAX).unwrap();
        assert_eq!(n, expected);
        for i in 0..n {
            let received = receiver.get(i);
            assert_eq!((received.slot, received.peer), (8 + i, Some(a_address)));
            assert_eq!((received.truncated, received.notification, received.info), (false, false, None));
            assert_eq!(&arena.slot(received.slot)[..received.len], messages[seen].concat().as_bytes());
            seen += 1;
        }
        assert_eq!(receiver.get(n).len, 0, "there is no message after the last");
    }
}

#[test]
fn batches_arrive_whole_over_ipv4() {
    batches_arrive_whole("127.0.0.1:0");
}

#[test]
fn batches_arrive_whole_over_ipv6() {
    batches_arrive_whole("[::1]:0");
}

#[test]
fn the_first_message_that_cannot_be_sent_stops_the_batch_with_its_own_error() {
    let ((a, _), (z, z_address)) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let (long, short) = (vec![0; 70_000], vec![1; 10]);
    let mut sender = Sender::new(4);
    let item =
        |i: usize| Item { to: To::Peer(z_address), pieces: [if i == 5 { &long } else { &short }, &[]], sctp: None };
    let (sent, error) = sender.send(a.as_fd(), 8, false, item);
    assert_eq!(sent, 5);
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EMSGSIZE));
    let (sent, error) = sender.send(a.as_fd(), 2, false, |i| item(i + 6));
    assert!(sent == 2 && error.is_none());
    let (mut receiver, mut arena) = (Receiver::new(16), Arena::new(16, 100).unwrap());
    assert_eq!(receiver.receive(z.as_fd(), &mut arena, 0, 16).unwrap(), 7);
}

#[test]
fn a_datagram_longer_than_a_slot_is_said_to_be_truncated() {
    let ((a, _), (z, z_address)) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let item = |_| Item { to: To::Peer(z_address), pieces: [b"0123456789", b""], sctp: None };
    assert_eq!(Sender::new(1).send(a.as_fd(), 1, false, item).0, 1);
    let (mut receiver, mut arena) = (Receiver::new(4), Arena::new(4, 8).unwrap());
    assert_eq!(receiver.receive(z.as_fd(), &mut arena, 1, 1).unwrap(), 1);
    let received = receiver.get(0);
    assert!(received.truncated);
    assert_eq!(&arena.slot(1)[..received.len], b"01234567");
    assert_eq!(arena.slot(2), [0; 8], "the neighbour is untouched");
}

#[test]
fn no_slot_left_and_no_message_there_are_both_nothing() {
    let (z, _) = socket("127.0.0.1:0");
    let (mut receiver, mut arena) = (Receiver::new(4), Arena::new(4, 8).unwrap());
    assert_eq!(receiver.receive(z.as_fd(), &mut arena, 0, 4).unwrap(), 0);
    assert_eq!(receiver.receive(z.as_fd(), &mut arena, 4, 4).unwrap(), 0);
    assert_eq!(receiver.receive(z.as_fd(), &mut arena, 99, 4).unwrap(), 0);
    assert!(arena.slot(4).is_empty() && arena.slot_mut(usize::MAX).is_empty());
}

#[test]
fn an_arena_of_a_gigabyte_costs_what_is_touched() {
    let mut arena = Arena::new(1 << 14, 1 << 16).unwrap();
    arena.slot_mut(9_999)[65_535] = 1;
    assert_eq!((arena.slot(9_999)[65_535], arena.slots(), arena.slot_bytes()), (1, 1 << 14, 1 << 16));
    assert!(Arena::new(usize::MAX, 2).is_err());
}

#[test]
fn ports_are_shared_only_when_asked_for() {
    let (_alone, address) = socket("127.0.0.1:0");
    assert_eq!(udp::bind(address, true, 0, 0).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let (shared, _) = udp::bind("127.0.0.1:0".parse().unwrap(), true, 0, 0).unwrap();
    udp::bind(local_address(&shared).unwrap(), true, 0, 0).unwrap();

    let first = tcp::listen("127.0.0.1:0".parse().unwrap(), 8, true).unwrap();
    let address = local_address(&first).unwrap();
    tcp::listen(address, 8, true).unwrap();
    assert_eq!(tcp::listen(address, 8, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn the_same_port_serves_ipv4_and_ipv6_with_a_socket_each() {
    let v4 = tcp::listen("127.0.0.1:0".parse().unwrap(), 8, false).unwrap();
    let port = local_address(&v4).unwrap().port();
    let v6 = tcp::listen(SocketAddr::new("::".parse().unwrap(), port), 8, false).unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    TcpStream::connect(("::1", port)).unwrap();
    // Both listeners do not wait.
    let accepted = |fd: OwnedFd| {
        let listener = std::net::TcpListener::from(fd);
        (listener.accept().is_ok(), listener.accept().unwrap_err().kind())
    };
    assert_eq!(accepted(v4), (true, io::ErrorKind::WouldBlock));
    assert_eq!(accepted(v6), (true, io::ErrorKind::WouldBlock));
}

#[test]
fn what_one_call_left_in_a_header_does_not_trouble_the_next() {
    let ((plain, plain_at), (any, any_at)) = (socket("127.0.0.1:0"), socket("0.0.0.0:0"));
    let to_any = SocketAddr::from(([127, 0, 0, 2], any_at.port()));
    let (mut sender, mut receiver, mut arena) = (Sender::new(8), Receiver::new(8), Arena::new(8, 100).unwrap());
    let mut exchange = |to: SocketAddr, count: usize, first_slot: usize, max: usize| {
        let (sent, _) =
            sender.send(plain.as_fd(), count, false, |_| Item { to: To::Peer(to), pieces: [b"x", b""], sctp: None });
        assert_eq!(sent, count);
        let fd = if to == plain_at { &plain } else { &any };
        assert_eq!(receiver.receive(fd.as_fd(), &mut arena, first_slot, max).unwrap(), count.min(max));
        (0..count.min(max)).map(|i| receiver.get(i)).collect::<Vec<_>>()
    };
    // Without control messages; then few; then with, where the kernel must find room for them again.
    exchange(plain_at, 5, 0, 8);
    exchange(plain_at, 1, 0, 1);
    for (count, first_slot, max) in [(5, 0, 8), (1, 0, 8), (5, 0, 8), (3, 4, 4), (5, 0, 8)] {
        let received = exchange(to_any, count, first_slot, max);
        for (i, one) in received.iter().enumerate() {
            assert_eq!((one.slot, one.len, one.peer), (first_slot + i, 1, Some(plain_at)));
            assert_eq!(one.own, Some(to_any.ip()), "message {i} of {count}");
        }
    }
}
