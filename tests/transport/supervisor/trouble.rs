//! TCP with a supervisor: somebody stalls, falls silent, or dies; and the standstill of the paper's §6, which must not be.

#![allow(clippy::disallowed_methods)] // a test has a clock

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use strowger::shared::counters::Counter;
use strowger::transport::{Happening, Transport};
use sys::passing::{self, Wait};

use super::{House, ONE, SUPERVISOR, TWO, connect, descriptors, hello, house, read};
use crate::rig::{Test, child, joined, pause};
use crate::seat::{Seat, client, message, to};
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_stream_torn_by_a_death_is_closed_not_written_to,
    a_peer_that_does_not_read_costs_a_bounded_wait,
    with_both_directions_full_everything_goes_on,
    a_worker_that_waits_for_room_and_a_supervisor_that_has_none_go_on,
    who_asks_for_a_connection_that_cannot_be_opened_hears_of_it_at_once,
    a_silent_supervisor_is_not_waited_for_longer_than_one_has_patience,
    a_new_supervisor_begins_with_nothing,
    a_dead_workers_connections_end_and_its_seat_gets_new_ones,
];

fn a_stream_torn_by_a_death_is_closed_not_written_to() {
    let house = house(|_| {});
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    // The supervisor is a process here: this one may have no thread when it forks.
    let supervisor = supervisor_process(&house);
    let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
    joined(child(|| {
        let mut turn = house.parts.supervision.turn(flow.id).unwrap().lock();
        turn.writing = flow.id.generation;
        // As if killed within `writev`.
        std::mem::forget(turn);
    }));
    two.send(flow, b"behind half a message", client(1));
    assert_eq!((two.failed().len(), a.read(&mut [0; 8]).unwrap()), (1, 0));
    assert!(house.parts.flows.find(flow.id).is_none());
    // The next one on that number is whole.
    one.until("the end", |one| {
        two.turn();
        one.transports.queued_bytes() == 0
    });
    let (mut b, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
    two.send(flow, b"whole", client(2));
    assert_eq!(read(&mut b, 5), b"whole");
    end(supervisor);
}

fn supervisor_process(house: &House) -> i32 {
    let us = nix::unistd::Pid::this().as_raw();
    child(|| {
        sys::process::die_with_parent(us).unwrap();
        let mut supervisor = house.seat(SUPERVISOR);
        loop {
            supervisor.turn();
        }
    })
}

fn end(process: i32) {
    let pid = nix::unistd::Pid::from_raw(process);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    crate::rig::wait(process);
}

fn a_peer_that_does_not_read_costs_a_bounded_wait() {
    let house = house(|_| {});
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let (_stalled, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
        let (mut other, to_other, _) = hello(house.at, &mut [&mut one, &mut two]);
        let mut longest = Duration::ZERO;
        for n in 1..10_000 {
            let began = Instant::now();
            one.send(flow, &message("x", 20_000), client(n));
            longest = longest.max(began.elapsed());
            if one.count(Counter::Stalled) == 1 {
                break;
            }
        }
        assert_eq!((one.count(Counter::Stalled), one.failed().len(), one.lost()), (1, 1, 1));
        assert!(longest > Duration::from_secs(2) && longest < Duration::from_secs(5), "{longest:?}");
        assert!(house.parts.flows.find(flow.id).is_none());
        one.turn();
        one.send(to_other, b"others go on", None);
        assert_eq!(read(&mut other, 12), b"others go on");
    });
}

/// Words as they travel (`ipc`).
const GONE: u32 = 3;
const BAD: u32 = 5;
const OWN: u32 = 6;
const RETURN: u32 = 7;

/// A note as it travels (`ipc`): number, word, index, generation, nothing.
fn note(word: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[8..12].copy_from_slice(&word.to_ne_bytes());
    bytes[12..16].copy_from_slice(&999_u32.to_ne_bytes());
    bytes
}

/// Says it until there is no more room.
fn fill(line: BorrowedFd<'_>, word: u32) -> usize {
    (0..).find(|_| passing::send(line, &note(word), None, Wait::No).is_err()).unwrap()
}

