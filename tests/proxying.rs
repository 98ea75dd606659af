//! Calls between bare sockets through the real daemon: what each side sees of routes, forks, refusals, failover and reload.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::Signal;
use strowger::transport::Transport::{self, Tcp, Udp};
use support::daemon::{Daemon, configure, serve};
use support::process::Process;
use support::proxy::Setup;
use support::raw::Peer;
use support::{DOMAIN, Room, free_port, patience, transports, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Allowed nothing where a test says so.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The values of the header lines with this name.
fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// A value up to and without our mark, and without brackets.
fn plain(route: &str) -> &str {
    route.trim_matches(['<', '>']).split(";k=").next().unwrap_or(route)
}

fn contact(peer: &Peer, user: &str) -> String {
    format!("sip:{user}@{};transport={}", peer.local, peer.transport.uri_token())
}

/// A request from this peer; `more` are further complete lines.
fn request(from: &Peer, method: &str, uri: &str, call: &str, more: &str) -> String {
    let (via, local) = (from.transport.via_token(), from.local);
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{via} {local};branch=z9hG4bK-{call}-{method}\r\nMax-Forwards: 70\r\n{more}\
         From: <sip:a@{DOMAIN}>;tag=a\r\nTo: <sip:z@{DOMAIN}>\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n\
         Contact: <{}>\r\nContent-Length: 0\r\n\r\n",
        contact(from, "a")
    )
}

/// The same inside the dialog that the caller began: `by_callee` says who speaks.
fn in_dialog(from: &Peer, by_callee: bool, method: &str, uri: &str, call: &str, routes: &[&str]) -> String {
    let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
    let text = request(from, method, uri, call, &routes);
    let (a, z) = (format!("<sip:a@{DOMAIN}>;tag=a"), format!("<sip:z@{DOMAIN}>;tag=z"));
    let text = text.replace(&format!("To: <sip:z@{DOMAIN}>"), &format!("To: {}", if by_callee { &a } else { &z }));
    text.replace(&format!("From: {a}"), &format!("From: {}", if by_callee { &z } else { &a }))
}

/// A response to this request from its callee.
fn response(to: &str, line: &str, from: &Peer) -> String {
    let mut text = format!("SIP/2.0 {line}\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in values(to, name) {
            let tag = if name == "To" && !value.contains(";tag=") { ";tag=z" } else { "" };
            text += &format!("{name}: {value}{tag}\r\n");
        }
    }
    text + &format!("Contact: <{}>\r\nContent-Length: 0\r\n\r\n", contact(from, "z"))
}

fn send(peer: &Peer, text: &str) {
    peer.send(text.as_bytes()).expect("it is sent");
}

/// The next message that begins so.
fn hears(peer: &Peer, start: &str) -> String {
    let heard = peer.receive_starting(start, patience(3));
    heard.unwrap_or_else(|| panic!("{start} did not come to {} over {:?}", peer.local, peer.transport))
}

fn hears_nothing(peer: &Peer) {
    let heard = peer.receive(Duration::from_millis(300));
    assert!(heard.is_none(), "{} heard {heard:?}", peer.local);
}

fn peer(transport: Transport, toward: SocketAddr) -> Peer {
    Peer::connect(transport, toward).expect("a connection to the daemon")
}

fn from(ip: IpAddr, toward: SocketAddr) -> Peer {
    Peer::connect_from(Udp, toward, free_port(ip), |_| Ok(())).expect("a UDP socket")
}

/// `from` sends this request inside the dialog and `to` answers it; `to` must see neither our Route nor a Record-Route.
fn exchange(text: &str, from: &Peer, to: &Peer) {
    let method = text.split(' ').next().unwrap_or_default();
    send(from, text);
    let heard = hears(to, method);
    assert_eq!(values(&heard, "Route"), Vec::<&str>::new(), "{heard}"); // B20, K21
    assert_eq!(values(&heard, "Record-Route"), Vec::<&str>::new(), "{heard}");
    if method != "ACK" {
        send(to, &response(&heard, "200 OK", to));
        assert!(hears(from, "SIP/2.0 200").contains(&format!(" {method}")));
    }
}

