//! The report and its warnings, as operators read them.

#![allow(clippy::unwrap_used)]

use super::*;

fn listen(transport: &str, address: &str, more: &str) -> String {
    format!("[[listen]]\ntransport = \"{transport}\"\naddress = {address}\n{more}")
}

#[test]
fn check_says_how_sctp_goes_inside_udp() {
    let says = |stack: &str, more: &str, kernel_has_sctp| {
        let text = listen("sctp", "\"192.0.2.1:5060\"", &format!("stack = \"{stack}\"\n{more}"));
        let room = Room::of_this_machine();
        let report = report(&Config::from_text(&text).unwrap(), 0, &room, kernel_has_sctp);
        let (_, tunnel) = report.lines().next().unwrap().split_once("192.0.2.1:5060").unwrap();
        tunnel.split_once(", as ").unwrap().0.to_string()
    };
    let port = "encapsulation_port = 9900";
    for kernel_has_sctp in [true, false] {
        assert_eq!(says("user", "", kernel_has_sctp), ", in user space inside UDP port 9899");
        assert_eq!(says("kernel", port, kernel_has_sctp), ", also inside UDP port 9900");
    }
    assert_eq!([says("auto", "", true), says("auto", port, true)], ["", ", also inside UDP port 9900"]);
    assert_eq!(says("auto", "", false), ", in user space inside UDP port 9899");
    assert_eq!(says("auto", port, false), ", in user space inside UDP port 9900");
}

#[test]
fn check_says_what_sctp_in_user_space_may_hold_beside_the_shared_memory() {
    let says = |stack: &str| {
        let limits = "\n[limits]\nassociations = 1000\nmessage_bytes = 65535\nassociation_queue_bytes = 262144\n";
        let text = listen("sctp", "\"192.0.2.1:5060\"", &format!("stack = \"{stack}\"")) + limits;
        let room = Room::of_this_machine();
        let report = report(&Config::from_text(&text).unwrap(), 0, &room, true);
        report.lines().find(|line| line.contains("workers' own")).map(|line| line.trim().to_string())
    };
    // A thousand queues of 256 KiB, and receive windows of four messages.
    assert_eq!(says("user").unwrap(), "up to 500 MiB of workers' own, if every SCTP association stalls");
    assert_eq!(says("kernel"), None);
}

#[test]
fn check_warns_of_what_works_and_is_perhaps_not_meant() {
    let warnings = |toml: &str| super::warnings(&Config::from_text(toml).unwrap(), true);
    assert_eq!(warnings(""), Vec::<String>::new());
    for (stack, expected) in
        [("kernel", Some("`serve` cannot open it")), ("auto", Some("in user space over UDP port 9899")), ("user", None)]
    {
        let text = listen("sctp", "\"192.0.2.1:5060\"", &format!("stack = \"{stack}\""));
        let without = super::warnings(&Config::from_text(&text).unwrap(), false);
        let found = without.iter().any(|line| expected.is_some_and(|expected| line.contains(expected)));
        assert!(found == expected.is_some() && without.len() == usize::from(found), "{stack}: {without:?}");
    }
    let outside = listen("udp", "\"192.0.2.1:5060\"", "");
    for (network, warned) in [("0.0.0.0/0", true), ("8.8.8.0/24", true), ("10.0.0.0/7", true), ("10.1.0.0/16", false)] {
        let text = format!("{outside}[[allow]]\nregister = [\"{network}\", \"fd00::/8\"]");
        let found = warnings(&text).iter().filter(|line| line.contains("without a password")).count();
        assert_eq!(found == 1, warned, "{network}");
    }
    assert!(warnings("[[allow]]\nregister = [\"0.0.0.0/0\"]").is_empty(), "loopback listeners only");
    for (network, warned) in [
        ("0.0.0.0/0", true),
        ("128.0.0.0/1", true),
        ("::/0", true),
        ("::ffff:0.0.0.0/96", true),
        // A neighbour's, and our own.
        ("203.0.113.0/24", false),
        ("2001:db8::/32", false),
        ("10.0.0.0/8", false),
    ] {
        let found = warnings(&format!("{outside}[[allow]]\nrelay = [\"{network}\"]"));
        assert_eq!(
            found.iter().filter(|line| line.contains("an open relay")).count(),
            usize::from(warned),
            "{network}"
        );
        assert_eq!(found.len(), usize::from(warned), "{found:?}");
    }
    assert!(warnings("[[allow]]\nrelay = [\"0.0.0.0/0\"]").is_empty(), "loopback listeners only");
    for (address, network, warned) in [
        ("0.0.0.0:5059", "0.0.0.0/0", true),
        ("192.0.2.1:5059", "203.0.113.7/32", true),
        ("192.0.2.1:5059", "10.0.0.0/8", false),
        ("127.0.0.1:5059", "0.0.0.0/0", false),
    ] {
        let found = warnings(&format!("[admin]\naddress = \"{address}\"\n[[allow]]\nadmin = [\"{network}\"]"));
        assert_eq!(found.len(), usize::from(warned), "{found:?}");
        assert!(found.iter().all(|line| line.starts_with(&format!("{network} may ask the admin listener {address}"))));
    }
    let slow = warnings("[sctp]\ninit_max_attempts = 20");
    assert!(slow.first().unwrap().starts_with("a dead SCTP peer is found after 60000 ms"), "{slow:?}");
}

#[test]
fn retries_that_outlast_the_transaction_are_warned_of() {
    let warned = |retries: u32| {
        let config = Config::from_text(&format!("[sctp]\nsend_retries = {retries}")).unwrap();
        super::warnings(&config, true).iter().any(|line| line.contains("sctp.send_retries"))
    };
    // A known peer that died: 15 s, and 12 s for each further set-up, of 32 s.
    assert_eq!([0, 1, 2].map(warned), [false, false, true]);
}

#[test]
fn slow_timers_are_no_matter_without_an_association() {
    let slow = listen("udp", "\"127.0.0.1:5060\"", "") + "[timers]\nt1_ms = 10000\nt2_ms = 10000";
    assert!(super::warnings(&Config::from_text(&slow).unwrap(), true).is_empty());
}
