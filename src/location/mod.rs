//! Location: RFC 3261 §10 (registrar) and the location service of §16.5.
//!
//! Owns: what a REGISTER does to the bindings of an address-of-record, and which of them are targets. Bindings lie in shared memory
//! (`shared::bindings`), so a look-up is a hash and a lock. Never reads a clock, never sends; authentication and whether a domain is
//! ours are settled before.

mod ask;
mod register;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::cmp::Reverse;
use std::ops::Range;

use crate::message::Uri;
use crate::message::uri::{canonical, equals};
use crate::shared::bindings::{Binding, BindingBucket, Bindings, Key, Pool};
use crate::shared::numbers::Audit;
use crate::timer::Tick;

pub use ask::{LONGEST_CALL_ID, LONGEST_CONTACT, address_of_record};

/// The location service: a handle, as good in every process.
#[derive(Clone, Copy)]
pub struct Location {
    bindings: Bindings,
}

/// What the location service knows of an address-of-record (B23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many were shown, at least one.
    Targets(usize),
    /// It registered once and has no live binding: 480.
    NoBinding,
    /// It never did, or so long ago that it was forgotten: 404.
    Unknown,
}

impl Location {
    #[must_use]
    pub fn new(bindings: Bindings) -> Location {
        Location { bindings }
    }

    /// Shows each target of an address-of-record of ours: its URI and q in thousandths, highest q first (B25), among equals the
    /// one that came first; each URI once (B22); never an expired one (F19), never one that is neither sip nor sips. `each` runs
    /// without a lock.
    pub fn targets(&self, address_of_record: &Uri<'_>, now: Tick, each: &mut dyn FnMut(&[u8], u16)) -> Found {
        with_scratch(|scratch| {
            let key = self.key(address_of_record, &mut scratch.bytes);
            let bucket = self.bindings.enter(key);
            let Some(record) = bucket.find(key) else { return Found::Unknown };
            scratch.know(&bucket, record, now, b"");
            drop(bucket);

            let Scratch { bytes, known, .. } = scratch;
            known.sort_unstable_by_key(|known| (Reverse(known.q), known.uri.start));
            let mut shown = 0;
            for (nth, this) in known.iter().enumerate() {
                let Some(uri) = this.uri(bytes).filter(Uri::is_sip) else { continue };
                let before = known.get(..nth).unwrap_or_default();
                if before.iter().filter_map(|before| before.uri(bytes)).all(|before| !equals(&before, &uri)) {
                    each(uri.text, this.q);
                    shown += 1;
                }
            }
            if shown == 0 { Found::NoBinding } else { Found::Targets(shown) }
        })
    }

    /// Bindings, without a lock; those whose time passed a moment ago included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bindings.count()
    }

    /// No binding ends before this; without a lock.
    #[must_use]
    pub fn earliest(&self) -> Tick {
        self.bindings.earliest()
    }

    /// Frees what expired bindings held; returns how many there were. For the timer process.
    pub fn expire(&self, now: Tick) -> usize {
        self.bindings.expire(now)
    }

    /// Every record, binding and block of text of all buckets counted under their locks; `lost` is 0.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.bindings.audit()
    }

    fn key(&self, address_of_record: &Uri<'_>, scratch: &mut Vec<u8>) -> Key {
        let start = scratch.len();
        canonical(address_of_record, scratch);
        let key = self.bindings.key(scratch.get(start..).unwrap_or_default());
        scratch.truncate(start);
        key
    }
}

/// Buffers of this thread, kept from call to call so that the steady state allocates nothing.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// The live bindings of the address-of-record in question.
    known: Vec<Known>,
    /// What the REGISTER wants.
    wanted: Vec<ask::Wanted>,
}

/// A live binding of which the URI was copied to the scratch bytes.
struct Known {
    number: u32,
    uri: Range<usize>,
    q: u16,
    /// Blocks of text that it holds.
    blocks: usize,
    same_call: bool,
    cseq: u32,
    /// Removed, or replaced by a wanted one.
    goes: bool,
}

impl Known {
    fn uri<'a>(&self, bytes: &'a [u8]) -> Option<Uri<'a>> {
        Uri::parse(bytes.get(self.uri.clone())?)
    }
}

impl Scratch {
    /// Copies what a decision needs of the record's live bindings.
    fn know(&mut self, bucket: &BindingBucket, record: u32, now: Tick, call_id: &[u8]) {
        for (number, binding) in bucket.of(record).filter(|(_, binding)| binding.expires > now) {
            let start = self.bytes.len();
            bucket.text.read(binding.text, &mut self.bytes);
            let (uri_end, params_end) = parts(binding);
            let same_call = self.bytes.get(start + params_end..) == Some(call_id);
            self.bytes.truncate(start + uri_end);
            let blocks = Pool::blocks_for(binding.text.len as usize);
            let uri = start..start + uri_end;
            self.known.push(Known { number, uri, q: binding.q, blocks, same_call, cseq: binding.cseq, goes: false });
        }
    }
}

/// Lends the thread's scratch buffers, empty.
fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: Cell<Scratch> = Cell::default();
    }
    let mut scratch = SCRATCH.take();
    scratch.bytes.clear();
    scratch.known.clear();
    scratch.wanted.clear();
    let result = work(&mut scratch);
    SCRATCH.set(scratch);
    result
}

/// Where the parts of a binding's text end: URI, parameters, Call-ID.
fn parts(binding: &Binding) -> (usize, usize) {
    let uri = usize::from(binding.uri_len);
    (uri, uri + usize::from(binding.params_len))
}
