//! TCP, single_owner, on loopback: the owner, two workers and the timer process, turned by hand in one process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::config::{Architecture, Config};
use strowger::shared::counters::Counter;
use strowger::shared::flows::State;
use strowger::transport::{Happening, Outgoing, Parts, Sockets, Transport, outgoing::Body};

use crate::rig::{Test, child, pause, wait};
use crate::seat::{Got, Seat, client, config, message, parts, to};
use crate::tests;

pub const TESTS: &[Test] = tests![
    the_owner_reads_a_worker_answers_and_the_owner_writes,
    only_the_owner_has_descriptors,
    one_worker_does_the_little_there_is_and_all_share_much,
    the_messages_of_a_connection_are_not_overtaken,
    lost_framing_is_answered_by_a_worker_and_then_closed,
    lost_framing_that_nobody_answers_is_closed_after_a_time,
    workers_that_take_nothing_stop_the_peers_and_lose_nothing,
    a_worker_waits_for_an_owner_that_is_behind_and_nothing_is_lost,
    a_full_mailbox_is_a_failed_request_and_nobody_waits,
    requests_open_connections_by_the_owner_alone,
    a_dead_workers_messages_are_worked_on_by_its_successor,
    a_message_on_which_two_workers_die_is_left,
    the_owners_connections_die_with_it,
    an_idle_connection_is_closed,
];

const LISTEN: &[(Transport, &str)] = &[(Transport::Tcp, "127.0.0.1:0")];
const OWNER: usize = 3;

struct House {
    owner: Seat,
    workers: [Seat; 2],
    timer: Seat,
    config: Config,
    sockets: Sockets,
    parts: Parts,
    at: SocketAddr,
}

impl House {
    fn new(mailbox_bytes: usize) -> House {
        let mut config = config(2, LISTEN);
        config.tcp.architecture = Architecture::SingleOwner;
        let sockets = Sockets::open(&config).unwrap();
        let at = sockets.listeners()[0].addresses[0];
        let parts = parts(config.seats(), mailbox_bytes);
        let seat = |number| quick(Seat::new(&config, &sockets, parts, number));
        House { owner: seat(OWNER), workers: [seat(0), seat(1)], timer: seat(2), at, parts, config, sockets }
    }

    fn successor(&self, seat: usize) -> Seat {
        let mut seat = quick(Seat::new(&self.config, &self.sockets, self.parts, seat));
        seat.transports.adopt(&mut seat.inbox);
        seat.happenings.append(&mut seat.inbox.happenings);
        seat
    }

    fn turn_with(&mut self, answer: impl Fn(&Got, &mut Outgoing)) {
        self.owner.turn();
        self.workers.iter_mut().for_each(|worker| worker.turn_with(&answer));
    }

    fn turn(&mut self) {
        self.turn_with(|_, _| {});
    }

    #[track_caller]
    fn until(&mut self, what: &str, is_so: impl Fn(&House) -> bool) {
        for _ in 0..5_000 {
            if is_so(self) {
                return;
            }
            self.turn();
        }
        panic!("waited in vain: {what}");
    }

    fn got(&self) -> usize {
        self.workers.iter().map(|worker| worker.got.len()).sum()
    }

    fn count(&self, counter: Counter) -> u64 {
        self.parts.counters.sum(counter)
    }

    /// A connection that a worker has heard of.
    fn connect(&mut self) -> (TcpStream, Got) {
        let mut stream = connect(self.at);
        stream.write_all(&message("hello", 0)).unwrap();
        let before = self.got();
        self.until("a message", |house| house.got() > before);
        let mut got = self.workers.iter().filter_map(|worker| worker.got.last());
        let peer = stream.local_addr().unwrap();
        let got = got.find(|got| SocketAddr::from(got.from.peer) == peer).cloned().unwrap();
        (stream, got)
    }
}

