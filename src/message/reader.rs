//! `Reader`: walks a header's value byte by byte (RFC 3261 §25.1 in small: white space, tokens, quoted strings, parameters,
//! addresses).
//!
//! Owns: the position. Never goes past the end of the value, never allocates. `scan` has checked before that CR and LF occur only
//! as folds, so here they are white space.

use super::span::Span;
use super::wide;

const TOKEN: u8 = 1;
const SPACE: u8 = 2;
/// Ends the name or the unquoted value of a parameter.
const PARAMETER_END: u8 = 4;
/// Of interest before an address: quote, angle brackets, semicolon, comma.
const ADDRESS_STOP: u8 = 8;

/// Closes an angle bracket.
const CLOSE: u8 = 16;
/// Ends the host of a Via.
const HOST_END: u8 = 32;
/// Makes a Request-URI odd.
const URI_STOP: u8 = 64;

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
        if matches!(b, b'"' | b'<' | b'>' | b';' | b',') {
            class |= ADDRESS_STOP;
        }
        if b == b'>' {
            class |= CLOSE;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b':' | b';' | b',' | b'"' | b'<') {
            class |= HOST_END;
        }
        if matches!(b, 0..=b' ' | b'<' | b'>') {
            class |= URI_STOP;
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

/// Is `text` the word `small`, of four to eight small letters, in any case of letters?
#[inline]
#[must_use]
pub fn is_word(text: &[u8], small: &[u8]) -> bool {
    // Two halves that overlap. With a bit set that tells small letters from large ones, nothing but a letter becomes a letter.
    let halves =
        |text: &[u8]| Some((u32::from_ne_bytes(*text.first_chunk()?), u32::from_ne_bytes(*text.last_chunk()?)));
    let lower = u32::from_ne_bytes([b' '; 4]);
    text.len() == small.len()
        && halves(text).is_some_and(|(first, last)| halves(small) == Some((first | lower, last | lower)))
}

/// A value on the way through.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The message.
    bytes: &'a [u8],
    /// The message up to the end of the value: one comparison tells whether there is a byte at `at`.
    value: &'a [u8],
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
        Reader { bytes, value: bytes.get(..value.end as usize).unwrap_or(bytes), at: value.start as usize }
    }

    #[inline]
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    #[inline]
    fn get(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    /// The next byte, 0 at the end (a NUL never passes `scan`).
    #[inline]
    #[must_use]
    pub fn peek(&self) -> u8 {
        self.get().unwrap_or(0)
    }

    #[inline]
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.value.len()
    }

    #[inline]
    pub fn skip_space(&mut self) {
        self.skip_while(is_space);
    }

    #[inline]
    pub fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.get().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// Past white space; the byte that comes then, 0 at the end.
    #[inline]
    fn peek_past_space(&mut self) -> u8 {
        loop {
            match self.peek() {
                space if is_space(space) => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Goes to the next byte of `class` or the end; `wide` finds all of them, and may find others, in sixteen bytes.
    #[inline]
    fn skip_to(&mut self, class: u8, wide: impl Fn(&[u8; wide::WIDTH]) -> u32) {
        while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let found = wide(chunk);
            if found == 0 {
                self.at += wide::WIDTH;
                if self.is_at_end() {
                    self.at = self.value.len();
                    return;
                }
                continue;
            }
            self.at += found.trailing_zeros() as usize;
            match self.get() {
                Some(byte) if !is(byte, class) => self.at += 1,
                Some(_) => return,
                None => {
                    self.at = self.value.len();
                    return;
                }
            }
        }
        self.at = self.next_slowly(class);
    }

    /// Where the next byte of `class` or the end is, in the last bytes of a message, one by one. (By value, as what is below: a
    /// reader that nobody points to lives in registers.)
    #[inline(never)]
    fn next_slowly(mut self, class: u8) -> usize {
        self.skip_while(|byte| !is(byte, class));
        self.at.min(self.value.len())
    }

    #[inline]
    pub fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.get() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    /// The text that comes next, as it is written here.
    #[inline]
    pub fn eat_exactly<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        let eaten = self.value.get(self.at..).and_then(|rest| rest.first_chunk()) == Some(text);
        if eaten {
            self.at += N;
        }
        eaten
    }

    /// The text that comes next, in any case of letters.
    #[inline]
    pub fn eat_text(&mut self, text: &[u8]) -> bool {
        let end = self.at + text.len();
        let eaten = self.value.get(self.at..end).is_some_and(|found| found.eq_ignore_ascii_case(text));
        if eaten {
            self.at = end;
        }
        eaten
    }

    /// Is there neither white space nor a control character nor an angle bracket in what is left?
    #[inline]
    #[must_use]
    pub fn is_plain(mut self) -> bool {
        self.skip_to(URI_STOP, wide::uri_stops);
        self.is_at_end()
    }

    /// A host, not one in brackets: goes on until white space or one of `:;,"<`.
    #[inline]
    pub fn host(&mut self) -> Span {
        let start = self.at;
        self.skip_to(HOST_END, wide::host_ends);
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
        while let Some(digit) = self.get().map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
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
    #[inline]
    pub fn quoted(&mut self) -> Option<Span> {
        let start = self.at;
        self.at = self.behind_quote()?;
        Some(Span::new(start, self.at))
    }

    /// Where the string ends whose opening quote is next.
    #[inline(never)]
    fn behind_quote(mut self) -> Option<usize> {
        self.at += 1;
        loop {
            match self.get()? {
                b'"' => return Some(self.at + 1),
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
            if self.peek_past_space() != b';' {
                return Some(end);
            }
            self.at += 1;
            self.skip_space();
            let name = self.parameter_part();
            let mut value = Span::EMPTY;
            end = self.at;
            if self.peek_past_space() == b'=' {
                self.at += 1;
                value = if self.peek_past_space() == b'"' {
                    self.quoted()?
                } else {
                    let start = self.at;
                    self.parameter_part();
                    // A value may have an equals sign (base64), a name may not.
                    while self.eat(b'=') {
                        self.parameter_part();
                    }
                    Span::new(start, self.at)
                };
                end = self.at;
            }
            each(name.of(self.bytes), name, value);
        }
    }

    #[inline]
    fn parameter_part(&mut self) -> Span {
        let start = self.at;
        self.skip_to(PARAMETER_END, wide::parameter_ends);
        Span::new(start, self.at)
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
            self.skip_to(ADDRESS_STOP, wide::address_stops);
            match self.peek() {
                b'"' => {
                    self.quoted()?;
                    quoted = true;
                }
                b'<' => {
                    let open = self.at + 1;
                    self.skip_to(CLOSE, wide::closing);
                    let uri = Span::new(open, self.at);
                    if !self.eat(b'>') {
                        return None;
                    }
                    break uri;
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
    #[inline]
    pub fn skip_value(&mut self) -> bool {
        self.at = self.behind_value();
        self.peek() == b','
    }

    /// How many values there are.
    pub fn values(mut self) -> u16 {
        let mut values = 1u16;
        while self.skip_value() {
            self.at += 1;
            values = values.saturating_add(1);
        }
        values
    }

    /// Where the value ends that is next.
    #[inline(never)]
    fn behind_value(mut self) -> usize {
        loop {
            self.skip_to(ADDRESS_STOP, wide::address_stops);
            match self.peek() {
                b'"' => self.at = self.behind_quote().unwrap_or(self.value.len()),
                b'<' => {
                    self.skip_to(CLOSE, wide::closing);
                    self.eat(b'>');
                }
                b';' | b'>' => self.at += 1,
                _ => return self.at,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_itself_in_any_case_and_nothing_else_is() {
        for small in [&b"port"[..], b"rport", b"branch", b"received"] {
            let large = small.to_ascii_uppercase();
            assert!(is_word(small, small) && is_word(&large, small));
            assert!(!is_word(&small[1..], small) && !is_word(small, &small[1..]));
            for place in 0..small.len() {
                for byte in 0..=255u8 {
                    let mut text = large.clone();
                    text[place] = byte;
                    assert_eq!(is_word(&text, small), text.eq_ignore_ascii_case(small), "{text:?}");
                }
            }
        }
    }
}
