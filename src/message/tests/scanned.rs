//! What `scan` finds in odd but right messages, in the manner of RFC 4475, and what it refuses.

use super::super::*;
use super::{invite, refused, scanned, text};

/// Everything that RFC 3261 §25.1 lets a sender do to a few headers at once.
const TORTUOUS: &str = "INVITE sip:vivekg@chair-dnrc.example.test;unknownparam SIP/2.0\r\n\
    TO :\r\n sip:vivekg@chair-dnrc.example.test ;   tag    = 1918181833n\r\n\
    from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.test>\r\n  ;\r\n  tag = 98asjd8\r\n\
    MaX-fOrWaRdS: 0068\r\n\
    Call-ID: wsinv.ndaksdj@192.0.2.1\r\n\
    Content-Length   : 150\r\n\
    cseq: 0009\r\n  INVITE\r\n\
    Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\n\
    s :\r\n\
    NewFangledHeader:   newfangled value\r\n continued newfangled value\r\n\
    UnknownHeaderWithUnusualValue: ;;,,;;,;\r\n\
    Content-Type: application/sdp\r\n\
    Route:\r\n <sip:services.example.test;lr;unknownwith=value;unknown-no-value>\r\n\
    v:  SIP  / 2.0  / TCP     spindle.example.test   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239\r\n\
    m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.test> ; newparam =\r\n      newvalue ;\r\n  secondparam ; q = 0.33\r\n\r\n";

fn tortuous() -> String {
    format!("{TORTUOUS}{}", "x".repeat(150))
}

#[test]
fn a_tortuous_invite_is_read_like_a_plain_one() {
    let all = tortuous();
    let m = scanned(&all);
    assert_eq!(m.method(), Method::Invite);
    assert_eq!(text(m.uri()), "sip:vivekg@chair-dnrc.example.test;unknownparam");
    assert_eq!(text(m.of(m.to_tag)), "1918181833n");
    assert_eq!(text(m.of(m.from_tag)), "98asjd8");
    assert_eq!(text(m.of(m.call_id)), "wsinv.ndaksdj@192.0.2.1");
    assert_eq!((m.cseq.number, m.cseq.method), (9, Method::Invite));
    assert_eq!(m.max_forwards.map(|(hops, _)| hops), Some(68));
    assert_eq!(m.content_length.map(|(length, _)| length), Some(150));
    assert_eq!(m.body().len(), 150);
    assert_eq!(m.via_count, 3);
    let vias: Vec<_> =
        m.vias().map(|via| (text(m.of(via.transport)), text(m.of(via.host)), text(m.of(via.branch)))).collect();
    assert_eq!(
        vias,
        [
            ("UDP", "192.0.2.2", "390skdjuw"),
            ("TCP", "spindle.example.test", "z9hG4bK9ikj8"),
            ("UDP", "192.168.255.111", "z9hG4bK30239")
        ]
    );
    assert_eq!(m.vias().next(), Some(m.via));
    assert_eq!(m.vias().nth(1), m.next_via);
    let route = m.routes[0].unwrap();
    assert!(route.lr);
    assert_eq!(text(m.of(route.uri)), "sip:services.example.test;lr;unknownwith=value;unknown-no-value");
    let contact = m.contacts().next().unwrap();
    assert_eq!((text(m.of(contact.uri)), contact.q, m.contact_count), ("sip:jdrosen@example.test", Some(330), 1));
    assert_eq!(m.header("Subject").map(|value| value.len()).collect::<Vec<_>>(), [0]);
    let folded = m.header("newfangledheader").next().unwrap();
    assert_eq!(text(m.of(folded)), "newfangled value\r\n continued newfangled value");
}

