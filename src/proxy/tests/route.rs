//! Route preprocessing (RFC 3261 §16.4) and whose a request is (§16.5).

use super::house::{ADVERTISED, FIVE, House, in_dialog, read, request, values};
use crate::message::StrictRoute;
use crate::proxy::route::Whose;

const BYE_TO: &str = "sip:z@192.0.2.2";

fn routes(uris: &[&str]) -> String {
    uris.iter().map(|uri| format!("Route: <{uri}>\r\n")).collect()
}

#[test]
fn our_name_comes_off_the_top_once_or_twice() {
    let house = House::new(FIVE);
    let ours = "sip:192.0.2.9:5060;transport=sctp;lr";
    let cases: [(&[&str], u16, Option<&str>); 6] = [
        (&[], 0, None),
        (&[ours], 1, None),                         // B20
        (&[ours, "sip:[2001:db8::9];lr"], 2, None), // K21
        (&[ours, "sip:192.0.2.3;lr"], 1, Some("sip:192.0.2.3;lr")),
        (&[ours, ours, "sip:192.0.2.3;lr", "sip:192.0.2.4;lr"], 2, Some("sip:192.0.2.3;lr")),
        (&["sip:192.0.2.3;lr", ours], 0, Some("sip:192.0.2.3;lr")),
    ];
    for (uris, cut, next) in cases {
        let text = in_dialog("BYE", BYE_TO, &routes(uris));
        let m = read(&text);
        let routing = house.preprocess(&m);
        assert_eq!(routing.cut, cut, "{uris:?}");
        assert_eq!(routing.next.map(|next| m.of(next.uri)), next.map(str::as_bytes), "{uris:?}");
        assert_eq!((routing.uri, routing.strict), (BYE_TO.as_bytes(), None));
    }
}

#[test]
fn our_name_comes_off_however_often_it_stands_there() {
    let house = House::new(FIVE);
    let (ours, next, strict) = ("sip:192.0.2.9:5060;lr", "sip:192.0.2.3;lr", "sip:192.0.2.3");
    for times in [3, 5, 200] {
        let all = vec![ours; times];
        let forms = |more: &[&str]| {
            let uris = [&all, more].concat();
            let line = uris.iter().map(|uri| format!("<{uri}>")).collect::<Vec<_>>().join(", ");
            let (upper, lower) = uris.split_at(2);
            let lower = lower.iter().map(|uri| format!("<{uri}>")).collect::<Vec<_>>().join(",\r\n ");
            [routes(&uris), format!("Route: {line}\r\n"), format!("{}X: y\r\nRoute: {lower}\r\n", routes(upper))]
        };
        let left = |uri: &str, headers: &str| {
            let copy = house.forwarded(&in_dialog("BYE", uri, headers), 0, 1, BYE_TO);
            let heads = copy.lines().filter(|line| line.starts_with("Route")).count();
            let values: Vec<String> = values(&copy, "Route").map(str::to_owned).collect();
            assert_eq!((heads, read(&copy).route_count), (values.len().min(1), values.len() as u16), "{copy}");
            (copy.lines().next().unwrap_or_default().to_owned(), values.join(" "))
        };
        let bye = |uri: &str| format!("BYE {uri} SIP/2.0");
        for headers in forms(&[]) {
            let text = in_dialog("BYE", BYE_TO, &headers);
            assert_eq!(usize::from(house.preprocess(&read(&text)).cut), times);
            assert_eq!(left(BYE_TO, &headers), (bye(BYE_TO), String::new())); // B20
        }
        for headers in forms(&[next]) {
            assert_eq!(left(BYE_TO, &headers), (bye(BYE_TO), next.to_owned()));
        }
        for headers in forms(&[strict]) {
            assert_eq!(left(BYE_TO, &headers), (bye(strict), BYE_TO.to_owned())); // B31
        }
        for headers in forms(&[BYE_TO]) {
            assert_eq!(left(ours, &headers), (bye(BYE_TO), String::new())); // B18
        }
        for headers in forms(&[next, BYE_TO]) {
            assert_eq!(left(ours, &headers), (bye(BYE_TO), next.to_owned()));
        }
    }
}

#[test]
fn both_values_of_one_line_come_off() {
    let house = House::new(FIVE);
    let text =
        in_dialog("BYE", BYE_TO, "Route: <sip:192.0.2.9;lr>, <sip:192.0.2.9;transport=tcp;lr>, <sip:192.0.2.3;lr>\r\n");
    assert_eq!(house.preprocess(&read(&text)).cut, 2);
    let copy = house.forwarded(&text, 0, 1, BYE_TO);
    assert_eq!(values(&copy, "Route").collect::<Vec<_>>(), ["sip:192.0.2.3;lr"]);
}

#[test]
fn a_route_that_we_gave_is_told_from_one_that_only_names_us() {
    for house in [House::new(FIVE), House::new(ADVERTISED)] {
        let invite = house.forwarded(&request("INVITE", "sip:z@example.test", ""), 0, 1, BYE_TO);
        let given: Vec<_> = values(&invite, "Record-Route").collect();
        assert_eq!(given.len(), 2); // K20
        let bye = in_dialog("BYE", BYE_TO, &routes(&given));
        let routing = house.preprocess(&read(&bye));
        assert!(routing.by_our_route);
        assert_eq!(routing.cut, 2, "our own Route under the name we gave it: {given:?}");
        // The callee's side has the caller's tag in its To.
        let from_callee = bye.replace("tag=a\r", "tag=x\r").replace("tag=z", "tag=a").replace("tag=x", "tag=z");
        assert!(house.preprocess(&read(&from_callee)).by_our_route, "{from_callee}");
        // Another dialog, somebody else in a call of the same name, or only our name: no pass to relay.
        for other in [bye.replace("Call-ID: one", "Call-ID: two"), bye.replace("tag=a\r", "tag=b\r")] {
            let routing = house.preprocess(&read(&other));
            assert!(!routing.by_our_route, "{other}");
            assert_eq!(routing.cut, 2);
        }
        let names = in_dialog("BYE", BYE_TO, &routes(&["sip:192.0.2.9;lr"]));
        assert!(!house.preprocess(&read(&names)).by_our_route);
    }
}

