//! Forwarding by splicing: RFC 3261 §16.6, §16.7 item 9.
//!
//! Owns: the few changes a proxy makes to a head. Every other byte leaves as it came, in the order it came (B26); the body is
//! never copied, the transport sends it from where it lies.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::scan::{Message, Start};
use super::span::Span;
use super::uri::{put_request_uri, write_ip};
use super::via::{Rport, Via};

/// Copies a source with changes, front to back.
#[derive(Debug)]
pub struct Splice<'s, 'o> {
    source: &'s [u8],
    at: usize,
    out: &'o mut Vec<u8>,
}

impl<'s, 'o> Splice<'s, 'o> {
    #[inline]
    pub fn new(source: &'s [u8], out: &'o mut Vec<u8>) -> Splice<'s, 'o> {
        Splice { source, at: 0, out }
    }

    /// Copies the source up to `to`; nothing when it is past that already.
    #[inline]
    pub fn keep(&mut self, to: u32) {
        let to = to as usize;
        if let Some(kept) = self.source.get(self.at..to) {
            self.out.extend_from_slice(kept);
            self.at = to;
        }
    }

    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Leaves the source out up to `to`.
    #[inline]
    pub fn skip(&mut self, to: u32) {
        self.at = self.at.max(to as usize);
    }

    /// Copies the source up to `span`, which is left out.
    #[inline]
    fn leave(&mut self, span: Span) {
        self.keep(span.start);
        self.skip(span.end);
    }

    /// Copies what is left of the head.
    #[inline]
    pub fn finish_head(mut self, body_at: u32) {
        self.keep(body_at);
    }

    #[inline]
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }
}

/// What the receiving side adds to the top Via (RFC 3261 §18.2.1, RFC 3581 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViaFix {
    pub received: IpAddr,
    /// The value for an rport that came without one.
    pub rport: Option<u16>,
}

impl ViaFix {
    /// What the Via of a request from `source` needs: `received` when the host is a name or another address (E04) or when the sender
    /// wrote a wrong one himself, both when rport is asked for (E05).
    #[must_use]
    pub fn needed(via: &Via, bytes: &[u8], source: SocketAddr) -> Option<ViaFix> {
        let source_ip = source.ip().to_canonical();
        let fix = ViaFix { received: source_ip, rport: (via.rport == Rport::Asked).then(|| source.port()) };
        let same_host = || via.ip(bytes).is_some_and(|ip| ip.to_canonical() == source_ip);
        (fix.rport.is_some() || !via.received.is_empty() || !same_host()).then_some(fix)
    }
}

/// The strict routers beside us (RFC 2543).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrictRoute {
    /// B18: the previous hop put our Record-Route into the Request-URI. The last Route value is the real one: it is removed, and is
    /// the Request-URI when `uri` gives none.
    Previous,
    /// B31: the first Route left after the cuts has no `lr`: it becomes the Request-URI, and the URI that would have been is
    /// appended as the last Route.
    Next,
    /// Both.
    Both,
}

impl StrictRoute {
    fn takes_last(self) -> bool {
        matches!(self, StrictRoute::Previous | StrictRoute::Both)
    }

    fn takes_first(self) -> bool {
        matches!(self, StrictRoute::Next | StrictRoute::Both)
    }
}

/// What happens to the Route values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteEdit {
    /// So many values are ours and come off the top (B20).
    pub cut: u16,
    pub strict: Option<StrictRoute>,
}

impl From<u16> for RouteEdit {
    fn from(cut: u16) -> RouteEdit {
        RouteEdit { cut, strict: None }
    }
}

/// How a request changes on its way.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdit<'e> {
    /// None: it stays.
    pub uri: Option<&'e [u8]>,
    /// Our Via: a complete line with CRLF.
    pub via: &'e [u8],
    pub fix_via: Option<ViaFix>,
    /// Complete lines with CRLF, or empty.
    pub record_route: &'e [u8],
    /// Written in place of the value there is, or added.
    pub max_forwards: u32,
    /// So many values come off the top (B20).
    pub cut_routes: u16,
    pub strict_route: Option<StrictRoute>,
}

