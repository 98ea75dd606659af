//! A socket for each worker (SO_REUSEPORT): kernel SCTP on loopback.

use std::net::SocketAddr;

use strowger::config::{Config, Layout};
use strowger::shared::counters::Counter;
use strowger::transport::{Parts, Sockets, Transport};

use crate::rig::Test;
use crate::sctp::{LISTEN, Peer};
use crate::seat::{Seat, client, config, parts, to};
use crate::tests;

pub const TESTS: &[Test] = tests![
    an_association_has_one_reader_and_every_process_sends_on_it,
    two_processes_set_up_one_association,
    a_request_meets_an_association_that_its_peer_sets_up,
    a_successor_reads_what_came_meanwhile,
    a_second_daemon_is_refused,
];

/// Two workers of one daemon.
struct Pair {
    config: Config,
    sockets: Sockets,
    parts: Parts,
    seats: Vec<Seat>,
    at: SocketAddr,
}

impl Pair {
    fn new() -> Pair {
        let mut config = config(2, LISTEN);
        config.sctp.layout = Layout::PerWorker;
        let sockets = Sockets::open(&config).unwrap();
        let parts = parts(3, 1 << 16);
        let at = sockets.listeners()[0].addresses[0];
        let seats = (0..2).map(|seat| Seat::new(&config, &sockets, parts, seat)).collect();
        Pair { config, sockets, parts, seats, at }
    }

    /// Turns both until the peer has `n` messages.
    fn until(&mut self, peer: &mut Peer, n: usize) {
        let mut got = 0;
        for _ in 0..500 {
            got += peer.read().len();
            if got >= n {
                return;
            }
            self.seats.iter_mut().for_each(Seat::turn);
        }
        panic!("{got} of {n} messages came");
    }

    /// Turns both until they know of so many associations, and some turns more: are there no more?
    fn until_live(&mut self, n: usize) {
        let live = |z: &Pair| z.parts.flows.live(Transport::Sctp);
        for left in (0..500).rev() {
            self.seats.iter_mut().for_each(Seat::turn);
            if live(self) >= n || left == 0 {
                break;
            }
        }
        (0..3).for_each(|_| self.seats.iter_mut().for_each(Seat::turn));
        assert_eq!(live(self), n);
    }
}

fn an_association_has_one_reader_and_every_process_sends_on_it() {
    // M15, M16: 16 peers over two sockets; that all meet one is as likely as 1 in 32,768.
    let mut z = Pair::new();
    let mut peers: Vec<_> = (0..16).map(|_| Peer::new()).collect();
    peers.iter_mut().for_each(|peer| peer.send(z.at, b"hello"));
    let read = |z: &Pair| z.seats.iter().map(|seat| seat.got.len()).collect::<Vec<_>>();
    for _ in 0..500 {
        z.seats.iter_mut().for_each(Seat::turn);
        if read(&z).iter().sum::<usize>() == 16 {
            break;
        }
    }
    let shares = read(&z);
    assert!(shares.iter().sum::<usize>() == 16 && !shares.contains(&0), "{shares:?}");
    for (number, seat) in z.seats.iter().enumerate() {
        assert!(seat.got.iter().all(|got| z.parts.flows.find(got.from.id).unwrap().owner == number));
    }
    let flows: Vec<_> = z.seats.iter().flat_map(|seat| seat.got.iter().map(|got| got.from)).collect();
    for seat in &mut z.seats {
        flows.iter().for_each(|flow| seat.put(*flow, b"from either", None));
        seat.flush();
    }
    peers.iter_mut().for_each(|peer| z.until(peer, 2));
    assert_eq!((z.parts.flows.live(Transport::Sctp), z.seats[0].count(Counter::Posted)), (16, 0));
}

fn two_processes_set_up_one_association() {
    // M04, M16.
    let mut z = Pair::new();
    let mut peers: Vec<_> = (0..10).map(|_| Peer::new()).collect();
    for (n, peer) in (1..).zip(&mut peers) {
        let (there, flow) = (peer.at, to(Transport::Sctp, peer.at));
        z.seats.iter_mut().for_each(|seat| seat.send(flow, b"request", client(7)));
        z.until(peer, 2);
        z.until_live(n);
        assert!(z.parts.flows.find_by_peer(Transport::Sctp, there.into()).is_some());
    }
    assert!(z.seats.iter().all(|seat| seat.happenings.is_empty()));
}

fn a_request_meets_an_association_that_its_peer_sets_up() {
    // M16: on loopback it is up before the peer's first send returns, and we have not read of it yet.
    let mut z = Pair::new();
    let mut peers: Vec<_> = (0..10).map(|_| Peer::new()).collect();
    for peer in &mut peers {
        peer.send(z.at, b"hello");
        let flow = to(Transport::Sctp, peer.at);
        z.seats[0].send(flow, b"request", client(7));
        z.until(peer, 1);
    }
    // About half of them were the other socket's, and found there.
    assert_eq!(z.seats[0].count(Counter::Queued), 0);
    z.until_live(10);
    assert!(z.seats[0].happenings.is_empty());
}

fn a_successor_reads_what_came_meanwhile() {
    // M31.
    let mut z = Pair::new();
    let mut peer = Peer::new();
    peer.send(z.at, b"first");
    let seat = loop {
        z.seats.iter_mut().for_each(Seat::turn);
        if let Some(seat) = z.seats.iter().position(|seat| !seat.got.is_empty()) {
            break seat;
        }
    };
    drop(z.seats.remove(seat));
    peer.send(z.at, b"second");
    // The survivor does not read it.
    (0..5).for_each(|_| z.seats[0].turn());
    assert!(z.seats[0].got.is_empty());
    let mut successor = Seat::new(&z.config, &z.sockets, z.parts, seat);
    successor.transports.adopt(&mut successor.inbox);
    successor.until_got(1);
    let from = successor.got[0].from;
    assert_eq!(successor.got[0].bytes, b"second");
    successor.send(from, b"answer", None);
    z.seats.push(successor);
    z.until(&mut peer, 1);
}

fn a_second_daemon_is_refused() {
    let z = Pair::new();
    let mut second = z.config.clone();
    second.listen[0].addresses = vec![z.at];
    assert!(Sockets::open(&second).is_err());
}
