//! The one pass over a message: RFC 3261 §7, §18.3, §20.
//!
//! Owns: finding the lines and the values the proxy needs, and refusing at the door what nobody must forward: a bare CR, LF or NUL
//! in the head, a Content-Length that lies, a mandatory header that is missing, doubled or unreadable. Never copies, never
//! allocates; everything else in the message is none of its business (B01, B02).

use super::ends::Ends;
use super::headers::{Line, Name, Step, step};
use super::method::Method;
pub use super::parts::{CSeq, Message, Start};
use super::reader::{Reader, is_token};
use super::route::Route;
use super::span::Span;
use super::via::Via;
use super::wide;

/// More Via values than this are refused (Max-Forwards starts at 70; a sane path is far shorter).
pub const MAX_VIAS: u16 = 64;
/// More header lines than this are refused.
pub const MAX_LINES: u16 = 256;
/// Longer messages are refused, so that a `Span` names every byte.
const MAX_BYTES: usize = 1 << 31;

/// Why a message is refused. `reason` can be the reason phrase of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub reason: &'static str,
    /// 400, or 505 for another SIP version.
    pub code: u16,
    /// Can the sender be told? True for a request other than ACK of which `salvage` gets enough for a `reply`.
    pub answerable: bool,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Invalid {}

/// Reads one message: a datagram, an SCTP message, or what `framing` cut. Bytes behind its Content-Length are cut off (A13); without
/// a Content-Length the body runs to the end (A14).
///
/// # Errors
/// `Invalid`: the message must not be forwarded. A response is then dropped, a request answered when that is possible (E11, E14).
#[inline]
pub fn scan(bytes: &[u8]) -> Result<Message<'_>, Invalid> {
    // Made here, so that it is copied once and not twice: a message is large.
    let mut scanned = Ok(Message::empty(bytes));
    if let Ok(m) = &mut scanned
        && let Err(invalid) = walk(m, bytes, false)
    {
        scanned = Err(refused(bytes, invalid));
    }
    scanned
}

/// What can be read of a refused request, for the answer: faults in single lines are passed over. None when it is not a request,
/// or an ACK, or when Via, From, To, Call-ID or CSeq cannot be read.
#[must_use]
pub fn salvage(bytes: &[u8]) -> Option<Message<'_>> {
    let mut m = Message::empty(bytes);
    walk(&mut m, bytes, true).ok()?;
    match m.start {
        Start::Request { method, .. } if method != Method::Ack => Some(m),
        _ => None,
    }
}

#[cold]
fn refused(bytes: &[u8], invalid: Invalid) -> Invalid {
    Invalid { answerable: salvage(bytes).is_some(), ..invalid }
}

/// `answerable` is found out when all else failed.
#[cold]
fn fault(reason: &'static str) -> Invalid {
    Invalid { reason, code: if reason == VERSION { 505 } else { 400 }, answerable: false }
}

const VERSION: &str = "Version Not Supported";

/// A fault that leaves enough for an answer is passed over where one is `lenient`.
fn tolerate(reason: &'static str, lenient: bool) -> Result<(), Invalid> {
    if lenient { Ok(()) } else { Err(fault(reason)) }
}

/// Goes through the message `bytes` and puts into `m`, which is empty, what it finds.
#[inline]
fn walk<'a>(m: &mut Message<'a>, bytes: &'a [u8], lenient: bool) -> Result<(), Invalid> {
    if bytes.len() >= MAX_BYTES {
        return Err(fault("Message too long"));
    }
    let start_at =
        bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).ok_or_else(|| fault("Empty message"))?;
    let mut ends = Ends::new(bytes, start_at);
    let end = ends.line_end().ok_or_else(|| fault(ends.fault().0))?;
    let headers_at = end + 2;
    m.start = start_line(bytes, start_at, end, lenient)?;
    m.start_at = Span::new(start_at, 0).start;
    m.headers_at = Span::new(headers_at, 0).start;
    let mut at = headers_at;
    let mut lines = 0u16;
    let mut record_route_seen = false;
    let body_at = loop {
        let found = match step(&mut ends, at) {
            Step::Line(found) => found,
            Step::Body(body_at) => break body_at,
            Step::Fault(reason, next) => {
                tolerate(reason, lenient)?;
                match next {
                    Some(next) => (ends, at) = (Ends::new(bytes, next), next),
                    None => break bytes.len(),
                }
                continue;
            }
        };
        at = found.next();
        lines += 1;
        if lines > MAX_LINES {
            return Err(fault("Too many header lines"));
        }
        if found.kind != Name::Other {
            header(m, &found.line(bytes), &mut record_route_seen, lenient)?;
        }
    };
    m.body_at = Span::new(body_at, 0).start;
    whole(m, lenient)
}

