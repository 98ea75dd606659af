//! Sending: bundled per association (RFC 9260 §6.10).
//!
//! Owns: the order of a turn's messages and the two calls that send them. MSG_MORE counts for a whole `sendmmsg`, so everything but
//! each association's last message goes first, with it; then the last ones, without. Never waits for room.

use std::io;
use std::os::fd::AsFd;

use sys::datagram::Arena;
use sys::errno::{EADDRNOTAVAIL, ENOBUFS, ENOMEM, EPIPE, ESHUTDOWN};

use super::queue::Key;
use super::way::{self, Way, Ways};
use super::{Desk, Item, Kernel, SndInfo, send_held_back};
use crate::shared::counters::Counter;
use crate::timer::Tick;
use crate::transport::{Address, Inbox, Outgoing};

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

/// Why a message could not be sent now.
pub enum Refused {
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

pub fn judge(error: &io::Error) -> Refused {
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::WouldBlock => Refused::NoRoom,
        Some(ENOBUFS | ENOMEM) => Refused::NoRoom,
        Some(ESHUTDOWN) => Refused::Closing,
        Some(EADDRNOTAVAIL) => Refused::Elsewhere,
        Some(EPIPE) => Refused::Gone,
        _ => Refused::Failed,
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
        let mut ways = Ways::new(listener);
        for index in list {
            let Some((sending, pieces)) = outgoing.item(*index, arena) else { continue };
            let way = match ways.of(desk, sending, now) {
                Ok(way) => way,
                Err(counter) => {
                    desk.count(counter, 1);
                    inbox.send_failed(sending.client);
                    continue;
                }
            };
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
                why @ (Refused::NoRoom | Refused::Closing | Refused::Elsewhere) => {
                    // All further ones of this association wait behind it, see above.
                    let key = refused.key(listener);
                    self.queues.push(desk, key, (refused.way, sending.client), pieces, inbox, now);
                    if matches!(why, Refused::Closing) {
                        self.queues.closing(&key);
                        if !more && refused.way.association != 0 {
                            // What is held back before it must not hold up the end.
                            send_held_back(fd, refused.way.association);
                        }
                    }
                    at += 1;
                }
                Refused::Gone if refused.way.association != 0 => {
                    desk.parts.open_associations.strike(desk.seat, listener, refused.way.association);
                    match Way::by_address(desk, listener, refused.way.peer, now) {
                        Ok(way) => refused.way = way,
                        Err(counter) => {
                            desk.parts.counters.add(desk.seat, counter, 1);
                            inbox.send_failed(sending.client);
                            at += 1;
                        }
                    }
                }
                Refused::Gone | Refused::Failed => {
                    if !more && refused.way.association != 0 {
                        // It should have closed what MSG_MORE left open.
                        send_held_back(fd, refused.way.association);
                        desk.parts.open_associations.strike(desk.seat, listener, refused.way.association);
                    }
                    desk.parts.counters.add(desk.seat, Counter::SendFailed, 1);
                    inbox.send_failed(sending.client);
                    way::given_up(desk, listener, refused.way.peer);
                    at += 1;
                }
            }
        }
    }
}

fn item<'o>(messages: &[Planned], index: usize, sip: SndInfo, outgoing: &'o Outgoing, arena: &'o Arena) -> Item<'o> {
    messages.get(index).map_or(Item::NONE, |message| {
        outgoing.item(message.index, arena).map_or(Item::NONE, |(sending, pieces)| {
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
