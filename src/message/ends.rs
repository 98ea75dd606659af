//! `Ends`: where the lines of a head end (RFC 3261 §7).
//!
//! Owns: finding CRLF, and refusing a CR or LF alone and NUL (a head with those means one thing to us and another to the next hop).
//! Never looks at what else is in a line.

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

    /// Position of the next CR, LF or NUL.
    #[inline]
    fn next_control(&mut self) -> Option<(usize, u8)> {
        loop {
            while self.found == 0 {
                self.base += 64;
                if self.base >= self.bytes.len() {
                    return None;
                }
                self.found = controls(self.bytes, self.base);
            }
            let at = self.base + self.found.trailing_zeros() as usize;
            self.found &= self.found - 1;
            match self.bytes.get(at) {
                Some(&byte) if matches!(byte, b'\r' | b'\n' | 0) => return Some((at, byte)),
                _ => {}
            }
        }
    }

    /// The next line's end. `Ok`: position of its CRLF.
    ///
    /// # Errors
    /// What is wrong with the line, and where the next one starts.
    #[inline]
    pub fn line_end(&mut self) -> Result<usize, (&'static str, Option<usize>)> {
        match self.next_control() {
            Some((end, b'\r')) if self.bytes.get(end + 1) == Some(&b'\n') => {
                // The LF is what was found next, unless it is the first byte of the next block.
                if end + 1 < self.base + 64 {
                    self.found &= self.found.wrapping_sub(1);
                } else {
                    self.next_control();
                }
                Ok(end)
            }
            Some((at, _)) => Err(bare(self.bytes, at)),
            None => Err(("No end of headers", None)),
        }
    }
}

/// Which of the 64 bytes from `at` are below 14, the bytes among which CR, LF and NUL are; bit 0 is the first. Written so that the
/// compiler compares them in vector registers.
#[inline]
fn controls(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<64>() {
        Some(block) => controls_of(block),
        None => {
            let mut block = [b'.'; 64];
            if let Some(place) = block.get_mut(..rest.len()) {
                place.copy_from_slice(rest);
            }
            controls_of(&block)
        }
    }
}

#[inline]
fn controls_of(block: &[u8; 64]) -> u64 {
    /// Moves bit 0 of each of eight bytes into the top byte, the first byte's lowest.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let flags = block.map(|byte| u8::from(byte < 14));
    let (eights, _) = flags.as_chunks::<8>();
    eights.iter().rev().fold(0, |mask, eight| mask << 8 | u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56)
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