/// Takes in a header field that the proxy looks at.
#[inline]
fn header(m: &mut Message<'_>, line: &Line, record_route_seen: &mut bool, lenient: bool) -> Result<(), Invalid> {
    let (bytes, is_request) = (m.bytes, m.is_request());
    let tolerate = |reason| tolerate(reason, lenient);
    match line.kind {
        Name::Other => {}
        Name::Via => {
            if let Err(invalid) = m.take_vias(line, is_request) {
                if m.via_count == 0 {
                    return Err(invalid);
                }
                tolerate(invalid.reason)?;
            }
            if !*record_route_seen && (m.record_route_at == 0 || m.record_route_at == line.start) {
                m.record_route_at = line.next;
            }
        }
        Name::From => match party(bytes, line.value) {
            Some(tag) if m.from.is_empty() => (m.from, m.from_tag) = (line.value, tag),
            Some(_) => tolerate("Several From")?,
            None => tolerate("Bad From")?,
        },
        Name::To => match party(bytes, line.value) {
            Some(tag) if m.to.is_empty() => (m.to, m.to_tag) = (line.value, tag),
            Some(_) => tolerate("Several To")?,
            None => tolerate("Bad To")?,
        },
        Name::CallId => {
            if !m.call_id.is_empty() {
                tolerate("Several Call-ID")?;
            } else if !Reader::new(bytes, line.value).is_plain()
                && memchr::memchr2(b' ', b'\t', line.value.of(bytes)).is_some()
            {
                tolerate("Bad Call-ID")?;
            } else {
                m.call_id = line.value;
            }
        }
        Name::CSeq => match cseq(bytes, line.value) {
            Some(cseq) if m.cseq.method_text.is_empty() => m.cseq = cseq,
            Some(_) => tolerate("Several CSeq")?,
            None => tolerate("Bad CSeq")?,
        },
        Name::MaxForwards => match Reader::new(bytes, line.value).number_in(line.value) {
            Some(hops) if m.max_forwards.is_none() => m.max_forwards = Some((hops.min(255), line.value)),
            Some(_) if is_request => tolerate("Several Max-Forwards")?,
            None if is_request => tolerate("Bad Max-Forwards")?,
            _ => {}
        },
        Name::Route if is_request => {
            if m.take_routes(line).is_none() {
                tolerate("Bad Route")?;
            }
        }
        Name::RecordRoute => {
            if !*record_route_seen {
                (*record_route_seen, m.record_route_at) = (true, line.start);
            }
        }
        Name::ContentLength => {
            // Digits only; a number that does not fit is no length (E14).
            let length = Reader::new(bytes, line.value).number_in(line.value).filter(|n| *n < u32::MAX);
            match (length, m.content_length) {
                (Some(length), None) => m.content_length = Some((length, line.value)),
                (Some(length), Some((before, _))) if length == before => {}
                (Some(_), Some(_)) => tolerate("Several Content-Length")?,
                (None, _) => tolerate("Bad Content-Length")?,
            }
        }
        Name::Contact => {
            m.contact_count = m.contact_count.saturating_add(Reader::new(bytes, line.value).values());
        }
        Name::Expires => m.expires = m.expires.or(Some(line.value)),
        Name::Require => m.require = m.require.or(Some(line.value)),
        Name::ProxyRequire => m.proxy_require = m.proxy_require.or(Some(line.value)),
        Name::Route => {}
    }
    Ok(())
}

/// Is all there that a message must have (RFC 3261 §8.1.1, §20), and do its parts agree? What a datagram has behind its body is cut off (§18.3).
#[inline]
fn whole(m: &mut Message<'_>, lenient: bool) -> Result<(), Invalid> {
    let missing = if m.via_count == 0 {
        "No Via"
    } else if m.from.is_empty() {
        "No From"
    } else if m.to.is_empty() {
        "No To"
    } else if m.call_id.is_empty() {
        "No Call-ID"
    } else if m.cseq.method_text.is_empty() {
        "No CSeq"
    } else {
        ""
    };
    if !missing.is_empty() {
        return Err(fault(missing));
    }
    if let Start::Request { method_text, .. } = m.start
        && m.of(method_text) != m.of(m.cseq.method_text)
    {
        tolerate("CSeq of another method", lenient)?;
    }
    if let Some((length, _)) = m.content_length {
        match m.bytes.get(..m.body_at as usize + length as usize) {
            Some(whole) => m.bytes = whole,
            None => tolerate("Shorter than its Content-Length", lenient)?,
        }
    }
    Ok(())
}

