//! One ring of a mailbox: where its words lie, and walking over them.
//!
//! Owns: the way round its end. Never says what a word means.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words before a ring's data: what was written ever, and, a cache line on, what the reader is done with, and what it has begun with
/// (all count words).
pub const WRITTEN: usize = 0;
pub const READ: usize = 8;
pub const BEGUN: usize = 9;
pub const DATA: usize = 16;

/// DATA words and the data.
#[derive(Clone, Copy)]
pub struct Ring(pub &'static [AtomicU64]);

impl Ring {
    pub fn word(self, index: usize) -> &'static AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        self.0.get(index).unwrap_or(&NOWHERE)
    }
}

/// A place in a ring's data that goes on at its start when it comes to its end.
pub struct Cursor {
    /// Data words only.
    words: &'static [AtomicU64],
    at: usize,
}

impl Cursor {
    /// Where the word lies before which `position` have been written ever.
    pub fn new(ring: Ring, position: u64, capacity: usize) -> Cursor {
        Cursor { words: ring.0.get(DATA..).unwrap_or_default(), at: (position % capacity as u64) as usize }
    }

    /// The word here.
    pub fn look(&self) -> u64 {
        self.words.get(self.at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    pub fn get(&mut self) -> u64 {
        let word = self.look();
        self.step(1);
        word
    }

    pub fn put(&mut self, value: u64) {
        if let Some(word) = self.words.get(self.at) {
            word.store(value, Ordering::Relaxed);
        }
        self.step(1);
    }

    fn step(&mut self, words: usize) {
        self.at += words;
        if self.at >= self.words.len() {
            self.at -= self.words.len();
        }
    }

    /// The next `words`, as far as they lie in one run; the cursor is then behind them.
    fn run(&mut self, words: usize) -> &'static [AtomicU64] {
        let end = (self.at + words).min(self.words.len());
        let run = self.words.get(self.at..end).unwrap_or_default();
        self.step(run.len());
        run
    }

    /// Both pieces as one run of bytes, the last word filled with zeroes.
    pub fn put_bytes(&mut self, head: &[u8], body: &[u8]) {
        let rest = self.put_words(head);
        if rest.is_empty() {
            let rest = self.put_words(body);
            self.put_last(rest, &[]);
        } else {
            // The word that the pieces share.
            let (first, later) = body.split_at(body.len().min(8 - rest.len()));
            self.put_last(rest, first);
            let rest = self.put_words(later);
            self.put_last(rest, &[]);
        }
    }

    /// As many whole words as there are; gives back the bytes that make none.
    fn put_words<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut chunks = chunks;
        while !chunks.is_empty() {
            let run = self.run(chunks.len());
            let (now, later) = chunks.split_at(run.len());
            for (word, chunk) in run.iter().zip(now) {
                word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
            }
            if run.is_empty() {
                break;
            }
            chunks = later;
        }
        rest
    }

    fn put_last(&mut self, one: &[u8], other: &[u8]) {
        if one.is_empty() && other.is_empty() {
            return;
        }
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(one.iter().chain(other)) {
            *to = *from;
        }
        self.put(u64::from_ne_bytes(word));
    }

    /// Fills `room` with as many bytes.
    pub fn copy_to(&mut self, room: &mut [u8]) {
        let (mut chunks, rest) = room.as_chunks_mut::<8>();
        while !chunks.is_empty() {
            let run = self.run(chunks.len());
            if run.is_empty() {
                break;
            }
            let (now, later) = chunks.split_at_mut(run.len());
            for (word, chunk) in run.iter().zip(now) {
                *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            }
            chunks = later;
        }
        if !rest.is_empty() {
            let last = self.get().to_ne_bytes();
            for (to, from) in rest.iter_mut().zip(last) {
                *to = from;
            }
        }
    }

    /// Puts so many bytes behind `out`.
    pub fn append_to(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let begin = out.len();
        out.resize(begin + bytes, 0);
        self.copy_to(out.get_mut(begin..).unwrap_or_default());
    }
}
