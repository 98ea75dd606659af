//! Buffers to receive into.

use std::io;
use std::ptr::NonNull;

use crate::memory;

/// `slots` buffers of `slot_bytes` each in one private mapping. What is not touched costs nothing, so a slot may be as large as
/// the largest message.
pub struct Arena {
    base: NonNull<u8>,
    slots: usize,
    slot_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, as the memory of a `Vec<u8>` does.
unsafe impl Send for Arena {}
// SAFETY: as above: shared references only read.
unsafe impl Sync for Arena {}

impl Arena {
    /// # Errors
    /// `OutOfMemory` when `slots * slot_bytes` overflows; else what `mmap(2)` says.
    pub fn new(slots: usize, slot_bytes: usize) -> io::Result<Arena> {
        let bytes = slots.checked_mul(slot_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        let base = memory::map_anonymous(bytes.max(1), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        Ok(Arena { base, slots, slot_bytes })
    }

    /// Number of buffers.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Buffer `i`, all of it; empty when there is no such buffer.
    #[must_use]
    pub fn slot(&self, i: usize) -> &[u8] {
        if i >= self.slots {
            return &[];
        }
        // SAFETY: buffer i lies within the mapping (i < slots), which is zero-filled, ours and borrowed with self.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(i * self.slot_bytes), self.slot_bytes) }
    }

    /// Buffer `i` for writing; empty when there is no such buffer.
    pub fn slot_mut(&mut self, i: usize) -> &mut [u8] {
        if i >= self.slots {
            return &mut [];
        }
        // SAFETY: as in `slot`, and self is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(i * self.slot_bytes), self.slot_bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and no reference into it outlives self.
        unsafe { libc::munmap(self.base.as_ptr().cast(), (self.slots * self.slot_bytes).max(1)) };
    }
}
