//! A daemon and its phones, ready to be measured; the benchmarks of whole calls share it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use strowger::phone::agent::Manner;
use strowger::phone::bench::spread::Spread;
use strowger::phone::daemon::{Daemon, free_port, is_there};
use strowger::phone::load::{Load, Order, Pace};
use strowger::transport::Transport;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One daemon of two workers, and phones that call over one transport.
pub struct Bed {
    pub transport: Transport,
    pub proxy: SocketAddr,
    daemon: Daemon,
    pub load: Load,
    callers: Vec<usize>,
    callees: Vec<usize>,
    pub failed: u64,
}

/// What one round showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// CPU of all the daemon's processes per call, µs.
    pub cpu_us: f64,
    /// Set-up time, ms: median, and 99 of 100.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub calls_per_s: f64,
}

impl Bed {
    /// `phones`: callers, and as many callees. `tables`: more of the configuration.
    pub fn new(transport: Transport, phones: usize, tables: &str) -> Bed {
        let proxy = SocketAddr::new(LOOPBACK, free_port().expect("a free port"));
        // UDP is always listened on: it tells when the daemon is ready.
        let listen = |token| format!("[[listen]]\ntransport = \"{token}\"\naddress = \"{proxy}\"\n");
        let mut text =
            "workers = 2\ndomains = [\"example.test\"]\n[admin]\naddress = \"off\"\n".to_owned() + &listen("udp");
        if transport != Transport::Udp {
            text += &listen(transport.uri_token());
        }
        text += tables;
        let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_strowger")), &text).expect("the daemon");
        let began = Instant::now();
        while !is_there(proxy, Duration::from_millis(50)).expect("a probe") {
            assert!(began.elapsed() < Duration::from_secs(20), "the daemon is not ready: {}", daemon.said());
        }
        let mut load = Load::new("example.test", Manner::default()).expect("phones");
        let mut crowd = |what: &str| -> Vec<usize> {
            let add = |n| load.add_phone(&format!("{what}-{n}"), transport, LOOPBACK, proxy).expect("a phone");
            (0..phones).map(add).collect()
        };
        let (callers, callees) = (crowd("caller"), crowd("callee"));
        let everyone: Vec<usize> = callers.iter().chain(&callees).copied().collect();
        let refused = load.register(&everyone, 3_600).expect("registrations");
        assert!(refused.is_empty(), "{refused:?}");
        Bed { transport, proxy, daemon, load, callers, callees, failed: 0 }
    }

    /// `meanwhile` lets the phones of other beds answer heartbeats.
    pub fn round(&mut self, calls: u64, pace: Pace, meanwhile: &mut dyn FnMut()) -> Round {
        let (callers, callees) = (&self.callers[..], &self.callees[..]);
        let order = Order { calls, longest: Duration::MAX, pace, callers, callees };
        let before = self.daemon.cpu();
        let tally = self.load.place(&order, &mut |_| {
            meanwhile();
            ControlFlow::Continue(())
        });
        let tally = tally.expect("calls");
        let cpu = self.daemon.cpu().saturating_sub(before);
        self.failed += tally.failed;
        let at = |quantile| tally.set_up.value_at_quantile(quantile) as f64 / 1e3;
        Round {
            cpu_us: cpu.as_secs_f64() * 1e6 / tally.placed as f64,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            calls_per_s: tally.completed as f64 / tally.took.as_secs_f64(),
        }
    }

    pub fn stop(self) {
        let _ = self.daemon.stop();
    }
}

/// Each bed once, one after the other; what it showed is added to its place in `rounds`.
pub fn turn(beds: &mut [Bed], calls: u64, pace: Pace, rounds: &mut [Vec<Round>]) {
    for (at, rounds) in (0..beds.len()).zip(rounds) {
        let (before, rest) = beds.split_at_mut(at);
        let Some((bed, after)) = rest.split_first_mut() else { continue };
        rounds.push(bed.round(calls, pace, &mut || {
            before.iter_mut().chain(after.iter_mut()).for_each(|other| other.load.attend().expect("a poll"));
        }));
    }
}

/// Least, median and greatest.
pub fn spread(rounds: &[Round], of: impl Fn(&Round) -> f64) -> [f64; 3] {
    let spread = Spread::of(rounds.iter().map(of));
    spread.map_or([f64::NAN; 3], |spread| [spread.least, spread.median, spread.most])
}
