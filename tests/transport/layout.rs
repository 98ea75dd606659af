//! What two workers do together: kernel SCTP on loopback, with one socket for both or one for each (SO_REUSEPORT).

use std::net::SocketAddr;

use strowger::config::{Config, Layout};
use strowger::shared::counters::Counter;
use strowger::shared::flows::Limit;
use strowger::transport::{Address, Flow, Parts, Sockets, Transport};
use sys::datagram::{Item, Sender, SndInfo, To};

use crate::rig::{Test, child, joined, until};
use crate::sctp::{LISTEN, Peer, socket_of};
use crate::seat::{Seat, client, config, layout, parts, to};
use crate::{in_both_layouts, tests};

pub const TESTS: &[Test] = in_both_layouts![
    two_processes_set_up_one_association,
    a_request_meets_an_association_that_its_peer_sets_up,
    what_one_process_sets_up_counts_for_the_other,
    what_waits_for_a_stalled_peer_has_one_bound_for_both,
    what_one_of_two_left_open_leaves_with_its_successor,
    what_a_dead_worker_was_about_to_set_up_does_not_count,
    what_waited_at_a_dead_worker_leaves_its_room_to_the_others,
    a_second_daemon_is_refused,
];

pub const PER_WORKER: &[Test] =
    tests![an_association_has_one_reader_and_every_process_sends_on_it, a_successor_reads_what_came_meanwhile];

/// Two workers of one daemon.
pub struct Pair {
    pub config: Config,
    pub sockets: Sockets,
    pub parts: Parts,
    pub seats: Vec<Seat>,
    pub at: SocketAddr,
}

impl Pair {
    pub fn new() -> Pair {
        Pair::with(|_| {})
    }

    fn with(change: impl Fn(&mut Config)) -> Pair {
        Pair::laid_out(layout(), change)
    }

    fn laid_out(layout: Layout, change: impl Fn(&mut Config)) -> Pair {
        let mut config = config(2, LISTEN);
        config.sctp.layout = layout;
        change(&mut config);
        let sockets = Sockets::open(&config).unwrap();
        let parts = parts(3, 1 << 16);
        let at = sockets.listeners()[0].addresses[0];
        let seats = (0..2).map(|seat| Seat::new(&config, &sockets, parts, seat)).collect();
        Pair { config, sockets, parts, seats, at }
    }

    /// An association that the peer sets up, and the seat that reads it.
    pub fn associate(&mut self, peer: &mut Peer) -> (Flow, usize) {
        peer.send(self.at, b"hello");
        let before: Vec<_> = self.seats.iter().map(|seat| seat.got.len()).collect();
        for _ in 0..500 {
            self.seats.iter_mut().for_each(Seat::turn);
            if let Some(reader) = (0..2).find(|seat| self.seats[*seat].got.len() > before[*seat]) {
                return (self.seats[reader].got.last().unwrap().from, reader);
            }
        }
        panic!("nobody heard of it");
    }

