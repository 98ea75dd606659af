//! One pair of phones against a bare peer: what they send when, with the time given.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use mio::Poll;

use super::crowd::{Crowd, Now};
use super::lines::{Far, Lines};
use crate::message::{self, Message, Method, Start};
use crate::phone::bench::results::Arrival;
use crate::phone::bench::words::{Report, SetUp, Wire};

const CALLER: usize = 0;
const CALLEE: usize = 1;

struct Desk {
    crowd: Crowd,
    lines: Lines,
    _poll: Poll,
}

impl Desk {
    fn new(wire: Wire, proxy: SocketAddr, renew_every: Option<u64>) -> Desk {
        let order = SetUp {
            process: 0,
            seed: 0x5eed,
            wire,
            proxy,
            encapsulation_port: 9899,
            domain: "example.test".into(),
            expires_s: 300,
            pairs: 1,
            first: 0,
            step: 1,
            trunks: None,
            renew_every,
            connection_per_call: false,
            arrival: Arrival::Closed,
            phase_s: 0.0,
            patience_ms: 10_000,
            nice: 0,
            burden_us: 0,
        };
        let poll = Poll::new().unwrap();
        let far = Far { wire, proxy, encapsulation_port: 9899, trunks: false };
        let lines = Lines::new(poll.registry(), far).unwrap();
        Desk { crowd: Crowd::new(order), lines, _poll: poll }
    }

    fn hears(&mut self, phone: usize, text: &str, at: Now) {
        let line = self.crowd.phones[phone].line.unwrap();
        self.crowd.heard(text.as_bytes(), line, at, &mut self.lines);
    }

    fn sweep(&mut self, at: Now) {
        self.crowd.sweep(at, &mut self.lines);
    }
}

fn ms(ms: u64) -> Now {
    Now(ms * 1_000)
}

/// A UDP proxy by hand.
struct Peer(UdpSocket);

