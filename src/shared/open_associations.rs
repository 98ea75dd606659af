//! Associations that a process left open with MSG_MORE: what it gave the kernel on them waits for a plain send (bundling, M29).
//!
//! Owns: their ids, per seat, so that a dead worker's successor closes them. Never sends.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sys::memory::{Mapping, Plan, Span};

/// Associations that one turn may leave open.
pub const PLACES: usize = 64;

/// One block of places per seat; a word is the listener << 32 | the association, 0 is none.
#[derive(Clone, Copy)]
pub struct OpenAssociations {
    words: &'static [AtomicU64],
}

impl OpenAssociations {
    pub fn plan(plan: &mut Plan, seats: usize) -> Span<AtomicU64> {
        plan.array(seats * PLACES)
    }

    pub fn take(mapping: &Mapping, words: &Span<AtomicU64>) -> io::Result<OpenAssociations> {
        Ok(OpenAssociations { words: mapping.array(words) })
    }

    fn seat(&self, seat: usize) -> &'static [AtomicU64] {
        self.words.get(seat * PLACES..(seat + 1) * PLACES).unwrap_or_default()
    }

    /// Notes it before the call with MSG_MORE; false when all places are taken (then do not leave it open). Only `seat` itself
    /// writes its places.
    pub fn note(&self, seat: usize, listener: u8, association: u32) -> bool {
        let word = u64::from(listener) << 32 | u64::from(association);
        let places = self.seat(seat);
        if places.iter().any(|place| place.load(Ordering::Relaxed) == word) {
            return true;
        }
        // SeqCst: must not be seen later than the system call that follows.
        let free = places.iter().find(|place| place.load(Ordering::Relaxed) == 0);
        free.is_some_and(|place| {
            place.store(word, Ordering::SeqCst);
            true
        })
    }

    /// A plain send on it has returned, or it is gone.
    pub fn strike(&self, seat: usize, listener: u8, association: u32) {
        let word = u64::from(listener) << 32 | u64::from(association);
        for place in self.seat(seat) {
            if place.load(Ordering::Relaxed) == word {
                place.store(0, Ordering::SeqCst);
            }
        }
    }

    /// What a dead predecessor left open: (listener, association).
    pub fn noted(&self, seat: usize) -> impl Iterator<Item = (u8, u32)> {
        self.seat(seat).iter().filter_map(|place| {
            let word = place.load(Ordering::SeqCst);
            (word != 0).then_some(((word >> 32) as u8, word as u32))
        })
    }
}
