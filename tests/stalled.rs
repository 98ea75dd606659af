//! A peer that stalls is that peer's affair (design §6): the calls of others are set up as fast as without it.
//!
//! - an SCTP peer that stops reading (M05, M08), a TCP peer that stops reading;
//! - an SCTP peer of whose 30 kB message only the first half ever arrives (M12), and one that does so until the window is
//!   used up, so that the kernel hands out pieces (M13).

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use strowger::transport::Transport;
use support::daemon::counter;
use support::proxy::{Proxy, Setup};
use support::raw::Peer;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, kernel, left_to_the_vm, patience, say, slow};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The clock of SIPp's figures ticks in milliseconds, and a loaded machine adds its own.
const GRAIN_MS: f64 = 4.0;

/// A daemon with a callee on `transport`, and calls of which only the set-up time is asked.
struct Street {
    proxy: Proxy,
    setup: Setup,
    transport: Transport,
    phones: Vec<String>,
    _callee: support::sipp::Running,
    room: Room,
}

impl Street {
    fn new(name: &str, transport: Transport, tables: &str) -> Street {
        let room = Room::new(name);
        let transports = if transport == Transport::Udp { vec![transport] } else { vec![transport, Transport::Udp] };
        let setup = Setup { tables: tables.to_owned(), ..Setup::on(HOME, &transports) };
        let proxy = Proxy::start(&room, &setup);
        let toward = setup.address(transport);
        let callee = Sipp::new(Scenario::Callee, transport, toward).ring_ms(0).limit(patience(300)).start(&room);
        let phones = names("s", 10);
        register(&room, (transport, toward), &phones, callee.local, transport);
        Street { proxy, setup, transport, phones, _callee: callee, room }
    }

    /// The time within which 99 of 100 calls were set up.
    fn p99(&self, what: &str) -> f64 {
        let calls = if slow() > 1 { 200 } else { 1000 };
        let report = Sipp::new(Scenario::Caller, self.transport, self.setup.address(self.transport))
            .users(&self.phones)
            .calls(calls)
            .rate(if slow() > 1 { 20 } else { 100 })
            .at_once(400)
            .start(&self.room)
            .finish();
        say(&format!("{} {what}: {report}", self.transport.uri_token()));
        report.must_be_whole(calls);
        if self.transport == Transport::Sctp {
            support::tally_sctp(calls);
        }
        report.percentile(0.99)
    }

    /// The daemon's counters; none of Kamailio's.
    fn counters(&self, names: &[&str]) -> Option<Vec<u64>> {
        let Proxy::Strowger(daemon) = &self.proxy else { return None };
        let status = daemon.status();
        let values: Vec<_> = names.iter().map(|name| counter(&status, name)).collect();
        say(&names.iter().zip(&values).map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "));
        Some(values)
    }

    /// Undisturbed first, then with the disturbance, which stays at work. A machine that is busy with something else can spoil
    /// one look, hardly three; what M05 and M12 describe lasts for as long as the peer stalls.
    fn compare(&self, disturb: impl FnOnce(&Street)) {
        let undisturbed = self.p99("undisturbed");
        disturb(self);
        let mut disturbed = self.p99("beside a stalled peer");
        for _ in 0..2 {
            if disturbed <= 1.5 * undisturbed + GRAIN_MS {
                break;
            }
            disturbed = self.p99("beside a stalled peer, again");
        }
        assert!(
            disturbed <= 1.5 * undisturbed + GRAIN_MS,
            "p99 {disturbed} ms beside a stalled peer, {undisturbed} ms without"
        );
    }
}

/// Keeps sending MESSAGEs to one phone through the daemon, as long as it lives.
struct Flood {
    end: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(toward: SocketAddr, user: &'static str) -> Flood {
        let end = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&end);
        let sender = std::thread::spawn(move || {
            let peer = Peer::connect(Transport::Udp, toward).expect("a UDP sender");
            let body = "x".repeat(1000);
            let pause = Duration::from_millis(if slow() > 1 { 40 } else { 5 });
            for number in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let text =
                    peer.request_with("MESSAGE", user, &format!("w{number}"), "Content-Type: text/plain\r\n", &body);
                let _ = peer.send(text.as_bytes());
                // The first ones fill the buffers, the rest keep them full.
                std::thread::sleep(if number < 1000 { pause / 10 } else { pause });
            }
        });
        Flood { end, sender: Some(sender) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
    }
}

/// A phone that registers over `transport` and never reads again, and messages to it without end.
fn stop_reading(street: &Street, transport: Transport) -> (Peer, Flood) {
    let peer = Peer::connect_with(transport, street.setup.address(transport), |s| s.set_recv_buffer_size(4096))
        .expect("a peer that will stall");
    peer.register("stalled");
    let flood = Flood::start(street.setup.address(Transport::Udp), "stalled");
    std::thread::sleep(patience(3));
    (peer, flood)
}

