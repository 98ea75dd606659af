//! The little that a bench phone reads of a message: which call it is of, and what an answer copies (RFC 3261 §8.2.6.2, §12.1).
//!
//! Owns: finding header lines, also folded and compact ones. Never judges a message: what it cannot use it passes over. Never
//! allocates. `message::scan` reads the same and more; here every byte costs the machine that is measured.

use arrayvec::ArrayVec;
use memchr::memchr;

/// Via or Record-Route lines of one message; with more it is not read.
const LINES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Invite,
    Ack,
    Bye,
    Options,
    /// Another request.
    Other,
    Response(u16),
}

/// A message's head. Values are without the white space around them, folds stay.
#[derive(Clone, Debug)]
pub struct Head<'m> {
    pub start: Start,
    pub vias: ArrayVec<&'m [u8], LINES>,
    pub record_routes: ArrayVec<&'m [u8], LINES>,
    pub from: &'m [u8],
    pub to: &'m [u8],
    pub call_id: &'m [u8],
    pub cseq: &'m [u8],
    pub contact: &'m [u8],
}

/// Reads a head; none when it is no SIP or has too many lines of a kind.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Head<'_>> {
    let first = memchr(b'\n', bytes)?;
    let start_line = trim(bytes.get(..first)?);
    let mut head = Head {
        start: start(start_line)?,
        vias: ArrayVec::new(),
        record_routes: ArrayVec::new(),
        from: b"",
        to: b"",
        call_id: b"",
        cseq: b"",
        contact: b"",
    };
    let mut at = first + 1;
    loop {
        let mut end = at + memchr(b'\n', bytes.get(at..)?)?;
        if end <= at + 1 {
            return Some(head);
        }
        while let Some(b' ' | b'\t') = bytes.get(end + 1) {
            end = end + 1 + memchr(b'\n', bytes.get(end + 1..)?)?;
        }
        let line = bytes.get(at..end)?;
        let colon = memchr(b':', line)?;
        let value = || trim(line.get(colon + 1..).unwrap_or_default());
        match kind(trim(line.get(..colon)?)) {
            Kind::Via => head.vias.try_push(value()).ok()?,
            Kind::RecordRoute => head.record_routes.try_push(value()).ok()?,
            Kind::From => head.from = value(),
            Kind::To => head.to = value(),
            Kind::CallId => head.call_id = value(),
            Kind::CSeq => head.cseq = value(),
            Kind::Contact => head.contact = value(),
            Kind::Other => {}
        }
        at = end + 1;
    }
}

enum Kind {
    Via,
    RecordRoute,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    Other,
}

fn kind(name: &[u8]) -> Kind {
    let is = |long: &[u8]| name.eq_ignore_ascii_case(long);
    match name.len() {
        1 => match name.first().map(u8::to_ascii_lowercase) {
            Some(b'v') => Kind::Via,
            Some(b'f') => Kind::From,
            Some(b't') => Kind::To,
            Some(b'i') => Kind::CallId,
            Some(b'm') => Kind::Contact,
            _ => Kind::Other,
        },
        2 if is(b"To") => Kind::To,
        3 if is(b"Via") => Kind::Via,
        4 if is(b"From") => Kind::From,
        4 if is(b"CSeq") => Kind::CSeq,
        7 if is(b"Call-ID") => Kind::CallId,
        7 if is(b"Contact") => Kind::Contact,
        12 if is(b"Record-Route") => Kind::RecordRoute,
        _ => Kind::Other,
    }
}

fn start(line: &[u8]) -> Option<Start> {
    if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
        let [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] = rest else { return None };
        let digit = |c: &u8| u16::from(c - b'0');
        return Some(Start::Response(100 * digit(a) + 10 * digit(b) + digit(c)));
    }
    let method = line.get(..memchr(b' ', line)?)?;
    Some(match method {
        b"INVITE" => Start::Invite,
        b"ACK" => Start::Ack,
        b"BYE" => Start::Bye,
        b"OPTIONS" => Start::Options,
        _ => Start::Other,
    })
}