    /// Turns both until the peer has `n` messages.
    pub fn until(&mut self, peer: &mut Peer, n: usize) {
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

    /// This worker is dead; another one takes its seat.
    fn succeed(&mut self, seat: usize) {
        self.seats[seat] = Seat::new(&self.config, &self.sockets, self.parts, seat);
        let Seat { transports, inbox, .. } = &mut self.seats[seat];
        transports.adopt(inbox);
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
    let mut z = Pair::laid_out(Layout::PerWorker, |_| {});
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

fn what_one_process_sets_up_counts_for_the_other() {
    // M20.
    let mut z = Pair::with(|config| config.live.limits.associations_per_peer = 3);
    let mut peers: Vec<_> = (0..6).map(|_| Peer::new()).collect();
    for (n, peer) in peers.iter().enumerate() {
        z.seats[n % 2].send(to(Transport::Sctp, peer.at), b"request", client(7));
    }
    let failed: Vec<_> = z.seats.iter().map(|seat| seat.failed().len()).collect();
    assert_eq!((failed, z.seats[0].count(Counter::AssociationsRefused)), (vec![1, 2], 3));
    z.until_live(3);
    let heard: Vec<_> = peers.iter_mut().map(|peer| peer.read().len()).collect();
    assert_eq!(heard, [1, 1, 1, 0, 0, 0]);
    assert_eq!(z.seats[0].count(Counter::AssociationsUp), 3);
}

fn what_waits_for_a_stalled_peer_has_one_bound_for_both() {
    // M05.
    let mut z = Pair::new();
    let (mut stalled, mut other) = (Peer::new(), Peer::new());
    let ((to_stalled, _), (to_other, _)) = (z.associate(&mut stalled), z.associate(&mut other));
    let waits = |z: &Pair| z.seats.iter().map(|seat| seat.transports.queued_bytes()).collect::<Vec<_>>();
    let mut put = 0;
    while z.seats[0].count(Counter::QueueFull) < 20 {
        assert!(put < 10_000, "no bound");
        for seat in &mut z.seats {
            (0..5).for_each(|_| seat.put(to_stalled, &[b'x'; 4000], client(1)));
            seat.put(to_other, b"still here", None);
            seat.flush();
        }
        put += 10;
        assert_eq!(other.read().len(), 2);
    }
    let (waiting, most) = (waits(&z), z.config.live.limits.association_queue_bytes);
    println!("    wait for a peer that does not read: {waiting:?} bytes");
    assert!(!waiting.contains(&0) && (most - 4000..=most).contains(&waiting.iter().sum()), "{waiting:?}");
    assert_eq!(z.parts.flows.find(to_stalled.id).unwrap().queued as usize, waiting.iter().sum::<usize>());
    // All that did not fail comes, and there is room again.
    let failed: usize = z.seats.iter().map(|seat| seat.failed().len()).sum();
    z.until(&mut stalled, put - failed);
    (0..2).for_each(|_| z.seats.iter_mut().for_each(Seat::turn));
    assert_eq!((waits(&z), z.parts.flows.find(to_stalled.id).unwrap().queued), (vec![0, 0], 0));
}

fn what_one_of_two_left_open_leaves_with_its_successor() {
    // M29, over associations of either socket.
    let mut z = Pair::new();
    let (mut peers, mut flows) = (Vec::new(), Vec::new());
    let sockets = z.sockets.listeners()[0].sockets(0).len();
    let of_all = |z: &Pair, flows: &[(Flow, usize)]| {
        let number = |(flow, _): &(Flow, usize)| z.parts.flows.find(flow.id).unwrap().owner;
        (0..sockets).all(|socket| flows.iter().map(number).any(|owner| owner == socket))
    };
    // Which one an association comes to is the kernel's choice (M15).
    while peers.len() < 8 || !of_all(&z, &flows) {
        let mut peer = Peer::new();
        flows.push(z.associate(&mut peer));
        peers.push(peer);
    }
    let dead = child(|| {
        for (flow, _) in &flows {
            assert!(z.parts.open_associations.note(0, 0, flow.association));
            let info = Some(SndInfo { unordered: true, ..SndInfo::default() });
            let item = Item { to: To::Association(flow.association), pieces: [b"held back", b""], sctp: info };
            let (sent, error) = Sender::new(1).send(socket_of(&z.seats[0], &z.sockets, *flow), 1, true, |_| item);
            assert!(sent == 1, "{error:?}");
        }
    });
    joined(dead);
    (0..3).for_each(|_| z.seats[1].turn());
    assert!(peers.iter_mut().all(|peer| peer.read().is_empty()), "the survivor closes nothing");
    z.succeed(0);
    peers.iter_mut().for_each(|peer| z.until(peer, 1));
    assert_eq!((z.parts.open_associations.noted(0).count(), z.parts.flows.live(Transport::Sctp)), (0, peers.len()));
}

fn what_a_dead_worker_was_about_to_set_up_does_not_count() {
    // M20.
    let mut z = Pair::with(|config| config.live.limits.associations = 1);
    let (mut a, nobody) = (Peer::new(), Address::from(SocketAddr::from(([127, 0, 0, 1], 9))));
    let (limit, now) = (Limit { total: 1, per_peer: 1 }, z.seats[0].now());
    joined(child(|| {
        z.parts.flows.opening(nobody, (0, 0), limit, now).unwrap();
    }));
    let request = to(Transport::Sctp, a.at);
    z.seats[1].send(request, b"no place", client(1));
    assert_eq!((z.seats[1].failed().len(), z.parts.flows.live(Transport::Sctp)), (1, 1));
    z.succeed(0);
    assert_eq!(z.parts.flows.live(Transport::Sctp), 0);
    z.seats[1].send(request, b"its place", client(2));
    z.until(&mut a, 1);
    z.until_live(1);
    assert_eq!((z.seats[1].failed().len(), z.seats[0].lost()), (1, 0));
}

fn what_waited_at_a_dead_worker_leaves_its_room_to_the_others() {
    // M05.
    let mut z = Pair::new();
    let mut stalled = Peer::new();
    let (to_stalled, _) = z.associate(&mut stalled);
    let queued = |z: &Pair| z.parts.flows.find(to_stalled.id).unwrap().queued as usize;
    joined(child(|| {
        for n in 0..10_000 {
            z.seats[0].send(to_stalled, &[b'x'; 4000], client(n + 1));
            if !z.seats[0].failed().is_empty() {
                return;
            }
        }
        panic!("no bound");
    }));
    let most = z.config.live.limits.association_queue_bytes;
    assert!((most - 4000..=most).contains(&queued(&z)));
    let survivors = |z: &mut Pair, n| z.seats[1].send(to_stalled, &[b'y'; 4000], client(n));
    survivors(&mut z, 1);
    assert_eq!((z.seats[1].failed().len(), z.seats[1].transports.queued_bytes()), (1, 0));
    z.succeed(0);
    assert_eq!(queued(&z), 0);
    survivors(&mut z, 2);
    assert_eq!((z.seats[1].failed().len(), z.seats[1].transports.queued_bytes(), queued(&z)), (1, 4000, 4000));
    // It comes behind what the dead one had sent.
    let mut came = Vec::new();
    until("the survivor's message", || {
        z.seats.iter_mut().for_each(Seat::turn);
        came.extend(stalled.read());
        came.last().is_some_and(|(_, bytes)| bytes[0] == b'y')
    });
    z.seats.iter_mut().for_each(Seat::turn);
    assert_eq!(queued(&z), 0);
}

fn a_successor_reads_what_came_meanwhile() {
    // M31.
    let mut z = Pair::laid_out(Layout::PerWorker, |_| {});
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
