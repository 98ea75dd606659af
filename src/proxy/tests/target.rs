//! From a URI to the addresses that are tried.

use super::house::{FIVE, House, uri};
use crate::proxy::target::{NoHop, hops};
use crate::transport::Transport;

/// Transport, address and listener of each.
fn found(house: &House, text: &str, came_in: u8) -> Result<Vec<String>, NoHop> {
    let hops = hops(&uri(text), &house.config.live, &house.identity, came_in)?;
    let shown = hops.iter().map(|flow| {
        let transport = Transport::from_u8(flow.transport).map_or("?", Transport::uri_token);
        format!("{transport}:{} from {}", flow.peer, flow.listener)
    });
    Ok(shown.collect())
}

fn one(text: &str) -> Result<Vec<String>, NoHop> {
    found(&House::new(FIVE), text, 0)
}

#[test]
fn a_numeric_host_is_reached_over_udp_at_5060_unless_the_uri_says_more() {
    assert_eq!(one("sip:z@192.0.2.2").unwrap(), ["udp:192.0.2.2:5060 from 0"]); // A23, J03
    assert_eq!(one("sip:z@192.0.2.2:5070").unwrap(), ["udp:192.0.2.2:5070 from 0"]);
    assert_eq!(one("sip:z@192.0.2.2;transport=tcp").unwrap(), ["tcp:192.0.2.2:5060 from 1"]); // J02
    assert_eq!(one("sip:z@192.0.2.2:5070;transport=SCTP").unwrap(), ["sctp:192.0.2.2:5070 from 2"]); // A03, A04
}

#[test]
fn an_ipv6_host_is_reached_from_an_ipv6_listener() {
    assert_eq!(one("sip:z@[2001:db8::2]").unwrap(), ["udp:[2001:db8::2]:5060 from 3"]);
    assert_eq!(one("sip:z@[2001:db8::2]:5070;transport=sctp").unwrap(), ["sctp:[2001:db8::2]:5070 from 4"]);
    assert_eq!(one("sip:z@[2001:db8::2];transport=tcp"), Err(NoHop::NoListener));
}

#[test]
fn maddr_is_where_it_goes() {
    assert_eq!(one("sip:z@other.test:5070;maddr=192.0.2.3").unwrap(), ["udp:192.0.2.3:5070 from 0"]); // J01
    assert_eq!(one("sip:z@192.0.2.2;maddr=[2001:db8::3]").unwrap(), ["udp:[2001:db8::3]:5060 from 3"]);
}

#[test]
fn a_transport_that_nobody_here_speaks_is_no_hop() {
    assert_eq!(one("sip:z@192.0.2.2;transport=tls"), Err(NoHop::NoListener));
    assert_eq!(one("sip:z@192.0.2.2;transport=carrier-pigeon"), Err(NoHop::NoListener));
    let house = House::new("[[listen]]\ntransport = \"udp\"\naddress = \"192.0.2.9:5060\"\n");
    assert_eq!(found(&house, "sip:z@192.0.2.2;transport=sctp", 0), Err(NoHop::NoListener));
}

#[test]
fn sips_is_never_sent_over_a_plain_transport() {
    assert_eq!(one("sips:z@192.0.2.2"), Err(NoHop::Sips)); // A30, B32
}

#[test]
fn a_name_that_nothing_is_configured_for_is_unknown() {
    assert_eq!(one("sip:z@other.test"), Err(NoHop::UnknownDomain));
    assert_eq!(one("sip:z@192.0.2.2;maddr=other.test"), Err(NoHop::UnknownDomain));
}

#[test]
fn next_hops_are_tried_in_the_order_they_are_written() {
    let targets = r#"
        [[next_hop]]
        domain = "other.test"
        targets = ["sctp:192.0.2.5:5070", "udp:192.0.2.3", "tcp:192.0.2.4:5060", "udp:[2001:db8::5]:5060"]
        [[next_hop]]
        domain = "third.test"
        targets = ["udp:192.0.2.6"]
    "#;
    let house = House::new(&format!("{FIVE}{targets}"));
    let all = [
        "sctp:192.0.2.5:5070 from 2",
        "udp:192.0.2.3:5060 from 0",
        "tcp:192.0.2.4:5060 from 1",
        "udp:[2001:db8::5]:5060 from 3",
    ];
    assert_eq!(found(&house, "sip:z@other.test", 0).unwrap(), all);
    // The URI's own port and transport are for who asks the DNS.
    assert_eq!(found(&house, "sip:z@OTHER.test:5099;transport=tcp", 1).unwrap(), all);
    assert_eq!(found(&house, "sip:z@third.test", 3).unwrap(), ["udp:192.0.2.6:5060 from 0"]);
    assert_eq!(found(&house, "sip:z@192.0.2.2;maddr=third.test", 0).unwrap(), ["udp:192.0.2.6:5060 from 0"]);
}
