//! `TextPool`: bytes of any length in chained blocks of one size, as plain data for shared memory.
//!
//! Owns: the blocks and the chains through them. Never grows, never locks (its bucket's lock guards it), never knows whose a text
//! is: whoever keeps the `Text` owns its blocks.
//!
//! Zeroed memory is an empty pool, and blocks never used lie on pages never touched (`Numbers`). Every walk is bounded and checked:
//! a wrong `Text` or a torn chain yields fewer bytes, never a panic or an endless loop. After its owner's death the pool is put
//! right from the texts that are still wanted: `census`, `claim`, `rebuild`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::numbers::{Audit, Census, Numbers};

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
    /// Which blocks are taken; the link of a taken one is the next block of its text, 0 at the end.
    blocks: Numbers<BLOCKS>,
    bytes: [[u8; SIZE]; BLOCKS],
}

impl<const BLOCKS: usize, const SIZE: usize> TextPool<BLOCKS, SIZE> {
    /// Stores the concatenation of `parts`; all of it or, when too few blocks are free, `None` and nothing is changed.
    pub fn store(&mut self, parts: &[&[u8]]) -> Option<Text> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let first = self.blocks.take_many(Self::blocks_for(len))?;
        let text = Text { first, len: u32::try_from(len).ok()? };
        let (mut block, mut at) = (first, 0);
        for part in parts {
            let mut rest: &[u8] = part;
            while !rest.is_empty() {
                if at == SIZE {
                    (block, at) = (self.blocks.next(block).unwrap_or(0), 0);
                }
                let Some(room) = self.block_mut(block) else { return Some(text) };
                match rest.split_first_chunk() {
                    Some((whole, later)) if at == 0 => {
                        *room = *whole;
                        (at, rest) = (SIZE, later);
                    }
                    _ => {
                        let (now, later) = rest.split_at(rest.len().min(SIZE - at));
                        if let Some(room) = room.get_mut(at..at + now.len()) {
                            room.copy_from_slice(now);
                        }
                        at += now.len();
                        rest = later;
                    }
                }
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

    /// The text's bytes, block by block; never more than `text.len`, never more blocks than there are.
    pub fn pieces(&self, text: Text) -> impl Iterator<Item = &[u8]> {
        let (mut block, mut missing) = (text.first, (text.len as usize).min(BLOCKS * SIZE));
        std::iter::from_fn(move || {
            if missing == 0 {
                return None;
            }
            let next = self.blocks.next(block)?;
            let piece = self.bytes.get((block as usize).checked_sub(1)?)?.get(..missing.min(SIZE))?;
            missing -= piece.len();
            block = next;
            Some(piece)
        })
    }

    /// Gives the text's blocks back. A text that was freed before, or never stored, frees nothing.
    pub fn free(&mut self, text: Text) {
        self.blocks.give_many(text.first, Self::blocks_for(text.len as usize));
    }

    /// Blocks that a text of `len` bytes takes.
    #[must_use]
    pub const fn blocks_for(len: usize) -> usize {
        len.div_ceil(SIZE)
    }

    /// Blocks that can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.blocks.available()
    }

    /// Begins to count owners; no block is claimed yet.
    #[must_use]
    pub fn census(&self) -> Census {
        self.blocks.census()
    }

    /// Notes that `text` is wanted. False, and nothing noted, when its chain is torn or has a block that another text claimed:
    /// then whoever keeps it must drop it.
    pub fn claim(&self, census: &mut Census, text: Text) -> bool {
        let (mut block, needed) = (text.first, Self::blocks_for(text.len as usize));
        for done in 0..needed {
            match self.blocks.next(block) {
                Some(next) if census.mark(block) => block = next,
                _ => {
                    self.withdraw(census, text.first, done);
                    return false;
                }
            }
        }
        if block != 0 {
            // A chain longer than its text would lose its tail.
            self.withdraw(census, text.first, needed);
            return false;
        }
        true
    }

    /// Takes a successful `claim` back.
    pub fn disclaim(&self, census: &mut Census, text: Text) {
        self.withdraw(census, text.first, Self::blocks_for(text.len as usize));
    }

    /// Frees every block that nobody claimed: the only free list after the owner's death that can be trusted.
    pub fn rebuild(&mut self, census: &Census) {
        self.blocks.rebuild(census);
    }

    /// Counts blocks, after all owners have claimed.
    #[must_use]
    pub fn audit(&self, census: &Census) -> Audit {
        self.blocks.audit(census)
    }

    fn withdraw(&self, census: &mut Census, first: u32, blocks: usize) {
        let mut block = first;
        for _ in 0..blocks {
            census.unmark(block);
            block = self.blocks.next(block).unwrap_or(0);
        }
    }

    fn block_mut(&mut self, block: u32) -> Option<&mut [u8; SIZE]> {
        self.bytes.get_mut((block as usize).checked_sub(1)?)
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
        pool.free(text);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn the_empty_text_takes_no_block() {
        let mut pool = Pool::new_zeroed();
        assert_eq!(pool.store(&[b""]), Some(Text::EMPTY));
        assert_eq!(read(&pool, Text::EMPTY), b"");
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
            // Any bytes are a pool: mostly small numbers, some with the upper bits set.
            let bytes: Vec<u8> = (0..size_of::<Pool>())
                .map(|at| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if at % 4 == 0 { (noise >> 16) as u8 & 15 } else { (noise >> 30 == 0) as u8 * (noise >> 24) as u8 }
                })
                .collect();
            let mut pool = Pool::read_from_bytes(&bytes).unwrap();
            let text = Text { first: noise >> 5 & 15, len: noise >> 9 & 63 };
            pool.read(text, &mut Vec::new());
            let mut census = pool.census();
            pool.claim(&mut census, text);
            let _ = pool.audit(&census);
            pool.free(text);
            pool.store(&[&[0; 30]]);
            let census = pool.census();
            pool.rebuild(&census);
            assert_eq!(pool.audit(&census), Audit { live: 0, free: 8, lost: 0 });
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
        assert_eq!(pool.audit(&census), Audit { live: 4, free: 3, lost: 1 });

        pool.rebuild(&census);
        assert_eq!(pool.audit(&census), Audit { live: 4, free: 4, lost: 0 });
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
        assert_eq!(pool.audit(&census), Audit { live: 2, free: 6, lost: 0 });
    }
}
