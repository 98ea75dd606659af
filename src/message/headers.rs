//! Header lines: RFC 3261 §7.3.
//!
//! Owns: where a line starts and ends (folds included), what its name is (also compact), the values of lists that are spread over
//! lines and commas. Never looks into a value.

use super::ends::Ends;
use super::reader::{Reader, trim};
use super::span::Span;

/// One header line, folds included; positions in the message's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub start: u32,
    pub kind: Name,
    /// The name without white space.
    pub name: Span,
    /// The value without the white space around it; inside, folds stay.
    pub value: Span,
    /// Start of the next line.
    pub next: u32,
}

/// What comes next in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Line(Line),
    /// The empty line; the body begins at this position.
    Body(usize),
    /// Not a header line. Where the next line starts, if there is one.
    Fault(&'static str, Option<usize>),
}

/// Reads the header line at `at`, which is where the last line end of `ends` was.
#[inline]
#[must_use]
pub fn step(ends: &mut Ends<'_>, at: usize) -> Step {
    let bytes = ends.bytes();
    let mut end = match ends.line_end() {
        Ok(end) if end == at => return Step::Body(at + 2),
        Ok(end) => end,
        Err((reason, next)) => return Step::Fault(reason, next),
    };
    while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
        end = match ends.line_end() {
            Ok(end) => end,
            Err((reason, next)) => return Step::Fault(reason, next),
        };
    }
    let Some((colon, kind)) = name(bytes, at, end) else {
        return Step::Fault("Header line without a colon", Some(end + 2));
    };
    let mut name = Span::new(at, colon);
    if kind.is_none() {
        name = trim(bytes, at, colon);
    }
    let kind = kind.unwrap_or_else(|| Name::read(name.of(bytes)));
    let nameless = || name.is_empty() || matches!(bytes.get(at), Some(b' ' | b'\t'));
    if kind == Name::Other && nameless() {
        return Step::Fault("Header line without a name", Some(end + 2));
    }
    let value = trim(bytes, colon + 1, end);
    Step::Line(Line { start: name.start, kind, name, value, next: Span::new(0, end + 2).end })
}

/// The lowest bit of each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

/// The lowest bit set tells the first colon (a borrow can spoil only bytes above it); 0: there is none.
#[inline]
fn colons(word: u64) -> u64 {
    let other = word ^ (EACH * b':' as u64);
    other.wrapping_sub(EACH) & !other & (EACH * 0x80)
}

/// The first `length` bytes (0..=8) in lower case, the others 0.
#[inline]
fn up_to(word: u64, length: u32) -> u64 {
    (word | (EACH * 0x20)) & !u64::MAX.checked_shl(length * 8).unwrap_or(0)
}

/// Where the colon of the line `at..end` is, and what the name before it is, where that was seen on the way: sixteen bytes are
/// looked at side by side, which is more than most names have.
#[inline]
fn name(bytes: &[u8], at: usize, end: usize) -> Option<(usize, Option<Name>)> {
    if let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let word = u128::from_le_bytes(*chunk);
        #[allow(clippy::cast_possible_truncation)]
        let (low, high) = (word as u64, (word >> 64) as u64);
        let (colons_low, colons_high) = (colons(low), colons(high));
        let (length, lower) = if colons_low != 0 {
            let length = colons_low.trailing_zeros() / 8;
            (length, u128::from(up_to(low, length)))
        } else {
            let length = colons_high.trailing_zeros() / 8;
            (8 + length, u128::from(up_to(high, length)) << 64 | u128::from(low | (EACH * 0x20)))
        };
        if colons_low | colons_high != 0 {
            let colon = at + length as usize;
            if colon >= end {
                return None;
            }
            let kind = Name::of_word(length, lower);
            // Only a name that is not known can have white space before its colon, to be cut off before it is read again.
            let spaced = kind == Name::Other
                && matches!(colon.checked_sub(1).and_then(|last| bytes.get(last)), Some(b' ' | b'\t'));
            return Some((colon, (!spaced).then_some(kind)));
        }
    }
    let line = bytes.get(at..end).unwrap_or_default();
    line.iter().position(|byte| *byte == b':').map(|colon| (at + colon, None))
}

/// The headers that the proxy reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Name {
    Via,
    From,
    To,
    CallId,
    CSeq,
    MaxForwards,
    Route,
    RecordRoute,
    ContentLength,
    Contact,
    Expires,
    Require,
    ProxyRequire,
    #[default]
    Other,
}

/// A name in lower case as the little-endian number that its bytes make.
const fn word(name: &[u8]) -> u128 {
    let mut word = 0;
    let mut at = name.len();
    while at > 0 {
        at -= 1;
        word = word << 8 | name[at] as u128;
    }
    word
}

impl Name {
    /// Reads a name or its compact form (RFC 3261 §7.3.3), in any case of letters.
    #[must_use]
    pub fn read(name: &[u8]) -> Name {
        let mut chunk = [0u8; 16];
        let Some(place) = chunk.get_mut(..name.len()).filter(|place| place.len() < 16) else { return Name::Other };
        place.copy_from_slice(name);
        place.make_ascii_lowercase();
        Name::of_word(u32::try_from(name.len()).unwrap_or(0), u128::from_le_bytes(chunk))
    }