impl Peer {
    fn new() -> Peer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Peer(socket)
    }

    /// Both phones registered, calls placed and counted.
    fn with_desk() -> (Peer, Desk) {
        let peer = Peer::new();
        let mut desk = Desk::new(Wire::Udp, peer.0.local_addr().unwrap(), None);
        desk.crowd.register_all(ms(0), &mut desk.lines);
        for phone in [CALLER, CALLEE] {
            let register = peer.next();
            assert!(register.starts_with("REGISTER "), "{register}");
            desk.hears(phone, &answer(&register, "200 OK", ""), ms(1));
        }
        assert_eq!(desk.crowd.registered().unwrap().len(), 0);
        desk.crowd.begin(ms(10));
        desk.crowd.open(ms(10), &desk.lines);
        (peer, desk)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn nothing(&self) {
        self.0.set_nonblocking(true).unwrap();
        let got = self.0.recv(&mut [0; 4096]);
        assert_eq!(got.map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
        self.0.set_nonblocking(false).unwrap();
    }
}

/// An answer to `request` with these header lines.
fn answer(request: &str, status: &str, lines: &str) -> String {
    let m = message::scan(request.as_bytes()).unwrap();
    let of = |span: message::Span| String::from_utf8_lossy(span.of(m.bytes)).into_owned();
    let tag = if m.to_tag.is_empty() { ";tag=z" } else { "" };
    let copied = format!(
        "Via: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\n",
        of(m.via.value),
        of(m.from),
        of(m.to),
        of(m.call_id)
    );
    format!(
        "SIP/2.0 {status}\r\n{copied}CSeq: {} {}\r\n{lines}Content-Length: 0\r\n\r\n",
        m.cseq.number,
        of(m.cseq.method_text)
    )
}

fn is(text: &str, method: Method) -> bool {
    let m: Message = message::scan(text.as_bytes()).unwrap();
    matches!(m.start, Start::Request { method: of, .. } if of == method)
}

const CONTACT: &str = "Contact: <sip:z@192.0.2.1:5060>\r\n";

#[test]
fn an_invite_is_repeated_at_doubling_intervals_until_a_provisional_response_or_the_patience_ends() {
    let (peer, mut desk) = Peer::with_desk();
    desk.sweep(ms(10));
    let invite = peer.next();
    assert!(is(&invite, Method::Invite));
    for at in [510, 1_510, 3_510, 7_510] {
        desk.sweep(ms(at - 1));
        peer.nothing();
        desk.sweep(ms(at));
        assert_eq!(peer.next(), invite, "{at}");
    }
    desk.sweep(ms(10_010));
    peer.nothing();
    let figures = desk.crowd.close(ms(10_010), &desk.lines);
    assert_eq!((figures.retransmissions, figures.failed_calls), (4, 1));
    assert_eq!(figures.failures.keys().collect::<Vec<_>>(), ["no answer to INVITE in time"]);

    let (peer, mut desk) = Peer::with_desk();
    desk.sweep(ms(10));
    let invite = peer.next();
    desk.hears(CALLER, &answer(&invite, "100 Trying", ""), ms(20));
    desk.sweep(ms(9_000));
    peer.nothing();
}

#[test]
fn a_2xx_is_acknowledged_as_often_as_it_comes_and_the_bye_repeated_until_it_is_answered() {
    let (peer, mut desk) = Peer::with_desk();
    desk.sweep(ms(10));
    let ok = answer(&peer.next(), "200 OK", CONTACT);
    desk.hears(CALLER, &ok, ms(30));
    let (ack, bye) = (peer.next(), peer.next());
    assert!(is(&ack, Method::Ack) && is(&bye, Method::Bye));
    desk.hears(CALLER, &ok, ms(40));
    assert_eq!(peer.next(), ack);
    desk.sweep(ms(530));
    assert_eq!(peer.next(), bye);
    desk.hears(CALLER, &answer(&bye, "200 OK", ""), ms(600));
    // The next call begins at once, and nothing of the last one is left.
    assert!(is(&peer.next(), Method::Invite));
    desk.hears(CALLER, &ok, ms(610));
    peer.nothing();
    let figures = desk.crowd.close(ms(1_010), &desk.lines);
    assert_eq!((figures.invites, figures.byes, figures.calls_placed), (1, 1, 2));
    assert_eq!((figures.retransmissions, figures.strays, figures.failed_calls), (2, 1, 0));
    // 20 ms from INVITE to 200.
    assert!(matches!(figures.set_up[..], [(19_900..=20_100, 1)]), "{:?}", figures.set_up);
}

#[test]
fn a_refused_caller_acknowledges_and_rests_before_it_calls_again() {
    let (peer, mut desk) = Peer::with_desk();
    desk.sweep(ms(10));
    desk.hears(CALLER, &answer(&peer.next(), "503 Service Unavailable", ""), ms(20));
    assert!(is(&peer.next(), Method::Ack));
    desk.sweep(ms(119));
    peer.nothing();
    desk.sweep(ms(120));
    assert!(is(&peer.next(), Method::Invite));
    let figures = desk.crowd.close(ms(1_010), &desk.lines);
    assert_eq!(figures.failures.keys().collect::<Vec<_>>(), ["503 Service Unavailable"]);
}

#[test]
fn a_callee_repeats_its_200_until_the_ack_comes_and_answers_what_is_repeated() {
    let (peer, mut desk) = Peer::with_desk();
    desk.sweep(ms(10));
    let invite = peer.next();
    desk.hears(CALLEE, &invite, ms(20));
    let (ringing, ok) = (peer.next(), peer.next());
    assert!(ringing.starts_with("SIP/2.0 180 ") && ok.starts_with("SIP/2.0 200 "), "{ringing}{ok}");
    desk.hears(CALLEE, &invite, ms(30));
    assert_eq!(peer.next(), ok);
    desk.sweep(ms(520));
    let (a, b) = (peer.next(), peer.next());
    assert!([&a, &b].contains(&&ok) && [&a, &b].contains(&&invite), "{a}{b}");
    desk.hears(CALLER, &ok, ms(530));
    let (ack, bye) = (peer.next(), peer.next());
    desk.hears(CALLEE, &ack, ms(540));
    desk.hears(CALLEE, &bye, ms(550));
    desk.hears(CALLEE, &bye, ms(560));
    assert_eq!((peer.next(), peer.next()), (answer(&bye, "200 OK", ""), answer(&bye, "200 OK", "")));
    desk.sweep(ms(1_000));
    peer.nothing();
    // Of a call that is over, or never was.
    desk.hears(CALLER, &answer(&bye, "200 OK", ""), ms(1_001));
    assert!(is(&peer.next(), Method::Invite));
    desk.hears(CALLEE, &bye, ms(1_002));
    assert!(peer.next().starts_with("SIP/2.0 481 "));
}

#[test]
fn set_up_times_are_those_of_the_calls_that_were_due_in_the_window_whenever_they_were_answered() {
    let peer = Peer::new();
    let mut desk = Desk::new(Wire::Udp, peer.0.local_addr().unwrap(), None);
    desk.crowd.order.arrival = Arrival::Open { calls_per_s: 1.0 };
    desk.crowd.register_all(ms(0), &mut desk.lines);
    (0..2).for_each(|_| drop(peer.next()));
    desk.crowd.begin(ms(1));
    let place = |desk: &mut Desk, due: u64, now: u64| {
        desk.crowd.place_one(ms(due), ms(now), &mut desk.lines);
        peer.next()
    };
    let of_before = place(&mut desk, 50, 50);
    desk.crowd.open(ms(100), &desk.lines);
    desk.hears(CALLER, &answer(&of_before, "200 OK", CONTACT), ms(120));
    (0..2).for_each(|_| drop(peer.next()));
    // Placed late: its time is that from when it was due.
    let [quick, slow, refused, _silent] = [200, 210, 220, 230].map(|due| place(&mut desk, due, due + 5));
    desk.hears(CALLER, &answer(&quick, "200 OK", CONTACT), ms(230));
    let figures = desk.crowd.close(ms(1_100), &desk.lines);
    let times = |recorded: &[(u64, u64)]| {
        recorded
            .iter()
            .flat_map(|(us, n)| vec![(*us as f64 / 1e4).round() as u64 * 10; *n as usize])
            .collect::<Vec<_>>()
    };
    assert_eq!((times(&figures.set_up), figures.invites), (vec![30], 2), "one was due before the window");
    desk.hears(CALLER, &answer(&slow, "200 OK", CONTACT), ms(1_510));
    desk.hears(CALLER, &answer(&refused, "503 Service Unavailable", ""), ms(2_220));
    let Report::Drained { unfinished, failures, set_up } = desk.crowd.drained(ms(3_230)) else { panic!() };
    // Before, quick and slow wait for the end of their BYE; nobody has answered the last one.
    assert_eq!((unfinished, failures.len()), (4, 1));
    // The one that was refused and the one that nobody has answered count like one that heard nothing until the patience ended.
    assert_eq!(times(&set_up), [1_300, 10_000, 10_000]);
}

/// A TCP proxy by hand: the connections that the phones opened, in turn.
fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

fn read(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).expect("a message");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn a_callee_goes_on_over_a_new_connection_when_that_is_registered_and_lets_the_old_one_be_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut desk = Desk::new(Wire::Tcp, listener.local_addr().unwrap(), Some(2));
    desk.crowd.register_all(ms(0), &mut desk.lines);
    let (mut caller, mut callee) = (accept(&listener), accept(&listener));
    for (phone, stream) in [(CALLER, &mut caller), (CALLEE, &mut callee)] {
        // A message waits until its connection is up.
        let line = desk.crowd.phones[phone].line.unwrap();
        desk.lines.writable(line);
        desk.hears(phone, &answer(&read(stream), "200 OK", ""), ms(1));
    }
    let old = desk.crowd.phones[CALLEE].line.unwrap();
    let old_address = String::from_utf8(desk.lines.get(old).unwrap().sent_by.clone()).unwrap();
    desk.crowd.begin(ms(10));
    desk.crowd.open(ms(10), &desk.lines);
    desk.sweep(ms(10));
    let invite = read(&mut caller);
    desk.hears(CALLEE, &invite, ms(11));
    let ok = read(&mut callee);
    desk.hears(CALLER, &ok[ok.find("SIP/2.0 200").unwrap()..], ms(12));
    let requests = read(&mut caller);
    let bye = &requests[requests.find("BYE ").expect("a BYE")..];
    desk.hears(CALLEE, bye, ms(13));
    // Two operations are over: the callee opens the next connection, and is still reached over the old one.
    let mut renewed = accept(&listener);
    assert_eq!(desk.crowd.phones[CALLEE].line, Some(old));
    let coming = desk.crowd.phones[CALLEE].coming.unwrap();
    desk.lines.writable(coming);
    let register = read(&mut renewed);
    let address = String::from_utf8(desk.lines.get(coming).unwrap().sent_by.clone()).unwrap();
    assert_ne!(address, old_address);
    assert!(register.contains(&format!("@{address};transport=tcp>;expires=300\r\n")), "{register}");
    assert!(register.contains(&format!("@{old_address};transport=tcp>;expires=0\r\n")), "{register}");
    desk.crowd.heard(answer(&register, "200 OK", "").as_bytes(), coming, ms(14), &mut desk.lines);
    assert_eq!((desk.crowd.phones[CALLEE].line, desk.crowd.phones[CALLEE].coming), (Some(coming), None));
    // The proxy closes the old one: it is let go, and nothing else happens.
    callee.write_all(b"\r\n").unwrap();
    drop(callee);
    desk.crowd.lost(old, ms(15), &mut desk.lines);
    assert!(desk.lines.get(old).is_none());
    let figures = desk.crowd.close(ms(1_010), &desk.lines);
    assert_eq!((figures.connections, figures.registrations, figures.closed_by_proxy), (1, 1, 1));
}
