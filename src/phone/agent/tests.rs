//! Two agents on a wire with a fake clock: `a` calls `z` directly, each being the other's proxy.

#![allow(clippy::disallowed_methods, reason = "phones are outside the message path")]

use std::collections::BinaryHeap;

use super::*;
use crate::transport::Transport;

const LATENCY: Duration = Duration::from_millis(5);

/// What travels or is due: when, in which order, to whom, and the message (none: an alarm for the call).
type Event = std::cmp::Reverse<(Instant, u64, usize, Option<Vec<u8>>, CallId)>;

struct Pair {
    agents: [Agent; 2],
    now: Instant,
    events: BinaryHeap<Event>,
    order: u64,
    /// First lines of everything sent, with the sender's name.
    seen: Vec<String>,
    /// Numbers of messages that the wire loses.
    lost: Vec<usize>,
    ends: Vec<Result<(), Failure>>,
    answered: Vec<Duration>,
    registered: Vec<Result<(), Failure>>,
    unacknowledged: usize,
}

const A: usize = 0;
const Z: usize = 1;

impl Pair {
    fn new(transport: Transport, manner: Manner, lost: &[usize]) -> Pair {
        let agent = |user: &str, port: u16| {
            let me = Identity {
                user: user.into(),
                domain: "example.test".into(),
                transport,
                local: ([127, 0, 0, 1], port).into(),
                seed: "5eed".into(),
            };
            Agent::new(me, manner)
        };
        Pair {
            agents: [agent("a", 5070), agent("z", 5080)],
            now: Instant::now(),
            events: BinaryHeap::new(),
            order: 0,
            seen: Vec::new(),
            lost: lost.to_vec(),
            ends: Vec::new(),
            answered: Vec::new(),
            registered: Vec::new(),
            unacknowledged: 0,
        }
    }

    fn call(&mut self) {
        let mut steps = Vec::new();
        self.agents[A].call("sip:z@example.test", self.now, &mut steps);
        self.take(A, steps);
    }

    fn take(&mut self, from: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let first = text.lines().next().unwrap().replace(" SIP/2.0", "").replace("SIP/2.0 ", "");
                    let first = first.split(" sip:").next().unwrap();
                    self.seen.push(format!("{} {first}", ["a", "z"][from]));
                    if !self.lost.contains(&self.seen.len()) {
                        self.push(self.now + LATENCY, 1 - from, Some(bytes), Arc::from([]));
                    }
                }
                Step::Wake { at, call } => self.push(at, from, None, call),
                Step::Answered { after, .. } => self.answered.push(after),
                Step::Ended { how, .. } => self.ends.push(how),
                Step::Registered(how) => self.registered.push(how),
                Step::Unacknowledged { .. } => self.unacknowledged += 1,
            }
        }
    }

    fn push(&mut self, at: Instant, to: usize, message: Option<Vec<u8>>, call: CallId) {
        self.order += 1;
        self.events.push(std::cmp::Reverse((at, self.order, to, message, call)));
    }

    /// Until nothing travels and nothing is due any more.
    fn run(&mut self) {
        while let Some(std::cmp::Reverse((at, _, to, message, call))) = self.events.pop() {
            self.now = at;
            let mut steps = Vec::new();
            match message {
                Some(bytes) => self.agents[to].receive(&bytes, at, &mut steps),
                None => self.agents[to].due(&call, at, &mut steps),
            }
            self.take(to, steps);
        }
    }
}

#[test]
fn a_call_is_invite_180_200_ack_bye_200_and_nothing_else() {
    for transport in Transport::ALL {
        let mut pair = Pair::new(transport, Manner::default(), &[]);
        pair.call();
        pair.run();
        assert_eq!(pair.seen, ["a INVITE", "z 180 Ringing", "z 200 OK", "a ACK", "a BYE", "z 200 OK"]);
        assert_eq!((pair.ends.as_slice(), pair.answered.as_slice()), ([Ok(())].as_slice(), [LATENCY * 2].as_slice()));
        assert!(pair.agents.iter().all(|agent| agent.affairs.is_empty()), "both forgot the call");
    }
}

