//! The bytes that a bench phone sends: an INVITE made once and given another id for each call, the rest of a dialog from what its
//! 2xx said (RFC 3261 §12.1.2, §13.2.2.4), answers copied from their request (§8.2.6.2).
//!
//! Owns: the texts. Never keeps state of a call; never allocates but for what is made once per phone and connection.

use memchr::memmem;

use super::id::{Id, LENGTH};
use super::read::{Head, Start, uri, values};
use crate::phone::bench::words::Wire;

/// Where a phone's messages come from: the transport, and the address of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'o> {
    pub wire: Wire,
    /// `192.0.2.1:5070`
    pub sent_by: &'o [u8],
}

/// An INVITE with gaps for the id.
#[derive(Debug)]
pub struct Invite {
    bytes: Vec<u8>,
    gaps: [usize; 3],
}

/// In the place of an id.
const GAP: [u8; LENGTH] = [b'_'; LENGTH];

impl Invite {
    #[must_use]
    pub fn new(from: Origin<'_>, caller: &str, callee: &str, domain: &str) -> Invite {
        let mut bytes = Vec::with_capacity(800);
        let body = session(caller, from.sent_by);
        put(&mut bytes, &[b"INVITE sip:", callee.as_bytes(), b"@", domain.as_bytes(), b" SIP/2.0\r\n"]);
        via(&mut bytes, from, &GAP, b'i');
        put(&mut bytes, &[b"Max-Forwards: 70\r\nFrom: <sip:", caller.as_bytes(), b"@", domain.as_bytes(), b">;tag=c"]);
        put(
            &mut bytes,
            &[&GAP, b"\r\nTo: <sip:", callee.as_bytes(), b"@", domain.as_bytes(), b">\r\nCall-ID: c", &GAP],
        );
        put(&mut bytes, &[b"\r\nCSeq: 1 INVITE\r\nContact: "]);
        contact(&mut bytes, from, caller);
        put(&mut bytes, &[b"\r\nContent-Type: application/sdp\r\nContent-Length: ", body.len().to_string().as_bytes()]);
        put(&mut bytes, &[b"\r\n\r\n", &body]);
        let mut gaps = [0; 3];
        gaps.iter_mut().zip(memmem::find_iter(&bytes, &GAP)).for_each(|(gap, at)| *gap = at);
        Invite { bytes, gaps }
    }

    /// The INVITE of the call `id`.
    pub fn of(&mut self, id: &Id) -> &[u8] {
        for at in self.gaps {
            if let Some(room) = self.bytes.get_mut(at..at + LENGTH) {
                room.copy_from_slice(id);
            }
        }
        &self.bytes
    }
}

/// What a caller keeps of a 2xx: the remote target, To with its tag, and the route set as header lines, in one buffer that is used
/// again for the next call.
#[derive(Debug, Default)]
pub struct Dialog {
    bytes: Vec<u8>,
    to_at: usize,
    routes_at: usize,
}

impl Dialog {
    /// False: the 2xx has no Contact, so nothing can be sent within the dialog.
    pub fn set(&mut self, head: &Head<'_>) -> bool {
        let target = uri(head.contact);
        let Dialog { bytes, to_at, routes_at } = self;
        bytes.clear();
        bytes.extend_from_slice(target);
        *to_at = bytes.len();
        bytes.extend_from_slice(head.to);
        *routes_at = bytes.len();
        // The caller's route set is the recorded one backwards (§12.1.2).
        for line in head.record_routes.iter().rev() {
            let mut found = arrayvec::ArrayVec::<&[u8], 16>::new();
            values(line, |value| {
                let _ = found.try_push(value);
            });
            found.iter().rev().for_each(|value| put(bytes, &[b"Route: ", value, b"\r\n"]));
        }
        !target.is_empty()
    }

    fn target(&self) -> &[u8] {
        self.bytes.get(..self.to_at).unwrap_or_default()
    }

    fn to(&self) -> &[u8] {
        self.bytes.get(self.to_at..self.routes_at).unwrap_or_default()
    }

    fn routes(&self) -> &[u8] {
        self.bytes.get(self.routes_at..).unwrap_or_default()
    }
}

/// Appends the ACK to a 2xx, with a branch of its own (§13.2.2.4).
pub fn ack(out: &mut Vec<u8>, from: Origin<'_>, address: &str, id: &Id, dialog: &Dialog) {
    within(out, from, b"ACK", b'a', b"1", address, id, dialog);
}

