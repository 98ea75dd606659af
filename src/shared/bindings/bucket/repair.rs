//! A bucket whose owner died is put right, and any bucket can be counted: from what is live, never from a free list.
//!
//! Owns: who owns what. A record is kept when all its lists are whole and it was not being changed; else it is dropped.

use std::sync::atomic::Ordering;

use sys::memory::Rebuild;

use super::BindingBucket;
use crate::shared::numbers::{Audit, Census};

impl BindingBucket {
    /// Records, bindings and blocks of text together.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let mut owned = Owned::new(self);
        for chain in &self.chains {
            let mut number = *chain;
            while self.record(number).is_some() && owned.records.mark(number) {
                self.claim(number, &mut owned);
                number = self.record_numbers.next(number).unwrap_or(0);
            }
        }
        self.record_numbers.audit(&owned.records)
            + self.binding_numbers.audit(&owned.bindings)
            + self.text.audit(&owned.text)
    }

    /// Marks what the record owns. False, and nothing marked, when one of its lists is torn.
    fn claim(&self, record: u32, owned: &mut Owned) -> bool {
        let Some(holder) = self.record(record) else { return false };
        let mut number = holder.first;
        for done in 0..holder.count {
            let whole = match self.binding(number).filter(|binding| binding.record == record) {
                Some(binding) if owned.bindings.mark(number) => {
                    let claimed = self.text.claim(&mut owned.text, binding.text);
                    if !claimed {
                        owned.bindings.unmark(number);
                    }
                    claimed
                }
                _ => false,
            };
            if !whole {
                self.disclaim(record, done, owned);
                return false;
            }
            number = self.binding_numbers.next(number).unwrap_or(0);
        }
        if number != 0 {
            self.disclaim(record, holder.count, owned);
        }
        number == 0
    }

    fn disclaim(&self, record: u32, bindings: u32, owned: &mut Owned) {
        let mut number = self.record(record).map_or(0, |record| record.first);
        for _ in 0..bindings {
            owned.bindings.unmark(number);
            if let Some(binding) = self.binding(number) {
                self.text.disclaim(&mut owned.text, binding.text);
            }
            number = self.binding_numbers.next(number).unwrap_or(0);
        }
    }
}

/// What has an owner.
struct Owned {
    records: Census,
    bindings: Census,
    text: Census,
}

impl Owned {
    fn new(bucket: &BindingBucket) -> Owned {
        Owned {
            records: bucket.record_numbers.census(),
            bindings: bucket.binding_numbers.census(),
            text: bucket.text.census(),
        }
    }
}

impl Rebuild for BindingBucket {
    /// Keeps every record that is whole and was not being changed; all else becomes free.
    fn rebuild(&mut self) {
        let busy = self.busy.load(Ordering::Relaxed);
        let mut owned = Owned::new(self);
        let touched = self.record_numbers.touched() as u32;
        for number in 1..=touched {
            let keep = number != busy && self.record(number).is_some() && self.claim(number, &mut owned);
            if keep {
                owned.records.mark(number);
            } else if let Some(record) = self.record_mut(number) {
                record.key = [0; 2];
            }
        }
        self.record_numbers.rebuild(&owned.records);
        self.binding_numbers.rebuild(&owned.bindings);
        self.text.rebuild(&owned.text);

        self.chains.fill(0);
        (self.idle_oldest, self.idle_newest) = (0, 0);
        for number in 1..=touched {
            if owned.records.has(number) {
                self.chain(number);
                if self.record(number).is_some_and(|record| record.count == 0) {
                    self.idle(number);
                }
            }
        }
        let bindings = (1_u32..).zip(&self.bindings).take(self.binding_numbers.touched());
        let live = bindings.filter(|(number, _)| owned.bindings.has(*number));
        self.ends.rebuild(live.map(|(number, binding)| (number, binding.expires)));
        self.busy.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use sys::memory::{Guard, Plan};

    use super::super::{BINDINGS, BLOCKS, New};
    use super::*;
    use crate::shared::text::Text;
    use crate::timer::Tick;

    fn bucket() -> Guard<'static, BindingBucket> {
        let mut plan = Plan::new();
        let span = plan.locks::<BindingBucket>(1);
        let locks: &'static [sys::memory::Locked<BindingBucket>] = plan.map().unwrap().locks(&span).unwrap();
        locks[0].lock()
    }

