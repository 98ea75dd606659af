//! Associations that are being aborted because a piece of a message came without its end (M11, M13).
//!
//! Owns: their ids, so that every process drops what still arrives on them, also a tail that carries MSG_EOR.
//! Never aborts: `transport::sctp` does.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use sys::memory::{Mapping, Plan, Span};

/// Far more than can be in the middle of an abort at once; the oldest is forgotten first.
const PLACES: usize = 128;

/// Association ids are system-wide and not used again soon (M42), so an id stays noted after its association is gone, until a
/// new one of the same id comes up: a piece that another process read before COMM_LOST is still dropped (M27).
#[derive(Clone, Copy)]
pub struct Broken {
    /// Places 0..PLACES: ids, 0 is none. Then: how many were ever noted.
    words: &'static [AtomicU32],
}

impl Broken {
    pub fn plan(plan: &mut Plan) -> Span<AtomicU32> {
        plan.array(PLACES + 1)
    }

    pub fn take(mapping: &Mapping, words: &Span<AtomicU32>) -> io::Result<Broken> {
        Ok(Broken { words: mapping.array(words) })
    }

    /// Notes it; false when it was already noted.
    pub fn mark(&self, association: u32) -> bool {
        if self.contains(association) {
            return false;
        }
        let Some((ever, places)) = self.words.split_last() else { return true };
        let place = ever.fetch_add(1, Ordering::AcqRel) as usize % PLACES;
        if let Some(place) = places.get(place) {
            place.store(association, Ordering::Release);
        }
        true
    }

    /// One load while nothing ever broke, which is the usual state.
    #[must_use]
    pub fn contains(&self, association: u32) -> bool {
        let Some((ever, places)) = self.words.split_last() else { return false };
        let ever = ever.load(Ordering::Acquire) as usize;
        ever != 0 && places.iter().take(ever).any(|place| place.load(Ordering::Acquire) == association)
    }

    /// A new association has this id.
    pub fn clear(&self, association: u32) {
        let Some((ever, places)) = self.words.split_last() else { return };
        if ever.load(Ordering::Acquire) == 0 {
            return;
        }
        for place in places {
            let _ = place.compare_exchange(association, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
