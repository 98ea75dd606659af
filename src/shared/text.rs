//! `TextPool`: bytes of any length in chained blocks of one size, as plain data for shared memory.
//!
//! Owns: which blocks are free, and the chains of those that are not. Never grows, never locks (its bucket's lock guards
//! it), never knows whose a text is: whoever keeps the `Text` owns its blocks.
//!
//! - Blocks have numbers from 1; 0 is none. So zeroed memory is an empty pool, and blocks above the watermark `fresh`,
//!   and the pages under them, have never been touched.
//! - Every walk is bounded and checked: a wrong `Text` or a torn chain yields fewer bytes, never a panic or an endless loop.
//! - After its owner's death the pool is put right from the texts that are still wanted: `census`, `claim`, `rebuild`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names a text of a pool: number of its first block (0 for the empty text) and its length in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Text {
    pub first: u32,
    pub len: u32,
}

impl Text {
    /// No bytes, no blocks.
    pub const EMPTY: Text = Text { first: 0, len: 0 };

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// `BLOCKS` blocks (fewer than 2^31) of `SIZE` bytes each.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct TextPool<const BLOCKS: usize, const SIZE: usize> {
    /// 0 <= fresh <= BLOCKS: blocks 1..=fresh have been used at least once.
    fresh: u32,
    /// First block of the free list, 0 when it is empty.
    free: u32,
    /// Length of the free list.
    free_blocks: u32,
    unused: [u32; 13],
    /// By block: the next one of its text, 0 at the end; with `FREE` set, the next one of the free list.
    next: [u32; BLOCKS],
    bytes: [[u8; SIZE]; BLOCKS],
}

/// Marks a block of the free list, so that freeing twice or reading a freed text stops at once.
const FREE: u32 = 1 << 31;

/// Which blocks have an owner, and how many; made by `TextPool::census`, filled by `claim`. Lives on the heap: it is needed
/// only after a death and in audits.
pub struct Census {
    claimed: Vec<u64>,
    blocks: usize,
}

/// Blocks with an owner, blocks that can be taken, and blocks that are neither (a leak: always 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    pub live: usize,
    pub free: usize,
    pub lost: usize,
}

