//! What other processes posted for this one: messages for connections and associations that only it holds, packets for them, and
//! (TCP, `single_owner`) messages that came, to be worked on here.
//!
//! Owns: the reading end of the mailboxes, and what was read until it is acted on. Never decides where it goes.

use sys::datagram::Arena;

use super::owned::post;
use super::{Body, Flow, Frame, Inbox, Outgoing, Parts};
use crate::shared::counters::Counter;
use crate::shared::mailbox::{Kind, Next, Reader};
use crate::transport::desk::Desk;

/// Bytes taken from the mailboxes before they are worked off.
const BYTES: usize = 256 * 1024;
/// Messages to work on that are taken at once: so many are repeated at most, should this process die meanwhile.
const FRAMES: usize = 32;

pub struct Relay {
    mailbox: Reader,
    parts: Parts,
    seat: usize,
    /// Whoever sends what becomes of messages that are to be worked on here: another process, if any.
    owner: Option<usize>,
    /// Messages to send.
    pub outgoing: Outgoing,
    /// Packets: from where and on which listener, and where in `outgoing.bytes`.
    pub packets: Vec<(Flow, (usize, usize))>,
    /// Connections that end with what was posted.
    pub ends: Vec<Flow>,
    /// Connections that are to end with the answer to their last message.
    lasts: Vec<Flow>,
    /// Records were taken that `done` was not said of; ... messages to work on among them.
    taken: bool,
    frames: usize,
    /// Messages wait here until the owner has taken more of what we posted to it.
    held: bool,
}

impl Relay {
    pub fn new(parts: &Parts, seat: usize, owner: Option<usize>) -> Relay {
        Relay {
            mailbox: Reader::new(parts.mailboxes, seat),
            parts: *parts,
            seat,
            owner: owner.filter(|owner| *owner != seat),
            outgoing: Outgoing::default(),
            packets: Vec::new(),
            ends: Vec::new(),
            lasts: Vec::new(),
            taken: false,
            frames: 0,
            held: false,
        }
    }

    /// Takes what was posted, messages to work on into the arena from slot `inbox.used` on; true: there is more, other than those.
    pub fn read(&mut self, arena: &mut Arena, inbox: &mut Inbox) -> bool {
        let mut cursor = Cursor { slot: inbox.used, at: 0, frames: FRAMES };
        let mailboxes = self.parts.mailboxes;
        // Who is behind with sending would be given more than its mailbox takes.
        self.held = self.owner.is_some_and(|owner| mailboxes.is_half_full((self.seat, owner)));
        let mut more = false;
        for from in 0..mailboxes.seats() {
            while let Some(next) = self.mailbox.peek(from) {
                if self.outgoing.bytes.len() >= BYTES {
                    more = true;
                    break;
                }
                match next.kind {
                    Kind::Send | Kind::Open | Kind::Packet | Kind::End => self.take(from),
                    // More of them: in the next turn. They may come without end, and others have come meanwhile.
                    Kind::Message | Kind::LastMessage => {
                        if self.held || !self.take_message(from, next, &mut cursor, arena, inbox) {
                            break;
                        }
                    }
                }
            }
        }
        inbox.used = cursor.used();
        if self.frames != 0 {
            self.mailbox.begin();
        }
        more
    }

    fn take(&mut self, from: usize) {
        let Relay { mailbox, outgoing, packets, ends, .. } = self;
        let begin = outgoing.begin();
        let Some(posted) = mailbox.next(from, &mut outgoing.bytes) else { return };
        self.taken = true;
        match posted.kind {
            Kind::Send | Kind::Open => outgoing.finish(begin, posted.to, Body::Empty, posted.client),
            Kind::Packet => packets.push((posted.to, (begin as usize, outgoing.bytes.len()))),
            Kind::Message | Kind::LastMessage => {}
            Kind::End => ends.push(posted.to),
        }
    }

    /// False: not now.
    fn take_message(
        &mut self,
        from: usize,
        next: Next,
        cursor: &mut Cursor,
        arena: &mut Arena,
        inbox: &mut Inbox,
    ) -> bool {
        self.taken = true;
        if next.tried {
            // Two processes died on it.
            tracing::warn!(bytes = next.bytes, "left a message on which two processes died");
            self.parts.counters.add(self.seat, Counter::Poisonous, 1);
            self.mailbox.skip(from);
            return true;
        }
        if next.bytes > arena.slot_bytes() {
            // Cannot be: it was read into a slot as large.
            self.parts.counters.add(self.seat, Counter::TooLarge, 1);
            self.mailbox.skip(from);
            return true;
        }
        let Some((slot, start)) = cursor.find(next.bytes, arena) else { return false };
        if next.inherited {
            // Alone, so that none is left for what another did.
            self.mailbox.note_try(from);
            cursor.frames = 0;
        }
        let bytes = arena.slot_mut(slot).get_mut(start..).unwrap_or_default();
        let Some(posted) = self.mailbox.next_into(from, bytes) else { return false };
        let close_after = posted.kind == Kind::LastMessage;
        if close_after {
            self.lasts.push(posted.to);
        }
        let (start, end) = (start as u32, (start + posted.bytes) as u32);
        inbox.frames.push(Frame { slot: slot as u16, start, end, from: posted.to, close_after });
        self.frames += 1;
        true
    }

    /// Is there nothing that `done` is to be said of?
    pub fn is_empty(&self) -> bool {
        !self.taken
    }

    /// Do messages that were taken wait for `done`?
    pub fn has_frames(&self) -> bool {
        self.frames != 0
    }

    /// Do messages wait for the owner? Then there is nothing to do about them for a moment.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// All of it was acted on. Only now: should we have died before, the next holder of this seat does it (SIP absorbs a repetition,
    /// SCTP a duplicate).
    pub fn done(&mut self, desk: &Desk, inbox: &mut Inbox) {
        for last in self.lasts.drain(..) {
            // Behind the answer. When there is no room, the owner ends the connection after a time.
            let Some(owner) = self.owner else { continue };
            post(desk, owner, Kind::End, &last, None, [b"", b""], inbox);
        }
        self.mailbox.done();
        (self.taken, self.frames) = (false, 0);
        self.outgoing.clear();
        self.packets.clear();
        self.ends.clear();
    }
}

/// Where in the arena the next message goes.
struct Cursor {
    slot: usize,
    at: usize,
    /// So many more are taken.
    frames: usize,
}

impl Cursor {
    /// Slot and place in it for so many bytes, behind the message before.
    fn find(&mut self, bytes: usize, arena: &Arena) -> Option<(usize, usize)> {
        if self.frames == 0 {
            return None;
        }
        if self.at != 0 && self.at + bytes > arena.slot_bytes() {
            (self.slot, self.at) = (self.slot + 1, 0);
        }
        let start = self.at;
        if self.slot >= arena.slots() {
            return None;
        }
        self.frames -= 1;
        self.at = start + bytes;
        Some((self.slot, start))
    }

    /// Slots filled.
    fn used(&self) -> usize {
        self.slot + usize::from(self.at != 0)
    }
}
