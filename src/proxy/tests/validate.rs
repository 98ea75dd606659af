//! What is refused before anybody asks where it wants to go.

use super::house::{ADVERTISED, FIVE, House, KEY, read, request};
use crate::message::Uri;
use crate::proxy::Refusal;
use crate::proxy::validate::{loop_hash, validate};

fn verdict(house: &House, text: &str) -> Result<(), Refusal> {
    let m = read(text);
    validate(&m, Uri::parse(m.uri()).as_ref(), &house.identity, loop_hash(&m, &KEY))
}

fn code(house: &House, text: &str) -> u16 {
    verdict(house, text).err().map_or(0, |refusal| refusal.code)
}

#[test]
fn a_scheme_that_we_do_not_speak_is_416() {
    let house = House::new(FIVE);
    for uri in ["tel:+4712345678", "sips:z@example.test", "urn:service:sos"] {
        assert_eq!(code(&house, &request("INVITE", uri, "")), 416, "{uri}"); // B03
    }
    assert_eq!(code(&house, &request("INVITE", "sip:z@example.test", "")), 0);
}

#[test]
fn unknown_methods_and_headers_are_nobodys_business() {
    let house = House::new(FIVE);
    let text = request("JUMP", "sip:z@example.test", "X-Unheard: of\r\nDate: yesterday, perhaps\r\n");
    assert_eq!(code(&house, &text), 0); // B01, B02
}

#[test]
fn a_request_that_has_come_too_far_is_483() {
    let house = House::new(FIVE);
    let far = |method, uri, hops| code(&house, &request(method, uri, &format!("Max-Forwards: {hops}\r\n")));
    assert_eq!(far("INVITE", "sip:z@example.test", 0), 483); // B04
    assert_eq!(far("INVITE", "sip:z@example.test", 1), 0);
    assert_eq!(far("OPTIONS", "sip:192.0.2.9", 0), 0, "its last hop is us");
    assert_eq!(far("OPTIONS", "sip:example.test", 0), 0);
    assert_eq!(far("OPTIONS", "sip:z@example.test", 0), 483);
    assert_eq!(far("OPTIONS", "sip:other.test", 0), 483);
    let routed = request("OPTIONS", "sip:192.0.2.9", "Max-Forwards: 0\r\nRoute: <sip:192.0.2.3;lr>\r\n");
    assert_eq!(code(&house, &routed), 483);
}

#[test]
fn without_max_forwards_the_check_passes() {
    let house = House::new(FIVE);
    assert_eq!(code(&house, &request("INVITE", "sip:z@example.test", "")), 0); // B05
}

#[test]
fn options_that_we_do_not_understand_are_420_and_named() {
    let house = House::new(FIVE);
    let text = request("INVITE", "sip:z@example.test", "Proxy-Require: sec-agree,\r\n foo\r\nProxy-Require: bar\r\n");
    let refusal = verdict(&house, &text).unwrap_err();
    assert_eq!(refusal.code, 420); // B14
    let extra = String::from_utf8(refusal.extra.to_vec()).unwrap();
    let named: Vec<_> = extra
        .lines()
        .flat_map(|line| line.strip_prefix("Unsupported: ").expect("Unsupported").split(',').map(str::trim))
        .collect();
    assert_eq!(named, ["sec-agree", "foo", "bar"]);
    assert!(extra.ends_with("\r\n"));
    // Require is for the callee.
    assert_eq!(code(&house, &request("INVITE", "sip:z@example.test", "Require: 100rel\r\n")), 0);
}

#[test]
fn ack_and_cancel_are_not_asked_for_options() {
    let house = House::new(FIVE);
    for method in ["ACK", "CANCEL"] {
        assert_eq!(code(&house, &request(method, "sip:z@example.test", "Proxy-Require: foo\r\n")), 0); // B15
    }
}

/// The request as a proxy behind us sends it back to us, `uri` being what it made of the Request-URI.
fn come_back(house: &House, text: &str, uri: &str) -> String {
    let sent = house.forwarded(text, 0, 0, "sip:z@192.0.2.2");
    let via = "Via: SIP/2.0/UDP 192.0.2.2;odd=\"a;b=c\";flag;x=;branch=z9hG4bKelse\r\n";
    let (_, head) = sent.split_once("\r\n").unwrap();
    format!("{} {uri} SIP/2.0\r\n{via}{head}", sent.split(' ').next().unwrap())
}

#[test]
fn the_same_request_again_is_a_loop_and_another_uri_a_spiral() {
    for house in [House::new(FIVE), House::new(ADVERTISED)] {
        let text = request("INVITE", "sip:z@example.test", "");
        assert_eq!(code(&house, &come_back(&house, &text, "sip:z@example.test")), 482); // B07, B10
        assert_eq!(code(&house, &come_back(&house, &text, "sip:other@example.test")), 0);
        // The same URI but another route is no loop either (B08).
        let routed = come_back(&house, &text, "sip:z@example.test");
        let routed = routed.replace("From:", "Route: <sip:192.0.2.3;lr>\r\nFrom:");
        assert_eq!(code(&house, &routed), 0);
    }
}

#[test]
fn another_transaction_of_the_same_call_is_no_loop() {
    let house = House::new(FIVE);
    let back = come_back(&house, &request("INVITE", "sip:z@example.test", ""), "sip:z@example.test");
    assert_eq!(code(&house, &back.replace("CSeq: 1 ", "CSeq: 2 ")), 0); // B09
    assert_eq!(code(&house, &back.replace("Call-ID: one", "Call-ID: two")), 0);
}

#[test]
fn the_method_does_not_change_what_is_a_loop() {
    let invite = request("INVITE", "sip:z@example.test", "");
    let ack = request("ACK", "sip:z@example.test", "");
    assert_eq!(loop_hash(&read(&invite), &KEY), loop_hash(&read(&ack), &KEY)); // B08
}

#[test]
fn a_foreign_proxys_branch_in_our_form_is_no_loop() {
    let house = House::new(FIVE);
    let back = come_back(&house, &request("INVITE", "sip:z@example.test", ""), "sip:z@example.test");
    assert_eq!(code(&house, &back.replace("UDP 192.0.2.9:5060", "UDP 192.0.2.8:5060")), 0);
}
