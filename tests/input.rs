//! Bad input over every transport: it becomes a 400, a counted drop, or the end of that connection; never a stuck or dead
//! worker (issue 2; rules of the house, 4).

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::Daemon;
use support::proxy::Setup;
use support::raw::Peer;
use support::{Room, patience, say, slow, transports};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A daemon on every transport, and the promise that at its end no process has died and it still answers.
struct House {
    daemon: Daemon,
    setup: Setup,
    pids: Vec<i32>,
    _room: Room,
}

impl House {
    fn new(name: &str) -> House {
        let room = Room::new(name);
        let tables = "[tcp]\nmessage_timeout_ms = 2000".to_owned();
        let setup = Setup { tables, ..Setup::on(HOME, &transports()) };
        let daemon = Daemon::start(&room, &setup);
        let pids = daemon.workers();
        House { daemon, setup, pids, _room: room }
    }

    fn peer(&self, transport: Transport) -> Peer {
        Peer::connect(transport, self.setup.address(transport)).expect("a connection to the daemon")
    }

    /// OPTIONS to the daemon itself is answered 200, over each transport, by a new peer.
    fn still_serves(&self) {
        for transport in transports() {
            let peer = self.peer(transport);
            peer.send(peer.request("OPTIONS", "", "alive").as_bytes()).expect("OPTIONS is sent");
            let answer = peer.receive_starting("SIP/2.0 200", patience(3));
            assert!(answer.is_some(), "no 200 to OPTIONS over {transport:?}: {}", self.daemon.last_words());
        }
    }

    fn end(self) {
        self.still_serves();
        assert_eq!(self.daemon.workers(), self.pids, "a worker died: {}", self.daemon.last_words());
        self.daemon.stop();
    }
}

/// What the daemon counted, all counters together but for those that good traffic raises too.
fn refusals(status: &Value) -> u64 {
    ["invalid", "too_large", "framing_lost", "half_messages", "pieces", "broken"]
        .iter()
        .filter_map(|name| status["counters"][name].as_u64())
        .sum()
}

/// Sends `bytes` and sees one of the three outcomes.
fn refused(house: &House, peer: &Peer, what: &str, bytes: &[u8]) {
    let transport = peer.transport;
    let before = refusals(&house.daemon.status());
    // A daemon that closes in the middle of it makes this fail, which is an answer too.
    let _ = peer.send(bytes);
    let answer = peer.receive(patience(1) / 2);
    let outcome = match answer {
        Some(text) if text.starts_with("SIP/2.0 4") || text.starts_with("SIP/2.0 5") => {
            text.lines().next().unwrap_or_default().to_owned()
        }
        Some(text) => panic!("{what} over {transport:?} was answered: {text}"),
        None if refusals(&house.daemon.status()) > before => "counted".to_owned(),
        None if transport != Transport::Udp && peer.is_closed_within(patience(8)) => "closed".to_owned(),
        None => panic!("{what} over {transport:?}: no answer, no count, no end\n{}", house.daemon.status()["counters"]),
    };
    say(&format!("{what} over {}: {outcome}", transport.uri_token()));
}

#[test]
fn malformed_messages_are_refused_over_every_transport() {
    let house = House::new("malformed");
    for transport in transports() {
        let peer = house.peer(transport);
        let good = peer.request_with("MESSAGE", "u", "bad", "Content-Type: text/plain\r\n", "hello");
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("no CR at line ends", good.replace("\r\n", "\n").into_bytes()),
            ("a bare CR in a value", good.replace("Max-Forwards: 70", "Max-Forwards: 70\rX: y").into_bytes()),
            ("NUL in the head", good.replace("Max-Forwards: 70", "Subject: a\0b").into_bytes()),
            (
                "a Content-Length of more than there is",
                good.replace("Content-Length: 5", "Content-Length: 50").into_bytes(),
            ),
            ("a negative Content-Length", good.replace("Content-Length: 5", "Content-Length: -5").into_bytes()),
            (
                "two different Content-Lengths",
                good.replace("Content-Length: 5", "Content-Length: 5\r\nl: 6").into_bytes(),
            ),
            ("no Via", good.replace("Via:", "Vio:").into_bytes()),
            ("no Call-ID", good.replace("Call-ID:", "Call-IDD:").into_bytes()),
            ("CSeq of another method", good.replace("CSeq: 1 MESSAGE", "CSeq: 1 INVITE").into_bytes()),
            (
                "a version of the future",
                good.replace("sip:u@example.test SIP/2.0", "sip:u@example.test SIP/3.0").into_bytes(),
            ),
            ("half a head", good.as_bytes()[..good.len() / 2].to_vec()),
            (
                "300 Vias",
                good.replace(
                    "Max-Forwards",
                    &format!("{}Max-Forwards", "Via: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx\r\n".repeat(300)),
                )
                .into_bytes(),
            ),
            ("binary", (0..600_u32).map(|i| u8::try_from(i * 7919 % 251).unwrap_or(0)).collect()),
        ];
        for (number, (what, bytes)) in cases.into_iter().enumerate() {
            // From a peer of its own, whose Via says so: over UDP the answer goes where Via points.
            let sender = house.peer(transport);
            let text = String::from_utf8_lossy(&bytes);
            let bytes = if text.is_ascii() {
                let own = text.replace(&peer.local.to_string(), &sender.local.to_string());
                own.replace("z9hG4bK-bad", &format!("z9hG4bK-bad{number}")).into_bytes()
            } else {
                bytes
            };
            refused(&house, &sender, what, &bytes);
        }
    }
    house.end();
}

#[test]
fn messages_over_the_limit_are_refused() {
    let house = House::new("oversized");
    for transport in transports() {
        let peer = house.peer(transport);
        // A datagram holds 65,507 bytes; the others get as much as they take.
        let size = if transport == Transport::Udp { 65_000 } else { 600_000 };
        let message = peer.request_with("MESSAGE", "u", "big", "Content-Type: text/plain\r\n", &"x".repeat(size));
        if transport == Transport::Udp {
            // Within the default limit it may also be served: u is unknown.
            peer.send(message.as_bytes()).expect("a large datagram");
            say(&format!(
                "65 kB over udp: {:?}",
                peer.receive(patience(1)).map(|a| a.lines().next().map(str::to_owned))
            ));
        } else {
            refused(&house, &peer, "600 kB", message.as_bytes());
        }
    }
    house.end();
}

#[test]
fn an_endless_message_ends_its_connection_only() {
    let house = House::new("endless");
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
    let house = House::new("dribble");
    let peer = house.peer(Transport::Tcp);
    for byte in peer.request("OPTIONS", "", "dribble").as_bytes() {
        peer.send(&[*byte]).expect("a byte");
    }
    assert!(peer.receive_starting("SIP/2.0 200", patience(3)).is_some());
    house.end();
}

#[test]
fn twenty_thousand_random_datagrams_stop_nothing() {
    let house = House::new("random");
    let mut random = Random(0x5eed);
    for transport in transports() {
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