    fn fill(bucket: &mut BindingBucket, records: u64, bindings: u64) {
        for key in 1..=records {
            let record = bucket.open([key, key]).unwrap();
            for nth in 0..bindings {
                let uri = [b'u'; 130];
                let new = New { uri: &uri, params: b"", call_id: b"c", cseq: 1, q: 1000, expires: Tick(nth) };
                assert!(bucket.put(record, None, &new));
            }
            bucket.close(record);
        }
    }

    #[test]
    fn zeroed_memory_is_an_empty_bucket() {
        let bucket = bucket();
        assert_eq!((bucket.count(), bucket.earliest(), bucket.find([1, 1])), ((0, 0), Tick::NEVER, None));
        let all = 2 * BINDINGS + BLOCKS;
        assert_eq!(bucket.audit(), Audit { live: 0, free: all, lost: 0 });
    }

    #[test]
    fn rebuilding_a_whole_bucket_changes_nothing() {
        let mut bucket = bucket();
        fill(&mut bucket, 50, 3);
        let record = bucket.open([7, 7]).unwrap();
        let second = bucket.of(record).nth(1).unwrap().0;
        bucket.remove(record, second);
        bucket.close(record);
        let before = (bucket.audit(), bucket.count(), bucket.earliest());
        bucket.rebuild();
        assert_eq!((bucket.audit(), bucket.count(), bucket.earliest()), before);
        assert!((1..=50).all(|key| bucket.find([key, key]).is_some_and(|r| bucket.of(r).count() >= 2)));
    }

    #[test]
    fn the_record_that_was_being_changed_is_dropped_and_all_it_had_is_free() {
        let mut bucket = bucket();
        fill(&mut bucket, 3, 2);
        let record = bucket.open([2, 2]).unwrap();
        let first = bucket.of(record).next().unwrap().0;
        bucket.remove(record, first);
        // The owner dies here.
        bucket.rebuild();
        assert_eq!(bucket.find([2, 2]), None);
        assert_eq!(bucket.audit(), Audit { live: 2 + 4 + 4 * 3, free: 2 * BINDINGS + BLOCKS - 18, lost: 0 });
        fill(&mut bucket, 3, 1);
        assert_eq!(bucket.audit().lost, 0);
    }

    #[test]
    fn whatever_lies_there_can_be_rebuilt_and_used() {
        let mut bucket = bucket();
        let mut seed = 11_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..100 {
            fill(&mut bucket, 30, 3);
            for _ in 0..random(20) {
                let (at, number) = (random(40) as usize, random(100) as u32);
                match random(9) {
                    0 => bucket.chains[at] = number,
                    1 => bucket.records[at].first = number,
                    2 => bucket.records[at].count = number,
                    3 => bucket.records[at].key = [0, number.into()],
                    4 => bucket.bindings[at].record = number,
                    5 => bucket.bindings[at].text = Text { first: number, len: random(200) as u32 },
                    6 => bucket.record_numbers.link(number, at as u32),
                    7 => bucket.binding_numbers.link(number, at as u32),
                    _ => (bucket.idle_oldest, bucket.records[at].newer) = (number, number),
                }
            }
            bucket.busy.store(random(30) as u32, Ordering::Relaxed);
            bucket.rebuild();
            assert_eq!(bucket.audit().lost, 0);
            fill(&mut bucket, 30, 1);
            while bucket.expire_one(Tick(1)) {}
            assert_eq!(bucket.audit().lost, 0);
        }
    }
}
