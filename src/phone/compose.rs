//! The bytes of a phone's messages: requests in rsip's vocabulary, responses copied from their request.
//!
//! Owns: who a phone says it is. Never keeps state of a call. URIs stay text from end to end: what a peer gave us as Contact or
//! Record-Route goes back byte for byte (RFC 3261 §12.1.2), which a URI type that parses and prints would not promise.

use std::net::SocketAddr;

use rsip::Method;
use rsip::headers::{self, Header, Headers, UntypedHeader};

use crate::message::Message;
use crate::transport::Transport;

/// Who a phone is: its address-of-record and where it can be reached.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user part, `alice`.
    pub user: String,
    /// The domain, or `host:port` of the proxy.
    pub domain: String,
    pub transport: Transport,
    /// Where its socket is; IPv6 is written in brackets (RFC 3261 §25.1, `IPv6reference`).
    pub local: SocketAddr,
    /// Hexadecimal; makes Call-IDs, tags and branches of this phone differ from those of every other run (RFC 3261 §19.3).
    pub seed: String,
}

impl Identity {
    /// `sip:alice@example.test`
    #[must_use]
    pub fn address_of_record(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    /// `<sip:alice@192.0.2.1:5070;transport=tcp>`; UDP needs no parameter (RFC 3263 §4.1).
    #[must_use]
    pub fn contact(&self) -> String {
        let transport = match self.transport {
            Transport::Udp => String::new(),
            other => format!(";transport={}", other.uri_token()),
        };
        format!("<sip:{}@{}{transport}>", self.user, self.local)
    }

    /// `z9hG4bK…`, different for each `serial` (RFC 3261 §8.1.1.7).
    #[must_use]
    pub fn branch(&self, serial: u64) -> String {
        format!("z9hG4bK{}{}{serial:x}", self.seed, self.user)
    }
}

/// What a phone puts into a request. `from` and `to` are whole header values, tags included.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'d> {
    pub method: Method,
    pub uri: &'d str,
    pub branch: &'d str,
    pub from: &'d str,
    pub to: &'d str,
    pub call_id: &'d str,
    pub cseq: u32,
    /// Route values, topmost first.
    pub routes: &'d [String],
    /// REGISTER: seconds that the binding shall last.
    pub expires: Option<u32>,
    /// Session description; empty: none.
    pub body: &'d str,
}

/// A complete request of the phone `me`.
#[must_use]
pub fn request(me: &Identity, d: &Draft) -> Vec<u8> {
    let mut headers = Headers::default();
    let via = format!("SIP/2.0/{} {};rport;branch={}", me.transport.via_token(), me.local, d.branch);
    headers.push(Header::Via(headers::Via::new(via)));
    for route in d.routes {
        headers.push(Header::Route(headers::Route::new(route.as_str())));
    }
    headers.push(Header::MaxForwards(headers::MaxForwards::new("70")));
    headers.push(Header::From(headers::From::new(d.from)));
    headers.push(Header::To(headers::To::new(d.to)));
    headers.push(Header::CallId(headers::CallId::new(d.call_id)));
    headers.push(Header::CSeq(headers::CSeq::new(format!("{} {}", d.cseq, d.method))));
    if matches!(d.method, Method::Invite | Method::Register) {
        headers.push(Header::Contact(headers::Contact::new(me.contact())));
    }
    if let Some(seconds) = d.expires {
        headers.push(Header::Expires(headers::Expires::new(seconds.to_string())));
    }
    if !d.body.is_empty() {
        headers.push(Header::ContentType(headers::ContentType::new("application/sdp")));
    }
    headers.push(Header::ContentLength(headers::ContentLength::new(d.body.len().to_string())));
    format!("{} {} SIP/2.0\r\n{headers}\r\n{}", d.method, d.uri, d.body).into_bytes()
}

/// What a phone answers with.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'d> {
    pub code: u16,
    pub phrase: &'d str,
    /// Added to To when it has none and this is no 100 (RFC 3261 §8.2.6.2).
    pub tag: &'d str,
    /// Contact value; empty: none.
    pub contact: &'d str,
    pub body: &'d str,
}

/// The response to request `m`: Via, From, To, Call-ID and CSeq as they came (RFC 3261 §8.2.6.2), Record-Route too where a dialog
/// may begin (§12.1.1).
#[must_use]
pub fn response(m: &Message, a: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(m.bytes.len() + 256);
    let mut line = |pieces: &[&[u8]]| {
        pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        out.extend_from_slice(b"\r\n");
    };
    line(&[format!("SIP/2.0 {} {}", a.code, a.phrase).as_bytes()]);
    for via in m.vias() {
        line(&[b"Via: ", via.value.of(m.bytes)]);
    }
    if !a.contact.is_empty() || a.code == 180 {
        for value in m.header("Record-Route") {
            line(&[b"Record-Route: ", value.of(m.bytes)]);
        }
    }
    line(&[b"From: ", m.from.of(m.bytes)]);
    match m.to_tag.is_empty() && a.code > 100 {
        true => line(&[b"To: ", m.to.of(m.bytes), b";tag=", a.tag.as_bytes()]),
        false => line(&[b"To: ", m.to.of(m.bytes)]),
    }
    line(&[b"Call-ID: ", m.call_id.of(m.bytes)]);
    line(&[format!("CSeq: {} ", m.cseq.number).as_bytes(), m.cseq.method_text.of(m.bytes)]);
    if !a.contact.is_empty() {
        line(&[b"Contact: ", a.contact.as_bytes()]);
    }
    if !a.body.is_empty() {
        line(&[b"Content-Type: application/sdp"]);
    }
    line(&[format!("Content-Length: {}\r\n", a.body.len()).as_bytes()]);
    out.extend_from_slice(a.body.as_bytes());
    out
}

/// A session description (RFC 4566) of one audio stream at `local`. Nobody listens there: phones talk SIP only.
#[must_use]
pub fn session(me: &Identity) -> String {
    let family = if me.local.is_ipv4() { "IP4" } else { "IP6" };
    let ip = me.local.ip();
    format!(
        "v=0\r\no={} 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n\
         a=rtpmap:8 PCMA/8000\r\n",
        me.user
    )
}

/// The values of a header line that may hold several: cut at commas outside of `<>` and quotes (RFC 3261 §7.3.1).
pub fn values(line: &str) -> impl Iterator<Item = &str> {
    let (mut angle, mut quoted, mut escaped) = (false, false, false);
    line.split(move |c: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            '\\' if quoted => escaped = !was_escaped,
            '"' if !was_escaped && !angle => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            ',' => return !angle && !quoted,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(transport: Transport, local: &str) -> Identity {
        Identity {
            user: "z".into(),
            domain: "example.test".into(),
            transport,
            local: local.parse().unwrap(),
            seed: "5eed".into(),
        }
    }

    #[test]
    fn the_contact_names_the_transport_unless_it_is_udp_and_brackets_ipv6() {
        assert_eq!(z(Transport::Udp, "127.0.0.1:5070").contact(), "<sip:z@127.0.0.1:5070>");
        assert_eq!(z(Transport::Sctp, "[::1]:5070").contact(), "<sip:z@[::1]:5070;transport=sctp>");
    }

    #[test]
    fn commas_inside_a_uri_or_a_quoted_name_do_not_separate_values() {
        let line = r#"<sip:a,b@p1;lr>, "one, \"two" <sip:p2;lr>,<sip:p3>"#;
        let list: Vec<_> = values(line).collect();
        assert_eq!(list, ["<sip:a,b@p1;lr>", r#""one, \"two" <sip:p2;lr>"#, "<sip:p3>"]);
    }
}
