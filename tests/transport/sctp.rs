//! Kernel SCTP on loopback, in both layouts: with one worker and one socket, and with two workers that have each their own. Skipped, and said so, where the kernel has none.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use strowger::config::{Config, Layout, NextHop, Stack, Target};
use strowger::message::branch::{self, BranchId};
use strowger::shared::counters::Counter;
use strowger::transport::{Flow, FlowId, Happening, Sockets, Transport};
use sys::datagram::{Arena, Item, Received, Receiver, Sender, SndInfo, To};
use sys::sctp::{AssociationState, Notification, Settings, parse_notification};

use crate::in_both_layouts;
use crate::rig::{Test, child, joined, pause};
use crate::seat::{self, Seat, client, parts, to};
use crate::tunnel::TunnelPeer;

pub const TESTS: &[Test] = in_both_layouts![
    messages_go_both_ways_on_stream_0_unordered,
    messages_go_on_the_stream_and_in_the_order_that_is_configured,
    a_request_reuses_the_association_of_its_peer,
    each_message_of_a_batch_is_counted,
    a_ping_is_answered,
    a_peer_that_is_not_there_is_lost_and_its_requests_fail,
    a_stalled_peer_does_not_stop_another,
    what_waits_for_a_peer_that_restarts_is_lost_and_never_sent,
    a_message_in_pieces_aborts_its_association_and_no_other,
    a_turns_messages_are_bundled,
    what_a_dead_worker_left_open_leaves_with_its_successor,
    an_idle_association_is_closed_and_nothing_fails,
    a_request_meets_a_shutdown_and_goes_over_a_new_association,
    associations_over_the_limit_are_aborted,
    associations_out_over_the_limit_are_not_begun,
    associations_out_over_the_limit_of_one_peer_are_not_begun,
    unread_associations_of_another_listener_count,
    what_could_not_be_set_up_does_not_count,
    what_outlived_its_time_failed_and_its_association_did_not,
    a_response_whose_association_is_gone_goes_to_the_sent_by_port,
    responses_whose_association_is_gone_are_not_held_back_for_one_another,
    a_peer_is_found_by_its_second_address,
    an_ipv6_peer_is_served_and_called,
    the_address_that_is_named_first_is_the_primary_one,
    a_refused_peers_message_is_not_heard_and_no_response_opens_what_is_refused,
    a_drained_daemon_shuts_its_associations_down,
];

/// A daemon in the layout of this test.
fn config(listen: &[(Transport, &str)]) -> Config {
    let layout = seat::layout();
    let mut config = seat::config(if layout == Layout::Shared { 1 } else { 2 }, listen);
    config.sctp.layout = layout;
    config
}

fn daemon(listen: &[(Transport, &str)]) -> (Seat, Vec<SocketAddr>) {
    Seat::alone_with(&config(listen))
}

pub const LISTEN: &[(Transport, &str)] = &[(Transport::Sctp, "127.0.0.1:0")];

/// Another proxy or phone.
pub struct Peer {
    fd: OwnedFd,
    pub at: SocketAddr,
    arena: Arena,
    receiver: Receiver,
    sender: Sender,
    up: u32,
}

impl Peer {
    pub fn new() -> Peer {
        Peer::at("127.0.0.1:0".parse().unwrap())
    }

    /// At this address.
    pub fn at(address: SocketAddr) -> Peer {
        Peer::on(&address.to_string(), &Settings { nodelay: true, fragment_interleave: 1, ..Settings::default() })
    }

    fn on(addresses: &str, settings: &Settings) -> Peer {
        let addresses: Vec<_> = addresses.split(' ').map(|address| address.parse().unwrap()).collect();
        let (fd, _) = sys::sctp::one_to_many(&addresses, settings, false).unwrap();
        let at = sys::local_address(&fd).unwrap();
        let arena = Arena::new(8, 70_000).unwrap();
        Peer { fd, at, arena, receiver: Receiver::new(8), sender: Sender::new(8), up: 0 }
    }

