//! What changes in a forwarded message, and that nothing else does (B26).

use super::super::*;
use super::{invite, scanned, text};

const VIA: &str = "Via: SIP/2.0/SCTP p.example.test;branch=z9hG4bKp\r\n";

fn edit() -> RequestEdit<'static> {
    RequestEdit {
        uri: None,
        via: VIA.as_bytes(),
        fix_via: None,
        record_route: b"",
        max_forwards: 69,
        cut_routes: 0,
        strict_route: None,
    }
}

fn forwarded(all: &str, edit: &RequestEdit<'_>) -> String {
    let m = scanned(all);
    let mut out = b"before".to_vec();
    forward_request(&m, edit, &mut out);
    let head = text(&out).strip_prefix("before").unwrap().to_owned();
    scanned(&(head.clone() + text(m.body())));
    head
}

#[test]
fn all_but_the_named_changes_stays_byte_for_byte() {
    let odd = "x-ODD  :\t a,, \r\n\t\"b ;\r\nSUBJECT:\r\nDate: never\r\nCall-Info: <http://a>;x=\u{1}\r\nl : 004\r\n";
    let all = invite(odd) + "\0\r\n\u{7f}";
    let expected = all
        .replace("Via:", &format!("{VIA}Via:"))
        .replace("Max-Forwards: 70", "Max-Forwards: 69")
        .replace("\0\r\n\u{7f}", "");
    assert_eq!(forwarded(&all, &edit()), expected); // B05, B26, B34
}

#[test]
fn every_change_at_once_finds_its_place_whatever_the_order_of_headers() {
    let all = "INVITE sip:z@example.test SIP/2.0\r\n\
        Route: <sip:p.example.test;lr>, <sip:p.example.test;transport=sctp;lr>,<sip:q.example.test;lr>\r\n\
        CSeq: 1 INVITE\r\nmax-forwards : 10 \r\n\
        Record-Route: <sip:o.example.test;lr>\r\n\
        To: <sip:z@example.test>\r\nFrom: <sip:a@example.test>;tag=1\r\nCall-ID: c\r\n\
        v: SIP/2.0/UDP a.example.test;rport;branch=z9hG4bKa, SIP/2.0/UDP older;branch=z9hG4bKo\r\n\r\n";
    let edit = RequestEdit {
        uri: Some(b"sip:z@192.0.2.9;method=INVITE;ob?Subject=x"),
        fix_via: Some(ViaFix { received: "192.0.2.77".parse().unwrap(), rport: Some(5099) }),
        record_route: b"Record-Route: <sip:p.example.test;lr>\r\n",
        max_forwards: 9,
        cut_routes: 2,
        ..edit()
    };
    let expected = "INVITE sip:z@192.0.2.9;ob SIP/2.0\r\n\
        Route: <sip:q.example.test;lr>\r\n\
        CSeq: 1 INVITE\r\nmax-forwards : 9 \r\n\
        Record-Route: <sip:p.example.test;lr>\r\nRecord-Route: <sip:o.example.test;lr>\r\n\
        To: <sip:z@example.test>\r\nFrom: <sip:a@example.test>;tag=1\r\nCall-ID: c\r\n\
        Via: SIP/2.0/SCTP p.example.test;branch=z9hG4bKp\r\n\
        v: SIP/2.0/UDP a.example.test;rport=5099;branch=z9hG4bKa;received=192.0.2.77, SIP/2.0/UDP older;branch=z9hG4bKo\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(forwarded(all, &edit), expected); // B20, B27, B28, B35, E04, E05, K20, K21
}

#[test]
fn max_forwards_and_content_length_are_added_where_absent() {
    let all = invite("").replace("Max-Forwards: 70\r\n", "") + "abc";
    let head = forwarded(&all, &RequestEdit { max_forwards: 70, ..edit() });
    assert!(head.contains("\r\nMax-Forwards: 70\r\n")); // B05
    assert!(head.ends_with("\r\nContent-Length: 3\r\n\r\n")); // A14, B35
    let compact = invite("l: 0\r\n");
    assert!(!forwarded(&compact, &edit()).contains("Content-Length"));
}

