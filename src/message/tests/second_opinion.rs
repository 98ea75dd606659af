//! The crate rsip on the subset that it reads right: one value per line, names in full, no folds, text only.

use rsip::message::HasHeaders;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};

use super::super::*;
use super::{invite, scanned, text};

#[test]
fn rsip_reads_plain_messages_the_same_way() {
    let more =
        "Route: <sip:p.example.test;lr>\r\nContact: <sip:a@192.0.2.1:5070>\r\nExpires: 60\r\nContent-Length: 4\r\n";
    let requests =
        ["INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "SUBSCRIBE", "NOTIFY", "REFER", "MESSAGE", "PRACK"]
            .map(|method| invite(more).replace("INVITE", method) + "body");
    let responses = ["100 Trying", "200 OK", "486 Busy Here", "603 Decline"]
        .map(|line| invite(more).replace("INVITE sip:z@z.example.test SIP/2.0", &format!("SIP/2.0 {line}")) + "body");
    for all in requests.into_iter().chain(responses) {
        let m = scanned(&all);
        let theirs = rsip::SipMessage::try_from(all.as_bytes()).unwrap();
        match &theirs {
            rsip::SipMessage::Request(request) => {
                assert_eq!(text(m.uri()), request.uri.to_string());
                assert_eq!(m.method().as_str(), request.method.to_string());
                assert_eq!(m.body(), request.body);
            }
            rsip::SipMessage::Response(response) => {
                assert_eq!(m.code(), response.status_code.code());
                assert_eq!(m.body(), response.body);
            }
        }
        let via = theirs.via_header().unwrap().typed().unwrap();
        assert_eq!(text(m.of(m.via.branch)), via.branch().unwrap().to_string());
        assert_eq!(text(m.of(m.via.host)), via.uri.host_with_port.host.to_string());
        assert_eq!(text(m.of(m.from)), theirs.from_header().unwrap().value());
        assert_eq!(text(m.of(m.from_tag)), theirs.from_header().unwrap().typed().unwrap().tag().unwrap().to_string());
        assert_eq!(text(m.of(m.to)), theirs.to_header().unwrap().value());
        assert_eq!(text(m.of(m.call_id)), theirs.call_id_header().unwrap().value());
        let cseq = theirs.cseq_header().unwrap().typed().unwrap();
        assert_eq!((m.cseq.number, m.cseq.method.as_str()), (cseq.seq, cseq.method.to_string().as_str()));
        assert_eq!(m.lines().count(), theirs.headers().iter().count());
    }
}

#[test]
fn rsip_reads_what_we_write() {
    let all = invite("Content-Length: 0\r\n");
    let mut out = Vec::new();
    let answer = Reply { code: 486, reason: "Busy Here", to_tag: Some(b"t"), fix_via: None, extra: b"" };
    reply(&scanned(&all), &answer, &mut out);
    let theirs = rsip::Response::try_from(out.as_slice()).unwrap();
    assert_eq!(theirs.status_code, rsip::StatusCode::BusyHere);
    assert_eq!(theirs.to_header().unwrap().typed().unwrap().tag().unwrap().to_string(), "t");
}
