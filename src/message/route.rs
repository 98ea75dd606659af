//! Route: RFC 3261 §20.34.
//!
//! Owns: reading Route values and saying what to cut to take one off.

use super::headers::{Line, Lines, Name};
use super::reader::Reader;
use super::span::Span;
use super::uri::has_parameter;

/// One Route value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub uri: Span,
    /// The value with its parameters.
    pub value: Span,
    /// Removes this value alone: the whole line when it stands alone there, else value and comma.
    pub cut: Span,
    /// Does its URI ask for loose routing (RFC 3261 §19.1.1)?
    pub lr: bool,
    /// The whole line it stands in, CRLF included.
    pub line: Span,
    /// How many values that line has.
    pub in_line: u16,
}

impl Route {
    /// Reads the values of one line into `each`, and says how many there are: `in_line` of each, which is left to the caller. None: a
    /// value that cannot be read.
    pub(super) fn read_line(bytes: &[u8], line: &Line, mut each: impl FnMut(Route)) -> Option<u16> {
        let mut place = Place::new(bytes, line);
        let mut in_line = 0u16;
        loop {
            let (route, more) = place.read(bytes, line)?;
            in_line = in_line.saturating_add(1);
            each(route);
            if !more {
                return Some(in_line);
            }
        }
    }
}

/// Where in a line of Routes the next value begins.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    reader: Reader<'a>,
    /// The comma before it; none before the first.
    comma: Option<usize>,
}

impl<'a> Place<'a> {
    #[inline]
    fn new(bytes: &'a [u8], line: &Line) -> Place<'a> {
        Place { reader: Reader::new(bytes, line.value), comma: None }
    }

    /// The value, and whether another one follows. None: it cannot be read.
    #[inline]
    fn read(&mut self, bytes: &[u8], line: &Line) -> Option<(Route, bool)> {
        let whole = Span { start: line.start, end: line.next };
        self.reader.skip_space();
        let start = self.reader.at();
        let address = self.reader.address(|_, _, _| {})?;
        let value = Span { start: Span::new(start, start).start, end: address.params.end };
        let comma = self.reader.at();
        let more = self.reader.eat(b',');
        let cut = if more {
            self.reader.skip_space();
            Span::new(start, self.reader.at())
        } else {
            self.comma.map_or(whole, |comma| Span { start: Span::new(comma, 0).start, end: line.value.end })
        };
        self.comma = Some(comma);
        let uri = address.uri.of(bytes);
        // As most are written: nothing can follow the `lr` at the end, nothing before it make it a part of something else.
        let plain = uri.ends_with(b";lr") && memchr::memchr2(b'@', b'?', uri).is_none();
        let lr = plain || has_parameter(uri, b"lr");
        Some((Route { uri: address.uri, value, cut, lr, line: whole, in_line: 0 }, more))
    }
}

/// All Route values of a message, topmost first. Each is read once, however many stand in one line.
#[derive(Clone, Debug)]
pub struct Routes<'a> {
    bytes: &'a [u8],
    lines: Lines<'a>,
    /// The line that is being read, how many values it has, and the next of them.
    here: Option<(Line, u16, Place<'a>)>,
}

impl<'a> Routes<'a> {
    #[must_use]
    pub(super) fn new(bytes: &'a [u8], headers_at: u32) -> Routes<'a> {
        Routes { bytes, lines: Lines::new(bytes, headers_at), here: None }
    }
}

impl Iterator for Routes<'_> {
    type Item = Route;

    fn next(&mut self) -> Option<Route> {
        let bytes = self.bytes;
        let (line, in_line, mut place) = match self.here.take() {
            Some(here) => here,
            None => {
                let line = self.lines.find(|line| line.kind == Name::Route)?;
                (line, Reader::new(bytes, line.value).values(), Place::new(bytes, &line))
            }
        };
        let (route, more) = place.read(bytes, &line)?;
        self.here = more.then_some((line, in_line, place));
        Some(Route { in_line, ..route })
    }
}
