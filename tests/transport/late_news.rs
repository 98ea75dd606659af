//! News of an association's end that is read when the next one with its peer is there already: kernel SCTP on loopback. What was sent
//! over the one fails, what was sent over the other does not. `FlowView::begun` tells them apart (see `worker::round`).

use std::net::SocketAddr;
use std::os::fd::AsFd;

use strowger::shared::flows::FlowView;
use strowger::timer::Tick;
use strowger::transport::{Happening, Transport};

use crate::in_both_layouts;
use crate::layout::Pair;
use crate::rig::{Test, until};
use crate::sctp::Peer;
use crate::seat::{Seat, client, to};

pub const TESTS: &[Test] = in_both_layouts![
    a_failed_set_up_is_told_apart_from_the_next_one,
    a_lost_association_is_told_apart_from_the_next_one,
    a_lost_association_that_nobody_knew_is_told_apart_from_the_next_one,
];

impl Pair {
    /// A worker sends a request by address: when. Time passes.
    fn request(&mut self, seat: usize, peer: SocketAddr) -> Tick {
        self.seats[seat].send(to(Transport::Sctp, peer), b"request", client(seat as u32 + 1));
        let sent = self.seats[seat].now();
        self.seats.iter_mut().for_each(|seat| seat.skew += 1000);
        sent
    }

    /// Waits until the kernel has so many associations. Nobody reads of them.
    fn until_kernel_has(&self, n: usize) {
        let sockets = self.sockets.listeners()[0].sockets(0);
        let count = || sockets.iter().map(|fd| sys::sctp::association_count(fd.as_fd()).unwrap()).sum::<usize>();
        until("associations", || count() == n);
    }

    /// Both read all that there is: the association of which they hear that it ended, and the one that there is now.
    fn read_all(&mut self, peer: &mut Peer) -> (u32, FlowView) {
        self.until(peer, 1);
        (0..5).for_each(|_| self.seats.iter_mut().for_each(Seat::turn));
        let news: Vec<_> = self.seats.iter().flat_map(|seat| &seat.happenings).collect();
        let [Happening::Lost { peers, id, association, .. }] = news[..] else { panic!("{news:?}") };
        assert_eq!(peers[..], [peer.at.into()]);
        let newer = self.parts.flows.find_by_peer(Transport::Sctp, peer.at.into()).expect("the new one");
        assert!(newer.id != *id && newer.association > *association);
        assert_eq!(self.parts.flows.live(Transport::Sctp), 1);
        (*association, newer)
    }
}

fn a_failed_set_up_is_told_apart_from_the_next_one() {
    // A19, M01, M27.
    let mut z = Pair::new();
    let at = Peer::new().at;
    let first = z.request(0, at);
    z.until_kernel_has(0);
    // It comes back before anybody has read that it was not there.
    let mut peer = Peer::at(at);
    let second = z.request(1, at);
    let (_, newer) = z.read_all(&mut peer);
    assert!(first < newer.begun && newer.begun <= second, "{first:?} {newer:?} {second:?}");
}

fn a_lost_association_is_told_apart_from_the_next_one() {
    // A19, M27.
    let mut z = Pair::new();
    let mut peer = Peer::new();
    let (old, _) = z.associate(&mut peer);
    let first = z.request(0, peer.at);
    let (lost, newer, second) = replaced(&mut z, &mut peer);
    assert_eq!(lost, old.association);
    assert!(first < newer.begun && newer.begun <= second, "{first:?} {newer:?} {second:?}");
}

fn a_lost_association_that_nobody_knew_is_told_apart_from_the_next_one() {
    // A19, M27.
    let mut z = Pair::new();
    let mut peer = Peer::new();
    peer.send(z.at, b"hello");
    z.until_kernel_has(1);
    let first = z.request(0, peer.at);
    let (_, newer, second) = replaced(&mut z, &mut peer);
    assert!(first < newer.begun && newer.begun <= second, "{first:?} {newer:?} {second:?}");
}

/// The peer aborts its association, sets up another one, and a worker sends over that, before anybody reads of either.
fn replaced(z: &mut Pair, peer: &mut Peer) -> (u32, FlowView, Tick) {
    peer.abort();
    z.until_kernel_has(0);
    peer.read();
    peer.send(z.at, b"again");
    z.until_kernel_has(1);
    let sent = z.request(0, peer.at);
    let (lost, newer) = z.read_all(peer);
    (lost, newer, sent)
}
