//! Responses, ACK and CANCEL of our own.

use super::super::*;
use super::{invite, scanned, text};

const VIA: &[u8] = b"Via: SIP/2.0/SCTP p.example.test;branch=z9hG4bKp\r\n";

fn answer(code: u16) -> Reply<'static> {
    Reply { code, reason: reason_phrase(code), to_tag: Some(b"ours"), fix_via: None, extra: b"" }
}

#[test]
fn a_reply_copies_vias_from_to_call_id_and_cseq() {
    let all = invite("v: SIP/2.0/UDP b , SIP/2.0/TCP c;x=\"y\"\r\nTimestamp: 54\r\n")
        .replace("test;branch", "test;rport;branch");
    let fix_via = Some(ViaFix { received: "192.0.2.3".parse().unwrap(), rport: Some(7) });
    let mut out = Vec::new();
    reply(&scanned(&all), &Reply { fix_via, extra: b"Retry-After: 3\r\n", ..answer(503) }, &mut out);
    let expected = "SIP/2.0 503 Service Unavailable\r\n\
        Via: SIP/2.0/UDP a.example.test;rport=7;branch=z9hG4bKa1;received=192.0.2.3\r\n\
        Via: SIP/2.0/UDP b , SIP/2.0/TCP c;x=\"y\"\r\n\
        From: <sip:a@example.test>;tag=from\r\nTo: <sip:z@example.test>;tag=ours\r\nCall-ID: call@a\r\nCSeq: 1 INVITE\r\n\
        Retry-After: 3\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(text(&out), expected);
    scanned(expected);
}

#[test]
fn a_100_has_no_tag_of_ours_and_the_timestamp() {
    let all = invite("Timestamp: 54 0.1\r\n");
    let mut out = Vec::new();
    reply(&scanned(&all), &answer(100), &mut out);
    assert!(text(&out).contains("\r\nTo: <sip:z@example.test>\r\n")); // D14
    assert!(text(&out).contains("\r\nTimestamp: 54 0.1\r\n"));
}

#[test]
fn a_to_tag_that_is_there_stays_alone() {
    let all = invite("").replace("To: <sip:z@example.test>", "To: <sip:z@example.test>;tag=theirs");
    let mut out = Vec::new();
    reply(&scanned(&all), &answer(481), &mut out);
    assert!(text(&out).contains("\r\nTo: <sip:z@example.test>;tag=theirs\r\n"));
}

#[test]
fn a_refused_request_is_answered_from_what_can_be_read() {
    let all = invite("Content-Length: 99\r\nBroken line\r\nX: \0\r\n");
    let invalid = scan(all.as_bytes()).unwrap_err();
    assert!(invalid.answerable); // E11, E13
    let m = salvage(all.as_bytes()).unwrap();
    let mut out = Vec::new();
    reply(&m, &Reply { code: invalid.code, reason: invalid.reason, ..answer(400) }, &mut out);
    assert!(text(&out).starts_with(
        "SIP/2.0 400 Header line without a colon\r\nVia: SIP/2.0/UDP a.example.test;branch=z9hG4bKa1\r\nFrom"
    ));
}

#[test]
fn the_ack_of_a_refusal_looks_like_its_request() {
    let all = invite("Require: x\r\nRoute: <sip:p;lr>, <sip:q;lr>\r\nRoute: \"r\" <sip:r;lr>\r\nContent-Length: 3\r\n")
        + "sdp";
    let mut out = Vec::new();
    ack(&scanned(&all), b"sip:z@192.0.2.9", VIA, 1, b"<sip:z@example.test>;tag=theirs", &mut out);
    let expected = "ACK sip:z@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/SCTP p.example.test;branch=z9hG4bKp\r\n\
        Route: <sip:q;lr>\r\nRoute: \"r\" <sip:r;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.test>;tag=from\r\n\
        To: <sip:z@example.test>;tag=theirs\r\nCall-ID: call@a\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(text(&out), expected); // D09
    scanned(expected);
}

#[test]
fn a_cancel_looks_like_its_request() {
    let all = invite("Require: x\r\nProxy-Require: y\r\n");
    let mut out = Vec::new();
    cancel(&scanned(&all), b"", VIA, 0, &mut out);
    let expected = "CANCEL sip:z@z.example.test SIP/2.0\r\nVia: SIP/2.0/SCTP p.example.test;branch=z9hG4bKp\r\n\
        Max-Forwards: 70\r\nFrom: <sip:a@example.test>;tag=from\r\nTo: <sip:z@example.test>\r\nCall-ID: call@a\r\n\
        CSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(text(&out), expected); // C22
}

#[test]
fn ack_and_cancel_go_the_strict_way_of_their_request() {
    let all = invite("Route: <sip:p;lr>, <sip:q>, <sip:r;lr>\r\n");
    let m = scanned(&all);
    let strict = RouteEdit { cut: 1, strict: Some(StrictRoute::Next) };
    let (mut request, mut cancelled) = (Vec::new(), Vec::new());
    let edit = RequestEdit {
        uri: Some(b"sip:z@192.0.2.9"),
        via: VIA,
        fix_via: None,
        record_route: b"",
        max_forwards: 69,
        cut_routes: strict.cut,
        strict_route: strict.strict,
    };
    forward_request(&m, &edit, &mut request);
    cancel(&m, b"sip:z@192.0.2.9", VIA, strict, &mut cancelled);
    let (request, cancelled) = (scan(&request).unwrap(), scan(&cancelled).unwrap());
    assert_eq!(request.uri(), cancelled.uri()); // C22
    let routes = |m: &Message<'_>| m.routes_all().map(|route| m.of(route.value).to_vec()).collect::<Vec<_>>();
    assert_eq!(routes(&request), routes(&cancelled));
}

#[test]
fn ack_and_cancel_find_the_transaction_of_their_invite() {
    let key = branch::Key([3, 4]);
    for invite in [invite(""), invite("").replace(";branch=z9hG4bKa1", "")] {
        let of = |text: &str| branch::transaction_key(&key, &scanned(text));
        let cancel = invite.replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL").replace("INVITE sip", "CANCEL sip");
        let ack = invite.replace("INVITE", "ACK").replace("<sip:z@example.test>", "<sip:z@example.test>;tag=t");
        assert_eq!(of(&invite), of(&cancel)); // D23
        assert_eq!(of(&invite), of(&ack)); // D22
        assert_ne!(of(&invite), of(&invite.replace("UDP a.", "UDP b."))); // D22
        assert_ne!(of(&invite), of(&invite.replace("a.example.test", "a.example.test:5060")));
        assert_ne!(of(&invite), branch::transaction_key(&branch::Key([3, 5]), &scanned(&invite)));
    }
}
