//! TCP with a supervisor, on loopback: what the daemon's calls do not show by themselves.

#![allow(clippy::disallowed_methods)] // a test has a clock

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strowger::config::{Architecture, Config, Tcp};
use strowger::shared::counters::Counter;
use strowger::shared::flows::State;
use strowger::transport::{Flow, Parts, Sockets, Transport};

use crate::rig::{Test, pause};
use crate::seat::{Seat, client, config, message, parts_for, to, without_descriptors};
use crate::tests;

pub mod trouble;

pub const TESTS: &[Test] = tests![
    connections_go_to_the_workers_in_turn_and_each_sends_on_all,
    without_descriptors_the_supervisor_lets_connections_wait,
    without_descriptors_a_message_fails_and_its_connection_stays,
    a_kept_descriptor_of_a_number_used_again_reaches_nobody_else,
    idle_connections_are_returned_and_then_closed,
    with_queues_idle_connections_are_returned_and_then_closed_without_a_scan,
    a_returned_connection_gets_a_worker_again_when_its_peer_sends,
    half_a_message_is_not_returned_but_ends,
    a_worker_opens_a_connection_and_the_supervisor_assigns_it,
    messages_of_two_workers_on_one_stream_do_not_mix,
];

const LISTEN: &[(Transport, &str)] = &[(Transport::Tcp, "127.0.0.1:0")];
/// Seats of two workers, the timer and the supervisor.
const ONE: usize = 0;
const TWO: usize = 1;
const SUPERVISOR: usize = 3;

struct House {
    config: Config,
    sockets: Sockets,
    parts: Parts,
    at: SocketAddr,
}

fn house(settings: impl FnOnce(&mut Tcp)) -> House {
    let mut config = config(2, LISTEN);
    config.tcp.architecture = Architecture::Supervisor;
    settings(&mut config.tcp);
    let sockets = Sockets::open(&config).unwrap();
    let at = sockets.listeners()[0].addresses[0];
    let parts = parts_for(&config);
    House { config, sockets, parts, at }
}

impl House {
    fn seat(&self, number: usize) -> Seat {
        Seat::new(&self.config, &self.sockets, self.parts, number)
    }

    /// Runs `test` beside a supervisor that turns in a thread of its own, its clock ahead by `skew`.
    fn beside_a_supervisor(&self, test: impl FnOnce(&AtomicU64)) {
        let (end, skew) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut supervisor = self.seat(SUPERVISOR);
                while !end.load(Ordering::Relaxed) {
                    supervisor.skew = skew.load(Ordering::Relaxed);
                    supervisor.turn();
                }
            });
            // A test that panics would else wait for the thread.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&skew)));
            end.store(true, Ordering::Relaxed);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

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

/// Connects, says hello, and gives the flow as the worker that got it sees it.
fn hello(at: SocketAddr, workers: &mut [&mut Seat]) -> (TcpStream, Flow, usize) {
    let mut stream = connect(at);
    stream.write_all(&message("hello", 0)).unwrap();
    let local = stream.local_addr().unwrap().into();
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.turn();
            if let Some(got) = worker.got.iter().find(|got| got.from.peer == local) {
                return (stream, got.from, number);
            }
        }
    }
    panic!("nobody read the hello");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn connections_go_to_the_workers_in_turn_and_each_sends_on_all() {
    let house = house(|_| {});
    let (mut one, mut two, mut timer) = (house.seat(ONE), house.seat(TWO), house.seat(2));
    house.beside_a_supervisor(|_| {
        let mut all: Vec<_> = (0..6).map(|_| hello(house.at, &mut [&mut one, &mut two])).collect();
        let owners: Vec<_> = all.iter().map(|(.., owner)| *owner).collect();
        assert_eq!(owners, [1, 0, 1, 0, 1, 0]);
        let before = descriptors();
        for (stream, flow, _) in &mut all {
            // By connection, by address, and from the timer process, too.
            one.send(*flow, b"one ", None);
            two.send(to(Transport::Tcp, stream.local_addr().unwrap()), b"two ", client(1));
            timer.send(*flow, b"timer", client(2));
            assert_eq!(read(stream, 13), b"one two timer");
        }
        // Each message was a question of its own, the owner's, too, and each descriptor is closed again.
        assert_eq!((one.count(Counter::DescriptorsAsked), descriptors()), (18, before));
        let flow = house.parts.flows.find(all[0].1.id).unwrap();
        assert_eq!((flow.received, flow.sent, flow.state, flow.owner), (1, 3, State::Open, TWO));
        drop(all);
        one.until("the end", |one| {
            two.turn();
            one.parts.flows.live(Transport::Tcp) == 0
        });
        // Only those that carried requests are lost to somebody.
        assert_eq!(one.lost() + two.lost(), 6);
        one.until("descriptors closed", |_| descriptors() <= before - 18);
    });
}

