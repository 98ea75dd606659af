//! The copy that goes out: Via, Record-Route, Max-Forwards, and everything else as it came.

use super::house::{ADVERTISED, FIVE, House, KEY, in_dialog, read, request, values};
use crate::message::branch;
use crate::proxy::forward;

const URI: &str = "sip:z@192.0.2.2";

#[test]
fn max_forwards_is_added_or_lowered() {
    let house = House::new(FIVE);
    let hops = |headers| {
        let copy = house.forwarded(&request("INVITE", "sip:z@example.test", headers), 0, 0, URI);
        values(&copy, "Max-Forwards").map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(hops(""), ["70"]); // B05
    assert_eq!(hops("Max-Forwards: 70\r\n"), ["69"]);
    assert_eq!(hops("Max-Forwards: 1\r\n"), ["0"]);
}

#[test]
fn our_via_is_on_top_with_a_branch_of_ours() {
    let house = House::new(FIVE);
    let copy = house.forwarded(&request("INVITE", "sip:z@example.test", ""), 0, 2, URI);
    let vias: Vec<_> = values(&copy, "Via").collect();
    assert_eq!(vias.len(), 2);
    let ours = vias[0].strip_prefix("SIP/2.0/SCTP 192.0.2.9:5060;branch=").expect(vias[0]); // A01, B34
    let ours = branch::read(ours.as_bytes()).expect("our form");
    assert!(ours.verify(&KEY, b"z9hG4bKa"));
    assert_eq!((ours.id.slot, ours.id.generation), (7, 3));
}

#[test]
fn an_unchanged_leg_gives_the_same_bytes_again() {
    let house = House::new(FIVE);
    let text = request("INVITE", "sip:z@example.test", "");
    assert_eq!(house.forwarded(&text, 0, 2, URI), house.forwarded(&text, 0, 2, URI));
}

#[test]
fn the_record_route_of_one_way_is_one_line() {
    let house = House::new(FIVE);
    let text = request("INVITE", "sip:z@example.test", "");
    assert_eq!(house.record_routes(&text, 0, 0), ["sip:192.0.2.9:5060;lr"]); // B28
    assert_eq!(house.record_routes(&text, 1, 1), ["sip:192.0.2.9:5060;transport=tcp;lr"]);
    assert_eq!(house.record_routes(&text, 2, 2), ["sip:192.0.2.9:5060;transport=sctp;lr"]);
    assert_eq!(house.record_routes(&text, 3, 3), ["sip:[2001:db8::9]:5060;lr"]);
}

#[test]
fn where_the_way_changes_there_are_two_the_outer_side_on_top() {
    let house = House::new(FIVE);
    let text = request("INVITE", "sip:z@example.test", "");
    // K20, K22: both carry their transport, UDP too.
    assert_eq!(
        house.record_routes(&text, 0, 2),
        ["sip:192.0.2.9:5060;transport=sctp;lr", "sip:192.0.2.9:5060;transport=udp;lr"]
    );
    assert_eq!(
        house.record_routes(&text, 2, 1),
        ["sip:192.0.2.9:5060;transport=tcp;lr", "sip:192.0.2.9:5060;transport=sctp;lr"]
    );
    // The same transport, but another address family.
    assert_eq!(
        house.record_routes(&text, 4, 2),
        ["sip:192.0.2.9:5060;transport=sctp;lr", "sip:[2001:db8::9]:5060;transport=sctp;lr"]
    );
}

#[test]
fn ours_stand_before_those_of_others() {
    let house = House::new(FIVE);
    let text = request("INVITE", "sip:z@example.test", "Record-Route: <sip:192.0.2.1;lr>\r\n");
    let values = house.record_routes(&text, 0, 0);
    assert_eq!(values, ["sip:192.0.2.9:5060;lr", "sip:192.0.2.1;lr"]); // B28
}

#[test]
fn what_is_advertised_stands_in_via_and_record_route() {
    let house = House::new(ADVERTISED);
    let text = request("INVITE", "sip:z@example.test", "");
    let lower = |lines: Vec<String>| lines.into_iter().map(|line| line.to_ascii_lowercase()).collect::<Vec<_>>();
    assert_eq!(lower(house.record_routes(&text, 0, 0)), ["sip:sip.example.net:15060;lr"]);
    assert_eq!(
        lower(house.record_routes(&text, 0, 1)),
        ["sip:203.0.113.9:15080;transport=sctp;lr", "sip:sip.example.net:15060;transport=udp;lr"]
    );
    let copy = house.forwarded(&text, 0, 1, URI);
    assert!(values(&copy, "Via").next().is_some_and(|via| via.starts_with("SIP/2.0/SCTP 203.0.113.9:15080;branch=")));
}

#[test]
fn only_what_forms_a_dialog_is_record_routed() {
    let mut house = House::new(FIVE);
    let count = |house: &House, text: &str| house.record_routes(text, 0, 0).len();
    for method in ["INVITE", "SUBSCRIBE", "REFER", "NOTIFY"] {
        assert_eq!(count(&house, &request(method, "sip:z@example.test", "")), 1, "{method}");
        assert_eq!(count(&house, &in_dialog(method, "sip:z@example.test", "")), 0, "{method} in its dialog");
    }
    for method in ["MESSAGE", "OPTIONS", "REGISTER", "BYE"] {
        assert_eq!(count(&house, &request(method, "sip:z@example.test", "")), 0, "{method}");
    }
    house.config.live.record_route = false;
    let ourselves = forward::Ourselves { record_route: false, ..house.ourselves() };
    let mut out = Vec::new();
    let text = request("INVITE", "sip:z@example.test", "");
    let m = read(&text);
    forward::request(&m, &ourselves, &house.leg(&m, 0, 1, URI), &mut Vec::new(), &mut out);
    assert!(!String::from_utf8(out).unwrap().contains("Record-Route"));
}

#[test]
fn everything_else_leaves_as_it_came() {
    let house = House::new(FIVE);
    let odd = "X-Odd :  a ;b\r\nDate: never\r\ns: hello\r\nRequire: 100rel\r\n";
    let text = request("INVITE", "sip:z@example.test", odd);
    let copy = house.forwarded(&text, 0, 0, URI);
    assert!(copy.contains(odd), "{copy}"); // B01, B26
    let rest = text.split_once("From:").unwrap().1;
    assert!(copy.ends_with(rest), "{copy}");
    assert!(copy.starts_with("INVITE sip:z@192.0.2.2 SIP/2.0\r\n")); // B27
}

#[test]
fn the_cancel_and_the_ack_carry_the_via_of_their_request_alone() {
    let house = House::new(FIVE);
    let text = request("INVITE", "sip:z@example.test", "Route: <sip:192.0.2.9;lr>\r\nRoute: <sip:192.0.2.3;lr>\r\n");
    let sent = house.forwarded(&text, 0, 2, URI);
    let (m, mut lines) = (read(&text), Vec::new());
    let (mut cancel, mut ack) = (Vec::new(), Vec::new());
    forward::cancel(&m, &house.ourselves(), &house.leg(&m, 0, 2, URI), &mut lines, &mut cancel);
    forward::ack(
        &m,
        &house.ourselves(),
        &house.leg(&m, 0, 2, URI),
        b"<sip:z@example.test>;tag=z",
        &mut lines,
        &mut ack,
    );
    for (method, text) in [("CANCEL", cancel), ("ACK", ack)] {
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with(&format!("{method} {URI} SIP/2.0\r\n")), "{text}"); // C22, D09
        assert_eq!(values(&text, "Via").collect::<Vec<_>>(), values(&sent, "Via").take(1).collect::<Vec<_>>());
        assert_eq!(values(&text, "Route").collect::<Vec<_>>(), values(&sent, "Route").collect::<Vec<_>>());
        assert_eq!(values(&text, "CSeq").collect::<Vec<_>>(), [format!("1 {method}")]);
    }
}
