//! Route: RFC 3261 §20.34.
//!
//! Owns: reading Route values and saying what to cut to take one off.

use super::headers::{Line, Name, Values};
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
        let whole = Span { start: line.start, end: line.next };
        let mut in_line = 0u16;
        let mut reader = Reader::new(bytes, line.value);
        let mut comma_before = reader.at();
        loop {
            reader.skip_space();
            let start = reader.at();
            let address = reader.address(|_, _, _| {})?;
            let value = Span { start: Span::new(start, start).start, end: address.params.end };
            let comma = reader.at();
            let more = reader.eat(b',');
            in_line = in_line.saturating_add(1);
            let cut = if in_line == 1 && !more {
                whole
            } else if more {
                reader.skip_space();
                Span::new(start, reader.at())
            } else {
                Span { start: Span::new(comma_before, 0).start, end: line.value.end }
            };
            comma_before = comma;
            let uri = address.uri.of(bytes);
            // As most are written: nothing can follow the `lr` at the end, nothing before it make it a part of something else.
            let plain = uri.ends_with(b";lr") && memchr::memchr2(b'@', b'?', uri).is_none();
            let lr = plain || has_parameter(uri, b"lr");
            each(Route { uri: address.uri, value, cut, lr, line: whole, in_line: 0 });
            if !more {
                return Some(in_line);
            }
        }
    }
}

/// All Route values of a message, topmost first.
#[derive(Clone, Debug)]
pub struct Routes<'a> {
    bytes: &'a [u8],
    values: Values<'a>,
    nth: usize,
    line_at: u32,
}

impl<'a> Routes<'a> {
    #[must_use]
    pub(super) fn new(bytes: &'a [u8], headers_at: u32) -> Routes<'a> {
        Routes { bytes, values: Values::new(bytes, headers_at, Name::Route), nth: 0, line_at: u32::MAX }
    }
}

impl Iterator for Routes<'_> {
    type Item = Route;

    fn next(&mut self) -> Option<Route> {
        self.values.next()?;
        let line = self.values.line();
        self.nth = if line.start == self.line_at { self.nth + 1 } else { 0 };
        self.line_at = line.start;
        let (mut seen, mut found) = (0, None::<Route>);
        let wanted = self.nth;
        let in_line = Route::read_line(self.bytes, &line, |route| {
            if seen == wanted {
                found = Some(route);
            }
            seen += 1;
        })?;
        found.map(|route| Route { in_line, ..route })
    }
}
