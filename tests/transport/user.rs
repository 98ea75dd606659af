//! SCTP in user space (RFC 6951) on loopback: what is counted of associations, and the limits on their number.

use std::net::SocketAddr;

use strowger::config::{Config, Stack};
use strowger::shared::counters::Counter;
use strowger::shared::flows::{Claim, Limit, State};
use strowger::transport::{Flow, Happening, Transport};

use crate::rig::Test;
use crate::seat::{Seat, client, config, to};
use crate::tests;
use crate::tunnel::TunnelPeer;

pub const TESTS: &[Test] = tests![
    each_end_of_an_association_is_counted,
    an_idle_association_is_closed_by_us,
    what_meets_a_shutdown_goes_over_a_new_association,
    what_waits_for_a_shutdown_that_never_ends_fails_with_its_association,
    what_waits_for_a_shutdown_is_bounded,
    an_association_that_cannot_be_set_up_is_counted_and_its_request_fails,
    associations_in_over_a_limit_are_aborted,
    associations_out_over_a_limit_are_not_begun,
    what_finds_no_room_is_counted_and_fails,
    what_status_says_is_right_again_when_all_is_acknowledged,
    an_entry_with_nothing_behind_it_keeps_no_message_back,
    an_association_whose_news_is_unread_is_used_and_not_aborted,
    a_reload_reaches_associations_in_user_space,
    who_spoke_and_went_at_once_is_known,
];

fn tunnelled() -> Config {
    let mut config = config(1, &[(Transport::Sctp, "127.0.0.1:0")]);
    config.listen[0].stack = Stack::User;
    config
}

/// z, where it is, and some peers, each on an address of its own and all on the UDP port that z takes for theirs.
fn house(mut config: Config, peers: u8) -> (Seat, SocketAddr, Vec<TunnelPeer>) {
    let first = TunnelPeer::on("127.0.0.2:0".parse().unwrap());
    let port = first.at.port();
    let others = (1..peers).map(|n| TunnelPeer::on(SocketAddr::from(([127, 0, 0, 2 + n], port))));
    let peers = std::iter::once(first).chain(others).collect();
    config.sctp.peer_encapsulation_port = port;
    let (z, at) = Seat::alone_with(&config);
    (z, at[0], peers)
}

#[track_caller]
fn until(z: &mut Seat, peer: &mut TunnelPeer, what: &str, is_so: impl Fn(&Seat, &TunnelPeer) -> bool) {
    z.until(what, |z| {
        peer.turn();
        is_so(z, peer)
    });
}

/// An association that the peer set up: its tag there.
fn associate(z: &mut Seat, peer: &mut TunnelPeer, at: SocketAddr) -> u32 {
    let (up, got) = (z.count(Counter::AssociationsUp), z.got.len());
    // Port 0 was asked for both: SIP's port is the tunnel's.
    let tag = peer.call(at, at.port());
    peer.send(tag, b"hello");
    until(z, peer, "up", |z, peer| z.count(Counter::AssociationsUp) > up && z.got.len() > got && peer.up == [tag]);
    tag
}

fn ends(z: &Seat) -> [u64; 3] {
    use Counter::{AssociationsClosed, AssociationsClosedByPeer, AssociationsLost};
    [AssociationsClosed, AssociationsClosedByPeer, AssociationsLost].map(|counter| z.count(counter))
}

fn each_end_of_an_association_is_counted() {
    let (mut z, at, mut peers) = house(tunnelled(), 1);
    let peer = &mut peers[0];
    let tag = associate(&mut z, peer, at);
    peer.shut_down(tag);
    until(&mut z, peer, "closed by the peer", |z, _| ends(z) == [1, 1, 0]);
    let tag = associate(&mut z, peer, at);
    peer.abort(tag);
    until(&mut z, peer, "aborted", |z, _| ends(z) == [1, 1, 1]);
    associate(&mut z, peer, at);
    let now = z.now();
    z.transports.close_all(&mut z.inbox, now);
    until(&mut z, peer, "closed by us", |z, peer| ends(z) == [2, 1, 1] && peer.closed == 2);
    assert_eq!((z.count(Counter::AssociationsUp), z.parts.flows.live(Transport::Sctp)), (3, 0));
}

