//! `Ends`: where the lines of a head end (RFC 3261 §7).
//!
//! Owns: finding CRLF, and refusing a CR or LF alone and NUL (a head with those means one thing to us and another to the next hop).
//! Never looks at what else is in a line.

use super::wide;

/// Finds line ends: looks at 64 bytes side by side, then hands out what it found there one by one.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    bytes: &'a [u8],
    base: usize,
    /// Bit n: `base + n` has a control character that was not handed out yet.
    found: u64,
}

impl<'a> Ends<'a> {
    /// Line ends of `bytes` from `at`.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8], at: usize) -> Ends<'a> {
        Ends { bytes, base: at, found: controls(bytes, at) }
    }

    /// The message whose line ends these are.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next line's end: position of its CRLF. None: there is a fault, of which `fault` tells.
    #[inline(always)]
    pub fn line_end(&mut self) -> Option<usize> {
        loop {
            while self.found == 0 {
                self.go_on()?;
            }
            let place = self.found.trailing_zeros();
            let at = self.base + place as usize;
            match self.bytes.get(at..)?.first_chunk::<2>() {
                Some(b"\r\n") => {
                    self.found &= self.found - 1;
                    // The LF is what was found next, unless it is the first byte of the next block.
                    if place == 63 {
                        self.go_on()?;
                    }
                    self.found &= self.found.wrapping_sub(1);
                    return Some(at);
                }
                _ if matches!(self.bytes.get(at), Some(b'\r' | b'\n' | 0)) => return None,
                _ => self.found &= self.found - 1,
            }
        }
    }

    #[inline]
    fn go_on(&mut self) -> Option<()> {
        self.base += 64;
        if self.base >= self.bytes.len() {
            return None;
        }
        self.found = controls(self.bytes, self.base);
        Some(())
    }

    /// What is wrong with the line that `line_end` refused, and where the next one starts.
    #[cold]
    #[must_use]
    pub fn fault(self) -> (&'static str, Option<usize>) {
        match self.found {
            0 => ("No end of headers", None),
            _ => bare(self.bytes, self.base + self.found.trailing_zeros() as usize),
        }
    }
}

/// Which of the 64 bytes from `at` are below 14, the bytes among which CR, LF and NUL are; bit 0 is the first.
#[inline]
fn controls(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<64>() {
        Some(block) => controls_of(block),
        None => last_controls(rest),
    }
}

/// The same for the last bytes of a message, fewer than 64.
#[inline(never)]
fn last_controls(rest: &[u8]) -> u64 {
    let mut block = [b'.'; 64];
    if let Some(place) = block.get_mut(..rest.len()) {
        place.copy_from_slice(rest);
    }
    controls_of(&block)
}

#[inline]
fn controls_of(block: &[u8; 64]) -> u64 {
    let (chunks, _) = block.as_chunks::<{ wide::WIDTH }>();
    chunks.iter().rev().fold(0, |mask, chunk| mask << wide::WIDTH | u64::from(wide::controls(chunk)))
}

/// Names the fault of a line with a CR, LF or NUL of its own at `at`, and finds the line after it.
#[cold]
fn bare(bytes: &[u8], at: usize) -> (&'static str, Option<usize>) {
    let reason = match bytes.get(at) {
        Some(b'\r') if at + 1 == bytes.len() => "No end of headers",
        Some(b'\r') => "Bare CR",
        Some(b'\n') => "Bare LF",
        _ => "NUL in the head",
    };
    let next = bytes.get(at..).and_then(|rest| memchr::memmem::find(rest, b"\r\n")).map(|length| at + length + 2);
    (reason, next)
}
