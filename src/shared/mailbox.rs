//! Mailboxes: whole messages from one process to another that alone may send them (TCP, SCTP in user
//! space), or that is to work on them (TCP, `single_owner`). The asymmetry that UDP and the kernel's SCTP do not need.
//!
//! Owns: one single-producer, single-consumer ring per pair of seats, and the wake-up of a sleeping reader. A record becomes
//! visible only when it is complete, so a writer that dies leaves nothing half; a reader says that it is done with a record
//! after it acted on it, so its successor repeats what it had not finished. Never waits: a full ring is the writer's answer.

mod reader;
mod ring;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use nix::sys::eventfd::{EfdFlags, EventFd};
use sys::memory::{Mapping, Plan, Span};
use zerocopy::IntoBytes;

pub use self::reader::{Next, Reader};
use self::ring::{Cursor, DATA, READ, Ring, WRITTEN};
use crate::message::branch::BranchId;
use crate::transport::Flow;

const FLOW_WORDS: usize = size_of::<Flow>() / 8;
/// Length and kind, client, flow.
const HEAD_WORDS: usize = 2 + FLOW_WORDS;
/// Beside the kind of a record: somebody tries it of whom a process may have died before.
const TRIED: u64 = 1 << 7;

/// What the reader is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Send on the connection that `to.id` names.
    Send = 1,
    /// Find a connection to `to.peer`, or open one, and send.
    Open = 2,
    /// A packet from the UDP address `to.peer` on `to.listener`, for an association of the reader's.
    Packet = 3,
    /// A message that came on the connection `to.id`: work on it.
    Message = 4,
    /// The last of its connection, whose framing is lost (E13): work on it, then post `End`.
    LastMessage = 5,
    /// Nothing more follows for the connection `to.id`: end it when all is written.
    End = 6,
}

impl Kind {
    fn of(word: u64) -> Option<Kind> {
        let kinds = [Kind::Send, Kind::Open, Kind::Packet, Kind::Message, Kind::LastMessage, Kind::End];
        kinds.into_iter().find(|kind| *kind as u64 == word & 0x7f)
    }
}

/// A record's envelope; its bytes were appended to the buffer given to `Reader::next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    pub kind: Kind,
    pub to: Flow,
    pub client: Option<BranchId>,
    pub bytes: usize,
}

/// The ring has no room, now or (longer than the ring) ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Clone, Copy)]
pub struct Mailboxes {
    words: &'static [AtomicU64],
    /// Per seat: does it sleep in its poll?
    sleeping: &'static [AtomicU32],
    /// Per seat: made before the first fork, inherited by all.
    bells: &'static [EventFd],
    seats: usize,
    /// Data words of one ring.
    capacity: usize,
}

/// Where the parts of the mailboxes lie.
pub struct Spans {
    words: Span<AtomicU64>,
    sleeping: Span<AtomicU32>,
    seats: usize,
    capacity: usize,
}

impl Mailboxes {
    /// `bytes` of data per ring.
    pub fn plan(plan: &mut Plan, seats: usize, bytes: usize) -> Spans {
        // Whole cache lines, so that no two rings share one.
        let capacity = bytes.div_ceil(64) * 8;
        let words = plan.array(seats * seats * (DATA + capacity));
        // A flag per cache line.
        Spans { words, sleeping: plan.array(seats * 16), seats, capacity }
    }

