//! Slots: what one transaction leaves in shared memory. Plain data, named by index and generation.

use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use zerocopy::{FromBytes, KnownLayout};

use super::text::Text;
use crate::proxy::{Client, Server};

/// Names a server transaction for a search: a keyed hash over what RFC 3261 §17.2.3 compares. 128 bits, so equal keys are equal
/// transactions.
pub type Key = [u64; 2];

/// A server transaction and the texts of its context.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub struct ServerSlot {
    pub key: Key,
    pub server: Server,
    /// The request as it was received.
    pub request: Text,
    /// The best final response so far, as it goes upstream.
    pub best: Text,
    /// What was sent upstream last.
    pub last: Text,
    pub live: u32,
    pub busy: Busy,
    /// Next slot with the same chain of keys; for a dead slot, next of the free list.
    pub next: u32,
    /// First of this context's client slots.
    pub branches: u32,
}

/// A client transaction.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub struct ClientSlot {
    pub client: Client,
    /// The Request-URI it sends.
    pub target: Text,
    /// Further addresses of the same target: `Flow`s, one after another.
    pub others: Text,
    pub generation: u32,
    pub live: u32,
    /// The server slot of its context.
    pub head: u32,
    /// Next branch of the context; for a dead slot, next of the free list.
    pub next: u32,
    /// Neighbours in the chain of clients that wait on hops with the same hash; `hop_previous` is the slot's own number while it waits on
    /// nobody.
    pub hop_next: u32,
    pub hop_previous: u32,
}

/// The mark of a slot that is being changed. Found set after its owner's death, the context is ended: what was half-written is
/// never trusted.
#[derive(FromBytes, KnownLayout)]
#[repr(transparent)]
pub struct Busy(AtomicU32);

impl Busy {
    pub fn set(&self) {
        self.0.store(1, Ordering::Relaxed);
        // The mark must be in memory before the first change, whatever the compiler would like.
        compiler_fence(Ordering::SeqCst);
    }

    pub fn clear(&self) {
        compiler_fence(Ordering::SeqCst);
        self.0.store(0, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}