#[test]
fn over_udp_a_call_survives_the_loss_of_any_two_messages() {
    for first in 1..=7 {
        for second in first..=8 {
            let mut pair = Pair::new(Transport::Udp, Manner::default(), &[first, second]);
            pair.call();
            pair.run();
            assert_eq!(pair.ends, [Ok(())], "lost: {first} and {second}; {:?}", pair.seen);
            assert_eq!(pair.unacknowledged, 0, "lost: {first} and {second}; {:?}", pair.seen);
        }
    }
}

#[test]
fn over_sctp_and_tcp_a_lost_invite_is_not_sent_again_and_the_call_fails_at_its_deadline() {
    for transport in [Transport::Tcp, Transport::Sctp] {
        // A20: no timer A over a reliable transport; B still runs.
        let mut pair = Pair::new(transport, Manner::default(), &[1]);
        let began = pair.now;
        pair.call();
        pair.run();
        assert_eq!(pair.seen, ["a INVITE"]);
        assert_eq!(pair.ends, [Err(Failure::Silence("INVITE"))]);
        assert!(pair.now >= began + Duration::from_secs(32));
    }
}

#[test]
fn invite_is_repeated_with_doubling_intervals_until_timer_b() {
    let all: Vec<usize> = (1..100).collect();
    let mut pair = Pair::new(Transport::Udp, Manner::default(), &all);
    pair.call();
    pair.run();
    // RFC 3261 §17.1.1.2: 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s.
    assert_eq!(pair.seen.len(), 7, "{:?}", pair.seen);
    assert_eq!(pair.ends, [Err(Failure::Silence("INVITE"))]);
}

#[test]
fn a_caller_without_patience_cancels_and_gets_487() {
    let manner = Manner { ring: Duration::from_secs(20), patience: Duration::from_secs(3), ..Manner::default() };
    let mut pair = Pair::new(Transport::Udp, manner, &[]);
    pair.call();
    pair.run();
    assert_eq!(pair.seen, ["a INVITE", "z 180 Ringing", "a CANCEL", "z 200 OK", "z 487 Request Terminated", "a ACK"]);
    assert_eq!(pair.ends, [Err(Failure::Silence("INVITE"))]);
    assert!(pair.agents.iter().all(|agent| agent.affairs.is_empty()));
}

#[test]
fn the_487_is_repeated_until_it_is_acknowledged() {
    let manner = Manner { ring: Duration::from_secs(20), patience: Duration::from_secs(3), ..Manner::default() };
    // Lost: the first ACK. Timer G.
    let mut pair = Pair::new(Transport::Udp, manner, &[6]);
    pair.call();
    pair.run();
    assert_eq!(pair.seen[4..], ["z 487 Request Terminated", "a ACK", "z 487 Request Terminated", "a ACK"]);
}

#[test]
fn a_200_that_nobody_acknowledges_is_repeated_over_every_transport_and_then_reported() {
    // Lost: every ACK and every BYE; RFC 3261 §13.3.1.4.
    let lost: Vec<usize> = (4..100).collect();
    let mut pair = Pair::new(Transport::Sctp, Manner::default(), &lost);
    pair.call();
    pair.run();
    assert_eq!(pair.unacknowledged, 1);
    assert_eq!(pair.ends, [Err(Failure::Silence("BYE"))]);
    let repeated = pair.seen.iter().filter(|line| *line == "z 200 OK").count();
    // 0, 0.5, 1.5, 3.5 s, then every 4 s below 32 s.
    assert_eq!(repeated, 11, "{:?}", pair.seen);
}

