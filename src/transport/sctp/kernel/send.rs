//! Sending: bundled per association (RFC 9260 §6.10).
//!
//! Owns: the order of a turn's messages and the two calls that send them. MSG_MORE counts for a whole `sendmmsg`, so everything but
//! each association's last message goes first, with it; then the last ones, without. Never waits for room.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use sys::datagram::{Arena, To};
use sys::errno::{EADDRNOTAVAIL, ENOBUFS, ENOMEM, EPIPE, ESHUTDOWN};
use sys::sctp::PathState;

use super::queue::Key;
use super::{Desk, Item, Kernel, SndInfo, send_held_back};
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::timer::Tick;
use crate::transport::desk::End;
use crate::transport::outgoing::Sending;
use crate::transport::{Address, Inbox, Outgoing, Transport};

/// Sending there fails at once.
pub const NOWHERE: To = To::Peer(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

/// Over which association, and to whom when there is none.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// 0: by `peer`; the kernel finds the association or sets one up (M01, M02).
    pub association: u32,
    pub peer: Address,
    /// The number of the socket: that of the association, or the one that sets it up.
    pub socket: u8,
}

impl Way {
    pub fn to(self) -> To {
        if self.association != 0 { To::Association(self.association) } else { To::Peer(self.peer.into()) }
    }

    /// The association is gone: by address from now on.
    pub fn fall_back(&mut self, desk: &Desk, listener: u8) {
        *self = Way::opening(desk, listener, self.peer);
    }

    /// A15: over the open association with this address on this listener, or to where one is set up.
    pub fn to_address(desk: &Desk, listener: u8, peer: Address) -> Way {
        let flow = desk.parts.flows.find_by_peer(Transport::Sctp, peer);
        match flow.filter(|flow| flow.state == State::Open && flow.listener == listener) {
            Some(flow) => Way { association: flow.association, peer, socket: super::socket_of(&flow).number },
            None => Way::opening(desk, listener, peer),
        }
    }

    fn opening(desk: &Desk, listener: u8, peer: Address) -> Way {
        let opener = |end: &End| end.numbers.opener(peer, desk.encapsulation(peer));
        // Without one it is no socket's number, and fails.
        Way { association: 0, peer, socket: desk.end(listener).and_then(opener).unwrap_or(u8::MAX) }
    }

    /// Over this association; `peer` for when it is gone.
    fn over(desk: &Desk, listener: u8, association: u32, peer: Address) -> Way {
        let several = desk.end(listener).is_some_and(|end| end.fds.len() > 1);
        let flow = if several { desk.parts.flows.find_association(association) } else { None };
        Way { association, peer, socket: flow.map_or(0, |flow| super::socket_of(&flow).number) }
    }
}

/// One message of a flush.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Place in `Outgoing::sendings`.
    index: u32,
    way: Way,
    /// Sent in the second call, without MSG_MORE.
    last: bool,
}

impl Planned {
    fn key(&self, listener: u8) -> Key {
        let peer = if self.way.association != 0 { Address::NONE } else { self.way.peer };
        Key { listener, association: self.way.association, peer }
    }
}

pub enum Verdict {
    /// This association has no room now: try again shortly.
    NoRoom,
    /// It is shutting down: when it is gone, a new one may be set up (M19).
    Closing,
    /// Another socket has an association with this peer, or is setting one up (M16).
    Elsewhere,
    /// There is no such association any more (M03).
    Gone,
    Failed,
}

pub fn judge(error: &io::Error) -> Verdict {
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::WouldBlock => Verdict::NoRoom,
        Some(ENOBUFS | ENOMEM) => Verdict::NoRoom,
        Some(ESHUTDOWN) => Verdict::Closing,
        Some(EADDRNOTAVAIL) => Verdict::Elsewhere,
        Some(EPIPE) => Verdict::Gone,
        _ => Verdict::Failed,
    }
}

