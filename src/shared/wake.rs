//! Waking a process out of its poll: one eventfd(2) per seat.
//!
//! Owns: the descriptors. The master opens them before the first fork, every process inherits all; they belong to the
//! seat, not to the process on it, so a successor hears what its predecessor was told.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The eventfds of all seats, non-blocking.
#[derive(Debug)]
pub struct Wakes(Vec<File>);

impl Wakes {
    /// `descriptors`: one non-blocking eventfd per seat, in the order of the seats.
    #[must_use]
    pub fn new(descriptors: Vec<OwnedFd>) -> Wakes {
        Wakes(descriptors.into_iter().map(File::from).collect())
    }

    /// Makes the seat's descriptor readable. Never blocks: a count already at its limit has woken the reader too.
    pub fn wake(&self, seat: usize) {
        if let Some(mut file) = self.0.get(seat) {
            let _ = file.write(&1u64.to_ne_bytes());
        }
    }

    pub fn wake_all(&self) {
        (0..self.0.len()).for_each(|seat| self.wake(seat));
    }

    /// The reader's: not readable any more until somebody wakes it again. Was it awake?
    ///
    /// # Errors
    /// None but a closed descriptor's (eventfd(2)).
    pub fn clear(&self, seat: usize) -> io::Result<bool> {
        let Some(mut file) = self.0.get(seat) else { return Ok(false) };
        match file.read(&mut [0; size_of::<u64>()]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// To register with the seat's own poll, for reading.
    #[must_use]
    pub fn descriptor(&self, seat: usize) -> Option<BorrowedFd<'_>> {
        self.0.get(seat).map(File::as_fd)
    }
}