#[test]
fn the_callers_route_set_is_the_recorded_one_backwards() {
    let mut a = Pair::new(Transport::Udp, Manner::default(), &[]).agents.into_iter().next().unwrap();
    let (now, mut steps) = (Instant::now(), Vec::new());
    a.call("sip:z@example.test", now, &mut steps);
    let Some(Step::Send(invite)) = steps.first() else { panic!("no INVITE") };
    let invite = String::from_utf8(invite.clone()).unwrap();
    let copied = |name: &str| invite.lines().find(|line| line.starts_with(name)).unwrap();
    let ok = format!(
        "SIP/2.0 200 OK\r\n{}\r\nRecord-Route: <sip:p2;lr>, <sip:p1;transport=sctp;lr>\r\nRecord-Route: <sip:p0;lr>\r\n{}\r\n\
         {};tag=9\r\n{}\r\n{}\r\nContact: <sip:z@192.0.2.9;transport=sctp>\r\nContent-Length: 0\r\n\r\n",
        copied("Via"),
        copied("From"),
        copied("To"),
        copied("Call-ID"),
        copied("CSeq")
    );
    steps.clear();
    a.receive(ok.as_bytes(), now, &mut steps);
    let sent = steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    let sent: Vec<String> = sent.collect();
    assert_eq!(sent.len(), 2);
    for (message, method) in sent.iter().zip(["ACK", "BYE"]) {
        assert!(message.starts_with(&format!("{method} sip:z@192.0.2.9;transport=sctp SIP/2.0\r\n")), "{message}");
        let routes: Vec<&str> = message.lines().filter_map(|line| line.strip_prefix("Route: ")).collect();
        assert_eq!(routes, ["<sip:p0;lr>", "<sip:p1;transport=sctp;lr>", "<sip:p2;lr>"]);
    }
}

#[test]
fn the_same_invite_by_another_way_gets_482_and_its_ack_does_not_end_the_200() {
    let mut pair = Pair::new(Transport::Udp, Manner::default(), &[]);
    let (now, mut steps) = (pair.now, Vec::new());
    pair.agents[A].call("sip:z@example.test", now, &mut steps);
    let Some(Step::Send(invite)) = steps.first() else { panic!("no INVITE") };
    let invite = String::from_utf8(invite.clone()).unwrap();
    let z = &mut pair.agents[Z];
    z.receive(invite.as_bytes(), now, &mut Vec::new());
    steps.clear();
    z.receive(invite.replace("branch=z9hG4bK", "branch=z9hG4bKother").as_bytes(), now, &mut steps);
    let Some(Step::Send(refusal)) = steps.first() else { panic!("no answer") };
    assert!(refusal.starts_with(b"SIP/2.0 482 "), "{}", String::from_utf8_lossy(refusal));
    let ack = invite.replace("INVITE", "ACK").replace("<sip:z@example.test>", "<sip:z@example.test>;tag=merged");
    z.receive(ack.as_bytes(), now, &mut steps);
    steps.clear();
    let call = message::scan(invite.as_bytes()).unwrap().call_id;
    z.due(call.of(invite.as_bytes()), now + Duration::from_millis(500), &mut steps);
    assert!(
        steps.iter().any(|step| matches!(step, Step::Send(bytes) if bytes.starts_with(b"SIP/2.0 200 "))),
        "{steps:?}"
    );
}

#[test]
fn what_a_phone_sends_is_read_the_same_by_rsip() {
    let mut pair = Pair::new(Transport::Tcp, Manner::default(), &[]);
    let mut steps = Vec::new();
    pair.agents[A].register(3600, pair.now, &mut steps);
    pair.agents[A].call("sip:z@example.test", pair.now, &mut steps);
    let mut invite = None;
    for step in &steps {
        let Step::Send(bytes) = step else { continue };
        let second = rsip::Request::try_from(bytes.as_slice()).unwrap();
        let m = message::scan(bytes).unwrap();
        assert_eq!(second.uri.to_string().as_bytes(), m.uri());
        assert_eq!(second.body, m.body());
        invite = Some(bytes.clone());
    }
    steps.clear();
    pair.agents[Z].receive(&invite.unwrap(), pair.now, &mut steps);
    for step in &steps {
        let Step::Send(bytes) = step else { continue };
        let second = rsip::Response::try_from(bytes.as_slice()).unwrap();
        assert_eq!(u16::from(second.status_code), message::scan(bytes).unwrap().code());
    }
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Send(_))).count(), 2);
}
