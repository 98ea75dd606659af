//! The next hop by hand, over both stacks: what it does not take is sent again (`sctp.send_retries`), and what `status` says of it.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::raw::{Peer as Caller, answer};
use support::tunnel::TunnelPeer;
use support::{DOMAIN, Room, left_to_the_vm, patience, say, tally_sctp, wait_for};
use sys::datagram::{Arena, Item, Receiver, Sender, SndInfo, To};
use sys::sctp::{Notification, Settings, parse_notification};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The next hop, turned by hand: what it gets, and on which association.
trait Callee {
    fn at(&self) -> SocketAddr;
    /// Its UDP port, when it is in user space.
    fn tunnel(&self) -> Option<u16>;
    fn read(&mut self) -> Option<(u32, String)>;
    fn tell(&mut self, association: u32, text: &str);
    fn abort(&mut self, association: u32);

    fn next(&mut self, start: &str) -> (u32, String) {
        let found = wait_for(patience(5), || self.read());
        let (association, text) = found.unwrap_or_else(|| panic!("no {start}"));
        assert!(text.starts_with(start), "{text}");
        (association, text)
    }

    /// Nothing more comes.
    fn hears_nothing(&mut self) {
        std::thread::sleep(patience(1) / 4);
        assert_eq!(self.read(), None);
    }
}

impl Callee for TunnelPeer {
    fn at(&self) -> SocketAddr {
        self.at
    }

    fn tunnel(&self) -> Option<u16> {
        Some(self.at.port())
    }

    fn read(&mut self) -> Option<(u32, String)> {
        self.turn();
        if self.got.is_empty() {
            return None;
        }
        let (tag, bytes) = self.got.remove(0);
        Some((tag, String::from_utf8(bytes).expect("text")))
    }

    fn tell(&mut self, association: u32, text: &str) {
        self.send(association, text.as_bytes());
    }

    fn abort(&mut self, association: u32) {
        TunnelPeer::abort(self, association);
    }
}

struct KernelPeer {
    fd: OwnedFd,
    arena: Arena,
    receiver: Receiver,
    sender: Sender,
}

impl KernelPeer {
    fn new() -> KernelPeer {
        let settings = Settings { nodelay: true, fragment_interleave: 1, ..Settings::default() };
        let (fd, _) = sys::sctp::one_to_many(&[SocketAddr::new(HOME, 0)], &settings, false).expect("a socket");
        let arena = Arena::new(1, 70_000).expect("memory");
        KernelPeer { fd, arena, receiver: Receiver::new(1), sender: Sender::new(1) }
    }
}

impl Callee for KernelPeer {
    fn at(&self) -> SocketAddr {
        sys::local_address(&self.fd).expect("an address")
    }

    fn tunnel(&self) -> Option<u16> {
        None
    }

    fn read(&mut self) -> Option<(u32, String)> {
        while self.receiver.receive(self.fd.as_fd(), &mut self.arena, 0, 1).expect("it reads") == 1 {
            let received = self.receiver.get(0);
            let bytes = &self.arena.slot(received.slot)[..received.len];
            if !received.notification {
                let association = received.info.expect("an association").association;
                return Some((association, String::from_utf8(bytes.to_vec()).expect("text")));
            }
            assert!(!matches!(parse_notification(bytes), Some(Notification::Other(_)) | None));
        }
        None
    }

    fn tell(&mut self, association: u32, text: &str) {
        let info = Some(SndInfo { unordered: true, ..SndInfo::default() });
        let item = Item { to: To::Association(association), pieces: [text.as_bytes(), b""], sctp: info };
        assert_eq!(self.sender.send(self.fd.as_fd(), 1, false, |_| item).0, 1);
    }

    fn abort(&mut self, association: u32) {
        sys::sctp::abort(self.fd.as_fd(), association).expect("it lives");
    }
}

/// A daemon between a caller over UDP and the callee; the callee is its next hop.
struct House<C> {
    room: Room,
    daemon: Daemon,
    caller: Caller,
    callee: C,
}