/// What goes into a gap.
#[derive(Clone, Copy, Debug)]
enum Put<'p> {
    Bytes(&'p [u8]),
    /// With B27 applied.
    RequestUri(&'p [u8]),
    Number(u32),
    Header(&'static [u8], u32),
    Received(IpAddr, bool),
    Port(u16),
    RouteLine(&'p [u8]),
    RouteValue(&'p [u8]),
}

/// One change: `from..to` of the source is replaced.
#[derive(Clone, Copy, Debug)]
struct Change<'p> {
    from: u32,
    to: u32,
    put: Put<'p>,
}

/// The changes of one message, by position.
struct Changes<'p> {
    list: ArrayVec<Change<'p>, 16>,
}

impl<'p> Changes<'p> {
    fn new() -> Changes<'p> {
        Changes { list: ArrayVec::new() }
    }

    /// Keeps the order by position; of two at one place the one added first comes first.
    #[inline]
    fn add(&mut self, from: u32, to: u32, put: Put<'p>) {
        let place = self.list.iter().rposition(|before| before.from <= from).map_or(0, |nth| nth + 1);
        // There is room for every change that `forward_request` can make.
        let _ = self.list.try_insert(place, Change { from, to, put });
    }

    /// Copies `from..to` of the source with the changes, and without `gone`, which come front to back: there may be more of them
    /// than a short list holds.
    fn apply(&self, source: &[u8], from: u32, to: u32, gone: impl Iterator<Item = Span>, out: &mut Vec<u8>) {
        let mut splice = Splice::new(source, out);
        splice.skip(from);
        let mut gone = gone.peekable();
        for change in &self.list {
            while let Some(span) = gone.next_if(|span| span.start < change.from) {
                splice.leave(span);
            }
            splice.keep(change.from);
            splice.skip(change.to);
            match change.put {
                Put::Bytes(bytes) => splice.put(bytes),
                Put::RequestUri(uri) => put_request_uri(uri, splice.out()),
                Put::Number(number) => put_number(number, splice.out()),
                Put::Header(name, number) => {
                    splice.put(name);
                    put_number(number, splice.out());
                    splice.put(b"\r\n");
                }
                Put::Received(ip, whole) => {
                    if whole {
                        splice.put(b";received=");
                    }
                    write_ip(ip, splice.out());
                }
                Put::Port(port) => {
                    splice.put(b"=");
                    put_number(u32::from(port), splice.out());
                }
                Put::RouteLine(uri) => {
                    splice.put(b"Route: <");
                    splice.put(uri);
                    splice.put(b">\r\n");
                }
                Put::RouteValue(uri) => {
                    splice.put(b", <");
                    splice.put(uri);
                    splice.put(b">");
                }
            }
        }
        gone.for_each(|span| splice.leave(span));
        splice.finish_head(to);
    }

    /// `received` and `rport` in the top Via.
    fn fix_via(&mut self, via: &Via, fix: Option<ViaFix>) {
        let Some(fix) = fix else { return };
        if let Some(port) = fix.rport.filter(|_| via.rport == Rport::Asked) {
            self.add(via.rport_at, via.rport_at, Put::Port(port));
        }
        if via.received.is_empty() {
            self.add(via.params_end, via.params_end, Put::Received(fix.received, true));
        } else {
            self.add(via.received.start, via.received.end, Put::Received(fix.received, false));
        }
    }

    /// A Content-Length where there is none (A14, B35).
    fn content_length(&mut self, m: &Message<'_>) {
        if m.content_length.is_none() {
            let length = u32::try_from(m.body().len()).unwrap_or(u32::MAX);
            let at = m.body_at.saturating_sub(2);
            self.add(at, at, Put::Header(b"Content-Length: ", length));
        }
    }
}

/// The Route values that leave, and the Request-URI that results.
pub(super) struct Routing<'m> {
    /// So many from the top.
    top: usize,
    /// And the last one (B18).
    last: bool,
    count: usize,
    pub(super) uri: &'m [u8],
    /// B31: to be appended as the last Route.
    pub(super) append: Option<&'m [u8]>,
}

/// Works out what `routes` means for this request.
pub(super) fn routing<'m>(m: &Message<'m>, uri: Option<&'m [u8]>, routes: RouteEdit) -> Routing<'m> {
    let count = usize::from(m.route_count);
    let top = usize::from(routes.cut).min(count);
    let mut routing = Routing { top, last: false, count, uri: uri.unwrap_or(m.uri()), append: None };
    let Some(strict) = routes.strict else { return routing };
    if let Some(last) = m.last_route.filter(|_| strict.takes_last()) {
        if uri.is_none() {
            routing.uri = m.of(last.uri);
        }
        routing.last = true;
    }
    if strict.takes_first()
        && routing.stays(top)
        && let Some(first) = m.routes_all().nth(top)
    {
        routing.append = Some(routing.uri);
        routing.uri = m.of(first.uri);
        routing.top += 1;
    }
    routing
}

