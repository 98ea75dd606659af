//! SCTP in user space with two workers. The kernel gives a packet to the one or the other by its UDP addresses, and an association
//! belongs to the one that set it up: packets that come to the wrong one, and what becomes of associations whose worker dies.

use std::net::SocketAddr;

use strowger::config::{Config, Stack};
use strowger::shared::counters::Counter;
use strowger::shared::flows::FlowView;
use strowger::transport::sctp::user::endpoint::packet;
use strowger::transport::{Happening, Parts, Sockets, Transport};

use crate::rig::Test;
use crate::seat::{Got, Seat, client, config, parts, to};
use crate::tests;
use crate::tunnel::TunnelPeer;

pub const TESTS: &[Test] = tests![
    packets_at_the_wrong_seat_are_posted_to_the_owner,
    a_peer_that_moves_to_the_wrong_seat_keeps_its_association,
    what_is_posted_behind_an_abort_goes_over_the_next_association,
    a_peer_of_two_listeners_is_known_on_each_by_that_ones_association,
    packets_leave_half_of_a_mailbox_to_messages,
    a_dead_workers_associations_are_aborted_and_the_others_live_on,
    a_request_that_waits_for_a_shutdown_is_told_of_when_its_worker_dies,
];

struct House {
    config: Config,
    sockets: Sockets,
    parts: Parts,
    seats: Vec<Seat>,
    /// SIP's SCTP port, and UDP's as well: port 0 was asked for both.
    at: SocketAddr,
    peers: Vec<TunnelPeer>,
}

impl House {
    /// Peers have an address each, and all the UDP port that is taken for theirs.
    fn new(peers: u8) -> House {
        House::with_listeners(1, peers)
    }

    fn with_listeners(listeners: usize, peers: u8) -> House {
        let mut config = config(2, &vec![(Transport::Sctp, "127.0.0.1:0"); listeners]);
        config.listen.iter_mut().for_each(|listen| listen.stack = Stack::User);
        let first = TunnelPeer::on("127.0.0.2:0".parse().unwrap());
        config.sctp.peer_encapsulation_port = first.at.port();
        let others = (1..peers).map(|n| TunnelPeer::on(SocketAddr::from(([127, 0, 0, 2 + n], first.at.port()))));
        let others: Vec<_> = others.collect();
        let sockets = Sockets::open(&config).unwrap();
        let (at, parts) = (sockets.listeners()[0].addresses[0], parts(3, 1 << 20));
        let mut house = House { config, sockets, parts, seats: Vec::new(), at, peers: Vec::new() };
        house.peers = std::iter::once(first).chain(others).collect();
        house.seats = vec![house.seat(0), house.seat(1)];
        house
    }

    fn seat(&self, seat: usize) -> Seat {
        let mut seat = Seat::new(&self.config, &self.sockets, self.parts, seat);
        seat.wait_ms = 1;
        seat
    }