    /// # Errors
    /// No more descriptors.
    pub fn take(mapping: &Mapping, spans: &Spans) -> io::Result<Mailboxes> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bells = (0..spans.seats).map(|_| EventFd::from_value_and_flags(0, flags)).collect::<Result<Vec<_>, _>>()?;
        Ok(Mailboxes {
            words: mapping.array(&spans.words),
            sleeping: mapping.array(&spans.sleeping),
            bells: bells.leak(),
            seats: spans.seats,
            capacity: spans.capacity,
        })
    }

    #[must_use]
    pub fn seats(&self) -> usize {
        self.seats
    }

    /// Becomes readable when something was posted to a sleeping `seat`. Register it edge-triggered; it need not be read.
    #[must_use]
    pub fn bell(&self, seat: usize) -> Option<BorrowedFd<'static>> {
        self.bells.get(seat).map(AsFd::as_fd)
    }

    /// Says that `seat` is about to sleep; false when something waits, then it must not. Call `woke` after the poll.
    pub fn announce_sleep(&self, seat: usize) -> bool {
        if let Some(sleeping) = self.sleeping.get(seat * 16) {
            sleeping.store(1, Ordering::SeqCst);
        }
        // The writer stores its record, then reads the flag; we store the flag, then read the rings: one of us sees the other.
        fence(Ordering::SeqCst);
        !self.is_waiting(seat)
    }

    pub fn woke(&self, seat: usize) {
        if let Some(sleeping) = self.sleeping.get(seat * 16) {
            sleeping.store(0, Ordering::Relaxed);
        }
    }

    /// Does it sleep in its poll, so that a record would have to wake it?
    #[must_use]
    pub fn is_asleep(&self, seat: usize) -> bool {
        self.sleeping.get(seat * 16).is_some_and(|flag| flag.load(Ordering::Relaxed) != 0)
    }

    /// Bytes in the ring from seat `from` to seat `to` that the reader is not done with; more than there are when there is no such ring.
    #[must_use]
    pub fn undone(&self, (from, to): (usize, usize)) -> usize {
        self.ring(from, to).map_or(usize::MAX, |ring| {
            // In this order: what was read is never more than what was written.
            let read = ring.word(READ).load(Ordering::Acquire);
            ring.word(WRITTEN).load(Ordering::Acquire).wrapping_sub(read) as usize * 8
        })
    }

    /// Is that more than half of what it holds? Then its writer had better do something else first.
    #[must_use]
    pub fn is_half_full(&self, ring: (usize, usize)) -> bool {
        self.undone(ring) > self.capacity * 4
    }

    /// Words ever written into a ring: see `is_done`.
    #[must_use]
    pub fn written(&self, (from, to): (usize, usize)) -> u64 {
        self.ring(from, to).map_or(0, |ring| ring.word(WRITTEN).load(Ordering::Relaxed))
    }

    /// Is the reader done with everything that was there when `written` was this?
    #[must_use]
    pub fn is_done(&self, (from, to): (usize, usize), written: u64) -> bool {
        self.ring(from, to).is_none_or(|ring| written.wrapping_sub(ring.word(READ).load(Ordering::Acquire)) as i64 <= 0)
    }

    /// Is there a record for `seat` that it is not done with?
    #[must_use]
    pub fn is_waiting(&self, seat: usize) -> bool {
        (0..self.seats).any(|from| {
            self.ring(from, seat).is_some_and(|ring| {
                ring.word(WRITTEN).load(Ordering::Acquire) != ring.word(READ).load(Ordering::Relaxed)
            })
        })
    }

    /// Puts one record into the ring from seat `from` to seat `to`, and wakes its reader. Only `from` itself may call this.
    pub fn post(
        &self,
        ring: (usize, usize),
        kind: Kind,
        flow: &Flow,
        client: Option<BranchId>,
        pieces: [&[u8]; 2],
    ) -> Result<(), Full> {
        self.put(ring, kind, flow, client, pieces)?;
        self.wake(ring.1);
        Ok(())
    }

    /// Puts one record into a ring as `post` does; the writer calls `wake` when it has put others there, too.
    pub fn put(
        &self,
        (from, to): (usize, usize),
        kind: Kind,
        flow: &Flow,
        client: Option<BranchId>,
        pieces: [&[u8]; 2],
    ) -> Result<(), Full> {
        let ring = self.ring(from, to).ok_or(Full)?;
        let [head, body] = pieces;
        let bytes = head.len() + body.len();
        let words = HEAD_WORDS + bytes.div_ceil(8);
        let written = ring.word(WRITTEN).load(Ordering::Relaxed);
        let read = ring.word(READ).load(Ordering::Acquire);
        if written.wrapping_sub(read) + words as u64 > self.capacity as u64 {
            return Err(Full);
        }
        let mut cursor = Cursor::new(ring, written, self.capacity);
        cursor.put((bytes as u64) << 8 | kind as u64);
        let client = client.unwrap_or_default();
        cursor.put(u64::from(client.slot) << 32 | u64::from(client.generation));
        cursor.put_bytes(flow.as_bytes(), &[]);
        cursor.put_bytes(head, body);
        ring.word(WRITTEN).store(written + words as u64, Ordering::Release);
        Ok(())
    }

    /// Wakes the process in `seat` if it sleeps.
    pub fn wake(&self, seat: usize) {
        fence(Ordering::SeqCst);
        let sleeps = self
            .sleeping
            .get(seat * 16)
            // The load alone usually says no; the swap lets only one of several writers ring.
            .is_some_and(|flag| flag.load(Ordering::SeqCst) != 0 && flag.swap(0, Ordering::SeqCst) != 0);
        if let Some(bell) = self.bells.get(seat)
            && sleeps
        {
            // Fails only when rung 2^64 - 1 times without being read.
            let _ = bell.write(1);
        }
    }

    fn ring(&self, from: usize, to: usize) -> Option<Ring> {
        if from >= self.seats {
            return None;
        }
        let length = DATA + self.capacity;
        let start = (to * self.seats + from) * length;
        self.words.get(start..start + length).map(Ring)
    }
}

/// Of the record that begins so.
fn words(first: u64) -> u64 {
    HEAD_WORDS as u64 + (first >> 8).div_ceil(8)
}