#[test]
fn compact_names_are_names() {
    let all = "OPTIONS sip:z@z.example.test SIP/2.0\r\nv: SIP/2.0/SCTP 192.0.2.1\r\nf: sip:a@a;tag=1\r\nt: sip:z@z\r\ni: c\r\n\
               CSeq: 7 OPTIONS\r\nm: sip:a@192.0.2.1\r\nk: path\r\nl: 3\r\n\r\nabc";
    let m = scanned(all);
    assert_eq!((text(m.of(m.via.transport)), m.contact_count, text(m.body())), ("SCTP", 1, "abc"));
    assert_eq!(text(m.of(m.header("Supported").next().unwrap())), "path");
    assert_eq!(text(m.of(m.header("Call-ID").next().unwrap())), "c");
    assert_eq!(m.header("x-none").next(), None);
}

#[test]
fn commas_brackets_and_semicolons_in_quotes_separate_nothing() {
    let all = invite(
        "Contact: \"Strowger, <Almon>; q=1\" <sip:a@192.0.2.1;x=\"y\">;q=0.5;expires=60, \"z\\\",\" <sip:z@[2001:db8::1]:5070>;expires=\"x\"\r\n",
    )
    .replace("From: <sip:a@example.test>", "From: \"a;tag=wrong, <b>\" <sip:a@example.test;tag=no>;x=\"tag=bad;\"")
    .replace("a.example.test;branch=", "a.example.test;x=\"; branch=no, SIP/2.0/UDP b\" ; branch = ");
    let m = scanned(&all);
    assert_eq!(text(m.of(m.from_tag)), "from");
    assert_eq!((m.via_count, text(m.of(m.via.branch))), (1, "z9hG4bKa1"));
    let contacts: Vec<_> = m.contacts().map(|c| (text(m.of(c.uri)), c.q, c.expires)).collect();
    // F08: an expires that is no number counts as 3600.
    assert_eq!(
        contacts,
        [("sip:a@192.0.2.1;x=\"y\"", Some(500), Some(60)), ("sip:z@[2001:db8::1]:5070", None, Some(3600))]
    );
    assert_eq!(m.contact_count, 2);
}

#[test]
fn a_star_is_a_contact_without_uri() {
    let all = invite("Contact: *\r\nExpires: 0\r\n");
    let m = scanned(&all);
    assert!(m.contacts().next().unwrap().star);
    assert_eq!((m.contact_count, m.expires.map(|e| text(m.of(e)))), (1, Some("0")));
    let all = invite("Contact: *, <sip:a@a>\r\n");
    assert_eq!(scanned(&all).contact_count, 2); // F06: the registrar refuses it.
}

#[test]
fn a_bare_contact_has_header_parameters_and_a_bracketed_one_uri_parameters() {
    let all = invite(
        "Contact: sip:a@a;expires=5;q=1, <sip:b@b;expires=7>\r\nContact: <tel:+1;ext=2>;expires=99999999999\r\n",
    );
    let m = scanned(&all);
    let contacts: Vec<_> = m.contacts().map(|c| (text(m.of(c.uri)), text(m.of(c.params)), c.expires)).collect();
    assert_eq!(
        contacts,
        [
            ("sip:a@a", ";expires=5;q=1", Some(5)),
            ("sip:b@b;expires=7", "", None),
            ("tel:+1;ext=2", ";expires=99999999999", Some(u32::MAX)) // F08
        ]
    );
}

#[test]
fn an_ipv6_via_has_host_port_received_and_rport() {
    let all = invite("").replace(
        "UDP a.example.test;",
        "TCP [2001:db8::9:1] : 5070;received=2001:db8::9:255;rport;ttl=1;maddr=[ff02::1];",
    );
    let m = scanned(&all);
    assert_eq!((text(m.of(m.via.host)), m.via.port, m.via.rport), ("[2001:db8::9:1]", Some(5070), Rport::Asked));
    assert_eq!(m.via.ip(m.bytes), Some("2001:db8::9:1".parse().unwrap()));
    assert_eq!((text(m.of(m.via.received)), text(m.of(m.via.maddr))), ("2001:db8::9:255", "[ff02::1]"));
    assert_eq!(text(m.of(m.via.branch)), "z9hG4bKa1");
}

