//! Two endpoints and a wire between them that may lose, repeat and reorder; the facts that the protocol crate leaves to us.

mod life;
mod limits;
mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use dcsctp::api::Options;

use super::packet::{self, Packet};
use super::{Endpoint, Event, How, TAG_MARK, abort_packet, bounds};
use crate::timer::Tick;
use crate::transport::Address;

const KEY: [u8; 32] = [7; 32];
const SIP: u16 = 5060;

fn options(port: u16) -> Options {
    Options {
        local_port: port,
        mtu: 1452,
        max_message_size: 65_536,
        max_receiver_window_buffer_size: 1 << 18,
        max_send_buffer_size: 1 << 18,
        per_stream_send_queue_limit: 1 << 18,
        rto_initial: Duration::from_secs(1),
        rto_max: Duration::from_secs(2),
        max_timer_backoff_duration: Some(Duration::from_secs(2)),
        max_retransmissions: Some(5),
        max_init_retransmits: Some(2),
        announced_maximum_incoming_streams: 128,
        announced_maximum_outgoing_streams: 16,
        ..Options::default()
    }
}

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

/// One host: an endpoint and its UDP address.
struct Host {
    endpoint: Endpoint,
    udp: SocketAddr,
    seen: Vec<Event>,
}

impl Host {
    fn new(last: u8, port: u16) -> Host {
        Host { endpoint: Endpoint::new(options(port), &KEY, u64::MAX), udp: address(last, 9899), seen: Vec::new() }
    }

    fn peer(&self, port: u16) -> Address {
        Address::new(self.udp.ip(), port)
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        let bytes = |event: &Event| if let Event::Message { bytes, .. } = event { Some(bytes.clone()) } else { None };
        self.seen.iter().filter_map(bytes).collect()
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|event| wanted(event)).count()
    }
}

/// Hosts, the time, and what befalls packets between them.
struct Wire {
    hosts: Vec<Host>,
    now: Tick,
    /// Of 100 packets so many are lost; a third as many come twice, and as many late.
    loss: u32,
    late: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    random: fastrand::Rng,
    crossed: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Wire {
    fn new(hosts: Vec<Host>) -> Wire {
        // Late in the machine's life: an association's own time begins with it.
        let now = Tick(1_000_000_000);
        Wire { hosts, now, loss: 0, late: Vec::new(), random: fastrand::Rng::with_seed(1), crossed: Vec::new() }
    }

    /// Two hosts, SIP's port on both, and an association that the first has begun: its tag.
    fn pair() -> (Wire, u32) {
        let mut wire = Wire::new(vec![Host::new(1, SIP), Host::new(2, SIP)]);
        let tag = wire.connect(0, 1).expect("an association");
        wire.settle();
        assert_eq!(wire.hosts[1].count(|event| matches!(event, Event::Up { .. })), 1);
        (wire, tag)
    }

    fn connect(&mut self, from: usize, to: usize) -> Option<u32> {
        let (peer, remote) = (self.hosts[to].peer(SIP), self.hosts[to].udp);
        self.hosts[from].endpoint.connect(peer, remote, self.now)
    }

    fn send(&mut self, from: usize, to: usize, messages: Vec<Vec<u8>>) -> Vec<usize> {
        let tag = self.hosts[from]
            .endpoint
            .to(self.hosts[to].peer(SIP))
            .unwrap_or_else(|| panic!("no association: {:?} {:?}", self.hosts[0].seen, self.hosts[1].seen.last()));
        self.hosts[from].endpoint.send(tag, messages, self.now).expect("a live association")
    }

    /// Carries packets until none is under way; true: something moved.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        loop {
            let mut under_way = std::mem::take(&mut self.late);
            for host in &mut self.hosts {
                under_way.extend(host.endpoint.packets.drain(..).map(|(to, bytes)| (host.udp, to, bytes)));
            }
            if under_way.is_empty() {
                break;
            }
            moved = true;
            for (from, to, bytes) in under_way {
                let fate = if self.loss == 0 { 100 } else { self.random.u32(0..100) };
                if fate < self.loss {
                    continue;
                }
                if fate < self.loss + self.loss.div_ceil(3) {
                    self.late.push((from, to, bytes.clone()));
                }
                if fate >= 100 - self.loss && self.loss != 0 {
                    self.late.push((from, to, bytes));
                    continue;
                }
                self.crossed.push((from, to, bytes.clone()));
                if let Some(host) = self.hosts.iter_mut().find(|host| host.udp == to) {
                    host.endpoint.receive(from, &bytes, self.now);
                }
            }
            for host in &mut self.hosts {
                host.seen.extend(host.endpoint.events.drain(..));
            }
        }
        moved
    }

    /// What needs no time.
    fn settle(&mut self) {
        while self.carry() {}
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        loop {
            self.settle();
            let next = self.hosts.iter().map(|host| host.endpoint.next_tick()).min().unwrap_or(Tick::NEVER);
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            for host in &mut self.hosts {
                host.endpoint.tick(self.now);
                host.seen.extend(host.endpoint.events.drain(..));
            }
        }
        self.now = end;
    }
}

fn numbered(count: u32, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("{n:>bytes$}").into_bytes()).collect()
}

fn sorted(mut messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    messages.sort();
    messages
}

/// An INIT as a peer at `port` writes it.
fn init(port: u16) -> Vec<u8> {
    let mut stranger = Endpoint::new(options(port), &KEY, u64::MAX);
    stranger.connect(Address::new(address(1, 0).ip(), SIP), address(1, 9899), Tick(0)).expect("an INIT");
    stranger.packets.remove(0).1
}

/// Gives the second host of a pair a packet of these chunks, as from the first: how many packets it answers, and how many were refused.
fn ask(wire: &mut Wire, chunks: &[Vec<u8>]) -> (usize, u64) {
    let (from, now) = (wire.hosts[0].udp, wire.now);
    let host = &mut wire.hosts[1].endpoint;
    let tag = host.to(Address::new(from.ip(), SIP)).expect("an association");
    let mut bytes = packet::build(SIP, SIP, tag, 0, 0, &[]);
    bytes.truncate(packet::HEADER);
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    packet::mend(&mut bytes);
    (host.counts, host.packets) = (super::Counts::default(), Vec::new());
    host.receive(from, &bytes, now);
    let heard: Vec<_> = host.events.drain(..).collect();
    let answer = (host.packets.len(), host.counts.damaged);
    wire.hosts[1].seen.extend(heard);
    answer
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    packet::build(0, 0, 0, kind, flags, value).split_off(packet::HEADER)
}

/// The `n`th message of the first host of a pair, which has sent none: DATA, unordered and whole.
fn data(wire: &Wire, n: u32, stream: u16) -> Vec<u8> {
    // Its first TSN: of its INIT (§3.3.2).
    let init = &wire.crossed[0].2;
    let tsn = packet::u32_at(init, 28).expect("a TSN").wrapping_add(n);
    chunk(0, 7, &[&tsn.to_be_bytes()[..], &stream.to_be_bytes(), &[0; 6], b"data"].concat())
}
