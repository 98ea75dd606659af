//! `Deadlines`: when each slot of a bucket is due, as plain data for shared memory.
//!
//! Owns: an indexed binary heap, earliest first, at most one entry a slot. Never reads a clock, never locks (its bucket's
//! lock guards it).
//!
//! Moving a deadline later is one store: the entry stays where it is and is filed anew when it comes to the top. Most
//! deadlines of a SIP transaction are moved or dropped before they are due, so most never cost a step in the heap.
//! The price: `earliest` may be too early, never too late.
//!
//! Slots have numbers 1..=N, as everywhere in shared memory, so zeroed memory is an empty heap.

use zerocopy::{FromBytes, KnownLayout};

use crate::timer::Tick;

/// Deadlines of the slots 1..=`N`, `N` < 2^20. Sixteen bytes a slot.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub struct Deadlines<const N: usize> {
    slots: [Slot; N],
    /// 0 <= len <= N: entries in the heap.
    len: u32,
    unused: u32,
    /// The heap: an entry is not earlier than its parent. The tick under which it is filed is at most when the slot is due.
    heap: [Entry; N],
}

/// In the upper 44 bits when the slot is really due, plus 1, or 0 when its timer is not running; in the lower 20 its place in the heap
/// plus 1, or 0 when it has none.
#[derive(Clone, Copy, FromBytes, KnownLayout)]
#[repr(transparent)]
struct Slot(u64);

impl Slot {
    fn due(self) -> Tick {
        (self.0 >> SLOT_BITS).checked_sub(1).map_or(Tick::NEVER, Tick)
    }

    fn place(self) -> Option<usize> {
        index_of((self.0 & PLACE) as u32)
    }

    fn set_due(&mut self, at: Tick) {
        let due = if at == Tick::NEVER { 0 } else { at.0.min(LATEST) + 1 };
        self.0 = due << SLOT_BITS | self.0 & PLACE;
    }

    fn set_place(&mut self, place: Option<usize>) {
        self.0 = self.0 & !PLACE | place.map_or(0, |place| place as u64 + 1);
    }
}

/// Tick in the upper 44 bits (557 years of milliseconds), slot in the lower 20: compared as one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromBytes, KnownLayout)]
#[repr(transparent)]
pub struct Entry(u64);

const SLOT_BITS: u32 = 20;
const PLACE: u64 = (1 << SLOT_BITS) - 1;
/// Anything later is filed under this.
const LATEST: u64 = (u64::MAX >> SLOT_BITS) - 1;

impl Entry {
    fn new(at: Tick, slot: u32) -> Entry {
        Entry(at.0.min(LATEST) << SLOT_BITS | u64::from(slot))
    }

    fn at(self) -> Tick {
        Tick(self.0 >> SLOT_BITS)
    }

    fn slot(self) -> u32 {
        (self.0 & PLACE) as u32
    }
}

impl<const N: usize> Deadlines<N> {
    const FITS: () = assert!(N < 1 << SLOT_BITS);

    /// The slot is due at `at`, and no longer at whatever was set before; `Tick::NEVER` stops its timer.
    /// A slot outside 1..=N is ignored.
    pub fn set(&mut self, slot: u32, at: Tick) {
        let () = Self::FITS;
        let Some(known) = index_of(slot).and_then(|index| self.slots.get_mut(index)) else { return };
        known.set_due(at);
        if at == Tick::NEVER {
            return;
        }
        let entry = Entry::new(at, slot);
        match known.place() {
            Some(place) if self.heap.get(place).is_some_and(|filed| entry < *filed) => {
                self.heap[place] = entry;
                self.up(place);
            }
            Some(_) => {}
            None => self.push(entry),
        }
    }

    /// When the slot is due; `Tick::NEVER` when its timer is not running.
    #[must_use]
    pub fn due(&self, slot: u32) -> Tick {
        index_of(slot).and_then(|index| self.slots.get(index)).map_or(Tick::NEVER, |known| known.due())
    }

    /// No slot is due before this; `Tick::NEVER` when the heap is empty.
    #[must_use]
    pub fn earliest(&self) -> Tick {
        self.heap.get(..self.len()).and_then(<[Entry]>::first).map_or(Tick::NEVER, |top| top.at())
    }

    /// A slot that is due at `now`, earliest first; its timer is stopped.
    pub fn pop_due(&mut self, now: Tick) -> Option<u32> {
        loop {
            let top = *self.heap.get(..self.len())?.first()?;
            if top.at() > now {
                return None;
            }
            let due = self.due(top.slot());
            if due > now && due != Tick::NEVER {
                // Moved later since it was filed. Later than `now`, so it cannot come up again in this call.
                self.heap[0] = Entry::new(due, top.slot());
                self.down(0);
                continue;
            }
            self.drop_top();
            if due != Tick::NEVER {
                self.set(top.slot(), Tick::NEVER);
                return Some(top.slot());
            }
        }
    }

    /// Forgets everything and takes these instead: what is left to do after the owner's death.
    pub fn rebuild(&mut self, deadlines: impl Iterator<Item = (u32, Tick)>) {
        self.len = 0;
        self.slots.fill(Slot(0));
        for (slot, at) in deadlines {
            self.set(slot, at);
        }
    }

    fn len(&self) -> usize {
        (self.len as usize).min(N)
    }

    fn push(&mut self, entry: Entry) {
        let last = self.len();
        let Some(room) = self.heap.get_mut(last) else { return };
        *room = entry;
        self.len = last as u32 + 1;
        self.up(last);
    }

