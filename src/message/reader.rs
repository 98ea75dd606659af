//! `Reader`: walks a header's value byte by byte (RFC 3261 §25.1 in small: white space, tokens, quoted strings, parameters,
//! addresses).
//!
//! Owns: the position. Never goes past the end of the value, never allocates. `scan` has checked before that CR and LF occur only
//! as folds, so here they are white space.

use super::span::Span;

const TOKEN: u8 = 1;
const SPACE: u8 = 2;
/// Ends the name or the unquoted value of a parameter.
const PARAMETER_END: u8 = 4;
/// Of interest before an address: quote, angle bracket, semicolon, comma.
const ADDRESS_STOP: u8 = 8;

/// What each byte may be. Indexing by a `u8` cannot fail.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)]
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        {
            class |= TOKEN;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            class |= SPACE | PARAMETER_END;
        }
        // A quote or bracket inside of a bare value would leave open where the value ends: it ends there, and what follows is
        // no parameter.
        if matches!(b, b';' | b',' | b'=' | b'"' | b'<') {
            class |= PARAMETER_END;
        }
        if matches!(b, b'"' | b'<' | b';' | b',') {
            class |= ADDRESS_STOP;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// May the byte stand in a token (RFC 3261 §25.1)?
#[inline]
#[must_use]
pub fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// White space, folds included.
#[inline]
#[must_use]
pub fn is_space(byte: u8) -> bool {
    is(byte, SPACE)
}

/// A value on the way through.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The message up to the end of the value.
    bytes: &'a [u8],
    at: usize,
}

/// `name-addr` or `addr-spec` with the header's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    pub uri: Span,
    /// From behind the address to the end of the last parameter, first semicolon included; empty when there is none.
    pub params: Span,
}

impl<'a> Reader<'a> {
    /// Reads `value` of `bytes`.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8], value: Span) -> Reader<'a> {
        Reader { bytes: bytes.get(..value.end as usize).unwrap_or(bytes), at: value.start as usize }
    }

    #[inline]
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte, 0 at the end (a NUL never passes `scan`).
    #[inline]
    #[must_use]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline]
    pub fn skip_space(&mut self) {
        self.skip_while(is_space);
    }

    #[inline]
    pub fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !wanted(byte) {
                return;
            }
            self.at += 1;
        }
    }

    #[inline]
    pub fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == byte && !self.is_at_end();
        self.at += usize::from(eaten);
        eaten
    }

    /// The text that comes next, in any case of letters.
    #[inline]
    pub fn eat_text(&mut self, text: &[u8]) -> bool {
        let end = self.at + text.len();
        let eaten = self.bytes.get(self.at..end).is_some_and(|found| found.eq_ignore_ascii_case(text));
        if eaten {
            self.at = end;
        }
        eaten
    }

    /// Goes on until `stop` is met or the value ends.
    #[inline]
    pub fn until(&mut self, stop: impl Fn(u8) -> bool) -> Span {
        let start = self.at;
        self.skip_while(|byte| !stop(byte));
        Span::new(start, self.at)
    }

    #[inline]
    pub fn token(&mut self) -> Span {
        let start = self.at;
        self.skip_while(is_token);
        Span::new(start, self.at)
    }

    /// Decimal digits as a number; more than 32 bits saturate. None when no digit comes next.
    #[inline]
    pub fn number(&mut self) -> Option<u32> {
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit) = self.bytes.get(self.at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            value = (value * 10 + u64::from(digit)).min(u64::from(u32::MAX) + 1);
            self.at += 1;
        }
        (self.at > start).then(|| u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// `span` as a whole as a number.
    #[must_use]
    pub fn number_in(&self, span: Span) -> Option<u32> {
        let mut digits = Reader::new(self.bytes, span);
        digits.number().filter(|_| digits.is_at_end())
    }

    /// A quoted string, quotes included; the reader stands on the opening quote. None: it never closes.
    pub fn quoted(&mut self) -> Option<Span> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(Span::new(start, self.at));
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    /// `;name`, `;name=value`, `;name="value"`: shows each to `each` (the value is empty when there is none) until something
    /// else than a semicolon comes. Returns the end of the last one. None: a quoted string never closes.
    #[inline]
    pub fn parameters(&mut self, mut each: impl FnMut(&'a [u8], Span, Span)) -> Option<usize> {
        let mut end = self.at;
        loop {
            self.skip_space();
            if !self.eat(b';') {
                return Some(end);
            }
            self.skip_space();
            let name = self.until(|byte| is(byte, PARAMETER_END));
            let mut value = Span::EMPTY;
            end = self.at;
            self.skip_space();
            if self.eat(b'=') {
                self.skip_space();
                value = if self.peek() == b'"' {
                    self.quoted()?
                } else {
                    self.until(|byte| is(byte, PARAMETER_END) && byte != b'=')
                };
                end = self.at;
            }
            each(name.of(self.bytes), name, value);
        }
    }

    /// An address and its parameters (RFC 3261 §20.10): with a display name and angle brackets, or bare; a bare URI ends at the
    /// first semicolon. Stops at the end or before the comma of the next value; None when something else follows, when there is no
    /// URI, or when a quote or bracket never closes.
    #[inline]
    pub fn address(&mut self, each: impl FnMut(&'a [u8], Span, Span)) -> Option<Address> {
        self.skip_space();
        let start = self.at;
        let mut quoted = false;
        let uri = loop {
            self.skip_while(|byte| !is(byte, ADDRESS_STOP));
            match self.peek() {
                b'"' => {
                    self.quoted()?;
                    quoted = true;
                }
                b'<' => {
                    let open = self.at + 1;
                    let length = memchr::memchr(b'>', self.bytes.get(open..)?)?;
                    self.at = open + length + 1;
                    break Span::new(open, open + length);
                }
                _ if quoted => return None,
                _ => break trim(self.bytes, start, self.at),
            }
        };
        let params = self.at;
        let end = self.parameters(each)?;
        let complete = self.is_at_end() || self.peek() == b',';
        (complete && !uri.is_empty()).then(|| Address { uri, params: Span::new(params, end) })
    }

    /// Goes to the comma before the next value of a list, past quoted strings and angle brackets; false at the end.
    pub fn skip_value(&mut self) -> bool {
        loop {
            self.skip_while(|byte| !is(byte, ADDRESS_STOP));
            match self.peek() {
                b',' => return true,
                b'"' => {
                    if self.quoted().is_none() {
                        self.at = self.bytes.len();
                    }
                }
                b'<' => match memchr::memchr(b'>', self.bytes.get(self.at..).unwrap_or_default()) {
                    Some(length) => self.at += length,
                    None => self.at = self.bytes.len(),
                },
                b';' => self.at += 1,
                _ => return false,
            }
        }
    }
}

/// `start..end` without the white space around it.
#[inline]
#[must_use]
pub fn trim(bytes: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && bytes.get(start).is_some_and(|b| is_space(*b)) {
        start += 1;
    }
    while start < end && bytes.get(end - 1).is_some_and(|b| is_space(*b)) {
        end -= 1;
    }
    Span::new(start, end)
}
