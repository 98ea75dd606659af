//! Steady load on the host: none of 10,000 calls fails at 500 a second, and no worker wakes in vain.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::time::Duration;

use strowger::phone::agent::Manner;
use strowger::phone::load::{Load, Order, Pace};
use strowger::transport::Transport;
use support::daemon::{Daemon, counter, messages_in};
use support::process::voluntary_switches;
use support::proxy::{Proxy, Setup};
use support::sipp::{Scenario, Sipp, names, register};
use support::{DOMAIN, Room, say};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// 10,000 calls at 500 a second over `transport`.
fn steady_load(transport: Transport) {
    let room = Room::new("load");
    let setup = Setup::on(HOME, &[transport]);
    let proxy = Proxy::start(&room, &setup);
    let toward = setup.address(transport);
    let calls = 10_000;
    let limit = Duration::from_secs(calls / 500 + 60);
    let callee = Sipp::new(Scenario::Callee, transport, toward).ring_ms(0).limit(limit).start(&room);
    let phones = names("load", 100);
    register(&room, (transport, toward), &phones, callee.local, transport);
    let report = Sipp::new(Scenario::Caller, transport, toward)
        .users(&phones)
        .calls(calls)
        .rate(500)
        .at_once(2000)
        .limit(limit)
        .start(&room)
        .finish();
    say(&format!("{}: {report}", transport.uri_token()));
    report.must_be_whole(calls);
    drop(callee);
    proxy.stop();
}

#[test]
fn none_of_10_000_calls_fails_over_udp() {
    steady_load(Transport::Udp);
}

#[test]
fn none_of_10_000_calls_fails_over_tcp() {
    steady_load(Transport::Tcp);
}

/// What the daemon counted, and the kernel: wake-ups per message that a worker was handed, by a phone or (over TCP, where a
/// connection has one owner) by another worker's mailbox: to send on a connection of another's, that one must wake.
#[derive(Clone, Copy, Debug)]
struct WakeUps {
    counted: f64,
    switches: f64,
}

/// Calls 10 ms apart, so that mostly one message is under way: each is a wake-up of its own, and if it wakes two workers it
/// shows. (In bursts, as SIPp sends, a worker finds several messages at each wake-up, which hides the vain ones.)
fn one_by_one(transport: Transport, workers: usize) -> WakeUps {
    let room = Room::new("wake");
    let setup = Setup { workers, ..Setup::on(HOME, &[transport]) };
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(transport);
    // Ringing and talk keep 180 and 200, and ACK and BYE, apart: none finds its worker awake.
    let manner = Manner { ring: Duration::from_millis(3), talk: Duration::from_millis(3), ..Manner::default() };
    let mut load = Load::new(DOMAIN, manner).expect("phones");
    let mut crowd = |name: &str| -> Vec<usize> {
        (0..8).map(|n| load.add_phone(&format!("{name}{n}"), transport, HOME, toward).expect("a phone")).collect()
    };
    let (callers, callees) = (crowd("a"), crowd("z"));
    let everyone: Vec<_> = callers.iter().chain(&callees).copied().collect();
    assert!(load.register(&everyone, 600).expect("a poll").is_empty(), "phones are not registered");
    let calls = 1000;
    let order =
        Order { calls, longest: Duration::MAX, pace: Pace::PerSecond(100.0), callers: &callers, callees: &callees };
    let pids = daemon.workers();
    let switches = || pids.iter().map(|pid| voluntary_switches(*pid)).sum::<u64>();
    let (before, switches_before) = (daemon.status(), switches());
    let tally = load.place(&order, &mut |_| ControlFlow::Continue(())).expect("a poll");
    let (switches, after) = (switches() - switches_before, daemon.status());
    assert_eq!((tally.completed, tally.failed), (calls, 0), "{:?}", tally.failures);
    let messages = messages_in(&after) - messages_in(&before);
    let wake_ups = counter(&after, "wake_ups") - counter(&before, "wake_ups");
    let posted = counter(&after, "posted") - counter(&before, "posted");
    // INVITE, 180, 200, ACK, BYE, 200: the ratio's divisor is nothing but what phones sent.
    assert!(messages >= 6 * calls && messages <= 6 * calls + 20, "{messages} messages of {calls} calls");
    #[allow(clippy::cast_precision_loss)]
    let per_message = |n: u64| n as f64 / (messages + posted) as f64;
    let seen = WakeUps { counted: per_message(wake_ups), switches: per_message(switches) };
    say(&format!(
        "{}, {workers} workers: {messages} messages, {posted} posted, {wake_ups} wake-ups: {:.3} for each, by the kernel {:.3}",
        transport.uri_token(),
        seen.counted,
        seen.switches
    ));
    daemon.stop();
    seen
}

#[test]
fn workers_wake_once_for_a_message() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for workers in [2, 4] {
            // Seen at this pace: 0.99 and 1.00 over UDP; over TCP 1.46 per message of a phone, half of which are posted.
            let seen = one_by_one(transport, workers);
            assert!(seen.counted <= 1.05 && seen.switches <= 1.05, "{transport:?}, {workers} workers: {seen:?}");
        }
    }
}