/// Appends the BYE.
pub fn bye(out: &mut Vec<u8>, from: Origin<'_>, address: &str, id: &Id, dialog: &Dialog) {
    within(out, from, b"BYE", b'b', b"2", address, id, dialog);
}

#[allow(clippy::too_many_arguments, reason = "the parts of one text")]
fn within(
    out: &mut Vec<u8>,
    from: Origin<'_>,
    method: &[u8],
    letter: u8,
    cseq: &[u8],
    address: &str,
    id: &Id,
    dialog: &Dialog,
) {
    put(out, &[method, b" ", dialog.target(), b" SIP/2.0\r\n"]);
    via(out, from, id, letter);
    put(out, &[dialog.routes(), b"Max-Forwards: 70\r\nFrom: <sip:", address.as_bytes(), b">;tag=c", id]);
    put(out, &[b"\r\nTo: ", dialog.to(), b"\r\nCall-ID: c", id, b"\r\nCSeq: ", cseq, b" ", method]);
    put(out, &[b"\r\nContent-Length: 0\r\n\r\n"]);
}

/// Appends the ACK to a refusal: of the INVITE's own transaction (§17.1.1.3).
pub fn ack_refusal(out: &mut Vec<u8>, from: Origin<'_>, address: &str, callee: &str, id: &Id, head: &Head<'_>) {
    put(out, &[b"ACK sip:", callee.as_bytes(), b" SIP/2.0\r\n"]);
    via(out, from, id, b'i');
    put(out, &[b"Max-Forwards: 70\r\nFrom: <sip:", address.as_bytes(), b">;tag=c", id, b"\r\nTo: ", head.to]);
    put(out, &[b"\r\nCall-ID: c", id, b"\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"]);
}

/// A REGISTER for the contact at its origin.
#[derive(Clone, Copy, Debug)]
pub struct Register<'r> {
    pub user: &'r str,
    pub domain: &'r str,
    pub expires_s: u32,
    /// The address of the contact before, which ends with it (§10.2.2).
    pub old: Option<&'r [u8]>,
}

impl Register<'_> {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>, from: Origin<'_>, id: &Id, cseq: u32) {
        let (user, domain) = (self.user.as_bytes(), self.domain.as_bytes());
        put(out, &[b"REGISTER sip:", domain, b" SIP/2.0\r\n"]);
        via(out, from, id, b'r');
        put(out, &[b"Max-Forwards: 70\r\nFrom: <sip:", user, b"@", domain, b">;tag=r", id]);
        put(out, &[b"\r\nTo: <sip:", user, b"@", domain, b">\r\nCall-ID: r", id]);
        put(out, &[b"\r\nCSeq: ", cseq.to_string().as_bytes(), b" REGISTER\r\nContact: "]);
        contact(out, from, self.user);
        put(out, &[b";expires=", self.expires_s.to_string().as_bytes(), b"\r\n"]);
        if let Some(sent_by) = self.old {
            put(out, &[b"Contact: "]);
            contact(out, Origin { sent_by, ..from }, self.user);
            put(out, &[b";expires=0\r\n"]);
        }
        put(out, &[b"Content-Length: 0\r\n\r\n"]);
    }
}

