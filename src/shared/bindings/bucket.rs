//! One bucket of bindings: addresses-of-record, their bindings, the text of these, when they end; plain data behind one lock.
//!
//! Owns: the records and their order; that a record whose changer died is dropped, never trusted. Never judges a REGISTER (that is
//! `location`), never reads a clock.
//!
//! Changes go `open`, then `put` and `remove`, then `close`; between the first and the last the record is marked busy. When the owner
//! of the lock dies there, `rebuild` drops that record with all its bindings, and makes every list anew from what is left.

mod repair;

use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use zerocopy::{FromBytes, KnownLayout};

use crate::shared::deadlines::Deadlines;
use crate::shared::numbers::Numbers;
use crate::shared::text::{Text, TextPool};
use crate::timer::Tick;

/// Bindings, and addresses-of-record, of one bucket. Large, so that buckets fill evenly: with 25 of them the first is full when all
/// are 97 % full.
pub const BINDINGS: usize = 4096;
/// Text: four blocks of 64 bytes a binding; a usual one (100 bytes of URI, 40 of Call-ID) takes three.
const BLOCKS: usize = 4 * BINDINGS;
const BLOCK_BYTES: usize = 64;

pub type Pool = TextPool<BLOCKS, BLOCK_BYTES>;
/// Keyed hash of an address-of-record; never all zero.
pub type Key = [u64; 2];

/// An address-of-record. Known as long as there is room, also when it has no binding left (B23).
#[derive(Clone, Copy, FromBytes, KnownLayout)]
#[repr(C)]
struct Record {
    /// All zero: no record.
    key: Key,
    /// Its bindings in the order they came; linked by their numbers.
    first: u32,
    count: u32,
    /// Neighbours among the records without a binding, which may have to make room.
    older: u32,
    newer: u32,
}

/// A binding (RFC 3261 §10.3 item 7, F18).
#[derive(Clone, Copy, FromBytes, KnownLayout)]
#[repr(C)]
pub struct Binding {
    /// It lives while now is before this.
    pub expires: Tick,
    /// Contact URI, contact parameters, Call-ID, one behind the other.
    pub text: Text,
    /// Number of its record; 0 when this is no binding.
    record: u32,
    pub cseq: u32,
    pub uri_len: u16,
    pub params_len: u16,
    /// Thousandths.
    pub q: u16,
    unused: u16,
}

/// What a binding is made from.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Shorter than 2^16 bytes each.
    pub uri: &'a [u8],
    pub params: &'a [u8],
    pub call_id: &'a [u8],
    pub cseq: u32,
    pub q: u16,
    pub expires: Tick,
}

impl New<'_> {
    /// Blocks of text that it takes.
    #[must_use]
    pub fn blocks(&self) -> usize {
        Pool::blocks_for(self.uri.len() + self.params.len() + self.call_id.len())
    }
}

#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct BindingBucket {
    /// Number of the record being changed, 0 when none is. Atomic only so that the compiler keeps its place in the order of writes:
    /// it is written and read under the lock.
    busy: AtomicU32,
    /// Oldest and newest record without a binding.
    idle_oldest: u32,
    idle_newest: u32,
    unused: u32,
    /// Hash chains: number of the first record. Links are those of `record_numbers`.
    chains: [u32; BINDINGS],
    record_numbers: Numbers<BINDINGS>,
    records: [Record; BINDINGS],
    binding_numbers: Numbers<BINDINGS>,
    bindings: [Binding; BINDINGS],
    /// When each binding ends.
    ends: Deadlines<BINDINGS>,
    pub text: Pool,
}

