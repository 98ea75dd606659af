//! Mailboxes: whole messages from one process to another that alone may send them (TCP, SCTP in user
//! space). The asymmetry that UDP and the kernel's SCTP do not need.
//!
//! Owns: one single-producer, single-consumer ring per pair of seats, and the wake-up of a sleeping reader. A record becomes
//! visible only when it is complete, so a writer that dies leaves nothing half; a reader says that it is done with a record
//! after it acted on it, so its successor repeats what it had not finished. Never waits: a full ring is the writer's answer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use nix::sys::eventfd::{EfdFlags, EventFd};
use sys::memory::{Mapping, Plan, Span};
use zerocopy::{FromBytes, IntoBytes};

use crate::message::branch::BranchId;
use crate::transport::Flow;

/// Words before a ring's data: what was written ever, and, a cache line on, what was read ever (both count words).
const WRITTEN: usize = 0;
const READ: usize = 8;
const DATA: usize = 16;

const FLOW_WORDS: usize = size_of::<Flow>() / 8;
/// Length and kind, client, flow.
const HEAD_WORDS: usize = 2 + FLOW_WORDS;

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
    pub fn before_sleep(&self, seat: usize) -> bool {
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

    /// Is there a record for `seat` that it is not done with?
    #[must_use]
    pub fn is_waiting(&self, seat: usize) -> bool {
        (0..self.seats).any(|from| {
            self.ring(from, seat).is_some_and(|ring| {
                ring.word(WRITTEN).load(Ordering::Acquire) != ring.word(READ).load(Ordering::Relaxed)
            })
        })
    }

    /// Puts one record into the ring from seat `from` to seat `to`. Only `from` itself may call this.
    pub fn post(
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
        let mut cursor = Cursor { ring, at: (written % self.capacity as u64) as usize };
        cursor.put((bytes as u64) << 8 | kind as u64);
        let client = client.unwrap_or_default();
        cursor.put(u64::from(client.slot) << 32 | u64::from(client.generation));
        cursor.put_bytes(flow.as_bytes(), &[]);
        cursor.put_bytes(head, body);
        ring.word(WRITTEN).store(written + words as u64, Ordering::Release);
        self.wake(to);
        Ok(())
    }

    fn wake(&self, seat: usize) {
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

/// The reading end of all rings to one seat; one per process.
pub struct Reader {
    mailboxes: Mailboxes,
    seat: usize,
    /// Per writer: how far we have read; behind it lies what `done` has not confirmed.
    at: Vec<u64>,
}

impl Reader {
    /// Goes on where the seat's last holder had confirmed.
    #[must_use]
    pub fn new(mailboxes: Mailboxes, seat: usize) -> Reader {
        let at = |from| mailboxes.ring(from, seat).map_or(0, |ring| ring.word(READ).load(Ordering::Acquire));
        Reader { mailboxes, seat, at: (0..mailboxes.seats).map(at).collect() }
    }

    /// The next record from seat `from`; its bytes are appended to `out`.
    pub fn next(&mut self, from: usize, out: &mut Vec<u8>) -> Option<Posted> {
        let ring = self.mailboxes.ring(from, self.seat)?;
        let at = self.at.get_mut(from)?;
        let written = ring.word(WRITTEN).load(Ordering::Acquire);
        if written == *at {
            return None;
        }
        let mut cursor = Cursor { ring, at: (*at % self.mailboxes.capacity as u64) as usize };
        let first = cursor.get();
        let client = cursor.get();
        let mut flow = [0; FLOW_WORDS];
        flow.fill_with(|| cursor.get());
        let bytes = (first >> 8) as usize;
        let words = (HEAD_WORDS + bytes.div_ceil(8)) as u64;
        let kind = match first as u8 {
            1 => Kind::Send,
            2 => Kind::Open,
            3 => Kind::Packet,
            // Cannot be: nothing is visible before it is complete. Start afresh rather than trust the rest.
            _ => {
                *at = written;
                return None;
            }
        };
        if words > written.wrapping_sub(*at) {
            *at = written;
            return None;
        }
        let begin = out.len();
        for _ in 0..bytes.div_ceil(8) {
            out.extend_from_slice(&cursor.get().to_ne_bytes());
        }
        out.truncate(begin + bytes);
        *at += words;
        let client = BranchId { slot: (client >> 32) as u32, generation: client as u32 };
        let client = (client != BranchId::default()).then_some(client);
        let to = Flow::read_from_bytes(flow.as_bytes()).unwrap_or_default();
        Some(Posted { kind, to, client, bytes })
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

/// DATA words and the data.
#[derive(Clone, Copy)]
struct Ring(&'static [AtomicU64]);

impl Ring {
    fn word(self, index: usize) -> &'static AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        self.0.get(index).unwrap_or(&NOWHERE)
    }
}

/// A place in a ring's data that goes on at its start when it comes to its end.
struct Cursor {
    ring: Ring,
    at: usize,
}

impl Cursor {
    fn step(&mut self) -> &'static AtomicU64 {
        let word = self.ring.word(DATA + self.at);
        self.at += 1;
        if DATA + self.at == self.ring.0.len() {
            self.at = 0;
        }
        word
    }

    fn get(&mut self) -> u64 {
        self.step().load(Ordering::Relaxed)
    }

    fn put(&mut self, value: u64) {
        self.step().store(value, Ordering::Relaxed);
    }

    /// Both pieces as one run of bytes, the last word filled with zeroes.
    fn put_bytes(&mut self, head: &[u8], body: &[u8]) {
        let mut chunks = head.chunks_exact(8);
        for chunk in &mut chunks {
            self.put(chunk.try_into().map_or(0, u64::from_ne_bytes));
        }
        // The word that the pieces share.
        let rest = chunks.remainder();
        let mut body = body;
        if !rest.is_empty() {
            let mut word = [0; 8];
            let taken = body.len().min(8 - rest.len());
            let (first, later) = body.split_at(taken);
            for (to, from) in word.iter_mut().zip(rest.iter().chain(first)) {
                *to = *from;
            }
            self.put(u64::from_ne_bytes(word));
            body = later;
        }
        for chunk in body.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.put(u64::from_ne_bytes(word));
        }
    }
}