fn quick(mut seat: Seat) -> Seat {
    seat.wait_ms = 1;
    seat
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

fn echo(got: &Got, outgoing: &mut Outgoing) {
    let begin = outgoing.begin();
    outgoing.bytes.extend_from_slice(&got.bytes);
    outgoing.finish(begin, got.from, Body::Empty, None);
}

fn the_owner_reads_a_worker_answers_and_the_owner_writes() {
    let mut house = House::new(1 << 20);
    let mut a = connect(house.at);
    let (one, two) = (message("one", 10), message("two", 60_000));
    let all = [b"\r\n".as_slice(), &one, b"\r\n\r\n", &two, &one].concat();
    let (first, rest) = all.split_at(one.len() + 50);
    a.write_all(first).unwrap();
    pause(5);
    house.turn_with(echo);
    a.write_all(rest).unwrap();
    for _ in 0..50 {
        house.turn_with(echo);
    }
    // One answer to the keep-alives that came at once.
    let answers = [b"\r\n".as_slice(), &one, &two, &one].concat();
    assert_eq!(read(&mut a, answers.len()), answers);
    let got = &house.workers.iter().find_map(|worker| worker.got.first()).unwrap();
    let flow = house.parts.flows.find(got.from.id).unwrap();
    assert_eq!((flow.received, flow.sent, flow.state, flow.owner), (3, 3, State::Open, OWNER));
    assert!(house.owner.got.is_empty(), "the owner works on none");
    drop(a);
    house.until("the end", |house| house.count(Counter::ConnectionsClosed) == 1);
    assert_eq!(house.count(Counter::ReceivedTcp), 3);
}

fn only_the_owner_has_descriptors() {
    let house = House::new(1 << 16);
    let listeners = &house.sockets.listeners()[0];
    assert_eq!([0, 1, 2, OWNER].map(|seat| listeners.sockets(seat).len()), [0, 0, 0, 1]);
    let peers = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut house = house;
    let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = sockets();
    for worker in &mut house.workers {
        worker.send(to(Transport::Tcp, peers.local_addr().unwrap()), b"request", client(1));
    }
    assert_eq!(sockets(), before, "a worker opens nothing");
    house.until("open", |house| house.count(Counter::ConnectionsOpened) == 1);
    assert_eq!(sockets(), before + 1);
}

fn one_worker_does_the_little_there_is_and_all_share_much() {
    let mut house = House::new(1 << 20);
    let (mut one, _) = house.connect();
    let mut more: Vec<_> = (0..20).map(|_| house.connect().0).collect();
    let shares = |house: &House| house.workers.each_ref().map(|worker| worker.got.len());
    let idle = shares(&house);
    assert!(idle.contains(&0), "with nothing to do, one is enough: {idle:?}");
    // One connection, but far more than one should have waiting.
    let trunk = message("trunk", 1_000).repeat(60);
    let length = trunk.len();
    let sender = std::thread::spawn(move || {
        one.write_all(&trunk).unwrap();
        one
    });
    pause(20);
    house.until("a trunk's messages", |house| house.got() >= idle[0] + idle[1] + 60);
    let busy = shares(&house);
    assert!(busy.iter().zip(idle).all(|(now, before)| now - before >= 15), "{length} bytes: {idle:?} {busy:?}");
    drop(sender.join().unwrap());
    for stream in &mut more {
        (0..3).for_each(|_| stream.write_all(&message("many", 1_000)).unwrap());
    }
    pause(5);
    house.until("many connections' messages", |house| house.got() >= busy[0] + busy[1] + 60);
    let both = shares(&house);
    assert!(both.iter().zip(busy).all(|(now, before)| now - before >= 15), "{busy:?} {both:?}");
}

fn the_messages_of_a_connection_are_not_overtaken() {
    let mut house = House::new(1 << 20);
    let (mut a, _) = house.connect();
    let (mut z, _) = house.connect();
    // Three times more than the one worker should have, but less than order is worth.
    let all: Vec<_> = (0..6).map(|n| message(&format!("{n}"), 2_000)).collect();
    a.write_all(&all.concat()).unwrap();
    pause(5);
    house.owner.turn();
    z.write_all(&message("z", 2_000)).unwrap();
    pause(5);
    house.owner.turn();
    a.write_all(&message("last", 0)).unwrap();
    pause(5);
    house.owner.turn();
    house.until("all", |house| house.got() == 10);
    let from_a =
        |worker: &Seat| worker.got.iter().filter(|got| got.from.peer == a.local_addr().unwrap().into()).count();
    let shares = house.workers.each_ref().map(from_a);
    assert!(shares.contains(&8) && shares.contains(&0), "{shares:?}");
    let other = house.workers.iter().find(|worker| from_a(worker) == 0).unwrap();
    assert_eq!(other.got.len(), 1, "while another's may go elsewhere");
}

fn refuse(got: &Got, outgoing: &mut Outgoing) {
    assert!(got.close_after);
    let begin = outgoing.begin();
    outgoing.bytes.extend_from_slice(b"SIP/2.0 400 Bad\r\n\r\n");
    outgoing.finish(begin, got.from, Body::Empty, None);
}

const BAD: &[u8] = b"OPTIONS sip:z SIP/2.0\r\nContent-Length: many\r\n\r\nand more";

fn lost_framing_is_answered_by_a_worker_and_then_closed() {
    // E13; also where keep-alives are answered meanwhile, and the peer goes on talking.
    for before in [b"".as_slice(), b"\r\n\r\n"] {
        let mut house = House::new(1 << 20);
        let mut a = connect(house.at);
        a.write_all(&[before, BAD].concat()).unwrap();
        pause(5);
        house.owner.turn();
        a.write_all(b"and still more").unwrap();
        pause(5);
        (0..3).for_each(|_| house.owner.turn());
        for _ in 0..10 {
            house.turn_with(refuse);
        }
        let mut answer = Vec::new();
        a.read_to_end(&mut answer).unwrap();
        let ping: &[u8] = if before.is_empty() { b"" } else { b"\r\n" };
        assert_eq!(answer, [ping, b"SIP/2.0 400 Bad\r\n\r\n"].concat());
        drop(a);
        house.until("closed", |house| house.count(Counter::ConnectionsClosed) == 1);
        assert_eq!((house.got(), house.count(Counter::FramingLost)), (1, 1));
    }
}

fn lost_framing_that_nobody_answers_is_closed_after_a_time() {
    let mut house = House::new(1 << 20);
    let mut a = connect(house.at);
    a.write_all(BAD).unwrap();
    pause(5);
    (0..3).for_each(|_| house.owner.turn());
    assert_eq!(house.count(Counter::FramingLost), 1);
    // The worker that has it stands still.
    house.owner.skew += 1_900;
    house.owner.turn();
    assert_eq!(house.count(Counter::ConnectionsClosed), 0);
    house.owner.skew += 200;
    house.owner.turn();
    assert_eq!(house.count(Counter::ConnectionsClosed), 1);
    assert_eq!(a.read(&mut [0; 10]).unwrap_or(0), 0);
    // A worker that works on it and has no answer says so.
    let mut b = connect(house.at);
    b.write_all(BAD).unwrap();
    pause(5);
    (0..10).for_each(|_| house.turn());
    assert_eq!(b.read(&mut [0; 10]).unwrap(), 0);
}

/// Messages of 1 kB with a number, by a thread of its own.
fn flood(mut stream: TcpStream, messages: u32) -> std::thread::JoinHandle<TcpStream> {
    std::thread::spawn(move || {
        for n in 0..messages {
            stream.write_all(&message(&format!("{n}"), 1_000)).unwrap();
        }
        stream
    })
}

fn workers_that_take_nothing_stop_the_peers_and_lose_nothing() {
    let mut house = House::new(128 << 10);
    // More than the buffers of a connection hold; and two of others.
    let sizes = [16_000, 1_000, 1_000];
    let floods = sizes.map(|messages| flood(connect(house.at), messages));
    for _ in 0..100 {
        house.owner.turn();
        pause(1);
    }
    // Two mailboxes, and one read more.
    let read = house.count(Counter::ReceivedTcp);
    assert!((150..=400).contains(&read), "{read} read while nobody took any");
    let before = house.owner.now();
    (0..50).for_each(|_| house.owner.turn());
    assert_eq!(house.count(Counter::ReceivedTcp), read, "not one more");
    assert!(!floods[0].is_finished(), "its peer is stopped");
    let next = house.owner.transports.next_tick();
    assert!(next > before && next <= house.owner.now() + 1, "the owner sleeps a moment, not for long");
    house.until("all of them", |house| house.got() >= 18_000);
    let streams = floods.map(|flood| flood.join().unwrap());
    assert_eq!(
        (house.got(), house.count(Counter::ReceivedTcp), house.count(Counter::MailboxFull)),
        (18_000, 18_000, 0)
    );
    for (stream, messages) in streams.iter().zip(sizes) {
        let peer = stream.local_addr().unwrap().into();
        let all = house.workers.iter().flat_map(|worker| &worker.got).filter(|got| got.from.peer == peer);
        let mut numbers: Vec<u32> = all.map(|got| number(&got.bytes)).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..messages), "each once");
    }
}