impl<C: Callee> House<C> {
    fn new(callee: C, tables: &str) -> House<C> {
        let both = [Transport::Udp, Transport::Sctp];
        let room = Room::new("retries");
        let place = if callee.tunnel().is_some() { Setup::in_user_space(HOME, &both) } else { Setup::on(HOME, &both) };
        let setup = Setup {
            domain: "near.test".to_owned(),
            next_hop: vec![(DOMAIN.to_owned(), Transport::Sctp, callee.at())],
            next_hop_tunnel: callee.tunnel(),
            tables: tables.to_owned(),
            ..place
        };
        let daemon = Daemon::start(&room, &setup);
        let caller = Caller::connect(Transport::Udp, setup.address(Transport::Udp)).expect("a socket");
        House { room, daemon, caller, callee }
    }

    fn invite(&self, id: &str) {
        self.caller.send(self.caller.request("INVITE", "z", id).as_bytes()).expect("it is sent");
    }

    #[track_caller]
    fn caller_hears(&self, status: &str) {
        let heard = self.caller.receive_starting(&format!("SIP/2.0 {status}"), patience(5));
        assert!(heard.is_some(), "the caller heard no {status}");
    }

    #[track_caller]
    fn counts(&self, wanted: &[(&str, u64)]) {
        let status = self.daemon.status();
        for (name, count) in wanted {
            assert_eq!(counter(&status, name), *count, "{name}");
        }
    }

    fn end(self) {
        self.daemon.stop();
        drop(self.room);
    }
}

/// On a branch of the same name: to a peer that got the first one, the second is a repetition.
fn via(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("Via:")).expect("a Via")
}

fn in_user_space() -> TunnelPeer {
    TunnelPeer::on("127.0.0.2:0".parse().expect("an address"))
}

fn aborts_the_first_and_takes_the_second(callee: impl Callee) {
    let mut house = House::new(callee, "[sctp]\nsend_retries = 2\n");
    house.invite("1");
    let (association, first) = house.callee.next("INVITE");
    house.callee.abort(association);
    let (again, second) = house.callee.next("INVITE");
    assert!(association != again && via(&first) == via(&second), "{first}\n{second}");
    house.callee.tell(again, &answer(&second, "200 OK", ""));
    house.caller_hears("200");
    house.callee.hears_nothing();
    house.counts(&[("send_retries", 1), ("associations_lost", 1)]);
    house.end();
}

#[test]
fn a_peer_that_aborts_upon_an_invite_gets_it_again() {
    aborts_the_first_and_takes_the_second(in_user_space());
}

#[test]
fn a_peer_that_aborts_upon_an_invite_gets_it_again_from_the_kernel() {
    if !left_to_the_vm("send_retries in the kernel") {
        aborts_the_first_and_takes_the_second(KernelPeer::new());
        tally_sctp(1);
    }
}

/// It reads nothing, so that some of them never get there, and aborts: each comes back with a SEND_FAILED of its own beside the loss of
/// the association, and is sent again once.
fn aborts_with_many_under_way(callee: impl Callee) {
    const MANY: u64 = 10;
    let mut house = House::new(callee, "[sctp]\nsend_retries = 1\n");
    house.invite("0");
    let (association, invite) = house.callee.next("INVITE");
    house.callee.tell(association, &answer(&invite, "486 Busy Here", ""));
    house.caller_hears("486");
    house.callee.next("ACK");
    let body = "x".repeat(20_000);
    for n in 0..MANY {
        let text = house.caller.request_with("MESSAGE", "z", &format!("m{n}"), "Content-Type: text/plain\r\n", &body);
        house.caller.send(text.as_bytes()).expect("it is sent");
        let taken = wait_for(patience(3), || (house.daemon.counter("sent_sctp") >= 3 + n).then_some(()));
        assert!(taken.is_some(), "message {n} was not sent");
    }
    house.callee.abort(association);
    for _ in 0..MANY {
        let (again, text) = loop {
            // What it had got before the abort is still there to read.
            let (on, text) = house.callee.next("MESSAGE");
            if on != association {
                break (on, text);
            }
        };
        house.callee.tell(again, &answer(&text, "200 OK", ""));
    }
    for _ in 0..MANY {
        house.caller_hears("200");
    }
    house.callee.hears_nothing();
    house.counts(&[("send_retries", MANY), ("associations_lost", 1)]);
    house.end();
}

#[test]
fn all_that_was_under_way_is_sent_again_once() {
    aborts_with_many_under_way(in_user_space());
    if !left_to_the_vm("send_retries in the kernel") {
        aborts_with_many_under_way(KernelPeer::new());
    }
}

