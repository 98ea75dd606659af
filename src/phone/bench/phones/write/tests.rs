//! What the phones write, read by the daemon's scan and by rsip.

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
        assert_eq!(m.via.branch.of(&bytes).strip_prefix(b"z9hG4bK").map(|rest| &rest[1..]), Some(&id()[..]), "{text}");
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
    assert!(text.contains(&format!("callee-1@example.test>;tag=t{}\r\n", String::from_utf8_lossy(&id()))), "{text}");
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
