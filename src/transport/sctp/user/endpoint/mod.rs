//! An SCTP endpoint in user space (RFC 9260): packets and the time in, packets and events out.
//!
//! Owns: the associations of one process on one port, which packet is for which of them, set-up without state (a cookie is sealed,
//! `cookie`), what is out of the blue (`blue`), what is too much (`bounds`), and deadlines in their order. The protocol of one
//! association is the crate `dcsctp`'s. Never a socket, never a clock: whoever owns it sends `packets` and reads `events`.

mod association;
mod blue;
mod bounds;
mod cookie;
pub mod packet;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use dcsctp::api::{Metrics, Options, SocketEvent};

use self::association::{Association, said_tag};
use self::cookie::{Refusal, Seal};
use self::packet::{COOKIE_ECHO, INIT, INIT_ACK, Packet};
use crate::timer::Tick;
use crate::transport::Address;

pub use self::association::TAG_MARK;
pub use self::blue::{abort as abort_packet, may_reflect};

/// A shutdown takes no longer than so many times RTO.Max (§9.2).
const GUARD: u64 = 5;

/// What happened. An association is named by its verification tag: ours, which the peer writes into its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Established, whoever began.
    Up { tag: u32, peer: Address },
    /// A whole message; never before its association is up.
    Message { tag: u32, peer: Address, bytes: Vec<u8> },
    /// The peer forgot everything and began anew (§5.2.4, case A): what it had of ours is lost, and our tag is another one.
    Restarted { was: u32, tag: u32 },
    /// Both had begun at once and our side's tag gave way.
    Renamed { was: u32, tag: u32 },
    /// Shut down in good order; `by_peer`: without our asking.
    Closed { tag: u32, by_peer: bool },
    /// Aborted by the peer, unreachable, or never answered.
    Lost { tag: u32, peer: Address },
}

/// What was refused; grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Too short, a wrong checksum, or more than a packet may ask.
    pub damaged: u64,
    pub out_of_the_blue: u64,
    pub forged_cookies: u64,
    pub stale_cookies: u64,
}

/// How messages are sent; payload protocol 0 (A06).
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub stream: u16,
    pub unordered: bool,
    /// After this a message is given up, if the peer knows RFC 3758; nobody is told.
    pub lifetime: Option<Duration>,
}

impl Default for How {
    /// A08.
    fn default() -> How {
        How { stream: 0, unordered: true, lifetime: None }
    }
}

pub struct Endpoint {
    options: Options,
    pub how: How,
    seal: Seal,
    /// Milliseconds without data after which an association is shut down; `u64::MAX`: never.
    idle_ms: u64,
    slots: Vec<Option<Association>>,
    free: Vec<usize>,
    by_tag: HashMap<u32, usize>,
    by_peer: HashMap<Address, usize>,
    deadlines: BTreeSet<(Tick, usize)>,
    /// UDP payloads that shall leave now, and where to.
    pub packets: Vec<(SocketAddr, Vec<u8>)>,
    pub events: VecDeque<Event>,
    pub counts: Counts,
}