fn aborts_always(callee: impl Callee, send_retries: u64) {
    let tables = if send_retries == 0 { String::new() } else { format!("[sctp]\nsend_retries = {send_retries}\n") };
    let mut house = House::new(callee, &tables);
    house.invite("2");
    for _ in 0..=send_retries {
        let (association, _) = house.callee.next("INVITE");
        house.callee.abort(association);
    }
    house.caller_hears("500"); // C10
    house.callee.hears_nothing();
    house.counts(&[("send_retries", send_retries), ("associations_lost", send_retries + 1)]);
    house.end();
}

#[test]
fn a_peer_that_aborts_always_gets_it_so_often_and_no_more() {
    aborts_always(in_user_space(), 3);
}

#[test]
fn by_default_nothing_is_sent_again() {
    aborts_always(in_user_space(), 0);
}

#[test]
fn a_peer_that_aborts_always_gets_it_so_often_and_no_more_from_the_kernel() {
    if !left_to_the_vm("send_retries in the kernel") {
        aborts_always(KernelPeer::new(), 3);
        aborts_always(KernelPeer::new(), 0);
    }
}

/// A provisional response says that the peer has it (RFC 3261 §17.1.1.2): the call may ring already.
fn answers_before_it_aborts(callee: impl Callee) {
    let mut house = House::new(callee, "[sctp]\nsend_retries = 9\n");
    house.invite("3");
    let (association, invite) = house.callee.next("INVITE");
    house.callee.tell(association, &answer(&invite, "180 Ringing", ""));
    house.caller_hears("180");
    house.callee.abort(association);
    house.caller_hears("500");
    house.callee.hears_nothing();
    house.counts(&[("send_retries", 0), ("associations_lost", 1)]);
    house.end();
}

#[test]
fn what_was_answered_at_all_is_not_sent_again() {
    answers_before_it_aborts(in_user_space());
    if !left_to_the_vm("send_retries in the kernel") {
        answers_before_it_aborts(KernelPeer::new());
    }
}

#[test]
fn what_a_limit_refused_is_not_sent_again() {
    let mut house = House::new(
        in_user_space(),
        "[sctp]\nsend_retries = 9\n[limits]\nassociations = 1\nassociations_per_peer = 1\n",
    );
    house.invite("4");
    let (association, invite) = house.callee.next("INVITE");
    house.callee.tell(association, &answer(&invite, "486 Busy Here", ""));
    house.caller_hears("486");
    // To somebody else, by address.
    let other = "sip:other@127.0.0.3:5060;transport=sctp";
    let invite = house.caller.request("INVITE", "z", "5").replacen(&format!("sip:z@{DOMAIN}"), other, 1);
    house.caller.send(invite.as_bytes()).expect("it is sent");
    house.caller_hears("500");
    house.counts(&[("send_retries", 0), ("associations_refused", 1), ("associations_up", 1)]);
    house.end();
}

/// `status` of the only association.
fn shown(daemon: &Daemon) -> (Value, Value) {
    let flow = wait_for(patience(3), || {
        let status = daemon.status();
        status["flows"].as_array()?.iter().find(|flow| flow["transport"] == "sctp").cloned()
    });
    let flow = flow.expect("an association");
    let path = flow["association"]["paths"][0].clone();
    (flow, path)
}