fn an_idle_association_is_closed_by_us() {
    // A18.
    let mut config = tunnelled();
    config.sctp.autoclose_s = 1;
    let (mut z, at, mut peers) = house(config, 1);
    associate(&mut z, &mut peers[0], at);
    until(&mut z, &mut peers[0], "closed", |z, _| ends(z) == [1, 0, 0]);
    assert!(z.happenings.is_empty());
}

/// The peer shuts its association with z down, and does not look at z's agreement yet.
fn half_shut_down(z: &mut Seat, peer: &mut TunnelPeer, at: SocketAddr) {
    let tag = associate(z, peer, at);
    peer.shut_down(tag);
    for _ in 0..5 {
        z.turn();
    }
    assert_eq!(ends(z), [0, 0, 0], "not at its end yet");
}

fn what_meets_a_shutdown_goes_over_a_new_association() {
    // M19, A19.
    let (mut z, at, mut peers) = house(tunnelled(), 1);
    let peer = &mut peers[0];
    half_shut_down(&mut z, peer, at);
    // To the sent-by port, where the association is gone (A17).
    let response = Flow { fallback_port: peer.at.port(), ..z.got[0].from };
    z.put(to(Transport::Sctp, peer.at), b"request", client(1));
    z.put(response, b"response", None);
    z.flush();
    z.put(to(Transport::Sctp, peer.at), b"another request", client(2));
    z.flush();
    assert!(z.transports.queued_bytes() >= "requestresponseanother request".len());
    until(&mut z, peer, "all of it", |z, peer| peer.got.len() == 3 && z.count(Counter::AssociationsUp) == 2);
    let mut got: Vec<_> = peer.got.iter().map(|(_, bytes)| &bytes[..]).collect();
    got.sort_unstable();
    assert_eq!(got, [&b"another request"[..], b"request", b"response"]);
    assert_eq!((ends(&z), z.transports.queued_bytes()), ([1, 1, 0], 0));
    assert!(z.failed().is_empty() && z.count(Counter::QueueFull) == 0, "{:?}", z.happenings);
}

fn what_waits_for_a_shutdown_that_never_ends_fails_with_its_association() {
    let mut config = tunnelled();
    config.sctp.asocmaxrxt = 2;
    let (mut z, at, mut peers) = house(config, 1);
    let peer = &mut peers[0];
    half_shut_down(&mut z, peer, at);
    z.send(to(Transport::Sctp, peer.at), b"request", client(1));
    // The peer says nothing more.
    z.until("given up", |z| z.count(Counter::AssociationsLost) == 1);
    assert!(z.happenings.iter().any(|news| matches!(news, Happening::Lost { .. })), "{:?}", z.happenings);
    for _ in 0..5 {
        z.turn();
    }
    assert_eq!((z.transports.queued_bytes(), z.count(Counter::AssociationFailed)), (0, 0), "it was not sent again");
}

fn what_waits_for_a_shutdown_is_bounded() {
    let mut config = tunnelled();
    config.live.limits.association_queue_bytes = 2_000;
    let (mut z, at, mut peers) = house(config, 1);
    let peer = &mut peers[0];
    half_shut_down(&mut z, peer, at);
    for n in 0..3 {
        z.send(to(Transport::Sctp, peer.at), &[b'x'; 900], client(n));
    }
    assert_eq!((z.failed(), z.count(Counter::QueueFull)), (vec![client(2).unwrap()], 1));
    until(&mut z, peer, "two requests", |_, peer| peer.got.len() == 2);
}

fn an_association_that_cannot_be_set_up_is_counted_and_its_request_fails() {
    // A19. The host is there, and has no such SCTP port: ABORT (RFC 9260 §8.4).
    let (mut z, _, mut peers) = house(tunnelled(), 1);
    let nobody = SocketAddr::new(peers[0].at.ip(), 9);
    z.send(to(Transport::Sctp, nobody), b"request", client(1));
    until(&mut z, &mut peers[0], "failed", |z, _| z.count(Counter::AssociationFailed) == 1);
    let [Happening::Lost { transport: Transport::Sctp, peers: lost, .. }] = &z.happenings[..] else {
        panic!("{:?}", z.happenings)
    };
    assert_eq!((&lost[..], ends(&z)), (&[nobody.into()][..], [0, 0, 0]));
}