#[test]
fn a_record_route_goes_behind_the_vias_when_it_is_the_first() {
    let all = invite("").replace("Max-Forwards", "Via: SIP/2.0/UDP b;branch=z9hG4bKb\r\nMax-Forwards");
    let head = forwarded(&all, &RequestEdit { record_route: b"Record-Route: <sip:p;lr>\r\n", ..edit() });
    assert!(head.contains("branch=z9hG4bKb\r\nRecord-Route: <sip:p;lr>\r\nMax-Forwards"));
}

#[test]
fn own_routes_come_off_in_one_line_or_several() {
    for (routes, cut, left) in [
        ("Route: <sip:p;lr>\r\n", 1, ""),
        ("Route: <sip:p;lr>\r\nRoute: <sip:q;lr>\r\n", 1, "Route: <sip:q;lr>\r\n"),
        ("Route: <sip:p;lr>\r\nRoute: <sip:q;lr>\r\n", 2, ""),
        ("Route: <sip:p;lr>,<sip:q;lr>\r\n", 1, "Route: <sip:q;lr>\r\n"),
        ("Route: <sip:p;lr>,<sip:q;lr>\r\n", 2, ""),
        ("Route: <sip:p;lr>\r\nRoute: <sip:q;lr>,\r\n <sip:r;lr>\r\n", 2, "Route: <sip:r;lr>\r\n"),
        ("Route: <sip:p;lr> , <sip:q;lr>\r\nX: y\r\nRoute: <sip:r>\r\n", 2, "X: y\r\nRoute: <sip:r>\r\n"),
    ] {
        let head = forwarded(&invite(routes), &RequestEdit { cut_routes: cut, ..edit() });
        assert!(head.ends_with(&format!("CSeq: 1 INVITE\r\n{left}Content-Length: 0\r\n\r\n")), "{routes}{head}"); // B20
    }
}

#[test]
fn a_strict_router_before_us_hid_the_uri_in_the_last_route() {
    let edit = RequestEdit { strict_route: Some(StrictRoute::Previous), ..edit() };
    for (routes, left) in [
        ("Route: <sip:z@z>\r\n", ""),
        ("Route: <sip:q;lr>, <sip:z@z>\r\n", "Route: <sip:q;lr>\r\n"),
        ("Route: <sip:q;lr>\r\nRoute: <sip:r;lr> , <sip:z@z>\r\n", "Route: <sip:q;lr>\r\nRoute: <sip:r;lr> \r\n"),
    ] {
        let head = forwarded(&invite(routes), &edit);
        assert!(head.starts_with("INVITE sip:z@z SIP/2.0\r\n"), "{head}"); // B18
        assert!(head.ends_with(&format!("CSeq: 1 INVITE\r\n{left}Content-Length: 0\r\n\r\n")), "{head}");
    }
}

#[test]
fn a_strict_router_behind_us_gets_its_uri_and_the_target_goes_last() {
    let edit =
        RequestEdit { uri: Some(b"sip:z@192.0.2.9"), cut_routes: 1, strict_route: Some(StrictRoute::Next), ..edit() };
    for (routes, left) in [
        ("Route: <sip:p;lr>, <sip:q>\r\n", "Route: <sip:z@192.0.2.9>\r\n"),
        ("Route: <sip:p;lr>\r\nRoute: <sip:q>, <sip:r;lr>\r\n", "Route: <sip:r;lr>, <sip:z@192.0.2.9>\r\n"),
        ("Route: <sip:p;lr>\r\nRoute: <sip:q>\r\nRoute: <sip:r;lr>\r\n", "Route: <sip:r;lr>, <sip:z@192.0.2.9>\r\n"),
    ] {
        let head = forwarded(&invite(routes), &edit);
        assert!(head.starts_with("INVITE sip:q SIP/2.0\r\n"), "{head}"); // B31
        let m = scanned(&head);
        let routes: Vec<_> = m.routes_all().map(|route| text(m.of(route.value))).collect();
        let left = invite(left);
        let left = scanned(&left);
        assert_eq!(routes, left.routes_all().map(|route| text(left.of(route.value))).collect::<Vec<_>>(), "{head}");
    }
    let between = RequestEdit { strict_route: Some(StrictRoute::Both), uri: None, ..edit };
    let head = forwarded(&invite("Route: <sip:p;lr>, <sip:q>, <sip:z@z>\r\n"), &between);
    assert!(head.starts_with("INVITE sip:q SIP/2.0\r\n"), "{head}");
    assert!(head.contains("<sip:z@z>") && !head.contains("sip:p;lr"), "{head}");
}