#[test]
fn a_dialog_between_two_transports_passes_us_in_both_directions() {
    let room = Room::new("dialog");
    // Nobody may relay: only our own Route lets the dialog's requests through.
    let setup = Setup { tables: "[[allow]]\nrelay = []".to_owned(), ..Setup::on(HOME, &transports()) };
    let daemon = Daemon::start(&room, &setup);
    for transport in transports().into_iter().filter(|transport| *transport != Udp) {
        let (inner, outer) = (setup.address(Udp), setup.address(transport));
        let (a, z) = (peer(Udp, inner), peer(transport, outer));
        let token = transport.uri_token();
        z.register(token);
        let call = format!("dialog-{token}");
        send(&a, &request(&a, "INVITE", &format!("sip:{token}@{DOMAIN}"), &call, ""));
        let invite = hears(&z, "INVITE");
        let routes = values(&invite, "Record-Route");
        let wanted = [format!("sip:{outer};transport={token};lr"), format!("sip:{inner};transport=udp;lr")];
        assert_eq!(routes.iter().map(|route| plain(route)).collect::<Vec<_>>(), wanted); // K20, K22
        send(&z, &response(&invite, "200 OK", &z));
        let ok = hears(&a, "SIP/2.0 200");
        assert_eq!(values(&ok, "Record-Route"), routes, "as the callee gave it back"); // K21
        let up: Vec<_> = values(&ok, "Record-Route").into_iter().rev().collect();
        let (to_a, to_z) = (contact(&a, "a"), contact(&z, "z"));
        exchange(&in_dialog(&a, false, "ACK", &to_z, &call, &up), &a, &z); // B37
        exchange(&in_dialog(&a, false, "INFO", &to_z, &call, &up), &a, &z);
        exchange(&in_dialog(&z, true, "INFO", &to_a, &call, &routes), &z, &a);
        exchange(&in_dialog(&z, true, "BYE", &to_a, &call, &routes), &z, &a);
    }
    assert_eq!(daemon.counter("refused_relay"), 0);
    daemon.stop();
}

#[test]
fn a_dialog_passes_a_listener_that_is_known_by_another_name_and_port() {
    for (host, port) in [("proxy.example.net", 15_060), ("203.0.113.9", 15_061)] {
        let room = Room::new("advertised");
        let address = free_port(HOME);
        let listen = format!("[[listen]]\ntransport = \"udp\"\naddress = \"{address}\"\nadvertise = \"{host}:{port}\"");
        let daemon = Daemon::start(&room, &Setup { tables: listen, ..Setup::default() });
        let (a, z) = (peer(Udp, address), peer(Udp, address));
        z.register("z");
        send(&a, &request(&a, "INVITE", &format!("sip:z@{DOMAIN}"), "advertised", ""));
        let invite = hears(&z, "INVITE");
        let routes = values(&invite, "Record-Route");
        assert_eq!(routes.iter().map(|route| plain(route)).collect::<Vec<_>>(), [format!("sip:{host}:{port};lr")]);
        assert!(values(&invite, "Via")[0].starts_with(&format!("SIP/2.0/UDP {host}:{port};branch=")), "{invite}");
        send(&z, &response(&invite, "200 OK", &z));
        hears(&a, "SIP/2.0 200");
        exchange(&in_dialog(&a, false, "ACK", &contact(&z, "z"), "advertised", &routes), &a, &z);
        exchange(&in_dialog(&z, true, "INFO", &contact(&a, "a"), "advertised", &routes), &z, &a);
        exchange(&in_dialog(&a, false, "BYE", &contact(&z, "z"), "advertised", &routes), &a, &z);
        daemon.stop();
    }
}