fn status_shows(callee: impl Callee) {
    let in_kernel = callee.tunnel().is_none();
    let mut house = House::new(callee, "");
    house.invite("first");
    let (association, invite) = house.callee.next("INVITE");
    house.callee.tell(association, &answer(&invite, "486 Busy Here", ""));
    house.caller_hears("486");
    let (flow, path) = shown(&house.daemon);
    assert_eq!((&flow["state"], &flow["peers"][0]), (&"open".into(), &house.callee.at().to_string().into()));
    let at_least = |least: f64, values: &[&Value]| assert!(values.iter().all(|n| n.as_f64() >= Some(least)), "{flow}");
    at_least(0.0, &[&flow["queued_bytes"], &flow["association"]["retransmitted"], &path["rtt_ms"]]);
    at_least(1.0, &[&flow["messages_in"], &flow["messages_out"], &flow["association"]["window"], &path["cwnd"]]);
    assert_eq!(path["state"], "active");
    if in_kernel {
        at_least(1.0, &[&path["rto_ms"], &path["mtu"]]);
    }
    // Nobody reads: more than any window.
    let body = "x".repeat(20_000);
    for n in 0..30 {
        let text = house.caller.request_with("MESSAGE", "z", &format!("m{n}"), "Content-Type: text/plain\r\n", &body);
        house.caller.send(text.as_bytes()).expect("it is sent");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let waits = |flow: &Value| [&flow["queued_bytes"], &flow["association"]["unacknowledged"]].map(Value::as_u64);
    let full =
        wait_for(patience(3), || Some(waits(&shown(&house.daemon).0)).filter(|all| all.iter().all(|n| *n > Some(0))));
    say(&format!("queued bytes and unacknowledged chunks of a stalled peer: {full:?}"));
    assert!(full.is_some(), "{:?}", shown(&house.daemon));
    let empty = wait_for(patience(15), || {
        while house.callee.read().is_some() {}
        (waits(&shown(&house.daemon).0) == [Some(0); 2]).then_some(())
    });
    assert!(empty.is_some(), "{:?}", shown(&house.daemon));
    house.end();
}

#[test]
fn status_shows_what_an_association_in_user_space_does() {
    status_shows(in_user_space());
}

#[test]
fn status_shows_what_an_association_in_the_kernel_does() {
    if !left_to_the_vm("the status of associations") {
        status_shows(KernelPeer::new());
    }
}

/// A worker hears late of the end of an association (M27). Meanwhile another one met it, and set up a new one: what went over that is
/// not lost with the old one (A19).
#[test]
fn late_news_of_an_associations_end_fails_nothing_that_went_over_the_next() {
    if left_to_the_vm("late news of an association's end") {
        return;
    }
    // Where each has a socket of its own, one of them alone reads of it.
    let mut house = House::new(KernelPeer::new(), "[sctp]\nlayout = \"per_worker\"\n");
    house.invite("6");
    let (first, invite) = house.callee.next("INVITE");
    house.callee.tell(first, &answer(&invite, "200 OK", ""));
    house.caller_hears("200");
    let (flow, _) = shown(&house.daemon);
    let seat = flow["seat"].as_u64().expect("a worker of its own") as usize;
    let reader = Pid::from_raw(house.daemon.workers()[seat]);
    kill(reader, Signal::SIGSTOP).expect("it stops");
    house.callee.abort(first);
    house.invite("7");
    let (second, invite) = house.callee.next("INVITE");
    assert_ne!(first, second);
    house.counts(&[("associations_lost", 0)]);
    kill(reader, Signal::SIGCONT).expect("it goes on");
    let told = wait_for(patience(3), || (house.daemon.counter("associations_lost") == 1).then_some(()));
    assert!(told.is_some(), "nobody read of the end");
    assert!(house.caller.receive_starting("SIP/2.0 5", patience(1)).is_none(), "failed with the old association");
    house.callee.tell(second, &answer(&invite, "200 OK", ""));
    house.caller_hears("200");
    house.counts(&[("associations_up", 2), ("associations_lost", 1), ("send_retries", 0)]);
    house.end();
}

/// A peer that restarts has forgotten what it had of ours (M38).
fn restarts(send_retries: u8) {
    let mut house = House::new(in_user_space(), &format!("[sctp]\nsend_retries = {send_retries}\n"));
    let daemon = house.daemon.status()["listeners"].clone();
    house.invite("5");
    house.callee.next("INVITE");
    house.callee.restart();
    let listener =
        daemon.as_array().and_then(|all| all.iter().find(|one| one["transport"] == "sctp")).expect("a listener");
    let address = |value: &Value| value.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
    let (sip, tunnel) = (address(&listener["addresses"][0]), address(&listener["tunnel"]));
    let tag = house.callee.call(sip.expect("an address"), tunnel.expect("a tunnel").port());
    let up = wait_for(patience(3), || {
        house.callee.turn();
        house.callee.up.contains(&tag).then_some(())
    });
    assert!(up.is_some(), "no association after the restart");
    if send_retries == 0 {
        house.caller_hears("500");
        house.callee.hears_nothing();
    } else {
        let (_, invite) = house.callee.next("INVITE");
        house.callee.tell(tag, &answer(&invite, "200 OK", ""));
        house.caller_hears("200");
    }
    house.counts(&[("send_retries", send_retries.into()), ("associations_up", 1)]);
    house.end();
}

#[test]
fn what_a_peer_had_before_it_restarted_has_failed_or_is_sent_again() {
    restarts(0);
    restarts(1);
}