impl Kernel {
    /// Sends the messages at these places of `outgoing`, all of one listener.
    #[allow(clippy::too_many_arguments)]
    pub fn flush(
        &mut self,
        desk: &mut Desk,
        listener: u8,
        list: &[u32],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let mut planned = std::mem::take(&mut self.planned);
        self.plan(desk, listener, list, outgoing, arena, &mut planned, inbox, now);
        let open = mark_last(desk, listener, &mut planned);
        // The held-back ones first; within an association, the order in which they were decided.
        planned
            .sort_unstable_by_key(|message| (message.last, message.way.socket, message.way.association, message.index));
        let rest = if open { planned.partition_point(|message| !message.last) } else { 0 };
        let (held, last) = planned.split_at_mut(rest);
        self.transmit(desk, listener, true, held, outgoing, arena, inbox, now);
        self.transmit(desk, listener, false, last, outgoing, arena, inbox, now);
        planned.clear();
        self.planned = planned;
    }

    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        self.queues.retry(desk, self.sip, inbox, now);
    }

    pub fn next_tick(&self) -> Tick {
        self.queues.next_tick()
    }

    /// Decides which way each message goes; those of blocked associations wait behind the others.
    #[allow(clippy::too_many_arguments)]
    fn plan(
        &mut self,
        desk: &mut Desk,
        listener: u8,
        list: &[u32],
        outgoing: &Outgoing,
        arena: &Arena,
        planned: &mut Vec<Planned>,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        // A trunk's messages follow one another: look it up once.
        let mut found: Option<(Way, bool)> = None;
        let mut known: Option<Way> = None;
        for index in list {
            let Some((sending, pieces)) = outgoing.item(*index, arena) else { continue };
            let (association, peer) = (sending.to.association, by_address(sending));
            let way;
            if association == 0 {
                let (to, claimed) = match found.filter(|(way, _)| way.peer == peer) {
                    Some(found) => found,
                    None => {
                        let way = Way::to_address(desk, listener, peer);
                        (way, way.association == 0 && is_only_claimed(desk, listener, peer, now))
                    }
                };
                found = Some((to, claimed));
                way = to;
                if claimed {
                    desk.count(Counter::ClaimedAddress, 1);
                    inbox.send_failed(sending.client);
                    continue;
                }
                if way.association == 0 && desk.parts.flows.live(Transport::Sctp) >= desk.limits.associations {
                    desk.count(Counter::AssociationsRefused, 1);
                    inbox.send_failed(sending.client);
                    continue;
                }
            } else if desk.parts.broken.contains(association) {
                desk.count(Counter::Broken, 1);
                inbox.send_failed(sending.client);
                continue;
            } else {
                way = match known.filter(|way| way.association == association) {
                    Some(known) => Way { peer, ..known },
                    None => Way::over(desk, listener, association, peer),
                };
                known = Some(way);
            }
            let message = Planned { index: *index, way, last: true };
            let key = message.key(listener);
            if self.queues.is_blocked(&key) {
                self.queues.push(desk, key, (way, sending.client), pieces, inbox, now);
            } else {
                planned.push(message);
            }
        }
    }

    /// Sends all of them; one that is refused does not stop those of other associations.
    #[allow(clippy::too_many_arguments)]
    fn transmit(
        &mut self,
        desk: &mut Desk,
        listener: u8,
        more: bool,
        messages: &mut [Planned],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let mut at = 0;
        while at < messages.len() {
            // Since the first call, an association may have been found blocked.
            let Some(first) = messages.get(at) else { break };
            let key = first.key(listener);
            if self.queues.is_blocked(&key) {
                let way = first.way;
                if let Some((sending, pieces)) = outgoing.item(first.index, arena) {
                    self.queues.push(desk, key, (way, sending.client), pieces, inbox, now);
                }
                at += 1;
                continue;
            }
            let rest = messages.get(at..).unwrap_or_default();
            // Up to the next one that may not be sent, or leaves by another socket.
            let socket = first.way.socket;
            let other =
                |message: &Planned| message.way.socket != socket || self.queues.is_blocked(&message.key(listener));
            let count = rest.iter().position(other).unwrap_or(rest.len());
            let fd = desk.ends.get(usize::from(listener)).and_then(|end| end.fds.get(usize::from(socket)));
            let Some(fd) = fd.map(AsFd::as_fd) else {
                fail_all(desk, rest.get(..count).unwrap_or_default(), outgoing, inbox);
                at += count;
                continue;
            };
            let (sent, error) = desk.sender.send(fd, count, more, |index| item(rest, index, self.sip, outgoing, arena));
            desk.parts.counters.add(desk.seat, Counter::SentSctp, sent as u64);
            if !more {
                for message in rest.iter().take(sent).filter(|message| message.way.association != 0) {
                    desk.parts.open_associations.strike(desk.seat, listener, message.way.association);
                }
            }
            at += sent;
            let Some(error) = error else { continue };
            let Some(refused) = messages.get_mut(at) else { continue };
            let Some((sending, pieces)) = outgoing.item(refused.index, arena) else { break };
            match judge(&error) {
                verdict @ (Verdict::NoRoom | Verdict::Closing | Verdict::Elsewhere) => {
                    // All further ones of this association wait behind it, see above.
                    let key = refused.key(listener);
                    self.queues.push(desk, key, (refused.way, sending.client), pieces, inbox, now);
                    if matches!(verdict, Verdict::Closing) {
                        self.queues.closing(&key);
                    }
                    at += 1;
                }
                Verdict::Gone if refused.way.association != 0 => {
                    desk.parts.open_associations.strike(desk.seat, listener, refused.way.association);
                    refused.way.fall_back(desk, listener);
                }
                Verdict::Gone | Verdict::Failed => {
                    if !more && refused.way.association != 0 {
                        // It should have closed what MSG_MORE left open.
                        send_held_back(fd, refused.way.association);
                        desk.parts.open_associations.strike(desk.seat, listener, refused.way.association);
                    }
                    desk.parts.counters.add(desk.seat, Counter::SendFailed, 1);
                    inbox.send_failed(sending.client);
                    at += 1;
                }
            }
        }
    }
}

