//! What was read from a line, on its way to the calls.
//!
//! Owns: the buffers, one set for all lines of a process.

use std::io;

use sys::datagram::{Arena, Receiver};

/// The largest datagram fits; of a stream, so much is read at once.
const BYTES: usize = 128 * 1024;
/// Messages of one system call, and bytes of each.
const BATCH: usize = 64;
const LARGEST: usize = 65_536;

/// Messages of one reading.
pub struct Reads {
    /// Datagrams and streams, from the start on.
    pub(super) bytes: Vec<u8>,
    pub(super) spans: Vec<(usize, usize)>,
    /// Batches: slots of `arena`.
    pub(super) arena: Arena,
    pub(super) receiver: Receiver,
    pub(super) slots: Vec<(usize, usize)>,
    /// SCTP in user space brings its own.
    pub(super) owned: Vec<Vec<u8>>,
}

impl Reads {
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Reads> {
        Ok(Reads {
            bytes: vec![0; BYTES],
            spans: Vec::new(),
            arena: Arena::new(BATCH, LARGEST)?,
            receiver: Receiver::new(BATCH),
            slots: Vec::new(),
            owned: Vec::new(),
        })
    }

    pub(super) fn clear(&mut self) {
        self.spans.clear();
        self.slots.clear();
        self.owned.clear();
    }

    /// The messages, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let spans = self.spans.iter().map(|(start, end)| self.bytes.get(*start..*end).unwrap_or_default());
        let slots = self.slots.iter().map(|(slot, length)| self.arena.slot(*slot).get(..*length).unwrap_or_default());
        spans.chain(slots).chain(self.owned.iter().map(Vec::as_slice))
    }
}