/// Appends an answer to the request `head`. `tag`: put into To when the request begins a dialog.
pub fn answer(
    out: &mut Vec<u8>,
    head: &Head<'_>,
    status: &[u8],
    tag: Option<&Id>,
    at: Option<(Origin<'_>, &str)>,
    body: bool,
) {
    put(out, &[b"SIP/2.0 ", status, b"\r\n"]);
    head.vias.iter().for_each(|value| put(out, &[b"Via: ", value, b"\r\n"]));
    if head.start == Start::Invite {
        head.record_routes.iter().for_each(|value| put(out, &[b"Record-Route: ", value, b"\r\n"]));
    }
    put(out, &[b"From: ", head.from, b"\r\nTo: ", head.to]);
    if let Some(tag) = tag {
        put(out, &[b";tag=t", tag]);
    }
    put(out, &[b"\r\nCall-ID: ", head.call_id, b"\r\nCSeq: ", head.cseq, b"\r\n"]);
    if let Some((from, user)) = at {
        put(out, &[b"Contact: "]);
        contact(out, from, user);
        put(out, &[b"\r\n"]);
    }
    match at.filter(|_| body) {
        None => put(out, &[b"Content-Length: 0\r\n\r\n"]),
        Some((from, user)) => {
            put(out, &[b"Content-Type: application/sdp\r\nContent-Length: "]);
            let length_at = out.len();
            put(out, &[b"000\r\n\r\n"]);
            let body_at = out.len();
            put_session(out, user.as_bytes(), from.sent_by);
            let mut length = out.len() - body_at;
            for digit in out.get_mut(length_at..length_at + 3).unwrap_or_default().iter_mut().rev() {
                *digit = b'0' + (length % 10) as u8;
                length /= 10;
            }
        }
    }
}

/// Is there a tag in a To value? Parameters stand behind the `>` (§20.39).
#[must_use]
pub fn has_tag(to: &[u8]) -> bool {
    let params = memchr::memrchr(b'>', to).and_then(|at| to.get(at..)).unwrap_or(to);
    memmem::find(params, b";tag=").is_some()
}

fn via(out: &mut Vec<u8>, from: Origin<'_>, id: &Id, letter: u8) {
    put(
        out,
        &[
            b"Via: SIP/2.0/",
            from.wire.via_token(),
            b" ",
            from.sent_by,
            b";rport;branch=z9hG4bK",
            &[letter],
            id,
            b"\r\n",
        ],
    );
}

/// UDP needs no parameter (RFC 3263 §4.1).
fn contact(out: &mut Vec<u8>, from: Origin<'_>, user: &str) {
    put(out, &[b"<sip:", user.as_bytes(), b"@", from.sent_by, from.wire.uri_parameter(), b">"]);
}

/// A session description (RFC 4566) of one audio stream. Nobody listens there: phones talk SIP only.
fn session(user: &str, sent_by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    put_session(&mut out, user.as_bytes(), sent_by);
    out
}

fn put_session(out: &mut Vec<u8>, user: &[u8], sent_by: &[u8]) {
    let host = memchr::memrchr(b':', sent_by).and_then(|at| sent_by.get(..at)).unwrap_or(sent_by);
    let (host, family): (&[u8], &[u8]) = match host {
        [b'[', six @ .., b']'] => (six, b"IN IP6 "),
        four => (four, b"IN IP4 "),
    };
    put(out, &[b"v=0\r\no=", user, b" 1 1 ", family, host, b"\r\ns=-\r\nc=", family, host]);
    put(out, &[b"\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"]);
}

#[inline]
fn put(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
}

#[cfg(test)]
mod tests {
    use rsip::SipMessage;
    use rsip::prelude::{HeadersExt, ToTypedHeader};

    use super::super::id::Ids;
    use super::super::read;
    use super::*;
    use crate::message::{self, Method};

    const AT: Origin<'_> = Origin { wire: Wire::Tcp, sent_by: b"127.0.0.1:5070" };
    const SEEN: Origin<'_> = Origin { wire: Wire::Tcp, sent_by: b"127.0.0.1:5071" };

    fn id() -> Id {
        Ids::new(0x5eed, 1).id(7, 9)
    }

    fn invite() -> Vec<u8> {
        Invite::new(AT, "caller-1", "callee-1", "example.test").of(&id()).to_vec()
    }

    /// An INVITE as it comes from two proxies.
    fn arrived() -> Vec<u8> {
        let text = String::from_utf8(invite()).unwrap();
        let routes = "Record-Route: <sip:p2;lr>, <sip:p1;x=\"a,b\";lr>\r\nRecord-Route: <sip:p0;lr>\r\n";
        text.replacen("Via: ", &format!("Via: SIP/2.0/TCP p2;branch=z9hG4bKp2\r\n{routes}Via: "), 1).into_bytes()
    }

    fn answered(status: &str, body: bool) -> Vec<u8> {
        let (request, mut out) = (arrived(), Vec::new());
        let head = read::read(&request).unwrap();
        answer(&mut out, &head, status.as_bytes(), Some(&id()), Some((SEEN, "callee-1")), body);
        out
    }

    fn dialog() -> Dialog {
        let (ok, mut dialog) = (answered("200 OK", true), Dialog::default());
        assert!(dialog.set(&read::read(&ok).unwrap()));
        dialog
    }

    #[test]
    fn requests_are_good_to_the_daemons_scan_and_to_rsip() {
        let (mut ack_bytes, mut bye_bytes, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        ack(&mut ack_bytes, AT, "caller-1@example.test", &id(), &dialog());
        bye(&mut bye_bytes, AT, "caller-1@example.test", &id(), &dialog());
        let register = Register { user: "callee-1", domain: "example.test", expires_s: 300, old: None };
        register.put(&mut first, AT, &id(), 1);
        Register { old: Some(b"127.0.0.1:5069"), ..register }.put(&mut second, AT, &id(), 2);
        for (bytes, method, contacts) in [
            (invite(), Method::Invite, 1),
            (ack_bytes, Method::Ack, 0),
            (bye_bytes, Method::Bye, 0),
            (first, Method::Register, 1),
            (second, Method::Register, 2),
        ] {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let m = message::scan(&bytes).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(matches!(m.start, message::Start::Request { method: is, .. } if is == method), "{text}");
            assert_eq!(
                m.via.branch.of(&bytes).strip_prefix(b"z9hG4bK").map(|rest| &rest[1..]),
                Some(&id()[..]),
                "{text}"
            );
            assert_eq!(m.call_id.of(&bytes)[1..], id(), "{text}");
            assert_eq!(m.contacts().count(), contacts, "{text}");
            let other = SipMessage::try_from(text.clone()).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(
                other.cseq_header().unwrap().typed().unwrap().method.to_string(),
                String::from_utf8_lossy(m.cseq.method_text.of(&bytes))
            );
            assert_eq!(other.from_header().unwrap().typed().unwrap().tag().unwrap().value().as_bytes()[1..], id());
        }
    }

    #[test]
    fn an_answer_copies_what_it_must_and_tells_its_length() {
        for (status, body) in [("180 Ringing", false), ("200 OK", true)] {
            let bytes = answered(status, body);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let m = message::scan(&bytes).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(m.vias().count(), 2, "{text}");
            assert_eq!(m.to_tag.of(&bytes)[1..], id(), "{text}");
            assert_eq!(m.header("Record-Route").count(), 2, "{text}");
            let body_at = text.find("\r\n\r\n").unwrap() + 4;
            assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", text.len() - body_at)) || !body, "{text}");
            SipMessage::try_from(text.clone()).unwrap_or_else(|e| panic!("{e}: {text}"));
        }
    }

    #[test]
    fn the_route_set_is_the_recorded_one_backwards() {
        let mut out = Vec::new();
        bye(&mut out, AT, "caller-1@example.test", &id(), &dialog());
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("BYE sip:callee-1@127.0.0.1:5071;transport=tcp SIP/2.0\r\n"), "{text}");
        let routes: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("Route: ")).collect();
        assert_eq!(routes, ["<sip:p0;lr>", "<sip:p1;x=\"a,b\";lr>", "<sip:p2;lr>"], "{text}");
        assert!(text.contains("\r\nCSeq: 2 BYE\r\n"), "{text}");
        assert!(
            text.contains(&format!("callee-1@example.test>;tag=t{}\r\n", String::from_utf8_lossy(&id()))),
            "{text}"
        );
    }

    #[test]
    fn ack_to_a_refusal_has_the_branch_of_its_invite_and_that_to_a_2xx_another() {
        let (invite, refusal) = (invite(), answered("486 Busy Here", false));
        let of = |bytes: &[u8]| message::scan(bytes).unwrap().via.branch.of(bytes).to_vec();
        let (mut refused, mut accepted) = (Vec::new(), Vec::new());
        let head = read::read(&refusal).unwrap();
        ack_refusal(&mut refused, AT, "caller-1@example.test", "callee-1@example.test", &id(), &head);
        ack(&mut accepted, AT, "caller-1@example.test", &id(), &dialog());
        assert_eq!(of(&refused), of(&invite));
        assert_ne!(of(&accepted), of(&invite));
        assert_eq!(message::scan(&refused).unwrap().to.of(&refused), head.to);
    }

    #[test]
    fn another_id_makes_another_call_of_the_same_length() {
        let mut invite = Invite::new(AT, "caller-1", "callee-1", "example.test");
        let (first, other) = (invite.of(&id()).to_vec(), Ids::new(0x5eed, 1).id(8, 10));
        let second = invite.of(&other).to_vec();
        assert_eq!(first.len(), second.len());
        assert_eq!(memmem::find_iter(&second, &other).count(), 3);
        assert_eq!(memmem::find_iter(&second, &id()).count(), 0);
    }

    #[test]
    fn a_tag_is_a_parameter_of_the_header_and_not_of_the_uri() {
        assert!(has_tag(b"<sip:z@h>;tag=1") && has_tag(b"sip:z@h;tag=1"));
        assert!(!has_tag(b"<sip:z@h;tag=1>") && !has_tag(b"<sip:z@h>"));
    }
}
