//! What is for us and what we let pass, seen by bare sockets around the real daemon: the mark in our Record-Route, the addresses of
//! a wildcard listener, contacts that name users of ours, CANCELs without a call, our name on many Routes.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use strowger::transport::Transport::Udp;
use support::daemon::Daemon;
use support::proxy::Setup;
use support::raw::Peer;
use support::{DOMAIN, Room, free_port, patience, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn peer(toward: SocketAddr) -> Peer {
    Peer::connect(Udp, toward).expect("a socket toward the daemon")
}

fn send(peer: &Peer, text: &str) {
    peer.send(text.as_bytes()).expect("it is sent");
}

/// The next message that begins so.
fn hears(peer: &Peer, start: &str) -> String {
    let heard = peer.receive_starting(start, patience(3));
    heard.unwrap_or_else(|| panic!("{start} did not come to {}", peer.local))
}

fn hears_nothing(peer: &Peer) {
    let heard = peer.receive(Duration::from_millis(200));
    assert!(heard.is_none(), "{} heard {heard:?}", peer.local);
}

/// The status of the final answer that this request gets.
fn answer(peer: &Peer, text: &str) -> u16 {
    send(peer, text);
    let status =
        |text: String| text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse::<u16>().ok().filter(|code| *code >= 200);
    let code = wait_for(patience(3), || status(peer.receive(patience(3))?));
    code.unwrap_or_else(|| panic!("no answer to\n{text}"))
}

/// The values of the header lines with this name.
fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

fn contact(peer: &Peer, user: &str) -> String {
    format!("Contact: <sip:{user}@{}>\r\n", peer.local)
}

/// Binds `user` to this contact, which may be anywhere.
fn bind(from: &Peer, user: &str, contact: &str) {
    let headers = format!("Contact: <{contact}>\r\nExpires: 600\r\n");
    // Each a request of its own.
    let call: String = [user, contact].concat().chars().filter(char::is_ascii_alphanumeric).collect();
    assert_eq!(answer(from, &from.request_with("REGISTER", user, &call, &headers, "")), 200, "{user}");
}

#[test]
fn the_mark_of_a_dialog_is_no_pass_for_others_and_never_one_to_a_next_hop() {
    let room = Room::new("mark");
    let mut setup = Setup { tables: "[[allow]]\nrelay = []".to_owned(), ..Setup::on(HOME, &[Udp]) };
    let toward = setup.address(Udp);
    let (a, v, trunk) = (peer(toward), peer(toward), peer(toward));
    setup.next_hop = vec![("pstn.test".to_owned(), Udp, trunk.local)];
    let daemon = Daemon::start(&room, &setup);
    v.register("v");
    send(&a, &a.request_with("INVITE", "v", "mark", &contact(&a, "a"), ""));
    let invite = hears(&v, "INVITE");
    send(&v, &v.answer(&invite, "180 Ringing"));
    let ringing = hears(&a, "SIP/2.0 180");
    let route = values(&ringing, "Record-Route")[0];

    // From `from` with this branch, From tag and To tag.
    let within = |from: &Peer, method: &str, uri: &str, branch: &str, tags: [&str; 2]| {
        let text = from.request_with(method, "v", "mark", &format!("Route: {route}\r\n{}", contact(from, "x")), "");
        let text =
            text.replacen(&format!("sip:v@{DOMAIN}"), uri, 1).replace("z9hG4bK-mark", &format!("z9hG4bK-{branch}"));
        text.replace(";tag=amark", &format!(";tag={}", tags[0]))
            .replace(&format!("To: <sip:v@{DOMAIN}>"), &format!("To: <sip:v@{DOMAIN}>;tag={}", tags[1]))
    };
    let pstn = "sip:+1900@pstn.test";
    assert_eq!(answer(&a, &within(&a, "INVITE", pstn, "stolen", ["other", "invented"])), 403, "not of that dialog");
    assert_eq!(answer(&a, &within(&a, "INVITE", pstn, "own", ["amark", "invented"])), 403, "a next hop");
    let address = format!("sip:x@{}", trunk.local);
    assert_eq!(answer(&a, &within(&a, "INVITE", &address, "away", ["other", "invented"])), 403, "not of that dialog");
    let routed = within(&a, "INVITE", &address, "routed", ["amark", "z"]);
    let routed = routed.replace("Max-Forwards", "Route: <sip:pstn.test;lr>\r\nMax-Forwards");
    // The Route of another stands first there: not ours at all.
    assert_eq!(answer(&a, &routed), 403);
    let behind = within(&a, "INVITE", &address, "behind", ["amark", "z"]);
    let behind = behind.replace("\r\nContact", "\r\nRoute: <sip:pstn.test;lr>\r\nContact");
    assert_eq!(answer(&a, &behind), 403, "a next hop behind our Route");
    hears_nothing(&trunk);
    assert_eq!(daemon.counter("refused_relay"), 5);

    // The dialog itself goes on, in both directions.
    send(&a, &within(&a, "INFO", &format!("sip:v@{}", v.local), "info-a", ["amark", "z"]));
    hears(&v, "INFO");
    send(&v, &within(&v, "INFO", &format!("sip:a@{}", a.local), "info-v", ["z", "amark"]));
    hears(&a, "INFO");
    assert_eq!(daemon.counter("refused_relay"), 5);
    daemon.stop();
}

/// What a socket toward the outside is bound to, where there is an outside.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[test]
fn on_a_wildcard_every_address_of_this_machine_is_ours() {
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let v4 = [Some(HOME), Some([127, 0, 0, 3].into()), outer_address()];
    let six = [v6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST))];
    for (wildcard, ips) in [("0.0.0.0", v4.as_slice()), ("[::]", &six)] {
        for ip in ips.iter().copied().flatten() {
            let room = Room::new("wildcard");
            let toward = free_port(if ip.is_ipv4() { HOME } else { ip });
            let address = SocketAddr::new(ip, toward.port());
            let listen = format!(
                "[[listen]]\ntransport = \"udp\"\naddress = \"{wildcard}:{}\"\nadvertise = \"proxy.example.net\"\n",
                address.port()
            );
            let daemon = Daemon::start(&room, &Setup { tables: listen, ..Setup::default() });
            let (a, z) = (peer(toward), peer(toward));
            let to_us = |text: String| text.replacen(&format!("sip:{DOMAIN}"), &format!("sip:{address}"), 1);
            assert_eq!(answer(&a, &to_us(a.request("OPTIONS", "", "options"))), 200, "{address}");
            let binding = format!("{}Expires: 600\r\n", contact(&a, "a"));
            let register = a.request_with("REGISTER", "a", "register", &binding, "");
            assert_eq!(
                answer(&a, &register.replacen(&format!("a@{DOMAIN}"), &address.to_string(), 1)),
                200,
                "{address}"
            );
            send(&z, &z.request_with("MESSAGE", "a", "message", &format!("Route: <sip:{address};lr>\r\n"), ""));
            let message = hears(&a, "MESSAGE");
            assert!(values(&message, "Route").is_empty() && values(&message, "Max-Forwards") == ["69"], "{message}");
            daemon.stop();
        }
    }
}

