//! Header lines: RFC 3261 §7.3.
//!
//! Owns: where a line starts and ends (folds included), what its name is (also compact), the values of lists that are spread over
//! lines and commas. Never looks into a value.

use memchr::memchr3;

use super::reader::{Reader, trim};
use super::span::Span;

/// One header line, folds included; positions in the message's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub start: u32,
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

/// Finds the end of the line that begins at or goes through `at`. `Ok`: position of its CRLF.
#[inline]
pub fn line_end(bytes: &[u8], at: usize) -> Result<usize, (&'static str, Option<usize>)> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(length) = memchr3(b'\r', b'\n', 0, rest) else { return Err(("No end of headers", None)) };
    let end = at + length;
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Ok(end),
        _ => Err(bare(bytes, end)),
    }
}

/// Names the fault of a line with a CR, LF or NUL of its own at `at`, and finds the line after it.
#[cold]
fn bare(bytes: &[u8], at: usize) -> (&'static str, Option<usize>) {
    let reason = match bytes.get(at) {
        Some(b'\r') => "Bare CR",
        Some(b'\n') => "Bare LF",
        _ => "NUL in the head",
    };
    let next = bytes.get(at..).and_then(|rest| memchr::memmem::find(rest, b"\r\n")).map(|length| at + length + 2);
    (reason, next)
}

/// Reads the header line at `at`.
#[inline]
#[must_use]
pub fn step(bytes: &[u8], at: usize) -> Step {
    let mut end = match line_end(bytes, at) {
        Ok(end) if end == at => return Step::Body(at + 2),
        Ok(end) => end,
        Err((reason, next)) => return Step::Fault(reason, next),
    };
    while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
        end = match line_end(bytes, end + 2) {
            Ok(end) => end,
            Err((reason, next)) => return Step::Fault(reason, next),
        };
    }
    let line = bytes.get(at..end).unwrap_or_default();
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Step::Fault("Header line without a colon", Some(end + 2));
    };
    let colon = at + colon;
    let name = match bytes.get(colon.wrapping_sub(1)) {
        Some(b' ' | b'\t') => trim(bytes, at, colon),
        _ => Span::new(at, colon),
    };
    if name.is_empty() || name.start as usize != at {
        return Step::Fault("Header line without a name", Some(end + 2));
    }
    let value = trim(bytes, colon + 1, end);
    Step::Line(Line { start: name.start, name, value, next: Span::new(0, end + 2).end })
}

/// The headers that the proxy reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Other,
}

impl Name {
    /// Reads a name or its compact form (RFC 3261 §7.3.3), in any case of letters.
    #[inline]
    #[must_use]
    pub fn read(name: &[u8]) -> Name {
        let is = |text: &[u8]| name.eq_ignore_ascii_case(text);
        let first = name.first().copied().unwrap_or(0) | 0x20;
        match (name.len(), first) {
            (1, b'v') => Name::Via,
            (1, b'f') => Name::From,
            (1, b't') => Name::To,
            (1, b'i') => Name::CallId,
            (1, b'l') => Name::ContentLength,
            (1, b'm') => Name::Contact,
            (2, b't') if is(b"to") => Name::To,
            (3, b'v') if is(b"via") => Name::Via,
            (4, b'f') if is(b"from") => Name::From,
            (4, b'c') if is(b"cseq") => Name::CSeq,
            (5, b'r') if is(b"route") => Name::Route,
            (7, b'c') if is(b"call-id") => Name::CallId,
            (7, b'c') if is(b"contact") => Name::Contact,
            (7, b'e') if is(b"expires") => Name::Expires,
            (7, b'r') if is(b"require") => Name::Require,
            (12, b'm') if is(b"max-forwards") => Name::MaxForwards,
            (12, b'r') if is(b"record-route") => Name::RecordRoute,
            (13, b'p') if is(b"proxy-require") => Name::ProxyRequire,
            (14, b'c') if is(b"content-length") => Name::ContentLength,
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
    at: usize,
}

impl<'a> Lines<'a> {
    /// Lines of `bytes` from `at`, the start of a header line.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: u32) -> Lines<'a> {
        Lines { bytes, at: at as usize }
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    #[inline]
    fn next(&mut self) -> Option<Line> {
        loop {
            match step(self.bytes, self.at) {
                Step::Line(line) => {
                    self.at = line.next as usize;
                    return Some(line);
                }
                Step::Fault(_, Some(next)) => self.at = next,
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
                let (bytes, name) = (self.bytes, self.name);
                self.line = self.lines.find(|line| Name::read(line.name.of(bytes)) == name)?;
                self.line.value.start as usize
            }
        };
        let reader = Reader::new(self.bytes, Span::new(start, self.line.value.end as usize));
        let mut ahead = reader;
        self.at = ahead.skip_value().then(|| ahead.at() + 1);
        Some(reader)
    }
}
