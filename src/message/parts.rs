//! `Message`: what `scan` found, by place.
//!
//! Owns: the names of a message's parts and the walks over its lists. Never changes a byte.

use super::contact::Contacts;
use super::headers::{Lines, Name, Named, Values, compact};
use super::method::Method;
use super::route::{Route, Routes};
use super::span::Span;
use super::via::{Via, Vias};

/// The start line (RFC 3261 §7.1, §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Request {
        method: Method,
        method_text: Span,
        uri: Span,
    },
    Response {
        /// 100..=699.
        code: u16,
        reason: Span,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CSeq {
    pub number: u32,
    pub method: Method,
    pub method_text: Span,
}

/// A message where it lies. Spans are positions in `bytes`, which begin where the frame began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message; what followed its Content-Length is cut off (A13).
    pub bytes: &'a [u8],
    pub start: Start,
    /// Of the start line: behind the empty lines that came before (RFC 3261 §7.5).
    pub start_at: u32,
    /// Just behind the start line.
    pub headers_at: u32,
    pub body_at: u32,
    /// The top value.
    pub via: Via,
    /// The one below, when there is one that can be read (in responses it always can).
    pub next_via: Option<Via>,
    pub via_count: u16,
    /// Start of the first Via line: where ours goes.
    pub via_at: u32,
    /// What to remove to take the top value off: its whole line, or value and comma.
    pub via_cut: Span,
    /// The values, with their parameters.
    pub from: Span,
    pub from_tag: Span,
    pub to: Span,
    pub to_tag: Span,
    pub call_id: Span,
    pub cseq: CSeq,
    /// At most 255, and the value's place.
    pub max_forwards: Option<(u32, Span)>,
    /// The first two Route values of a request; `routes_all` and `routes_at_hand` for more.
    pub routes: [Option<Route>; 2],
    pub route_count: u16,
    pub last_route: Option<Route>,
    /// Where a Record-Route goes: before the first one there is, else behind the first lines of Via.
    pub record_route_at: u32,
    pub content_length: Option<(u32, Span)>,
    pub expires: Option<Span>,
    /// Values of all Contact lines, `*` included.
    pub contact_count: u16,
    /// The values of the first Require and Proxy-Require line; `header` for more.
    pub require: Option<Span>,
    pub proxy_require: Option<Span>,
}

impl<'a> Message<'a> {
    /// `bytes` before anything was found in them.
    #[inline]
    pub(super) fn empty(bytes: &'a [u8]) -> Message<'a> {
        Message {
            bytes,
            start: Start::Response { code: 0, reason: Span::EMPTY },
            start_at: 0,
            headers_at: 0,
            body_at: 0,
            via: Via::default(),
            next_via: None,
            via_count: 0,
            via_at: 0,
            via_cut: Span::EMPTY,
            from: Span::EMPTY,
            from_tag: Span::EMPTY,
            to: Span::EMPTY,
            to_tag: Span::EMPTY,
            call_id: Span::EMPTY,
            cseq: CSeq::default(),
            max_forwards: None,
            routes: [None; 2],
            route_count: 0,
            last_route: None,
            record_route_at: 0,
            content_length: None,
            expires: None,
            contact_count: 0,
            require: None,
            proxy_require: None,
        }
    }

    /// The bytes of one part.
    #[inline]
    #[must_use]
    pub fn of(&self, span: Span) -> &'a [u8] {
        span.of(self.bytes)
    }

    #[inline]
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// A request's method, a response's CSeq method.
    #[inline]
    #[must_use]
    pub fn method(&self) -> Method {
        match self.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => self.cseq.method,
        }
    }

    /// A response's status code, 0 for a request.
    #[inline]
    #[must_use]
    pub fn code(&self) -> u16 {
        match self.start {
            Start::Request { .. } => 0,
            Start::Response { code, .. } => code,
        }
    }

    /// The Request-URI, empty for a response.
    #[inline]
    #[must_use]
    pub fn uri(&self) -> &'a [u8] {
        match self.start {
            Start::Request { uri, .. } => self.of(uri),
            Start::Response { .. } => &[],
        }
    }

    #[inline]
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(self.body_at as usize..).unwrap_or_default()
    }

    /// Start line and headers, the empty line included.
    #[inline]
    #[must_use]
    pub fn head(&self) -> &'a [u8] {
        self.bytes.get(self.start_at as usize..self.body_at as usize).unwrap_or_default()
    }

    #[must_use]
    pub fn lines(&self) -> Lines<'a> {
        Lines::new(self.bytes, self.headers_at)
    }

    /// All Via values that can be read, topmost first.
    #[must_use]
    pub fn vias(&self) -> Vias<'a> {
        Vias::new(Values::new(self.bytes, self.headers_at, Name::Via))
    }

    /// All Route values, topmost first.
    #[must_use]
    pub fn routes_all(&self) -> Routes<'a> {
        Routes::new(self.bytes, self.headers_at)
    }

    /// The same of a request: the first two, which most have no more of, are not looked for again.
    pub fn routes_at_hand(&self) -> impl Iterator<Item = Route> {
        self.routes.into_iter().flatten().chain(self.routes_all().skip(self.routes.len()))
    }

    /// All Contact values that can be read; fewer than `contact_count` when some cannot.
    #[must_use]
    pub fn contacts(&self) -> Contacts<'a> {
        Contacts::new(self.bytes, Values::new(self.bytes, self.headers_at, Name::Contact))
    }

    /// The values of all headers of this name (in full; in any case), also where they are written in compact form. Folds stay.
    #[must_use]
    pub fn header<'n>(&self, name: &'n str) -> Named<'a, 'n> {
        Named { lines: self.lines(), name: name.as_bytes(), compact: compact(name.as_bytes()) }
    }
}
