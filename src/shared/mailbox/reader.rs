//! The reading end of the mailboxes.
//!
//! Owns: how far this process has read, and what it may have inherited from one that died. Never acts on a record.

use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, IntoBytes};

use super::ring::{BEGUN, Cursor, READ, WRITTEN};
use super::{FLOW_WORDS, Kind, Mailboxes, Posted, TRIED, words};
use crate::message::branch::BranchId;
use crate::transport::Flow;

/// The next record, still in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub kind: Kind,
    pub bytes: usize,
    /// Whoever had the seat before had begun with it, and may have died of it.
    pub inherited: bool,
    /// ... and so may a second one.
    pub tried: bool,
}

/// The reading end of all rings to one seat; one per process.
pub struct Reader {
    mailboxes: Mailboxes,
    seat: usize,
    /// Per writer: how far we have read; behind it lies what `done` has not confirmed.
    at: Vec<u64>,
    /// Per writer: up to here our predecessor had begun.
    inherited: Vec<u64>,
}

impl Reader {
    /// Goes on where the seat's last holder had confirmed.
    #[must_use]
    pub fn new(mailboxes: Mailboxes, seat: usize) -> Reader {
        let all = |word| {
            let of = |from| mailboxes.ring(from, seat).map_or(0, |ring| ring.word(word).load(Ordering::Acquire));
            (0..mailboxes.seats).map(of).collect()
        };
        Reader { mailboxes, seat, at: all(READ), inherited: all(BEGUN) }
    }

    /// What `next` would take.
    pub fn peek(&mut self, from: usize) -> Option<Next> {
        let (first, _) = self.first(from)?;
        let inherited = match (self.inherited.get(from), self.at.get(from)) {
            (Some(inherited), Some(at)) => inherited.wrapping_sub(*at) as i64 > 0,
            _ => false,
        };
        Some(Next { kind: Kind::of(first)?, bytes: (first >> 8) as usize, inherited, tried: first & TRIED != 0 })
    }

    /// Notes in the next record that we try it. Should we die of it, our successor's successor leaves it (see `Next::tried`).
    pub fn note_try(&mut self, from: usize) {
        if let Some((first, mut cursor)) = self.first(from) {
            cursor.put(first | TRIED);
        }
    }

    /// We begin with everything read so far.
    pub fn begin(&self) {
        for (from, at) in self.at.iter().enumerate() {
            if let Some(ring) = self.mailboxes.ring(from, self.seat) {
                ring.word(BEGUN).store(*at, Ordering::Release);
            }
        }
    }

    /// Leaves the next record.
    pub fn skip(&mut self, from: usize) {
        if let (Some((first, _)), Some(at)) = (self.first(from), self.at.get_mut(from)) {
            *at += words(first);
        }
    }

    /// The next record from seat `from`; its bytes are appended to `out`.
    pub fn next(&mut self, from: usize, out: &mut Vec<u8>) -> Option<Posted> {
        let (posted, mut cursor) = self.envelope(from)?;
        cursor.append_to(out, posted.bytes);
        Some(posted)
    }

    /// The next record; its bytes are what `room` begins with. None, too, when it is too small for them.
    pub fn next_into(&mut self, from: usize, room: &mut [u8]) -> Option<Posted> {
        let bytes = self.peek(from)?.bytes;
        let room = room.get_mut(..bytes)?;
        let (posted, mut cursor) = self.envelope(from)?;
        cursor.copy_to(room);
        Some(posted)
    }

    /// The next record but for its bytes, at which the cursor stands.
    fn envelope(&mut self, from: usize) -> Option<(Posted, Cursor)> {
        let (first, mut cursor) = self.first(from)?;
        cursor.get();
        let client = cursor.get();
        let mut flow = [0; FLOW_WORDS];
        flow.fill_with(|| cursor.get());
        *self.at.get_mut(from)? += words(first);
        let client = BranchId { slot: (client >> 32) as u32, generation: client as u32 };
        let client = (client != BranchId::default()).then_some(client);
        let to = Flow::read_from_bytes(flow.as_bytes()).unwrap_or_default();
        Some((Posted { kind: Kind::of(first)?, to, client, bytes: (first >> 8) as usize }, cursor))
    }

    /// The next record's first word, at which the cursor stands.
    fn first(&mut self, from: usize) -> Option<(u64, Cursor)> {
        let ring = self.mailboxes.ring(from, self.seat)?;
        let at = self.at.get_mut(from)?;
        let written = ring.word(WRITTEN).load(Ordering::Acquire);
        if written == *at {
            return None;
        }
        let cursor = Cursor::new(ring, *at, self.mailboxes.capacity);
        let first = cursor.look();
        if Kind::of(first).is_none() || words(first) > written.wrapping_sub(*at) {
            // Cannot be: nothing is visible before it is complete. Start afresh rather than trust the rest.
            *at = written;
            return None;
        }
        Some((first, cursor))
    }

    /// Everything read so far has been acted on: its room is the writers' again.
    pub fn done(&mut self) {
        for (from, at) in self.at.iter().enumerate() {
            if let Some(ring) = self.mailboxes.ring(from, self.seat)
                && ring.word(READ).load(Ordering::Relaxed) != *at
            {
                ring.word(READ).store(*at, Ordering::Release);
            }
        }
    }
}