#[test]
fn a_contact_that_names_a_user_of_ours_leads_to_that_user() {
    let room = Room::new("forwarded");
    let setup = Setup::on(HOME, &[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(Udp);
    let (a, k) = (peer(toward), peer(toward));
    k.register("k");
    bind(&a, "fwd", &format!("sip:second@{DOMAIN}"));
    bind(&a, "second", &format!("sip:nobody@{DOMAIN}"));
    assert_eq!(answer(&a, &a.request("MESSAGE", "fwd", "nobody")), 480);
    // A phone that demands TLS is not what k has.
    bind(&a, "safe", &format!("sips:k@{DOMAIN}"));
    assert_eq!(answer(&a, &a.request("MESSAGE", "safe", "safe")), 480);
    // Through two of ours, the second of whom leads back, too.
    bind(&a, "second", &format!("sip:%6b@{DOMAIN}"));
    bind(&a, "second", &format!("sip:fwd@{DOMAIN}"));
    let arrives_once = |call: &str| {
        send(&a, &a.request("MESSAGE", "fwd", call));
        let message = hears(&k, "MESSAGE");
        assert!(message.starts_with(&format!("MESSAGE sip:k@{}", k.local)), "{message}");
        assert_eq!((values(&message, "Max-Forwards"), values(&message, "Via").len()), (vec!["69"], 2), "{message}");
        send(&k, &k.answer(&message, "200 OK"));
        hears(&a, "SIP/2.0 200");
        hears_nothing(&k);
    };
    arrives_once("around");
    // The same phone on the straight way: one more contact, but no other target (B22).
    bind(&a, "fwd", &format!("sip:k@{};transport=udp", k.local));
    arrives_once("twice");
    daemon.stop();
}

#[test]
fn a_user_who_is_forwarded_to_himself_is_not_there() {
    let room = Room::new("ring");
    let setup = Setup::on(HOME, &[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let a = peer(setup.address(Udp));
    bind(&a, "ring", &format!("sip:ring@{DOMAIN}"));
    assert_eq!(answer(&a, &a.request("MESSAGE", "ring", "ring")), 480);
    // A row that is longer than anybody needs.
    for n in 0..30 {
        bind(&a, &format!("row{n}"), &format!("sip:row{}@{DOMAIN}", n + 1));
    }
    assert_eq!(answer(&a, &a.request("MESSAGE", "row0", "row")), 480);
    for (call, why) in [("ring", "no phone is registered where it leads"), ("row", "too many users of ours")] {
        let start = format!("call_id={call}@a");
        let found = wait_for(patience(2), || {
            daemon.last_words().lines().any(|line| line.contains(&start) && line.contains(why)).then_some(())
        });
        assert!(found.is_some(), "{why}: {}", daemon.last_words());
    }
    daemon.stop();
}

#[test]
fn a_cancel_that_matches_nothing_is_481_whomever_it_names() {
    let room = Room::new("no-call");
    let setup = Setup::on(HOME, &[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(Udp);
    let (a, k) = (peer(toward), peer(toward));
    k.register("k");
    for user in ["", "nobody", "k"] {
        assert_eq!(answer(&a, &a.request("CANCEL", user, &format!("cancel-{user}"))), 481, "{user}");
    }
    hears_nothing(&k);
    for (method, status) in [("OPTIONS", "200"), ("SUBSCRIBE", "405")] {
        send(&a, &a.request(method, "", method));
        let answer = hears(&a, &format!("SIP/2.0 {status}"));
        assert_eq!(values(&answer, "Allow"), ["OPTIONS, REGISTER, ACK, CANCEL"], "{answer}");
    }
    daemon.stop();
}

#[test]
fn our_name_comes_off_however_often_it_stands_there() {
    let room = Room::new("routes");
    let setup = Setup::on(HOME, &[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(Udp);
    let (a, z) = (peer(toward), peer(toward));
    z.register("z");
    let received = daemon.counter("requests");
    let ours = format!("<sip:{toward};lr>");
    for (n, times) in [1, 2, 5, 200].into_iter().enumerate() {
        for (form, routes) in [
            ("lines", format!("Route: {ours}\r\n").repeat(times)),
            ("line", format!("Route: {}\r\n", vec![ours.as_str(); times].join(", "))),
        ] {
            send(&a, &a.request_with("MESSAGE", "z", &format!("{form}-{times}"), &routes, ""));
            let message = hears(&z, "MESSAGE");
            assert!(values(&message, "Route").is_empty() && values(&message, "Max-Forwards") == ["69"], "{message}");
            send(&z, &z.answer(&message, "200 OK"));
            hears(&a, "SIP/2.0 200");
        }
        let now = daemon.counter("requests");
        assert_eq!(now - received, 2 * (n as u64 + 1), "{times}: it talks to itself");
    }
    daemon.stop();
}