fn number(message: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(message);
    text.split([':', ' ']).nth(2).unwrap().parse().unwrap()
}

fn a_worker_waits_for_an_owner_that_is_behind_and_nothing_is_lost() {
    let mut house = House::new(256 << 10);
    let (mut a, _) = house.connect();
    let mut z = a.try_clone().unwrap();
    let sender = std::thread::spawn(move || (0..2_000).for_each(|_| a.write_all(&message("x", 1_000)).unwrap()));
    let length = message("x", 1_000).len() * 2_000;
    let reader = std::thread::spawn(move || read(&mut z, length).len());
    let mut answered = 0;
    // The owner turns once, the workers many times.
    for _ in 0..3_000 {
        house.owner.turn();
        for _ in 0..5 {
            house.workers.iter_mut().for_each(|worker| worker.turn_with(echo));
        }
        answered = house.got();
        if answered == 2_001 {
            break;
        }
    }
    assert_eq!((answered, house.count(Counter::MailboxFull)), (2_001, 0));
    // One that turns no more at all: half a mailbox is all that is posted to it.
    let posted = |house: &House| (0..2).map(|n| house.parts.mailboxes.undone((n, OWNER))).max().unwrap();
    sender.join().unwrap();
    (0..20).for_each(|_| house.turn());
    assert_eq!(reader.join().unwrap(), length);
    let (mut a, _) = house.connect();
    let sender = std::thread::spawn(move || {
        (0..600).for_each(|_| a.write_all(&message("x", 1_000)).unwrap());
        a
    });
    pause(50);
    (0..20).for_each(|_| house.owner.turn());
    for _ in 0..100 {
        house.workers.iter_mut().for_each(|worker| worker.turn_with(echo));
    }
    assert!((128 << 10..200 << 10).contains(&posted(&house)), "{}", posted(&house));
    assert!(house.workers.iter().all(|worker| worker.transports.announce_sleep()), "they may sleep a moment");
    let _a = sender.join().unwrap();
    house.until("all", |house| house.got() == 2_002 + 600);
    assert_eq!(house.count(Counter::MailboxFull), 0);
}