fn associations_in_over_a_limit_are_aborted() {
    for (total, per_peer) in [(2, 50), (50, 2)] {
        let mut config = tunnelled();
        (config.live.limits.associations, config.live.limits.associations_per_peer) = (total, per_peer);
        let (mut z, at, _) = house(config, 1);
        // One IP address, and a port for each.
        let mut peers: Vec<_> = (0..3).map(|_| TunnelPeer::on("127.0.0.9:0".parse().unwrap())).collect();
        for peer in &mut peers[..2] {
            associate(&mut z, peer, at);
        }
        let tag = peers[2].call(at, at.port());
        peers[2].send(tag, b"one too many");
        until(&mut z, &mut peers[2], "refused", |_, peer| peer.lost == 1);
        assert_eq!((z.count(Counter::AssociationsRefused), z.count(Counter::AssociationsUp)), (1, 2));
        assert_eq!((z.parts.flows.live(Transport::Sctp), z.got.len()), (2, 2), "and nothing of it was heard");
    }
}

fn associations_out_over_a_limit_are_not_begun() {
    let mut config = tunnelled();
    config.live.limits.associations = 3;
    let (mut z, at, mut peers) = house(config, 5);
    associate(&mut z, &mut peers[0], at);
    // All in one turn: what is still being set up counts, too.
    for (n, peer) in peers.iter().enumerate().skip(1) {
        z.put(to(Transport::Sctp, peer.at), b"request", client(n as u32));
    }
    z.flush();
    assert_eq!(z.failed(), [client(3).unwrap(), client(4).unwrap()]);
    assert!(z.happenings.iter().all(|news| matches!(news, Happening::SendFailed { .. })), "{:?}", z.happenings);
    assert_eq!((z.count(Counter::AssociationsRefused), z.count(Counter::SendFailed)), (2, 2));
    z.until("two more", |z| {
        peers.iter_mut().for_each(TunnelPeer::turn);
        z.count(Counter::AssociationsUp) == 3
    });
    assert!(peers[3].endpoint.is_empty() && peers[4].endpoint.is_empty(), "not even an INIT came");
    // What is there already is used.
    z.send(to(Transport::Sctp, peers[1].at), b"request", client(9));
    until(&mut z, &mut peers[1], "two requests", |_, peer| peer.got.len() == 2);
    assert_eq!(z.failed().len(), 2);
}

fn what_finds_no_room_is_counted_and_fails() {
    let (mut z, at, mut peers) = house(tunnelled(), 1);
    associate(&mut z, &mut peers[0], at);
    // It reads nothing from now on.
    for n in 1..=100 {
        z.put(to(Transport::Sctp, peers[0].at), &[b'x'; 4000], client(n));
    }
    z.flush();
    let full = z.count(Counter::QueueFull);
    assert!(full > 0 && full == z.failed().len() as u64, "{full}, {:?}", z.failed());
    assert!(z.transports.queued_bytes() <= 256 << 10);
}

fn what_status_says_is_right_again_when_all_is_acknowledged() {
    let (mut z, at, mut peers) = house(tunnelled(), 1);
    associate(&mut z, &mut peers[0], at);
    let flow = |z: &Seat| z.parts.flows.find_by_peer(Transport::Sctp, peers[0].at.into()).unwrap();
    let first = flow(&z).path;
    assert!(first.cwnd > 0 && first.peer_window > 0, "{first:?}");
    z.skew = 2_000; // what was said in the last second is not said again
    for _ in 0..20 {
        z.put(to(Transport::Sctp, peers[0].at), &[b'x'; 4000], None);
    }
    z.flush();
    let busy = flow(&z);
    assert!(busy.path.unacknowledged >= 20 && busy.queued > 20_000, "{busy:?}");
    assert!(busy.sent == 20 && busy.path.srtt_us > 0);
    until(&mut z, &mut peers[0], "all of it", |_, peer| peer.got.len() == 20);
    let peer = &mut peers[0];
    z.until("its owner's news", |z| {
        peer.turn();
        let flow = z.parts.flows.find_by_peer(Transport::Sctp, peer.at.into()).unwrap();
        (flow.path.unacknowledged, flow.queued) == (0, 0)
    });
}