impl Endpoint {
    /// `options.local_port` is the SCTP port; `options.remote_port` means nothing. `key` seals cookies: the same in every process that
    /// may get the COOKIE ECHO to another's INIT ACK.
    #[must_use]
    pub fn new(options: Options, key: &[u8; 32], idle_ms: u64) -> Endpoint {
        Endpoint {
            options,
            how: How::default(),
            seal: Seal::new(key),
            idle_ms,
            slots: Vec::new(),
            free: Vec::new(),
            by_tag: HashMap::new(),
            by_peer: HashMap::new(),
            deadlines: BTreeSet::new(),
            packets: Vec::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Other options, for associations that begin from now on. Of those that are there only the longest message changes: their windows
    /// and queues are in use.
    pub fn change(&mut self, options: Options) {
        for association in self.slots.iter_mut().flatten() {
            association.set_longest(options.max_message_size);
        }
        self.options = options;
    }

    /// Associations, in whatever state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_peer.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    /// Places for associations, free ones among them: as many as there ever were at once.
    #[must_use]
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Is there an association that this packet from `ip` is for?
    #[must_use]
    pub fn knows(&self, packet: &Packet<'_>, from: SocketAddr) -> bool {
        self.slot_of(packet, Address::new(from.ip(), packet.source)).is_some()
    }

    /// The association with this IP address and SCTP port, as its tag.
    #[must_use]
    pub fn to(&self, peer: Address) -> Option<u32> {
        self.by_peer.get(&peer).and_then(|slot| self.slots.get(*slot)?.as_ref()).map(|association| association.tag)
    }

    /// A UDP payload came from `from`.
    pub fn receive(&mut self, from: SocketAddr, bytes: &[u8], now: Tick) {
        let streams = self.options.announced_maximum_incoming_streams;
        let is_sound = |packet: &Packet<'_>| packet.is_intact() && bounds::are_kept(packet, streams);
        let Some(packet) = Packet::read(bytes).filter(is_sound) else {
            self.counts.damaged += 1;
            return;
        };
        let peer = Address::new(from.ip(), packet.source);
        let Some(first) = packet.first() else { return };
        let slot = self.slot_of(&packet, peer);
        if packet.destination != self.options.local_port {
            self.out_of_the_blue(from, &packet);
            return;
        }
        match (first.kind, slot) {
            // The only chunk of its packet, under tag 0, with a tag that is not 0 (§3.3.2, §8.5.1 A).
            (INIT, _) if packet.tag != 0 || packet.chunks().count() != 1 || first.initiate_tag().is_none() => {
                self.counts.damaged += 1;
            }
            (INIT, Some(slot)) => self.initiated_again(slot, from, bytes, now),
            (INIT, None) => self.initiated(peer, from, bytes, now),
            (COOKIE_ECHO, _) => self.cookie_came_back(slot, peer, from, &packet, now),
            (_, Some(slot)) => {
                if let Some(association) = self.association(slot) {
                    if association.tag == packet.tag {
                        // RFC 6951 §5.4: a NAT may give the peer another port at any time.
                        association.remote = from;
                    }
                    association.receive(bytes, now);
                }
                self.pump(slot, now);
            }
            (_, None) => self.out_of_the_blue(from, &packet),
        }
    }

    /// Sets an association with `peer` up, over UDP to `remote`; messages may be sent on it at once. Its tag; none when there is one
    /// already.
    pub fn connect(&mut self, peer: Address, remote: SocketAddr, now: Tick) -> Option<u32> {
        if self.by_peer.contains_key(&peer) {
            return None;
        }
        loop {
            reseed();
            let mut association = Association::new(&self.options_for(peer.port()), peer, remote, now);
            association.connect(now);
            let Some(SocketEvent::SendPacket(init)) = association.event() else { return None };
            let tag = said_tag(&init)?;
            if tag & TAG_MARK != 0 {
                association.tag = tag;
                self.packets.push((remote, init));
                let slot = self.keep(association);
                self.arm(slot, now);
                return Some(tag);
            }
        }
    }

    /// Sends messages on an association, in as few packets as they fit. Returns the places of those that found no room.
    ///
    /// # Errors
    /// There is no such association, or it takes no more.
    pub fn send(&mut self, tag: u32, messages: Vec<Vec<u8>>, now: Tick) -> Result<Vec<usize>, Gone> {
        let slot = *self.by_tag.get(&tag).ok_or(Gone)?;
        let how = self.how;
        let failed = self.association(slot).ok_or(Gone)?.send(messages, how, now);
        self.pump(slot, now);
        Ok(failed)
    }

    /// Is it being shut down, from either side? It takes no messages then.
    #[must_use]
    pub fn is_closing(&self, tag: u32) -> bool {
        let association = self.by_tag.get(&tag).and_then(|slot| self.slots.get(*slot)?.as_ref());
        association.is_some_and(Association::is_closing)
    }

    /// Shuts an association down in good order (§9.2): `Event::Closed` follows.
    pub fn shut_down(&mut self, tag: u32, now: Tick) {
        self.with(tag, now, Association::shut_down);
    }

    /// Ends an association at once (§9.1), without an event.
    pub fn abort(&mut self, tag: u32, now: Tick) {
        let Some(slot) = self.by_tag.get(&tag).copied() else { return };
        let Some(mut association) = self.remove(slot) else { return };
        association.abort(now);
        while let Some(event) = association.event() {
            if let SocketEvent::SendPacket(bytes) = event {
                self.packets.push((association.remote, bytes));
            }
        }
    }

    /// Every association's tag.
    pub fn tags(&self) -> impl Iterator<Item = u32> {
        self.by_tag.keys().copied()
    }

    /// An association's figures; none when they were told less than a second ago, or while it is being set up.
    pub fn news(&mut self, tag: u32, now: Tick) -> Option<Metrics> {
        let slot = *self.by_tag.get(&tag)?;
        let association = self.association(slot).filter(|association| now.since(association.told) >= 1_000)?;
        let metrics = association.metrics()?;
        association.told = now;
        Some(metrics)
    }

    /// The UDP address of an association's peer.
    #[must_use]
    pub fn remote(&self, tag: u32) -> Option<SocketAddr> {
        self.slots.get(*self.by_tag.get(&tag)?)?.as_ref().map(|association| association.remote)
    }

    /// IP address and SCTP port of an association's peer.
    #[must_use]
    pub fn peer(&self, tag: u32) -> Option<Address> {
        self.slots.get(*self.by_tag.get(&tag)?)?.as_ref().map(|association| association.peer)
    }

    /// Bytes that wait to be sent on an association.
    #[must_use]
    pub fn queued(&self, tag: u32) -> usize {
        let slot = self.by_tag.get(&tag).and_then(|slot| self.slots.get(*slot)?.as_ref());
        slot.map_or(0, |association| association.queued(self.how.stream))
    }

    #[must_use]
    pub fn next_tick(&self) -> Tick {
        self.deadlines.first().map_or(Tick::NEVER, |(due, _)| *due)
    }

    /// Does what is due. The tags of those that were looked at: their figures may be others than they were.
    pub fn tick(&mut self, now: Tick) -> Vec<u32> {
        let mut woken = Vec::new();
        while let Some((armed, slot)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            self.deadlines.remove(&(armed, slot));
            let idle_ms = self.idle_ms;
            let Some(association) = self.association(slot) else { continue };
            association.armed = Tick::NEVER;
            association.told = Tick(0);
            woken.push(association.tag);
            if association.guard <= now {
                let (tag, peer) = (association.tag, association.peer);
                self.abort(tag, now);
                self.events.push_back(Event::Lost { tag, peer });
                continue;
            }
            association.pass(now);
            if association.is_connected() && now.since(association.last) >= idle_ms {
                association.shut_down(now);
            }
            self.pump(slot, now);
        }
        woken
    }
}

/// The association is not, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Endpoint {
    fn association(&mut self, slot: usize) -> Option<&mut Association> {
        self.slots.get_mut(slot)?.as_mut()
    }

    fn with(&mut self, tag: u32, now: Tick, act: impl FnOnce(&mut Association, Tick)) {
        if let Some(slot) = self.by_tag.get(&tag).copied()
            && let Some(association) = self.association(slot)
        {
            act(association, now);
            self.pump(slot, now);
        }
    }

    /// The tag says it, also behind a NAT and from a peer's other addresses; for the few packets that carry none of ours, the address.
    fn slot_of(&self, packet: &Packet<'_>, peer: Address) -> Option<usize> {
        let by_peer = || self.by_peer.get(&peer).copied();
        match packet.tag {
            0 => by_peer(),
            tag => self.by_tag.get(&tag).copied().or_else(|| by_peer().filter(|_| blue::may_reflect(packet))),
        }
    }

    fn out_of_the_blue(&mut self, from: SocketAddr, packet: &Packet<'_>) {
        self.counts.out_of_the_blue += 1;
        self.packets.extend(blue::answer(packet).map(|answer| (from, answer)));
    }

    /// INIT from somebody new: answered, sealed, forgotten.
    fn initiated(&mut self, peer: Address, from: SocketAddr, bytes: &[u8], now: Tick) {
        let options = self.options_for(peer.port());
        loop {
            reseed();
            let mut passer_by = Association::new(&options, peer, from, now);
            passer_by.receive(bytes, now);
            match passer_by.event() {
                Some(SocketEvent::SendPacket(answer)) if said_tag(&answer).is_some_and(|tag| tag & TAG_MARK == 0) => {}
                Some(SocketEvent::SendPacket(answer)) => return self.leave(peer, from, answer, now),
                _ => {
                    self.counts.damaged += 1;
                    return;
                }
            }
        }
    }

    /// INIT from a peer that has an association: it began at the same time as we, or has restarted (§5.2.1, §5.2.2).
    fn initiated_again(&mut self, slot: usize, from: SocketAddr, bytes: &[u8], now: Tick) {
        loop {
            reseed();
            let Some(association) = self.association(slot) else { return };
            association.receive(bytes, now);
            match association.event() {
                Some(SocketEvent::SendPacket(answer)) if said_tag(&answer).is_some_and(|tag| tag & TAG_MARK == 0) => {}
                // The answer goes where the INIT came from, whatever the association believes so far.
                Some(SocketEvent::SendPacket(answer)) => {
                    let peer = association.peer;
                    self.leave(peer, from, answer, now);
                    break;
                }
                _ => break,
            }
        }
        self.pump(slot, now);
    }

    fn cookie_came_back(
        &mut self,
        slot: Option<usize>,
        peer: Address,
        from: SocketAddr,
        packet: &Packet<'_>,
        now: Tick,
    ) {
        let opened = match self.seal.take(packet, peer, now) {
            Ok(opened) => opened,
            Err(Refusal::Forged) => {
                self.counts.forged_cookies += 1;
                return;
            }
            Err(Refusal::Stale { late_ms, peer_tag }) => {
                self.counts.stale_cookies += 1;
                self.packets.push((from, blue::stale_cookie(packet, peer_tag, late_ms)));
                return;
            }
        };
        let slot = match slot.or_else(|| self.by_peer.get(&peer).copied()) {
            Some(slot) => slot,
            None => {
                let mut association = Association::new(&self.options_for(peer.port()), peer, from, now);
                association.tag = packet.tag;
                self.keep(association)
            }
        };
        let Some(association) = self.association(slot) else { return };
        association.receive(&opened, now);
        if self.connected(slot, packet.tag, from, now) {
            self.restarted(slot, packet.tag, from, &opened, now);
        }
        self.pump(slot, now);
        // A cookie of ours that the protocol would not have, or an end in the same packet.
        if self.association(slot).is_some_and(|association| association.is_closed())
            && let Some(association) = self.remove(slot)
            && association.up
        {
            self.events.push_back(Event::Lost { tag: association.tag, peer });
        }
    }

    /// Looks whether a COOKIE ECHO under `tag` has established or renamed its association. What else it brought about waits in `pump`,
    /// behind this news. True: its peer has restarted, and what else it brought about is not to be looked at.
    fn connected(&mut self, slot: usize, tag: u32, from: SocketAddr, now: Tick) -> bool {
        let Some(Some(association)) = self.slots.get_mut(slot) else { return false };
        while let Some(event) = association.event() {
            match event {
                SocketEvent::SendPacket(bytes) => self.packets.push((from, bytes)),
                SocketEvent::OnConnectionRestarted() => return true,
                SocketEvent::OnConnected() => {
                    let (was, peer) = (std::mem::replace(&mut association.tag, tag), association.peer);
                    association.remote = from;
                    let is_new = !association.up;
                    if is_new {
                        association.release(self.how, now);
                    }
                    if was != tag {
                        self.by_tag.remove(&was);
                        self.by_tag.insert(tag, slot);
                        self.events.push_back(Event::Renamed { was, tag });
                    }
                    if is_new {
                        self.events.push_back(Event::Up { tag, peer });
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// The peer has restarted (§5.2.4, case A): what it had of ours is told as lost, and so what waits must not leave either. The crate
    /// keeps its queue and sends it behind COOKIE ACK, so one that has none takes the cookie in its place.
    fn restarted(&mut self, slot: usize, tag: u32, from: SocketAddr, opened: &[u8], now: Tick) {
        let Some(peer) = self.association(slot).map(|association| association.peer) else { return };
        let mut anew = Association::new(&self.options_for(peer.port()), peer, from, now);
        let Some(association) = self.association(slot) else { return };
        (anew.tag, anew.up, anew.armed) = (tag, true, association.armed);
        anew.receive(opened, now);
        let was = std::mem::replace(association, anew).tag;
        self.by_tag.remove(&was);
        self.by_tag.insert(tag, slot);
        self.events.push_back(Event::Restarted { was, tag });
    }

    /// Takes what the protocol of one association wants: packets out, messages in, its end, its next deadline.
    fn pump(&mut self, slot: usize, now: Tick) {
        let mut ended = None;
        let Some(Some(association)) = self.slots.get_mut(slot) else { return };
        let (tag, peer) = (association.tag, association.peer);
        while let Some(event) = association.event() {
            match event {
                SocketEvent::SendPacket(bytes) => self.packets.push((association.remote, bytes)),
                SocketEvent::OnConnected() if !association.up => {
                    association.release(self.how, now);
                    self.events.push_back(Event::Up { tag, peer });
                }
                SocketEvent::OnClosed() => ended = Some(Event::Closed { tag, by_peer: !association.ending }),
                SocketEvent::OnAborted(..) => ended = Some(Event::Lost { tag, peer }),
                _ => {}
            }
        }
        while let Some(bytes) = association.message(now) {
            self.events.push_back(Event::Message { tag, peer, bytes });
        }
        match ended {
            Some(event) => {
                self.remove(slot);
                self.events.push_back(event);
            }
            None => self.arm(slot, now),
        }
    }

    /// An INIT ACK leaves with its cookie sealed; anything else as it is.
    fn leave(&mut self, peer: Address, to: SocketAddr, bytes: Vec<u8>, now: Tick) {
        let is_init_ack =
            Packet::read(&bytes).and_then(|packet| packet.first()).is_some_and(|chunk| chunk.kind == INIT_ACK);
        let bytes = if is_init_ack { self.seal.put(bytes, peer, now) } else { Some(bytes) };
        self.packets.extend(bytes.map(|bytes| (to, bytes)));
    }

    fn keep(&mut self, association: Association) -> usize {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        self.by_tag.insert(association.tag, slot);
        self.by_peer.insert(association.peer, slot);
        if slot == self.slots.len() {
            self.slots.push(Some(association));
        } else if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(association);
        }
        slot
    }

    fn remove(&mut self, slot: usize) -> Option<Association> {
        let association = self.slots.get_mut(slot)?.take()?;
        self.by_tag.remove(&association.tag);
        self.by_peer.remove(&association.peer);
        self.deadlines.remove(&(association.armed, slot));
        self.free.push(slot);
        Some(association)
    }

    /// Enters an earlier deadline at once; a later one is found out when the entered one comes.
    fn arm(&mut self, slot: usize, now: Tick) {
        let (idle_ms, guard_ms) = (self.idle_ms, self.options.rto_max.as_millis() as u64 * GUARD);
        let Some(Some(association)) = self.slots.get_mut(slot) else { return };
        let idle = if association.is_connected() { association.last + idle_ms } else { Tick::NEVER };
        association.guard = if association.is_closing() { association.guard.min(now + guard_ms) } else { Tick::NEVER };
        // Never in this millisecond again: `tick` comes to an end whatever the protocol says.
        let due = association.due().min(idle).min(association.guard).max(now + 1);
        if due < association.armed {
            self.deadlines.remove(&(association.armed, slot));
            self.deadlines.insert((due, slot));
            association.armed = due;
        }
    }

    fn options_for(&self, remote_port: u16) -> Options {
        Options { remote_port, ..self.options.clone() }
    }
}

/// Tags and first TSNs come from `fastrand`, which starts from the clock and the thread: nothing that a stranger could not guess.
fn reseed() {
    let mut seed = [0; 8];
    // Fails only before the machine has any randomness; then the old seed goes on.
    if getrandom::fill(&mut seed).is_ok() {
        fastrand::seed(u64::from_ne_bytes(seed));
    }
}