impl Routing<'_> {
    /// Does the value with this number stay?
    pub(super) fn stays(&self, number: usize) -> bool {
        (self.top..self.count.saturating_sub(usize::from(self.last))).contains(&number)
    }

    /// What to leave out of the message, front to back. Lines whose values all go, go as a whole.
    fn gone(&self, m: &Message<'_>) -> impl Iterator<Item = Span> {
        let (top, count, last) = (self.top, self.count, self.last);
        let all = last && count <= top + 1;
        // Of the line that is being read: itself, and the number of the value behind it.
        let (mut line, mut behind) = (Span::EMPTY, 0);
        let upper = m.routes_at_hand().take(top).enumerate().map(move |(number, route)| {
            if line != route.line {
                (line, behind) = (route.line, number + usize::from(route.in_line));
            }
            if all || behind <= top { route.line } else { route.cut }
        });
        // One that stands alone in its line is cut with it.
        let lowest = m.last_route.filter(|_| last && top < count);
        upper.chain(lowest.map(move |route| if all { route.line } else { route.cut }))
    }
}

/// Appends the head of the request as it is forwarded, the empty line included. The body is `m.body()` and is not copied.
/// A Content-Length is added where there is none.
pub fn forward_request(m: &Message<'_>, e: &RequestEdit<'_>, out: &mut Vec<u8>) {
    let Start::Request { uri, .. } = m.start else { return };
    let routing = routing(m, e.uri, RouteEdit { cut: e.cut_routes, strict: e.strict_route });
    let mut changes = Changes::new();
    if e.uri.is_some() || e.strict_route.is_some() {
        changes.add(uri.start, uri.end, Put::RequestUri(routing.uri));
    }
    changes.add(m.via_at, m.via_at, Put::Bytes(e.via));
    changes.fix_via(&m.via, e.fix_via);
    match m.max_forwards {
        Some((_, value)) => changes.add(value.start, value.end, Put::Number(e.max_forwards)),
        None => changes.add(m.via_at, m.via_at, Put::Header(b"Max-Forwards: ", e.max_forwards)),
    }
    if !e.record_route.is_empty() {
        changes.add(m.record_route_at, m.record_route_at, Put::Bytes(e.record_route));
    }
    if let Some(append) = routing.append {
        append_route(m, &routing, append, &mut changes);
    }
    changes.content_length(m);
    changes.apply(m.bytes, m.start_at, m.body_at, routing.gone(m), out);
}

/// Puts the last Route behind the last value that stays, or on a line of its own.
fn append_route<'p>(m: &Message<'_>, routing: &Routing<'_>, uri: &'p [u8], changes: &mut Changes<'p>) {
    let last_stays = routing.count.checked_sub(1).is_some_and(|last| routing.stays(last));
    match m.last_route.filter(|_| last_stays) {
        Some(last) => changes.add(last.value.end, last.value.end, Put::RouteValue(uri)),
        None => {
            let lowest = m.routes_all().enumerate().filter(|(number, _)| routing.stays(*number)).last();
            let at = lowest.map_or(m.via_at, |(_, route)| route.line.end);
            changes.add(at, at, Put::RouteLine(uri));
        }
    }
}

/// A response as it is forwarded, in pieces: without the top Via value, with a Content-Length. The last piece is the body.
#[derive(Clone, Debug)]
pub struct Upstream<'m> {
    before: &'m [u8],
    after: &'m [u8],
    length: ArrayVec<u8, 32>,
    end: &'m [u8],
    body: &'m [u8],
}

impl<'m> Upstream<'m> {
    #[must_use]
    pub fn new(m: &Message<'m>) -> Upstream<'m> {
        let part = |from: u32, to: u32| m.of(Span { start: from, end: to });
        let mut length = ArrayVec::new();
        if m.content_length.is_none() {
            // A14, B35. There is room for the largest number.
            let _ = write!(length, "Content-Length: {}\r\n", m.body().len());
        }
        let end = m.body_at.saturating_sub(2).max(m.via_cut.end);
        Upstream {
            before: part(m.start_at, m.via_cut.start),
            after: part(m.via_cut.end, end),
            length,
            end: part(end, m.body_at),
            body: m.body(),
        }
    }

    #[must_use]
    pub fn pieces(&self) -> [&[u8]; 5] {
        [self.before, self.after, &self.length, self.end, self.body]
    }
}

/// Appends the head of the response as it is forwarded; the body is `m.body()`.
pub fn forward_response(m: &Message<'_>, out: &mut Vec<u8>) {
    let upstream = Upstream::new(m);
    let [before, after, length, end, _] = upstream.pieces();
    [before, after, length, end].into_iter().for_each(|piece| out.extend_from_slice(piece));
}

/// Appends the value of the top Via's line with what the receiving side adds.
pub(super) fn put_top_via(m: &Message<'_>, value: Span, fix: Option<ViaFix>, out: &mut Vec<u8>) {
    let mut changes = Changes::new();
    changes.fix_via(&m.via, fix);
    changes.apply(m.bytes, value.start, value.end, std::iter::empty(), out);
}

/// Appends a number in decimal.
pub fn put_number(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [0u8; 10];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(10 - used..).unwrap_or_default());
}