fn with_both_directions_full_everything_goes_on() {
    // The paper's §6: worker and supervisor each wait for room at the other's.
    let house = house(|_| {});
    let mut full = 0;
    // Nobody reads now: late answers and assignments one way, errors and returns the other.
    for seat in [ONE, TWO] {
        let ends = [house.parts.supervision.ends_of(seat), house.parts.supervision.supervisors_ends(seat)];
        let [(asks, news), (answers, assignments)] = ends.map(Option::unwrap);
        full += fill(asks, BAD) + fill(news, RETURN) + fill(answers, GONE) + fill(assignments, OWN);
    }
    assert!(full > 8 * 100, "{full} notes");
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let began = Instant::now();
        let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
        for _ in 0..50 {
            one.send(flow, b"one", None);
            two.send(flow, b"two", None);
            assert_eq!(read(&mut a, 6), b"onetwo");
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!((one.count(Counter::SupervisorSilent), one.count(Counter::SendFailed)), (0, 0));
        // Full again in the supervisor's directions while it runs and the workers do not: it waits for none of them.
        let (answers, assignments) = house.parts.supervision.supervisors_ends(ONE).unwrap();
        assert!(fill(answers, GONE) > 100 && fill(assignments, OWN) > 100);
        let mut crowd: Vec<_> = (0..400).map(|_| connect(house.at)).collect();
        for stream in &mut crowd {
            stream.write_all(&message("crowd", 0)).unwrap();
        }
        two.until("accepted", |two| two.count(Counter::ConnectionsAccepted) == 401);
        two.until("its half", |two| two.got.len() >= 200);
        one.until("the other half", |one| one.got.len() >= 200);
        one.send(flow, b"done", None);
        assert_eq!(read(&mut a, 4), b"done");
    });
}

fn a_worker_that_waits_for_room_and_a_supervisor_that_has_none_go_on() {
    // The paper's §6 to the letter: the worker waits for room for its question and reads no connection, the supervisor has connections
    // for that worker and no room for them.
    let house = house(|_| {});
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    let supervisor = supervisor_process(&house);
    let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
    let pid = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let (asks, _) = house.parts.supervision.ends_of(ONE).unwrap();
    let (_, assignments) = house.parts.supervision.supervisors_ends(ONE).unwrap();
    assert!(fill(assignments, OWN) > 100 && fill(asks, BAD) > 100);
    let mut crowd: Vec<_> = (0..50).map(|_| connect(house.at)).collect();
    let waits = Duration::from_millis(300);
    std::thread::spawn(move || {
        std::thread::sleep(waits);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    });
    let began = Instant::now();
    one.send(flow, b"after all", client(1));
    let took = began.elapsed();
    assert!(took >= waits, "it had to wait for room, and waited {took:?}");
    assert_eq!((one.failed().len(), one.count(Counter::SupervisorSilent)), (0, 0), "{took:?}");
    assert_eq!(read(&mut a, 9), b"after all");
    for stream in &mut crowd {
        stream.write_all(&message("crowd", 0)).unwrap();
    }
    one.until("all of the crowd", |one| {
        two.turn();
        one.got.len() + two.got.len() > 50
    });
    assert!(one.got.len() >= 25, "its half came, too: {}", one.got.len());
    end(supervisor);
}

fn who_asks_for_a_connection_that_cannot_be_opened_hears_of_it_at_once() {
    // No priority queue or scan brings this supervisor round in time: only what it is told.
    let house = house(|tcp| tcp.connect_timeout_ms = 300);
    let us = nix::unistd::Pid::this().as_raw();
    let supervisor = child(|| {
        sys::process::die_with_parent(us).unwrap();
        let mut supervisor = house.seat(SUPERVISOR);
        supervisor.wait_ms = 10_000;
        loop {
            supervisor.turn();
        }
    });
    // Its backlog is full: a SYN has no answer.
    let (_deaf, at, _waiting) = deaf();
    let opener = child(|| {
        let mut one = house.seat(ONE);
        one.send(to(Transport::Tcp, at), b"first", client(1));
        assert_eq!((one.failed().len(), one.count(Counter::ConnectFailed)), (1, 1));
    });
    let mut two = house.seat(TWO);
    let end_of_wait = Instant::now() + Duration::from_secs(5);
    while house.parts.flows.live(Transport::Tcp) == 0 {
        assert!(Instant::now() < end_of_wait, "the first never began");
        pause(1);
    }
    let began = Instant::now();
    two.send(to(Transport::Tcp, at), b"second", client(2));
    let took = began.elapsed();
    joined(opener);
    assert_eq!(
        (two.failed().len(), two.count(Counter::DescriptorsAsked)),
        (1, 1),
        "it found the first one's connection"
    );
    assert_eq!(two.count(Counter::SupervisorSilent), 0, "{took:?}");
    end(supervisor);
}