    fn turn(&mut self) {
        self.seats.iter_mut().for_each(Seat::turn);
        self.peers.iter_mut().for_each(TunnelPeer::turn);
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

    fn count(&self, counter: Counter) -> [u64; 2] {
        [0, 1].map(|seat| self.parts.counters.of(seat, counter))
    }

    fn flow(&self, peer: usize) -> FlowView {
        self.parts.flows.find_by_peer(Transport::Sctp, self.peers[peer].address()).expect("an association")
    }

    /// A seat sends a request to a peer, over a new association.
    fn request(&mut self, seat: usize, peer: usize) {
        let hop = to(Transport::Sctp, self.peers[peer].at);
        self.seats[seat].send(hop, b"request", client(peer as u32));
    }

    /// The worker in this seat dies; the next one begins.
    fn succeed(&mut self, seat: usize) -> Vec<Happening> {
        self.seats[seat] = self.seat(seat);
        let successor = &mut self.seats[seat];
        successor.transports.adopt(&mut successor.inbox);
        std::mem::take(&mut successor.inbox.happenings)
    }

    /// The first peer calls, and moves from UDP port to UDP port until its packets come to the other seat: its tag, and the seat that
    /// has its association.
    fn at_the_wrong_seat(&mut self) -> (u32, usize) {
        let tag = self.peers[0].call(self.at, self.at.port());
        self.peers[0].send(tag, b"hello");
        self.until("a message", |house| house.got() == [1, 0] || house.got() == [0, 1]);
        let owner = self.flow(0).owner;
        self.move_from(owner, tag);
        (tag, owner)
    }

    /// The first peer moves until its packets come to the seat that does not have this association.
    fn move_from(&mut self, owner: usize, tag: u32) {
        let posted = self.count(Counter::Posted)[1 - owner];
        while self.count(Counter::Posted)[1 - owner] == posted {
            self.peers[0].move_away();
            let before = self.got()[owner];
            self.peers[0].send(tag, b"from elsewhere");
            self.until("a message", |house| house.got()[owner] > before);
        }
    }

    fn got(&self) -> [usize; 2] {
        [0, 1].map(|seat| self.seats[seat].got.len())
    }
}

fn packets_at_the_wrong_seat_are_posted_to_the_owner() {
    // So many that not all can come to the right one by chance.
    let mut house = House::new(24);
    let all = house.peers.len();
    (0..all).for_each(|peer| house.request(0, peer));
    house.until("requests", |house| house.peers.iter().all(|peer| peer.got.len() == 1));
    house.peers.iter_mut().for_each(|peer| peer.send(peer.up[0], b"response"));
    house.until("responses", |house| house.got() == [all, 0]);
    assert_eq!(house.count(Counter::AssociationsUp), [all as u64, 0]);
    let [came, posted] = [Counter::SctpPackets, Counter::Posted].map(|counter| house.count(counter));
    assert!(
        came[1] >= 3 && posted == [0, came[1]],
        "each that came to the wrong seat was posted: {came:?}, {posted:?}"
    );
    for nothing in [Counter::OutOfTheBlue, Counter::AssociationsLost, Counter::SctpDamaged, Counter::ForgedCookies] {
        assert_eq!(house.count(nothing), [0, 0], "{nothing:?}");
    }
}

fn a_peer_that_moves_to_the_wrong_seat_keeps_its_association() {
    // RFC 6951 §5.4: a NAT may give it another port at any time.
    let mut house = House::new(1);
    let (_, owner) = house.at_the_wrong_seat();
    assert_eq!(house.count(Counter::AssociationsUp).iter().sum::<u64>(), 1);
    let back = house.seats[owner].got[0].from;
    house.seats[1 - owner].send(back, b"to where it is now", None);
    house.until("a message", |house| house.peers[0].got.len() == 1);
    // One that has forgotten everything says INIT, under tag 0: known by its address.
    house.peers[0].restart();
    let tag = house.peers[0].call(house.at, house.at.port());
    house.peers[0].send(tag, b"after the restart");
    house.until("a message", |house| house.seats[owner].got.iter().any(|got| got.bytes == b"after the restart"));
    assert_eq!((house.parts.flows.live(Transport::Sctp), house.flow(0).owner), (1, owner));
    assert!(house.seats[owner].lost() == 1 && house.seats[1 - owner].got.is_empty());
}

fn what_is_posted_behind_an_abort_goes_over_the_next_association() {
    // A19: what was never sent over the one that ended has not failed with it.
    let mut house = House::new(1);
    let (tag, owner) = house.at_the_wrong_seat();
    let (peer, other, old) = (house.peers[0].at, 1 - owner, house.flow(0).id);
    let posted = house.count(Counter::Posted)[other];
    house.peers[0].abort(tag);
    house.peers[0].turn();
    while house.count(Counter::Posted)[other] == posted {
        house.seats[other].turn();
    }
    house.seats[other].send(to(Transport::Sctp, peer), b"request", client(1));
    assert_eq!(house.count(Counter::Posted)[other], posted + 2);
    house.seats[owner].turn();
    let told = &house.seats[owner].happenings;
    let moved = |news: &Happening| matches!(news, Happening::Moved { client: its } if Some(*its) == client(1));
    assert!(told.iter().any(moved) && house.seats[owner].failed().is_empty(), "{told:?}");
    assert_ne!(house.flow(0).id, old);
}

fn a_peer_of_two_listeners_is_known_on_each_by_that_ones_association() {
    let mut house = House::with_listeners(2, 1);
    let at = house.sockets.listeners()[1].addresses[0];
    let tag = house.peers[0].call(at, at.port());
    house.peers[0].send(tag, b"hello");
    house.until("a message", |house| house.got() == [1, 0] || house.got() == [0, 1]);
    let owner = house.flow(0).owner;
    // Over the first listener the other seat has one with it, which is newer.
    house.request(1 - owner, 0);
    house.until("the request", |house| house.peers[0].got.len() == 1 && house.count(Counter::AssociationsUp) == [1, 1]);
    house.move_from(owner, tag);
    house.peers[0].restart();
    let tag = house.peers[0].call(at, at.port());
    house.peers[0].send(tag, b"after the restart");
    let heard = |got: &Got| got.bytes == b"after the restart";
    house.until("a message", |house| house.seats.iter().any(|seat| seat.got.iter().any(heard)));
    assert!(house.seats[owner].got.iter().any(heard), "its owner does not know of the restart");
    assert_eq!((house.parts.flows.live(Transport::Sctp), house.seats[owner].lost()), (2, 1));
}

fn packets_leave_half_of_a_mailbox_to_messages() {
    let mut house = House::new(1);
    let (_, owner) = house.at_the_wrong_seat();
    let (peer, other) = (house.peers[0].at, 1 - owner);
    // HEARTBEATs of 20 kB, which nobody answers: the answer would not fit into a packet.
    let value = [&[0, 1, 0x4e, 0x20][..], &[0; 20_000 - 4]].concat();
    let flood = packet::build(peer.port(), house.at.port(), house.flow(0).association, 4, 0, &value);
    let undone = |house: &House| house.parts.mailboxes.undone((other, owner));
    for _ in 0..100 {
        house.peers[0].send_raw(house.at, &flood);
        house.seats[other].turn();
    }
    assert!((1 << 19..(1 << 19) + 21_000).contains(&undone(&house)), "{}", undone(&house));
    assert!(house.count(Counter::MailboxFull)[other] > 0);
    house.seats[other].send(to(Transport::Sctp, peer), &[b'x'; 20_000], client(1));
    assert!(house.seats[other].failed().is_empty());
    house.until("the message", |house| house.peers[0].got.len() == 1);
    assert_eq!(undone(&house), 0);
}

fn a_dead_workers_associations_are_aborted_and_the_others_live_on() {
    let mut house = House::new(12);
    let (dying, living) = (0..6, 6..12);
    dying.clone().for_each(|peer| house.request(0, peer));
    living.clone().for_each(|peer| house.request(1, peer));
    house.until("requests", |house| house.peers.iter().all(|peer| peer.got.len() == 1));
    house.until("COOKIE ACK", |house| house.count(Counter::AssociationsUp) == [6, 6]);
    // What comes for the dead one while nobody sits there waits in its socket and in its mailbox. The others say nothing.
    house.peers[..3].iter_mut().for_each(|peer| peer.send(peer.up[0], b"too late"));
    house.seats[1].turn();
    let told = house.succeed(0);
    assert_eq!(told.len(), 6, "{told:?}");
    for peer in dying.clone() {
        let died = |news: &Happening| matches!(news, Happening::OwnerDied { peers, .. } if peers[..] == [house.peers[peer].address()]);
        assert!(told.iter().any(died), "{told:?}");
    }
    house.until("ABORT", |house| dying.clone().all(|peer| house.peers[peer].lost == 1));
    assert_eq!((house.parts.flows.live(Transport::Sctp), house.count(Counter::AssociationsLost)), (6, [6, 0]));
    // The others go on, in both directions; to these there are new ones.
    dying.clone().for_each(|peer| house.request(0, peer));
    living.clone().for_each(|peer| house.request(0, peer));
    house.peers[living.clone()].iter_mut().for_each(|peer| peer.send(peer.up[0], b"still there"));
    house.until("more requests", |house| house.peers.iter().all(|peer| peer.got.len() == 2));
    house.until("messages", |house| house.got() == [0, 6]);
    assert!(living.clone().all(|peer| house.peers[peer].lost == 0 && house.flow(peer).owner == 1));
    assert!(dying.clone().all(|peer| house.peers[peer].lost == 1 && house.flow(peer).owner == 0));
    house.until("COOKIE ACK", |house| house.count(Counter::AssociationsUp) == [12, 6]);
}

/// It is in shared memory: `owner_died` lets the transactions send it again (`calls_survive_the_death_of_the_worker_that_owns_the_trunk`).
fn a_request_that_waits_for_a_shutdown_is_told_of_when_its_worker_dies() {
    let mut house = House::new(1);
    let tag = house.peers[0].call(house.at, house.at.port());
    house.peers[0].send(tag, b"hello");
    house.until("a message", |house| house.got().iter().sum::<usize>() == 1);
    let owner = house.flow(0).owner;
    house.peers[0].shut_down(tag);
    // The peer does not look at the answer.
    (0..5).for_each(|_| house.seats.iter_mut().for_each(Seat::turn));
    house.request(owner, 0);
    assert!(house.seats[owner].transports.queued_bytes() >= b"request".len());
    let told = house.succeed(owner);
    let [Happening::OwnerDied { peers, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(peers[..], [house.peers[0].address()]);
    // What the transactions do then.
    house.request(owner, 0);
    house.until("the request", |house| house.peers[0].got.len() == 1);
}