    pub fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        let info = Some(SndInfo { unordered: true, ..SndInfo::default() });
        let item = Item { to: To::Peer(to), pieces: [bytes, b""], sctp: info };
        let (sent, error) = self.sender.send(self.fd.as_fd(), 1, false, |_| item);
        assert!(sent == 1, "{error:?}");
    }

    /// The messages that are there now; notes associations that came up.
    pub fn read(&mut self) -> Vec<(Received, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let n = self.receiver.receive(self.fd.as_fd(), &mut self.arena, 0, 8).unwrap();
            if n == 0 {
                return all;
            }
            for i in 0..n {
                let received = self.receiver.get(i);
                let bytes = &self.arena.slot(received.slot)[..received.len];
                if !received.notification {
                    all.push((received, bytes.to_vec()));
                } else if let Some(Notification::AssociationChange { state, association, .. }) =
                    parse_notification(bytes)
                {
                    match state {
                        AssociationState::Up => self.up = association,
                        _ if association == self.up => self.up = 0,
                        _ => {}
                    }
                }
            }
        }
    }

    /// What came before is read, and dropped.
    pub fn abort(&mut self) {
        self.read();
        sys::sctp::abort(self.fd.as_fd(), self.up).unwrap();
    }

    fn until(&mut self, z: &mut Seat, n: usize) -> Vec<(Received, Vec<u8>)> {
        let mut all = Vec::new();
        z.until("messages at the peer", |_| {
            all.append(&mut self.read());
            all.len() >= n
        });
        all
    }
}

/// An association that `a` set up, seen from z.
fn associate(a: &mut Peer, z: &mut Seat, at: SocketAddr) -> Flow {
    a.send(at, b"hello");
    let before = z.got.len();
    z.until_got(before + 1);
    a.until(z, 0);
    z.got.last().unwrap().from
}

/// The socket that its association belongs to.
pub fn socket_of<'s>(z: &Seat, sockets: &'s Sockets, flow: Flow) -> BorrowedFd<'s> {
    let number = z.parts.flows.find(flow.id).unwrap().owner;
    sockets.listeners()[0].sockets(0)[number].as_fd()
}

/// A request with our branch.
fn request(id: BranchId) -> Vec<u8> {
    let mut bytes = b"OPTIONS sip:z SIP/2.0\r\nVia: SIP/2.0/SCTP a.test;branch=".to_vec();
    let key = branch::Key([1, 2]);
    branch::write(&mut bytes, &key, id, 5, b"z9hG4bKup");
    bytes.extend_from_slice(b";x\r\n\r\n");
    bytes
}

fn messages_go_both_ways_on_stream_0_unordered() {
    let (mut z, at) = daemon(LISTEN);
    let mut a = Peer::new();
    let from = associate(&mut a, &mut z, at[0]);
    assert_eq!((z.got[0].text().as_str(), SocketAddr::from(from.peer)), ("hello", a.at));
    assert!(from.association != 0 && from.id != FlowId::NONE);
    z.send(from, b"response", None);
    let (received, bytes) = a.until(&mut z, 1).remove(0);
    let info = received.info.unwrap();
    assert_eq!((&bytes[..], info.stream, info.unordered, info.ppid), (&b"response"[..], 0, true, 0)); // A06, A08
    let flow = z.parts.flows.find(from.id).unwrap();
    assert_eq!((flow.association, flow.peers[0]), (from.association, a.at.into()));
    // And set up by us (M01): the first message is not lost.
    let mut b = Peer::new();
    z.send(to(Transport::Sctp, b.at), b"request", client(1));
    assert_eq!(b.until(&mut z, 1)[0].1, b"request");
    z.until("both known", |z| z.parts.flows.live(Transport::Sctp) == 2);
    assert!(z.happenings.is_empty());
}

fn messages_go_on_the_stream_and_in_the_order_that_is_configured() {
    let mut config = config(LISTEN);
    // More streams than the kernel has by itself (M35).
    (config.sctp.stream, config.sctp.unordered) = (20, false);
    let (mut z, at) = Seat::alone_with(&config);
    let mut a = Peer::new();
    let from = associate(&mut a, &mut z, at[0]);
    z.send(from, b"response", None);
    let info = a.until(&mut z, 1).remove(0).0.info.unwrap();
    assert_eq!((info.stream, info.unordered, info.ppid), (20, false, 0));
    // And over an association that we set up.
    let mut b = Peer::new();
    z.send(to(Transport::Sctp, b.at), b"request", client(1));
    let info = b.until(&mut z, 1).remove(0).0.info.unwrap();
    assert_eq!((info.stream, info.unordered), (20, false));
}