/// A listener whose backlog is full; its address, and what fills it.
fn deaf() -> (socket2::Socket, std::net::SocketAddr, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    let full =
        (0..8).map_while(|_| std::net::TcpStream::connect_timeout(&at, Duration::from_millis(200)).ok()).collect();
    (socket, at, full)
}

fn a_silent_supervisor_is_not_waited_for_longer_than_one_has_patience() {
    let house = house(|_| {});
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    let supervisor = supervisor_process(&house);
    let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
    let pid = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    for n in 0..20 {
        one.put(flow, b"nobody answers", client(n));
    }
    one.flush();
    let took = began.elapsed();
    // One turn of the loop, whatever it has to send: `patience`, and the master kills after 10 s.
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(one.failed().len(), 20);
    assert!((1..=3).contains(&one.count(Counter::SupervisorSilent)));
    assert!(house.parts.flows.find(flow.id).is_some(), "its silence says nothing of the connection");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    // Late answers are not taken for this one's.
    one.send(flow, b"now", client(99));
    assert_eq!((read(&mut a, 3), one.failed().len()), (b"now".to_vec(), 20));
    end(supervisor);
}

fn a_new_supervisor_begins_with_nothing() {
    let house = house(|tcp| (tcp.descriptor_cache, tcp.priority_queue) = (true, true));
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    let first = supervisor_process(&house);
    let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
    let (mut b, called, _) = hello(house.at, &mut [&mut one, &mut two]);
    one.send(called, b"request", client(1));
    assert_eq!(read(&mut b, 7), b"request");
    end(first);
    let before = descriptors();
    let us = nix::unistd::Pid::this().as_raw();
    let second = child(|| {
        sys::process::die_with_parent(us).unwrap();
        let mut supervisor = house.seat(SUPERVISOR);
        supervisor.transports.adopt(&mut supervisor.inbox);
        supervisor.happenings.append(&mut supervisor.inbox.happenings);
        // Only what carried a request is a loss.
        assert_eq!(supervisor.lost(), 1);
        loop {
            supervisor.turn();
        }
    });
    // Who asks meanwhile hears of it at once, or finds the entry gone.
    two.send(flow, b"response", None);
    one.until("gone", |one| {
        two.turn();
        one.parts.flows.live(Transport::Tcp) == 0 && descriptors() <= before - 3
    });
    assert_eq!((a.read(&mut [0; 8]).unwrap(), b.read(&mut [0; 8]).unwrap()), (0, 0));
    assert_eq!(house.parts.supervision.queue.next(), strowger::timer::Tick::NEVER);
    let (mut c, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
    one.send(flow, b"as before", None);
    assert_eq!(read(&mut c, 9), b"as before");
    end(second);
}

fn a_dead_workers_connections_end_and_its_seat_gets_new_ones() {
    let house = house(|_| {});
    let mut two = house.seat(TWO);
    let supervisor = supervisor_process(&house);
    // Round-robin: the second and fourth are the first worker's.
    let mut all: Vec<_> = (0..4).map(|_| connect(house.at)).collect();
    let one = child(|| {
        let mut one = house.seat(ONE);
        let begins = |one: &Seat| one.parts.flows.owned_by(Transport::Tcp, ONE).len() == 2;
        one.until("its connections", begins);
        pause(50);
        one.turn();
        let flow = one.parts.flows.owned_by(Transport::Tcp, ONE)[0];
        one.send(to(Transport::Tcp, flow.peers[0].into()), b"request", client(1));
    });
    joined(one);
    let mut successor = house.seat(ONE);
    successor.transports.adopt(&mut successor.inbox);
    successor.happenings.append(&mut successor.inbox.happenings);
    let lost = |seat: &Seat| seat.happenings.iter().filter(|h| matches!(h, Happening::Lost { .. })).count();
    assert_eq!((lost(&successor), house.parts.flows.live(Transport::Tcp)), (1, 2));
    for (n, stream) in all.iter_mut().enumerate() {
        let ended = n % 2 == 1;
        if ended {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty() || rest == b"request");
        } else {
            stream.write_all(&message("alive", 0)).unwrap();
        }
    }
    two.until_got(2);
    let (mut a, flow, _) = hello(house.at, &mut [&mut successor, &mut two]);
    let (mut b, other, _) = hello(house.at, &mut [&mut successor, &mut two]);
    successor.send(flow, b"one", None);
    successor.send(other, b"two", None);
    assert_eq!((read(&mut a, 3), read(&mut b, 3)), (b"one".to_vec(), b"two".to_vec()));
    assert!(successor.got.len() == 1, "the seat is in turn again");
    end(supervisor);
}