    fn drop_top(&mut self) {
        let Some(last) = self.len().checked_sub(1) else { return };
        let top = self.heap[0];
        self.len = last as u32;
        self.note(top, None);
        if last > 0 {
            self.heap[0] = self.heap[last];
            self.down(0);
        }
    }

    /// Lets the entry at `place` rise until its parent is not later.
    fn up(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= entry {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    /// Lets the entry at `place` sink until no child is earlier.
    fn down(&mut self, mut place: usize) {
        let entry = self.heap[place];
        let len = self.len();
        loop {
            let left = 2 * place + 1;
            if left >= len {
                break;
            }
            let right = left + 1;
            let child = if right < len && self.heap[right] < self.heap[left] { right } else { left };
            if self.heap[child] >= entry {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: Entry) {
        self.heap[place] = entry;
        self.note(entry, Some(place));
    }

    fn note(&mut self, entry: Entry, place: Option<usize>) {
        if let Some(known) = index_of(entry.slot()).and_then(|index| self.slots.get_mut(index)) {
            known.set_place(place);
        }
    }
}

/// The array index of a number that counts from 1.
fn index_of(number: u32) -> Option<usize> {
    (number as usize).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use zerocopy::FromZeros;

    use super::*;

    type Heap = Deadlines<64>;

    #[test]
    fn zeroed_memory_has_no_deadline() {
        let mut heap = Heap::new_zeroed();
        assert_eq!(heap.earliest(), Tick::NEVER);
        assert_eq!(heap.pop_due(Tick::NEVER), None);
    }

    #[test]
    fn the_earliest_comes_first_and_only_when_due() {
        let mut heap = Heap::new_zeroed();
        for (slot, at) in [(1, 30), (64, 10), (3, 20)] {
            heap.set(slot, Tick(at));
        }
        assert_eq!(heap.earliest(), Tick(10));
        assert_eq!(heap.pop_due(Tick(9)), None);
        assert_eq!(heap.pop_due(Tick(25)), Some(64));
        assert_eq!(heap.pop_due(Tick(25)), Some(3));
        assert_eq!(heap.pop_due(Tick(25)), None);
        assert_eq!((heap.due(1), heap.due(3)), (Tick(30), Tick::NEVER));
    }

    #[test]
    fn a_deadline_moved_later_comes_later_and_one_moved_earlier_earlier() {
        let mut heap = Heap::new_zeroed();
        heap.set(1, Tick(10));
        heap.set(2, Tick(20));
        heap.set(1, Tick(50));
        heap.set(2, Tick(5));
        assert_eq!(heap.earliest(), Tick(5));
        assert_eq!(heap.pop_due(Tick(40)), Some(2));
        assert_eq!(heap.pop_due(Tick(40)), None);
        assert_eq!(heap.earliest(), Tick(50), "found out while looking");
        assert_eq!(heap.pop_due(Tick(50)), Some(1));
    }

    #[test]
    fn a_stopped_timer_never_fires_and_can_start_again() {
        let mut heap = Heap::new_zeroed();
        heap.set(7, Tick(10));
        heap.set(7, Tick::NEVER);
        assert_eq!(heap.pop_due(Tick(100)), None);
        heap.set(7, Tick(200));
        heap.set(7, Tick::NEVER);
        heap.set(7, Tick(150));
        assert_eq!(heap.pop_due(Tick(150)), Some(7));
    }

    #[test]
    fn slots_outside_the_bucket_are_ignored() {
        let mut heap = Heap::new_zeroed();
        for slot in [0, 65, u32::MAX] {
            heap.set(slot, Tick(1));
        }
        assert_eq!(heap.pop_due(Tick(2)), None);
    }

    #[test]
    fn ten_thousand_random_steps_agree_with_a_map() {
        let (mut heap, mut map) = (Heap::new_zeroed(), BTreeMap::new());
        let (mut now, mut seed) = (0, 7_u64);
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (slot, ahead) = ((seed >> 33 & 63) as u32 + 1, seed >> 45 & 255);
            match seed >> 60 {
                0..8 => {
                    heap.set(slot, Tick(now + ahead));
                    map.insert(slot, now + ahead);
                }
                8..10 => {
                    heap.set(slot, Tick::NEVER);
                    map.remove(&slot);
                }
                10 => heap.rebuild(map.iter().map(|(slot, at)| (*slot, Tick(*at)))),
                _ => {
                    now += ahead / 4;
                    while let Some(slot) = heap.pop_due(Tick(now)) {
                        assert!(map.remove(&slot).is_some_and(|at| at <= now));
                    }
                    assert!(map.values().all(|at| *at > now));
                }
            }
            assert!(map.values().min().is_none_or(|at| heap.earliest() <= Tick(*at)));
        }
    }

    #[test]
    fn garbage_is_neither_endless_nor_a_panic() {
        let mut seed = 3_u64;
        for _ in 0..2000 {
            let mut heap = Heap::new_zeroed();
            let mut random = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if seed >> 62 == 0 { seed } else { seed >> 33 & 255 }
            };
            heap.len = random() as u32;
            heap.slots = std::array::from_fn(|_| Slot(random() << 18 ^ random()));
            heap.heap = std::array::from_fn(|_| Entry(random() << 18));
            for _ in 0..100 {
                heap.set(random() as u32, Tick(random()));
                heap.pop_due(Tick(random()));
            }
            heap.rebuild([(1, Tick(1))].into_iter());
            assert_eq!(heap.pop_due(Tick(1)), Some(1));
        }
    }
}