fn trim(bytes: &[u8]) -> &[u8] {
    match bytes {
        [first, .., last] if *first > b' ' && *last > b' ' => bytes,
        _ => bytes.trim_ascii(),
    }
}

/// The URI of a Contact: between `<` and `>`, or up to the first `;` (RFC 3261 §20.10).
#[must_use]
pub fn uri(contact: &[u8]) -> &[u8] {
    // A `<` in a quoted display name is none.
    let mut quoted = false;
    let open = contact.iter().position(|byte| {
        quoted ^= *byte == b'"';
        *byte == b'<' && !quoted
    });
    let (from, until) = match open {
        Some(at) => (contact.get(at + 1..).unwrap_or_default(), b'>'),
        None => (contact, b';'),
    };
    trim(memchr(until, from).and_then(|end| from.get(..end)).unwrap_or(from))
}

/// Calls `each` with every value of a line that may hold several (§7.3.1): cut at commas outside of `<>` and quotes.
pub fn values<'l>(line: &'l [u8], mut each: impl FnMut(&'l [u8])) {
    if memchr(b',', line).is_none() {
        return each(line);
    }
    let (mut angle, mut quoted, mut escaped, mut from) = (false, false, false, 0);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if quoted => escaped = true,
            b'"' if !angle => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b',' if !angle && !quoted => {
                each(trim(line.get(from..at).unwrap_or_default()));
                from = at + 1;
            }
            _ => {}
        }
    }
    each(trim(line.get(from..).unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_compact_and_oddly_spaced_lines_are_read() {
        let bytes =
            b"SIP/2.0 200 OK\r\nv : a,\r\n b\r\nVIA:c\r\nf:from\r\nt: to \r\ni: id\r\nCSEQ: 1 INVITE\r\nm: <sip:z>\r\n\
            record-route: <sip:p;lr>\r\nX: y\r\nContent-Length: 0\r\n\r\nVia: body\r\n";
        let head = read(bytes).unwrap();
        assert_eq!(head.start, Start::Response(200));
        assert_eq!(head.vias[..], [&b"a,\r\n b"[..], b"c"]);
        assert_eq!((head.from, head.to, head.call_id), (&b"from"[..], &b"to"[..], &b"id"[..]));
        assert_eq!((head.cseq, head.contact), (&b"1 INVITE"[..], &b"<sip:z>"[..]));
        assert_eq!(head.record_routes[..], [&b"<sip:p;lr>"[..]]);
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        for bytes in
            [&b""[..], b"\r\n\r\n", b"SIP/2.0 2x0 OK\r\n\r\n", b"BYE\r\n\r\n", b"BYE sip:z SIP/2.0\r\nVia\r\n\r\n"]
        {
            assert!(read(bytes).is_none(), "{}", bytes.escape_ascii());
        }
        let many = format!("BYE sip:z SIP/2.0\r\n{}\r\n", "Via: a\r\n".repeat(LINES + 1));
        assert!(read(many.as_bytes()).is_none());
    }

    #[test]
    fn every_cut_off_message_is_refused_without_harm() {
        let whole = b"INVITE sip:z SIP/2.0\r\nVia: a,\r\n b\r\nTo: \"x\" <sip:z>\r\n\r\n";
        assert_eq!(read(whole).unwrap().start, Start::Invite);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_contact_gives_its_uri_alone() {
        for (contact, expected) in [
            ("<sip:z@h;transport=tcp>;q=1", "sip:z@h;transport=tcp"),
            ("sip:z@h;q=1", "sip:z@h"),
            ("\"a <b\" <sip:z@h>", "sip:z@h"),
            ("sip:z@h", "sip:z@h"),
        ] {
            assert_eq!(uri(contact.as_bytes()), expected.as_bytes(), "{contact}");
        }
    }

    #[test]
    fn commas_inside_a_uri_or_a_quoted_name_do_not_separate_values() {
        let mut list = Vec::new();
        values(br#"<sip:a,b@p1;lr>, "one, \"two" <sip:p2;lr>,<sip:p3>"#, |value| list.push(value));
        assert_eq!(list, [&b"<sip:a,b@p1;lr>"[..], br#""one, \"two" <sip:p2;lr>"#, b"<sip:p3>"]);
    }
}
