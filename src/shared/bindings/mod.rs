//! Bindings in shared memory: few, large buckets, each behind one lock.
//!
//! Owns: which bucket an address-of-record belongs to, and what a bucket shows without its lock (fill, next deadline). Never judges
//! a REGISTER: that is `location`.

mod bucket;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use siphasher::sip128::SipHasher13;
use sys::memory::{Guard, Locked, Mapping, Plan, Span};
use zerocopy::{FromBytes, KnownLayout};

pub use bucket::{BINDINGS, Binding, BindingBucket, Key, New, Pool};

use crate::shared::numbers::Audit;
use crate::timer::Tick;

/// Where the parts lie in the mapping.
#[derive(Clone, Copy)]
pub struct Spans {
    buckets: Span<Locked<BindingBucket>>,
    faces: Span<Face>,
}

/// The handle; copying it copies references.
#[derive(Clone, Copy)]
pub struct Bindings {
    buckets: &'static [Locked<BindingBucket>],
    faces: &'static [Face],
    /// Drawn at daemon start: nobody can choose addresses-of-record that fall into one bucket.
    secret: (u64, u64),
}

/// What a bucket shows without its lock: written under it, read at any time.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
struct Face {
    /// Nothing ends before this; plus 1, so that zeroed memory says never.
    earliest: AtomicU64,
    records: AtomicU32,
    bindings: AtomicU32,
    /// Owners that died with the lock.
    recovered: AtomicU32,
    unused: u32,
}

impl Bindings {
    /// Room for at least `bindings` bindings.
    #[must_use]
    pub fn plan(plan: &mut Plan, bindings: usize) -> Spans {
        let n = bindings.div_ceil(BINDINGS).max(1);
        Spans { buckets: plan.locks(n), faces: plan.array(n) }
    }

    /// Once, before the first fork.
    ///
    /// # Errors
    /// The locks could not be made (pthread_mutex_init(3)), or there is no randomness (getrandom(2)).
    pub fn take(mapping: &Mapping, spans: &Spans) -> io::Result<Bindings> {
        let draw = || getrandom::u64().map_err(|error| io::Error::other(error.to_string()));
        let secret = (draw()?, draw()?);
        Ok(Bindings { buckets: mapping.locks(&spans.buckets)?, faces: mapping.array(&spans.faces), secret })
    }

    /// The key of an address-of-record, from its canonical text.
    #[must_use]
    pub fn key(&self, address_of_record: &[u8]) -> Key {
        let hash = SipHasher13::new_with_keys(self.secret.0, self.secret.1).hash(address_of_record);
        // All zero means no record; that one key in 2^128 shares another's place costs nothing.
        [hash.h1, hash.h2.max(1)]
    }

    /// Locks the bucket that `key` belongs to.
    #[must_use]
    pub fn enter(&self, key: Key) -> Entered {
        self.enter_nth(key[0] as usize % self.buckets.len())
    }

    /// Bindings, live or not yet found expired; no lock is taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.faces.iter().map(|face| face.bindings.load(Ordering::Relaxed) as usize).sum()
    }

    /// Addresses-of-record known; no lock is taken.
    #[must_use]
    pub fn records(&self) -> usize {
        self.faces.iter().map(|face| face.records.load(Ordering::Relaxed) as usize).sum()
    }

    /// Bindings there is room for.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buckets.len() * BINDINGS
    }

    /// How often an owner died with a bucket's lock; no lock is taken.
    #[must_use]
    pub fn recovered(&self) -> usize {
        self.faces.iter().map(|face| face.recovered.load(Ordering::Relaxed) as usize).sum()
    }

    /// No binding ends before this; no lock is taken.
    #[must_use]
    pub fn earliest(&self) -> Tick {
        self.faces.iter().map(Face::earliest).min().unwrap_or(Tick::NEVER)
    }

    /// Removes bindings whose time has passed; returns how many. Enters only buckets that have one, and leaves each after a short
    /// while, so that others get in.
    pub fn expire(&self, now: Tick) -> usize {
        const SLICE: usize = 64;
        let mut removed = 0;
        for (nth, face) in self.faces.iter().enumerate() {
            while face.earliest() <= now {
                let mut bucket = self.enter_nth(nth);
                let slice = (0..SLICE).take_while(|_| bucket.expire_one(now)).count();
                removed += slice;
                if slice < SLICE {
                    break;
                }
            }
        }
        removed
    }

    /// Counts records, bindings and blocks of text, bucket by bucket, under their locks. Allocates: for tests and operators.
    #[must_use]
    pub fn audit(&self) -> Audit {
        (0..self.buckets.len()).fold(Audit::default(), |sum, nth| sum + self.enter_nth(nth).audit())
    }

    /// The same without waiting: second, the buckets that were in use at the moment and are left out.
    #[must_use]
    pub fn audit_now(&self) -> (Audit, usize) {
        let mut sum = (Audit::default(), 0);
        for bucket in self.buckets {
            match (0..100).find_map(|_| bucket.try_lock()) {
                Some(bucket) => sum.0 += bucket.audit(),
                None => sum.1 += 1,
            }
        }
        sum
    }

    fn enter_nth(&self, nth: usize) -> Entered {
        // `nth` is below the number of buckets, which is the number of faces.
        let (lock, face) = (&self.buckets[nth], &self.faces[nth]);
        let guard = lock.lock();
        if guard.recovered() {
            face.recovered.fetch_add(1, Ordering::Relaxed);
        }
        Entered { guard, face }
    }
}

impl Face {
    fn earliest(&self) -> Tick {
        self.earliest.load(Ordering::Relaxed).checked_sub(1).map_or(Tick::NEVER, Tick)
    }
}

/// A bucket whose lock we have; its face is brought up to date when it is left.
pub struct Entered {
    guard: Guard<'static, BindingBucket>,
    face: &'static Face,
}

impl Deref for Entered {
    type Target = BindingBucket;

    fn deref(&self) -> &BindingBucket {
        &self.guard
    }
}

impl DerefMut for Entered {
    fn deref_mut(&mut self) -> &mut BindingBucket {
        &mut self.guard
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let (records, bindings) = self.guard.count();
        self.face.records.store(records as u32, Ordering::Relaxed);
        self.face.bindings.store(bindings as u32, Ordering::Relaxed);
        self.face.earliest.store(self.guard.earliest().0.wrapping_add(1), Ordering::Relaxed);
    }
}