impl BindingBucket {
    /// The record of an address-of-record.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<u32> {
        let mut number = *self.chains.get(chain_of(key))?;
        for _ in 0..BINDINGS {
            if self.record(number)?.key == key {
                return Some(number);
            }
            number = self.record_numbers.next(number)?;
        }
        None
    }

    /// The bindings of a record, with their numbers, in the order they came; also those whose time has passed.
    pub fn of(&self, record: u32) -> impl Iterator<Item = (u32, &Binding)> {
        let mut number = self.record(record).map_or(0, |record| record.first);
        (0..BINDINGS).map_while(move |_| {
            let binding = self.binding(number)?;
            let this = number;
            number = self.binding_numbers.next(number)?;
            Some((this, binding))
        })
    }

    /// How many bindings can be made, if this record makes one that has none yet.
    #[must_use]
    pub fn room(&self, record: Option<u32>) -> usize {
        let a_record = record.is_some() || self.record_numbers.available() > 0 || self.idle_oldest != 0;
        if a_record { self.binding_numbers.available() } else { 0 }
    }

    /// Begins a change of this address-of-record: its record, made if need be, is busy. `None`: no room for it, nothing changed.
    pub fn open(&mut self, key: Key) -> Option<u32> {
        if let Some(number) = self.find(key) {
            self.begin(number);
            self.unidle(number);
            return Some(number);
        }
        let number = match self.record_numbers.available() {
            // Whoever has been without a binding for longest is forgotten: 404 instead of 480.
            0 => {
                let oldest = Some(self.idle_oldest).filter(|number| *number != 0)?;
                self.begin(oldest);
                self.unidle(oldest);
                self.unchain(oldest);
                oldest
            }
            _ => {
                let number = self.record_numbers.take()?;
                self.begin(number);
                number
            }
        };
        *self.record_mut(number)? = Record { key, first: 0, count: 0, older: 0, newer: 0 };
        self.chain(number);
        Some(number)
    }

    /// Adds a binding to the open record, or puts it in the place of `old`. False: no room, then the old one is gone too
    /// (ask `room` first).
    #[must_use]
    pub fn put(&mut self, record: u32, old: Option<u32>, new: &New<'_>) -> bool {
        let number = match old {
            Some(number) => {
                self.forget_text(number);
                Some(number)
            }
            None => self.append(record),
        };
        let Some(number) = number else { return false };
        let Some(text) = self.text.store(&[new.uri, new.params, new.call_id]) else {
            self.remove(record, number);
            return false;
        };
        let Some(binding) = self.binding_mut(number) else { return false };
        *binding = Binding {
            expires: new.expires,
            text,
            record,
            cseq: new.cseq,
            uri_len: new.uri.len() as u16,
            params_len: new.params.len() as u16,
            q: new.q,
            unused: 0,
        };
        self.ends.set(number, new.expires);
        true
    }

    /// Takes a binding from the open record.
    pub fn remove(&mut self, record: u32, number: u32) {
        let next = self.binding_numbers.next(number).unwrap_or(0);
        let before = self.of(record).map(|(at, _)| at).find(|at| self.binding_numbers.next(*at) == Some(number));
        match before {
            Some(before) => self.binding_numbers.link(before, next),
            None => {
                if let Some(record) = self.record_mut(record).filter(|record| record.first == number) {
                    record.first = next;
                }
            }
        }
        if let Some(record) = self.record_mut(record) {
            record.count = record.count.saturating_sub(1);
        }
        self.forget_text(number);
        self.ends.set(number, Tick::NEVER);
        if let Some(binding) = self.binding_mut(number) {
            binding.record = 0;
        }
        self.binding_numbers.give(number);
    }

    /// Ends the change.
    pub fn close(&mut self, record: u32) {
        if self.record(record).is_some_and(|record| record.count == 0) {
            self.idle(record);
        }
        compiler_fence(Ordering::SeqCst);
        self.busy.store(0, Ordering::Relaxed);
    }

    /// Removes one binding whose time has passed; false when there is none.
    pub fn expire_one(&mut self, now: Tick) -> bool {
        let Some(number) = self.ends.pop_due(now) else { return false };
        let Some(record) = self.binding(number).map(|binding| binding.record) else { return true };
        self.begin(record);
        self.remove(record, number);
        self.close(record);
        true
    }

    /// Removes the bindings of a record whose time has passed.
    pub fn expire_of(&mut self, record: u32, now: Tick) {
        loop {
            let mut expired = self.of(record).filter(|(_, binding)| binding.expires <= now).map(|(number, _)| number);
            let Some(number) = expired.next() else { return };
            drop(expired);
            self.begin(record);
            self.remove(record, number);
            self.close(record);
        }
    }

    /// No binding ends before this.
    #[must_use]
    pub fn earliest(&self) -> Tick {
        self.ends.earliest()
    }

    /// Addresses-of-record known, bindings.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (BINDINGS - self.record_numbers.available(), BINDINGS - self.binding_numbers.available())
    }

    fn begin(&mut self, record: u32) {
        self.busy.store(record, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    fn append(&mut self, record: u32) -> Option<u32> {
        let last = self.of(record).last().map(|(number, _)| number);
        let number = self.binding_numbers.take()?;
        let place = self.binding_mut(number)?;
        *place = Binding { text: Text::EMPTY, record, ..*place };
        let holder = self.record_mut(record)?;
        holder.count += 1;
        if last.is_none() {
            holder.first = number;
        }
        if let Some(last) = last {
            self.binding_numbers.link(last, number);
        }
        Some(number)
    }

    /// Gives back the text of a binding of the open record that will be `put` anew.
    pub fn forget_text(&mut self, number: u32) {
        if let Some(binding) = self.binding_mut(number) {
            let text = std::mem::take(&mut binding.text);
            self.text.free(text);
        }
    }

    fn chain(&mut self, number: u32) {
        let Some(key) = self.record(number).map(|record| record.key) else { return };
        let Some(first) = self.chains.get_mut(chain_of(key)) else { return };
        let next = std::mem::replace(first, number);
        self.record_numbers.link(number, next);
    }

    fn unchain(&mut self, number: u32) {
        let Some(key) = self.record(number).map(|record| record.key) else { return };
        let next = self.record_numbers.next(number).unwrap_or(0);
        let Some(first) = self.chains.get_mut(chain_of(key)) else { return };
        if *first == number {
            *first = next;
            return;
        }
        let mut before = *first;
        for _ in 0..BINDINGS {
            match self.record_numbers.next(before) {
                Some(after) if after == number => return self.record_numbers.link(before, next),
                Some(after) => before = after,
                None => return,
            }
        }
    }

    fn idle(&mut self, number: u32) {
        let older = std::mem::replace(&mut self.idle_newest, number);
        match self.record_mut(older) {
            Some(older) => older.newer = number,
            None => self.idle_oldest = number,
        }
        if let Some(record) = self.record_mut(number) {
            (record.older, record.newer) = (older, 0);
        }
    }

    /// Takes the record out of the idle ones, if it is one.
    fn unidle(&mut self, number: u32) {
        let Some(record) = self.record_mut(number).filter(|record| record.count == 0) else { return };
        let (older, newer) = (std::mem::take(&mut record.older), std::mem::take(&mut record.newer));
        match self.record_mut(older) {
            Some(older) => older.newer = newer,
            None => self.idle_oldest = newer,
        }
        match self.record_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.idle_newest = older,
        }
    }

    /// A record that exists.
    fn record(&self, number: u32) -> Option<&Record> {
        self.record_numbers.next(number)?;
        self.records.get((number as usize).checked_sub(1)?).filter(|record| record.key != [0; 2])
    }

    /// Any record's place.
    fn record_mut(&mut self, number: u32) -> Option<&mut Record> {
        self.records.get_mut((number as usize).checked_sub(1)?)
    }

    /// A binding that exists.
    fn binding(&self, number: u32) -> Option<&Binding> {
        self.binding_numbers.next(number)?;
        self.bindings.get((number as usize).checked_sub(1)?).filter(|binding| binding.record != 0)
    }

    fn binding_mut(&mut self, number: u32) -> Option<&mut Binding> {
        self.bindings.get_mut((number as usize).checked_sub(1)?)
    }
}

fn chain_of(key: Key) -> usize {
    key[1] as usize % BINDINGS
}