fn an_entry_with_nothing_behind_it_keeps_no_message_back() {
    let (mut z, _, mut peers) = house(tunnelled(), 1);
    let peer = peers[0].address();
    let limit = Limit { total: 100, per_peer: 50 };
    let claimed = z.parts.flows.claim(Transport::Sctp, peer, 0, 0, limit, z.now());
    assert!(matches!(claimed, Claim::Mine(_)), "{claimed:?}");
    z.send(to(Transport::Sctp, peers[0].at), b"request", client(1));
    assert!(z.failed().is_empty(), "{:?}", z.happenings);
    until(&mut z, &mut peers[0], "the request", |_, peer| peer.got.len() == 1);
    assert_eq!(z.parts.flows.live(Transport::Sctp), 1);
}

fn an_association_whose_news_is_unread_is_used_and_not_aborted() {
    let (mut z, at, mut peers) = house(tunnelled(), 2);
    for peer in &mut peers {
        let tag = peer.call(at, at.port());
        peer.send(tag, b"hello");
    }
    z.receive_without_room();
    peers.iter_mut().for_each(TunnelPeer::turn);
    // Of this batch the first's message finds no room, and behind it waits that the second is up.
    z.receive_without_room();
    assert_eq!((z.count(Counter::AssociationsUp), z.parts.flows.live(Transport::Sctp)), (1, 1));
    assert!(z.parts.flows.find_by_peer(Transport::Sctp, peers[1].address()).is_none());
    z.send(to(Transport::Sctp, peers[1].at), b"request", client(1));
    z.until("both messages, and the request", |z| {
        peers.iter_mut().for_each(TunnelPeer::turn);
        z.got.len() == 2 && peers[1].got.len() == 1
    });
    assert_eq!((peers[1].lost, peers[1].up.len(), z.failed().len()), (0, 1, 0));
    assert_eq!((z.count(Counter::AssociationsUp), z.parts.flows.live(Transport::Sctp)), (2, 2));
    // Its flow is the association's: what comes back names it.
    let flow = z.parts.flows.find_by_peer(Transport::Sctp, peers[1].address()).unwrap();
    assert!(flow.state == State::Open && z.got.iter().any(|got| got.from.id == flow.id), "{flow:?}");
    z.send(to(Transport::Sctp, peers[1].at), b"another", client(2));
    until(&mut z, &mut peers[1], "another", |_, peer| peer.got.len() == 2);
}

fn a_reload_reaches_associations_in_user_space() {
    let mut config = tunnelled();
    let wide = config.live.clone();
    (config.live.limits.message_bytes, config.live.limits.association_queue_bytes) = (2_000, 4_096);
    let (mut z, at, mut peers) = house(config, 2);
    associate(&mut z, &mut peers[0], at);
    z.send(to(Transport::Sctp, peers[0].at), &[b'x'; 3_000], client(1));
    assert_eq!(z.failed(), [client(1).unwrap()], "too long");
    z.transports.reload(&wide);
    z.happenings.clear();
    // One that is there takes longer messages; one that begins has a longer queue, too.
    z.send(to(Transport::Sctp, peers[0].at), &[b'x'; 3_000], client(2));
    (3..13).for_each(|n| z.put(to(Transport::Sctp, peers[1].at), &[b'x'; 9_000], client(n)));
    z.flush();
    assert!(z.failed().is_empty(), "{:?}", z.happenings);
    z.until("all of it", |_| {
        peers.iter_mut().for_each(TunnelPeer::turn);
        (peers[0].got.len(), peers[1].got.len()) == (1, 10)
    });
}

fn who_spoke_and_went_at_once_is_known() {
    let (mut z, at, mut peers) = house(tunnelled(), 1);
    let peer = &mut peers[0];
    let tag = peer.call(at, at.port());
    peer.send(tag, b"hello");
    z.receive_without_room();
    // COOKIE ECHO with the message, and ABORT: z reads them in one batch.
    peer.turn();
    peer.abort(tag);
    z.until_got(1);
    assert_eq!((z.got[0].from.peer, ends(&z)), (peer.address(), [0, 0, 1]));
}