#[test]
fn a_response_loses_the_top_via_and_nothing_else() {
    let response = |vias: &str, more: &str| {
        format!(
            "SIP/2.0 180 Es klingelt\r\n{vias}f: <sip:a@a>;tag=1\r\nTo: <sip:z@z>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n{more}\r\n"
        )
    };
    let ours = "SIP/2.0/SCTP p;branch=z9hG4bKp";
    let theirs = "SIP/2.0/UDP a;branch=z9hG4bKa;received=192.0.2.1";
    for (before, after) in [
        (format!("Via: {ours}\r\nVia: {theirs}\r\n"), format!("Via: {theirs}\r\n")),
        (format!("Via: {ours},\r\n  {theirs}\r\n"), format!("Via: {theirs}\r\n")),
        (format!("v:{ours} , {theirs} \r\n"), format!("v:{theirs} \r\n")),
        (format!("Via: {ours}\r\n"), String::new()),
    ] {
        let all = response(&before, "X: y\r\nContent-Length: 2\r\n") + "ab";
        let mut out = Vec::new();
        forward_response(&scanned(&all), &mut out);
        assert_eq!(text(&out), response(&after, "X: y\r\nContent-Length: 2\r\n")); // C14
        let all = response(&before, "") + "ab";
        out.clear();
        forward_response(&scanned(&all), &mut out);
        assert_eq!(text(&out), response(&after, "Content-Length: 2\r\n")); // A14
        // What is kept of it is what was sent.
        assert_eq!(Upstream::new(&scanned(&all)).pieces().concat(), [&out[..], b"ab"].concat());
    }
}

#[test]
fn received_is_added_when_the_host_is_a_name_another_address_or_a_lie() {
    let fix = |via: &str, source: &str| {
        let all = invite("").replace("a.example.test;", &format!("{via};"));
        let m = scanned(&all);
        let fix = ViaFix::needed(&m.via, m.bytes, source.parse().unwrap());
        let head = forwarded(&all, &RequestEdit { fix_via: fix, ..edit() });
        let m = scanned(&head);
        let via = m.next_via.unwrap();
        text(m.of(via.value)).replace("SIP/2.0/UDP ", "").replace(";branch=z9hG4bKa1", "")
    };
    assert_eq!(fix("192.0.2.1", "192.0.2.1:9"), "192.0.2.1");
    assert_eq!(fix("192.0.2.2", "192.0.2.1:9"), "192.0.2.2;received=192.0.2.1"); // E04
    assert_eq!(fix("a.test", "192.0.2.1:9"), "a.test;received=192.0.2.1"); // E04
    assert_eq!(fix("192.0.2.1;rport", "192.0.2.1:9"), "192.0.2.1;rport=9;received=192.0.2.1"); // E05
    assert_eq!(fix("[::1]:7 ; rport", "[2001:db8::1]:9"), "[::1]:7 ; rport=9;received=2001:db8::1"); // E04
    assert_eq!(fix("[2001:DB8:0::1]", "[2001:db8::1]:9"), "[2001:DB8:0::1]");
    assert_eq!(fix("192.0.2.1", "[::ffff:192.0.2.1]:9"), "192.0.2.1");
    assert_eq!(fix("192.0.2.1;received=6.6.6.6", "192.0.2.1:9"), "192.0.2.1;received=192.0.2.1");
    assert_eq!(fix("192.0.2.1;rport=5;x", "192.0.2.1:9"), "192.0.2.1;rport=5;x");
}

#[test]
fn splice_keeps_skips_and_puts() {
    let mut out = Vec::new();
    let mut splice = edit::Splice::new(b"0123456789", &mut out);
    splice.keep(2);
    splice.put(b"x");
    splice.skip(5);
    splice.keep(3);
    splice.keep(99);
    splice.finish_head(8);
    assert_eq!(out, b"01x567");
}