/// Reads `start..end`. RFC 3261 §7.1 allows single spaces only.
#[inline]
fn start_line(bytes: &[u8], start: usize, end: usize, lenient: bool) -> Result<Start, Invalid> {
    let line = bytes.get(start..end).unwrap_or_default();
    if let Some(rest) = line.get(8..).filter(|_| line.get(..8).is_some_and(|l| l.eq_ignore_ascii_case(b"SIP/2.0 "))) {
        let code = match rest {
            [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', tail @ ..]
                if matches!(tail.first(), None | Some(b' ')) =>
            {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(fault("Bad status code")),
        };
        return Ok(Start::Response { code, reason: Span::new((start + 12).min(end), end) });
    }
    if let Some(request) = plain_request(bytes, start, line) {
        return Ok(request);
    }
    odd_request(start, line, lenient)
}

/// A start line as almost all are: a method that we know, a URI with `sip:` or a scheme of its length, SIP/2.0.
#[inline]
fn plain_request(bytes: &[u8], start: usize, line: &[u8]) -> Option<Start> {
    let (rest, version) = line.split_last_chunk::<8>()?;
    if version != b" SIP/2.0" {
        return None;
    }
    let method_end = wide::uri_stops(rest.first_chunk()?).trailing_zeros() as usize;
    let method = Method::from_token(rest.get(..method_end)?);
    let Some([b' ', _, _, _, b':', ..]) = rest.get(method_end..) else { return None };
    let uri = Span::new(start + method_end + 1, start + rest.len());
    let plain = method != Method::Other && Reader::new(bytes, uri).is_plain();
    plain.then_some(Start::Request { method, method_text: Span::new(start, start + method_end), uri })
}

/// Any other.
#[inline(never)]
fn odd_request(start: usize, line: &[u8], lenient: bool) -> Result<Start, Invalid> {
    let bad = || fault("Bad start line");
    let method_end = line.iter().position(|byte| !is_token(*byte)).unwrap_or(line.len());
    let uri_end = memchr::memrchr(b' ', line).unwrap_or(0);
    if method_end == 0 || line.get(method_end) != Some(&b' ') {
        return Err(bad());
    }
    let method_text = Span::new(start, start + method_end);
    let method = Method::from_token(line.get(..method_end).unwrap_or_default());
    let request = Start::Request { method, method_text, uri: Span::new(start + method_end + 1, start + uri_end) };
    if lenient {
        return Ok(request);
    }
    let version = line.get(uri_end + 1..).unwrap_or_default();
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        let other = version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/"));
        return Err(if other { fault(VERSION) } else { bad() });
    }
    let uri = line.get(method_end + 1..uri_end).unwrap_or_default();
    // No white space, nothing in angle brackets, and something with a colon.
    let good = memchr::memchr(b':', uri).is_some()
        && memchr::memchr3(b' ', b'<', b'>', uri).is_none()
        && memchr::memchr(b'\t', uri).is_none();
    if good { Ok(request) } else { Err(bad()) }
}

/// The tag of From or To; none when the value is not one address.
#[inline]
fn party(bytes: &[u8], value: Span) -> Option<Span> {
    let mut tag = Span::EMPTY;
    let mut reader = Reader::new(bytes, value);
    reader.address(|name, _, value| {
        if matches!(name, [b't' | b'T', b'a' | b'A', b'g' | b'G']) {
            tag = value;
        }
    })?;
    reader.is_at_end().then_some(tag)
}

#[inline]
fn cseq(bytes: &[u8], value: Span) -> Option<CSeq> {
    let mut reader = Reader::new(bytes, value);
    let number = reader.number().filter(|n| *n < 1 << 31)?;
    let before = reader.at();
    reader.skip_space();
    if reader.at() == before {
        return None;
    }
    let method_text = reader.token();
    let good = reader.is_at_end() && !method_text.is_empty();
    good.then(|| CSeq { number, method: Method::from_token(method_text.of(bytes)), method_text })
}

impl Message<'_> {
    /// Takes the values of one Via line.
    #[inline]
    fn take_vias(&mut self, line: &Line, is_request: bool) -> Result<(), Invalid> {
        let bytes = self.bytes;
        let mut reader = Reader::new(bytes, line.value);
        loop {
            if self.via_count >= MAX_VIAS {
                return Err(fault("Too many Vias"));
            }
            match self.via_count {
                0 => {
                    self.via = Via::read(&mut reader).ok_or_else(|| fault("Bad Via"))?;
                    self.via_at = line.start;
                    self.via_cut = Span { start: line.start, end: line.next };
                    if reader.peek() == b',' {
                        let mut next = reader;
                        next.eat(b',');
                        next.skip_space();
                        self.via_cut = Span { start: self.via.value.start, end: Span::new(0, next.at()).end };
                    }
                }
                1 => {
                    let mut at = reader;
                    self.next_via = Via::read(&mut at);
                    // B10: what stands in somebody else's Via does not stop a request; a response must go there.
                    if self.next_via.is_none() && !is_request {
                        return Err(fault("Bad Via"));
                    }
                    // What could be read ends where the value does.
                    match self.next_via {
                        Some(_) => reader = at,
                        None => drop(reader.skip_value()),
                    }
                }
                _ => {
                    reader.skip_value();
                }
            }
            self.via_count += 1;
            if !reader.eat(b',') {
                return Ok(());
            }
        }
    }

    /// Takes the values of one Route line.
    fn take_routes(&mut self, line: &Line) -> Option<()> {
        let bytes = self.bytes;
        let whole = Route::read_line(bytes, line, |route| {
            if let Some(place) = self.routes.get_mut(self.route_count as usize) {
                *place = Some(route);
            }
            self.route_count = self.route_count.saturating_add(1);
            self.last_route = Some(route);
        });
        let in_line = whole.unwrap_or_else(|| Reader::new(bytes, line.value).values());
        for route in
            self.routes.iter_mut().chain([&mut self.last_route]).flatten().filter(|r| r.line.start == line.start)
        {
            route.in_line = in_line;
        }
        whole.map(drop)
    }
}