fn a_request_reuses_the_association_of_its_peer() {
    // A15, M02.
    let (mut z, at) = daemon(LISTEN);
    let mut a = Peer::new();
    let from = associate(&mut a, &mut z, at[0]);
    for n in 0..10 {
        z.send(to(Transport::Sctp, a.at), b"request", client(n));
    }
    let all = a.until(&mut z, 10);
    assert!(all.iter().all(|(received, _)| received.info.unwrap().association == a.up));
    assert_eq!(z.count(Counter::AssociationsUp), 1);
    assert_eq!(z.parts.flows.find_by_peer(Transport::Sctp, a.at.into()).map(|flow| flow.id), Some(from.id));
}

fn each_message_of_a_batch_is_counted() {
    let (mut z, at) = daemon(LISTEN);
    let [mut a, mut b] = [Peer::new(), Peer::new()];
    let flows = [&mut a, &mut b].map(|peer| associate(peer, &mut z, at[0]));
    for (to_a, to_b) in [(10, 5), (3, 0)] {
        (0..to_a).for_each(|_| a.send(at[0], b"again"));
        (0..to_b).for_each(|_| b.send(at[0], b"again"));
    }
    z.until_got(2 + 18);
    assert_eq!(flows.map(|flow| z.parts.flows.find(flow.id).unwrap().received), [14, 6]);
    assert_eq!(z.count(Counter::ReceivedSctp), 20);
}

fn a_ping_is_answered() {
    // A29.
    let (mut z, at) = daemon(LISTEN);
    let mut a = Peer::new();
    a.send(at[0], b"\r\n\r\n");
    a.send(at[0], b"\r\n");
    assert_eq!(a.until(&mut z, 1)[0].1, b"\r\n");
    z.until("counted", |z| z.count(Counter::KeepAlives) == 2);
    assert!(z.got.is_empty() && z.count(Counter::ReceivedSctp) == 0);
}

fn a_peer_that_is_not_there_is_lost_and_its_requests_fail() {
    // A19, M01.
    let (mut z, _) = daemon(LISTEN);
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let ids = [3, 4].map(|slot| BranchId { slot, generation: 70_000 + slot });
    for id in ids {
        z.put(to(Transport::Sctp, nobody), &request(id), Some(id));
    }
    z.flush();
    assert!(z.happenings.iter().all(|news| !matches!(news, Happening::Undelivered { lost: false, .. })));
    // The first may be refused before the second is sent: then it is tried, and lost, once more.
    z.until("lost", |z| z.lost() >= 1 && z.failed().len() == 2);
    assert_eq!(z.failed(), ids);
    let lost = z.happenings.iter().find_map(|h| match h {
        Happening::Lost { peers, transport, .. } => Some((peers[..].to_vec(), *transport)),
        _ => None,
    });
    assert_eq!(lost, Some((vec![nobody.into()], Transport::Sctp)));
    assert_eq!(z.count(Counter::AssociationFailed), z.lost() as u64);
}

fn a_stalled_peer_does_not_stop_another() {
    // M05, M08.
    let (mut z, at) = daemon(LISTEN);
    assert_eq!(sys::sctp::sysctl("sndbuf_policy").unwrap(), 1, "set by the daemon before the socket was made");
    let (mut stalled, mut other) = (Peer::new(), Peer::new());
    let (to_stalled, to_other) = (associate(&mut stalled, &mut z, at[0]), associate(&mut other, &mut z, at[0]));
    let mut put = 0;
    while z.count(Counter::Queued) < 20 {
        for _ in 0..20 {
            put += 1;
            z.put(to_stalled, format!("{put:0>4000}").as_bytes(), None);
            z.put(to_other, b"still here", None);
        }
        z.flush();
        assert_eq!(other.until(&mut z, 20).len(), 20);
    }
    assert!(z.transports.queued_bytes() > 0 && z.transports.next_tick().since(z.now()) <= 5);
    let all = stalled.until(&mut z, put);
    assert_eq!(all.len(), put, "nothing lost, nothing twice");
    z.until("drained", |z| z.transports.queued_bytes() == 0);
    assert_eq!(z.parts.open_associations.noted(0).count(), 0);
    // A queue has a bound.
    for n in 0..1000 {
        z.put(to_stalled, &[b'x'; 4000], client(n + 1));
    }
    z.flush();
    assert_eq!(z.failed().len() as u64, z.count(Counter::QueueFull));
    assert!(!z.failed().is_empty() && z.transports.queued_bytes() <= 256 << 10);
}