fn a_full_mailbox_is_a_failed_request_and_nobody_waits() {
    let mut house = House::new(1 << 20);
    let (a, _) = house.connect();
    let hop = to(Transport::Tcp, a.local_addr().unwrap());
    for n in 0..100 {
        house.workers[1].put(hop, &message("x", 20_000), client(n));
    }
    house.workers[1].flush();
    let failed = house.workers[1].failed().len() as u64;
    assert!(failed > 40, "{failed}");
    assert_eq!(house.count(Counter::MailboxFull), failed);
    let (mut reader, length) = (a, 100 - failed as usize);
    let length = length * message("x", 20_000).len();
    let reader = std::thread::spawn(move || read(&mut reader, length).len());
    while !reader.is_finished() {
        house.turn();
    }
    assert_eq!(reader.join().unwrap(), length);
}

fn requests_open_connections_by_the_owner_alone() {
    let mut house = House::new(1 << 20);
    let a = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = to(Transport::Tcp, a.local_addr().unwrap());
    house.timer.send(hop, b"one ", client(1));
    house.workers[0].send(hop, b"two ", client(2));
    house.workers[1].send(hop, b"three ", client(3));
    house.until("open", |house| house.count(Counter::ConnectionsOpened) == 1);
    house.timer.send(hop, b"four ", client(4));
    let is_sent = |house: &House| house.count(Counter::SentTcp) == 4 && house.owner.transports.queued_bytes() == 0;
    house.until("sent", is_sent);
    let (mut stream, _) = a.accept().unwrap();
    let text = String::from_utf8(read(&mut stream, 19)).unwrap();
    assert!(["one ", "two ", "three ", "four "].iter().all(|word| text.contains(word)), "{text}");
    let flow = house.parts.flows.find_by_peer(Transport::Tcp, hop.peer).unwrap();
    assert_eq!((flow.owner, flow.requested), (OWNER, true));
    // One that cannot be opened is told by the owner.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    house.workers[0].send(to(Transport::Tcp, gone), b"five", client(5));
    house.until("lost", |house| house.owner.lost() == 1);
    assert_eq!(house.owner.failed(), [client(5).unwrap()]);
}