impl<const BLOCKS: usize, const SIZE: usize> TextPool<BLOCKS, SIZE> {
    /// Stores the concatenation of `parts`; all of it or, when too few blocks are free, `None` and nothing is changed.
    pub fn store(&mut self, parts: &[&[u8]]) -> Option<Text> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if Self::blocks_for(len) > self.available() {
            return None;
        }
        let mut text = Text { first: 0, len: u32::try_from(len).ok()? };
        let (mut block, mut at) = (0, SIZE);
        for part in parts {
            let mut rest: &[u8] = part;
            while !rest.is_empty() {
                if at == SIZE {
                    let Some(taken) = self.take() else {
                        // Only a torn pool promises blocks that it does not have.
                        self.free(text);
                        return None;
                    };
                    match block {
                        0 => text.first = taken,
                        last => self.link(last, taken),
                    }
                    self.link(taken, 0);
                    (block, at) = (taken, 0);
                }
                let (now, later) = rest.split_at(rest.len().min(SIZE - at));
                if let Some(room) = self.block_mut(block).and_then(|bytes| bytes.get_mut(at..at + now.len())) {
                    room.copy_from_slice(now);
                }
                at += now.len();
                rest = later;
            }
        }
        Some(text)
    }

    /// Appends the text's bytes to `out`. False when the chain is torn: then fewer bytes came than `text.len`.
    pub fn read(&self, text: Text, out: &mut Vec<u8>) -> bool {
        let mut missing = text.len as usize;
        for piece in self.pieces(text) {
            out.extend_from_slice(piece);
            missing -= piece.len();
        }
        missing == 0
    }

    /// The text's bytes, block by block; never more than `text.len`.
    pub fn pieces(&self, text: Text) -> impl Iterator<Item = &[u8]> {
        let (mut block, mut missing) = (text.first, text.len as usize);
        std::iter::from_fn(move || {
            if missing == 0 {
                return None;
            }
            let link = self.next_of(block).filter(|link| link & FREE == 0)?;
            let bytes = self.bytes.get(block as usize - 1)?;
            let piece = bytes.get(..missing.min(SIZE))?;
            missing -= piece.len();
            block = link;
            Some(piece)
        })
    }

    /// Whether the text is exactly `bytes`.
    #[must_use]
    pub fn equals(&self, text: Text, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        text.len as usize == bytes.len()
            && self.pieces(text).all(|piece| match rest.strip_prefix(piece) {
                Some(later) => {
                    rest = later;
                    true
                }
                None => false,
            })
            && rest.is_empty()
    }

    /// Gives the text's blocks back. A text that was freed before, or never stored, frees nothing.
    pub fn free(&mut self, text: Text) {
        let mut block = text.first;
        for _ in 0..Self::blocks_for(text.len as usize) {
            let Some(link) = self.next_of(block).filter(|link| link & FREE == 0) else { return };
            self.link(block, FREE | self.free);
            self.free = block;
            self.free_blocks += 1;
            block = link;
        }
    }

    /// Blocks that a text of `len` bytes takes.
    #[must_use]
    pub const fn blocks_for(len: usize) -> usize {
        len.div_ceil(SIZE)
    }

    /// Blocks that can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        (self.free_blocks as usize).saturating_add(BLOCKS.saturating_sub(self.fresh as usize)).min(BLOCKS)
    }

    /// Begins to count owners; no block is claimed yet.
    #[must_use]
    pub fn census(&self) -> Census {
        Census { claimed: vec![0; self.touched().div_ceil(64)], blocks: 0 }
    }

    /// Notes that `text` is wanted. False, and nothing noted, when its chain is torn or has a block that another text
    /// claimed: then whoever keeps it must drop it.
    pub fn claim(&self, census: &mut Census, text: Text) -> bool {
        let (mut block, needed) = (text.first, Self::blocks_for(text.len as usize));
        for done in 0..needed {
            let link = self.next_of(block).filter(|link| link & FREE == 0);
            match link {
                Some(link) if census.mark(block) => block = link,
                _ => {
                    self.withdraw(census, text.first, done);
                    return false;
                }
            }
        }
        // A chain longer than its text would lose its tail.
        if block != 0 && needed > 0 {
            self.withdraw(census, text.first, needed);
            return false;
        }
        true
    }

    /// Frees every block that nobody claimed: the only free list after the owner's death that can be trusted.
    pub fn rebuild(&mut self, census: &Census) {
        self.fresh = self.touched() as u32;
        self.free = 0;
        self.free_blocks = 0;
        for block in (1..=self.fresh).rev() {
            if !census.has(block) {
                self.link(block, FREE | self.free);
                self.free = block;
                self.free_blocks += 1;
            }
        }
    }

    /// Counts after all owners have claimed.
    #[must_use]
    pub fn audit(&self, census: &Census) -> Blocks {
        let mut listed = self.census();
        let mut block = self.free;
        while let Some(link) = self.next_of(block).filter(|link| link & FREE != 0) {
            // A block that is owned, or listed twice, ends the walk: what lies behind it counts as lost.
            if census.has(block) || !listed.mark(block) {
                break;
            }
            block = link & !FREE;
        }
        let free = listed.blocks + BLOCKS - self.touched();
        Blocks { live: census.blocks, free, lost: BLOCKS.saturating_sub(census.blocks + free) }
    }

    fn withdraw(&self, census: &mut Census, first: u32, blocks: usize) {
        let mut block = first;
        for _ in 0..blocks {
            census.unmark(block);
            block = self.next_of(block).unwrap_or(0);
        }
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(link) = self.next_of(self.free).filter(|link| link & FREE != 0) {
            let block = self.free;
            self.free = link & !FREE;
            self.free_blocks = self.free_blocks.saturating_sub(1);
            return Some(block);
        }
        let block = self.fresh + 1;
        (block as usize <= BLOCKS).then(|| self.fresh = block)?;
        Some(block)
    }

    /// Blocks that were ever used; never more than there are.
    fn touched(&self) -> usize {
        (self.fresh as usize).min(BLOCKS)
    }

    /// What follows `block`; `None` for 0 and for blocks never used.
    fn next_of(&self, block: u32) -> Option<u32> {
        let index = (block as usize).checked_sub(1).filter(|index| *index < self.fresh as usize)?;
        self.next.get(index).copied()
    }

    fn link(&mut self, block: u32, to: u32) {
        if let Some(link) = (block as usize).checked_sub(1).and_then(|index| self.next.get_mut(index)) {
            *link = to;
        }
    }

    fn block_mut(&mut self, block: u32) -> Option<&mut [u8; SIZE]> {
        self.bytes.get_mut((block as usize).checked_sub(1)?)
    }
}

impl Census {
    /// False when the block was marked already, or does not exist.
    fn mark(&mut self, block: u32) -> bool {
        let Some(word) = self.claimed.get_mut(Self::word(block)) else { return false };
        let bit = 1 << Self::bit(block);
        let new = *word & bit == 0;
        *word |= bit;
        self.blocks += usize::from(new);
        new
    }

    fn unmark(&mut self, block: u32) {
        if self.has(block)
            && let Some(word) = self.claimed.get_mut(Self::word(block))
        {
            *word &= !(1 << Self::bit(block));
            self.blocks -= 1;
        }
    }