    /// Reads a name of `length` bytes, given in lower case as a little-endian number.
    #[inline]
    fn of_word(length: u32, lower: u128) -> Name {
        const VIA: u128 = word(b"via");
        const FROM: u128 = word(b"from");
        const TO: u128 = word(b"to");
        const CALL_ID: u128 = word(b"call-id");
        const CSEQ: u128 = word(b"cseq");
        const MAX_FORWARDS: u128 = word(b"max-forwards");
        const ROUTE: u128 = word(b"route");
        const RECORD_ROUTE: u128 = word(b"record-route");
        const CONTENT_LENGTH: u128 = word(b"content-length");
        const CONTACT: u128 = word(b"contact");
        const EXPIRES: u128 = word(b"expires");
        const REQUIRE: u128 = word(b"require");
        const PROXY_REQUIRE: u128 = word(b"proxy-require");
        match length {
            1 => match lower.to_le_bytes()[0] {
                b'v' => Name::Via,
                b'f' => Name::From,
                b't' => Name::To,
                b'i' => Name::CallId,
                b'l' => Name::ContentLength,
                b'm' => Name::Contact,
                _ => Name::Other,
            },
            2 if lower == TO => Name::To,
            3 if lower == VIA => Name::Via,
            4 => match lower {
                FROM => Name::From,
                CSEQ => Name::CSeq,
                _ => Name::Other,
            },
            5 if lower == ROUTE => Name::Route,
            7 => match lower {
                CALL_ID => Name::CallId,
                CONTACT => Name::Contact,
                EXPIRES => Name::Expires,
                REQUIRE => Name::Require,
                _ => Name::Other,
            },
            12 => match lower {
                MAX_FORWARDS => Name::MaxForwards,
                RECORD_ROUTE => Name::RecordRoute,
                _ => Name::Other,
            },
            13 if lower == PROXY_REQUIRE => Name::ProxyRequire,
            14 if lower == CONTENT_LENGTH => Name::ContentLength,
            _ => Name::Other,
        }
    }
}

/// The compact form of a header name, for those that have one (IANA's SIP header registry).
#[must_use]
pub fn compact(name: &[u8]) -> Option<u8> {
    const FORMS: [(&[u8], u8); 22] = [
        (b"accept-contact", b'a'),
        (b"allow-events", b'u'),
        (b"call-id", b'i'),
        (b"contact", b'm'),
        (b"content-encoding", b'e'),
        (b"content-length", b'l'),
        (b"content-type", b'c'),
        (b"event", b'o'),
        (b"from", b'f'),
        (b"identity", b'y'),
        (b"refer-to", b'r'),
        (b"referred-by", b'b'),
        (b"reject-contact", b'j'),
        (b"request-disposition", b'd'),
        (b"session-expires", b'x'),
        (b"subject", b's'),
        (b"supported", b'k'),
        (b"to", b't'),
        (b"via", b'v'),
        (b"identity-info", b'n'),
        (b"v", b'v'),
        (b"t", b't'),
    ];
    FORMS.iter().find(|(long, _)| name.eq_ignore_ascii_case(long)).map(|(_, short)| *short)
}

/// The lines of a head that has been scanned.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    ends: Ends<'a>,
    at: usize,
}

impl<'a> Lines<'a> {
    /// Lines of `bytes` from `at`, the start of a header line.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: u32) -> Lines<'a> {
        Lines { bytes, ends: Ends::new(bytes, at as usize), at: at as usize }
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    #[inline]
    fn next(&mut self) -> Option<Line> {
        loop {
            match step(&mut self.ends, self.at) {
                Step::Line(line) => {
                    self.at = line.next as usize;
                    return Some(line);
                }
                Step::Fault(_, Some(next)) => (self.ends, self.at) = (Ends::new(self.bytes, next), next),
                Step::Body(_) | Step::Fault(_, None) => return None,
            }
        }
    }
}

/// The values of all headers of one name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a, 'n> {
    pub(super) lines: Lines<'a>,
    pub(super) name: &'n [u8],
    pub(super) compact: Option<u8>,
}

impl Iterator for Named<'_, '_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let bytes = self.lines.bytes;
        let (name, short) = (self.name, self.compact);
        let matches = |found: &[u8]| match found {
            [one] => short == Some(one.to_ascii_lowercase()) || name.eq_ignore_ascii_case(found),
            _ => found.eq_ignore_ascii_case(name),
        };
        self.lines.find(|line| matches(line.name.of(bytes))).map(|line| line.value)
    }
}

/// Readers on each value of a list header (Via, Route, Contact), over lines and commas.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    lines: Lines<'a>,
    name: Name,
    /// The line being read, and where its next value starts.
    line: Line,
    at: Option<usize>,
}

impl<'a> Values<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8], headers_at: u32, name: Name) -> Values<'a> {
        Values { bytes, lines: Lines::new(bytes, headers_at), name, line: Line::default(), at: None }
    }

    /// The line that the last value was in.
    #[must_use]
    pub fn line(&self) -> Line {
        self.line
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Reader<'a>;

    fn next(&mut self) -> Option<Reader<'a>> {
        let start = match self.at {
            Some(at) => at,
            None => {
                let name = self.name;
                self.line = self.lines.find(|line| line.kind == name)?;
                self.line.value.start as usize
            }
        };
        let reader = Reader::new(self.bytes, Span::new(start, self.line.value.end as usize));
        let mut ahead = reader;
        self.at = ahead.skip_value().then(|| ahead.at() + 1);
        Some(reader)
    }
}
