//! Header lines: RFC 3261 §7.3.
//!
//! Owns: where a line starts and ends (folds included), what its name is (also compact), the values of lists that are spread over
//! lines and commas. Never looks into a value.

use super::ends::Ends;
use super::reader::{Reader, trim};
use super::span::Span;
use super::wide;

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

/// A header line of which nothing was looked at but its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: Name,
    pub name: Span,
    colon: usize,
    end: usize,
}

impl Found {
    /// The whole line.
    #[inline]
    #[must_use]
    pub fn line(&self, bytes: &[u8]) -> Line {
        let value = match bytes.get(self.colon + 1..self.end) {
            // As most write it: what is above a space is none.
            Some([b' ', first, .., last]) if *first > b' ' && *last > b' ' => Span::new(self.colon + 2, self.end),
            _ => trim(bytes, self.colon + 1, self.end),
        };
        let next = Span::new(0, self.next()).end;
        Line { start: self.name.start, kind: self.kind, name: self.name, value, next }
    }

    /// Start of the next line.
    #[inline]
    #[must_use]
    pub fn next(&self) -> usize {
        self.end + 2
    }
}

/// What comes next in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Line(Found),
    /// The empty line; the body begins at this position.
    Body(usize),
    /// Not a header line. Where the next line starts, if there is one.
    Fault(&'static str, Option<usize>),
}

/// Reads the header line at `at`, which is where the last line end of `ends` was.
#[inline(always)]
#[must_use]
pub fn step(ends: &mut Ends<'_>, at: usize) -> Step {
    let bytes = ends.bytes();
    let Some(mut end) = ends.line_end() else { return fault(*ends) };
    if end == at {
        return Step::Body(at + 2);
    }
    if matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
        let (behind, last) = folded(*ends, end);
        *ends = behind;
        match last {
            Some(last) => end = last,
            None => return fault(*ends),
        }
    }
    let Some((kind, name, colon)) = name(bytes, at, end) else {
        return Step::Fault("Header line without a colon", Some(end + 2));
    };
    if kind == Name::Other && (name.is_empty() || matches!(bytes.get(at), Some(b' ' | b'\t'))) {
        return Step::Fault("Header line without a name", Some(end + 2));
    }
    Step::Line(Found { kind, name, colon, end })
}

// The line ends are handed over by value: they shall live in registers.
#[cold]
fn fault(ends: Ends<'_>) -> Step {
    let (reason, next) = ends.fault();
    Step::Fault(reason, next)
}

/// The end of the last of the lines that go on after the one that ends at `end`.
#[cold]
fn folded(mut ends: Ends<'_>, mut end: usize) -> (Ends<'_>, Option<usize>) {
    while matches!(ends.bytes().get(end + 2), Some(b' ' | b'\t')) {
        match ends.line_end() {
            Some(next) => end = next,
            None => return (ends, None),
        }
    }
    (ends, Some(end))
}

/// What is before the colon of the line `at..end`, and where that is. Sixteen bytes are looked at side by side, which is more than
/// most names have.
#[inline]
fn name(bytes: &[u8], at: usize, end: usize) -> Option<(Name, Span, usize)> {
    if let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let found = wide::colons(chunk);
        if found != 0 {
            let length = found.trailing_zeros();
            let colon = at + length as usize;
            if colon >= end {
                return None;
            }
            let kind = Name::of_words(length, words(chunk));
            // Only a name that is not known can have white space before its colon, to be cut off before it is read again.
            if kind != Name::Other
                || !matches!(colon.checked_sub(1).and_then(|last| bytes.get(last)), Some(b' ' | b'\t'))
            {
                return Some((kind, Span::new(at, colon), colon));
            }
        }
    }
    if let Some(chunk) = bytes.get(at + 16..).and_then(|rest| rest.first_chunk::<16>()) {
        let (colon, found) = (at + 16, wide::colons(chunk));
        let colon = colon + found.trailing_zeros() as usize;
        if found != 0 && colon < end && !matches!(bytes.get(colon - 1), Some(b' ' | b'\t')) && is_long(bytes, at) {
            return Some((Name::Other, Span::new(at, colon), colon));
        }
    }
    long_name(bytes, at, end)
}