fn a_dead_workers_messages_are_worked_on_by_its_successor() {
    let mut house = House::new(1 << 20);
    let (mut a, _) = house.connect();
    let victim = house.workers.iter().position(|worker| worker.got.len() == 1).unwrap();
    let all: Vec<_> = (0..10).map(|n| message(&format!("{n}"), 100)).collect();
    a.write_all(&all.concat()).unwrap();
    pause(5);
    house.owner.turn();
    // It has read them, and dies of none of them.
    let dead = child(|| {
        let mut seat = quick(Seat::new(&house.config, &house.sockets, house.parts, victim));
        seat.turn_with(|got, _| assert!(got.bytes.len() > 100));
        kill(Pid::this(), Signal::SIGKILL).unwrap();
    });
    wait(dead);
    a.write_all(&all.concat()).unwrap();
    pause(5);
    house.owner.turn();
    let dead = child(|| {
        let mut seat = quick(Seat::new(&house.config, &house.sockets, house.parts, victim));
        seat.turn_with(|_, _| kill(Pid::this(), Signal::SIGKILL).unwrap());
    });
    wait(dead);
    house.workers[victim] = house.successor(victim);
    (0..30).for_each(|_| house.turn_with(echo));
    // The first ten were done with, nothing of the others is missing; the one that it died on is repeated.
    let back: Vec<_> = all.iter().flatten().copied().collect();
    assert_eq!(read(&mut a, back.len()), back);
    assert_eq!((house.workers[victim].got.len(), house.count(Counter::Poisonous)), (10, 0));
}

fn a_message_on_which_two_workers_die_is_left() {
    let mut house = House::new(1 << 20);
    let (mut a, _) = house.connect();
    let victim = house.workers.iter().position(|worker| worker.got.len() == 1).unwrap();
    let all = [message("good", 1), message("poison", 2), message("good", 3)];
    a.write_all(&all.concat()).unwrap();
    pause(5);
    house.owner.turn();
    for _ in 0..3 {
        let dead = child(|| {
            let mut seat = quick(house.successor(victim));
            for _ in 0..10 {
                seat.turn_with(|got, outgoing| match got.text().contains("poison") {
                    true => kill(Pid::this(), Signal::SIGKILL).unwrap(),
                    false => echo(got, outgoing),
                });
            }
        });
        wait(dead);
    }
    (0..10).for_each(|_| house.owner.turn());
    let back = [all[0].as_slice(), &all[2]].concat();
    let heard = read(&mut a, back.len());
    assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&back));
    assert_eq!(house.count(Counter::Poisonous), 1);
}

fn the_owners_connections_die_with_it() {
    let mut house = House::new(1 << 20);
    let a = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = to(Transport::Tcp, a.local_addr().unwrap());
    house.workers[0].send(hop, b"from the dead", client(1));
    let dead = child(|| {
        let mut seat = quick(house.successor(OWNER));
        seat.until("open", |seat| seat.count(Counter::ConnectionsOpened) == 1 && seat.transports.queued_bytes() == 0);
    });
    wait(dead);
    let (mut stream, _) = a.accept().unwrap();
    assert_eq!(read(&mut stream, 13), b"from the dead");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "closed with its owner");
    // While nobody sits there.
    for n in 2..5 {
        house.workers[1].send(hop, b"posted to the dead", client(n));
    }
    house.owner = house.successor(OWNER);
    assert_eq!(house.owner.lost(), 1);
    let is_sent = |house: &House| house.count(Counter::SentTcp) == 4 && house.owner.transports.queued_bytes() == 0;
    house.until("moved", is_sent);
    let (mut stream, _) = a.accept().unwrap();
    assert_eq!(read(&mut stream, 3 * 18), b"posted to the dead".repeat(3));
    let moved = |h: &Happening| if let Happening::Moved { client } = h { Some(*client) } else { None };
    let moved: Vec<_> = house.owner.happenings.iter().filter_map(moved).collect();
    assert_eq!(moved, [2, 3, 4].map(|n| client(n).unwrap()));
}

fn an_idle_connection_is_closed() {
    let mut house = House::new(1 << 20);
    let (mut idle, _) = house.connect();
    house.owner.skew += 59_000;
    let (_busy, got) = house.connect();
    house.owner.skew += 2_000;
    house.until("idle", |house| house.count(Counter::Idle) == 1);
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0);
    assert!(house.parts.flows.find(got.from.id).is_some());
}
