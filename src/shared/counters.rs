//! Counters: one cache-line separated block per seat.
//!
//! Owns: numbers that only grow. Never decides anything.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sys::memory::{Mapping, Plan, Span};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Messages read, by transport.
    ReceivedUdp,
    ReceivedTcp,
    ReceivedSctp,
    /// Messages that the kernel took, by transport.
    SentUdp,
    SentTcp,
    SentSctp,
    /// Receiving calls that brought something: messages per batch.
    Batches,
    /// CRLF-only messages: keep-alives (K15, A29).
    KeepAlives,
    /// Messages over `limits.message_bytes`, dropped or answered and closed.
    TooLarge,
    /// Pieces without MSG_EOR: their association was aborted (M13).
    Pieces,
    /// Frames dropped because their association is being aborted.
    Broken,
    /// Streams that lost framing (E13).
    FramingLost,
    /// Connections closed with half a message after `tcp.message_timeout_ms`.
    HalfMessages,
    /// Connections closed because nothing came or went for `tcp.idle_s`.
    Idle,
    /// Connections closed because their peer does not read.
    Stalled,
    ConnectionsAccepted,
    ConnectionsOpened,
    /// Connections that could not be opened.
    ConnectFailed,
    /// Connections closed at once because a limit is reached.
    ConnectionsRefused,
    ConnectionsClosed,
    AssociationsUp,
    AssociationsLost,
    /// Associations shut down in good order, by either side.
    AssociationsClosed,
    /// Associations that could not be set up.
    AssociationFailed,
    /// Associations aborted at once because a limit is reached.
    AssociationsRefused,
    /// Messages put in an association's queue because the kernel had no room.
    Queued,
    /// Messages dropped because an association's or connection's queue was full or they waited too long.
    QueueFull,
    /// Messages dropped because another process's mailbox was full.
    MailboxFull,
    /// Messages posted to another process.
    Posted,
    /// Messages that could not be sent at all.
    SendFailed,
    /// System calls that failed for another reason.
    SocketErrors,
    /// Shared flow entries exhausted.
    FlowsFull,
}

/// Number of counters; a multiple of 8 words keeps the seats' blocks on cache lines of their own.
const BLOCK: usize = (Counter::FlowsFull as usize + 8) / 8 * 8;

/// Every process's counters.
#[derive(Clone, Copy)]
pub struct Counters {
    words: &'static [AtomicU64],
}

impl Counters {
    pub fn plan(plan: &mut Plan, seats: usize) -> Span<AtomicU64> {
        plan.array(seats * BLOCK)
    }

    pub fn take(mapping: &Mapping, words: &Span<AtomicU64>) -> io::Result<Counters> {
        Ok(Counters { words: mapping.array(words) })
    }

    pub fn add(&self, seat: usize, counter: Counter, n: u64) {
        if let Some(word) = self.words.get(seat * BLOCK + counter as usize) {
            word.fetch_add(n, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn sum(&self, counter: Counter) -> u64 {
        self.words.iter().skip(counter as usize).step_by(BLOCK).map(|word| word.load(Ordering::Relaxed)).sum()
    }
}