#[test]
fn a_stranger_can_call_our_users_but_neither_register_nor_relay() {
    let room = Room::new("stranger");
    let tables = "[[allow]]\nregister = [\"127.0.0.1\"]\nrelay = [\"127.0.0.1\"]".to_owned();
    let setup = Setup { tables, ..Setup::on(HOME, &[Udp]) };
    let daemon = Daemon::start(&room, &setup);
    let address = setup.address(Udp);
    let (friend, z, stranger) = (from(HOME, address), from(HOME, address), from(STRANGER, address));
    let counts = || ["refused_register", "refused_relay"].map(|name| daemon.counter(name));
    assert_eq!(counts(), [0, 0]);

    send(&stranger, &request(&stranger, "REGISTER", &format!("sip:{DOMAIN}"), "bad-register", ""));
    hears(&stranger, "SIP/2.0 403");
    assert_eq!(counts(), [1, 0]);
    z.register("z");

    let away = format!("sip:z@{}", z.local);
    send(&stranger, &request(&stranger, "INVITE", &away, "bad-relay", ""));
    hears(&stranger, "SIP/2.0 403");
    assert_eq!(counts(), [1, 1]);
    // A Route that only names us, and a To tag, are no pass.
    let forged = format!("<sip:{address};lr>");
    send(&stranger, &in_dialog(&stranger, false, "BYE", &away, "bad-route", &[&forged]));
    hears(&stranger, "SIP/2.0 403");
    assert_eq!(counts(), [1, 2]);
    hears_nothing(&z);

    send(&stranger, &request(&stranger, "INVITE", &format!("sip:z@{DOMAIN}"), "good-call", ""));
    send(&z, &response(&hears(&z, "INVITE"), "486 Busy Here", &z));
    hears(&stranger, "SIP/2.0 486");
    send(&friend, &request(&friend, "INVITE", &away, "good-relay", ""));
    send(&z, &response(&hears(&z, "INVITE"), "486 Busy Here", &z));
    hears(&friend, "SIP/2.0 486");
    assert_eq!(counts(), [1, 2]);
    for call in ["bad-register", "bad-relay", "bad-route"] {
        logged(&daemon, call, "code=403");
    }
    daemon.stop();
}

/// Waits for the log line of this call; its writer is a thread of its own.
fn logged(daemon: &Daemon, call: &str, what: &str) {
    let line = |line: &&str| line.contains(&format!("call_id={call}")) && line.contains(what);
    let found = wait_for(patience(2), || daemon.last_words().lines().find(|l| line(l)).map(str::to_owned));
    assert!(found.is_some(), "no line with call_id={call} and {what}: {}", daemon.last_words());
}

#[test]
fn answers_time_outs_and_acks_that_lead_nowhere_are_counted() {
    let room = Room::new("counted");
    let setup = Setup { tables: "[timers]\nt1_ms = 20".to_owned(), ..Setup::on(HOME, &[Udp]) };
    let daemon = Daemon::start(&room, &setup);
    let (a, z) = (peer(Udp, setup.address(Udp)), peer(Udp, setup.address(Udp)));
    let counts = || ["answered", "timed_out", "refused_acks"].map(|name| daemon.counter(name));
    z.register("z");
    assert_eq!(counts(), [1, 0, 0], "a REGISTER's answer");

    // One that is not registered: our own, kept by no transaction.
    let nobody = request(&a, "MESSAGE", &format!("sip:nobody@{DOMAIN}"), "nobody", "");
    send(&a, &nobody);
    hears(&a, "SIP/2.0 404");
    assert_eq!(counts(), [2, 0, 0]);

    let busy = request(&a, "MESSAGE", &format!("sip:z@{DOMAIN}"), "busy", "");
    send(&a, &busy);
    send(&z, &response(&hears(&z, "MESSAGE"), "486 Busy Here", &z));
    hears(&a, "SIP/2.0 486");
    assert_eq!(counts(), [3, 0, 0]);
    send(&a, &busy);
    hears(&a, "SIP/2.0 486");
    assert_eq!(counts(), [4, 0, 0], "sent again");

    // 64*T1, and z says nothing (D03). Nobody acknowledges the 408, so timer G, short here, answers again; the INVITE timed out once.
    send(&a, &request(&a, "INVITE", &format!("sip:z@{DOMAIN}"), "silent", ""));
    hears(&a, "SIP/2.0 100");
    hears(&a, "SIP/2.0 408");
    let [answered, timed_out, _] = counts();
    assert!(answered >= 5 && timed_out == 1, "{:?}", counts());

    send(&a, &request(&a, "ACK", &format!("sip:nobody@{DOMAIN}"), "lost", ""));
    let refused = wait_for(patience(2), || (counts()[2] == 1).then_some(()));
    assert!(refused.is_some(), "{:?}", counts());
    let repeated = wait_for(patience(2), || (counts()[0] >= 7).then_some(()));
    assert!(repeated.is_some() && counts()[1] == 1, "{:?}", counts());
    daemon.stop();
}

