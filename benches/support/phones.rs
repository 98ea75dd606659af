//! Phones that call through a proxy, in rounds, and what a round cost the proxy.
//!
//! Owns: what is counted, per operation: one INVITE or BYE transaction, so a call is two. The phones are this process; its own CPU is
//! not counted.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use strowger::phone::agent::Manner;
use strowger::phone::load::{Load, Order, Pace};
use strowger::transport::Transport;

use crate::proxy::{DOMAIN, LOOPBACK, Proxy, Spent};

pub struct Phones {
    load: Load,
    callers: Vec<usize>,
    callees: Vec<usize>,
}

/// What the phones saw of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    pub operations: u64,
    pub took: Duration,
    pub failed: u64,
    pub retransmitted: u64,
    /// Open loop: the most that a call began late. More than a few ms: these phones could do no more.
    pub behind: Duration,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Phones {
    /// So many callers, and as many callees, each with a connection or association of its own; registered.
    pub fn new(proxy: &Proxy, transport: Transport, pairs: usize) -> Phones {
        let mut load = Load::new(DOMAIN, Manner::default()).expect("phones");
        let mut crowd = |what: &str| -> Vec<usize> {
            let add = |n| load.add_phone(&format!("{what}-{n}"), transport, LOOPBACK, proxy.address).expect("a phone");
            (0..pairs).map(add).collect()
        };
        let (callers, callees) = (crowd("caller"), crowd("callee"));
        let everyone: Vec<usize> = callers.iter().chain(&callees).copied().collect();
        let refused = load.register(&everyone, 3_600).expect("registrations");
        assert!(refused.is_empty(), "{refused:?}");
        Phones { load, callers, callees }
    }

    /// Calls that begin within so long; returns when the last one is over.
    pub fn call(&mut self, pace: Pace, longest: Duration) -> Calls {
        let (callers, callees) = (&self.callers[..], &self.callees[..]);
        let order = Order { calls: u64::MAX, longest, pace, callers, callees };
        let tally = self.load.place(&order, &mut |_| ControlFlow::Continue(())).expect("calls");
        let at = |quantile| tally.set_up.value_at_quantile(quantile) as f64 / 1e3;
        Calls {
            operations: 2 * tally.placed,
            took: tally.took,
            failed: tally.failed,
            retransmitted: tally.retransmitted,
            behind: tally.behind,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        }
    }

    /// Answers what comes (late messages, registrations' ends) for so long.
    pub fn rest(&mut self, how_long: Duration) {
        let began = Instant::now();
        while began.elapsed() < how_long {
            self.load.attend().expect("a poll");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// CPU of a proxy from the beginning of a round to that of the next one. What becomes of a finished transaction (ours stay for up to
/// 32 s, Kamailio's for 5 s) is paid when the calls are long over: once rounds have been alike for so long, each pays for one like it.
pub struct Meter {
    began: Instant,
    before: Spent,
    idle: Spent,
    idle_for: Duration,
}

/// What a round cost, per operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU of all the proxy's processes, µs; what it uses without calls is taken off for the time without calls.
    pub cpu: f64,
    /// How often one of them went to sleep.
    pub sleeps: f64,
}

impl Meter {
    /// Looks for so long at what the proxy uses while nobody calls.
    pub fn of(proxy: &Proxy, phones: &mut Phones, idle_for: Duration) -> Meter {
        let (began, before) = (Instant::now(), proxy.spent());
        phones.rest(idle_for);
        Meter { began, before, idle: proxy.spent() - before, idle_for: began.elapsed() }
    }

    pub fn begin(&mut self, proxy: &Proxy) {
        (self.began, self.before) = (Instant::now(), proxy.spent());
    }

    pub fn end(&self, proxy: &Proxy, calls: &Calls) -> Cost {
        let spent = proxy.spent() - self.before;
        let idle = self.began.elapsed().saturating_sub(calls.took).as_secs_f64() / self.idle_for.as_secs_f64();
        let operations = calls.operations.max(1) as f64;
        Cost {
            cpu: (spent.cpu.as_secs_f64() - idle * self.idle.cpu.as_secs_f64()) * 1e6 / operations,
            sleeps: (spent.sleeps as f64 - idle * self.idle.sleeps as f64) / operations,
        }
    }
}

/// Least, median and greatest.
pub fn spread(figures: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    [0, figures.len() / 2, figures.len().saturating_sub(1)].map(|at| figures.get(at).copied().unwrap_or(f64::NAN))
}
