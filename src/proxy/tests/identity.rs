//! Who we are, and under which names.

use super::house::{ADVERTISED, FIVE, House};
use crate::transport::{Address, Transport};

#[test]
fn our_addresses_are_ours_with_our_port_or_none() {
    let house = House::new(FIVE);
    for text in [
        "sip:192.0.2.9",
        "sip:192.0.2.9:5060;transport=sctp",
        "sip:a@192.0.2.9",
        "sip:[2001:db8::9]",
        "sip:[2001:DB8:0:0::9]:5060;lr",
    ] {
        assert!(house.is_address(text) && house.is_ours(text), "{text}");
    }
    for text in ["sip:192.0.2.9:5061", "sip:192.0.2.8", "sip:[2001:db8::8]", "sip:[2001:db8::9]:5061", "sip:name.test"]
    {
        assert!(!house.is_address(text) && !house.is_ours(text), "{text}");
    }
}

#[test]
fn our_domains_are_ours_but_no_addresses() {
    let house = House::new(FIVE);
    for text in ["sip:z@example.test", "sip:z@EXAMPLE.test:5060", "sip:example.test"] {
        assert!(house.is_ours(text) && !house.is_address(text), "{text}");
    }
    assert!(!house.is_ours("sip:z@example.test:5099"));
    assert!(!house.is_ours("sip:z@sub.example.test"));
}

#[test]
fn on_a_wildcard_the_addresses_of_the_machine_are_ours_in_their_family() {
    let here = ["127.0.0.1", "192.0.2.7", "::1", "fe80::7"].map(|ip| ip.parse().unwrap());
    let wild = |address: &str| {
        let listen = format!("[[listen]]\ntransport = \"udp\"\naddress = \"{address}:5070\"\nadvertise = \"sip.test\"");
        House::on(&listen, &here)
    };
    let (v4, v6) = (["127.0.0.1:5070", "192.0.2.7", "127.5.5.5"], ["[::1]:5070", "[fe80::7]"]);
    for (house, ours, others) in [(wild("0.0.0.0"), &v4[..], &v6[..]), (wild("[::]"), &v6[..], &v4[..])] {
        assert!(ours.iter().all(|host| house.is_ours(&format!("sip:{host}"))), "{ours:?}");
        assert!(!others.iter().any(|host| house.is_ours(&format!("sip:{host}"))), "{others:?}");
        assert!(!house.is_ours("sip:192.0.2.7:5071") && !house.is_ours("sip:192.0.2.8"));
    }
    // Who listens on one address has no other.
    let house = House::on(FIVE, &here);
    assert!(v4.iter().chain(&v6).all(|host| !house.is_ours(&format!("sip:{host}"))));
}

#[test]
fn an_advertised_name_is_ours_with_the_advertised_port_and_the_real_one_with_its_own() {
    let house = House::new(ADVERTISED);
    for text in [
        "sip:sip.example.net:15060",
        "sip:SIP.example.net",
        "sip:192.0.2.9:5070",
        "sip:192.0.2.9",
        "sip:203.0.113.9:15080",
    ] {
        assert!(house.is_address(text) && house.is_ours(text), "{text}");
    }
    // Who else may listen there?
    for text in ["sip:sip.example.net:5061", "sip:192.0.2.9:15060", "sip:203.0.113.9:5061"] {
        assert!(!house.is_address(text), "{text}");
    }
    assert!(house.is_ours("sip:z@example.test:15060"), "our domain with a port that others see");
}

#[test]
fn the_via_we_write_is_one_we_know() {
    let five = House::new(FIVE);
    assert_eq!(five.identity.via(2), b"Via: SIP/2.0/SCTP 192.0.2.9:5060;branch="); // A01
    assert_eq!(five.identity.via(3), b"Via: SIP/2.0/UDP [2001:db8::9]:5060;branch=");
    assert!(five.identity.is_sent_by(b"192.0.2.9", Some(5060)));
    assert!(five.identity.is_sent_by(b"[2001:db8::9]", Some(5060)));
    assert!(!five.identity.is_sent_by(b"192.0.2.9", Some(5061)));
    let advertised = House::new(ADVERTISED);
    let via = String::from_utf8(advertised.identity.via(0).to_vec()).unwrap();
    assert!(via.eq_ignore_ascii_case("Via: SIP/2.0/UDP sip.example.net:15060;branch="), "{via}"); // E15
    assert!(advertised.identity.is_sent_by(b"sip.example.net", Some(15_060)));
    assert!(advertised.identity.is_sent_by(b"203.0.113.9", Some(15_080)));
    assert!(!advertised.identity.is_sent_by(b"sip.example.net", Some(5_061)));
}

#[test]
fn a_message_goes_out_where_it_came_in_when_that_fits() {
    let house = House::new(
        r#"
        [[listen]]
        transport = "udp"
        address = "192.0.2.9:5060"
        [[listen]]
        transport = "udp"
        address = "198.51.100.9:5060"
        [[listen]]
        transport = "tcp"
        address = "[2001:db8::9]:5060"
        "#,
    );
    let v4 = Address::new([192, 0, 2, 2].into(), 5060);
    let v6 = Address::new("2001:db8::2".parse().unwrap(), 5060);
    let from = |transport, to, came_in| house.identity.listener(transport, to, came_in);
    assert_eq!(from(Transport::Udp, &v4, 1), Some(1));
    assert_eq!(from(Transport::Udp, &v4, 2), Some(0));
    assert_eq!(from(Transport::Tcp, &v6, 0), Some(2));
    assert_eq!(from(Transport::Udp, &v6, 0), None, "no listener of that family");
    assert_eq!(from(Transport::Tcp, &v4, 2), None);
    assert_eq!(from(Transport::Sctp, &v4, 0), None);
}