#[test]
fn an_sctp_peer_that_stops_reading_delays_nobody() {
    if left_to_the_vm("a stalled SCTP peer") {
        return;
    }
    let street = Street::new("stalled-sctp", Transport::Sctp, "");
    let mut held = None;
    street.compare(|street| held = Some(stop_reading(street, Transport::Sctp)));
    let waited = street.counters(&["queued", "queue_full"]);
    assert!(waited.is_none_or(|n| n.iter().sum::<u64>() > 0), "the peer never stalled");
    drop(held);
    street.proxy.stop();
}

#[test]
fn a_tcp_peer_that_stops_reading_delays_nobody() {
    let street = Street::new("stalled-tcp", Transport::Tcp, "[limits]\nconnection_queue_bytes = 65536");
    let mut held = None;
    street.compare(|street| held = Some(stop_reading(street, Transport::Tcp)));
    let waited = street.counters(&["stalled", "queue_full"]);
    assert!(waited.is_none_or(|n| n.iter().sum::<u64>() > 0), "the peer never stalled");
    drop(held);
    street.proxy.stop();
}

/// Loopback with small packets, and a filter on it that lets no DATA chunk of `port` pass but a message's first.
struct HalfWay;

impl HalfWay {
    fn new(port: u16) -> HalfWay {
        run("ip", "link set lo mtu 16000");
        run("tc", "qdisc add dev lo ingress");
        // Offsets from the IP header: 20 source port, 32 type of the first chunk (0: DATA), 33 its flags (2: beginning).
        run(
            "tc",
            &format!(
                "filter add dev lo parent ffff: protocol ip u32 match u8 132 0xff at 9 match u16 {port} 0xffff at 20 \
                 match u8 0 0xff at 32 match u8 0 0x02 at 33 action drop"
            ),
        );
        HalfWay
    }
}

impl Drop for HalfWay {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "ingress"]).status();
        let _ = Command::new("ip").args(["link", "set", "lo", "mtu", "65536"]).status();
    }
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect(program);
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `count` messages of 30 kB from one peer, of each only the first 16 kB on its way.
fn send_halves(street: &Street, count: usize) -> (Peer, HalfWay) {
    let before = kernel::sctp_counters();
    let local = support::free_port(HOME);
    let way = HalfWay::new(local.port());
    let peer = Peer::connect_from(Transport::Sctp, street.setup.address(Transport::Sctp), local, |s| {
        s.set_send_buffer_size(4 << 20)
    })
    .expect("a peer that sends halves");
    for number in 0..count {
        let id = format!("half{number}");
        let text = peer.request_with("MESSAGE", "u", &id, "Content-Type: text/plain\r\n", &"x".repeat(30_000));
        peer.send(text.as_bytes()).expect("the kernel takes it");
    }
    std::thread::sleep(patience(1));
    let after = kernel::sctp_counters();
    let split = kernel::grown(&before, &after, "SctpFragUsrMsgs");
    let whole = kernel::grown(&before, &after, "SctpReasmUsrMsgs");
    say(&format!("{split} messages left in fragments, {whole} arrived whole"));
    assert!(split >= 1 && whole == 0, "{split} messages left in fragments, {whole} arrived whole");
    (peer, way)
}

fn only_in_the_vm(what: &str) -> bool {
    if std::env::var_os("IN_VM").is_none() {
        say(&format!("{what}: changes the loopback device, so only in the virtual machine"));
        return true;
    }
    false
}

#[test]
fn an_sctp_peer_that_sends_half_a_message_delays_nobody() {
    if only_in_the_vm("half a message") {
        return;
    }
    let street = Street::new("half", Transport::Sctp, "");
    let mut held = None;
    street.compare(|street| held = Some(send_halves(street, 1)));
    drop(held);
    street.proxy.stop();
}

#[test]
fn an_sctp_peer_whose_half_messages_use_up_its_window_is_cut_off() {
    if only_in_the_vm("half messages") {
        return;
    }
    // The least buffer the daemon takes without complaint about it; its window is half of what the kernel grants.
    let street = Street::new("halves", Transport::Sctp, "[sctp]\nreceive_buffer_bytes = 524288");
    let mut held = None;
    street.compare(|street| held = Some(send_halves(street, 60)));
    if street.counters(&["pieces", "broken"]).is_some_and(|n| n[0] > 0) {
        let (peer, _way) = held.as_ref().expect("the peer");
        assert!(peer.is_closed_within(patience(5)), "the association lives on after a piece");
    }
    drop(held);
    street.proxy.stop();
}
