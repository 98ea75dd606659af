//! SCTP in user space, with whole daemons: RFC 9260 inside UDP (RFC 6951), whether the kernel has SCTP of its own or not.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use mio::{Events, Poll, Token};
use strowger::phone::agent::Manner;
use strowger::phone::line::{Buffers, Line, Stack};
use strowger::phone::load::{Load, Order, Pace};
use strowger::transport::Transport;
use strowger::transport::sctp::user::endpoint::packet;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::sipp::{Scenario, Sipp, names};
use support::tunnel::TunnelPeer;
use support::{DOMAIN, Room, patience, say, slow, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Calls between our own phones over every pair of transports.
fn every_mixture_on(ip: IpAddr) {
    let room = Room::new("user-space");
    let setup = Setup::in_user_space(ip, &Transport::ALL);
    let daemon = Daemon::start(&room, &setup);
    let mut load = Load::new(DOMAIN, manner()).expect("phones");
    load.speak(Stack::User(setup.tunnel.expect("a tunnel")));
    let mut crowd = |what: &str, transport: Transport| -> Vec<usize> {
        let mut add = |n| {
            load.add_phone(&format!("{what}-{}-{n}", transport.uri_token()), transport, ip, setup.address(transport))
        };
        (0..10).map(|n| add(n).expect("a phone")).collect()
    };
    let sides = Transport::ALL.map(|transport| (transport, crowd("a", transport), crowd("z", transport)));
    let everyone: Vec<usize> = sides.iter().flat_map(|(_, a, z)| a.iter().chain(z).copied()).collect();
    assert!(load.register(&everyone, 600).expect("a poll").is_empty());
    for (from, callers, _) in &sides {
        for (to, _, callees) in &sides {
            let order = Order { calls: 100, longest: Duration::MAX, pace: Pace::AtOnce(10), callers, callees };
            let tally = load.place(&order, &mut |_| ControlFlow::Continue(())).expect("a poll");
            say(&format!(
                "{} to {} ({ip}): {} good, {} failed",
                from.uri_token(),
                to.uri_token(),
                tally.completed,
                tally.failed
            ));
            assert_eq!((tally.completed, tally.failed), (100, 0), "{:?}", tally.failures);
        }
    }
    let status = daemon.status();
    assert_eq!(counter(&status, "associations_up"), 20, "one for each phone");
    for nothing in ["associations_lost", "associations_refused", "sctp_damaged", "out_of_the_blue", "forged_cookies"] {
        assert_eq!(counter(&status, nothing), 0, "{nothing}");
    }
    daemon.stop();
}

fn manner() -> Manner {
    Manner { t1: Duration::from_millis(if slow() > 1 { 6000 } else { 500 }), ..Manner::default() }
}

#[test]
fn no_call_fails_in_any_mixture_over_ipv4() {
    every_mixture_on(HOME);
}

#[test]
fn no_call_fails_in_any_mixture_over_ipv6() {
    every_mixture_on(IpAddr::V6(Ipv6Addr::LOCALHOST));
}

/// A bare phone: bytes in, bytes out.
struct Peer {
    poll: Poll,
    buffers: Buffers,
    line: Line,
    got: Vec<Vec<u8>>,
}

impl Peer {
    fn open(setup: &Setup) -> Peer {
        let poll = Poll::new().expect("a poll");
        let (proxy, stack) = (setup.address(Transport::Sctp), Stack::User(setup.tunnel.expect("a tunnel")));
        let line = Line::open(Transport::Sctp, HOME, proxy, stack, poll.registry(), Token(0)).expect("a line");
        Peer { poll, buffers: Buffers::new().expect("memory"), line, got: Vec::new() }
    }

    fn send(&mut self, text: &str) {
        self.line.send(text.as_bytes(), &mut self.buffers).expect("it is sent");
    }

    /// Reads what is there, and lets the protocol do what is due.
    fn turn(&mut self) {
        self.poll.poll(&mut Events::with_capacity(8), Some(Duration::from_millis(2))).expect("a poll");
        let got = &mut self.got;
        let mut each = |bytes: &[u8]| got.push(bytes.to_vec());
        self.line.due(&mut each).expect("the association lives");
        self.line.receive(&mut self.buffers, &mut each).expect("the association lives");
    }

    /// The next message that starts so. `other` goes on with its part meanwhile: SCTP runs in both.
    fn receive(&mut self, start: &str, mut other: Option<&mut Peer>) -> String {
        let found = wait_for(patience(5), || {
            self.turn();
            if let Some(other) = &mut other {
                other.turn();
            }
            let at = self.got.iter().position(|bytes| bytes.starts_with(start.as_bytes()));
            at.map(|at| self.got.remove(at))
        });
        String::from_utf8(found.unwrap_or_else(|| panic!("no {start}"))).expect("text")
    }

    fn request(&self, method: &str, to: &str, more: &str, body: &str) -> String {
        let local = self.line.local;
        let uri = if method == "REGISTER" { format!("sip:{DOMAIN}") } else { format!("sip:{to}@{DOMAIN}") };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/SCTP {local};branch=z9hG4bK{method}{to}{}\r\nMax-Forwards: 70\r\n\
             From: <sip:{to}@{DOMAIN}>;tag=1\r\nTo: <sip:{to}@{DOMAIN}>\r\nCall-ID: {to}-{}@{local}\r\nCSeq: 1 {method}\r\n\
             {more}Content-Length: {}\r\n\r\n{body}",
            body.len(),
            body.len(),
            body.len()
        )
    }

    fn register(&mut self, user: &str) {
        let contact = format!("Contact: <sip:{user}@{};transport=sctp>\r\n", self.line.local);
        let text = self.request("REGISTER", user, &contact, "");
        self.send(&text);
        self.receive("SIP/2.0 200", None);
    }
}