fn without_descriptors_the_supervisor_lets_connections_wait() {
    let house = house(|_| {});
    let mut supervisor = house.seat(SUPERVISOR);
    let _a = connect(house.at);
    without_descriptors(|| supervisor.until("an error", |seat| seat.count(Counter::SocketErrors) == 1));
    supervisor.skew += 100;
    supervisor.until("assigned", |seat| seat.count(Counter::ConnectionsAssigned) == 1);
    assert_eq!(supervisor.count(Counter::SocketErrors), 1);
}

fn without_descriptors_a_message_fails_and_its_connection_stays() {
    let house = house(|_| {});
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
        without_descriptors(|| one.send(flow, b"in vain", client(1)));
        assert_eq!((one.failed(), one.lost()), (vec![client(1).unwrap()], 0));
        assert_eq!((one.count(Counter::SendFailed), one.count(Counter::SocketErrors)), (1, 1));
        // It is as it was, for everybody, and this process was not waiting for a silent supervisor.
        one.send(flow, b"one", client(2));
        two.send(flow, b"two", None);
        assert_eq!((read(&mut a, 6), one.failed().len()), (b"onetwo".to_vec(), 1));
        assert_eq!((one.count(Counter::ConnectionsClosed), one.count(Counter::SupervisorSilent)), (0, 0));
    });
}

fn a_kept_descriptor_of_a_number_used_again_reaches_nobody_else() {
    let house = house(|tcp| tcp.descriptor_cache = true);
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let mut indexes = std::collections::HashSet::new();
        for round in 0..20 {
            let (mut stream, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
            indexes.insert(flow.id.index);
            for word in ["one", "and", "two"] {
                one.send(flow, word.as_bytes(), None);
            }
            two.send(flow, b"too", None);
            assert_eq!(read(&mut stream, 12), b"oneandtwotoo");
            assert_eq!(one.count(Counter::DescriptorsAsked), 2 * (round + 1), "one for each process and connection");
            drop(stream);
            one.until("the end", |one| {
                two.turn();
                one.parts.flows.find(flow.id).is_none()
            });
            // The number is another's now; what was kept for it is not.
            let (mut next, new, _) = hello(house.at, &mut [&mut one, &mut two]);
            assert_ne!(new.id, flow.id);
            indexes.insert(new.id.index);
            one.send(flow, b"for the one that is gone", None);
            two.send(flow, b"for the one that is gone", client(1));
            next.set_nonblocking(true).unwrap();
            let nothing = next.read(&mut [0; 8]).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            drop(next);
            one.until("the end", |one| {
                two.turn();
                one.parts.flows.find(new.id).is_none()
            });
        }
        assert!(indexes.len() <= 3, "numbers were used again: {indexes:?}");
        assert_eq!(house.parts.flows.live(Transport::Tcp), 0);
        // What is over is not kept.
        let before = descriptors();
        (one.skew, two.skew) = (2_000, 2_000);
        one.turn();
        two.turn();
        assert!(descriptors() <= before && house.parts.supervision.ended() > 30);
    });
}

fn idle_connections_are_returned_and_then_closed() {
    become_idle(false);
}

fn with_queues_idle_connections_are_returned_and_then_closed_without_a_scan() {
    become_idle(true);
}

fn become_idle(priority_queue: bool) {
    let house = house(|tcp| {
        (tcp.priority_queue, tcp.idle_s, tcp.supervisor_idle_s) = (priority_queue, 60, 30);
    });
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|skew| {
        let go_to = |ms: u64, one: &mut Seat, two: &mut Seat| {
            (one.skew, two.skew) = (ms, ms);
            skew.store(ms, Ordering::Relaxed);
            for _ in 0..5 {
                one.turn();
                two.turn();
            }
        };
        let (mut idle, _, _) = hello(house.at, &mut [&mut one, &mut two]);
        let (mut sent_to, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
        let before = descriptors();
        go_to(40_000, &mut one, &mut two);
        // Sending keeps it from being idle, whoever sends.
        one.send(flow, b"still here", None);
        assert_eq!(read(&mut sent_to, 10), b"still here");
        go_to(59_000, &mut one, &mut two);
        assert_eq!(one.count(Counter::ConnectionsReturned), 0);
        go_to(62_000, &mut one, &mut two);
        assert_eq!((one.count(Counter::ConnectionsReturned), one.count(Counter::Idle)), (1, 0));
        // The supervisor can be asked for it as before.
        two.send(to(Transport::Tcp, idle.local_addr().unwrap()), b"you, too", None);
        assert_eq!(read(&mut idle, 8), b"you, too");
        go_to(88_000, &mut one, &mut two);
        assert_eq!(one.count(Counter::Idle), 0);
        go_to(95_000, &mut one, &mut two);
        one.until("closed", |one| one.count(Counter::Idle) == 1);
        assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0);
        go_to(101_000, &mut one, &mut two);
        assert_eq!(one.count(Counter::ConnectionsReturned), 2);
        go_to(140_000, &mut one, &mut two);
        one.until("closed", |one| one.count(Counter::Idle) == 2);
        assert_eq!((sent_to.read(&mut [0; 8]).unwrap(), house.parts.flows.live(Transport::Tcp)), (0, 0));
        assert_eq!(one.count(Counter::IdleScans) == 0, priority_queue);
        drop((idle, sent_to));
        one.until("descriptors closed", |_| descriptors() <= before - 6);
    });
}