#[test]
fn rport_is_absent_asked_or_filled() {
    for (parameter, rport) in [
        ("", Rport::Absent),
        (";rport", Rport::Asked),
        (";RPORT=", Rport::Asked),
        (";rport=5070", Rport::Filled(5070)),
        (";rport=99999", Rport::Absent),
    ] {
        let all = invite("").replace("a.example.test;", &format!("a.example.test{parameter};"));
        assert_eq!(scanned(&all).via.rport, rport, "{parameter}");
    }
}

#[test]
fn vias_of_others_with_unknown_valueless_or_quoted_parameters_never_fail() {
    let all = invite(
        "Via: SIP/2.0/TLS-SCTP b:5061;x;y=\"a, b\";=;;branch=b1\r\nVia: nonsense\r\nVia: SIP/2.0/UDP c;branch=c1\r\n",
    );
    let m = scanned(&all);
    // B10
    assert_eq!(m.via_count, 4);
    assert_eq!(m.next_via.map(|via| text(m.of(via.branch))), Some("b1"));
    assert_eq!(m.vias().map(|via| text(m.of(via.branch))).collect::<Vec<_>>(), ["z9hG4bKa1", "b1", "c1"]);
}

#[test]
fn routes_of_one_line_and_of_several_are_one_list() {
    let all = invite("Route: <sip:p1;lr>,\"p2, <x>\" <sip:a;b@p2> , <sip:p3;LR=on>\r\nRoute: <sip:p4?h=;lr>;lr\r\n");
    let m = scanned(&all);
    assert_eq!(m.route_count, 4);
    let routes: Vec<_> = m.routes_all().map(|r| (text(m.of(r.uri)), r.lr, text(m.of(r.cut)))).collect();
    assert_eq!(
        routes,
        [
            ("sip:p1;lr", true, "<sip:p1;lr>,"),
            ("sip:a;b@p2", false, "\"p2, <x>\" <sip:a;b@p2> , "),
            ("sip:p3;LR=on", true, ", <sip:p3;LR=on>"),
            ("sip:p4?h=;lr", false, "Route: <sip:p4?h=;lr>;lr\r\n")
        ]
    );
    assert_eq!(m.routes, [m.routes_all().next(), m.routes_all().nth(1)]);
    assert_eq!(m.last_route, m.routes_all().last());
}

#[test]
fn unknown_methods_schemes_and_headers_are_none_of_our_business() {
    // B01, B02, B03 (the proxy answers 416, not the scanner).
    let all = "!interesting-Method0123456789_*+`.%indeed'~ soap.beep://192.0.2.103:3002 SIP/2.0\r\nVia: SIP/2.0/XYZ h\r\n\
               From: <nobodyKnowsThisScheme:totallyopaquecontent>;tag=1\r\nTo: <isbn:2983792873>\r\nCall-ID: c\r\n\
               CSeq: 4294 !interesting-Method0123456789_*+`.%indeed'~\r\nDate: never\r\n\r\n";
    let m = scanned(all);
    assert_eq!(m.method(), Method::Other);
    assert_eq!(Uri::parse(m.uri()).map(|uri| uri.scheme), Some(Scheme::Other));
    assert_eq!(m.max_forwards, None); // B05
}

#[test]
fn bytes_that_are_no_text_pass() {
    let mut all = invite("Subject: \u{e9}\r\nX: ").into_bytes();
    all.truncate(all.len() - 2);
    all.extend_from_slice(b"\xff\xfe\x01\r\n\r\n\0\r\n\xff");
    let m = scan(&all).unwrap();
    assert_eq!(m.body(), b"\0\r\n\xff");
}

#[test]
fn empty_lines_before_the_start_line_are_skipped() {
    let all = format!("\r\n\r\n{}", invite(""));
    let m = scanned(&all); // E10
    assert_eq!((m.start_at, m.head()), (4, invite("").as_bytes()));
    assert_eq!(refused("\r\n\r\n"), "Empty message");
    assert_eq!(refused(""), "Empty message");
}

