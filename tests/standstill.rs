//! No call stands still on its way through the daemon: messages that change the transport (and so perhaps the process, through a
//! mailbox) and messages that MSG_MORE holds back go on at once. Two workers, ten calls at a time.
//!
//! A wake-up that is lost shows here: a worker with nothing near sleeps until the master's bell rings, which is once a second.

#![allow(clippy::disallowed_methods)] // a test has a clock

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strowger::phone::agent::Manner;
use strowger::phone::daemon::{Daemon, free_port, is_there};
use strowger::phone::load::{Load, Order, Pace, Tally};
use strowger::transport::Transport::{self, Sctp, Tcp, Udp};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const AT_ONCE: usize = 10;
/// More than the median, a call may take this long...
const MOST: Duration = Duration::from_millis(400);
/// ... and as long as this where the machine itself stands still. Both together are less than what a lost wake-up costs.
const MOST_OF_MACHINE: Duration = Duration::from_millis(400);

/// The most that a sleep of a millisecond took too long: what the machine, not the daemon, stood still.
struct Jitter {
    worst_us: AtomicU64,
    over: AtomicBool,
}

impl Jitter {
    fn watch(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let began = Instant::now();
            std::thread::sleep(Duration::from_millis(1));
            self.worst_us.fetch_max(began.elapsed().as_micros() as u64 - 1_000, Ordering::Relaxed);
        }
    }
}

/// Places calls; returns what became of them and the machine's own worst delay meanwhile.
fn place(load: &mut Load, calls: u64, callers: &[usize], callees: &[usize]) -> (Tally, Duration) {
    let jitter = Jitter { worst_us: AtomicU64::new(0), over: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        scope.spawn(|| jitter.watch());
        scope.spawn(|| jitter.watch());
        let order = Order { calls, longest: Duration::MAX, pace: Pace::AtOnce(AT_ONCE), callers, callees };
        let tally = load.place(&order, &mut |_| ControlFlow::Continue(()));
        jitter.over.store(true, Ordering::Relaxed);
        (tally.unwrap(), Duration::from_micros(jitter.worst_us.load(Ordering::Relaxed)))
    })
}

#[test]
fn no_call_stands_still_between_two_transports() {
    let kernel_has_sctp = sys::sctp::supported();
    // Where there is no SCTP, calls between TCP phones pass the mailboxes, too.
    let pairs: &[(Transport, Transport)] =
        if kernel_has_sctp { &[(Sctp, Tcp), (Tcp, Sctp)] } else { &[(Udp, Tcp), (Tcp, Tcp)] };
    let calls = 2_000;
    let proxy = SocketAddr::new(LOOPBACK, free_port().unwrap());
    let mut text = "domains = [\"example.test\"]\nworkers = 2\ndrain_s = 1\n[admin]\naddress = \"off\"\n".to_owned();
    for transport in Transport::ALL.into_iter().filter(|t| *t != Sctp || kernel_has_sctp) {
        text += &format!("\n[[listen]]\ntransport = \"{}\"\naddress = \"{proxy}\"\n", transport.uri_token());
    }
    let mut daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_strowger")), &text).unwrap();
    let began = Instant::now();
    while !is_there(proxy, Duration::from_millis(100)).unwrap() {
        assert!(daemon.ended().is_none() && began.elapsed() < Duration::from_secs(30), "{}", daemon.said());
    }

    let mut load = Load::new("example.test", Manner { patience: Duration::from_secs(8), ..Manner::default() }).unwrap();
    for (nth, (from, to)) in pairs.iter().enumerate() {
        let mut crowd = |what: &str, transport: Transport| -> Vec<usize> {
            let user = |n| format!("{what}-{nth}-{n}");
            (0..AT_ONCE).map(|n| load.add_phone(&user(n), transport, LOOPBACK, proxy).unwrap()).collect()
        };
        let (callers, callees) = (crowd("a", *from), crowd("z", *to));
        let failures = load.register(&[callers.clone(), callees.clone()].concat(), 600).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        let (tally, jitter) = place(&mut load, calls, &callers, &callees);
        let at = |quantile| Duration::from_micros(tally.set_up.value_at_quantile(quantile));
        let (median, worst) = (at(0.5), at(1.0));
        println!(
            "{} to {}: {calls} calls, set-up {median:?} in the middle, {:?} for 99 %, {worst:?} at worst; the machine stood still for {jitter:?}",
            from.via_token(),
            to.via_token(),
            at(0.99),
        );
        assert_eq!((tally.completed, tally.failed), (calls, 0), "{:?}\n{}", tally.failures, daemon.said());
        // Ten messages make a set-up, and each may be the one that the machine makes wait.
        assert!(worst <= median + MOST + MOST_OF_MACHINE.min(10 * jitter), "a call stood still for {worst:?}");
    }
    drop(load);
    assert!(daemon.stop().unwrap().success());
}