#[test]
fn messages_of_20_and_60_kilobytes_pass() {
    let room = Room::new("large");
    let setup = Setup::in_user_space(HOME, &[Transport::Sctp]);
    let daemon = Daemon::start(&room, &setup);
    let (mut caller, mut callee) = (Peer::open(&setup), Peer::open(&setup));
    callee.register("large");
    for bytes in [20_000, 60_000] {
        let body = "x".repeat(bytes);
        let text = caller.request("MESSAGE", "large", "Content-Type: text/plain\r\n", &body);
        caller.send(&text);
        let arrived = callee.receive("MESSAGE", Some(&mut caller));
        assert!(arrived.ends_with(&format!("\r\n\r\n{body}")), "{bytes} bytes became {}", arrived.len());
        let via = arrived.lines().filter(|line| line.starts_with("Via:")).collect::<Vec<_>>().join("\r\n");
        let others = ["From:", "To:", "Call-ID:", "CSeq:"]
            .map(|name| arrived.lines().find(|line| line.starts_with(name)).expect(name));
        callee.send(&format!("SIP/2.0 200 OK\r\n{via}\r\n{}\r\nContent-Length: 0\r\n\r\n", others.join("\r\n")));
        caller.receive("SIP/2.0 200", Some(&mut callee));
    }
    daemon.stop();
}

/// Two daemons with a trunk between them: calls come to `near` over UDP and leave `far` over UDP.
struct Trunk {
    room: Room,
    near: Daemon,
    far: Daemon,
    near_setup: Setup,
    far_setup: Setup,
}

impl Trunk {
    fn new() -> Trunk {
        let room = Room::new("trunk");
        let both = [Transport::Udp, Transport::Sctp];
        let far_setup = Setup { domain: "far.test".to_owned(), ..Setup::in_user_space(HOME, &both) };
        let near_setup = Setup {
            next_hop: vec![("far.test".to_owned(), Transport::Sctp, far_setup.address(Transport::Sctp))],
            next_hop_tunnel: far_setup.tunnel,
            ..Setup::in_user_space(HOME, &both)
        };
        let (far, near) = (Daemon::start(&room, &far_setup), Daemon::start(&room, &near_setup));
        Trunk { room, near, far, near_setup, far_setup }
    }

    fn caller(&self, phones: &[String], calls: u64, rate: u32) -> Sipp {
        let toward = self.near_setup.address(Transport::Udp);
        Sipp::new(Scenario::Caller, Transport::Udp, toward)
            .domain("far.test")
            .users(phones)
            .calls(calls)
            .rate(rate)
            .at_once(500)
    }

    /// Twenty registered phones, one SIPp that answers for all of them.
    fn callee(&self) -> (Vec<String>, support::sipp::Running) {
        let toward = self.far_setup.address(Transport::Udp);
        let callee = Sipp::new(Scenario::Callee, Transport::Udp, toward).limit(patience(60)).start(&self.room);
        let phones = names("t", 20);
        let contact = callee.local.to_string();
        let report = Sipp::new(Scenario::Register, Transport::Udp, toward)
            .domain("far.test")
            .users(&phones)
            .calls(phones.len() as u64)
            .key("contact", &contact)
            .key("contact_transport", "udp")
            .start(&self.room)
            .finish();
        report.must_be_whole(phones.len() as u64);
        (phones, callee)
    }
}