/// Where it goes when there is no association: a request to the address it is meant for, a response to the same IP at the sent-by
/// port (A17).
fn by_address(sending: &Sending) -> Address {
    let is_response = sending.to.association != 0;
    match sending.to.fallback_port {
        port if is_response && port != 0 => sending.to.peer.with_port(port),
        _ => sending.to.peer,
    }
}

fn item<'o>(messages: &[Planned], index: usize, sip: SndInfo, outgoing: &'o Outgoing, arena: &'o Arena) -> Item<'o> {
    let nothing = Item { to: NOWHERE, pieces: [b"", b""], sctp: None };
    messages.get(index).map_or(nothing, |message| {
        outgoing.item(message.index, arena).map_or(nothing, |(sending, pieces)| {
            let context = sending.client.map_or(0, |client| client.slot);
            Item { to: message.way.to(), pieces, sctp: Some(SndInfo { context, ..sip }) }
        })
    })
}

fn fail_all(desk: &Desk, messages: &[Planned], outgoing: &Outgoing, inbox: &mut Inbox) {
    desk.count(Counter::SendFailed, messages.len() as u64);
    for sending in messages.iter().filter_map(|message| outgoing.sendings.get(message.index as usize)) {
        inbox.send_failed(sending.client);
    }
}

/// Milliseconds after which an address that nobody has confirmed is taken for a lie: the kernel's first heartbeats are answered, or
/// lost several times, by then.
const CONFIRMED_BY_MS: u64 = 5_000;

/// Would the kernel send to this address over an association whose peer has only said that it is there (M39, L20)? Then the message
/// is not for that peer. Who has claimed it for long is aborted, so that it does not keep others from the address's owner.
fn is_only_claimed(desk: &Desk, listener: u8, peer: Address, now: Tick) -> bool {
    let Some(end) = desk.end(listener) else { return false };
    // Each socket knows its own associations only.
    let asked = end.fds.iter().filter_map(|fd| Some((fd.as_fd(), sys::sctp::path(fd.as_fd(), 0, peer.into()).ok()?)));
    let Some((fd, path)) = asked.into_iter().find(|(_, path)| path.state == PathState::Unconfirmed) else {
        return false;
    };
    let since = desk.parts.flows.find_association(path.association).map_or(now, |flow| flow.opened);
    if now.since(since) < CONFIRMED_BY_MS {
        return true;
    }
    tracing::warn!(%peer, association = path.association, "aborted: its peer claims an address that it does not answer on");
    sys::sctp::abort(fd, path.association).is_err()
}

/// Finds associations with more than one message and notes them as open; only their last message is then `last`. True when
/// there is one.
fn mark_last(desk: &Desk, listener: u8, planned: &mut [Planned]) -> bool {
    planned.sort_unstable_by_key(|message| (message.way.association, message.index));
    let mut open = false;
    for run in planned.chunk_by_mut(|one, other| one.way.association == other.way.association) {
        let Some((last, others)) = run.split_last_mut() else { continue };
        // A message that sets an association up leaves with COOKIE ECHO (L05), and with all that wait behind it.
        if last.way.association == 0
            || others.is_empty()
            || !desk.parts.open_associations.note(desk.seat, listener, last.way.association)
        {
            continue;
        }
        others.iter_mut().for_each(|message| message.last = false);
        open = true;
    }
    open
}
