//! What is counted on a flow while it is used. TCP and SCTP in user space: by its owner, with each message, without the table's lock; a
//! count that comes when the entry has just been given to the next flow is counted there. The kernel's SCTP, which has no owner: what came
//! and what waits, under the lock.
//!
//! Owns: counts, the bytes that wait, when it was last used. Never decides who is idle, or how much may wait.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, KnownLayout};

use crate::timer::Tick;

/// One entry's; a cache line of its own, as two neighbours are two processes'.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct Tally {
    received: AtomicU64,
    sent: AtomicU64,
    /// Bytes.
    queued: AtomicU64,
    last: AtomicU64,
    unused: [u64; 4],
}

/// What it says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Messages.
    pub received: u64,
    pub sent: u64,
    pub queued: u32,
    pub last: Tick,
}

impl Told {
    pub const NOTHING: Told = Told { received: 0, sent: 0, queued: 0, last: Tick(0) };
}

impl Tally {
    /// A new flow's.
    pub fn begin(&self, now: Tick) {
        self.received.store(0, Ordering::Relaxed);
        self.sent.store(0, Ordering::Relaxed);
        self.queued.store(0, Ordering::Relaxed);
        self.use_at(now);
    }

    pub fn use_at(&self, now: Tick) {
        self.last.store(now.0, Ordering::Relaxed);
    }

    /// Messages came or went.
    pub fn count(&self, received: u64, sent: u64, now: Tick) {
        // Not by adding 0: that costs as much as adding 1.
        for (count, n) in [(&self.received, received), (&self.sent, sent)] {
            if n != 0 {
                count.fetch_add(n, Ordering::Relaxed);
            }
        }
        self.use_at(now);
    }

    /// So many bytes wait: as its only owner says.
    pub fn set_queued(&self, bytes: u32) {
        self.queued.store(u64::from(bytes), Ordering::Relaxed);
    }

    /// Where several processes have bytes that wait, under the table's lock, lest they be counted on the next flow: a sum of differences
    /// keeps what is wrong. `change` gives none: it stays as it is, and the answer is false.
    pub fn change_queued(&self, change: impl Fn(usize) -> Option<usize>) -> bool {
        let change = |queued| change(queued as usize).map(|queued| queued as u64);
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }

    #[must_use]
    pub fn told(&self) -> Told {
        Told {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            queued: u32::try_from(self.queued.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            last: Tick(self.last.load(Ordering::Relaxed)),
        }
    }
}