#[test]
fn a_trunk_is_one_association_and_ends_in_good_order() {
    let trunk = Trunk::new();
    let (phones, callee) = trunk.callee();
    let report = trunk.caller(&phones, 300, 150).start(&trunk.room).finish();
    say(&format!("over a trunk in user space: {report}"));
    report.must_be_whole(300);
    assert_eq!((trunk.near.counter("associations_up"), trunk.far.counter("associations_up")), (1, 1));
    drop(callee);
    trunk.near.stop();
    let closed = wait_for(patience(2), || (trunk.far.counter("associations_closed") == 1).then_some(()));
    assert!(closed.is_some() && trunk.far.counter("associations_lost") == 0, "the far end was not told in good order");
    trunk.far.stop();
}

/// The association of the trunk belongs to one worker of each end. When ours dies, the calls under way go on over a new one. (When the
/// peer's dies, what we wait for has failed: to us that is an association lost, A19.)
#[test]
fn calls_survive_the_death_of_the_worker_that_owns_the_trunk() {
    let trunk = Trunk::new();
    let (phones, callee) = trunk.callee();
    let rate = if slow() > 1 { 20 } else { 100 };
    let calls = u64::from(rate) * 10;
    let caller = trunk.caller(&phones, calls, rate).limit(patience(60)).start(&trunk.room);
    std::thread::sleep(Duration::from_secs(2));
    for _ in 0..3 {
        let owner = owner_of_the_trunk(&trunk.near);
        let took = trunk.near.kill_and_time_replacement(owner);
        say(&format!("the trunk's owner was killed and replaced after {took:.1?}"));
        std::thread::sleep(Duration::from_secs(2));
    }
    let report = caller.finish();
    say(&format!("with its owner dying three times: {report}"));
    assert_eq!(report.good + report.failed, calls);
    // Lost is what was under way inside the dead worker and its association: SCTP's queue, and nobody retransmits over SCTP.
    assert!(report.failed <= 6, "{report}\n{}", report.complaints());
    assert!(counter(&trunk.near.status(), "associations_up") >= 4, "no new association each time");
    for daemon in [&trunk.near, &trunk.far] {
        assert!(counter(&daemon.status(), "associations_lost") >= 1);
        let audit = daemon.audit();
        for (part, audit) in audit["audit"].as_object().expect("an audit") {
            assert_eq!(audit["lost"].as_u64(), Some(0), "{part}");
        }
    }
    drop(callee);
    trunk.near.stop();
    trunk.far.stop();
}

/// The worker whose seat the one open association has.
fn owner_of_the_trunk(daemon: &Daemon) -> i32 {
    let seat = wait_for(patience(3), || {
        let status = daemon.status();
        let flows = status["flows"].as_array()?;
        flows.iter().find(|flow| flow["transport"] == "sctp" && flow["state"] == "open")?["seat"].as_u64()
    });
    daemon.workers()[usize::try_from(seat.expect("an open association")).expect("a seat")]
}

#[test]
fn a_second_daemon_cannot_slip_into_the_tunnel() {
    let room = Room::new("taken");
    let setup = Setup::in_user_space(HOME, &[Transport::Sctp]);
    let first = Daemon::start(&room, &setup);
    let other = Setup { tunnel: setup.tunnel, ..Setup::in_user_space(HOME, &[Transport::Sctp]) };
    let written = support::daemon::configure(&room, &other);
    let output = support::daemon::serve(&written.file).output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("encapsulation_port"), "{said}");
    first.stop();
}