    fn has(&self, block: u32) -> bool {
        self.claimed.get(Self::word(block)).is_some_and(|word| word >> Self::bit(block) & 1 == 1)
    }

    fn word(block: u32) -> usize {
        (block as usize).wrapping_sub(1) / 64
    }

    fn bit(block: u32) -> u32 {
        block.wrapping_sub(1) % 64
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    type Pool = TextPool<8, 4>;

    fn read(pool: &Pool, text: Text) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(pool.read(text, &mut out));
        out
    }

    #[test]
    fn what_was_stored_in_parts_is_read_as_one() {
        let mut pool = Pool::new_zeroed();
        let text = pool.store(&[b"st", b"", b"rowg", b"er"]).unwrap();
        assert_eq!(text.len, 8);
        assert_eq!(read(&pool, text), b"strowger");
        assert_eq!(pool.available(), 6);
        assert!(pool.equals(text, b"strowger") && !pool.equals(text, b"strowges") && !pool.equals(text, b"strow"));
        pool.free(text);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn the_empty_text_takes_no_block() {
        let mut pool = Pool::new_zeroed();
        assert_eq!(pool.store(&[b""]), Some(Text::EMPTY));
        assert_eq!(read(&pool, Text::EMPTY), b"");
        assert!(pool.equals(Text::EMPTY, b""));
        assert!(pool.claim(&mut pool.census(), Text::EMPTY));
    }

    #[test]
    fn a_text_that_does_not_fit_changes_nothing() {
        let mut pool = Pool::new_zeroed();
        let kept = pool.store(&[&[1; 20]]).unwrap();
        assert_eq!(pool.store(&[&[2; 13]]), None);
        assert_eq!(pool.available(), 3);
        assert!(pool.store(&[&[2; 12]]).is_some());
        assert_eq!(read(&pool, kept), [1; 20]);
    }

    #[test]
    fn freeing_twice_or_freeing_garbage_does_no_harm() {
        let mut pool = Pool::new_zeroed();
        let (a, z) = (pool.store(&[b"aaaaa"]).unwrap(), pool.store(&[b"zzzzz"]).unwrap());
        pool.free(a);
        pool.free(a);
        for first in [0, 7, 8, 9, u32::MAX] {
            pool.free(Text { first, len: u32::MAX });
        }
        assert_eq!(pool.available(), 6);
        assert_eq!(read(&pool, z), b"zzzzz");
        let mut out = Vec::new();
        assert!(!pool.read(a, &mut out) && out.is_empty());
    }

    #[test]
    fn a_torn_pool_is_neither_endless_nor_a_panic() {
        let mut noise = 1_u32;
        for _ in 0..2000 {
            let mut pool = Pool::new_zeroed();
            let mut random = || {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if noise >> 30 == 0 { noise } else { noise >> 16 & 15 | noise << 8 & FREE }
            };
            (pool.fresh, pool.free, pool.free_blocks) = (random() & 15, random(), random() & 15);
            pool.next = std::array::from_fn(|_| random());
            let text = Text { first: random(), len: random() & 63 };
            pool.read(text, &mut Vec::new());
            let mut census = pool.census();
            pool.claim(&mut census, text);
            let _ = pool.audit(&census);
            pool.free(text);
            pool.store(&[&[0; 30]]);
            pool.rebuild(&census);
            assert_eq!(pool.audit(&census).lost, 0);
        }
    }

    #[test]
    fn rebuilding_keeps_the_claimed_texts_and_frees_the_rest() {
        let mut pool = Pool::new_zeroed();
        let a = pool.store(&[b"aaaaaaa"]).unwrap();
        let lost = pool.store(&[b"lost"]).unwrap();
        let z = pool.store(&[b"zzzzzzzz"]).unwrap();
        let mut census = pool.census();
        assert!(pool.claim(&mut census, a) && pool.claim(&mut census, z));
        assert_eq!(pool.audit(&census), Blocks { live: 4, free: 3, lost: 1 });

        pool.rebuild(&census);
        assert_eq!(pool.audit(&census), Blocks { live: 4, free: 4, lost: 0 });
        assert_eq!((read(&pool, a), read(&pool, z)), (b"aaaaaaa".to_vec(), b"zzzzzzzz".to_vec()));
        assert!(!pool.claim(&mut census, lost));
    }

    #[test]
    fn two_texts_never_claim_one_block() {
        let mut pool = Pool::new_zeroed();
        let a = pool.store(&[b"aaaaaaa"]).unwrap();
        let mut census = pool.census();
        assert!(!pool.claim(&mut census, Text { first: a.first, len: 2 }), "a chain longer than its text");
        assert!(pool.claim(&mut census, a));
        assert!(!pool.claim(&mut census, a));
        assert_eq!(pool.audit(&census), Blocks { live: 2, free: 6, lost: 0 });
    }
}
