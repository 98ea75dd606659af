//! SCTP in user space: RFC 9260 over UDP (RFC 6951), for machines whose kernel has none.
//!
//! Owns: one endpoint per listener, its packets' way through this seat's UDP socket, and what the rest of the house knows of its
//! associations (`flows`). An association belongs to the process that set it up, like a TCP connection: messages for it, and packets
//! that the kernel gave to another seat's socket, come through the mailbox. Its files: `endpoint` (the protocol, without sockets),
//! `send`, `closing` (what waits for an end), `news` (what became of associations). Never retransmits by itself, never reads a clock.
//!
//! All seats send from the listener's UDP port, also those that open an association: it is the one port that firewalls let through and
//! that peers are told. The price: the kernel gives the answers to any seat, so with N workers N-1 of N packets of associations that we
//! opened pass a mailbox, a copy and perhaps a waking each; a UDP port of its own for each seat that opens would save that.

mod closing;
pub mod endpoint;
mod news;
mod send;
pub mod settings;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use sys::datagram::Arena;

use self::closing::Closing;
use self::endpoint::packet::{INIT, Packet};
use self::endpoint::{Endpoint, TAG_MARK, abort_packet, may_reflect};
use crate::config::{Config, Limits, Sctp};
use crate::shared::counters::Counter;
use crate::shared::flows::FlowView;
use crate::shared::mailbox::Kind;
use crate::timer::Tick;
use crate::transport::desk::{Carrier, Desk, End};
use crate::transport::owned::post;
use crate::transport::{Address, Flow, FlowId, Inbox, Outgoing, Transport};

/// Packets of one `recvmmsg`.
const BATCH: usize = 64;
/// The largest UDP datagram fits whole.
const PACKET_BYTES: usize = 65_536;

pub struct User {
    /// By listener; none for other transports.
    lines: Vec<Option<Line>>,
    /// UDP port of peers of which no other is known.
    peer_port: u16,
    /// Which association a flow is: its listener and tag.
    by_id: HashMap<FlowId, (u8, u32)>,
    packets: Option<Arena>,
    closing: Closing,
    config: Sctp,
    /// (listener, tag, place in `Outgoing::sendings`); kept for its room.
    routed: Vec<(u8, u32, u32)>,
}

/// One listener.
struct Line {
    endpoint: Endpoint,
    ids: HashMap<u32, FlowId>,
}

impl User {
    /// # Errors
    /// No memory for the packets.
    pub fn new(config: &Config, key: &[u8; 32], ends: &[End]) -> io::Result<User> {
        let line = |end: &End| {
            (end.carrier == Carrier::UserSctp).then(|| {
                let options = settings::options(&config.sctp, &config.live.limits, end.port());
                let mut endpoint = Endpoint::new(options, key, u64::from(config.sctp.autoclose_s) * 1000);
                endpoint.how = settings::how(&config.sctp);
                Line { endpoint, ids: HashMap::new() }
            })
        };
        let lines: Vec<_> = ends.iter().map(line).collect();
        let any = lines.iter().any(Option::is_some);
        let packets = if any { Some(Arena::new(BATCH, PACKET_BYTES)?) } else { None };
        Ok(User {
            lines,
            peer_port: config.sctp.peer_encapsulation_port,
            by_id: HashMap::new(),
            packets,
            closing: Closing::default(),
            config: config.sctp.clone(),
            routed: Vec::new(),
        })
    }

    /// Other limits: for associations that begin from now on, and those that are there send no longer messages than these allow.
    pub fn reload(&mut self, limits: &Limits, ends: &[End]) {
        for (line, end) in self.lines.iter_mut().zip(ends) {
            if let Some(line) = line {
                line.endpoint.change(settings::options(&self.config, limits, end.port()));
            }
        }
    }

    /// Reads one batch of packets; true: there may be more, or messages wait for room in the arena.
    pub fn receive(&mut self, desk: &mut Desk, listener: u8, arena: &mut Arena, inbox: &mut Inbox, now: Tick) -> bool {
        if !self.deliver(desk, listener, Some(arena), inbox, now) {
            return true;
        }
        let Some(fd) = desk.ends.get(usize::from(listener)).and_then(|end| end.socket()) else { return false };
        let (Some(Some(line)), Some(packets)) = (self.lines.get_mut(usize::from(listener)), &mut self.packets) else {
            return false;
        };
        let Ok(received) = desk.receiver.receive(fd, packets, 0, BATCH) else {
            desk.count(Counter::SocketErrors, 1);
            return false;
        };
        for index in 0..received {
            let datagram = desk.receiver.get(index);
            let (Some(from), false) = (datagram.peer, datagram.truncated) else { continue };
            let bytes = packets.slot(datagram.slot).get(..datagram.len).unwrap_or_default();
            match Packet::read(bytes).and_then(|packet| owner(desk, listener, &line.endpoint, &packet, from)) {
                Some(seat) => {
                    let to = Flow { peer: from.into(), listener, transport: Transport::Sctp as u8, ..Flow::default() };
                    // No room: lost like any packet, and sent again. Half the mailbox is for messages, which nobody sends again.
                    if desk.parts.mailboxes.is_half_full((desk.seat, seat)) {
                        desk.count(Counter::MailboxFull, 1);
                    } else {
                        post(desk, seat, Kind::Packet, &to, None, [bytes, b""], inbox);
                    }
                }
                None => line.endpoint.receive(from, bytes, now),
            }
        }
        desk.count(Counter::SctpPackets, received as u64);
        let all = self.deliver(desk, listener, Some(arena), inbox, now);
        received == BATCH || !all
    }