#[test]
fn a_strict_router_before_us_put_our_route_into_the_request_uri() {
    let house = House::new(FIVE);
    let text = in_dialog("BYE", "sip:192.0.2.9:5060;lr", &routes(&["sip:192.0.2.3;lr", BYE_TO]));
    let m = read(&text);
    let routing = house.preprocess(&m);
    assert_eq!((routing.uri, routing.strict), (BYE_TO.as_bytes(), Some(StrictRoute::Previous))); // B18
    assert_eq!(routing.next.map(|next| m.of(next.uri)), Some(&b"sip:192.0.2.3;lr"[..]));
    let copy = house.forwarded(&text, 0, 0, BYE_TO);
    assert!(copy.starts_with("BYE sip:z@192.0.2.2 SIP/2.0\r\n"), "{copy}");
    assert_eq!(values(&copy, "Route").collect::<Vec<_>>(), ["sip:192.0.2.3;lr"]);
}

#[test]
fn a_strict_router_before_us_and_no_other_behind_us() {
    let house = House::new(FIVE);
    let text = in_dialog("BYE", "sip:192.0.2.9;transport=sctp;lr", &routes(&[BYE_TO]));
    let m = read(&text);
    let routing = house.preprocess(&m);
    assert_eq!((routing.uri, routing.cut, routing.next), (BYE_TO.as_bytes(), 0, None)); // B18
    assert!(matches!(house.whose(&m), Whose::Elsewhere(uri) if uri.text == BYE_TO.as_bytes()));
    let copy = house.forwarded(&text, 0, 0, BYE_TO);
    assert_eq!(values(&copy, "Route").count(), 0, "{copy}");
}

#[test]
fn our_address_as_request_uri_without_lr_is_no_strict_route() {
    let house = House::new(FIVE);
    let text = request("OPTIONS", "sip:192.0.2.9", &routes(&["sip:192.0.2.3;lr"]));
    assert_eq!(house.preprocess(&read(&text)).strict, None);
}

#[test]
fn a_strict_router_behind_us_gets_its_uri_as_request_uri() {
    let house = House::new(FIVE);
    let text = in_dialog("BYE", BYE_TO, &routes(&["sip:192.0.2.9;lr", "sip:192.0.2.3", "sip:192.0.2.4;lr"]));
    let m = read(&text);
    let routing = house.preprocess(&m);
    assert_eq!((routing.cut, routing.strict), (1, Some(StrictRoute::Next)));
    assert!(matches!(house.whose(&m), Whose::Route(uri) if uri.text == b"sip:192.0.2.3"));
    let copy = house.forwarded(&text, 0, 0, BYE_TO);
    assert!(copy.starts_with("BYE sip:192.0.2.3 SIP/2.0\r\n"), "{copy}"); // B31
    assert_eq!(values(&copy, "Route").collect::<Vec<_>>(), ["sip:192.0.2.4;lr", BYE_TO]);
}

#[test]
fn strict_routers_on_both_sides() {
    let house = House::new(FIVE);
    let text = in_dialog("BYE", "sip:192.0.2.9;lr", &routes(&["sip:192.0.2.3", BYE_TO]));
    assert_eq!(house.preprocess(&read(&text)).strict, Some(StrictRoute::Both));
    let copy = house.forwarded(&text, 0, 0, BYE_TO);
    assert!(copy.starts_with("BYE sip:192.0.2.3 SIP/2.0\r\n"), "{copy}"); // B18, B31
    assert_eq!(values(&copy, "Route").collect::<Vec<_>>(), [BYE_TO]);
}

#[test]
fn whose_a_request_is() {
    let house = House::new(FIVE);
    let whose = |uri: &str, headers: &str| match house.whose(&read(&request("INVITE", uri, headers))) {
        Whose::Route(_) => "route",
        Whose::Location(_) => "location",
        Whose::Ourselves => "ourselves",
        Whose::Elsewhere(_) => "elsewhere",
        Whose::Unreadable => "unreadable",
    };
    assert_eq!(whose("sip:z@example.test", ""), "location"); // B22
    assert_eq!(whose("sip:z@192.0.2.9:5060", ""), "location");
    assert_eq!(whose("sip:example.test", ""), "ourselves");
    assert_eq!(whose("sip:192.0.2.9;transport=tcp", ""), "ourselves");
    assert_eq!(whose("sip:z@other.test", ""), "elsewhere"); // B21, B24
    assert_eq!(whose("sip:z@192.0.2.9:5099", ""), "elsewhere");
    assert_eq!(whose("sip:z@example.test;maddr=192.0.2.3", ""), "elsewhere"); // B21
    assert_eq!(whose("sip:z@example.test;maddr=192.0.2.9", ""), "location");
    assert_eq!(whose("sip:z@example.test", "Route: <sip:192.0.2.3;lr>\r\n"), "route"); // B32
    assert_eq!(whose("sip:z@example.test", "Route: <sip:192.0.2.9;lr>\r\n"), "location");
    assert_eq!(whose("sip:z@example.test", "Route: <sip:example.test;lr>\r\n"), "location");
    assert_eq!(whose("sip:z@example.test", "Route: <sip:192.0.2.3:99999;lr>\r\n"), "unreadable");
}