#[test]
fn content_length_cuts_what_is_too_long_and_refuses_what_is_too_short() {
    let long = invite("Content-Length: 3\r\n") + "abcdef";
    assert_eq!(scanned(&long).body(), b"abc"); // A13
    let short = invite("Content-Length: 7\r\n") + "abcdef";
    let invalid = scan(short.as_bytes()).unwrap_err(); // A13, E11
    assert_eq!((invalid.reason, invalid.code, invalid.answerable), ("Shorter than its Content-Length", 400, true));
    let none = invite("") + "abcdef";
    assert_eq!(scanned(&none).body(), b"abcdef"); // A14
}

#[test]
fn content_lengths_that_lie_are_refused() {
    for (lines, reason) in [
        ("Content-Length: -1\r\n", "Bad Content-Length"),
        ("Content-Length: 1x\r\n", "Bad Content-Length"),
        ("Content-Length:\r\n", "Bad Content-Length"),
        ("Content-Length: 99999999999\r\n", "Bad Content-Length"),
        ("Content-Length: 0\r\nl: 1\r\n", "Several Content-Length"),
        ("Content-Length: 0\r\nl: 00\r\n", "taken"),
        ("Content-Length:\r\n 0\r\n", "taken"),
    ] {
        assert_eq!(refused(invite(lines)), reason, "{lines}"); // E14
    }
}

#[test]
fn bare_line_ends_and_nul_are_refused_wherever_they_stand_in_the_head() {
    let whole = invite("X: y\r\n z\r\n");
    for at in 1..whole.len() - 4 {
        for (byte, reason) in [("\r", "Bare CR"), ("\n", "Bare LF"), ("\0", "NUL in the head")] {
            let mut all = whole.clone();
            all.insert_str(at, byte);
            let found = refused(&all);
            let beside_an_end = matches!(whole.as_bytes()[at], b'\r' | b'\n');
            assert!(found == reason || (beside_an_end && found != "taken"), "{reason} at {at}: {found}");
        }
    }
}

#[test]
fn a_message_with_only_line_feeds_is_refused() {
    assert_eq!(refused(invite("").replace("\r\n", "\n")), "Bare LF");
}

#[test]
fn mandatory_headers_are_there_once_and_can_be_read() {
    for (from, to, reason) in [
        ("Via: SIP/2.0/UDP a.example.test;branch=z9hG4bKa1\r\n", "", "No Via"),
        ("From: <sip:a@example.test>;tag=from\r\n", "", "No From"),
        ("To: <sip:z@example.test>\r\n", "", "No To"),
        ("Call-ID: call@a\r\n", "", "No Call-ID"),
        ("CSeq: 1 INVITE\r\n", "", "No CSeq"),
        ("CSeq: 1 INVITE", "CSeq: 1 BYE", "CSeq of another method"),
        ("CSeq: 1 INVITE", "CSeq: 36893488147419103232 INVITE", "Bad CSeq"),
        ("CSeq: 1 INVITE", "CSeq: INVITE 1", "Bad CSeq"),
        ("Via: SIP/2.0/UDP a", "Via: SIP/7.0/UDP a", "Bad Via"),
        ("Via: SIP/2.0/UDP a", "Via: SIP/2.0/UDP [::1", "Bad Via"),
        ("a.example.test;", "a.example.test:99999;", "Bad Via"),
        ("a.example.test;", "a.example.test junk;", "Bad Via"),
        ("From: <sip:a@", "From: <sip:a@a>, <sip:a@", "Bad From"),
        ("To: <sip:z@example.test>", "To: \"z <sip:z@example.test>", "Bad To"),
        ("To: <sip:z@example.test>", "To: <sip:z@example.test", "Bad To"),
        ("To: <sip:z@example.test>", "To:", "Bad To"),
        ("Call-ID: call@a", "Call-ID: call @a", "Bad Call-ID"),
        ("Max-Forwards: 70", "Max-Forwards: many", "Bad Max-Forwards"),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\nMax-Forwards: 71", "Several Max-Forwards"),
        ("Max-Forwards: 70", "Max-Forwards 70", "Header line without a colon"),
        ("Max-Forwards: 70", ": 70", "Header line without a name"),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\nt: <sip:z@z>", "Several To"),
        ("Max-Forwards: 70", "Route: <sip:z@z", "Bad Route"),
        ("INVITE sip:z@z.example.test SIP/2.0", "INVITE <sip:z@z> SIP/2.0", "Bad start line"),
        ("INVITE sip:z@z.example.test SIP/2.0", "INVITE sip:z@z; lr SIP/2.0", "Bad start line"),
        ("INVITE sip:z@z.example.test SIP/2.0", "INVITE  sip:z@z SIP/2.0", "Bad start line"),
        ("INVITE sip:z@z.example.test SIP/2.0", "INVITE sip:z@z SIP/2.0 ", "Bad start line"),
        ("INVITE sip:z@z.example.test SIP/2.0", "INVITE SIP/2.0", "Bad start line"),
        ("INVITE sip:z@z.example.test SIP/2.0", "GET sip:z@z HTTP/1.1", "Bad start line"),
        ("INVITE sip:z@z.example.test SIP/2.0", "INVITE sip:z@z SIP/3.0", "Version Not Supported"),
        ("INVITE sip:z@z.example.test SIP/2.0", "SIP/2.0 99 Low", "Bad status code"),
        ("INVITE sip:z@z.example.test SIP/2.0", "SIP/2.0 4294967301 High", "Bad status code"),
    ] {
        let all = invite("").replacen(from, to, 1);
        assert_ne!(all, invite(""));
        assert_eq!(refused(&all), reason, "{all}");
    }
    assert_eq!(refused(&invite("")[..200]), "No end of headers");
}