/// Has the line at `at` no colon in its first sixteen bytes, and no white space before its name?
#[inline]
fn is_long(bytes: &[u8], at: usize) -> bool {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<16>())
        .is_some_and(|chunk| wide::colons(chunk) == 0 && !matches!(chunk, [b' ' | b'\t', ..]))
}

/// The same for a name that is long, or has white space behind it, or stands near the end of the message.
#[inline(never)]
fn long_name(bytes: &[u8], at: usize, end: usize) -> Option<(Name, Span, usize)> {
    let line = bytes.get(at..end).unwrap_or_default();
    let colon = at + line.iter().position(|byte| *byte == b':')?;
    let name = trim(bytes, at, colon);
    Some((Name::read(name.of(bytes)), name, colon))
}

/// The bytes as two little-endian numbers, letters in lower case.
#[inline]
fn words(chunk: &[u8; 16]) -> (u64, u64) {
    let (eights, _) = chunk.as_chunks::<8>();
    match eights {
        [low, high] => (u64::from_le_bytes(*low) | LOWER, u64::from_le_bytes(*high) | LOWER),
        _ => (0, 0),
    }
}

/// Makes letters small.
const LOWER: u64 = 0x2020_2020_2020_2020;

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

/// A name's first bytes, as `words` makes them, which must be this name in small letters.
const fn word(name: &[u8], from: usize) -> u64 {
    let mut word = 0;
    let mut at = if name.len() < from + 8 { name.len() } else { from + 8 };
    while at > from {
        at -= 1;
        word = word << 8 | name[at] as u64;
    }
    word
}

/// Does `words` begin with this name? What is behind its length is not compared.
#[inline]
fn is(words: (u64, u64), name: &'static [u8]) -> bool {
    let kept = |bytes: usize| if bytes >= 8 { u64::MAX } else { !(u64::MAX << (bytes * 8)) };
    words.0 & kept(name.len()) == word(name, 0)
        && (name.len() <= 8 || words.1 & kept(name.len().saturating_sub(8)) == word(name, 8))
}

impl Name {
    /// Reads a name or its compact form (RFC 3261 §7.3.3), in any case of letters.
    #[must_use]
    pub fn read(name: &[u8]) -> Name {
        let mut chunk = [0u8; 16];
        let Some(place) = chunk.get_mut(..name.len()).filter(|place| place.len() < 16) else { return Name::Other };
        place.copy_from_slice(name);
        Name::of_words(u32::try_from(name.len()).unwrap_or(0), words(&chunk))
    }

    /// Reads a name of `length` bytes.
    #[inline]
    fn of_words(length: u32, words: (u64, u64)) -> Name {
        match length {
            1 => match words.0.to_le_bytes()[0] {
                b'v' => Name::Via,
                b'f' => Name::From,
                b't' => Name::To,
                b'i' => Name::CallId,
                b'l' => Name::ContentLength,
                b'm' => Name::Contact,
                _ => Name::Other,
            },
            2 if is(words, b"to") => Name::To,
            3 if is(words, b"via") => Name::Via,
            4 if is(words, b"from") => Name::From,
            4 if is(words, b"cseq") => Name::CSeq,
            5 if is(words, b"route") => Name::Route,
            7 if is(words, b"call-id") => Name::CallId,
            7 if is(words, b"contact") => Name::Contact,
            7 if is(words, b"expires") => Name::Expires,
            7 if is(words, b"require") => Name::Require,
            12 if is(words, b"max-forwards") => Name::MaxForwards,
            12 if is(words, b"record-route") => Name::RecordRoute,
            13 if is(words, b"proxy-require") => Name::ProxyRequire,
            14 if is(words, b"content-length") => Name::ContentLength,
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
                Step::Line(found) => {
                    self.at = found.next();
                    return Some(found.line(self.bytes));
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