/// Nothing is kept of who only says that it wants to talk (RFC 9260 §5.1), nor of a cookie that is not ours.
#[test]
fn ten_thousand_forged_inits_and_cookies_leave_nothing() {
    let room = Room::new("forged");
    let setup = Setup::in_user_space(HOME, &[Transport::Sctp]);
    let daemon = Daemon::start(&room, &setup);
    let tunnel = SocketAddr::new(HOME, setup.tunnel.expect("a tunnel"));
    let port = setup.address(Transport::Sctp).port();
    let memory = || daemon.workers().into_iter().map(support::process::resident_bytes).sum::<u64>();
    let socket = std::net::UdpSocket::bind((HOME, 0)).expect("a socket");
    socket.set_nonblocking(true).expect("non-blocking");
    let mut random = fastrand::Rng::with_seed(1);
    let storm = |packets: u32, random: &mut fastrand::Rng| {
        let before = daemon.counter("sctp_packets");
        for n in 0..packets {
            let (kind, tag, value): (u8, u32, Vec<u8>) = if n % 2 == 0 {
                let fixed =
                    [&random.u32(1..).to_be_bytes()[..], &65_536_u32.to_be_bytes(), &[0, 10, 0, 10], &[0, 0, 0, 1]];
                (packet::INIT, 0, fixed.concat())
            } else {
                (packet::COOKIE_ECHO, random.u32(1 << 31..), (0..76).map(|_| random.u8(..)).collect())
            };
            let bytes = packet::build(random.u16(1..), port, tag, kind, 0, &value);
            while socket.send_to(&bytes, tunnel).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if n % 64 == 0 {
                // As fast as it can read: what its socket has no room for would not be tried.
                std::thread::sleep(Duration::from_millis(2) * slow());
                while socket.recv(&mut [0; 2048]).is_ok() {}
            }
        }
        let all =
            wait_for(patience(10), || (daemon.counter("sctp_packets") - before >= u64::from(packets)).then_some(()));
        assert!(all.is_some(), "{} of {packets} packets were read", daemon.counter("sctp_packets") - before);
    };
    storm(1_000, &mut random); // what memory the path itself needs
    let before = memory();
    storm(20_000, &mut random);
    let after = memory();
    let status = daemon.status();
    say(&format!(
        "forged cookies {}, memory {} kB before and {} kB after",
        counter(&status, "forged_cookies"),
        before / 1024,
        after / 1024
    ));
    assert_eq!(counter(&status, "associations_up"), 0);
    assert_eq!(counter(&status, "forged_cookies"), 10_500);
    assert!(after < before + (1 << 20), "memory grew from {before} to {after} bytes");
    daemon.stop();
}

/// One worker can post faster than another works it off. The other comes round its loop all the same: else the master would take it
/// for dead after ten seconds, and kill it.
#[test]
fn a_flood_of_posted_packets_does_not_hold_their_worker_up() {
    let room = Room::new("flood");
    let mailbox = "[memory]\nmailbox_bytes = 4194304\n".to_owned();
    let setup = Setup { tables: mailbox, ..Setup::in_user_space(HOME, &[Transport::Sctp]) };
    let daemon = Daemon::start(&room, &setup);
    let (sip, tunnel) = (setup.address(Transport::Sctp), SocketAddr::new(HOME, setup.tunnel.expect("a tunnel")));
    let mut peer = TunnelPeer::on(SocketAddr::new(HOME, 0));
    let tag = peer.call(sip, tunnel.port());
    let pings = |peer: &mut TunnelPeer, n: usize| {
        peer.send(tag, b"\r\n\r\n");
        let pong = wait_for(patience(10), || {
            peer.turn();
            (peer.got.len() == n).then_some(())
        });
        assert!(pong.is_some(), "no pong");
    };
    pings(&mut peer, 1);
    let theirs = peer.their_tag(tag);
    // HEARTBEATs of 60 kB are work for their receiver and not answered: that would not fit into a packet.
    let mut value = vec![0; 60_000];
    value[1] = 1;
    value[2..4].copy_from_slice(&60_000_u16.to_be_bytes());
    let flood = packet::build(peer.at.port(), sip.port(), theirs, 4, 0, &value);
    // From so many UDP ports that some come to the one worker and some to the other.
    let sockets: Vec<_> = (0..16).map(|_| std::net::UdpSocket::bind((HOME, 0)).expect("a socket")).collect();
    let (workers, before) = (daemon.workers(), daemon.counter("posted"));
    let mut turn = 0;
    let never: Option<()> = wait_for(Duration::from_secs(13), || {
        for socket in &sockets {
            let _ = socket.send_to(&flood, tunnel);
        }
        turn += 1;
        std::thread::sleep(Duration::from_millis(2));
        None
    });
    assert!(never.is_none());
    say(&format!("{} packets sent, {} posted", turn * sockets.len(), daemon.counter("posted") - before));
    assert!(daemon.counter("posted") > before + 20, "they came to the right worker");
    assert_eq!((daemon.counter("hung"), daemon.workers()), (0, workers));
    pings(&mut peer, 2);
    daemon.stop();
}