    /// A packet that another process got for an association of ours.
    pub fn posted(&mut self, from: &Flow, bytes: &[u8], now: Tick) {
        if let Some(Some(line)) = self.lines.get_mut(usize::from(from.listener)) {
            line.endpoint.receive(from.peer.into(), bytes, now);
        }
    }

    /// Hands on what `posted` brought; true: messages wait for room in the arena.
    pub fn deliver_all(&mut self, desk: &mut Desk, arena: &mut Arena, inbox: &mut Inbox, now: Tick) -> bool {
        let mut more = false;
        for listener in 0..self.lines.len() {
            more |= !self.deliver(desk, listener as u8, Some(arena), inbox, now);
        }
        more
    }

    /// Messages that waited for the end of an association, which is there: to be sent as new ones.
    pub fn again(&mut self) -> Option<Outgoing> {
        self.closing.take()
    }

    #[must_use]
    pub fn next_tick(&self) -> Tick {
        if self.closing.is_due() {
            return Tick(0);
        }
        self.lines.iter().flatten().map(|line| line.endpoint.next_tick()).min().unwrap_or(Tick::NEVER)
    }

    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        for listener in 0..self.lines.len() {
            if let Some(Some(line)) = self.lines.get_mut(listener) {
                for tag in line.endpoint.tick(now) {
                    if let Some(id) = line.ids.get(&tag).copied() {
                        news::note(desk, line, id, tag, now);
                    }
                }
                self.deliver(desk, listener as u8, None, inbox, now);
            }
        }
    }

    /// The associations of this seat's last holder died with it: their peers are told at once, and set up new ones.
    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        for listener in 0..self.lines.len() {
            let Some(Some(line)) = self.lines.get_mut(listener) else { continue };
            for flow in desk.parts.flows.owned_by(Transport::Sctp, desk.seat) {
                if usize::from(flow.listener) != listener || line.ids.contains_key(&flow.association) {
                    continue;
                }
                if let Some((remote, abort)) = last_word(desk, &flow) {
                    line.endpoint.packets.push((remote, abort));
                }
                if let Some(last) = desk.parts.flows.close(flow.id) {
                    desk.count(Counter::AssociationsLost, 1);
                    if last.requested {
                        inbox.owner_died(Transport::Sctp, flow.peers);
                    }
                }
            }
            self.leave(desk, listener as u8);
        }
    }

    /// Shuts every association down in good order; `is_empty` says when the peers have agreed.
    pub fn shut_down_all(&mut self, desk: &mut Desk, now: Tick) {
        for listener in 0..self.lines.len() {
            if let Some(Some(line)) = self.lines.get_mut(listener) {
                let tags: Vec<_> = line.endpoint.tags().collect();
                tags.into_iter().for_each(|tag| line.endpoint.shut_down(tag, now));
            }
            self.leave(desk, listener as u8);
        }
    }

    /// Ends what is left.
    pub fn abort_all(&mut self, desk: &mut Desk, now: Tick) {
        for listener in 0..self.lines.len() {
            if let Some(Some(line)) = self.lines.get_mut(listener) {
                let tags: Vec<_> = line.endpoint.tags().collect();
                tags.into_iter().for_each(|tag| line.endpoint.abort(tag, now));
                for (_, id) in line.ids.drain() {
                    desk.parts.flows.close(id);
                }
            }
            self.leave(desk, listener as u8);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.iter().flatten().all(|line| line.endpoint.is_empty())
    }

    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let queued = |line: &Line| line.endpoint.tags().map(|tag| line.endpoint.queued(tag)).sum::<usize>();
        self.lines.iter().flatten().map(queued).sum::<usize>() + self.closing.bytes()
    }
}

/// The other process that this packet is for. Usually none: the kernel gives the packets of one peer to one seat, which set its
/// association up; not so those of an association that we opened to a peer.
fn owner(desk: &Desk, listener: u8, endpoint: &Endpoint, packet: &Packet<'_>, from: SocketAddr) -> Option<usize> {
    // A damaged one is nobody's; and only what needs it is looked up by address: a stranger can write any address, and fill a mailbox.
    if endpoint.knows(packet, from) || !packet.is_intact() {
        return None;
    }
    let flows = &desk.parts.flows;
    let by_peer = || flows.find_on(listener, Transport::Sctp, Address::new(from.ip(), packet.source));
    let by_tag = |tag| flows.find_association(tag).filter(|flow| flow.listener == listener);
    let first = packet.first()?;
    let flow = match packet.tag {
        0 if first.kind == INIT => by_peer(),
        tag if tag & TAG_MARK != 0 => by_tag(tag).or_else(|| by_peer().filter(|_| may_reflect(packet))),
        _ => by_peer().filter(|_| may_reflect(packet)),
    };
    let is_alive = |flow: &FlowView| flow.owner != desk.seat && flow.owner < desk.workers;
    flow.filter(is_alive).map(|flow| flow.owner)
}

/// ABORT for an association of which only the entry is left, and the UDP address it goes to.
fn last_word(desk: &Desk, flow: &FlowView) -> Option<(SocketAddr, Vec<u8>)> {
    let peer = flow.peers.first().filter(|_| flow.association != 0)?;
    let port = desk.end(flow.listener)?.port();
    let remote = SocketAddr::from(peer.with_port(flow.encapsulation));
    Some((remote, abort_packet(port, peer.port(), flow.association)))
}