#[test]
fn another_version_is_answered_505() {
    let all = invite("").replace("test SIP/2.0", "test SIP/3.0");
    let invalid = scan(all.as_bytes()).unwrap_err();
    assert_eq!((invalid.code, invalid.answerable), (505, true));
}

#[test]
fn a_response_may_have_any_reason_or_none() {
    for (line, code, reason) in [
        ("SIP/2.0 200 OK", 200, "OK"),
        ("SIP/2.0 180 ", 180, ""),
        ("sip/2.0 699", 699, ""),
        ("SIP/2.0 486 \u{411} : x", 486, "\u{411} : x"),
    ] {
        let all = invite("").replace("INVITE sip:z@z.example.test SIP/2.0", line);
        let m = scanned(&all);
        let Start::Response { code: found, reason: span } = m.start else { panic!("a request") };
        assert_eq!((found, text(m.of(span)), m.method()), (code, reason, Method::Invite));
    }
}

#[test]
fn too_many_vias_and_lines_are_refused() {
    let vias = |n: usize| invite(&"Via: SIP/2.0/UDP b\r\n".repeat(n));
    assert_eq!(refused(vias(63)), "taken");
    assert_eq!(refused(vias(64)), "Too many Vias");
    assert_eq!(refused(invite(&format!("Via: SIP/2.0/UDP b{}\r\n", ",SIP/2.0/UDP b".repeat(63)))), "Too many Vias");
    assert_eq!(refused(invite(&"X: y\r\n".repeat(250))), "taken");
    assert_eq!(refused(invite(&"X: y\r\n".repeat(251))), "Too many header lines");
}

#[test]
fn responses_and_acks_are_never_answered() {
    let response = invite("Content-Length: 5\r\n").replace("INVITE sip:z@z.example.test SIP/2.0", "SIP/2.0 200 OK");
    assert!(!scan(response.as_bytes()).unwrap_err().answerable); // A13
    let ack = invite("Content-Length: 5\r\n").replace("INVITE", "ACK");
    assert!(!scan(ack.as_bytes()).unwrap_err().answerable);
    let no_from = invite("").replace("From: <sip:a@example.test>;tag=from\r\n", "");
    assert!(!scan(no_from.as_bytes()).unwrap_err().answerable);
}

#[test]
fn a_nul_in_one_line_leaves_enough_for_an_answer_unless_the_answer_needs_that_line() {
    let all = invite("X: a\0b\r\n");
    assert!(scan(all.as_bytes()).unwrap_err().answerable);
    let all = invite("").replace("<sip:a@example", "<sip:\0a@example");
    assert!(!scan(all.as_bytes()).unwrap_err().answerable);
}