fn what_waits_for_a_peer_that_restarts_is_lost_and_never_sent() {
    // A19, M38. The peer is in user space, behind UDP: the kernel's own cannot end without a word.
    let tunnel = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    sys::sctp::set_sysctl("udp_port", i64::from(tunnel)).unwrap();
    let (mut z, at) = daemon(LISTEN);
    // One that worker 0 reads, in whose queue the requests will be: another may send before this one has read of the restart.
    let (mut peer, to) = loop {
        z.got.clear();
        let mut peer = TunnelPeer::on("127.0.0.2:0".parse().unwrap());
        let tag = peer.call(at[0], tunnel);
        z.until("an association", |_| {
            peer.turn();
            !peer.up.is_empty()
        });
        peer.send(tag, b"hello");
        z.until_got(1);
        let to = z.got[0].from;
        if z.parts.flows.find(to.id).unwrap().owner == 0 {
            break (peer, to);
        }
    };
    // Now it looks at nothing.
    let mut requests = Vec::new();
    while z.transports.queued_bytes() < 40_000 {
        let id = BranchId { slot: requests.len() as u32 + 1, generation: 7 };
        z.put(to, &[request(id), vec![b'x'; 4_000]].concat(), Some(id));
        z.flush();
        requests.push(id);
    }
    z.put(to, b"a response", None);
    z.flush();
    z.skew += 10;
    peer.restart();
    let tag = peer.call(at[0], tunnel);
    z.until("the restart", |z| {
        peer.turn();
        z.lost() == 1 && z.transports.queued_bytes() == 0
    });
    peer.send(tag, b"hello again");
    z.until("both ways", |z| {
        peer.turn();
        z.got.len() == 2 && peer.got.iter().any(|(_, bytes)| bytes == b"a response")
    });
    assert_eq!(peer.got.len(), 1, "{:?}", peer.got.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>());
    let told = z.failed();
    assert!(requests.iter().rev().take(5).all(|id| told.contains(id)), "{told:?}");
    sys::sctp::set_sysctl("udp_port", 0).unwrap();
}

fn a_message_in_pieces_aborts_its_association_and_no_other() {
    // M11, M13: the window, half of the receive buffer, is used up before the message ends.
    let mut config = config(LISTEN);
    config.sctp.socket_rcvbuf_bytes = 100_000;
    let (mut z, at) = Seat::alone_with(&config);
    let wide = Settings { nodelay: true, sndbuf: 4 << 20, ..Settings::default() };
    let (mut a, mut other) = (Peer::on("127.0.0.1:0", &wide), Peer::new());
    associate(&mut a, &mut z, at[0]);
    let to_other = associate(&mut other, &mut z, at[0]);
    a.send(at[0], &vec![b'x'; 1_000_000]);
    z.until("aborted", |z| z.count(Counter::Pieces) >= 1 && z.lost() == 1);
    assert_eq!((z.got.len(), z.parts.flows.live(Transport::Sctp)), (2, 1));
    z.send(to_other, b"still here", None);
    assert_eq!(other.until(&mut z, 1)[0].1, b"still here");
    // It may come again, with something smaller.
    a.until(&mut z, 0);
    associate(&mut a, &mut z, at[0]);
}