fn a_returned_connection_gets_a_worker_again_when_its_peer_sends() {
    let house = house(|tcp| tcp.priority_queue = true);
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let (mut a, flow, owner) = hello(house.at, &mut [&mut one, &mut two]);
        (one.skew, two.skew) = (61_000, 61_000);
        one.until("returned", |one| {
            two.turn();
            one.count(Counter::ConnectionsReturned) == 1
        });
        assert_eq!(house.parts.flows.find(flow.id).unwrap().owner, SUPERVISOR);
        pause(50);
        a.write_all(&message("again", 0)).unwrap();
        let got = one.got.len() + two.got.len();
        one.until("the message", |one| {
            two.turn();
            one.got.len() + two.got.len() > got
        });
        let again = house.parts.flows.find(flow.id).unwrap();
        assert!(again.owner != owner && again.owner < 2, "round-robin: the other worker");
        assert_eq!(one.count(Counter::ConnectionsAssigned), 2);
    });
}

fn half_a_message_is_not_returned_but_ends() {
    let house = house(|tcp| (tcp.idle_s, tcp.message_timeout_ms) = (1, 10_000));
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
        a.write_all(b"OPTIONS sip:half").unwrap();
        pause(20);
        for skew in [0, 4_000, 12_000] {
            (one.skew, two.skew) = (skew, skew);
            for _ in 0..5 {
                one.turn();
                two.turn();
            }
            assert_eq!(house.parts.flows.find(flow.id).is_some(), skew < 12_000);
        }
        assert_eq!((one.count(Counter::HalfMessages), one.count(Counter::ConnectionsReturned)), (1, 0));
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 0);
    });
}

fn a_worker_opens_a_connection_and_the_supervisor_assigns_it() {
    let house = house(|_| {});
    let (mut one, mut two, mut timer) = (house.seat(ONE), house.seat(TWO), house.seat(2));
    house.beside_a_supervisor(|_| {
        let z = TcpListener::bind("127.0.0.1:0").unwrap();
        let hop = to(Transport::Tcp, z.local_addr().unwrap());
        timer.send(hop, b"one ", client(1));
        two.send(hop, b"two", client(2));
        let (mut stream, _) = z.accept().unwrap();
        assert_eq!(read(&mut stream, 7), b"one two");
        assert_eq!((one.count(Counter::ConnectionsOpened), one.count(Counter::ConnectionsAssigned)), (1, 1));
        // Responses come in on it (E09), at whoever owns it.
        stream.write_all(&message("response", 5)).unwrap();
        one.until("the response", |one| {
            two.turn();
            one.got.len() + two.got.len() == 1
        });
        // Nobody there: the request has failed, and its entry is gone.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        one.send(to(Transport::Tcp, gone), b"three", client(3));
        assert_eq!((one.failed(), one.count(Counter::ConnectFailed)), (vec![client(3).unwrap()], 1));
        assert_eq!(house.parts.flows.live(Transport::Tcp), 1);
    });
}

fn messages_of_two_workers_on_one_stream_do_not_mix() {
    let house = house(|tcp| tcp.descriptor_cache = true);
    let (mut one, mut two) = (house.seat(ONE), house.seat(TWO));
    house.beside_a_supervisor(|_| {
        let (mut a, flow, _) = hello(house.at, &mut [&mut one, &mut two]);
        drop((one, two));
        const MESSAGES: usize = 100;
        const BYTES: usize = 50_000;
        let writer = |seat: usize, letter: u8| {
            let mut seat = house.seat(seat);
            for _ in 0..MESSAGES {
                seat.send(flow, &[letter; BYTES], None);
            }
            assert_eq!(seat.count(Counter::SendFailed), 0);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| writer(ONE, b'1'));
            scope.spawn(|| writer(TWO, b'2'));
            let mut counts = [0; 2];
            for n in 0..2 * MESSAGES {
                if n % 10 == 0 {
                    // Slowly, so that the sockets are full and writes are cut.
                    pause(2);
                }
                let message = read(&mut a, BYTES);
                assert!(message.iter().all(|byte| *byte == message[0]), "message {n} is a mixture");
                counts[usize::from(message[0] - b'1')] += 1;
            }
            assert_eq!(counts, [MESSAGES; 2]);
        });
    });
}
