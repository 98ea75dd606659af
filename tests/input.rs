//! Bad input over every transport: it becomes a 400, a counted drop, or the end of that connection; never a stuck or dead
//! worker.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::{Daemon, counter};
use support::proxy::Setup;
use support::raw::Peer;
use support::{Room, patience, say, slow, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A daemon on every transport (SCTP by the kernel, or where it has none in user space), and the promise that at its end no process
/// has died and it still answers.
struct House {
    daemon: Daemon,
    setup: Setup,
    pids: Vec<i32>,
    _room: Room,
}

impl House {
    /// With further lines in the table of limits. Patient: what ends a connection in time is not that half a message waited too long.
    fn new(name: &str, limits: &str) -> House {
        House::waiting(60_000, name, limits)
    }

    /// One that waits so long for the other half of a message.
    fn waiting(message_timeout_ms: u32, name: &str, limits: &str) -> House {
        let room = Room::new(name);
        let tables = format!("[limits]\n{limits}\n[tcp]\nmessage_timeout_ms = {message_timeout_ms}");
        let setup = Setup { tables, ..Setup::on_all(HOME) };
        let daemon = Daemon::start(&room, &setup);
        let pids = daemon.workers();
        House { daemon, setup, pids, _room: room }
    }

    fn peer(&self, transport: Transport) -> Peer {
        self.setup.peer(transport).expect("a connection to the daemon")
    }

    /// OPTIONS to the daemon itself is answered 200, over each transport, by a new peer.
    fn still_serves(&self) {
        for transport in Transport::ALL {
            let peer = self.peer(transport);
            peer.send(peer.request("OPTIONS", "", "alive").as_bytes()).expect("OPTIONS is sent");
            let answer = peer.receive_starting("SIP/2.0 200", patience(3));
            assert!(answer.is_some(), "no 200 to OPTIONS over {transport:?}: {}", self.daemon.last_words());
        }
    }

    /// Every counter that has grown, for a message about a failure.
    fn counted_since(&self, before: &Value) -> Vec<String> {
        let now = self.daemon.status();
        let names = now["counters"].as_object().into_iter().flat_map(|all| all.keys());
        names
            .map(|name| (name, counter(&now, name) - counter(before, name)))
            .filter(|(_, grown)| *grown > 0)
            .map(|(name, grown)| format!("{name} {grown}"))
            .collect()
    }

    fn end(self) {
        self.still_serves();
        assert_eq!(self.daemon.workers(), self.pids, "a worker died: {}", self.daemon.last_words());
        self.daemon.stop();
    }
}

/// What must become of one bad message; nothing else will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// Answered with this status.
    Be(u16),
    /// Not answered; this counter grows.
    Count(&'static str),
    /// This counter grows and the connection (association) ends.
    End(&'static str),
}

/// A phone at whom all the bad messages are aimed: what the daemon takes for good arrives there.
struct Target {
    peer: Peer,
}

impl Target {
    fn register(house: &House) -> Target {
        let peer = house.peer(Transport::Udp);
        peer.register("u");
        // The aim is true: a good message arrives.
        let sender = house.peer(Transport::Udp);
        sender.send(sender.request("MESSAGE", "u", "aim").as_bytes()).expect("a good MESSAGE");
        let target = Target { peer };
        assert!(target.peer.receive_starting("MESSAGE", patience(3)).is_some(), "a good message does not arrive");
        target
    }

    /// Nothing new has come: what comes is that first good message, again and again until it is answered.
    fn was_spared(&self, what: &str) {
        while let Some(text) = self.peer.receive(Duration::from_millis(20)) {
            assert!(text.contains("Call-ID: aim@a"), "{what} was served: {text}");
        }
    }
}

/// Sends `bytes` and sees what must become of it.
fn refused(house: &House, peer: &Peer, what: &str, bytes: &[u8], must: Must) {
    let transport = peer.transport;
    let before = house.daemon.status();
    let sent = peer.send(bytes);
    // Only a daemon that closes in the middle of it makes this fail.
    assert!(sent.is_ok() || matches!(must, Must::End(_)), "{what} over {transport:?} cannot be sent: {sent:?}");
    let answer = || peer.receive(patience(3)).unwrap_or_default();
    let grows = |name: &str| {
        let grown = wait_for(patience(8), || (house.daemon.counter(name) > counter(&before, name)).then_some(()));
        assert!(grown.is_some(), "{what} over {transport:?}: {name} does not grow: {:?}", house.counted_since(&before));
    };
    match must {
        Must::Be(status) => {
            let answer = answer();
            let first = answer.lines().next().unwrap_or_default();
            assert!(
                answer.starts_with(&format!("SIP/2.0 {status} ")),
                "{what} over {transport:?}: {first:?}, {:?}",
                house.counted_since(&before)
            );
        }
        Must::Count(counter) => {
            grows(counter);
            let answer = peer.receive(patience(1) / 10);
            assert_eq!(answer, None, "{what} over {transport:?} was answered");
        }
        Must::End(counter) => {
            grows(counter);
            assert!(peer.is_closed_within(patience(8)), "{what} over {transport:?}: its connection lives on");
        }
    }
    say(&format!("{what} over {}: {must:?}", transport.uri_token()));
}

#[test]
fn malformed_messages_are_refused_over_every_transport() {
    let houses = [House::new("malformed", ""), House::waiting(2000, "half", "")];
    let targets = houses.each_ref().map(Target::register);
    for transport in Transport::ALL {
        let peer = houses[0].peer(transport);
        let good = peer.request_with("MESSAGE", "u", "bad", "Content-Type: text/plain\r\n", "hello");
        // On a stream, where the next message would begin is lost with the framing, and so is the connection.
        let stream = |counter| if transport == Transport::Tcp { Must::End(counter) } else { Must::Count("invalid") };
        let cases: Vec<(&str, Must, Vec<u8>)> = vec![
            ("no CR at line ends", stream("framing_lost"), good.replace("\r\n", "\n").into_bytes()),
            (
                "a bare CR in a value",
                Must::Be(400),
                good.replace("Max-Forwards: 70", "Max-Forwards: 70\rX: y").into_bytes(),
            ),
            ("NUL in the head", Must::Be(400), good.replace("Max-Forwards: 70", "Subject: a\0b").into_bytes()),
            (
                "a Content-Length of more than there is",
                if transport == Transport::Tcp { Must::End("half_messages") } else { Must::Be(400) },
                good.replace("Content-Length: 5", "Content-Length: 50").into_bytes(),
            ),
            (
                "a negative Content-Length",
                Must::Be(400),
                good.replace("Content-Length: 5", "Content-Length: -5").into_bytes(),
            ),
            (
                "two different Content-Lengths",
                Must::Be(400),
                good.replace("Content-Length: 5", "Content-Length: 5\r\nl: 6").into_bytes(),
            ),
            ("no Via", Must::Count("invalid"), good.replace("Via:", "Vio:").into_bytes()),
            ("no Call-ID", Must::Count("invalid"), good.replace("Call-ID:", "Call-IDD:").into_bytes()),
            ("CSeq of another method", Must::Be(400), good.replace("CSeq: 1 MESSAGE", "CSeq: 1 INVITE").into_bytes()),
            (
                "a version of the future",
                Must::Be(505),
                good.replace("sip:u@example.test SIP/2.0", "sip:u@example.test SIP/3.0").into_bytes(),
            ),
            ("half a head", stream("half_messages"), good.as_bytes()[..good.len() / 2].to_vec()),
            (
                "300 Vias",
                Must::Count("invalid"),
                good.replace(
                    "Max-Forwards",
                    &format!("{}Max-Forwards", "Via: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx\r\n".repeat(300)),
                )
                .into_bytes(),
            ),
            (
                "binary",
                stream("framing_lost"),
                (0..600_u32).map(|i| u8::try_from(i * 7919 % 251).unwrap_or(0)).collect(),
            ),
        ];
        for (number, (what, must, bytes)) in cases.into_iter().enumerate() {
            let which = usize::from(must == Must::End("half_messages"));
            let (house, target) = (&houses[which], &targets[which]);
            // From a peer of its own, whose Via says so: over UDP the answer goes where Via points.
            let sender = house.peer(transport);
            let text = String::from_utf8_lossy(&bytes);
            let bytes = if text.is_ascii() {
                let own = text.replace(&peer.local.to_string(), &sender.local.to_string());
                own.replace("z9hG4bK-bad", &format!("z9hG4bK-bad{number}")).into_bytes()
            } else {
                bytes
            };
            refused(house, &sender, what, &bytes, must);
            target.was_spared(what);
        }
    }
    houses.into_iter().for_each(House::end);
}

#[test]
fn messages_over_the_limit_are_refused() {
    let house = House::new("oversized", "message_bytes = 20000");
    let target = Target::register(&house);
    let in_user_space = house.setup.tunnel.is_some();
    for transport in Transport::ALL {
        // 40 kB goes through every kernel; 300 kB is more than it hands out at once over SCTP (M13), and than its send
        // buffer takes unasked (EMSGSIZE).
        for size in [40_000, 300_000] {
            let must = match (transport, size) {
                (Transport::Udp, 300_000) => continue,
                // More than a peer in user space sends at once.
                (Transport::Sctp, 300_000) if in_user_space => continue,
                (Transport::Udp, _) => Must::Count("too_large"),
                (Transport::Sctp, 40_000) => Must::Count("too_large"),
                (Transport::Sctp, _) => Must::End("pieces"),
                (Transport::Tcp, _) => Must::End("framing_lost"),
            };
            let peer = house.peer(transport);
            if size == 300_000 {
                peer.socket().set_send_buffer_size(1 << 20).expect("SO_SNDBUF");
            }
            let message = peer.request_with("MESSAGE", "u", "big", "Content-Type: text/plain\r\n", &"x".repeat(size));
            let what = format!("{} kB", size / 1000);
            refused(&house, &peer, &what, message.as_bytes(), must);
            target.was_spared(&what);
        }
    }
    house.end();
}

/// Just below the limit (65,535) and what a datagram holds (65,507), and not a byte of it is lost on the way.
#[test]
fn a_message_of_65_kb_over_udp_is_served() {
    let house = House::new("large", "");
    let phone = house.peer(Transport::Tcp);
    phone.register("large");
    let sender = house.peer(Transport::Udp);
    let body: String = ('a'..='z').cycle().take(65_000).collect();
    let message = sender.request_with("MESSAGE", "large", "large", "Content-Type: text/plain\r\n", &body);
    sender.send(message.as_bytes()).expect("a large datagram");
    let mut arrived = String::new();
    let whole = wait_for(patience(3), || {
        arrived += &phone.receive(Duration::from_millis(200)).unwrap_or_default();
        arrived.ends_with(&format!("\r\n\r\n{body}")).then_some(())
    });
    assert!(whole.is_some(), "{} bytes of it arrived", arrived.len());
    house.end();
}

#[test]
fn an_endless_message_ends_its_connection_only() {
    let house = House::new("endless", "");
    for head_only in [true, false] {
        let endless = house.peer(Transport::Tcp);
        let other = house.peer(Transport::Tcp);
        let start = endless.request_with("MESSAGE", "u", "endless", "", "");
        let start = start.trim_end_matches("Content-Length: 0\r\n\r\n").to_owned();
        let start = if head_only { start } else { format!("{start}Content-Length: 99999999\r\n\r\n") };
        let _ = endless.send(start.as_bytes());
        let line = format!("Subject: {}\r\n", "endless ".repeat(1000));
        let ended = (0..2000).any(|_| endless.send(line.as_bytes()).is_err()) || endless.is_closed_within(patience(10));
        assert!(ended, "16 MB of one message went in (head only: {head_only})");
        other.send(other.request("OPTIONS", "", "other").as_bytes()).expect("OPTIONS");
        assert!(other.receive_starting("SIP/2.0 200", patience(3)).is_some(), "the other connection suffers");
    }
    house.end();
}

#[test]
fn a_message_that_dribbles_in_by_the_byte_is_served() {
    let house = House::new("dribble", "");
    let peer = house.peer(Transport::Tcp);
    for byte in peer.request("OPTIONS", "", "dribble").as_bytes() {
        peer.send(&[*byte]).expect("a byte");
    }
    assert!(peer.receive_starting("SIP/2.0 200", patience(3)).is_some());
    house.end();
}

#[test]
fn twenty_thousand_random_datagrams_stop_nothing() {
    let house = House::new("random", "");
    let mut random = Random(0x5eed);
    for transport in Transport::ALL {
        if transport == Transport::Tcp {
            continue;
        }
        let mut peer = house.peer(transport);
        let good = peer.request_with("INVITE", "u", "random", "Contact: <sip:a@a>\r\n", "v=0\r\n");
        let count = if slow() > 1 { 2_000 } else { 20_000 };
        for number in 0..count {
            let bytes = if number % 2 == 0 {
                (0..random.below(1400)).map(|_| random.byte()).collect()
            } else {
                // A good message with a few bytes of it changed: gets further than noise.
                let mut bytes = good.clone().into_bytes();
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.byte();
                }
                bytes
            };
            // The daemon may have ended this association; an empty message cannot be sent at all.
            if !bytes.is_empty() && peer.send(&bytes).is_err() {
                peer = house.peer(transport);
            }
            if number % 200 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        say(&format!("{count} random messages over {}", transport.uri_token()));
    }
    house.end();
}

/// The same row of numbers every time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }
}
