//! `Span`: a part of a message, by position.
//!
//! Owns: the pair of offsets and the promise that looking one up never panics, whatever the bytes.

/// Part of a message: `start..end`, byte offsets from the beginning of the message's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub const EMPTY: Span = Span { start: 0, end: 0 };

    /// Messages are shorter than 2^31 bytes (`scan` refuses others), so the offsets fit.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes named; empty when the span lies outside of `bytes`.
    #[inline]
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_outside_of_the_bytes_is_empty_and_not_a_panic() {
        assert_eq!(Span::new(1, 3).of(b"abcd"), b"bc");
        assert_eq!(Span::new(3, 9).of(b"abcd"), b"");
        assert_eq!(Span::new(3, 1).of(b"abcd"), b"");
        assert_eq!(Span::new(3, 1).len(), 0);
    }
}
