//! Messages of our own: responses (RFC 3261 §8.2.6), the ACK of a client transaction (§17.1.1.3), CANCEL (§9.1).
//!
//! Owns: their bytes. Never decides when one is sent.

use super::edit::{RouteEdit, ViaFix, put_number, put_top_via, routing};
use super::headers::Name;
use super::scan::Message;
use super::uri::put_request_uri;

/// A response of ours.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'e> {
    /// 100..=699.
    pub code: u16,
    pub reason: &'e str,
    /// Added when the request's To has none and the code is above 100 (RFC 3261 §8.2.6.2).
    pub to_tag: Option<&'e [u8]>,
    pub fix_via: Option<ViaFix>,
    /// Complete header lines with CRLF, or empty.
    pub extra: &'e [u8],
}

/// Appends a response without a body to the request `m`: all its Vias (the top one with `fix_via`), From, To, Call-ID, CSeq, a 100
/// with its Timestamp, then `extra`.
pub fn reply(m: &Message<'_>, r: &Reply<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/2.0 ");
    put_number(u32::from(r.code), out);
    out.push(b' ');
    out.extend_from_slice(r.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut vias = 0;
    let mut timestamp = None;
    for line in m.lines() {
        match line.kind {
            Name::Via => {
                out.extend_from_slice(b"Via: ");
                put_top_via(m, line.value, r.fix_via.filter(|_| vias == 0), out);
                out.extend_from_slice(b"\r\n");
                vias += 1;
            }
            Name::Other if r.code == 100 && m.of(line.name).eq_ignore_ascii_case(b"timestamp") => {
                timestamp = Some(line.value)
            }
            _ => {}
        }
    }
    line(b"From: ", m.of(m.from), out);
    out.extend_from_slice(b"To: ");
    out.extend_from_slice(m.of(m.to));
    if let Some(tag) = r.to_tag.filter(|_| m.to_tag.is_empty() && r.code > 100) {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    }
    out.extend_from_slice(b"\r\n");
    line(b"Call-ID: ", m.of(m.call_id), out);
    cseq(m, m.of(m.cseq.method_text), out);
    if let Some(value) = timestamp {
        line(b"Timestamp: ", m.of(value), out);
    }
    out.extend_from_slice(r.extra);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends the ACK for a non-2xx response to the INVITE that was made from `sent` (D09). `uri` (empty: the request's own), `routes`
/// and `via_line` as they were in its `RequestEdit`; `response_to` is the To value of the response.
pub fn ack(
    sent: &Message<'_>,
    uri: &[u8],
    via_line: &[u8],
    routes: impl Into<RouteEdit>,
    response_to: &[u8],
    out: &mut Vec<u8>,
) {
    hop_by_hop(sent, b"ACK", uri, via_line, routes.into(), response_to, out);
}

/// Appends the CANCEL of the request that was made from `sent` (C22). `uri` (empty: the request's own), `routes` and `via_line` as
/// they were in its `RequestEdit`.
pub fn cancel(sent: &Message<'_>, uri: &[u8], via_line: &[u8], routes: impl Into<RouteEdit>, out: &mut Vec<u8>) {
    hop_by_hop(sent, b"CANCEL", uri, via_line, routes.into(), sent.of(sent.to), out);
}

/// A request that goes exactly where `sent` went.
fn hop_by_hop(
    sent: &Message<'_>,
    method: &[u8],
    uri: &[u8],
    via_line: &[u8],
    routes: RouteEdit,
    to: &[u8],
    out: &mut Vec<u8>,
) {
    let given = Some(uri).filter(|uri| !uri.is_empty());
    let routing = routing(sent, given, routes);
    out.extend_from_slice(method);
    out.push(b' ');
    if given.is_some() || routes.strict.is_some() {
        put_request_uri(routing.uri, out);
    } else {
        out.extend_from_slice(routing.uri);
    }
    out.extend_from_slice(b" SIP/2.0\r\n");
    out.extend_from_slice(via_line);
    if sent.route_count > 0 {
        for (_, route) in sent.routes_all().enumerate().filter(|(number, _)| routing.stays(*number)) {
            line(b"Route: ", sent.of(route.value), out);
        }
    }
    if let Some(last) = routing.append {
        out.extend_from_slice(b"Route: <");
        out.extend_from_slice(last);
        out.extend_from_slice(b">\r\n");
    }
    out.extend_from_slice(b"Max-Forwards: 70\r\n");
    line(b"From: ", sent.of(sent.from), out);
    line(b"To: ", to, out);
    line(b"Call-ID: ", sent.of(sent.call_id), out);
    cseq(sent, method, out);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn cseq(m: &Message<'_>, method: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"CSeq: ");
    put_number(m.cseq.number, out);
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase that RFC 3261 §21 and its extensions give for a status code.
#[must_use]
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        423 => "Interval Too Brief",
        430 => "Flow Failed",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        493 => "Undecipherable",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => "Unknown",
    }
}