#[test]
fn an_invalid_message_whose_call_can_be_read_is_logged_with_it() {
    let room = Room::new("invalid");
    let setup = Setup::on(HOME, &[Udp]);
    let daemon = Daemon::start(&room, &setup);
    let a = peer(Udp, setup.address(Udp));
    let text = request(&a, "INVITE", &format!("sip:z@{DOMAIN}"), "misfit", "");
    send(&a, &text.replace("CSeq: 1 INVITE", "CSeq: 1 BYE"));
    hears(&a, "SIP/2.0 400");
    logged(&daemon, "misfit", "code=400");
    daemon.stop();
}

#[test]
fn of_two_phones_that_ring_one_answers_and_the_other_is_cancelled() {
    let room = Room::new("fork");
    let setup = Setup::on(HOME, &[Udp, Tcp]);
    let daemon = Daemon::start(&room, &setup);
    let (a, slow) = (peer(Udp, setup.address(Udp)), peer(Udp, setup.address(Udp)));
    let quick = peer(Tcp, setup.address(Tcp));
    slow.register("z");
    quick.register("z");
    send(&a, &request(&a, "INVITE", &format!("sip:z@{DOMAIN}"), "fork", ""));
    let (to_slow, to_quick) = (hears(&slow, "INVITE"), hears(&quick, "INVITE"));
    assert_ne!(values(&to_slow, "Via")[0], values(&to_quick, "Via")[0], "a branch each"); // B33
    send(&slow, &response(&to_slow, "180 Ringing", &slow));
    hears(&a, "SIP/2.0 180");
    send(&quick, &response(&to_quick, "200 OK", &quick));
    hears(&a, "SIP/2.0 200");
    let cancel = hears(&slow, "CANCEL"); // C15
    assert_eq!(values(&cancel, "Via"), values(&to_slow, "Via")[..1]); // C22
    assert_eq!(cancel.split(' ').nth(1), to_slow.split(' ').nth(1), "the same Request-URI");
    send(&slow, &response(&cancel, "200 OK", &slow));
    send(&slow, &response(&to_slow, "487 Request Terminated", &slow));
    let ack = hears(&slow, "ACK"); // D05
    assert_eq!(values(&ack, "Via"), values(&to_slow, "Via")[..1]); // D09
    hears_nothing(&a);
    daemon.stop();
}

#[test]
fn a_caller_who_hangs_up_gets_487_from_the_phone_that_rang() {
    let room = Room::new("cancel");
    let setup = Setup::on(HOME, &[Udp, Tcp]);
    let daemon = Daemon::start(&room, &setup);
    let (a, z) = (peer(Udp, setup.address(Udp)), peer(Tcp, setup.address(Tcp)));
    z.register("z");
    let uri = format!("sip:z@{DOMAIN}");
    let text = request(&a, "INVITE", &uri, "hang-up", "");
    send(&a, &text);
    let invite = hears(&z, "INVITE");
    let cancel = text.replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL");
    send(&a, &cancel);
    assert!(hears(&a, "SIP/2.0 200").contains("CANCEL")); // C20
    hears_nothing(&z); // C21: nothing provisional yet.
    send(&z, &response(&invite, "180 Ringing", &z));
    let cancel = hears(&z, "CANCEL");
    send(&z, &response(&cancel, "200 OK", &z));
    send(&z, &response(&invite, "487 Request Terminated", &z));
    hears(&z, "ACK");
    assert!(hears(&a, "SIP/2.0 487").contains("1 INVITE"));
    daemon.stop();
}

