//! Each fact of section F that needs no other process, and B22 to B25.

use super::ask::MOST_PARAMETERS;
use super::*;
use crate::config::{Limits, Registrar};
use crate::message::scan;
use crate::shared::bindings::BINDINGS;
use sys::memory::Plan;

const REGISTRAR: Registrar = Registrar { default_expires_s: 1800, min_expires_s: 60, max_expires_s: 7200 };
/// A Sunday: RFC 9110's example.
const WALL: u64 = 784_111_777;

fn limits(contacts: usize) -> Limits {
    Limits {
        message_bytes: 65_535,
        contacts,
        associations: 1,
        associations_per_peer: 1,
        association_queue_bytes: 1,
        connections: 1,
        connections_per_peer: 1,
        connection_queue_bytes: 1,
    }
}

/// A registrar of its own, with a clock that the test moves.
struct Pair {
    location: Location,
    now: Tick,
    contacts: usize,
}

/// Code, reason phrase, header lines.
type Answer = (u16, &'static str, String);

impl Pair {
    fn new() -> Pair {
        Pair::sized(1)
    }

    fn sized(bindings: usize) -> Pair {
        let mut plan = Plan::new();
        let spans = Bindings::plan(&mut plan, bindings);
        let bindings = Bindings::take(&plan.map().unwrap(), &spans).unwrap();
        Pair { location: Location::new(bindings), now: Tick(1_000_000), contacts: 10 }
    }

    /// `a` registers; `lines` are further header lines.
    fn register(&self, call_id: &str, cseq: u32, lines: &[&str]) -> Answer {
        self.register_as("sip:a@example.test", call_id, cseq, lines)
    }

    fn register_as(&self, to: &str, call_id: &str, cseq: u32, lines: &[&str]) -> Answer {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let text = format!(
            "REGISTER sip:example.test SIP/2.0\r\nVia: SIP/2.0/SCTP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <{to}>;tag=1\r\n\
             To: <{to}>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        self.register_bytes(text.as_bytes())
    }

    fn register_bytes(&self, bytes: &[u8]) -> Answer {
        let mut extra = Vec::new();
        let m = scan(bytes).unwrap();
        let (code, reason) = self.location.register(&m, self.now, WALL, &REGISTRAR, &limits(self.contacts), &mut extra);
        let audit = self.location.audit();
        assert_eq!(audit.lost, 0);
        (code, reason, String::from_utf8(extra).unwrap())
    }

    /// What is registered for `a`, as listed.
    fn listed(&self) -> Vec<String> {
        let (code, _, extra) = self.register("query", 1, &[]);
        assert_eq!(code, 200);
        contacts(&extra)
    }

    fn targets(&self) -> (Found, Vec<(String, u16)>) {
        self.targets_of("sip:a@example.test")
    }

    fn targets_of(&self, uri: &str) -> (Found, Vec<(String, u16)>) {
        let mut targets = Vec::new();
        let found = self.location.targets(&Uri::parse(uri.as_bytes()).unwrap(), self.now, &mut |uri, q| {
            targets.push((String::from_utf8_lossy(uri).into_owned(), q));
        });
        (found, targets)
    }
}

fn contacts(extra: &str) -> Vec<String> {
    extra.lines().filter_map(|line| line.strip_prefix("Contact: ")).map(str::to_owned).collect()
}

const Z1: &str = "Contact: <sip:a@192.0.2.1:5070;transport=sctp>";
const Z2: &str = "Contact: <sip:a@192.0.2.2>";

#[test]
fn a_binding_is_listed_with_what_it_has_left_and_a_date() {
    // F16, F08 (default)
    let mut pair = Pair::new();
    let (code, reason, extra) = pair.register("one", 1, &[Z1]);
    assert_eq!((code, reason), (200, "OK"));
    assert_eq!(
        extra,
        "Contact: <sip:a@192.0.2.1:5070;transport=sctp>;expires=1800\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    );
    pair.now = pair.now + 10_500;
    assert_eq!(pair.listed(), ["<sip:a@192.0.2.1:5070;transport=sctp>;expires=1790"]);
}

#[test]
fn an_unknown_required_extension_is_refused_and_named() {
    // F02
    let pair = Pair::new();
    let (code, reason, extra) = pair.register("one", 1, &["Require: path, gruu", Z1, "Require: outbound"]);
    assert_eq!((code, reason), (420, "Bad Extension"));
    assert_eq!(extra, "Unsupported: path, gruu\r\nUnsupported: outbound\r\n");
    assert_eq!(pair.targets().0, Found::Unknown);
}

#[test]
fn the_key_is_the_to_uri_without_parameters_unescaped() {
    // F04
    let pair = Pair::new();
    assert_eq!(pair.register_as("sip:%61@EXAMPLE.test;user=phone", "one", 1, &[Z1]).0, 200);
    assert_eq!(pair.targets().0, Found::Targets(1));
    assert_eq!(pair.targets_of("sip:A@example.test").0, Found::Unknown);
}

#[test]
fn what_cannot_be_an_address_of_record_is_not_found() {
    // F04
    let pair = Pair::new();
    for to in ["tel:+15551234", "sip:example.test", "sip:@example.test"] {
        assert_eq!(pair.register_as(to, "one", 1, &[Z1]).0, 404, "{to}");
    }
}

#[test]
fn a_query_changes_nothing_and_lists_all() {
    // F05
    let pair = Pair::new();
    assert!(pair.listed().is_empty());
    assert_eq!(pair.targets().0, Found::Unknown);
    pair.register("one", 5, &[Z1, Z2]);
    assert_eq!(pair.register("one", 1, &[]).0, 200);
    assert_eq!(pair.listed().len(), 2);
}

#[test]
fn a_star_stands_alone_and_with_expires_0() {
    // F06
    let pair = Pair::new();
    pair.register("one", 1, &[Z1]);
    for lines in [
        &["Contact: *"][..],
        &["Contact: *", "Expires: 1"],
        &["Contact: *", "Expires: none"],
        &["Contact: *", Z2, "Expires: 0"],
        &["Contact: <sip:a@192.0.2.2>, *", "Expires: 0"],
        &["Contact: *;expires=0", "Expires: 0"],
    ] {
        assert_eq!(pair.register("one", 2, lines).0, 400, "{lines:?}");
    }
    assert_eq!(pair.listed().len(), 1);
    assert_eq!(contacts(&pair.register("one", 2, &["Contact: *", "Expires: 0"]).2), [""; 0]);
    assert_eq!(pair.targets().0, Found::NoBinding);
}

#[test]
fn a_star_of_another_call_id_removes_all_and_an_old_one_nothing() {
    // F07
    let pair = Pair::new();
    pair.register("one", 5, &[Z1]);
    pair.register("two", 1, &[Z2]);
    assert_eq!(pair.register("one", 5, &["Contact: *", "Expires: 0"]).0, 500);
    assert_eq!(pair.listed().len(), 2);
    assert_eq!(pair.register("three", 1, &["Contact: *", "Expires: 0"]).0, 200);
    assert!(pair.listed().is_empty());
    assert_eq!(pair.register("three", 1, &["Contact: *", "Expires: 0"]).0, 200, "nothing left that is newer");
}

#[test]
fn the_expiry_is_the_parameter_then_the_header_then_the_default() {
    // F08
    let pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1>;expires=100, <sip:2@192.0.2.1>", "Expires: 200"]);
    pair.register("one", 2, &["Contact: <sip:3@192.0.2.1>;expires=soon, <sip:4@192.0.2.1>"]);
    pair.register("one", 3, &["Contact: <sip:5@192.0.2.1>", "Expires: -7"]);
    pair.register("one", 4, &["Contact: <sip:6@192.0.2.1>;expires=99999999999999999999"]);
    let seconds: Vec<_> = pair.listed().iter().map(|c| c.rsplit_once("expires=").unwrap().1.to_owned()).collect();
    assert_eq!(seconds, ["100", "200", "3600", "1800", "3600", "7200"]);
}

#[test]
fn a_brief_interval_is_refused_and_nothing_of_the_request_done() {
    // F09, F10
    let pair = Pair::new();
    let (code, reason, extra) = pair.register("one", 1, &[Z1, "Contact: <sip:a@192.0.2.2>;expires=59"]);
    assert_eq!((code, reason, extra.as_str()), (423, "Interval Too Brief", "Min-Expires: 60\r\n"));
    assert_eq!(pair.targets().0, Found::Unknown);
    assert_eq!(pair.register("one", 2, &[Z1, "Expires: 60"]).0, 200);
}

#[test]
fn bindings_are_found_by_uri_equality() {
    // F11
    let pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:a@Host.example.test;transport=SCTP;x=1>"]);
    pair.register("one", 2, &["Contact: <sip:%61@host.EXAMPLE.test;transport=sctp>"]);
    assert_eq!(pair.listed(), ["<sip:%61@host.EXAMPLE.test;transport=sctp>;expires=1800"]);
    pair.register("one", 3, &["Contact: <sip:a@host.example.test>, <sip:A@host.example.test;transport=sctp>"]);
    assert_eq!(pair.listed().len(), 3);
}

#[test]
fn another_call_id_updates_and_the_same_one_needs_a_higher_cseq() {
    // F12, F13
    let pair = Pair::new();
    pair.register("one", 10, &[Z1]);
    for cseq in [9, 10] {
        let (code, reason, extra) = pair.register("one", cseq, &[Z2, Z1, "Expires: 100"]);
        assert_eq!((code, reason, extra.as_str()), (500, "REGISTER Out of Order", ""));
        assert_eq!(pair.listed().len(), 1, "nothing of the request was done");
    }
    assert_eq!(pair.register("one", 11, &[Z1, "Expires: 100"]).0, 200);
    assert_eq!(pair.register("two", 1, &[Z1, "Expires: 200"]).0, 200);
    assert_eq!(pair.listed(), ["<sip:a@192.0.2.1:5070;transport=sctp>;expires=200"]);
    assert_eq!(pair.register("three", 1, &[Z1, "Expires: 0"]).0, 200);
    assert_eq!(pair.targets().0, Found::NoBinding);
}

#[test]
fn one_request_adds_refreshes_and_removes() {
    // F14
    let pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1>, <sip:2@192.0.2.1>"]);
    let (code, _, extra) =
        pair.register("one", 2, &["Contact: <sip:1@192.0.2.1>;expires=0, <sip:2@192.0.2.1>, <sip:3@192.0.2.1>"]);
    assert_eq!(code, 200);
    assert_eq!(contacts(&extra), ["<sip:2@192.0.2.1>;expires=1800", "<sip:3@192.0.2.1>;expires=1800"]);
    assert_eq!(pair.register("one", 3, &["Contact: <sip:9@192.0.2.1>;expires=0"]).0, 200, "not there: not removed");
}

#[test]
fn of_equal_contacts_in_one_request_the_last_counts() {
    let pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1>;q=0.1, <sip:1@192.0.2.1>;q=0.2"]);
    assert_eq!(pair.listed(), ["<sip:1@192.0.2.1>;q=0.2;expires=1800"]);
    pair.register("one", 2, &["Contact: <sip:1@192.0.2.1>;q=0.3, <sip:1@192.0.2.1>;expires=0"]);
    assert!(pair.listed().is_empty());
}

#[test]
fn all_contact_parameters_are_kept_and_q_orders_the_targets() {
    // F18, B25
    let pair = Pair::new();
    let instance = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>\"";
    let line = format!("Contact: \"A, the <first>\" <sip:1@192.0.2.1> ; q=0.5 ;expires= 300; {instance};reg-id=1;x");
    pair.register("one", 1, &[&line, "m: <sip:2@192.0.2.1>;q=0.7, <sip:3@192.0.2.1>, sip:4@192.0.2.1;q=0.7"]);
    assert_eq!(pair.listed()[0], format!("<sip:1@192.0.2.1>;q=0.5;{instance};reg-id=1;x;expires=300"));
    let (found, targets) = pair.targets();
    assert_eq!(found, Found::Targets(4));
    let order: Vec<_> = targets.iter().map(|(uri, q)| (&uri[4..5], *q)).collect();
    assert_eq!(order, [("3", 1000), ("2", 700), ("4", 700), ("1", 500)]);
}

#[test]
fn a_folded_contact_is_listed_on_one_line() {
    let pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1>;a=\"b\r\n c\"\r\n ;d=e"]);
    assert_eq!(pair.listed(), ["<sip:1@192.0.2.1>;a=\"b   c\";d=e;expires=1800"]);
}

#[test]
fn an_expired_binding_is_no_target_and_not_listed() {
    // F19, B23
    let mut pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1>;expires=100", Z2]);
    let free = pair.location.audit().free;
    assert_eq!(pair.location.earliest(), pair.now + 100_000);
    pair.now = pair.now + 99_999;
    assert_eq!(pair.targets().0, Found::Targets(2));
    pair.now = pair.now + 1;
    assert_eq!(pair.targets().0, Found::Targets(1));
    assert_eq!(pair.listed(), ["<sip:a@192.0.2.2>;expires=1700"]);
    assert_eq!(pair.location.count(), 2, "a look-up changes nothing");
    assert_eq!(pair.location.expire(pair.now), 1);
    assert_eq!((pair.location.count(), pair.location.audit().free), (1, free + 2), "the binding and its block");
    pair.now = pair.now + 1_700_000;
    assert_eq!(pair.location.expire(pair.now), 1);
    assert_eq!((pair.location.earliest(), pair.targets().0), (Tick::NEVER, Found::NoBinding));
}

#[test]
fn a_refreshed_binding_lives_on_and_its_old_deadline_is_harmless() {
    let mut pair = Pair::new();
    pair.register("one", 1, &[Z1, "Expires: 60"]);
    pair.now = pair.now + 50_000;
    pair.register("one", 2, &[Z1, "Expires: 60"]);
    pair.now = pair.now + 10_000;
    assert_eq!(pair.location.expire(pair.now), 0);
    assert_eq!(pair.targets().0, Found::Targets(1));
    assert_eq!(pair.location.earliest(), pair.now + 50_000);
}

#[test]
fn an_expired_binding_binds_no_cseq() {
    let mut pair = Pair::new();
    pair.register("one", 9, &[Z1, "Expires: 60"]);
    pair.now = pair.now + 60_000;
    assert_eq!(pair.register("one", 1, &[Z1]).0, 200);
}

#[test]
fn a_user_who_never_registered_is_unknown_and_one_who_left_has_no_binding() {
    // B23
    let pair = Pair::new();
    assert_eq!(pair.targets().0, Found::Unknown);
    pair.register("one", 1, &[Z1, "Expires: 0"]);
    assert_eq!(pair.targets().0, Found::Unknown, "nobody becomes known by leaving");
    pair.register("one", 2, &[Z1]);
    pair.register("one", 3, &[Z1, "Expires: 0"]);
    assert_eq!(pair.targets().0, Found::NoBinding);
}

#[test]
fn each_target_comes_once_and_none_that_is_not_sip() {
    // B22. Equality is not transitive: the first two differ, the third equals both and takes the place of one.
    let pair = Pair::new();
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1;x=1>;q=0.1"]);
    pair.register("one", 2, &["Contact: <sip:1@192.0.2.1;x=2>;q=0.2", "Contact: <mailto:a@example.test>"]);
    pair.register("two", 1, &["Contact: <sip:1@192.0.2.1>;q=0.3"]);
    assert_eq!(pair.listed().len(), 3);
    assert_eq!(pair.targets(), (Found::Targets(1), vec![("sip:1@192.0.2.1".into(), 300)]));
    pair.register("one", 3, &["Contact: <sip:1@192.0.2.1>;expires=0"]);
    pair.register("one", 4, &["Contact: <sip:1@192.0.2.1>;expires=0"]);
    assert_eq!((pair.targets().0, pair.listed().len()), (Found::NoBinding, 1));
}

#[test]
fn more_contacts_than_allowed_are_refused() {
    // F20
    let mut pair = Pair::new();
    pair.contacts = 2;
    pair.register("one", 1, &["Contact: <sip:1@192.0.2.1>, <sip:2@192.0.2.1>"]);
    let (code, reason, _) = pair.register("one", 2, &["Contact: <sip:3@192.0.2.1>"]);
    assert_eq!((code, reason), (403, "Too Many Contacts"));
    let swap = "Contact: <sip:3@192.0.2.1>, <sip:1@192.0.2.1>;expires=0";
    assert_eq!(pair.register("one", 3, &[swap]).0, 200);
    pair.contacts = 1;
    assert_eq!(pair.register("one", 4, &["Contact: <sip:3@192.0.2.1>, <sip:2@192.0.2.1>"]).0, 200, "refreshed");
    assert_eq!(pair.register("one", 5, &["Contact: <sip:4@192.0.2.1>"]).0, 403);
    let flood: String = (0..1000).map(|n| format!("<sip:{n}@192.0.2.1>;expires=0,")).collect();
    assert_eq!(pair.register("one", 6, &[&format!("Contact: {flood}<sip:z@192.0.2.1>")]).0, 403);
}

#[test]
fn a_contact_with_more_parameters_than_can_be_compared_is_refused() {
    // F11: each parameter of one URI is looked for in the other.
    let pair = Pair::new();
    let with = |n: usize, mark: char| -> String {
        let entries =
            (0..n).map(|n| format!("{}p{n}=1", if n == 0 && mark == '&' { '?' } else { mark })).collect::<String>();
        format!("Contact: <sip:1@192.0.2.1{entries}>")
    };
    for (cseq, mark) in [(1, ';'), (3, '&')] {
        assert_eq!(pair.register("one", cseq, &[&with(MOST_PARAMETERS, mark)]).0, 200);
        let (code, reason, _) = pair.register("one", cseq + 1, &[&with(MOST_PARAMETERS + 1, mark)]);
        assert_eq!((code, reason), (400, "Contact With Too Many Parameters"));
    }
}

#[test]
fn a_hundred_bindings_are_all_listed() {
    // F16
    let mut pair = Pair::new();
    pair.contacts = 100;
    for n in 1..=100 {
        assert_eq!(pair.register("one", n, &[&format!("Contact: <sip:{n}@192.0.2.1>")]).0, 200);
    }
    assert_eq!((pair.listed().len(), pair.targets().0), (100, Found::Targets(100)));
}

#[test]
fn a_contact_that_cannot_be_a_target_is_refused() {
    let pair = Pair::new();
    let long = format!("<sip:{}@192.0.2.1>", "a".repeat(LONGEST_CONTACT));
    for contact in [
        "",
        "nonsense",
        "<sip:>",
        "<sip:a@192.0.2.1",
        "<sip:a b@192.0.2.1>",
        "<sip:a@192.0.2.1:99999>",
        "\"open <sip:a@192.0.2.1>",
        "<sip:a@192.0.2.1>;x=<",
        "<sip:a@192.0.2.1>;=y",
        "<sip:\u{e9}@192.0.2.1>",
        &long,
    ] {
        let answer = pair.register("one", 1, &[Z1, &format!("Contact: {contact}")]);
        assert_eq!(answer.0, 400, "{contact} {answer:?}");
    }
    assert_eq!(pair.register(&"c".repeat(LONGEST_CALL_ID + 1), 1, &[Z1]).0, 400);
    assert_eq!(pair.targets().0, Found::Unknown);
}

#[test]
fn record_route_is_ignored() {
    // F17
    let pair = Pair::new();
    let (code, _, extra) = pair.register("one", 1, &["Record-Route: <sip:192.0.2.9;lr>", Z1]);
    assert_eq!(code, 200);
    assert!(!extra.contains("192.0.2.9"));
}

/// A usual phone: 100 bytes of Contact URI, 36 of Call-ID.
fn usual(pair: &Pair, nth: usize) -> Answer {
    let contact = format!("Contact: <sip:user{nth:08}@192.0.2.1:5060;transport=sctp;ob;line={:057}>", nth);
    let user = format!("sip:user{nth}@example.test");
    pair.register_quietly(&user, &format!("{nth:036}"), &contact)
}

impl Pair {
    /// Without an audit each time.
    fn register_quietly(&self, to: &str, call_id: &str, contact: &str) -> Answer {
        let text = format!(
            "REGISTER sip:example.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <{to}>;tag=1\r\n\
             To: <{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 REGISTER\r\n{contact}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut extra = Vec::new();
        let m = scan(text.as_bytes()).unwrap();
        let (code, reason) = self.location.register(&m, self.now, WALL, &REGISTRAR, &limits(10), &mut extra);
        (code, reason, String::from_utf8(extra).unwrap())
    }
}

#[test]
fn a_binding_costs_at_most_400_bytes() {
    let mut plan = Plan::new();
    let n = 25 * BINDINGS;
    let _ = Bindings::plan(&mut plan, n);
    let bytes = plan.bytes() as f64 / n as f64;
    println!("{bytes:.1} bytes a binding");
    assert!(bytes <= 400.0, "{bytes}");
}

#[test]
fn the_first_refusal_comes_above_90_percent_and_nothing_is_lost() {
    let mut pair = Pair::sized(100_000);
    let size = pair.location.bindings.size();
    let mut done = 0;
    let (code, reason, extra) = loop {
        let answer = usual(&pair, done);
        if answer.0 != 200 {
            break answer;
        }
        done += 1;
    };
    let full = done as f64 / size as f64;
    println!("first refusal with {done} of {size} bindings: {full:.3}");
    assert_eq!((code, reason, extra.as_str()), (503, "Location Table Full", "Retry-After: 30\r\n"));
    assert!(full > 0.9, "{full}");
    assert_eq!(pair.location.count(), done);
    let audit = pair.location.audit();
    assert_eq!((audit.live, audit.lost), (2 * done + 3 * done, 0));

    // A full bucket still refreshes, and removes.
    let refused = format!("sip:user{done}@example.test");
    assert_eq!(pair.targets_of(&refused).0, Found::Unknown);
    assert_eq!(pair.targets_of("sip:user7@example.test").0, Found::Targets(1));

    pair.now = pair.now + 1_800_000;
    assert_eq!(pair.location.expire(pair.now), done);
    let audit = pair.location.audit();
    assert_eq!((audit.live, audit.lost, pair.location.count()), (done, 0, 0), "known, without a binding");
    assert_eq!(pair.targets_of("sip:user7@example.test").0, Found::NoBinding);
}

#[test]
fn a_full_bucket_still_refreshes_and_forgets_who_has_no_binding() {
    let mut pair = Pair::sized(BINDINGS);
    for nth in 0..BINDINGS {
        assert_eq!(usual(&pair, nth).0, 200);
    }
    assert_eq!(usual(&pair, BINDINGS).0, 503);
    let again = "Contact: <sip:user00000007@192.0.2.1:5060;transport=sctp>";
    assert_eq!(pair.register_quietly("sip:user7@example.test", "another", again).0, 200);
    pair.now = pair.now + 1_800_000;
    pair.location.expire(pair.now);
    assert_eq!(pair.targets_of("sip:user0@example.test").0, Found::NoBinding);
    for nth in BINDINGS..BINDINGS + 100 {
        assert_eq!(usual(&pair, nth).0, 200);
    }
    let forgotten =
        (0..BINDINGS).filter(|nth| pair.targets_of(&format!("sip:user{nth}@example.test")).0 == Found::Unknown).count();
    assert_eq!((forgotten, pair.location.audit().lost), (100, 0));
}
