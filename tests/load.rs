//! Steady load on the host: none of 10,000 calls fails at 500 a second, and no worker wakes in vain (issue 2, design §2).

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use strowger::transport::Transport;
use support::daemon::{counter, messages_in};
use support::proxy::{Proxy, Setup};
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, say};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Calls at 500 a second over `transport`; with the daemon, its wake-ups per message meanwhile.
fn steady_load(transport: Transport, workers: usize, calls: u64) -> Option<f64> {
    let room = Room::new("load");
    let setup = Setup { workers, ..Setup::on(HOME, &[transport]) };
    let proxy = Proxy::start(&room, &setup);
    let toward = setup.address(transport);
    let limit = Duration::from_secs(calls / 500 + 60);
    let callee = Sipp::new(Scenario::Callee, transport, toward).ring_ms(0).limit(limit).start(&room);
    let phones = names("load", 100);
    register(&room, (transport, toward), &phones, callee.local, transport);
    let before = if let Proxy::Strowger(daemon) = &proxy { Some(daemon.status()) } else { None };
    let report = Sipp::new(Scenario::Caller, transport, toward)
        .users(&phones)
        .calls(calls)
        .rate(500)
        .at_once(2000)
        .limit(limit)
        .start(&room)
        .finish();
    say(&format!("{}, {workers} workers: {report}", transport.uri_token()));
    report.must_be_whole(calls);
    let ratio = if let (Proxy::Strowger(daemon), Some(before)) = (&proxy, before) {
        let after = daemon.status();
        let messages = messages_in(&after) - messages_in(&before);
        let wake_ups = counter(&after, "wake_ups") - counter(&before, "wake_ups");
        #[allow(clippy::cast_precision_loss)]
        let (messages, wake_ups) = (messages as f64, wake_ups as f64);
        say(&format!("{wake_ups} wake-ups for {messages} messages: {:.3}", wake_ups / messages));
        Some(wake_ups / messages)
    } else {
        None
    };
    drop(callee);
    proxy.stop();
    ratio
}

#[test]
fn none_of_10_000_calls_fails_over_udp() {
    steady_load(Transport::Udp, 2, 10_000);
}

#[test]
fn none_of_10_000_calls_fails_over_tcp() {
    steady_load(Transport::Tcp, 2, 10_000);
}

/// The timer process wakes 50 times a second of itself: at 500 calls/s that is one in seventy messages.
#[test]
fn workers_wake_once_for_a_message() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for workers in [2, 4] {
            if let Some(ratio) = steady_load(transport, workers, 3_000) {
                assert!(ratio <= 1.05, "{ratio:.3} wake-ups per message over {transport:?} with {workers} workers");
            }
        }
    }
}