#[test]
fn a_closed_port_and_a_silent_host_are_passed_over() {
    let room = Room::new("failover");
    let mut setup = Setup::on(HOME, &[Udp, Tcp]);
    let address = setup.address(Udp);
    let (closed, silent, last) = (free_port(HOME), peer(Udp, address), peer(Udp, address));
    let targets = format!("[\"tcp:{closed}\", \"udp:{}\", \"udp:{}\"]", silent.local, last.local);
    // 64*T1 is 1.28 s.
    setup.tables = format!("[timers]\nt1_ms = 20\n[[next_hop]]\ndomain = \"other.test\"\ntargets = {targets}");
    let daemon = Daemon::start(&room, &setup);
    let a = peer(Udp, address);
    send(&a, &request(&a, "INVITE", "sip:z@other.test", "failover", ""));
    let first = hears(&silent, "INVITE"); // A19, A25
    assert!(silent.receive_starting("INVITE", patience(1)).is_some(), "it is repeated"); // D02
    let second = hears(&last, "INVITE"); // J09
    assert_ne!(values(&first, "Via")[0], values(&second, "Via")[0]); // B33
    assert_eq!(values(&second, "Via").len(), 2);
    send(&last, &response(&second, "200 OK", &last));
    hears(&a, "SIP/2.0 200");
    assert_eq!(daemon.counter("timed_out"), 0, "the caller heard of no failure");
    daemon.stop();
}

#[test]
fn when_nobody_is_left_to_try_the_caller_hears_500() {
    let room = Room::new("nobody");
    let mut setup = Setup::on(HOME, &[Udp, Tcp]);
    setup.next_hop = vec![("other.test".to_owned(), Tcp, free_port(HOME))];
    let daemon = Daemon::start(&room, &setup);
    let a = peer(Udp, setup.address(Udp));
    send(&a, &request(&a, "INVITE", "sip:z@other.test", "nobody", ""));
    hears(&a, "SIP/2.0 500"); // C10, C19
    daemon.stop();
}

#[test]
fn a_reload_serves_the_next_call_and_a_wrong_file_changes_nothing() {
    let room = Room::new("reload");
    let mut setup = Setup::on(HOME, &[Udp]);
    let address = setup.address(Udp);
    let (a, old, new) = (peer(Udp, address), peer(Udp, address), peer(Udp, address));
    setup.next_hop = vec![("other.test".to_owned(), Udp, old.local)];
    let written = configure(&room, &setup);
    let file = written.file.clone();
    let daemon = Daemon::adopt(Process::start(serve(&file), room.path(), "strowger"), written);
    let call = |name: &str, to: &Peer| {
        send(&a, &request(&a, "INVITE", "sip:z@other.test", name, ""));
        send(to, &response(&hears(to, "INVITE"), "486 Busy Here", to));
        hears(&a, "SIP/2.0 486");
        hears(to, "ACK");
    };
    let reload = |text: &str, counter: &str| {
        std::fs::write(&file, text).expect("the configuration is written");
        daemon.signal(Signal::SIGHUP);
        let done = wait_for(patience(3), || (daemon.counter(counter) == 1).then_some(()));
        assert!(done.is_some(), "{counter}: {}", daemon.last_words());
        // Every worker has been woken; each reads the settings when it comes round.
        std::thread::sleep(patience(1) / 4);
    };
    call("before", &old);
    let good = std::fs::read_to_string(&file)
        .expect("the configuration")
        .replace(&old.local.to_string(), &new.local.to_string());
    reload(&good, "reloads");
    for n in 0..4 {
        call(&format!("after-{n}"), &new);
    }
    reload(&good.replace("other.test", "not a name").replace("targets", "tragets"), "reloads_refused");
    for n in 0..4 {
        call(&format!("still-{n}"), &new);
    }
    assert!(daemon.last_words().contains("configuration not reloaded: next_hop[0]"), "{}", daemon.last_words());
    assert_eq!(daemon.counter("reloads"), 1);
    hears_nothing(&old);
    daemon.stop();
}
