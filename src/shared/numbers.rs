//! `Numbers`: which of the places 1..=N of a shared array are taken, and one link for each, as plain data for shared memory.
//!
//! Owns: the free list, and the link array that it shares with its user: while a number is taken, its link is the user's (next
//! block of a text, next record of a chain). Never grows, never locks (its bucket's lock guards it).
//!
//! - 0 is no number. So zeroed memory has everything free, and places above the watermark `fresh`, and the pages under them, have
//!   never been touched.
//! - Every step is checked: wrong numbers and torn lists lead nowhere, never to a panic. A caller bounds its own walks.
//! - After an owner's death the free list is made anew from what is still wanted: `census`, `mark`, `rebuild`.

use std::ops::{Add, AddAssign};

use zerocopy::{FromBytes, KnownLayout};

/// Places 1..=`N`, `N` < 2^31.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct Numbers<const N: usize> {
    /// 0 <= fresh <= N: 1..=fresh have been taken at least once.
    fresh: u32,
    /// First number of the free list, 0 when it is empty.
    free: u32,
    /// Length of the free list.
    vacant: u32,
    unused: [u32; 13],
    /// By number: the user's link, or with `FREE` set the next one of the free list.
    link: [u32; N],
}

/// Marks a number of the free list, so that giving it back twice, or following a link to it, stops at once.
const FREE: u32 = 1 << 31;

/// Which numbers have an owner, and how many. Lives on the heap: it is needed only after a death and in audits.
pub struct Census {
    marks: Vec<u64>,
    live: usize,
}

/// What has an owner, what can be taken, and what is neither: `lost` is 0 unless something leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub live: usize,
    pub free: usize,
    pub lost: usize,
}

impl<const N: usize> Numbers<N> {
    /// A free number; its link is 0. `None` when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        let from_list = self.link_of(self.free).filter(|link| link & FREE != 0);
        let number = match from_list {
            Some(link) => {
                let number = self.free;
                self.free = link & !FREE;
                self.vacant = self.vacant.saturating_sub(1);
                number
            }
            None => {
                let number = self.fresh.checked_add(1).filter(|number| *number as usize <= N)?;
                self.fresh = number;
                number
            }
        };
        self.set(number, 0);
        Some(number)
    }

    /// `n` free numbers, linked one to the next: the first, 0 when `n` is. `None`, and nothing changed, when there are fewer.
    pub fn take_many(&mut self, n: usize) -> Option<u32> {
        if n > self.available() {
            return None;
        }
        let (mut first, mut last) = (0, 0);
        for taken in 0..n {
            let Some(number) = self.take() else {
                // Only a torn list promises numbers that it does not have.
                self.give_many(first, taken);
                return None;
            };
            match last {
                0 => first = number,
                _ => self.set(last, number),
            }
            last = number;
        }
        Some(first)
    }

    /// Gives a number back. One that is free already, or was never taken, is left alone.
    pub fn give(&mut self, number: u32) {
        self.give_many(number, 1);
    }

    /// Gives `n` numbers back that are linked, up to one that is free already.
    pub fn give_many(&mut self, first: u32, n: usize) {
        let mut number = first;
        for _ in 0..n {
            let Some(next) = self.next(number) else { return };
            self.set(number, FREE | self.free);
            self.free = number;
            self.vacant = self.vacant.saturating_add(1);
            number = next;
        }
    }

    /// The link of a taken number; `None` when it is not taken.
    #[must_use]
    pub fn next(&self, number: u32) -> Option<u32> {
        self.link_of(number).filter(|link| link & FREE == 0)
    }

    /// Sets the link of a taken number.
    pub fn link(&mut self, number: u32, to: u32) {
        if self.next(number).is_some() {
            self.set(number, to & !FREE);
        }
    }

    /// How many can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        (self.vacant as usize).saturating_add(N - self.touched()).min(N)
    }

    /// How many were ever taken; higher numbers lie on untouched memory.
    #[must_use]
    pub fn touched(&self) -> usize {
        (self.fresh as usize).min(N)
    }

    /// Begins to count owners; no number is marked yet.
    #[must_use]
    pub fn census(&self) -> Census {
        Census { marks: vec![0; self.touched().div_ceil(64)], live: 0 }
    }

    /// Makes everything free that is not marked. The links of marked numbers stay as they are.
    pub fn rebuild(&mut self, census: &Census) {
        self.fresh = self.touched() as u32;
        (self.free, self.vacant) = (0, 0);
        for number in (1..=self.fresh).rev() {
            if census.has(number) {
                // A number found in use is no longer of the free list, whatever its link said.
                let link = self.link_of(number).unwrap_or(0);
                self.set(number, link & !FREE);
            } else {
                self.set(number, FREE | self.free);
                self.free = number;
                self.vacant += 1;
            }
        }
    }

    /// Counts, after all owners have marked theirs.
    #[must_use]
    pub fn audit(&self, census: &Census) -> Audit {
        let mut listed = self.census();
        let mut number = self.free;
        while let Some(link) = self.link_of(number).filter(|link| link & FREE != 0) {
            // A number that has an owner, or comes twice, ends the walk: what lies behind it counts as lost.
            if census.has(number) || !listed.mark(number) {
                break;
            }
            number = link & !FREE;
        }
        let free = listed.live + N - self.touched();
        Audit { live: census.live, free, lost: N.saturating_sub(census.live + free) }
    }

    fn link_of(&self, number: u32) -> Option<u32> {
        let index = (number as usize).checked_sub(1).filter(|index| *index < self.fresh as usize)?;
        self.link.get(index).copied()
    }

    fn set(&mut self, number: u32, link: u32) {
        if let Some(place) = (number as usize).checked_sub(1).and_then(|index| self.link.get_mut(index)) {
            *place = link;
        }
    }
}