fn snmp(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/sctp/snmp").unwrap();
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn a_turns_messages_are_bundled() {
    let (mut z, at) = daemon(LISTEN);
    let (mut a, mut b) = (Peer::new(), Peer::new());
    let (to_a, to_b) = (associate(&mut a, &mut z, at[0]), associate(&mut b, &mut z, at[0]));
    let before = (snmp("SctpOutUnorderChunks"), snmp("SctpOutSCTPPacks"));
    for _ in 0..20 {
        for n in 0..20 {
            z.put(to_a, &[b'x'; 500], None);
            if n == 7 {
                z.put(to_b, b"alone", None);
            }
        }
        z.flush();
        assert_eq!(z.parts.open_associations.noted(0).count(), 0);
        assert_eq!((a.until(&mut z, 20).len(), b.until(&mut z, 1).len()), (20, 1));
    }
    let chunks = snmp("SctpOutUnorderChunks") - before.0;
    let packets = snmp("SctpOutSCTPPacks") - before.1;
    println!("    {chunks} chunks in {packets} packets (acknowledgements among them)");
    assert!(chunks >= 420 && chunks >= 4 * packets, "{chunks} chunks, {packets} packets");
}

fn what_a_dead_worker_left_open_leaves_with_its_successor() {
    // The last two fill their packet of 65,536 bytes so well that one heartbeat finds no room beside them.
    for (n, bytes) in [(1, 9), (30, 1000), (4, 340), (64, 1006)] {
        left_open(n, bytes);
    }
}

fn left_open(n: usize, bytes: usize) {
    let config = config(LISTEN);
    let sockets = Sockets::open(&config).unwrap();
    let at = sockets.listeners()[0].addresses[0];
    let parts = parts(3, 1 << 16);
    let mut a = Peer::new();
    let dead = child(|| {
        let mut z = Seat::all(&config, &sockets, parts);
        let from = associate(&mut a, &mut z, at);
        assert!(parts.open_associations.note(0, 0, from.association));
        // The first call of a turn, and not the second.
        let fd = socket_of(&z, &sockets, from);
        let info = Some(SndInfo { unordered: true, ..SndInfo::default() });
        let held = vec![b'x'; bytes];
        let item = Item { to: To::Association(from.association), pieces: [&held, b""], sctp: info };
        let (sent, error) = Sender::new(n).send(fd, n, true, |_| item);
        assert!(sent == n, "{error:?}");
    });
    joined(dead);
    pause(100);
    // What fills a packet leaves by itself.
    let early = a.read().len();
    assert!(early < n, "held by MSG_MORE");
    let mut successor = Seat::all(&config, &sockets, parts);
    successor.transports.adopt(&mut successor.inbox);
    pause(150);
    let late = a.read();
    println!("    {n} messages of {bytes} bytes: {early} came before, {} with the successor", late.len());
    assert_eq!(early + late.len(), n);
    assert!(late.iter().all(|(_, message)| message.len() == bytes));
    assert_eq!(parts.open_associations.noted(0).count(), 0);
    // The association goes on (M31).
    associate(&mut a, &mut successor, at);
    assert_eq!(parts.flows.live(Transport::Sctp), 1);
}

fn an_idle_association_is_closed_and_nothing_fails() {
    // M18, A19.
    let mut config = config(LISTEN);
    config.sctp.autoclose_s = 1;
    let (mut z, at) = Seat::alone_with(&config);
    let mut a = Peer::new();
    let from = associate(&mut a, &mut z, at[0]);
    z.until("closed", |z| z.count(Counter::AssociationsClosed) == 1);
    assert!(z.parts.flows.find(from.id).is_none() && z.happenings.is_empty());
    assert_eq!(z.count(Counter::AssociationsClosedByPeer), 0);
}

fn a_request_meets_a_shutdown_and_goes_over_a_new_association() {
    // M19.
    let (mut z, at) = daemon(LISTEN);
    let mut a = Peer::new();
    for n in 1..20 {
        associate(&mut a, &mut z, at[0]);
        sys::sctp::shutdown(a.fd.as_fd(), a.up).unwrap();
        for m in 0..5 {
            z.put(to(Transport::Sctp, a.at), b"request", client(n * 10 + m));
        }
        z.flush();
        assert_eq!(a.until(&mut z, 5).len(), 5);
    }
    assert_eq!((z.failed().len(), z.transports.queued_bytes()), (0, 0));
    z.until("all told", |z| z.count(Counter::AssociationsClosed) == 19);
    assert_eq!((z.count(Counter::AssociationsClosedByPeer), z.count(Counter::AssociationsLost)), (19, 0));
}

fn associations_over_the_limit_are_aborted() {
    // M20.
    let mut config = config(LISTEN);
    config.live.limits.associations_per_peer = 2;
    let (mut z, at) = Seat::alone_with(&config);
    let mut peers = [Peer::new(), Peer::new(), Peer::new()];
    peers.iter_mut().for_each(|peer| peer.send(at[0], b"hello"));
    z.until("one refused", |z| z.count(Counter::AssociationsRefused) >= 1 && z.count(Counter::AssociationsLost) == 1);
    assert_eq!(z.parts.flows.live(Transport::Sctp), 2);
    peers.iter_mut().for_each(|peer| drop(peer.read()));
    assert_eq!(peers.iter().filter(|peer| peer.up != 0).count(), 2);
}

fn associations_out_over_the_limit_are_not_begun() {
    // M20.
    let mut config = config(LISTEN);
    config.live.limits.associations = 3;
    let (mut z, at) = Seat::alone_with(&config);
    let mut peers: Vec<_> = (0..7).map(|_| Peer::new()).collect();
    associate(&mut peers[0], &mut z, at[0]);
    // In one turn: what is being set up counts.
    let request = |z: &mut Seat, n: usize| z.put(to(Transport::Sctp, peers[n].at), b"request", client(n as u32));
    (1..5).for_each(|n| request(&mut z, n));
    z.flush();
    assert_eq!((z.failed().len(), z.count(Counter::AssociationsRefused)), (2, 2));
    // Its notifications are not read yet.
    request(&mut z, 5);
    z.flush();
    assert_eq!((z.failed().len(), z.count(Counter::AssociationsRefused)), (3, 3));
    z.until("two more are up", |z| z.count(Counter::AssociationsUp) == 3);
    assert_eq!(z.parts.flows.live(Transport::Sctp), 3);
    // A known one is no new one.
    request(&mut z, 1);
    z.flush();
    assert_eq!((z.failed().len(), z.count(Counter::AssociationsUp), z.lost()), (3, 3, 0));
    let mut peers = peers;
    peers.iter_mut().for_each(|peer| drop(peer.read()));
    assert_eq!(peers.iter().filter(|peer| peer.up != 0).count(), 3);
}

fn unread_associations_of_another_listener_count() {
    // M20. Those in user space are in `flows` and unknown to the kernel.
    let mut config = config(&[(Transport::Sctp, "127.0.0.1:0"); 3]);
    config.listen[2].stack = Stack::User;
    config.live.limits.associations = 5;
    let (mut z, at) = Seat::alone_with(&config);
    let mut tunnelled = TunnelPeer::on("127.0.0.2:0".parse().unwrap());
    tunnelled.call(at[2], at[2].port());
    z.until("one in user space", |z| {
        tunnelled.turn();
        z.parts.flows.live(Transport::Sctp) == 1
    });
    let mut peers: Vec<_> = (0..6).map(|_| Peer::new()).collect();
    associate(&mut peers[0], &mut z, at[0]);
    for peer in &mut peers[1..4] {
        peer.send(at[1], b"hello");
        while peer.up == 0 {
            peer.read();
        }
    }
    assert_eq!(z.parts.flows.live(Transport::Sctp), 2, "of the others nobody has read");
    z.send(to(Transport::Sctp, peers[4].at), b"request", client(4));
    assert_eq!((z.failed().len(), z.count(Counter::AssociationsRefused)), (1, 1));
    // One less, and there is room.
    peers[0].abort();
    z.until("all known", |z| z.count(Counter::AssociationsLost) == 1 && z.parts.flows.live(Transport::Sctp) == 4);
    z.send(to(Transport::Sctp, peers[5].at), b"request", client(5));
    assert_eq!(peers[5].until(&mut z, 1).len(), 1);
    assert_eq!(z.failed().len(), 1);
}

fn associations_out_over_the_limit_of_one_peer_are_not_begun() {
    // M20. What is being set up counts, and what is up and was not read of.
    let mut config = config(LISTEN);
    config.live.limits.associations_per_peer = 3;
    let (mut z, at) = Seat::alone_with(&config);
    let mut peers: Vec<_> = (0..7).map(|_| Peer::new()).collect();
    associate(&mut peers[0], &mut z, at[0]);
    for (n, peer) in (1..).zip(&peers[1..5]) {
        z.put(to(Transport::Sctp, peer.at), b"request", client(n));
    }
    z.flush();
    assert_eq!((z.failed().len(), z.count(Counter::AssociationsRefused)), (2, 2));
    z.send(to(Transport::Sctp, peers[5].at), b"request", client(5));
    assert_eq!((z.failed().len(), z.count(Counter::AssociationsRefused)), (3, 3));
    z.until("two more are up", |z| z.count(Counter::AssociationsUp) == 3);
    z.turn();
    // None was begun and aborted.
    let mut heard: Vec<_> = peers.iter_mut().map(|peer| peer.read().len()).collect();
    assert_eq!(heard.split_off(1), [1, 1, 0, 0, 0, 0]);
    assert_eq!((z.lost(), z.count(Counter::AssociationsRefused)), (0, 3));
    // The place of one that ends is another's.
    let gone = peers.remove(1);
    drop(gone);
    z.until("closed", |z| z.parts.flows.live(Transport::Sctp) == 2);
    z.send(to(Transport::Sctp, peers[5].at), b"request", client(6));
    assert_eq!(peers[5].until(&mut z, 1)[0].1, b"request");
}

fn what_could_not_be_set_up_does_not_count() {
    // M20.
    let mut config = config(LISTEN);
    (config.live.limits.associations, config.live.limits.associations_per_peer) = (1, 1);
    let (mut z, _) = Seat::alone_with(&config);
    // Nobody listens; nobody is there; there is no such address.
    for (n, nobody) in (1..).zip(["127.0.0.1:9", "192.0.2.1:5060", "0.0.0.0:9"]) {
        z.send(to(Transport::Sctp, nobody.parse().unwrap()), b"request", client(n));
        z.until("given up", |z| z.parts.flows.live(Transport::Sctp) == 0);
    }
    let mut a = Peer::new();
    z.send(to(Transport::Sctp, a.at), b"request", client(4));
    assert_eq!(a.until(&mut z, 1)[0].1, b"request");
    assert_eq!(z.count(Counter::AssociationsRefused), 0);
}

fn what_outlived_its_time_failed_and_its_association_did_not() {
    // M30.
    let mut config = config(LISTEN);
    config.sctp.send_ttl_ms = 300;
    let (mut z, at) = Seat::alone_with(&config);
    let mut stalled = Peer::on("127.0.0.1:0", &Settings { nodelay: true, rcvbuf: 20_000, ..Settings::default() });
    let way = associate(&mut stalled, &mut z, at[0]);
    // More than the window of a peer that reads nothing.
    for slot in 1..=60 {
        let id = BranchId { slot, generation: 70_000 };
        let mut bytes = request(id);
        bytes.resize(1_000, b'x');
        z.put(way, &bytes, Some(id));
    }
    z.flush();
    z.until("some given up", |z| !z.failed().is_empty());
    assert!(z.happenings.iter().all(|news| matches!(news, Happening::Undelivered { lost: false, .. })));
    assert_eq!((z.count(Counter::AssociationsLost), z.failed().len() as u64), (0, z.count(Counter::SendFailed)));
}

fn a_response_whose_association_is_gone_goes_to_the_sent_by_port() {
    // A17, M03.
    let (mut z, at) = daemon(LISTEN);
    let (mut a, mut sent_by) = (Peer::new(), Peer::new());
    let mut from = associate(&mut a, &mut z, at[0]);
    sys::sctp::abort(a.fd.as_fd(), a.up).unwrap();
    z.until("lost", |z| z.lost() == 1);
    assert_eq!((z.count(Counter::AssociationsLost), z.count(Counter::AssociationsClosed)), (1, 0));
    from.fallback_port = sent_by.at.port();
    z.send(from, b"response", None);
    assert_eq!(sent_by.until(&mut z, 1)[0].1, b"response");
}

fn responses_whose_association_is_gone_are_not_held_back_for_one_another() {
    // A17. Of a bundle all but the last leave with MSG_MORE; here each goes to another place.
    let (mut z, at) = daemon(LISTEN);
    let (mut a, mut b, mut c) = (Peer::new(), Peer::new(), Peer::new());
    let from = associate(&mut a, &mut z, at[0]);
    drop(a);
    z.until("closed", |z| z.parts.flows.live(Transport::Sctp) == 0);
    for peer in [&b, &c] {
        z.put(Flow { fallback_port: peer.at.port(), ..from }, b"SIP/2.0 200 OK", None);
    }
    z.flush();
    for peer in [&mut b, &mut c] {
        assert_eq!(peer.until(&mut z, 1)[0].1, b"SIP/2.0 200 OK");
    }
    assert_eq!(z.parts.open_associations.noted(0).count(), 0);
}

fn a_peer_is_found_by_its_second_address() {
    let (mut z, at) = daemon(&[(Transport::Sctp, "127.0.0.1:0 127.0.0.2:0")]);
    let two = "127.0.0.1:0 127.0.0.2:0";
    let mut a = Peer::on(two, &Settings { nodelay: true, hbinterval_ms: 200, ..Settings::default() });
    let from = associate(&mut a, &mut z, at[0]);
    let second = SocketAddr::new("127.0.0.2".parse().unwrap(), a.at.port());
    // M39: not before it is confirmed.
    z.until("confirmed", |z| z.parts.flows.find_by_peer(Transport::Sctp, second.into()).is_some());
    assert_eq!(z.parts.flows.find_by_peer(Transport::Sctp, second.into()).map(|flow| flow.id), Some(from.id));
    z.send(to(Transport::Sctp, second), b"request", client(1));
    assert_eq!(a.until(&mut z, 1)[0].1, b"request");
    assert_eq!(z.count(Counter::AssociationsUp), 1);
}

fn the_address_that_is_named_first_is_the_primary_one() {
    // RFC 9260 §6.4. The peer sets up from its first address.
    let mut config = config(&[(Transport::Sctp, "127.0.0.1:0 127.0.0.2:0")]);
    let two = "127.0.0.1:0 127.0.0.2:0";
    let mut a = Peer::on(two, &Settings { nodelay: true, hbinterval_ms: 200, ..Settings::default() });
    let second = SocketAddr::new("127.0.0.2".parse().unwrap(), a.at.port());
    let targets = [second, a.at].map(|address| Target { transport: Transport::Sctp, address });
    config.live.next_hop =
        vec![NextHop { domain: "a.test".into(), targets: targets.to_vec(), encapsulation_port: None }];
    let sockets = Sockets::open(&config).unwrap();
    let mut z = Seat::all(&config, &sockets, parts(3, 1 << 16));
    let from = associate(&mut a, &mut z, sockets.listeners()[0].addresses[0]);
    let fd = socket_of(&z, &sockets, from);
    let primary = || sys::sctp::status(fd, from.association).unwrap().primary;
    z.until("the other one", |_| primary() == Some(second));
}

fn a_refused_peers_message_is_not_heard_and_no_response_opens_what_is_refused() {
    // M20.
    let mut config = config(LISTEN);
    config.live.limits.associations = 1;
    let (mut z, at) = Seat::alone_with(&config);
    let (mut a, mut b, mut c) = (Peer::new(), Peer::new(), Peer::new());
    let from = associate(&mut a, &mut z, at[0]);
    b.send(at[0], b"not heard");
    z.until("refused", |z| z.count(Counter::AssociationsRefused) == 1);
    z.turn();
    assert_eq!((z.got.len(), z.count(Counter::Broken)), (1, 1));
    // The association of this response is gone, and another one takes the only place.
    drop(a);
    z.until("closed", |z| z.parts.flows.live(Transport::Sctp) == 0);
    associate(&mut c, &mut z, at[0]);
    z.send(Flow { fallback_port: b.at.port(), ..from }, b"SIP/2.0 200 OK", None);
    z.turn();
    assert!(b.read().is_empty() && z.count(Counter::AssociationsRefused) == 2);
}

fn a_drained_daemon_shuts_its_associations_down() {
    let (mut z, at) = daemon(LISTEN);
    let mut a = Peer::new();
    associate(&mut a, &mut z, at[0]);
    assert_ne!(a.up, 0);
    let now = z.now();
    z.transports.close_all(&mut z.inbox, now);
    z.until("shut down", |_| {
        a.read();
        a.up == 0
    });
    z.until("gone", |z| z.parts.flows.live(Transport::Sctp) == 0);
}

fn an_ipv6_peer_is_served_and_called() {
    let (mut z, at) = daemon(&[(Transport::Sctp, "127.0.0.1:0"), (Transport::Sctp, "[::1]:0")]);
    let six = Settings { nodelay: true, ..Settings::default() };
    let (mut a, mut b) = (Peer::on("[::1]:0", &six), Peer::on("[::1]:0", &six));
    let from = associate(&mut a, &mut z, at[1]);
    assert_eq!((from.listener, SocketAddr::from(from.peer)), (1, a.at));
    z.send(from, b"response", None);
    assert_eq!(a.until(&mut z, 1)[0].1, b"response");
    let mut hop = to(Transport::Sctp, b.at);
    hop.listener = z.transports.listener_for(Transport::Sctp, hop.peer).unwrap();
    z.send(hop, b"request", client(1));
    assert_eq!(b.until(&mut z, 1)[0].1, b"request");
}