impl Census {
    /// The number has an owner. False when it had one already, or does not exist.
    pub fn mark(&mut self, number: u32) -> bool {
        let Some(word) = self.marks.get_mut(word(number)) else { return false };
        let new = *word & bit(number) == 0;
        *word |= bit(number);
        self.live += usize::from(new);
        new
    }

    /// It has none after all.
    pub fn unmark(&mut self, number: u32) {
        if let Some(word) = self.marks.get_mut(word(number)).filter(|word| **word & bit(number) != 0) {
            *word &= !bit(number);
            self.live -= 1;
        }
    }

    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.marks.get(word(number)).is_some_and(|word| word & bit(number) != 0)
    }

    /// Numbers marked.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }
}

fn word(number: u32) -> usize {
    (number as usize).wrapping_sub(1) / 64
}

fn bit(number: u32) -> u64 {
    1 << (number.wrapping_sub(1) % 64)
}

impl Add for Audit {
    type Output = Audit;

    fn add(self, other: Audit) -> Audit {
        Audit { live: self.live + other.live, free: self.free + other.free, lost: self.lost + other.lost }
    }
}

impl AddAssign for Audit {
    fn add_assign(&mut self, other: Audit) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn each_number_is_given_out_once_until_it_comes_back() {
        let mut numbers = Numbers::<3>::new_zeroed();
        assert_eq!([numbers.take(), numbers.take(), numbers.take(), numbers.take()], [Some(1), Some(2), Some(3), None]);
        numbers.give(2);
        numbers.give(2);
        numbers.give(9);
        assert_eq!((numbers.available(), numbers.next(2)), (1, None));
        assert_eq!((numbers.take(), numbers.take()), (Some(2), None));
        assert_eq!(numbers.next(2), Some(0));
    }

    #[test]
    fn rebuilding_frees_what_nobody_owns_and_keeps_links() {
        let mut numbers = Numbers::<4>::new_zeroed();
        for _ in 0..3 {
            numbers.take();
        }
        numbers.link(1, 3);
        let mut census = numbers.census();
        assert!(census.mark(1) && census.mark(3) && !census.mark(3) && !census.mark(200));
        assert_eq!(numbers.audit(&census), Audit { live: 2, free: 1, lost: 1 });
        numbers.rebuild(&census);
        assert_eq!(numbers.audit(&census), Audit { live: 2, free: 2, lost: 0 });
        assert_eq!((numbers.next(1), numbers.next(2)), (Some(3), None));
    }
}
